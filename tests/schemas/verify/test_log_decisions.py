"""Terms, holds, releases and deletions."""

from dataclasses import replace

import pytest

from sealtape.schemas import canonical
from sealtape.schemas.bodies import RetentionClass
from sealtape.schemas.tlog.statements import (
    DoneStatement,
    Heading,
    HoldStatement,
    IntentStatement,
    KeyStatement,
    PolicyStatement,
    ReleaseStatement,
)
from sealtape.schemas.verify.log_decisions import Decisions
from sealtape.schemas.verify.log_sessions import Kept
from sealtape.schemas.verify.violations import NS, Limits
from tests.factories.breaches import case_id, cases
from tests.factories.judging import check_breach
from tests.schemas.verify import test_log_epochs as parts

A, B, C = (bytes([n]) * 16 for n in (1, 2, 3))
MATTER = b"\x01" * 32
DAY = 86_400
WITNESSED = 1_000 * NS


class Desk(Decisions):
    """With what was reported; every statement stands one behind the last."""

    def __init__(self):
        self.wrong = []
        self.at = 0
        self.sessions = {
            A: Kept("main", "standard", DAY, sealed=True, witnessed_ns=WITNESSED),
            B: Kept("main", "standard", 2 * DAY, sealed=True, witnessed_ns=WITNESSED),
        }
        report = self.wrong_at
        super().__init__(report, self.sessions.get)

    def wrong_at(self, rule, place, reason):
        self.wrong.append((rule, place[1]))

    def say(self, kind, *values, ident=None):
        self.at += 1
        ident = ident or bytes([self.at]) * 16
        body = kind(Heading("log.example", ident, 0), *values)
        self.take((1, self.at), ident, body)
        return ident

    def hold(self, *sessions):
        return self.say(HoldStatement, MATTER, sessions)

    def intent(self, *sessions, basis="expired"):
        matter = bytes(32) if basis == "expired" else MATTER
        return self.say(IntentStatement, basis, matter, sessions)

    def terms(self, seconds, tenant="main", name="standard"):
        retention = RetentionClass(name, seconds, 10 * DAY)
        return self.say(PolicyStatement, tenant, retention, bytes(32))

    def done(self, intent, index):
        return self.say(DoneStatement, intent, index, 1, 1, ())

    def seen(self, at_s, skew_s=0):
        self.witnessed(at_s * NS, Limits(skew_s=skew_s))


RULES = ("release", "held", "early", "done")


@pytest.mark.parametrize(("rule", "breach"), cases(*RULES), ids=case_id)
def test_breaches(rule, breach):
    check_breach(rule, breach)


@pytest.mark.parametrize(
    ("at_s", "skew_s", "wrong"),
    [
        (1_000 + DAY - 1, 0, [("early", 1)]),
        (1_000 + DAY, 0, []),
        (1_000 + DAY - 300, 300, []),
        (1_000 + DAY - 301, 300, [("early", 1)]),
    ],
)
def test_a_session_is_kept_for_its_term(at_s, skew_s, wrong):
    desk = Desk()
    desk.intent(A)
    desk.seen(at_s, skew_s)
    assert desk.wrong == wrong
    desk.seen(0)
    assert desk.wrong == wrong


def test_the_longest_term_counts():
    desk = Desk()
    desk.terms(3 * DAY)
    desk.terms(9 * DAY, tenant="other")
    desk.terms(9 * DAY, name="other")
    desk.intent(A)
    desk.terms(0)
    desk.intent(A, B)
    desk.seen(1_000 + DAY)
    assert desk.wrong == [("early", 4), ("early", 6)]


def test_a_policy_counts_from_its_place_on():
    desk = Desk()
    desk.intent(A)
    desk.terms(3 * DAY)
    desk.seen(1_000 + DAY)
    assert desk.wrong == []


def test_what_is_not_sealed_is_not_old():
    desk = Desk()
    desk.sessions[B] = Kept("main", "standard", 0, sealed=False, witnessed_ns=0)
    desk.intent(B, C)
    assert desk.wrong == [("early", 1), ("early", 1)]
    desk.seen(10**9)
    assert len(desk.wrong) == 2


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize(("at_s", "wrong"), [(DAY, []), (DAY - 1, [("early", 1)])])
def test_what_comes_behind_the_intent_makes_no_session_younger(at_s, wrong, kept):
    """A node that was away for long brings its last frames when it likes."""
    desk = Desk()
    desk.intent(A)
    desk.sessions[A] = Kept("main", "standard", DAY, sealed=True, witnessed_ns=10**18, epochs=2)
    if kept:
        members, old, desk = canonical.encode(desk.members()), desk, Desk()
        desk.sessions.update(old.sessions)
        desk.read(canonical.fields(members, "decisions"))
    desk.seen(1_000 + at_s)
    assert desk.wrong == wrong
    for epoch, more in ((0, []), (1, [("objects", 9)])):
        item = replace(parts.fragment(0, 2), session=A, epoch=epoch)
        desk.take_objects((1, 9), bytes(32), [(item, b"")])
        assert desk.wrong == wrong + more


