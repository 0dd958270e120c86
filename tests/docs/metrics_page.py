"""docs/metrics.md: its own beginning, then every metric as the rooms have them.

`python -m tests.docs.metrics_page` writes it; a test compares.
"""

from pathlib import Path

from sealtape.capture.metrics import room as capture
from sealtape.capture.metrics import vitals
from sealtape.indexer import metrics as indexer
from sealtape.indexer.monitor import metrics as monitor
from sealtape.indexer.schedule import metrics as schedule
from sealtape.ingest import metrics as ingest
from sealtape.ingest.witness import metrics as witness

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
REFERENCE = "## Reference\n"

ROOMS = {
    "Every room": (vitals.BUILD,),
    "Capture": capture.MEASURES,
    "Ingest": ingest.MEASURES,
    "Indexer": indexer.MEASURES,
    "Witness": witness.MEASURES,
    "Monitor": monitor.MEASURES,
    "Scheduled verification": schedule.MEASURES,
}


def measures():
    """Every metric that any room has."""
    return [each for room in ROOMS.values() for each in room]


def series(each):
    """The names under which Prometheus knows a metric."""
    ends = ("_bucket", "_sum", "_count") if each.kind == "histogram" else ("",)
    return [each.name + end for end in ends]


def metrics_page():
    own = PAGE.read_text(encoding="utf-8").partition(REFERENCE)[0]
    return own + REFERENCE + "".join(_room(name, found) for name, found in ROOMS.items())


def _room(name, found):
    head = f"\n### {name}\n\n| metric | kind | labels | what it is |\n|---|---|---|---|\n"
    return head + "".join(_row(each) for each in found)


def _row(each):
    labels = ", ".join(f"`{label}`" for label in each.labels)
    return f"| `{each.name}` | {each.kind} | {labels} | {each.doc} |\n"


if __name__ == "__main__":
    PAGE.write_text(metrics_page(), encoding="utf-8")
