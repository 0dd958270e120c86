"""What the endpoint asks a room for, and how the answer is written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from prometheus_client.core import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector

from sealtape import __version__
from sealtape.capture.metrics.sheet import Measure, Sheet
from sealtape.schemas.errors import StoreError

__all__ = [
    "BUILD",
    "CONTENT_TYPE",
    "Probe",
    "Readiness",
    "Vitals",
    "build",
    "process",
    "tried",
    "written",
]

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
PROBE_S: Final = 2.0

Probe = Callable[[], Awaitable[object]]
"""Asks a store something small, to see whether it answers."""

BUILD = Measure(
    "sealtape_build_info",
    "gauge",
    "Always 1; its labels say which version runs as which room of which node.",
    ("version", "room", "node"),
)


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a room can do its work now.

    Attributes:
        ready: whether it should be sent work.
        checks: what was looked at, and how it is: `ok`, or a few words without any secret.
    """

    ready: bool
    checks: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """Return the body of `/readyz`."""
        return json.dumps({"ready": self.ready, "checks": dict(self.checks)}).encode() + b"\n"


class Vitals(Protocol):
    """What a room says about itself. Both methods MUST answer within seconds, whatever is down."""

    async def families(self) -> Iterable[Metric]:
        """Return the metrics as they are now."""
        ...

    async def readiness(self) -> Readiness:
        """Say whether the room can do its work."""
        ...


async def tried(probes: Mapping[str, Probe]) -> dict[str, str]:
    """Try stores at once and say `ok` or what failed, by the error's code alone."""
    found = await asyncio.gather(*(_try(probe) for probe in probes.values()))
    return dict(zip(probes, found, strict=True))


async def _try(probe: Probe) -> str:
    try:
        await asyncio.wait_for(probe(), PROBE_S)
    except TimeoutError:
        return "failing: no answer"
    except StoreError as exc:
        return f"failing: {exc.code}"
    return "ok"


def build(room: str, node: str, **labels: str) -> list[Metric]:
    """Return the metric that says what runs here."""
    sheet = Sheet([BUILD], **labels)
    sheet.put(BUILD, 1, version=__version__, room=room, node=node)
    return sheet.families()


def process(**labels: str) -> list[Metric]:
    """Return what the operating system says of this process: memory, CPU, descriptors."""
    registry = CollectorRegistry(auto_describe=False)
    families = list(ProcessCollector(registry=registry).collect())
    for family in families:
        family.samples = [s._replace(labels=s.labels | labels) for s in family.samples]
    return families


class _Once:
    """A collector of what was collected already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def written(families: Iterable[Metric]) -> bytes:
    """Return metrics in Prometheus' text format, version 0.0.4."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(families))
    return generate_latest(registry)
