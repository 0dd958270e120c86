"""What a lane folded from the bus, until ingest says what of it was true. Pure.

Live frames are folded before a signature covers them, so one that somebody slipped into the bus may
have come in the place of a true one. Ingest seals the true one; by the leaves that are kept here a
lane finds out that it is another than the one it folded. Where the leaves are not here any more,
since the lane is another one or there were too many, a digest is: the sealed leaves are read then.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from sealtape.schemas.segments import FragmentRecord
from sealtape.schemas.tree import CompactRange

__all__ = ["Chain", "Heard"]

MAX_LEAVES = 1 << 18
"""Leaves that are kept, over all sessions; those of the epoch that began first go first."""
START = bytes(32)
"""The digest of no leaves."""

Name = tuple[bytes, int]


@dataclass(frozen=True, slots=True)
class Chain:
    """The frames `[first, next)` of an epoch, which were folded; `digest` is over their leaves."""

    first: int
    next: int
    digest: bytes


@dataclass(slots=True)
class _Epoch:
    """Frames from `since` on; the leaves from `first` on are here, `before` is over the others."""

    since: int
    first: int
    before: bytes = START
    digest: bytes = START
    leaves: list[bytes] = field(default_factory=list)

    @property
    def next(self) -> int:
        return self.first + len(self.leaves)


class Heard:
    """The frames that were folded and are not sealed yet, by (session, epoch)."""

    def __init__(self, max_leaves: int = MAX_LEAVES) -> None:
        """Begin with nothing."""
        self.leaves = 0
        """How many are kept."""
        self._max_leaves = max_leaves
        self._epochs: OrderedDict[Name, _Epoch] = OrderedDict()

    def add(self, name: Name, seq: int, leaf: bytes) -> None:
        """Take a frame of the bus. Of several with one seq the first counts: it was folded."""
        epoch = self._epochs.get(name)
        if epoch is not None and seq < epoch.next:
            return
        if epoch is None or seq > epoch.next:
            self.forget(name)
            epoch = self._epochs[name] = _Epoch(seq, seq)
        epoch.leaves.append(leaf)
        epoch.digest = _linked(epoch.digest, [leaf])
        self.leaves += 1
        while self.leaves > self._max_leaves:
            self._let_go(next(iter(self._epochs)))

    def chain(self, name: Name) -> Chain | None:
        """What another lane needs to go on for this one; None if nothing waits to be sealed."""
        epoch = self._epochs.get(name)
        return None if epoch is None else Chain(epoch.since, epoch.next, epoch.digest)

    def restore(self, name: Name, chain: Chain) -> None:
        """Go on for a lane that left this; what is here already is newer."""
        if name not in self._epochs:
            epoch = _Epoch(chain.first, chain.next, chain.digest, chain.digest)
            self._epochs[name] = epoch

    def differs(self, record: FragmentRecord, read: Sequence[bytes]) -> bool:
        """Whether a sealed fragment has other frames than those that were folded.

        `read` are the leaves of its last frames, which were not folded from the bus. Of a fragment
        whose beginning is not here nothing is known: False. See `owed` for that.
        """
        lo, hi = record.lo, record.hi - len(read)
        epoch = self._epochs.get((record.session, record.epoch))
        if epoch is None or lo >= hi or epoch.first > lo or epoch.next < hi:
            return False
        run = CompactRange(lo)
        for leaf in (*epoch.leaves[lo - epoch.first : hi - epoch.first], *read):
            run.append(leaf)
        return run.nodes != record.nodes

    def owed(self, record: FragmentRecord) -> tuple[int, int] | None:
        """The frames whose sealed leaves `matches` must see, now that this fragment is sealed."""
        epoch = self._epochs.get((record.session, record.epoch))
        if epoch is None or epoch.since == epoch.first or record.hi < epoch.first:
            return None
        return epoch.since, min(record.hi, epoch.next)

    def matches(self, name: Name, sealed: Sequence[bytes]) -> bool:
        """Whether the frames that `owed` named were folded as they are sealed."""
        epoch = self._epochs[name]
        last = epoch.since + len(sealed) - epoch.first
        return last >= 0 and _linked(START, sealed) == _linked(epoch.before, epoch.leaves[:last])

    def sealed(self, record: FragmentRecord) -> None:
        """Let go of what a fragment holds, once it was compared."""
        name = record.session, record.epoch
        epoch = self._epochs.get(name)
        if epoch is None or record.hi < epoch.first:
            return
        gone = min(len(epoch.leaves), record.hi - epoch.first)
        if gone == len(epoch.leaves):
            self.forget(name)
            return
        del epoch.leaves[:gone]
        self.leaves -= gone
        epoch.since = epoch.first = epoch.first + gone
        epoch.before, epoch.digest = START, _linked(START, epoch.leaves)

    def forget(self, name: Name) -> None:
        """Know nothing of an epoch any more."""
        epoch = self._epochs.pop(name, None)
        if epoch is not None:
            self.leaves -= len(epoch.leaves)

    def _let_go(self, name: Name) -> None:
        """Keep the digest of an epoch alone."""
        epoch = self._epochs[name]
        self.leaves -= len(epoch.leaves)
        epoch.first, epoch.before, epoch.leaves = epoch.next, epoch.digest, []
        self._epochs.move_to_end(name)


def _linked(digest: bytes, leaves: Iterable[bytes]) -> bytes:
    """A digest over more leaves: one that can be gone on from."""
    for leaf in leaves:
        digest = sha256(digest + leaf).digest()
    return digest
