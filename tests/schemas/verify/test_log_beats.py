"""Heartbeats, and the times that entries state."""

from dataclasses import replace

import pytest

from sealtape.schemas import canonical
from sealtape.schemas.tlog.records import Heartbeat, Listed
from sealtape.schemas.verify.log_beats import Pulse, Standing
from sealtape.schemas.verify.violations import NS, Limits
from tests.factories.breaches import case_id, cases
from tests.factories.judging import check_breach

ONE, TWO = Listed.of([b"1"]), Listed.of([b"1", b"2"])
STANDING = Standing(Listed.of([]), ONE, TWO, 3)
LIMITS = Limits(heartbeat_s=700, grace_s=60, clock_s=100)


class Beats(Pulse):
    """With what was reported; times are seconds."""

    def __init__(self):
        self.wrong = []
        super().__init__(
            lambda rule, place, reason: self.wrong.append((rule, place[1], reason)), LIMITS
        )

    def at(self, index, seconds, every_s=600, changes=()):
        entry = Heartbeat(seconds * NS, index, every_s, Listed.of([]), ONE, TWO, 3)
        self.beat((1, index), replace(entry, **dict(changes)), STANDING)

    def late(self, seconds):
        return [(place[1], reason) for place, reason in self.overdue(seconds * NS)]

    @property
    def rules(self):
        return [(rule, index) for rule, index, _ in self.wrong]


def begun():
    beats = Beats()
    beats.begin((1, 0), 1_000 * NS)
    return beats


RULES = ("clock", "heartbeat", "period", "silent")


@pytest.mark.parametrize(("rule", "breach"), cases(*RULES), ids=case_id)
def test_breaches(rule, breach):
    check_breach(rule, breach)


def test_heartbeats_in_time():
    beats = begun()
    beats.at(5, 1_760)
    beats.at(9, 1_760 + 660)
    assert beats.wrong == []
    assert beats.late(1_760 + 2 * 660) == []


def test_the_first_one_is_due_too():
    beats = begun()
    beats.at(5, 1_761)
    assert beats.wrong == [("silent", 5, "a heartbeat 1 seconds too late")]
    beats.at(7, 1_761 + 661)
    assert beats.rules == [("silent", 5), ("silent", 7)]


def test_silence_is_told_once():
    beats = begun()
    beats.at(5, 1_100)
    assert beats.late(1_760) == []
    assert beats.late(1_761) == [(5, "no heartbeat after it, 1 seconds too late")]
    assert beats.late(1_770) == [(5, "no heartbeat after it, 10 seconds too late")]
    beats.at(9, 1_780)
    assert beats.wrong == []
    beats.at(11, 2_780)
    assert beats.rules == [("silent", 11)]


def test_a_shard_begins_with_the_period_of_the_one_before():
    beats = begun()
    beats.at(5, 1_100)
    beats.begin((2, 0), 1_200 * NS)
    beats.at(3, 1_861)
    assert beats.rules == [("silent", 3)]


def test_nobody_knows_when_it_began():
    beats = Beats()
    beats.begin((1, 0), 0)
    assert beats.late(10**9) == []
    beats.at(5, 10**9)
    assert beats.wrong == []


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"index": 6}, "stands at 6"),
        ({"keys": ONE}, "key entries are other ones: 1, not 0"),
        ({"shards": Listed.of([b"x"])}, "chains of segments are other ones: 1 with another root"),
        ({"nodes": ONE}, "numbers of nodes are other ones: 1, not 2"),
        ({"open": 2}, "open epochs are other ones: 2, not 3"),
    ],
)
def test_what_a_heartbeat_says(changes, word):
    beats = begun()
    beats.at(5, 1_100, changes=changes)
    ((rule, index, reason),) = beats.wrong
    assert (rule, index) == ("heartbeat", 5)
    assert word in reason


def test_what_it_promises():
    beats = begun()
    beats.at(5, 1_100, every_s=701)
    assert beats.rules == [("period", 5)]
    beats.at(6, 1_100 + 761, every_s=700)
    assert beats.rules == [("period", 5), ("silent", 6)]


def test_a_clock_that_goes_back():
    beats = begun()
    for index, seconds in enumerate((1_000, 900, 899, 1_050, 950)):
        beats.tick((1, index), seconds * NS)
    assert beats.wrong == [("clock", 2, "made 101 seconds before what stands before it")]
    assert beats.clock_ns == 1_050 * NS


def test_a_clock_that_was_far_ahead_is_told_once():
    beats = begun()
    for index, seconds in enumerate((1_000, 9_000, 1_010, 1_020, 1_030)):
        beats.tick((1, index), seconds * NS)
    assert beats.rules == [("clock", 2)]
    beats.tick((1, 5), 900 * NS)
    assert beats.rules == [("clock", 2), ("clock", 5)]


def test_times_from_the_future():
    beats = begun()
    beats.tick((1, 1), 1_000 * NS)
    beats.mention((1, 2), 1_200 * NS)
    beats.mention((1, 3), 1_100 * NS)
    beats.witnessed(1_099 * NS)
    assert beats.wrong == [("clock", 2, "101 seconds ahead of the checkpoint over it")]
    beats.witnessed(1_000 * NS)
    beats.mention((1, 4), 1_200 * NS)
    beats.witnessed(1_100 * NS)
    assert len(beats.wrong) == 1


def test_it_can_be_kept():
    beats, other = begun(), Beats()
    beats.at(5, 1_100)
    beats.tick((1, 5), 1_100 * NS)
    beats.mention((1, 6), 1_500 * NS)
    assert beats.late(2_000)
    other.read(canonical.fields(canonical.encode(beats.members()), "state"))
    assert other.members() == beats.members()
    for each in (beats, other):
        each.at(9, 2_100)
        each.witnessed(1_100 * NS)
        each.tick((1, 9), 900 * NS)
    assert other.wrong == beats.wrong
    assert other.rules == [("clock", 6), ("clock", 9)]
