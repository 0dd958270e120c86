"""JSON bodies: vectors, round trips, and each rule broken once."""

import dataclasses
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from sealtape.schemas import bodies, notes
from sealtape.schemas.bodies import (
    Agent,
    Attested,
    Beacon,
    Clock,
    Close,
    Continues,
    Gap,
    Ident,
    Opening,
    RetentionClass,
    StateBody,
)
from sealtape.schemas.errors import FormatError, SignatureError
from sealtape.schemas.frames import MAX_BODY
from sealtape.schemas.slices import Hole

VECTORS = json.loads(
    (Path(__file__).parent.parent / "vectors" / "bodies.json").read_text(encoding="utf-8")
)
CLASSES = {"ident": Ident, "close": Close, "gap": Gap, "clock": Clock, "state": StateBody}
SESSION = bytes(range(16))


def signer(name, seed):
    return notes.Signer(name, Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))


NODE = signer("node-1", 1)


def opening(epoch=0, **changes):
    base = Opening(
        type="session",
        log="sealtape.example/log",
        tenant="main",
        session=SESSION,
        epoch=epoch,
        node="node-1",
        boot=bytes(16),
        worker=0,
        number=1,
        key=signer(notes.session_origin("sealtape.example/log", SESSION, epoch), 2).vkey,
        suite=2,
        salt=bytes(32),
        ident_sha256=bytes(32),
        retention=RetentionClass("standard", 10, 20),
        anchor_ns=5,
    )
    return dataclasses.replace(base, **changes)


def edited(body, path, value):
    """A body with one member changed, in canonical form again."""
    members = json.loads(body)
    *parents, last = path.split(".")
    inner = members
    for name in parents:
        inner = inner[name]
    inner[last] = value
    return json.dumps(members, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


# -- vectors


@pytest.mark.parametrize("case", VECTORS["openings"], ids=lambda case: case["name"])
def test_opening_vectors(case):
    verifier = notes.Verifier.from_vkey(VECTORS["node"])
    found, names = bodies.parse_open(case["payload"].encode(), [verifier])
    assert names == ("node-1",)
    assert found.to_json().decode() == case["line"]
    assert case["payload"].startswith(case["line"] + "\n\n")
    assert bodies.make_open(found, NODE) == case["payload"].encode()


@pytest.mark.parametrize("case", VECTORS["bodies"], ids=lambda case: case["name"])
def test_body_vectors(case):
    kind = CLASSES[case["kind"]]
    assert kind.from_json(case["body"].encode()).to_json().decode() == case["body"]


@pytest.mark.parametrize("case", VECTORS["ignorable"], ids=lambda case: case["name"])
def test_members_that_may_be_ignored(case):
    CLASSES[case["kind"]].from_json(case["body"].encode())


@pytest.mark.parametrize("case", VECTORS["malformed"], ids=lambda case: case["name"])
def test_malformed_vectors(case):
    with pytest.raises(FormatError):
        CLASSES[case["kind"]].from_json(case["body"].encode())


# -- OPEN


@pytest.mark.parametrize(
    "found",
    [
        opening(),
        opening(suite=1, salt=b""),
        opening(1, continues=Continues(0, 2, bytes(32))),
        opening(type="journal", number=0),
        opening(beacon=Beacon("sealtape.example/log", 9, bytes(32))),
    ],
)
def test_an_opening_comes_back(found):
    assert Opening.from_json(found.to_json()) == found
    assert bodies.parse_open(bodies.make_open(found, NODE), [NODE.verifier]) == (found, ("node-1",))
    assert found.origin == found.key.partition("+")[0]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"type": "other"}, "must be one of"),
        ({"tenant": "No Name"}, "name of a tenant"),
        ({"node": "a b"}, "letters, digits"),
        ({"node": ""}, "letters, digits"),
        ({"worker": 65536}, "within"),
        ({"session": bytes(15)}, "16 bytes"),
        ({"boot": bytes(8)}, "16 bytes"),
        ({"salt": bytes(31)}, "salt"),
        ({"salt": b""}, "salt exactly when"),
        ({"suite": 1}, "salt exactly when"),
        ({"suite": 0, "salt": b""}, "is 1 or 2"),
        ({"suite": 3, "salt": b""}, "is 1 or 2"),
        ({"number": 0}, "journal's"),
        ({"number": 2**63}, "within"),
        ({"beacon": Beacon("o", 2**63, bytes(32))}, "within"),
        ({"type": "journal"}, "journal's"),
        ({"continues": Continues(0, 2, bytes(32))}, "0 continues none"),
        ({"key": "sealtape.example/log/session/x/0+1+A"}, "named like its session"),
        ({"log": "sealtape.example/other"}, "named like its session"),
        ({"retention": RetentionClass("standard", 20, 10)}, "less than retain_for_s"),
        ({"retention": RetentionClass("Standard", 10, 20)}, "name of a retention class"),
        ({"policy_sha256": b""}, "32 bytes"),
    ],
)
def test_an_opening_against_the_rules_is_not_written(changes, reason):
    with pytest.raises(FormatError, match=reason):
        opening(**changes).to_json()


