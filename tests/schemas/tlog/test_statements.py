"""Statements: signed by whom they say, read back, refused in any other form."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sealtape.schemas import canonical, notes
from sealtape.schemas.bodies import RetentionClass
from sealtape.schemas.errors import FormatError
from sealtape.schemas.tlog import statements
from sealtape.schemas.tlog.statements import (
    DoneStatement,
    Heading,
    HoldStatement,
    IntentStatement,
    KeyStatement,
    PolicyStatement,
    ReleaseStatement,
    read_statement,
    sign_statement,
)

VECTORS = json.loads(
    (Path(__file__).parents[2] / "vectors" / "records.json").read_text(encoding="utf-8")
)
ENTRIES = {item["name"]: item["entry"].encode() for item in VECTORS["entries"]}
TEXTS = [name for name, entry in ENTRIES.items() if b'"statement"' in entry]
ADMINS = [notes.Verifier.from_vkey(vkey) for vkey in VECTORS["admins"].values()]
SIGNERS = [
    notes.Signer(verifier.name, Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32))
    for number, verifier in enumerate(ADMINS, 7)
]
HEADING = Heading("sealtape.example/log", b"\x0c" * 16, 1_795_392_020_123_456_789)
SESSION = bytes(range(0x10, 0x20))
OTHER = bytes(range(0x30, 0x40))
MATTER = b"\x44" * 32
BODIES = {
    "key": KeyStatement(HEADING, "introduce", "node", "node-1+00000000+AQ=="),
    "rotate": KeyStatement(HEADING, "rotate", "log", "a", replaces="b"),
    "revoke": KeyStatement(HEADING, "revoke", "auditor", "suite id key", since=7),
    "policy": PolicyStatement(HEADING, "main", RetentionClass("standard", 1, 2), MATTER),
    "hold": HoldStatement(HEADING, MATTER, (SESSION, OTHER)),
    "release": ReleaseStatement(HEADING, b"\x01" * 16, (OTHER,)),
    "expired": IntentStatement(HEADING, "expired", bytes(32), (OTHER,)),
    "erasure": IntentStatement(HEADING, "erasure", MATTER, (OTHER,)),
    "done": DoneStatement(HEADING, b"\x01" * 16, 52, 4, 120, (MATTER,)),
}


def read(data):
    return read_statement(canonical.fields(data, "entry"))


@pytest.mark.parametrize("name", TEXTS)
def test_vectors(name):
    statement = read(ENTRIES[name])
    assert statement.to_json() == ENTRIES[name]
    opened = notes.open_note(statement.note, ADMINS)
    assert not opened.unverified
    signers = [signer for signer in SIGNERS if signer.name in opened.signers]
    assert sign_statement(statement.body, signers) == statement
    assert statement.body.heading == HEADING


def test_every_kind_has_vectors():
    assert {read(ENTRIES[name]).kind for name in TEXTS} == set(statements.STATEMENTS)


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_round_trip(body):
    statement = sign_statement(body, SIGNERS)
    assert statement.kind == body.kind
    assert read(statement.to_json()) == statement
    assert notes.open_note(statement.note, ADMINS).signers == tuple(s.name for s in SIGNERS)


@pytest.mark.parametrize(
    ("name", "changes", "word"),
    [
        ("key", {"heading": replace(HEADING, log="a log")}, "not a key name"),
        ("key", {"heading": replace(HEADING, id=b"short")}, "id must be 16"),
        ("key", {"action": "forget"}, "action"),
        ("key", {"role": "friend"}, "role"),
        ("key", {"key": ""}, "key on one line"),
        ("key", {"key": "a\tb"}, "key on one line"),
        ("key", {"replaces": "a"}, "at most 0"),
        ("key", {"since": 4}, "since"),
        ("rotate", {"replaces": ""}, "whose place"),
        ("rotate", {"replaces": "a"}, "whose place"),
        ("revoke", {"since": None}, "since"),
        ("revoke", {"since": -1}, "within"),
        ("policy", {"policy_sha256": b""}, "32 bytes"),
        ("policy", {"tenant": "Main"}, "name of a tenant"),
        ("hold", {"sessions": ()}, "at least one"),
        ("hold", {"sessions": (OTHER, SESSION)}, "ascending"),
        ("hold", {"sessions": (SESSION, SESSION)}, "ascending"),
        ("hold", {"sessions": tuple(n.to_bytes(16, "big") for n in range(1001))}, "at most 1000"),
        ("hold", {"matter": b"x"}, "32 bytes"),
        ("release", {"hold": b"x"}, "16 bytes"),
        ("expired", {"matter": MATTER}, "zeros"),
        ("erasure", {"matter": bytes(32)}, "zeros"),
        ("erasure", {"basis": "whim"}, "basis"),
        ("done", {"index": -1}, "within"),
        ("done", {"objects": (MATTER,) * 501}, "at most 500"),
    ],
)
def test_bodies_that_are_refused(name, changes, word):
    with pytest.raises(FormatError, match=word):
        sign_statement(replace(BODIES[name], **changes), SIGNERS)


def entry(**changes):
    members = json.loads(ENTRIES["hold"]) | changes
    return canonical.encode({name: value for name, value in members.items() if value is not None})


def signed(text):
    return notes.sign_note(text, SIGNERS[:1]).decode()


LINE = json.loads(ENTRIES["hold"])["statement"].split("\n")[0]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"v": 2}, "version"),
        ({"type": "release"}, "type must be one of release"),
        ({"type": "other"}, "one of"),
        ({"statement": None}, "missing"),
        ({"statement": LINE}, "no signatures"),
        ({"more": 1}, "unknown member"),
        ({"statement": signed(LINE + "\n" + LINE + "\n")}, "hold is not"),
        ({"statement": signed(LINE.replace('"v":1', '"v":2') + "\n")}, "version"),
        ({"statement": signed(LINE.replace('"v":1', '"v":1,"w":1') + "\n")}, "unknown member"),
        ({"statement": signed(LINE.replace(",", ", ", 1) + "\n")}, "canonical"),
    ],
)
def test_entries_that_are_refused(changes, word):
    with pytest.raises(FormatError, match=word):
        read(entry(**changes))


def test_an_entry_has_a_largest_size():
    many = tuple(n.to_bytes(16, "big") for n in range(1000))
    body = replace(BODIES["hold"], sessions=many)
    assert len(sign_statement(body, SIGNERS).to_json()) < 65_535
    crowd = [
        notes.Signer("x" * 200 + str(number), Ed25519PrivateKey.generate()) for number in range(99)
    ]
    with pytest.raises(FormatError, match="65535"):
        sign_statement(body, crowd)
