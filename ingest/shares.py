"""Which worker works on which partition: the same answer for everybody who asks. Pure.

Every live worker learns the names of all live workers from the ledger (`Ledger.beat`) and works out
its share by itself. For a moment two of them may have different names in hand; then a partition has
two who want it, or none. That is only a question of speed: who may publish is decided by the lease.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256

__all__ = ["shares"]


def shares(partitions: int, workers: Iterable[str], me: str) -> frozenset[int]:
    """The partitions of `me` among the live `workers`; none when `me` is not one of them.

    Fair: the shares of any two workers differ by at most one partition. Stable: a worker that comes
    or goes moves little more than its own share, and nobody's order of names matters.
    """
    return _all_shares(partitions, tuple(sorted(set(workers)))).get(me, frozenset())


@lru_cache(maxsize=8)
def _all_shares(partitions: int, workers: tuple[str, ...]) -> dict[str, frozenset[int]]:
    """Rendezvous hashing with quotas: the highest weights are served first, until one is full.

    The quotas add up to the number of partitions, so none is left over.
    """
    if not workers:
        return {}
    quota, larger = divmod(partitions, len(workers))
    taken: dict[str, set[int]] = {worker: set() for worker in workers}
    free = set(range(partitions))
    weights = [(_weight(worker, p), p, worker) for worker in workers for p in range(partitions)]
    for _, partition, worker in sorted(weights, reverse=True):
        held = len(taken[worker])
        if partition not in free or held > quota or (held == quota and larger == 0):
            continue
        larger -= held == quota
        taken[worker].add(partition)
        free.discard(partition)
    return {worker: frozenset(held) for worker, held in taken.items()}


def _weight(worker: str, partition: int) -> bytes:
    return sha256(f"{partition}/{worker}".encode()).digest()
