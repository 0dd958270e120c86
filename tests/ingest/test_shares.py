import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealtape.ingest.shares import shares

names = st.sets(st.text(st.sampled_from("abc-019"), min_size=1, max_size=8), min_size=1, max_size=9)


def everybody(partitions, workers):
    return {worker: shares(partitions, workers, worker) for worker in workers}


@given(st.integers(0, 40), names)
def test_every_partition_has_one_worker_and_shares_are_fair(partitions, workers):
    found = everybody(partitions, workers)
    assert sorted(p for held in found.values() for p in held) == list(range(partitions))
    sizes = [len(held) for held in found.values()]
    assert max(sizes) - min(sizes) <= 1


@given(st.integers(0, 40), names)
def test_the_order_of_names_does_not_matter(partitions, workers):
    backwards = sorted(workers, reverse=True)
    for worker in workers:
        assert shares(partitions, backwards * 2, worker) == shares(partitions, workers, worker)


def test_who_is_not_alive_has_nothing():
    assert shares(4, ["a", "b"], "c") == shares(4, [], "c") == frozenset()
    assert shares(4, ["c"], "c") == frozenset(range(4))


@pytest.mark.parametrize("workers", [2, 3, 5, 8])
def test_a_newcomer_moves_little_more_than_its_share(workers):
    partitions, moved = 60, 0
    before = everybody(partitions, [f"w{n}" for n in range(workers)])
    after = everybody(partitions, [f"w{n}" for n in range(workers + 1)])
    for worker, held in before.items():
        moved += len(held - after[worker])
    assert moved <= 2 * partitions // (workers + 1) + 1
