"""The ingest room's metrics: what a worker says about itself."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client.metrics_core import Metric

from sealtape.capture.metrics import Measure, Readiness, Sheet, measures_of
from sealtape.capture.metrics.vitals import Probe, build, process, tried
from sealtape.ingest.findings import REASONS
from sealtape.ingest.snapshot import IngestSnapshot, PartitionSnapshot
from sealtape.ingest.tlog import timestamping, witnesses
from sealtape.ingest.tlog.worker import LogSnapshot

__all__ = ["MEASURES", "IngestVitals"]


_gauge, _counter = measures_of("ingest")

WORKERS = _gauge("workers_live", "Ingest workers at work, as this one last heard.")
BEAT = _gauge(
    "heartbeat_age_seconds", "Seconds since this worker last said in the ledger that it is at work."
)
PARTITIONS = _gauge("partitions", "Partitions of the bus.")
HELD = _gauge("partitions_held", "Partitions of a topic whose lease this worker holds.", "topic")
CLAIMING = _gauge(
    "partitions_claiming", "Partitions of this worker's share that it does not hold yet."
)
LAG = _gauge("lag", "Offsets of the bus behind its end that are not sealed.", "topic", "partition")
OLDEST = _gauge(
    "oldest_unsealed_seconds",
    "How long ago the bus took the oldest message that is not sealed, in seconds; 0 for none.",
    "topic",
    "partition",
)
RETENTION = _gauge(
    "retention_used_ratio",
    "That time as a part of what the bus keeps messages for; at 1 they are deleted unsealed.",
    "topic",
    "partition",
)
SEGMENTS = _counter("segments", "Segments sealed and published.")
FRAMES = _counter("frames", "Frames sealed.")
BYTES = _counter("bytes", "Bytes of payload sealed.")
DUPLICATES = _counter("duplicates", "Frames that came again and were passed over.")
INCIDENTS = _counter("incidents", "Incidents recorded, by reason (docs/ingest.md).", "reason")
GAPS = _counter("gaps", "Gaps sealed: frames that were signed for and never came.")
QUARANTINED = _counter("quarantined", "Messages put into quarantine.")
FENCED = _counter("fenced", "Times a newer holder of a partition had gone ahead.")
FAILURES = _counter("failures", "Times work was begun anew after a store had failed.")
SEALED = Measure(
    "sealtape_ingest_seal_seconds",
    "histogram",
    "From the time the bus took a message until it was sealed and published, in seconds.",
)
RELAYED = _counter("events_relayed", "Lifecycle events put on the events bus.")
UNRELAYED = _gauge(
    "events_oldest_seconds",
    "Age of the oldest lifecycle event not on the events bus yet, in seconds; 0 for none, and"
    " where another worker relays.",
)

LOG_HELD = _gauge("log_held", "1 when this worker is the one that writes the log, else 0.")
LOG_STOPPED = _gauge(
    "log_stopped", "1 when this worker refuses to write to the log, because it would fork; else 0."
)
LOG_APPENDED = _counter("log_appended", "Entries that this worker added to the log.")
LOG_SIZE = _gauge("log_size", "Entries of the log's present shard, where this worker writes it.")
LOG_SIGNED = _gauge("log_signed_size", "Size of the last checkpoint that the log signed.")
LOG_PENDING = _gauge(
    "log_pending", "Entries that are in the log and under no witnessed checkpoint yet."
)
LOG_PENDING_SEALS = _gauge(
    "log_pending_seals",
    "Seals among them: sessions that are sealed and not witnessed, each epoch counted.",
)
LOG_OLDEST_PENDING = _gauge(
    "log_oldest_pending_seconds",
    "Age of the oldest seal that is under no witnessed checkpoint; 0 without one.",
)
LOG_WITNESSED = _gauge(
    "log_witnessed_size", "Size of the last checkpoint with the policy's quorum of witnesses."
)
LOG_WITNESSED_AGE = _gauge(
    "log_witnessed_age_seconds",
    "Seconds since a checkpoint was last witnessed; infinite for never.",
)
LOG_STAMPED_AGE = _gauge(
    "log_timestamp_age_seconds",
    "Seconds since a checkpoint was last time-stamped; infinite for never.",
)
WITNESS_ANSWERS = _counter(
    "witness_answers",
    "What a witness answered when it was asked to cosign (docs/witness.md).",
    "witness",
    "state",
)
WITNESS_FINDINGS = _counter(
    "witness_findings", "Answers that mean that the log or the witness has lied.", "witness"
)
STAMP_ANSWERS = _counter(
    "timestamp_answers", "What a time-stamping authority answered.", "authority", "state"
)

MEASURES: Final = (
    WORKERS, BEAT, PARTITIONS, HELD, CLAIMING, LAG, OLDEST, RETENTION, SEGMENTS, FRAMES, BYTES,
    DUPLICATES, INCIDENTS, GAPS, QUARANTINED, FENCED, FAILURES, SEALED, RELAYED, UNRELAYED,
    LOG_HELD, LOG_STOPPED, LOG_APPENDED, LOG_SIZE, LOG_SIGNED, LOG_PENDING, LOG_PENDING_SEALS,
    LOG_OLDEST_PENDING, LOG_WITNESSED, LOG_WITNESSED_AGE, LOG_STAMPED_AGE,
    WITNESS_ANSWERS, WITNESS_FINDINGS, STAMP_ANSWERS,
)  # fmt: skip
"""Every metric of the room."""


class IngestVitals:
    """What the endpoint of an ingest worker tells; also before it has started.

    Args:
        node: the node's name.
        lease_s: after how long without a word from the ledger a worker is not ready.
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
        self._snapshot: Callable[[], IngestSnapshot] | None = None
        self._relayed: Callable[[], tuple[int, int | None]] | None = None
        self._log: Callable[[], LogSnapshot] | None = None
        self._probes: Mapping[str, Probe] = {}
        self._topics: tuple[str, ...] = ()
        self._partitions = 0

    def attach(
        self,
        snapshot: Callable[[], IngestSnapshot],
        *,
        topics: tuple[str, ...],
        partitions: int,
        relayed: Callable[[], tuple[int, int | None]] | None = None,
        log: Callable[[], LogSnapshot] | None = None,
        probes: Mapping[str, Probe] | None = None,
    ) -> None:
        """Tell what `snapshot` says from now on.

        `relayed` counts the events on the events bus and says when the oldest was made that is
        not there (ns since the epoch; None for none), `log` says how the log stands; `probes` try
        stores, for readiness.
        """
        self._probes = dict(probes or {})
        self._snapshot, self._relayed, self._log = snapshot, relayed, log
        self._topics = tuple(map(_name, topics))
        self._partitions = partitions

    async def families(self) -> Iterable[Metric]:
        sheet = Sheet(MEASURES)
        if self._snapshot is not None:
            self._write(sheet, self._snapshot())
        return [*build("ingest", self._node), *sheet.families(), *process()]

    async def readiness(self) -> Readiness:
        """Ready is who hears from the ledger and every probe; without a share too, as a reserve."""
        if self._snapshot is None:
            return Readiness(ready=False, checks={"stores": "starting"})
        now = self._snapshot()
        heard = now.beaten_s <= self._lease_s
        stores = await tried(self._probes)
        shares = f"{len(now.partitions)} held, {len(now.claiming)} claiming"
        checks = {
            "ledger": "ok" if heard else "not heard of within the time of a lease",
            **stores,
            "partitions": f"{shares}, {len(now.workers)} workers",
        }
        ready = heard and all(how == "ok" for how in stores.values())
        return Readiness(ready=ready, checks=checks)

    def _write(self, sheet: Sheet, now: IngestSnapshot) -> None:
        _counted(sheet, now)
        sheet.put(PARTITIONS, self._partitions)
        if self._relayed is not None:
            count, oldest_ns = self._relayed()
            sheet.put(RELAYED, count)
            age_s = 0.0 if oldest_ns is None else self._clock_ms() / 1000 - oldest_ns / 1e9
            sheet.put(UNRELAYED, max(0.0, age_s))
        if self._log is not None:
            _logged(sheet, self._log())
        for topic in self._topics:
            held = sum(_name(part.topic) == topic for part in now.partitions)
            sheet.put(HELD, held, topic=topic)
        for part in now.partitions:
            names = {"topic": _name(part.topic), "partition": str(part.partition)}
            age_s = self._age_s(part)
            sheet.put(LAG, part.lag, **names)
            sheet.put(OLDEST, age_s, **names)
            if part.retention_s:
                sheet.put(RETENTION, age_s / part.retention_s, **names)

    def _age_s(self, part: PartitionSnapshot) -> float:
        if part.oldest_ms is None:
            return 0.0
        return max(0.0, (self._clock_ms() - part.oldest_ms) / 1000)


