"""Who fell silent, and what never came: the rules of the watch. Pure.

Silence is judged by how far ingest has come, never by a clock of a node: a node is silent when all
that was on the bus a while after its last sign of life is dealt with, and nothing of it was there.
So neither an outage of ingest nor one of a store makes a node look silent.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from sealtape.ingest.tlog.summary import Hole, Worker

__all__ = ["Live", "Missing", "MissingRule", "Reach", "SilenceRule", "Silent"]

Name: TypeAlias = tuple[bytes, int]


@dataclass(frozen=True, slots=True)
class Live:
    """A session that is not closed, as far as it is sealed; `revision` grows with every change."""

    session: bytes
    epoch: int
    frames: int
    revision: int
    journal: bool
    worker: Worker
    partition: int


@dataclass(frozen=True, slots=True)
class Silent:
    """A worker of a node that brings nothing, and its sessions that end with that.

    `sign` is what it should have brought: its journal, or a session where that is not live.
    """

    worker: Worker
    sign: Live
    sessions: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Missing:
    """Session numbers of a worker that never came."""

    worker: Worker
    hole: Hole


class Reach:
    """How far ingest has come in each partition: up to which moment it has dealt with everything.

    Moments are seconds by a clock that never goes back; each `note` adds one.
    """

    def __init__(self, keep_s: float) -> None:
        """Moments longer ago than `keep_s` are of no use."""
        self._keep_s = keep_s
        self._ends: dict[int, deque[tuple[float, int]]] = {}
        self._reached: dict[int, float] = {}

    def note(self, partition: int, position: int, end: int, now: float) -> None:
        """At `now` the bus ended at `end`, and what is below `position` was dealt with."""
        ends = self._ends.setdefault(partition, deque())
        ends.append((now, end))
        while ends and (ends[0][1] <= position or now - ends[0][0] > self._keep_s):
            moment, passed = ends.popleft()
            if passed <= position:
                self._reached[partition] = moment

    def of(self, partition: int) -> float:
        """All that was on the partition at this moment is dealt with."""
        return self._reached.get(partition, -math.inf)

    def everywhere(self) -> float:
        """All that was on any partition at this moment is dealt with."""
        return min((self.of(partition) for partition in self._ends), default=-math.inf)


class SilenceRule:
    """Finds workers whose journal brings nothing any more."""

    def __init__(self, silent_s: float) -> None:
        """After `silent_s` seconds."""
        self._silent_s = silent_s
        self._seen: dict[Name, tuple[int, float]] = {}

    def look(
        self, rows: Iterable[Live], reached: Callable[[int], float], now: float
    ) -> list[Silent]:
        """Who is silent, of all sessions that are live; one that was told is no more among them."""
        rows = list(rows)
        self._note(rows, now)
        workers: dict[Worker, list[Live]] = {}
        for row in rows:
            workers.setdefault(row.worker, []).append(row)
        found = []
        for worker, sessions in workers.items():
            quiet = [row for row in sessions if self._quiet(row, reached)]
            journals = [row for row in sessions if row.journal]
            signs = [row for row in quiet if row.journal or not journals]
            if signs:
                names = tuple(row.session for row in quiet)
                found.append(Silent(worker, signs[0], names))
        return found

    def _note(self, rows: list[Live], now: float) -> None:
        """Remember since when each stands still; those that are not live any more are forgotten."""
        seen = {}
        for row in rows:
            name = (row.session, row.epoch)
            revision, since = self._seen.get(name, (-1, now))
            seen[name] = (row.revision, since if revision == row.revision else now)
        self._seen = seen

    def _quiet(self, row: Live, reached: Callable[[int], float]) -> bool:
        since = self._seen[row.session, row.epoch][1]
        return reached(row.partition) - since >= self._silent_s


class MissingRule:
    """Finds session numbers that later ones passed long ago; each is told once."""

    def __init__(self, missing_s: float) -> None:
        """After `missing_s` seconds."""
        self._missing_s = missing_s
        self._since: dict[tuple[Worker, Hole], float] = {}
        self._told: dict[Worker, list[Hole]] = {}

    def tell(self, worker: Worker, hole: Hole) -> None:
        """This one was told, now or by another before."""
        self._told.setdefault(worker, []).append(hole)

    def look(
        self, holes: Iterable[tuple[Worker, Hole]], reached: float, now: float
    ) -> list[Missing]:
        """What is missing, of all holes in the numbers; `reached` is `Reach.everywhere`."""
        since: dict[tuple[Worker, Hole], float] = {}
        found = []
        for worker, hole in holes:
            known = self._within(self._since, worker, hole)
            since[worker, hole] = now if known is None else known
            if any(_covers(told, hole) for told in self._told.get(worker, ())):
                continue
            if reached - since[worker, hole] >= self._missing_s:
                found.append(Missing(worker, hole))
        self._since = since
        return found

    @staticmethod
    def _within(
        since: Mapping[tuple[Worker, Hole], float], worker: Worker, hole: Hole
    ) -> float | None:
        """Since when a hole is known: it may be what is left of a larger one."""
        exact = since.get((worker, hole))
        if exact is not None:
            return exact
        return min(
            (at for (who, other), at in since.items() if who == worker and _covers(other, hole)),
            default=None,
        )


def _covers(outer: Hole, inner: Hole) -> bool:
    return outer.lo <= inner.lo and inner.hi <= outer.hi
