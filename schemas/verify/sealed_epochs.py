"""What the log has of a session's epochs, and the fragments that its seals name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from sealtape.schemas.bundle import (
    Bundle,
    FragmentPath,
    entry_name,
    fragments_name,
    frames_name,
    keys_name,
    parse_paths,
    record_lines,
)
from sealtape.schemas.errors import FormatError
from sealtape.schemas.segments import FragmentRecord, SegmentRecord
from sealtape.schemas.tlog.records import Entry, Listed, SessionOpen, SessionSeal
from sealtape.schemas.tree import CompactRange, leaf_hash, verify_inclusion
from sealtape.schemas.verify.steps import BundleReport

_SEALS: Final = "seals"
_FRAGMENTS: Final = "fragments"


@dataclass(slots=True)
class SealedFragment:
    """A fragment record, the log's entry of its segment, and whether its frames are absent."""

    record: FragmentRecord
    entry: int
    segment: bytes
    absent: bool = False


@dataclass(slots=True)
class SealedEpoch:
    """An epoch as the log has it. `seal` is None while it is not sealed."""

    number: int
    index: int
    opened: SessionOpen
    seal: SessionSeal | None = None
    seal_index: int = -1
    fragments: list[SealedFragment] = field(default_factory=list)

    @property
    def lost(self) -> int:
        """How many frames never came, as far as is sealed."""
        return sum(gap.hi - gap.lo for item in self.fragments for gap in item.record.gaps)


def find_epochs(
    bundle: Bundle, entries: Mapping[int, Entry], report: BundleReport
) -> list[SealedEpoch]:
    """The step `seals`: the epochs in their order, as far as they are opened."""
    report.passed(_SEALS)
    found: dict[int, SealedEpoch] = {}
    for index, entry in entries.items():
        if isinstance(entry, SessionOpen):
            if entry.epoch in found:
                report.tampered(_SEALS, entry_name(index), "opened twice", epoch=entry.epoch)
            found.setdefault(entry.epoch, SealedEpoch(entry.epoch, index, entry))
    for index, entry in entries.items():
        if isinstance(entry, SessionSeal):
            _add_seal(found.get(entry.epoch), index, entry, report)
    strangers = sorted(set(bundle.epochs) - set(found))
    for number in strangers:
        names = [fragments_name(number), frames_name(number), keys_name(number)]
        name = next(name for name in names if name in bundle.files)
        report.tampered(_SEALS, name, "no entry opens its epoch", epoch=number)
    if sorted(found) != list(range(len(found))) or not found:
        report.tampered(_SEALS, "entries", "an epoch of the session is left out, or all")
    epochs = [found[number] for number in sorted(found)]
    _check_ends(epochs, report)
    return epochs


def _add_seal(
    epoch: SealedEpoch | None, index: int, seal: SessionSeal, report: BundleReport
) -> None:
    name = entry_name(index)
    if epoch is None:
        report.tampered(_SEALS, name, "no entry opens its epoch", epoch=seal.epoch)
    elif epoch.seal is not None:
        report.tampered(_SEALS, name, "the epoch is sealed twice", epoch=seal.epoch)
    else:
        opened = epoch.opened
        same = (opened.tenant, opened.retention, opened.opening_sha256)
        if index < epoch.index or (seal.tenant, seal.retention, seal.opening_sha256) != same:
            report.tampered(_SEALS, name, "it is not the seal of what was opened", epoch=seal.epoch)
        epoch.seal, epoch.seal_index = seal, index


def _check_ends(epochs: list[SealedEpoch], report: BundleReport) -> None:
    for epoch in epochs:
        name = entry_name(epoch.index)
        if _identity(epoch) != _identity(epochs[0]):
            reason = "it is of another tenant, node or number than the first"
            report.tampered(_SEALS, name, reason, epoch=epoch.number)
        if epoch.seal is None:
            report.incomplete(_SEALS, name, "the epoch is not sealed yet", epoch=epoch.number)
        elif epoch.seal.lost:
            reason = f"{epoch.seal.lost} frames were lost"
            report.incomplete(_SEALS, entry_name(epoch.seal_index), reason, epoch=epoch.number)
    last = epochs[-1] if epochs else None
    if last is not None and last.seal is not None:
        name = entry_name(last.seal_index)
        if not last.seal.closed:
            report.incomplete(_SEALS, name, "the session was never closed", epoch=last.number)
        elif last.seal.attested < last.seal.frames:
            report.incomplete(
                _SEALS,
                name,
                "its last frames are not signed",
                epoch=last.number,
                frames=(last.seal.attested, last.seal.frames),
            )