def _name(topic: str) -> str:
    """Return a topic's name without the id that tells it from one made anew."""
    return topic.partition("@")[0]


def _counted(sheet: Sheet, now: IngestSnapshot) -> None:
    sheet.put(WORKERS, len(now.workers))
    sheet.put(BEAT, now.beaten_s)
    sheet.put(CLAIMING, len(now.claiming))
    sheet.put(SEGMENTS, now.segments)
    sheet.put(FRAMES, now.frames)
    sheet.put(BYTES, now.bytes)
    sheet.put(DUPLICATES, now.duplicates)
    sheet.put(GAPS, now.gaps)
    sheet.put(QUARANTINED, now.quarantined)
    sheet.put(FENCED, now.fenced)
    sheet.put(FAILURES, now.failures)
    sheet.spread(SEALED, now.sealed_s)
    for reason in sorted(REASONS.keys() | now.incidents.keys()):
        sheet.put(INCIDENTS, now.incidents.get(reason, 0), reason=reason)


def _logged(sheet: Sheet, now: LogSnapshot) -> None:
    """Sizes are told by whoever writes the log, so that one of several workers tells them."""
    sheet.put(LOG_HELD, int(now.held))
    sheet.put(LOG_STOPPED, int(bool(now.stopped)))
    sheet.put(LOG_APPENDED, now.appended)
    if not now.held:
        return
    sheet.put(LOG_SIZE, now.size)
    sheet.put(LOG_SIGNED, now.signed)
    sheet.put(LOG_PENDING, now.size - now.witnessed)
    sheet.put(LOG_PENDING_SEALS, now.pending)
    sheet.put(LOG_OLDEST_PENDING, now.pending_s or 0.0)
    sheet.put(LOG_WITNESSED, now.witnessed)
    sheet.put(LOG_WITNESSED_AGE, math.inf if now.witnessed_s is None else now.witnessed_s)
    sheet.put(LOG_STAMPED_AGE, math.inf if now.stamped_s is None else now.stamped_s)
    for witness in now.witnesses:
        for state in witnesses.STATES:
            count = witness.answers.get(state, 0)
            sheet.put(WITNESS_ANSWERS, count, witness=witness.name, state=state)
        sheet.put(WITNESS_FINDINGS, witness.findings, witness=witness.name)
    for authority in now.authorities:
        for state in timestamping.STATES:
            count = authority.answers.get(state, 0)
            sheet.put(STAMP_ANSWERS, count, authority=authority.name, state=state)
