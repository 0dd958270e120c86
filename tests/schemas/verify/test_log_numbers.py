"""Numbers of sessions: what is missing, what is there twice."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealtape.schemas import canonical
from sealtape.schemas.bodies import RetentionClass
from sealtape.schemas.tlog.records import Listed, NodeCount, SessionOpen
from sealtape.schemas.verify.log_numbers import SessionNumbers
from tests.factories.breaches import case_id, cases
from tests.factories.judging import check_breach

BOOT = b"\x20" * 16
OPEN = SessionOpen(
    at_ns=1_000,
    of="session",
    tenant="main",
    session=b"\x10" * 16,
    epoch=0,
    node="node-1",
    boot=BOOT,
    worker=0,
    number=1,
    retention=RetentionClass("standard", 1, 2),
    anchor_ns=0,
    continues=None,
    opening_sha256=bytes(32),
)


class Numbers(SessionNumbers):
    """With what was reported, and short words for what comes in."""

    def __init__(self):
        self.wrong = []
        super().__init__(lambda rule, place, reason: self.wrong.append((rule, place, reason)))

    def opened(self, number, *, index=None, worker=0, of="session", at_ns=1_000):
        session = bytes([number % 256]) * 16
        entry = replace(OPEN, number=number, worker=worker, of=of, at_ns=at_ns, session=session)
        return self.take((1, number if index is None else index), entry)


def late(numbers, before_ns=2_000):
    return [(place, reason.split(" of ")[0]) for place, reason in numbers.overdue(before_ns)]


@pytest.mark.parametrize(("rule", "breach"), cases("numbers", "missing"), ids=case_id)
def test_breaches(rule, breach):
    check_breach(rule, breach)


def test_what_is_passed_over_is_late_until_it_comes():
    numbers = Numbers()
    for number in (0, 1, 5):
        numbers.opened(number, of="session" if number else "journal")
    assert late(numbers) == [((1, 5), "number 2 to 4")]
    assert late(numbers, 1_000) == []
    numbers.opened(3, at_ns=1_500)
    assert late(numbers) == [((1, 5), "number 2"), ((1, 5), "number 4")]
    numbers.opened(2)
    numbers.opened(4)
    assert late(numbers) == []
    assert numbers.wrong == []


def test_an_incident_states_what_its_session_passed():
    numbers = Numbers()
    numbers.opened(3)
    numbers.opened(6)
    numbers.opened(2, worker=1)
    numbers.state(bytes([6]) * 16)
    assert late(numbers) == [((1, 3), "number 1 to 2"), ((1, 2), "number 1")]
    numbers.opened(4)
    assert late(numbers) == [((1, 3), "number 1 to 2"), ((1, 2), "number 1")]
    assert numbers.opened(5) == 0


def test_no_number_comes_twice():
    numbers = Numbers()
    numbers.opened(0, of="journal")
    numbers.opened(4)
    numbers.opened(2)
    numbers.opened(2, index=7)
    numbers.opened(4, index=8)
    numbers.opened(0, of="journal", index=9)
    numbers.opened(0, index=10)
    numbers.opened(9, of="journal", index=11)
    assert [(rule, place[1]) for rule, place, _ in numbers.wrong] == [
        ("numbers", index) for index in (7, 8, 9, 10, 11)
    ]
    assert numbers.listed() == Listed.of([NodeCount("node-1", BOOT, 0, 9).line()])


def test_a_session_that_is_taken_up_again():
    numbers = Numbers()
    for number in (1, 4):
        numbers.opened(number)
    entry = replace(OPEN, epoch=1, number=4)
    assert numbers.again((1, 9), entry) == 0
    assert numbers.again((1, 10), replace(entry, number=2)) == 0
    assert late(numbers) == [((1, 4), "number 3")]
    assert numbers.again((1, 11), replace(entry, worker=1, number=6)) == 1
    assert numbers.wrong == []
    lines = [NodeCount("node-1", BOOT, 0, 4).line(), NodeCount("node-1", BOOT, 1, 6).line()]
    assert numbers.listed() == Listed.of(sorted(lines))


@given(st.permutations(range(1, 9)), st.integers(0, 8))
def test_any_order_is_good_and_can_be_kept(order, cut):
    numbers, other = Numbers(), Numbers()
    for number in order[:cut]:
        numbers.opened(number, worker=number % 2)
    numbers.state(bytes([order[0]]) * 16)
    data = canonical.encode({"numbers": numbers.members()})
    fields = canonical.fields(data, "state")
    other.read(fields, "numbers")
    fields.end()
    for number in order[cut:]:
        assert numbers.opened(number, worker=number % 2) == other.opened(number, worker=number % 2)
    assert other.members() == numbers.members()
    assert other.listed() == numbers.listed()
    assert late(other) == late(numbers)
    assert not other.wrong
