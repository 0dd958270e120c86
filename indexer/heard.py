"""What a lane folded from the bus, until ingest says what of it was true. Pure.

Live frames are folded before a signature covers them, so one that somebody slipped into the bus may
have come in the place of a true one. Ingest seals the true one; by the leaves that are kept here a
lane finds out that it is another than the one it folded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from sealtape.schemas.segments import FragmentRecord
from sealtape.schemas.tree import CompactRange

__all__ = ["Heard"]

MAX_LEAVES = 1 << 18
"""Leaves that are kept, over all sessions; those of the epoch that began first go first."""

Name = tuple[bytes, int]


class Heard:
    """The leaves of frames that were folded and are not sealed yet, by (session, epoch)."""

    def __init__(self, max_leaves: int = MAX_LEAVES) -> None:
        """Begin with nothing."""
        self.leaves = 0
        """How many are kept."""
        self._max_leaves = max_leaves
        self._epochs: OrderedDict[Name, tuple[int, list[bytes]]] = OrderedDict()

    def add(self, name: Name, seq: int, leaf: bytes) -> None:
        """Take a frame of the bus. Of several with one seq the first counts: it was folded."""
        first, leaves = self._epochs.get(name, (seq, []))
        if seq != first + len(leaves):
            if seq < first + len(leaves):
                return
            self._forget(name)
            first, leaves = seq, []
        self._epochs[name] = first, leaves
        leaves.append(leaf)
        self.leaves += 1
        while self.leaves > self._max_leaves:
            self._forget(next(iter(self._epochs)))

    def differs(self, record: FragmentRecord, read: Sequence[bytes]) -> bool:
        """Whether a sealed fragment has other frames than those that were folded.

        `read` are the leaves of its last frames, which were not folded from the bus. Of a fragment
        whose beginning is not here nothing is known: False.
        """
        lo, hi = record.lo, record.hi - len(read)
        first, leaves = self._epochs.get((record.session, record.epoch), (hi, []))
        if lo >= hi or first > lo or first + len(leaves) < hi:
            return False
        run = CompactRange(lo)
        for leaf in (*leaves[lo - first : hi - first], *read):
            run.append(leaf)
        return run.nodes != record.nodes

    def sealed(self, record: FragmentRecord) -> None:
        """Let go of what a fragment holds."""
        name = record.session, record.epoch
        first, leaves = self._epochs.get(name, (record.hi, []))
        gone = min(len(leaves), max(0, record.hi - first))
        del leaves[:gone]
        self.leaves -= gone
        if leaves:
            self._epochs[name] = first + gone, leaves
        else:
            self._epochs.pop(name, None)

    def _forget(self, name: Name) -> None:
        _, leaves = self._epochs.pop(name, (0, []))
        self.leaves -= len(leaves)
