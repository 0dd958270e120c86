"""Whose signatures count at which index."""

from sealtape.schemas.canonical import fields
from sealtape.schemas.evidence import parse_evidence_policy
from sealtape.schemas.tlog.statements import read_statement
from sealtape.schemas.verify.key_history import KeyHistory, signed_by
from tests.factories.bundles import ANN, BOB, PLAIN, trusting
from tests.vectors.bundle_parts import Log, ed25519, line, note, vkey

OTHER = "node-2"
SEED = {OTHER: b"\x51" * 32, "admin.example/cas": b"\x52" * 32}
CAS = "admin.example/cas"


def key_of(name):
    return vkey(name, key=ed25519(name, SEED.get(name)))


def history(*steps, rules=PLAIN):
    """What `key` entries from index 1 on add up to: (action, role, name, since, signers)."""
    log = Log()
    log.start()
    for action, role, name, more, *signers in steps:
        body = {"action": action, "role": role, "key": key_of(name), "replaces": "", "since": None}
        if action == "revoke":
            body["since"] = str(more)
        if action == "rotate":
            body["replaces"] = key_of(more)
        pairs = [(signer, ed25519(signer, SEED.get(signer))) for signer in signers or (ANN,)]
        log.statement("key", body, *pairs)
    entries = {
        index: read_statement(fields(entry, "entry"))
        for index, entry in enumerate(log.entries)
        if index
    }
    return KeyHistory(parse_evidence_policy(rules.encode()), entries)


def names(keys, role, index):
    return sorted(verifier.name for verifier in keys.verifiers(role, index))


def test_a_key_counts_behind_its_introduction():
    keys = history(("introduce", "node", "node-1", None))
    assert [names(keys, "node", index) for index in (0, 1, 2)] == [[], [], ["node-1"]]
    assert names(keys, "reaper", 9) == []
    assert keys.ignored == []


def test_the_policys_keys_count_from_the_beginning():
    keys = history(rules=trusting(PLAIN, "node-1"))
    assert names(keys, "node", 0) == ["node-1"]
    assert names(keys, "admin", 0) == [ANN, BOB]


def test_a_revoked_key_counts_no_more_wherever_that_is_said():
    keys = history(("introduce", "node", "node-1", None), ("revoke", "node", "node-1", 9))
    assert [names(keys, "node", index) for index in (8, 9)] == [["node-1"], []]
    back = history(("introduce", "node", "node-1", None), ("revoke", "node", "node-1", 1))
    assert names(back, "node", 2) == []
    pinned = history(("revoke", "node", "node-1", 5), rules=trusting(PLAIN, "node-1"))
    assert [names(pinned, "node", index) for index in (4, 5)] == [["node-1"], []]


def test_a_rotated_key_gives_its_place():
    keys = history(("introduce", "node", "node-1", None), ("rotate", "node", OTHER, "node-1"))
    assert [names(keys, "node", index) for index in (1, 2, 3)] == [[], [], [OTHER]]


def test_a_key_introduced_again_does_not_come_back():
    keys = history(
        ("introduce", "node", "node-1", None),
        ("revoke", "node", "node-1", 2),
        ("introduce", "node", "node-1", None),
    )
    assert names(keys, "node", 9) == []


def test_what_no_administrator_signed_is_as_if_it_were_not_there():
    keys = history(
        ("introduce", "node", "node-1", None, "node-1"),
        ("introduce", "node", OTHER, None),
        ("revoke", "node", OTHER, 0, CAS),
    )
    assert names(keys, "node", 9) == [OTHER]
    assert keys.ignored == [1, 3]


def test_a_bad_signature_spoils_a_good_one():
    text = line({"a": 1}) + "\n"
    good, bad = note(text, ANN, BOB), note(text, ANN)
    bob = note("other\n", BOB).split("\n\n")[1]
    admins = history().verifiers("admin", 1)
    assert signed_by(good.encode(), admins) == 2
    assert signed_by((bad + bob).encode(), admins) == 0
    assert signed_by(good.encode(), []) == 0
    assert signed_by(b"no note", admins) == 0


def test_as_many_administrators_as_the_policy_asks_for():
    two = PLAIN.replace("admin_threshold = 1", "admin_threshold = 2")
    step = ("introduce", "node", "node-1", None)
    assert names(history(step, rules=two), "node", 9) == []
    assert names(history((*step, ANN, BOB), rules=two), "node", 9) == ["node-1"]
    keys = history((*step, ANN, ANN[:-3] + "bob"), rules=two)
    assert names(keys, "node", 9) == ["node-1"]
    assert not history().by_admins(note("a\n", ANN).encode(), 1, 2)
    assert history().by_admins(note("a\n", ANN, BOB).encode(), 1, 2)


def test_administrators_introduce_and_end_each_other():
    keys = history(
        ("introduce", "admin", CAS, None),
        ("introduce", "node", "node-1", None, CAS),
        ("revoke", "admin", CAS, 3),
        ("introduce", "node", OTHER, None, CAS),
        ("revoke", "admin", ANN, 0, BOB),
    )
    assert names(keys, "node", 9) == ["node-1"]
    assert keys.ignored == [4]
    assert names(keys, "admin", 9) == [BOB]
    # What Ann signed before it was said that she counts no more stays.
    assert names(keys, "admin", 1) == [ANN, BOB]


def test_a_key_that_signs_no_notes_verifies_nothing():
    log = Log()
    log.start()
    body = {
        "action": "introduce", "role": "node", "key": "public-key-1 x auditor-1 AA==",
        "replaces": "", "since": None,
    }  # fmt: skip
    log.statement("key", body, ANN)
    entry = read_statement(fields(log.entries[1], "entry"))
    keys = KeyHistory(parse_evidence_policy(PLAIN.encode()), {1: entry})
    assert (keys.ignored, keys.verifiers("node", 5)) == ([], [])


def test_statements_that_are_no_keys_are_left_alone():
    log = Log()
    log.start()
    log.statement("release", {"hold": "0a" * 16, "sessions": ["0b" * 16]}, ANN, BOB)
    entry = read_statement(fields(log.entries[1], "entry"))
    keys = KeyHistory(parse_evidence_policy(PLAIN.encode()), {1: entry})
    assert keys.ignored == [1]
