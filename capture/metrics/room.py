"""The capture room's metrics: what a worker says about itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from prometheus_client.metrics_core import Metric

from sealtape.capture.metrics.sheet import Measure, Sheet, measures_of
from sealtape.capture.metrics.vitals import Readiness, build, process
from sealtape.schemas.slices import LEG_NAMES

if TYPE_CHECKING:
    from sealtape.capture.postgres.gateway import Gateway
    from sealtape.capture.recorder import SessionRecorder
    from sealtape.capture.worker import Worker

__all__ = ["MEASURES", "CaptureVitals"]


_gauge, _counter = measures_of("capture")

WORKER_UP = _gauge("worker_up", "1 while the worker answers, 0 while it is down or stuck.")
RESTARTS = _counter("worker_restarts", "Times the worker was started again after it had died.")
LIVE = _gauge("sessions_live", "Sessions open now.", "protocol", "target")
OPENED = _counter("sessions_opened", "Sessions opened.", "protocol", "target")
ENDED = _counter(
    "sessions_ended", "Sessions ended, by the reason in CLOSE.", "protocol", "target", "reason"
)
REFUSED = _counter(
    "refused",
    "Clients refused, by reason; a target that does not exist is the empty label.",
    "protocol",
    "target",
    "reason",
)
STRANGERS = _counter(
    "strangers", "Connections that never became a session: scans, garbage, broken TLS.", "kind"
)
CONNECTIONS = _gauge("connections", "Client connections open now, whatever they have become.")
UNAUTHENTICATED = _gauge("connections_unauthenticated", "Those of them not yet authenticated.")
CONNECTIONS_LIMIT = _gauge("connections_limit", "Most connections the worker takes.")
BYTES = _counter("bytes", "Bytes recorded, by leg.", "leg")
FRAMES = _counter("frames", "Frames made of sessions.")
COMMANDS = _counter("commands", "Commands seen in sessions.")
STALLS = _counter("stalls", "Times a session was made to wait for the spool or the bus.", "reason")
STALLED = _gauge("sessions_stalled", "Sessions that are made to wait now.")
UNRECORDED = _gauge(
    "sessions_unrecorded", "Sessions going on unrecorded now (`on_failure = continue`)."
)
GAPS = _counter("gaps", "Times a session went on unrecorded; each is a GAP frame.")
SPOOL = _gauge("spool_bytes", "Bytes the worker's spool takes, those of dead workers included.")
SPOOL_LIMIT = _gauge("spool_limit_bytes", "Most bytes it may take.")
SPOOL_FAILING = _gauge("spool_failing", "1 while the spool cannot be written.")
ORPHANS = _gauge("orphans", "Spools of dead workers that are not yet wholly on the bus.")
UNSHIPPED = _gauge("unshipped_bytes", "Bytes of finished frames that the bus has not acknowledged.")
OLDEST = _gauge(
    "oldest_unacked_seconds", "How long the oldest of them has been waiting, in seconds."
)
BUS_FAILING = _gauge("bus_failing", "1 while the bus does not take what is sent.")
BUS_ERRORS = _counter("bus_errors", "Failed appends to the bus, by the error's code.", "code")
SIGNED = Measure(
    "sealtape_capture_checkpoint_seconds",
    "histogram",
    "How long frames waited for the timer that signs them, in seconds.",
)
RECEIPTS_WAITING = _gauge(
    "receipts_waiting", "Closed epochs whose receipt from the log has not come (`on_seal`)."
)
RECEIPTS_OVERDUE = _gauge("receipts_overdue", "Those of them whose receipt is overdue.")
RECEIPTS_CONTRADICTING = _gauge(
    "receipts_contradicting", "Those of them of which the log has something else than was sent."
)
RECEIPTS = _counter("receipts", "Receipts verified.")
LOG_FAILING = _gauge(
    "log_failing", "1 while the log's server does not answer, or says what does not verify."
)
DRAINING = _gauge("draining", "1 while the worker ends its sessions and takes no new one.")
KEYS_FAILING = _gauge(
    "identity_keys_failing", "1 while the identity provider's keys cannot be fetched."
)
CERTIFICATE = _gauge(
    "certificate_expiry_timestamp_seconds", "When the listener's certificate expires (Unix time)."
)

MEASURES: Final = (
    WORKER_UP, RESTARTS, LIVE, OPENED, ENDED, REFUSED, STRANGERS, CONNECTIONS, UNAUTHENTICATED,
    CONNECTIONS_LIMIT, BYTES, FRAMES, COMMANDS, STALLS, STALLED, UNRECORDED, GAPS, SPOOL,
    SPOOL_LIMIT, SPOOL_FAILING, ORPHANS, UNSHIPPED, OLDEST, BUS_FAILING, BUS_ERRORS, SIGNED,
    RECEIPTS_WAITING, RECEIPTS_OVERDUE, RECEIPTS_CONTRADICTING, RECEIPTS, LOG_FAILING, DRAINING,
    KEYS_FAILING, CERTIFICATE,
)  # fmt: skip
"""Every metric of the room; each has the label `worker` besides its own."""


class CaptureVitals:
    """What the endpoint of a capture worker tells; also before it has started.

    Args:
        node: the node's name.
        number: the worker's, its label.
    """

    def __init__(self, *, node: str, number: int = 0) -> None:
        self._node = node
        self._label = str(number)
        self._worker: Worker | None = None
        self._gateway: Gateway | None = None
        self._expires_s = 0.0

    def begin(self, worker: Worker) -> None:
        """Tell about a worker that is about to start, which may have to wait for room."""
        self._worker = worker

    def attach(self, worker: Worker, gateway: Gateway, *, expires_s: float) -> None:
        """Tell about these from now on; `expires_s` is when the certificate does, in Unix time."""
        self._worker, self._gateway, self._expires_s = worker, gateway, expires_s

    async def families(self) -> Iterable[Metric]:
        sheet = Sheet([each for each in MEASURES if each is not RESTARTS], worker=self._label)
        sheet.put(WORKER_UP, 1)
        if self._worker is not None:
            _of_worker(sheet, self._worker)
        if self._gateway is not None:
            sheet.put(CERTIFICATE, self._expires_s)
            _of_gateway(sheet, self._gateway)
        about = build("capture", self._node, worker=self._label)
        return [*about, *sheet.families(), *process(worker=self._label)]

    async def readiness(self) -> Readiness:
        """Ready is who would take a new session: a bus that is away fills the spool meanwhile."""
        worker, gateway = self._worker, self._gateway
        if worker is None:
            return Readiness(ready=False, checks={"listening": "starting"})
        health = worker.health()
        failing = health.state == "failing"
        checks = {
            "listening": "starting",
            "spool": f"failing: {health.code}" if failing else "ok",
            "bus": f"failing: {health.code}" if health.state == "bus-failing" else "ok",
        }
        if gateway is None:
            return Readiness(ready=False, checks=checks)
        draining = gateway.closing or health.state == "draining"
        checks["listening"] = "draining" if draining else "ok"
        checks["identity"] = "keys cannot be fetched" if gateway.keys.error else "ok"
        return Readiness(ready=not (draining or failing), checks=checks)


def _of_worker(sheet: Sheet, worker: Worker) -> None:
    counts, health, live = worker.counts, worker.health(), worker.recorders()
    _sessions(sheet, worker, live)
    for leg, name in enumerate(LEG_NAMES):
        now = sum(recorder.offsets[leg] for recorder in live)
        sheet.put(BYTES, counts.legs[leg] + now, leg=name)
    sheet.put(FRAMES, counts.frames + sum(recorder.size for recorder in live))
    sheet.put(COMMANDS, counts.commands + sum(recorder.commands for recorder in live))
    for reason in ("spool", "queue"):
        sheet.put(STALLS, worker.stalls[reason], reason=reason)
    sheet.put(STALLED, sum(recorder.stalled for recorder in live))
    sheet.put(UNRECORDED, sum(recorder.unrecorded for recorder in live))
    sheet.put(GAPS, counts.gaps)
    sheet.put(SPOOL, health.spool_bytes)
    sheet.put(SPOOL_LIMIT, health.spool_limit)
    sheet.put(SPOOL_FAILING, health.state == "failing")
    sheet.put(ORPHANS, counts.orphans)
    sheet.put(UNSHIPPED, health.unshipped_bytes)
    sheet.put(OLDEST, health.oldest_s)
    sheet.put(BUS_FAILING, worker.bus_failing)
    for code, times in sorted(worker.bus_errors.items()):
        sheet.put(BUS_ERRORS, times, code=code)
    sheet.spread(SIGNED, counts.signed)
    if (desk := worker.desk) is not None:
        sheet.put(RECEIPTS_WAITING, len(desk.owed))
        sheet.put(RECEIPTS_OVERDUE, desk.overdue)
        sheet.put(RECEIPTS_CONTRADICTING, desk.contradicting)
        sheet.put(RECEIPTS, desk.received)
        sheet.put(LOG_FAILING, bool(desk.view.error))
    sheet.put(DRAINING, health.state == "draining")


def _sessions(sheet: Sheet, worker: Worker, live: Iterable[SessionRecorder]) -> None:
    counts = worker.counts
    open_now = dict.fromkeys(counts.opened, 0)
    for recorder in live:
        ident = recorder.subject.ident
        name = ident.protocol, ident.target
        open_now[name] = open_now.get(name, 0) + 1
    for (protocol, target), times in sorted(open_now.items()):
        sheet.put(LIVE, times, protocol=protocol, target=target)
    for (protocol, target), times in sorted(counts.opened.items()):
        sheet.put(OPENED, times, protocol=protocol, target=target)
    for (protocol, target, reason), times in sorted(counts.ended.items()):
        sheet.put(ENDED, times, protocol=protocol, target=target, reason=reason)
    for (protocol, target, reason), times in sorted(counts.refused.items()):
        sheet.put(REFUSED, times, protocol=protocol, target=target, reason=reason)
    for kind, times in sorted(counts.strangers.items()):
        sheet.put(STRANGERS, times, kind=kind)


def _of_gateway(sheet: Sheet, gateway: Gateway) -> None:
    limits = gateway.limits
    sheet.put(CONNECTIONS, limits.total)
    sheet.put(UNAUTHENTICATED, limits.strangers)
    sheet.put(CONNECTIONS_LIMIT, gateway.settings.max_connections)
    sheet.put(KEYS_FAILING, bool(gateway.keys.error))
