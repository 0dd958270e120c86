"""Between which times the frames of a bundle were made, by what stands outside of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sealtape.schemas.bodies import Beacon
from sealtape.schemas.bundle import checkpoint_name
from sealtape.schemas.verify.anchors import Anchors
from sealtape.schemas.verify.sealed_epochs import SealedEpoch, SealedFragment
from sealtape.schemas.verify.steps import Bounds, BundleReport

SKEW_NS: Final = 60 * 1_000_000_000
"""How far a node's clock may be off before it is reported."""

_STEP: Final = "times"
_NS: Final = 1_000_000_000


def check_times(
    epochs: Sequence[SealedEpoch],
    beacons: Mapping[int, Beacon | None],
    anchors: Anchors,
    report: BundleReport,
) -> None:
    """The step `times`."""
    for epoch in epochs:
        begin = _not_before(epoch.number, beacons.get(epoch.number), anchors, report)
        for item in epoch.fragments:
            record = item.record
            end = anchors.latest_ns(item.entry)
            report.bounds.append(Bounds(epoch.number, record.lo, record.hi, begin, end))
            _clock(item, begin, end, report)
    if report.bounds and all(bounds.not_after_ns is not None for bounds in report.bounds):
        report.passed(_STEP, "every fragment was witnessed or stamped")
    else:
        report.not_provided(_STEP, "no witnessed time covers every fragment")


def _not_before(
    epoch: int, beacon: Beacon | None, anchors: Anchors, report: BundleReport
) -> int | None:
    """The witnessed time of the checkpoint that an OPEN names, if it is here."""
    if beacon is None or beacon.origin != anchors.origin:
        return None
    anchor = anchors.at(beacon.size)
    if anchor is None:
        return None
    if anchor.root != beacon.root:
        reason = f"OPEN of epoch {epoch} names another root at {beacon.size} entries"
        report.tampered(_STEP, checkpoint_name(beacon.size), reason, epoch=epoch)
        return None
    return None if anchor.seconds is None else anchor.seconds * _NS


def _clock(item: SealedFragment, begin: int | None, end: int | None, report: BundleReport) -> None:
    record = item.record
    early = begin is not None and record.first_ts_ns < begin - SKEW_NS
    late = end is not None and record.last_ts_ns > end + SKEW_NS
    if early or late:
        word = "before it can have begun" if early else "after it was witnessed"
        report.note(
            f"the node's clock was wrong: frames {record.lo} to {record.hi - 1} of epoch"
            f" {record.epoch} have times {word}"
        )