def test_an_open_is_a_body_and_no_longer_than_one():
    """With its signatures: rule 6 is of what is stored."""
    line = opening().to_json().decode()
    for size, refused in ((1 << 18, False), ((1 << 18) + 1, True)):
        bare = len(NODE.sign(line + "\n")) + len(',"x-a":""')
        long = line[:-1] + ',"x-a":"' + "a" * (size - bare) + '"}'
        payload = NODE.sign(long + "\n")
        assert len(payload) == size
        if refused:
            with pytest.raises(FormatError, match="at most 262144"):
                bodies.parse_open(payload, [NODE.verifier])
        else:
            assert bodies.parse_open(payload, None)[0] == opening()


@pytest.mark.parametrize(
    "continues", [None, Continues(1, 2, bytes(32)), Continues(0, 0, bytes(32))]
)
def test_a_recovery_epoch_continues_the_one_before(continues):
    with pytest.raises(FormatError):
        opening(1, continues=continues).to_json()


def test_only_a_trusted_node_of_that_name_opens():
    payload = bodies.make_open(opening(), NODE)
    with pytest.raises(SignatureError):
        bodies.parse_open(payload, [signer("node-1", 9).verifier])
    other = signer("node-2", 3)
    with pytest.raises(SignatureError, match="node-2 signed"):
        bodies.parse_open(bodies.make_open(opening(), other), [other.verifier])
    long = signer("sealtape.example/node-1", 4)
    payload = bodies.make_open(opening(), long)
    assert bodies.parse_open(payload, [long.verifier])[1] == ("sealtape.example/node-1",)


def test_without_verifiers_no_signature_is_checked():
    payload = bodies.make_open(opening(), NODE)
    forged = payload.replace(b'"worker":0', b'"worker":1')
    assert bodies.parse_open(forged, None) == (opening(worker=1), ("node-1",))
    with pytest.raises(SignatureError):
        bodies.parse_open(forged, [NODE.verifier])
    with pytest.raises(FormatError):
        bodies.parse_open(b"no note", None)


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "journal", "number": 0}, {"tenant": "other"}, {"node": "node-2"},
        {"boot": b"b" * 16}, {"worker": 9}, {"number": 99},
    ],
)  # fmt: skip
def test_an_epoch_is_of_its_session(changes):
    first = opening()
    opening(1, ident_sha256=b"i" * 32, anchor_ns=9).check_follows(first)
    with pytest.raises(FormatError, match="node, tenant and number"):
        dataclasses.replace(first, **changes).check_follows(first)


# -- IDENT

words = st.text(alphabet=st.characters(codec="utf-8"), max_size=20)


@given(
    st.builds(
        Ident,
        user=words,
        target=words,
        protocol=st.just("postgres"),
        node=st.just("node-1"),
        subject=words,
        groups=st.lists(words, max_size=3).map(tuple),
        issuer=words,
        token_id=words,
        agent=st.none()
        | st.builds(
            Agent, id=words, on_behalf_of=st.lists(words, max_size=3).map(tuple), run=words
        ),
        source_ip=st.just("2001:db8::1"),
        source_port=st.integers(0, 65535),
        software=words,
        application=words,
        parameters=st.lists(words.map("name={}".format), max_size=3).map(tuple),
        database=words,
        expires_ns=st.none() | st.integers(-(2**63), 2**63 - 1),
    )
)
def test_an_ident_comes_back(ident):
    assert Ident.from_json(ident.to_json()) == ident


@pytest.mark.parametrize(
    "changes",
    [
        {"user": "u" * 1025},
        {"groups": ("g",) * 1025},
        {"source_port": 65536},
        {"agent": Agent("a", ("b",) * 17)},
        {"node": ""},
        {"expires_ns": 2**63},
        {"user": "\ud800"},
        {"groups": ("x" * 1024,) * 300},
        {"parameters": ("name",)},
        {"parameters": ("=value",)},
        {"parameters": ("name=" + "v" * 9996,)},
        {"parameters": ("n=",) * 1025},
    ],
)
def test_an_ident_against_the_rules_is_not_written(changes):
    base = Ident("ann", "shop", "postgres", "node-1")
    with pytest.raises(FormatError):
        dataclasses.replace(base, **changes).to_json()


