"""What a monitor tells about itself, besides what it tells as a witness."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client.metrics_core import Metric

from sealtape.capture.metrics import Measure, Readiness, Sheet
from sealtape.indexer.monitor.server import Monitor
from sealtape.ingest.witness.metrics import WitnessVitals
from sealtape.schemas.verify.violations import RULES

__all__ = ["MEASURES", "MonitorVitals"]

SIZE: Final = Measure(
    "sealtape_monitor_read_size", "gauge", "Entries of the log's shard that were read.", ("shard",)
)
SESSIONS: Final = Measure("sealtape_monitor_sessions", "gauge", "Sessions that the monitor knows.")
FOUND: Final = Measure(
    "sealtape_monitor_violations",
    "gauge",
    "Violations that were ever found, by the rule of docs/spec/monitor.md.",
    ("rule",),
)
OPEN: Final = Measure(
    "sealtape_monitor_unacknowledged",
    "gauge",
    "Violations that nobody has acknowledged.",
)
LATE: Final = Measure(
    "sealtape_monitor_late", "gauge", "Things that were missing at the last checkpoint."
)
OBJECTIONS: Final = Measure(
    "sealtape_monitor_objections",
    "gauge",
    "Violations because of which nothing is cosigned now; above 0 somebody has to look.",
)
FORKS: Final = Measure(
    "sealtape_monitor_forks_total",
    "counter",
    "Times that entries did not give a root which the log had signed.",
)

MEASURES: Final = (SIZE, SESSIONS, FOUND, OPEN, LATE, OBJECTIONS, FORKS)
"""Every metric of a monitor."""


class MonitorVitals:
    """What the endpoint of a monitor tells."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._witness = WitnessVitals(monitor.server.witness)

    async def families(self) -> Iterable[Metric]:
        sheet = Sheet(MEASURES)
        now = await self._monitor.snapshot()
        sheet.put(SIZE, now.size, shard=str(now.number))
        sheet.put(SESSIONS, now.sessions)
        for rule in RULES:
            sheet.put(FOUND, now.found.get(rule, 0), rule=rule)
        sheet.put(OPEN, now.unacknowledged)
        sheet.put(LATE, now.late)
        sheet.put(OBJECTIONS, now.objections)
        sheet.put(FORKS, now.forks)
        return [*await self._witness.families(), *sheet.families()]

    async def readiness(self) -> Readiness:
        objections = (await self._monitor.snapshot()).objections
        found = f"{objections} violations" if objections else "ok"
        return Readiness(ready=not objections, checks={"rules": found})
