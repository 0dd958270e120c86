"""What a witness tells about itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client.metrics_core import Metric

from sealtape.capture.metrics import Measure, Readiness, Sheet
from sealtape.capture.metrics.vitals import build, process
from sealtape.ingest.witness.cosigner import Witness

__all__ = ["MEASURES", "WitnessVitals"]

SEEN: Final = Measure(
    "sealtape_witness_seen_size", "gauge", "Entries of the log that the witness has seen.", ("log",)
)
COSIGNED: Final = Measure(
    "sealtape_witness_cosigned_total", "counter", "Checkpoints that the witness cosigned.", ("log",)
)
LAST: Final = Measure(
    "sealtape_witness_last_cosigned_timestamp_seconds",
    "gauge",
    "What the last cosignature states as its time, in POSIX seconds.",
    ("log",),
)
REFUSED: Final = Measure(
    "sealtape_witness_refused_total",
    "counter",
    "Requests that the witness refused, by the word of its answer; `conflict` and `inconsistent` "
    "may convict a log.",
    ("reason",),
)
REASONS: Final = (
    "malformed",
    "unknown-log",
    "untrusted",
    "old-size",
    "conflict",
    "inconsistent",
    "not-admitted",
)

MEASURES: Final = (SEEN, COSIGNED, LAST, REFUSED)
"""Every metric of a witness."""


class WitnessVitals:
    """What the endpoint of a witness tells.

    Args:
        witness: one that is open, and so ready.
    """

    def __init__(self, witness: Witness) -> None:
        self._witness = witness

    async def families(self) -> Iterable[Metric]:
        sheet = Sheet(MEASURES)
        now = self._witness.snapshot()
        for log, size in now.seen.items():
            sheet.put(SEEN, size, log=log)
            sheet.put(COSIGNED, now.cosigned[log], log=log)
        for log, at in now.last.items():
            sheet.put(LAST, at, log=log)
        for reason in REASONS:
            sheet.put(REFUSED, now.refused.get(reason, 0), reason=reason)
        return [*build("witness", self._witness.name), *sheet.families(), *process()]

    async def readiness(self) -> Readiness:
        return Readiness(ready=True, checks={"memory": "ok"})
