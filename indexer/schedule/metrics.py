"""What scheduled verification tells about itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client.metrics_core import Metric

from sealtape.capture.metrics import Readiness, Sheet, measures_of
from sealtape.capture.metrics.vitals import build, process
from sealtape.indexer.schedule.serving import RunningSchedule
from sealtape.schemas.verify.findings import Verdict

__all__ = ["MEASURES", "ScheduleVitals"]


_gauge, _counter = measures_of("verify")

SHARE = _gauge("share", "Share of all sealed bytes that was verified within `verify.window`.")
OLDEST = _gauge(
    "oldest_seconds", "How long the object that was left alone the longest was not verified."
)
SEALED = _gauge("objects", "Sealed objects.")
UNVERIFIED = _gauge("unverified_objects", "Sealed objects that were never verified.")
STANDING = _gauge("findings", "Findings that stand: above 0 somebody has to look.", "verdict")
LAST = _gauge("last_timestamp_seconds", "When something was last verified, in POSIX seconds.")
FOUND = _counter("found", "Findings, each counted when it was found for the first time.", "verdict")
BYTES = _counter("read_bytes", "Bytes of objects read.")
OBJECTS = _counter("read_objects", "Objects read.")
PASSES = _counter("passes", "Passes over the ledger's rows and the whole log.")
FAILURES = _counter("failures", "Times that vault or ledger could not be read.")
SENT = _counter("alarms_sent", "Alarms that the webhook took.")
UNSENT = _gauge("alarms_waiting", "Alarms that the webhook has not taken.")
REFUSED = _counter("alarm_failures", "Times that the webhook did not take an alarm.")

MEASURES: Final = (
    SHARE, OLDEST, SEALED, UNVERIFIED, STANDING, LAST, FOUND, BYTES, OBJECTS, PASSES, FAILURES,
    SENT, UNSENT, REFUSED,
)  # fmt: skip
"""Every metric of scheduled verification."""

_FINDINGS: Final = (Verdict.TAMPERED, Verdict.INCOMPLETE)


class ScheduleVitals:
    """What the endpoint of a schedule tells; what nobody has looked at yet is left out."""

    def __init__(self, node: str) -> None:
        """Begin before it has started; `attach` follows."""
        self._node = node
        self._running: RunningSchedule | None = None

    def attach(self, running: RunningSchedule) -> None:
        """Tell of it from now on."""
        self._running = running

    async def families(self) -> Iterable[Metric]:
        sheet = Sheet(MEASURES)
        if self._running is not None:
            _tell(sheet, self._running)
        return [*build("verify", self._node), *sheet.families(), *process()]

    async def readiness(self) -> Readiness:
        """Ready is who has looked once."""
        looked = self._running is not None and self._running.rounds.tally.last_ns > 0
        return Readiness(ready=looked, checks={"verification": "ok" if looked else "starting"})


def _tell(sheet: Sheet, running: RunningSchedule) -> None:
    rounds, tally = running.rounds, running.rounds.tally
    if tally.last_ns:
        sheet.put(SHARE, rounds.coverage.share)
        sheet.put(OLDEST, rounds.coverage.oldest_ns / 1e9)
        sheet.put(SEALED, rounds.coverage.objects)
        sheet.put(UNVERIFIED, rounds.coverage.unverified)
        sheet.put(LAST, tally.last_ns / 1e9)
    for verdict in _FINDINGS:
        sheet.put(STANDING, rounds.standing[verdict], verdict=verdict)
        sheet.put(FOUND, tally.found[verdict], verdict=verdict)
    sheet.put(BYTES, tally.bytes)
    sheet.put(OBJECTS, tally.objects)
    sheet.put(PASSES, tally.passes)
    sheet.put(FAILURES, tally.failures)
    if running.sender is not None:
        sheet.put(SENT, running.sender.sent)
        sheet.put(UNSENT, running.sender.waiting)
        sheet.put(REFUSED, running.sender.failures)