def _identity(epoch: SealedEpoch) -> tuple[str, str, str, bytes, int, int]:
    """What all epochs of a session have alike."""
    opened = epoch.opened
    worker = opened.node, opened.boot, opened.worker, opened.number
    return opened.of, opened.tenant, *worker


# -- fragments -------------------------------------------------------------------------------------


def check_fragments(
    bundle: Bundle, entries: Mapping[int, Entry], epoch: SealedEpoch, report: BundleReport
) -> bool:
    """The step `fragments` for one epoch: False when nothing further can be said of it."""
    report.passed(_FRAGMENTS)
    name = fragments_name(epoch.number)
    data = bundle.bytes_of(name)
    if data is None:
        if epoch.seal is not None or frames_name(epoch.number) in bundle.files:
            report.tampered(_FRAGMENTS, name, "it is missing", epoch=epoch.number)
        return False
    lines = record_lines_of(data)
    try:
        paths = parse_paths(bytes(bundle.files[fragments_name(epoch.number, "paths")]))
        if len(paths) != len(lines):
            raise FormatError(f"{len(lines)} records have {len(paths)} paths")
        for line, path in zip(lines, paths, strict=True):
            epoch.fragments.append(_fragment(bundle, entries, epoch, line, path))
        _check_order(epoch)
        _check_seal(epoch, lines)
    except FormatError as exc:
        report.tampered(_FRAGMENTS, name, exc.message, epoch=epoch.number)
        return False
    return True


def record_lines_of(data: bytes) -> list[bytes]:
    """The lines, none where the file is not of lines."""
    try:
        return record_lines(data)
    except FormatError:
        return []


def _fragment(
    bundle: Bundle,
    entries: Mapping[int, Entry],
    epoch: SealedEpoch,
    line: bytes,
    path: FragmentPath,
) -> SealedFragment:
    record = FragmentRecord.from_json(line)
    where = f"the record of frames {record.lo} to {record.hi - 1}"
    opened = epoch.opened
    same = (opened.session, opened.epoch, opened.tenant, opened.retention.name)
    if (record.session, record.epoch, record.tenant, record.class_name) != same:
        raise FormatError(f"{where} is of another session, epoch, tenant or class")
    segment = entries.get(path.entry)
    if not isinstance(segment, SegmentRecord):
        raise FormatError(f"{where} names entry {path.entry}, which is no segment of the bundle")
    if (segment.tenant, segment.retention) != (opened.tenant, opened.retention):
        raise FormatError(f"{where} lies in a segment of another tenant or class")
    if epoch.seal is not None and path.entry > epoch.seal_index:
        raise FormatError(f"{where} lies in a segment that came after the seal")
    sealed = segment.fragments
    verify_inclusion(leaf_hash(line), path.place, sealed.count, path.path, sealed.root)
    return SealedFragment(record, path.entry, sha256(bundle.entries[path.entry]).digest())


def _check_order(epoch: SealedEpoch) -> None:
    end = 0
    for item in epoch.fragments:
        record = item.record
        gaps = [(gap.lo, gap.hi) for gap in record.gaps]
        if gaps != ([] if record.lo == end else [(end, record.lo)]):
            raise FormatError(f"frames {end} to {record.lo - 1} are neither there nor stated lost")
        end = record.hi


def _check_seal(epoch: SealedEpoch, lines: list[bytes]) -> None:
    seal = epoch.seal
    if seal is None:
        return
    if Listed.of(lines) != seal.fragments:
        raise FormatError("the records are not those that the seal names")
    first, last = epoch.fragments[0].record, epoch.fragments[-1].record
    if (last.hi, epoch.lost) != (seal.frames, seal.lost):
        raise FormatError(f"the records end at {last.hi}, the seal has {seal.frames} frames")
    if (first.first_ts_ns, last.last_ts_ns) != (seal.first_ts_ns, seal.last_ts_ns):
        raise FormatError("the records have other times than the seal")
    if not seal.lost:
        whole = CompactRange()
        for item in epoch.fragments:
            whole.extend(item.record.range)
        if whole.root() != seal.root:
            raise FormatError("the records do not give the root that is sealed")
