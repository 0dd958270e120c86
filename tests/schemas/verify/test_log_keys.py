"""Whose signatures count, by their place in the log."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sealtape.schemas import canonical
from sealtape.schemas.bodies import RetentionClass
from sealtape.schemas.cosignatures import ED25519, Cosigner
from sealtape.schemas.notes import Signer
from sealtape.schemas.tlog.records import Listed
from sealtape.schemas.tlog.statements import (
    DoneStatement,
    Heading,
    HoldStatement,
    IntentStatement,
    KeyStatement,
    PolicyStatement,
    ReleaseStatement,
    sign_statement,
)
from sealtape.schemas.verify.log_keys import KeyBook
from tests.factories.breaches import case_id, cases
from tests.factories.judging import check_breach

HEADING = Heading("sealtape.example/log", b"\x0c" * 16, 1)
SESSIONS = (b"\x10" * 16,)
MATTER = b"\x01" * 32


def signer(name, number):
    return Signer(name, Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32))


ANN, BOB, CY = (signer(f"admin.example/{name}", at) for at, name in enumerate(("ann", "bob", "cy")))
REAPER = signer("reaper.example", 8)
STRANGER = signer("stranger.example", 9)

POLICY = PolicyStatement(HEADING, "main", RetentionClass("standard", 1, 2), bytes(32))
HOLD = HoldStatement(HEADING, MATTER, SESSIONS)
RELEASE = ReleaseStatement(HEADING, b"\x0d" * 16, SESSIONS)
ERASURE = IntentStatement(HEADING, "erasure", MATTER, SESSIONS)
EXPIRED = IntentStatement(HEADING, "expired", bytes(32), SESSIONS)
DONE = DoneStatement(HEADING, b"\x0d" * 16, 0, 0, 0, ())


class Keys(KeyBook):
    """With what was reported; every statement stands one behind the last."""

    def __init__(self, threshold=1, admins=(ANN, BOB)):
        self.wrong = []
        self.at = 0
        self.data = []
        report = self.wrong_at
        super().__init__(report, [key.verifier for key in admins], threshold)

    def wrong_at(self, rule, place, reason):
        self.wrong.append((rule, place[1], reason))

    def say(self, body, *signers):
        statement = sign_statement(body, signers)
        data = statement.to_json()
        if isinstance(body, KeyStatement):
            self.data.append(data)
        self.at += 1
        return self.take((1, self.at), statement, data)

    def key(self, action, key, *signers, role="admin", replaces="", since=None):
        text = key if isinstance(key, str) else key.vkey
        old = replaces if isinstance(replaces, str) else replaces.vkey
        return self.say(KeyStatement(HEADING, action, role, text, old, since), *signers)


def begun(threshold=1, admins=(ANN, BOB)):
    keys = Keys(threshold, admins)
    for admin in admins:
        assert keys.key("introduce", admin, *admins[:threshold])
    assert keys.key("introduce", REAPER, *admins[:threshold], role="reaper")
    assert keys.wrong == []
    return keys


@pytest.mark.parametrize(("rule", "breach"), cases("signed", "keys"), ids=case_id)
def test_breaches(rule, breach):
    check_breach(rule, breach)


@pytest.mark.parametrize(
    ("body", "signers", "threshold", "good"),
    [
        (POLICY, [ANN], 1, True),
        (POLICY, [ANN], 2, False),
        (POLICY, [ANN, BOB], 2, True),
        (POLICY, [STRANGER], 1, False),
        (POLICY, [REAPER], 1, False),
        (HOLD, [BOB, STRANGER], 1, True),
        (RELEASE, [ANN], 1, False),
        (RELEASE, [ANN, BOB], 1, True),
        (ERASURE, [ANN], 1, False),
        (ERASURE, [ANN, BOB], 1, True),
        (ERASURE, [ANN, REAPER], 1, False),
        (EXPIRED, [REAPER], 2, True),
        (EXPIRED, [ANN, BOB], 1, False),
        (DONE, [REAPER], 1, True),
        (DONE, [ANN], 1, False),
    ],
)
def test_who_must_sign(body, signers, threshold, good):
    keys = begun(threshold)
    assert keys.say(body, *signers) is good
    assert [rule for rule, _, _ in keys.wrong] == ([] if good else ["signed"])


def test_three_must_sign_where_the_policy_says_so():
    keys = begun(3, (ANN, BOB, CY))
    assert not keys.say(RELEASE, ANN, BOB)
    assert keys.say(ERASURE, ANN, BOB, CY)


def test_the_first_keys_introduce_the_administrators_of_the_policy():
    keys = Keys(2)
    assert keys.key("introduce", BOB, ANN, BOB)
    assert not keys.say(HOLD, ANN, BOB)  # ann is not introduced
    assert keys.key("introduce", ANN, ANN, BOB)
    assert keys.say(HOLD, ANN, BOB)


@pytest.mark.parametrize(
    ("action", "key", "role"),
    [("introduce", STRANGER, "admin"), ("introduce", ANN, "node"), ("revoke", ANN, "admin")],
)
def test_whatever_else_ends_the_beginning(action, key, role):
    keys = Keys()
    since = 0 if action == "revoke" else None
    assert not keys.key(action, key, ANN, role=role, since=since)
    assert not keys.key("introduce", ANN, ANN)
    assert [rule for rule, _, _ in keys.wrong] == ["signed", "signed"]


def test_an_administrator_of_the_policy_that_was_not_introduced_does_not_count():
    keys = Keys()
    assert keys.key("introduce", ANN, BOB)
    assert keys.key("introduce", REAPER, ANN, role="reaper")
    assert not keys.say(HOLD, BOB)
    assert not keys.key("introduce", BOB, BOB)


def test_nobody_counts_in_an_empty_log():
    keys = Keys()
    assert not keys.say(HOLD, ANN)
    assert keys.wrong == [("signed", 1, "hold with 0 signatures by a known admin, 1 are needed")]


def test_a_bad_signature_by_a_known_key():
    keys = begun()
    good, other = sign_statement(HOLD, [ANN]), sign_statement(POLICY, [ANN])
    note = good.note.split(b"\n\n")[0] + b"\n\n" + other.note.split(b"\n\n")[1]
    bad = type(good)(HOLD, note)
    assert not keys.take((1, 7), bad, bad.to_json())
    ((rule, index, reason),) = keys.wrong
    assert (rule, index) == ("signed", 7)
    assert "does not verify" in reason


def test_a_new_administrator_counts_and_a_replaced_one_no_more():
    keys = begun()
    assert keys.key("rotate", CY, ANN, replaces=ANN)
    assert keys.say(HOLD, CY)
    assert not keys.say(POLICY, ANN)
    assert [rule for rule, _, _ in keys.wrong] == ["signed"]


def test_a_revoked_key_counts_below_its_index():
    keys = begun()
    assert keys.key("introduce", CY, ANN)  # 4
    assert keys.say(POLICY, CY)  # 5
    assert keys.say(HOLD, CY, BOB)  # 6
    assert keys.key("revoke", CY, ANN, since=9)  # 7
    assert keys.say(HOLD, CY)  # 8
    assert not keys.say(HOLD, CY)  # 9
    assert [(rule, index) for rule, index, _ in keys.wrong] == [("signed", 9)]
    assert keys.key("revoke", CY, ANN, since=5)  # 10, and 5 and 8 have no signature left
    assert [(rule, index) for rule, index, _ in keys.wrong[1:]] == [("signed", 5), ("signed", 8)]
    assert "revoked from 5 on by 10" in keys.wrong[1][2]


def test_who_revokes_himself_from_before():
    keys = begun()
    assert keys.key("revoke", ANN, ANN, since=0)
    assert {(rule, index) for rule, index, _ in keys.wrong} == {("signed", n) for n in (1, 2, 3, 4)}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("introduce", ANN, {}), "introduced before"),
        (("introduce", REAPER, {"role": "reaper"}), "introduced before"),
        (("introduce", signer("other.example", 0), {}), "introduced before"),
        (("introduce", "no key", {}), "key id must be"),
        (("introduce", "no key", {"role": "node"}), "key id must be"),
        (("rotate", CY, {"replaces": STRANGER}), "no such key"),
        (("rotate", CY, {"replaces": REAPER}), "no such key"),
        (("rotate", ANN, {"replaces": BOB}), "introduced before"),
        (("revoke", STRANGER, {"since": 0}), "no such key"),
        (("revoke", ANN, {"since": 0, "role": "reaper"}), "no such key"),
    ],
)
def test_changes_that_the_keys_do_not_allow(change, reason):
    keys = begun()
    action, key, more = change
    before = keys.members()["keys"]
    assert keys.key(action, key, BOB, **more)
    ((rule, index, text),) = keys.wrong
    assert (rule, index) == ("keys", 4)
    assert reason in text
    assert keys.members()["keys"] == before


def test_what_counts_no_more_is_not_replaced_nor_revoked_later():
    keys = begun()
    assert keys.key("revoke", BOB, ANN, since=9)
    assert keys.key("rotate", CY, ANN, replaces=BOB)
    assert keys.key("revoke", BOB, ANN, since=9)
    assert [(rule, index) for rule, index, _ in keys.wrong] == [("keys", 5), ("keys", 6)]
    assert keys.key("revoke", BOB, ANN, since=8)
    assert len(keys.wrong) == 2


def test_a_key_may_have_two_roles_and_readers_keys_are_not_looked_at():
    keys = begun()
    cosigner = Cosigner("witness.example", ANN.verifier.public)
    assert cosigner.algorithm == ED25519
    assert keys.key("introduce", cosigner.vkey, ANN, role="witness")
    assert keys.key("introduce", "p256 words", ANN, role="auditor")
    assert keys.key("introduce", signer("node-1", 0), ANN, role="node")
    assert keys.wrong == []


def test_what_a_heartbeat_lists_and_where_a_shard_begins():
    keys = begun()
    keys.say(HOLD, ANN)
    keys.key("introduce", CY, STRANGER)
    assert keys.listed() == Listed.of(keys.data)
    assert len(keys.data) == 4
    keys.begin()
    assert keys.listed() == Listed.of([])
    assert not keys.say(HOLD, ANN)
    assert keys.key("introduce", ANN, ANN)


def test_it_can_be_kept():
    keys, other = begun(), Keys()
    keys.key("introduce", CY, ANN)
    keys.say(POLICY, CY)
    keys.key("revoke", CY, ANN, since=9)
    other.read(canonical.fields(canonical.encode(keys.members()), "state"))
    assert other.members() == keys.members()
    assert other.listed() == keys.listed()
    for book in (keys, other):
        book.at = 9
        book.key("revoke", CY, BOB, since=5)
    assert other.wrong == keys.wrong != []
