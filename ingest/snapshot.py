"""What an ingest worker says about itself: plain numbers, for metrics and status. Pure."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

from sealtape.capture.metrics.sheet import Histogram

__all__ = ["Arrivals", "Counts", "IngestSnapshot", "PartitionSnapshot", "RetentionWatch"]

SEALED_S = (1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 45.0, 60.0, 120.0, 300.0, 900.0)
"""Upper bounds of the time from the bus to the seal, in seconds."""
MS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionSnapshot:
    """A partition that this worker holds.

    Attributes:
        position: what was read below it is dealt with.
        read_to: where reading goes on.
        end: the bus's end when it was last looked at.
        oldest_ms: when the bus took the oldest message that is not dealt with, in ms since the
            epoch, None when there is none.
        retention_half: whether that was so long ago that half of the bus's retention is over.
        retention_s: that retention, in seconds; None for ever.
    """

    topic: str
    partition: int
    term: int
    position: int
    read_to: int
    end: int
    oldest_ms: int | None
    retention_half: bool
    retention_s: float | None

    @property
    def lag(self) -> int:
        """How far the position is behind the end, in offsets."""
        return max(0, self.end - self.position)


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestSnapshot:
    """A worker at one moment. Numbers count from its start.

    Attributes:
        worker: its name in leases.
        workers: all that are at work, as it last heard.
        beaten_s: seconds since it last heard; infinite when it never did.
        claiming: partitions of its share that it does not hold yet.
        incidents: by reason; gaps are among them.
        sealed_s: from the bus to the seal, in seconds, one observation per read batch.
    """

    worker: str
    workers: tuple[str, ...]
    beaten_s: float
    partitions: tuple[PartitionSnapshot, ...]
    claiming: tuple[tuple[str, int], ...]
    segments: int
    frames: int
    bytes: int
    duplicates: int
    quarantined: int
    incidents: Mapping[str, int]
    fenced: int
    failures: int
    sealed_s: Histogram

    @property
    def gaps(self) -> int:
        """Gaps that were stated."""
        return self.incidents.get("gap", 0)


class Counts:
    """What all partitions of a process count together."""

    __slots__ = (
        "bytes",
        "duplicates",
        "failures",
        "fenced",
        "frames",
        "incidents",
        "quarantined",
        "sealed_s",
        "segments",
    )

    def __init__(self) -> None:
        """Nothing yet."""
        self.segments = 0
        self.frames = 0
        self.bytes = 0
        self.duplicates = 0
        self.quarantined = 0
        self.incidents: Counter[str] = Counter()
        self.fenced = 0
        self.failures = 0
        self.sealed_s = Histogram(SEALED_S)


class Arrivals:
    """When the bus took what is not dealt with yet: one note per batch that was read."""

    def __init__(self) -> None:
        """Nothing was read."""
        self._notes: deque[tuple[int, int]] = deque()

    def add(self, offset: int, ts_ms: int) -> None:
        """A batch begins at `offset`; the bus took its first message at `ts_ms`."""
        self._notes.append((offset, ts_ms))

    def pass_to(self, position: int, read_to: int) -> list[int]:
        """Forget what is below the position; returns the times of batches that are dealt with."""
        passed = []
        notes = self._notes
        while notes and position >= (notes[1][0] if len(notes) > 1 else read_to):
            passed.append(notes.popleft()[1])
        return passed

    @property
    def oldest_ms(self) -> int | None:
        """When the bus took the oldest message that is not dealt with, or one just before it."""
        return self._notes[0][1] if self._notes else None


class RetentionWatch:
    """Knows when half of the time is over that the bus keeps what was not read."""

    def __init__(self) -> None:
        """It is not."""
        self.half = False
        self.told = False
        """Whether it was said; set by who says it, once for as long as it lasts."""

    def look(self, oldest_ms: int | None, now_ms: int, retention_s: float | None) -> bool:
        """Whether it is so and was not said yet.

        `oldest_ms` is when the oldest message came. Without a retention (None) it never happens.
        """
        age_ms = 0 if oldest_ms is None else now_ms - oldest_ms
        self.half = retention_s is not None and age_ms >= retention_s * 500
        self.told = self.told and self.half
        return self.half and not self.told
