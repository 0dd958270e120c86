"""The indexer's metrics: what a worker says about itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client.metrics_core import Metric

from sealtape.capture.metrics import Measure, Readiness, Sheet, measures_of
from sealtape.capture.metrics.vitals import Probe, build, process, tried
from sealtape.indexer.snapshot import IndexerSnapshot, LaneSnapshot

__all__ = ["MEASURES", "IndexerVitals"]


_gauge, _counter = measures_of("indexer")

WORKERS = _gauge("workers_live", "Indexers at work, as this one last heard.")
BEAT = _gauge(
    "heartbeat_age_seconds",
    "Seconds since this indexer last said in the ledger that it is at work.",
)
PARTITIONS = _gauge("partitions", "Partitions of the bus.")
HELD = _gauge("partitions_held", "Partitions whose lease this indexer holds.")
CLAIMING = _gauge(
    "partitions_claiming", "Partitions of this indexer's share that it does not hold yet."
)
LAG = _gauge("lag", "Offsets of the bus behind its end that are not indexed.", "partition")
OLDEST = _gauge(
    "oldest_unindexed_seconds",
    "How long ago the bus took the oldest message of the batch in hand, in seconds; 0 for none.",
    "partition",
)
SEGMENTS_BEHIND = _gauge("segments_behind", "Segments published that are not indexed.", "partition")
FRAMES = _counter("frames", "Frames indexed.")
COMMANDS = _counter("commands", "Command documents written, again when their result comes.")
SEGMENTS = _counter("segments", "Segments indexed.")
UNREADABLE = _counter(
    "unreadable", "Frames indexed without their content: no key for us, or damaged."
)
MALFORMED = _counter("malformed", "Messages on the bus that are none of ours.")
DESTROYED = _counter("destroyed", "Frames passed over: the keys of their session were destroyed.")
EARLY = _counter("early", "Frames left to ingest: those before them were not there yet.")
UNANSWERED = _counter("unanswered", "Results whose command the index does not have.")
RESTARTED = _counter("restarted", "Sessions indexed anew from their beginning.")
FENCED = _counter("fenced", "Times a newer holder of a partition had gone ahead.")
FAILURES = _counter("failures", "Reads and writes that failed and were tried again.")
FOUND = Measure(
    "sealtape_indexer_searchable_seconds",
    "histogram",
    "From the capture of a frame of facts until they are searchable, in seconds.",
)
EVENTS = _counter("events_sent", "Events of sessions and statements put on the events bus.")

MEASURES: Final = (
    WORKERS, BEAT, PARTITIONS, HELD, CLAIMING, LAG, OLDEST, SEGMENTS_BEHIND, FRAMES, COMMANDS,
    SEGMENTS, UNREADABLE, MALFORMED, DESTROYED, EARLY, UNANSWERED, RESTARTED, FENCED, FAILURES,
    FOUND, EVENTS,
)  # fmt: skip
"""Every metric of the room."""


class IndexerVitals:
    """What the endpoint of an indexer tells; also before it has started.

    Args:
        node: the node's name.
        lease_s: after how long without a word from the ledger an indexer is not ready.
        clock_ms: milliseconds since the epoch.
    """

    def __init__(
        self,
        *,
        node: str,
        lease_s: float,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._node = node
        self._lease_s = lease_s
        self._clock_ms = clock_ms
        self._snapshot: Callable[[], IndexerSnapshot] | None = None
        self._sent: Callable[[], int] | None = None
        self._probes: Mapping[str, Probe] = {}
        self._partitions = 0

    def attach(
        self,
        snapshot: Callable[[], IndexerSnapshot],
        *,
        partitions: int,
        sent: Callable[[], int] | None = None,
        probes: Mapping[str, Probe] | None = None,
    ) -> None:
        """Tell what `snapshot` says from now on.

        `sent` counts the events on the events bus; `probes` try stores, for readiness.
        """
        self._snapshot, self._sent = snapshot, sent
        self._partitions, self._probes = partitions, dict(probes or {})

    async def families(self) -> Iterable[Metric]:
        sheet = Sheet(MEASURES)
        if self._snapshot is not None:
            now = self._snapshot()
            _counted(sheet, now)
            sheet.put(PARTITIONS, self._partitions)
            for lane in now.lanes:
                self._lane(sheet, lane)
            if self._sent is not None:
                sheet.put(EVENTS, self._sent())
        return [*build("indexer", self._node), *sheet.families(), *process()]

    async def readiness(self) -> Readiness:
        """Ready is who hears from the ledger and every probe; without a share too, as a reserve."""
        if self._snapshot is None:
            return Readiness(ready=False, checks={"stores": "starting"})
        now = self._snapshot()
        heard = now.beaten_s <= self._lease_s
        stores = await tried(self._probes)
        shares = f"{len(now.lanes)} held, {len(now.claiming)} claiming"
        checks = {
            "ledger": "ok" if heard else "not heard of within the time of a lease",
            **stores,
            "partitions": f"{shares}, {len(now.workers)} workers",
        }
        ready = heard and all(how == "ok" for how in stores.values())
        return Readiness(ready=ready, checks=checks)

    def _lane(self, sheet: Sheet, lane: LaneSnapshot) -> None:
        partition = str(lane.partition)
        sheet.put(LAG, lane.lag, partition=partition)
        sheet.put(SEGMENTS_BEHIND, lane.behind, partition=partition)
        age_ms = 0 if lane.oldest_ms is None else self._clock_ms() - lane.oldest_ms
        sheet.put(OLDEST, max(0, age_ms) / 1000, partition=partition)


def _counted(sheet: Sheet, now: IndexerSnapshot) -> None:
    tally = now.tally
    sheet.put(WORKERS, len(now.workers))
    sheet.put(BEAT, now.beaten_s)
    sheet.put(HELD, len(now.lanes))
    sheet.put(CLAIMING, len(now.claiming))
    sheet.put(FRAMES, tally.frames)
    sheet.put(COMMANDS, tally.commands)
    sheet.put(SEGMENTS, tally.segments)
    sheet.put(UNREADABLE, tally.unreadable)
    sheet.put(MALFORMED, tally.malformed)
    sheet.put(DESTROYED, tally.destroyed)
    sheet.put(EARLY, tally.early)
    sheet.put(UNANSWERED, tally.unanswered)
    sheet.put(RESTARTED, tally.restarted)
    sheet.put(FENCED, now.fenced)
    sheet.put(FAILURES, now.failures)
    sheet.spread(FOUND, now.found_s)
