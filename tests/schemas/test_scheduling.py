"""Which objects are read again, and when."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from sealtape.schemas.scheduling import (
    DAY_NS,
    MOST,
    Coverage,
    Part,
    allowance,
    coverage,
    due,
    pause_ns,
    pick,
)

NOW = 1_000 * DAY_NS
times = st.integers(NOW - 50 * DAY_NS, NOW + DAY_NS)
sizes = st.integers(0, 1 << 30)
parts = st.lists(st.builds(Part, st.uuids().map(str), sizes, times, st.none() | times), max_size=40)


def test_never_read_before_read_and_the_oldest_first():
    new = Part("new", 1, NOW - 1)
    old = Part("old", 1, NOW - 9)
    read = Part("read", 1, 0, NOW - 2 * DAY_NS)
    longer = Part("longer", 1, 5, NOW - 3 * DAY_NS)
    assert due([read, new, longer, old], NOW, DAY_NS) == [old, new, longer, read]


def test_what_was_read_lately_is_not_due_and_what_was_read_in_the_future_is():
    lately, then = Part("a", 1, 0, NOW - DAY_NS + 1), Part("b", 1, 0, NOW - DAY_NS)
    wrong = Part("c", 1, 0, NOW + 1)
    assert due([lately, then, wrong], NOW, DAY_NS) == [then, wrong]


def test_what_was_read_in_the_future_is_no_coverage():
    assert coverage([Part("c", 1, 0, NOW + 1)], NOW, DAY_NS).share == 0
    assert coverage([Part("c", 1, 0, NOW)], NOW, DAY_NS).share == 1


@given(parts, st.integers(0, 1 << 31))
def test_a_batch_is_a_beginning_within_the_budget(found, allowed):
    picked = pick(found, allowed)
    assert picked == found[: len(picked)]
    assert sum(part.bytes for part in picked) <= allowed or len(picked) == 1
    if allowed and found:
        assert picked
    if not allowed:
        assert not picked
    taken = sum(part.bytes for part in picked)
    if 0 < taken < allowed and len(picked) < len(found):
        assert taken + found[len(picked)].bytes > allowed, "one more would have fitted"


def test_a_batch_has_an_end():
    assert len(pick([Part("x", 0, 0)] * (MOST + 1), 1)) == MOST


@given(
    st.lists(st.integers(1, 1 << 26), min_size=1, max_size=30),
    st.integers(1 << 20, 1 << 40),
    st.integers(DAY_NS // 1000, DAY_NS // 10),
)
def test_rounds_read_everything_within_the_budget_and_spread_over_time(found, per_day, period):
    state = {str(at): Part(str(at), size, at) for at, size in enumerate(found)}
    now, reads = NOW, []
    for _ in range(3 * len(found)):
        batch = pick(due(state.values(), now, 1), allowance(per_day, period))
        for part in batch:
            state[part.object] = replace(part, verified_ns=now)
        read = sum(part.bytes for part in batch)
        reads.append((now, read, len(batch)))
        now += max(period, pause_ns(read, per_day))
    counts = [part.verified_ns for part in state.values()]
    assert None not in counts, "all were read"
    total = sum(read for _, read, _ in reads)
    assert total <= per_day * (now - NOW) / DAY_NS + len(reads) * (1 + per_day / DAY_NS)
    for _, read, many in reads:
        assert many == 1 or read <= allowance(per_day, period)


@given(parts, times)
def test_coverage(found, now):
    window = 30 * DAY_NS
    summed = coverage(found, now, window)
    assert summed.objects == len(found)
    assert summed.bytes == sum(part.bytes for part in found)
    assert summed.unverified == len([part for part in found if part.verified_ns is None])
    assert 0 <= summed.share <= 1
    assert summed.oldest_ns >= 0
    everything = [replace(part, verified_ns=now) for part in found]
    assert coverage(everything, now, window).share == 1


def test_coverage_of_some():
    found = [
        Part("a", 30, NOW - 9, NOW - DAY_NS),
        Part("b", 60, NOW - 9, NOW - 30 * DAY_NS),
        Part("c", 10, NOW - 7),
    ]
    expected = Coverage(objects=3, bytes=100, unverified=1, share=0.3, oldest_ns=30 * DAY_NS)
    assert coverage(found, NOW, 30 * DAY_NS) == expected
    assert coverage([], NOW, 1) == Coverage(0, 0, 0, 1.0, 0)


def test_a_budget_is_never_nothing():
    assert allowance(1, 1) == 1
    assert allowance(86_400, DAY_NS // 24) == 3600
    assert pause_ns(3600, 86_400) == DAY_NS // 24
