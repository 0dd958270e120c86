"""Metrics as Sealtape has them: named once with their meaning, filled in anew at each scrape.

A room lists its `Measure`s, and writes their values on a `Sheet` when somebody asks. Nothing is
global, and what is measured keeps plain numbers: no lock and no registry on a hot path.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from prometheus_client.metrics_core import Metric

__all__ = ["SECONDS", "Histogram", "Measure", "Sheet", "measures_of"]

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds of a latency histogram, in seconds."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One metric.

    Attributes:
        name: in full; a counter's ends in `_total`.
        kind: what it is to Prometheus.
        doc: what it says, with its unit; also its line in `docs/metrics.md`.
        labels: names of its labels, besides those that all of the sheet have.
    """

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    doc: str
    labels: tuple[str, ...] = ()


class Naming(Protocol):
    """Makes the measures of one kind and one room."""

    def __call__(self, name: str, doc: str, *labels: str) -> Measure:
        """The measure; `name` is what comes behind the room's."""
        ...


def measures_of(room: str) -> tuple[Naming, Naming]:
    """What makes the gauges of a room, and what makes its counters."""

    def gauge(name: str, doc: str, *labels: str) -> Measure:
        return Measure(f"sealtape_{room}_{name}", "gauge", doc, labels)

    def counter(name: str, doc: str, *labels: str) -> Measure:
        return Measure(f"sealtape_{room}_{name}_total", "counter", doc, labels)

    return gauge, counter


class Histogram:
    """Counts values by upper bound. Pure, and cheap enough for every frame."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        """Nothing was observed yet; `bounds` ascend, and values above the last count too."""
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value, `times` times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def buckets(self) -> Iterator[tuple[str, int]]:
        """Yield upper bounds, as Prometheus writes them, and how many values were no greater."""
        so_far = 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            so_far += count
            yield "+Inf" if bound == float("inf") else repr(float(bound)), so_far


class Sheet:
    """The values of one scrape.

    Args:
        measures: what may stand on it; every one is listed, also without a value.
        labels: given to every value, such as `worker`.
    """

    def __init__(self, measures: Iterable[Measure], **labels: str) -> None:
        self._families = {each.name: Metric(*_named(each)) for each in measures}
        self._labels = labels

    def put(self, measure: Measure, value: float, **labels: str) -> None:
        """Write down a gauge's or a counter's value."""
        self._check(measure, labels)
        self._families[measure.name].add_sample(measure.name, self._labels | labels, value)

    def spread(self, measure: Measure, histogram: Histogram, **labels: str) -> None:
        """Write down a histogram."""
        self._check(measure, labels)
        family, labels = self._families[measure.name], self._labels | labels
        for bound, count in histogram.buckets():
            family.add_sample(f"{measure.name}_bucket", labels | {"le": bound}, count)
        family.add_sample(f"{measure.name}_sum", labels, histogram.total)
        family.add_sample(f"{measure.name}_count", labels, sum(histogram.counts))

    def families(self) -> list[Metric]:
        """Return what was written down."""
        return list(self._families.values())

    def _check(self, measure: Measure, labels: dict[str, str]) -> None:
        if set(labels) != set(measure.labels):
            raise ValueError(f"{measure.name} has the labels {measure.labels}, not {set(labels)}.")


def _named(measure: Measure) -> tuple[str, str, str]:
    name = measure.name.removesuffix("_total") if measure.kind == "counter" else measure.name
    return name, measure.doc, measure.kind
