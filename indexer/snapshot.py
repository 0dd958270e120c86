"""What an indexer says about itself: plain numbers, for metrics and status. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from sealtape.capture.metrics.sheet import Histogram
from sealtape.schemas.errors import FormatError, Missing

__all__ = ["FOUND_S", "IndexerSnapshot", "LaneSnapshot", "Tally"]

FOUND_S = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds of the time from capture to searchable, in seconds."""
MAX_FAILED = 1000
"""Segments that are remembered by name."""


@dataclass(slots=True)
class Tally:
    """What an indexer did since it started."""

    frames: int = 0
    commands: int = 0
    segments: int = 0
    destroyed: int = 0
    """Frames passed over because the keys of their session were destroyed."""
    unreadable: int = 0
    """Frames indexed without their content: no key for us, or damaged."""
    malformed: int = 0
    """Messages on the bus that are none of ours; ingest puts them into quarantine."""
    early: int = 0
    """Frames on the bus left to ingest, because frames before them are nowhere yet."""
    unanswered: int = 0
    """Results whose command the index does not have."""
    restarted: int = 0
    """Sessions folded from their beginning: the index held progress of another revision, or the
    bus had brought other frames than those that were sealed."""
    failed: dict[str, FormatError | Missing] = field(default_factory=dict)
    """By their keys, segments that are gone or damaged, and what first told so."""

    def fail(self, segment: str, error: FormatError | Missing) -> None:
        """Note that not all of a segment could be indexed."""
        if len(self.failed) < MAX_FAILED:
            self.failed.setdefault(segment, error)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneSnapshot:
    """A partition that this indexer holds.

    Attributes:
        position, end: of the bus: where reading goes on, and its end when it was last looked at.
        segments, published: of the partition's shard: how many are indexed, and how many there
            were when it was last looked at.
        oldest_ms: when the bus took the oldest message of the batch in hand (ms since the epoch),
            None when all is read.
    """

    topic: str
    partition: int
    term: int
    position: int
    end: int
    segments: int
    published: int
    oldest_ms: int | None

    @property
    def lag(self) -> int:
        """How far the bus's end is ahead, in offsets."""
        return max(0, self.end - self.position)

    @property
    def behind(self) -> int:
        """How many published segments are not indexed yet."""
        return max(0, self.published - self.segments)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexerSnapshot:
    """An indexer at one moment. Numbers count from its start.

    Attributes:
        worker: its name in leases.
        workers: all that are at work, as it last heard.
        beaten_s: seconds since it last heard; infinite when it never did.
        claiming: partitions of its share that it does not hold yet.
        failures: writes and reads that failed and were tried again.
        found_s: from a fact's frame in capture until it is searchable, in seconds.
    """

    worker: str
    workers: tuple[str, ...]
    beaten_s: float
    lanes: tuple[LaneSnapshot, ...]
    claiming: tuple[int, ...]
    tally: Tally
    fenced: int
    failures: int
    found_s: Histogram
