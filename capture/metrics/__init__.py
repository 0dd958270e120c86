"""What a room tells about itself while it runs: metrics, and whether it is alive and ready."""

from sealtape.capture.metrics.endpoint import Endpoint, open_endpoint
from sealtape.capture.metrics.sheet import Histogram, Measure, Sheet, measures_of
from sealtape.capture.metrics.vitals import Readiness, Vitals

__all__ = [
    "Endpoint",
    "Histogram",
    "Measure",
    "Readiness",
    "Sheet",
    "Vitals",
    "measures_of",
    "open_endpoint",
]
