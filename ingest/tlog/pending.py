"""Seals that are *pending*: in the log, and under no witnessed checkpoint yet.

The log's writer counts them as it adds them, so that telling how many there are costs nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sealtape.ingest.ledger import Ledger
from sealtape.schemas.tlog.records import SessionSeal, parse_entry

__all__ = ["PendingSeals", "Seals", "read_seals", "seals_among"]

STRETCHES: Final = 4096
"""Most stretches that are told apart. Witnesses are asked about the newest checkpoint, so that
those at the beginning leave together."""


@dataclass(frozen=True, slots=True)
class Seals:
    """How many, and the time that the first of them states; None for none."""

    count: int = 0
    oldest_ns: int | None = None

    def __add__(self, later: Seals) -> Seals:
        """These and those behind them."""
        return Seals(
            self.count + later.count, later.oldest_ns if self.oldest_ns is None else self.oldest_ns
        )


class PendingSeals:
    """What is pending of one shard, stretch by stretch; a stretch is witnessed as a whole."""

    def __init__(self) -> None:
        """Begin with none."""
        self._stretches: deque[tuple[int, Seals]] = deque()

    def add(self, size: int, seals: Seals) -> None:
        """Add those of the stretch that made the log `size` entries long."""
        if not seals.count:
            return
        self._stretches.append((size, seals))
        if len(self._stretches) > STRETCHES:
            (_, first), (end, second) = self._stretches.popleft(), self._stretches.popleft()
            self._stretches.appendleft((end, first + second))

    def left(self, witnessed: int) -> Seals:
        """Those that a checkpoint of `witnessed` entries does not cover; the others are let go."""
        while self._stretches and self._stretches[0][0] <= witnessed:
            self._stretches.popleft()
        return sum((seals for _, seals in self._stretches), Seals())


def seals_among(entries: Sequence[object]) -> Seals:
    """The seals among entries in their order."""
    times = [entry.at_ns for entry in entries if isinstance(entry, SessionSeal)]
    return Seals(len(times), times[0] if times else None)


async def read_seals(ledger: Ledger, number: int, first: int, end: int) -> Seals:
    """The seals among the entries [first, end) of a shard, from the ledger."""
    count, oldest = await ledger.log_seals(number, first, end)
    if oldest is None:
        return Seals()
    return Seals(count, seals_among([parse_entry(oldest.entry)]).oldest_ns)