def test_no_parameters_have_one_spelling():
    body = Ident("ann", "shop", "postgres", "node-1").to_json()
    assert b"parameters" not in body
    with pytest.raises(FormatError, match="be absent"):
        Ident.from_json(edited(body, "client.parameters", []))


@pytest.mark.parametrize("path", ["w", "source.w", "client.w", "agent.w"])
def test_unknown_members_are_refused_at_every_depth(path):
    body = Ident("ann", "shop", "postgres", "node-1", agent=Agent("bot")).to_json()
    with pytest.raises(FormatError, match="unknown member"):
        Ident.from_json(edited(body, path, 1))
    Ident.from_json(edited(body, path.replace("w", "x-w"), 1))


def test_a_body_too_large_for_a_frame_is_not_read():
    with pytest.raises(FormatError, match="at most"):
        Ident.from_json(b" " * (MAX_BODY + 1))


# -- CLOSE, GAP, CLOCK, STATE


@pytest.mark.parametrize("reason", bodies.CLOSE_REASONS)
def test_a_close_comes_back(reason):
    close = Close(reason, (1, 2, 3, 2**63 - 1), 5, 6, "53100", Attested(0, 2, 9))
    assert Close.from_json(close.to_json()) == close
    plain = dataclasses.replace(close, attested=None)
    assert Close.from_json(plain.to_json()) == plain


def test_reasons_are_written_from_a_list_and_read_as_words():
    with pytest.raises(FormatError, match="not a reason"):
        Close("bored", (0, 0, 0, 0)).to_json()
    with pytest.raises(FormatError, match="not a reason"):
        Gap("bored").to_json()
    close = Close("client", (0, 0, 0, 0)).to_json()
    assert Close.from_json(edited(close, "reason", "bored")).reason == "bored"
    assert Gap.from_json(edited(Gap("spool").to_json(), "reason", "bored")).reason == "bored"
    with pytest.raises(FormatError, match="lowercase word"):
        Close.from_json(edited(close, "reason", "Bored"))


@pytest.mark.parametrize(
    "changes",
    [
        {"totals": (0, 0, 0, 2**63)},
        {"commands": 2**63},
        {"errors": 2**63},
        {"attested": Attested(0, 1, 2**63)},
    ],
)
def test_counts_of_a_close_are_below_two_to_the_63(changes):
    close = Close("client", (0, 0, 0, 0))
    with pytest.raises(FormatError, match="within"):
        dataclasses.replace(close, **changes).to_json()


@pytest.mark.parametrize("attested", [Attested(0, 5, 5), Attested(0, 6, 5)])
def test_an_attested_range_is_not_empty(attested):
    with pytest.raises(FormatError, match="above from"):
        Close("aborted", (0, 0, 0, 0), attested=attested).to_json()


def test_a_gap_names_legs_once_in_order():
    gap = Gap("spool", (Hole(0, 5, 7), Hole(3, 2**63 - 1, -1)))
    assert Gap.from_json(gap.to_json()) == gap
    for legs in ((Hole(1, 0, 1), Hole(0, 0, 1)), (Hole(1, 0, 1), Hole(1, 1, 1))):
        with pytest.raises(FormatError, match="once, in order"):
            Gap("spool", legs).to_json()
    for hole in (Hole(4, 0, 1), Hole(0, -1, 1), Hole(0, 0, -2), Hole(0, 2**63, 1)):
        with pytest.raises(FormatError):
            Gap("spool", (hole,)).to_json()


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1))
def test_a_clock_comes_back(before, after):
    clock = Clock(before, after)
    assert Clock.from_json(clock.to_json()) == clock
    assert clock.step_ns == after - before


def test_a_clock_step_is_the_difference():
    with pytest.raises(FormatError, match="after_ns - before_ns"):
        Clock.from_json(edited(Clock(1, 5).to_json(), "step_ns", "5"))


def test_a_state_comes_back_in_parts():
    part = StateBody("postgres/1", (1, 2, 3, 4), bytes(bodies.MAX_STATE_PART), 1, 2)
    body = part.to_json()
    assert len(body) < MAX_BODY
    assert StateBody.from_json(body) == part


@pytest.mark.parametrize(
    "changes",
    [
        {"codec": "postgres"},
        {"codec": "postgres/0"},
        {"part": 2},
        {"data": bytes(bodies.MAX_STATE_PART + 1)},
        {"data": bytes(bodies.MAX_STATE_PART + 4)},
        {"data": bytes(MAX_BODY)},
    ],
)
def test_a_state_against_the_rules_is_not_written(changes):
    base = StateBody("postgres/1", (1, 2, 3, 4), b"x", 0, 2)
    with pytest.raises(FormatError):
        dataclasses.replace(base, **changes).to_json()