def test_what_an_earlier_version_kept():
    desk, old = Desk(), Desk()
    old.intent(A)
    members = old.members()
    del members["going"], members["aged"][0]["since_ns"]
    for sessions, wrong in ((old.sessions, [("early", 1)]), ({}, [("early", 1)] * 2)):
        desk.sessions.clear()
        desk.sessions.update(sessions)
        desk.read(canonical.fields(canonical.encode(members), "decisions"))
        desk.take_objects((1, 9), bytes(32), [(replace(parts.fragment(0, 2), session=A), b"")])
        desk.seen(1_000 + DAY - 1)
        assert desk.wrong == wrong


def test_a_seal_that_is_witnessed_with_the_intent():
    desk = Desk()
    desk.sessions[A] = Kept("main", "standard", 300, sealed=True, witnessed_ns=0)
    desk.intent(A)
    desk.seen(5, skew_s=299)
    assert desk.wrong == [("early", 1)]
    desk.intent(A)
    desk.seen(5, skew_s=300)
    assert len(desk.wrong) == 1


def test_erasure_waits_for_nothing_but_holds():
    desk = Desk()
    desk.intent(A, C, basis="erasure")
    desk.seen(0)
    assert desk.wrong == []
    desk.hold(B)
    desk.intent(B, basis="erasure")
    assert desk.wrong == [("held", 3)]


def test_holds_and_releases():
    desk = Desk()
    first = desk.hold(A, B)
    second = desk.hold(B)
    desk.say(ReleaseStatement, first, (A, B))
    desk.intent(A, basis="erasure")
    assert desk.wrong == []
    desk.intent(B, basis="erasure")
    assert desk.wrong == [("held", 5)]
    desk.say(ReleaseStatement, second, (A,))
    desk.say(ReleaseStatement, C, (A,))
    assert desk.wrong[1:] == [("release", 6), ("release", 7)]
    desk.say(ReleaseStatement, second, (B,))
    desk.intent(B, basis="erasure")
    assert len(desk.wrong) == 3


def test_the_end_of_a_deletion():
    desk = Desk()
    intent = desk.intent(A, basis="erasure")
    desk.done(intent, 1)
    assert desk.wrong == [("done", 2)]
    desk.done(intent, 1)
    assert desk.wrong[1:] == [("done", 3)]
    other = desk.intent(B, basis="erasure")
    desk.seen(5)
    desk.done(other, 5)
    desk.done(C, 4)
    assert desk.wrong[2:] == [("done", 5), ("done", 6)]
    desk.hold(B)
    desk.done(other, 4)
    assert desk.wrong[4:] == [("held", 8)]


def test_objects():
    desk = Desk()
    item = parts.fragment(0, 2)
    session = item.session
    desk.sessions[session] = desk.sessions[A]
    desk.take_objects((1, 7), bytes(32), [(item, b"")])
    assert desk.wrong == [("objects", 7)]
    desk.intent(session, basis="erasure")
    desk.take_objects((1, 8), bytes(32), [(item, b"")])
    assert len(desk.wrong) == 1


def test_keys_decide_nothing():
    desk = Desk()
    desk.say(KeyStatement, "introduce", "auditor", "key")
    assert desk.members() == Desk().members()


def test_it_can_be_kept():
    desk, other = Desk(), Desk()
    hold = desk.hold(A, B)
    desk.say(ReleaseStatement, hold, (A,))
    desk.terms(5)
    seen = desk.intent(A, basis="erasure")
    desk.seen(5)
    desk.done(seen, 4)
    fresh = desk.intent(A)
    other.read(canonical.fields(canonical.encode(desk.members()), "state"))
    assert other.members() == desk.members()
    other.at = desk.at
    for each in (desk, other):
        each.done(fresh, 6)
        each.seen(1_000 + DAY - 1)
        each.take_objects((1, 9), bytes(32), [(parts.fragment(0, 2), b"")])
        each.done(fresh, 6)
    assert other.wrong == desk.wrong != []
