"""The frames of a bundle against the fragment records that the log seals."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from sealtape.schemas.bundle import BundledFrame, FrameReader, frames_name
from sealtape.schemas.errors import FormatError
from sealtape.schemas.frames import (
    DEFINED_FLAGS,
    EXTENSION_KINDS,
    KIND_NAMES,
    PUBLIC_KINDS,
    Kind,
    Suite,
    leaf_hash,
)
from sealtape.schemas.keys import COMMIT_SIZE, SALT_SIZE, TAG_SIZE
from sealtape.schemas.segments import FragmentRecord
from sealtape.schemas.tree import CompactRange
from sealtape.schemas.verify.sealed_epochs import SealedEpoch, SealedFragment
from sealtape.schemas.verify.steps import BundleReport, Span

_STEP: Final = "frames"
_ENOUGH: Final = COMMIT_SIZE + TAG_SIZE
_LEAST: Final = {Suite.SALTED: SALT_SIZE, Suite.AES256GCM: _ENOUGH}
_ORDINARY: Final = frozenset(
    (kind, suite, 0)
    for kind in (Kind.DATA, Kind.FACTS, Kind.STATE)
    for suite in (Suite.SALTED, Suite.AES256GCM)
)
"""Kind, suite and flags of nearly all frames: those of which nothing more is to be said."""


@dataclass(slots=True)
class FrameFacts:
    """What the frames of an epoch say.

    Attributes:
        opening: OPEN's payload, None where its fragment is absent, or a flag forbids to read it.
        opening_sha256: digest of OPEN's stored payload, None where its fragment is absent.
        ident_sha256: digest of IDENT's stored payload, None where it is absent.
        last_kind: kind of the last frame of the last fragment, None where it is absent.
        close: CLOSE's payload, None where a flag forbids to read it.
        roots: the tree's root at the sizes that records have checkpoints of, as far as known.
    """

    opening: bytes | None = None
    opening_sha256: bytes | None = None
    ident_sha256: bytes | None = None
    last_kind: int | None = None
    close: bytes | None = None
    roots: dict[int, bytes] = field(default_factory=dict)


class FrameWalk:
    """Goes through the frames of one epoch."""

    def __init__(
        self,
        epoch: SealedEpoch,
        data: memoryview,
        removed: frozenset[bytes],
        report: BundleReport,
    ) -> None:
        """`removed` are the segments whose objects a deletion removed."""
        self._epoch = epoch
        self._reader = FrameReader(data)
        self._removed = removed
        self._report = report
        self._name = frames_name(epoch.number)
        self._epoch_name = epoch.opened.session, epoch.number
        self._tree: CompactRange | None = CompactRange()
        self._last_ts_ns = -(2**63)
        self._closed = False
        self.facts = FrameFacts()

    def run(self) -> bool:
        """The step `frames` for this epoch: False when the rest cannot be read."""
        self._report.passed(_STEP)
        for fragment in self._epoch.fragments:
            record = fragment.record
            if record.gaps:
                self._tree = None
            seq = self._reader.next_seq
            self.facts.last_kind = None
            if seq is None or seq >= record.hi:
                self._absent(fragment)
            elif not self._fragment(record):
                return False
            if self._tree is not None and self._tree.hi != record.hi:
                self._tree.extend(record.range)
            if self._tree is not None:
                self.facts.roots.setdefault(record.hi, self._tree.root())
        if self._reader.next_seq is not None:
            self._tampered(
                "frames stand behind the last fragment", self._epoch.fragments[-1].record.hi
            )
            return False
        return True

    def _absent(self, fragment: SealedFragment) -> None:
        record = fragment.record
        fragment.absent = True
        self._report.spans.append(Span("absent", self._epoch.number, record.lo, record.hi))
        if fragment.segment not in self._removed:
            self._tampered("they are missing, and no deletion removed them", record.lo, record.hi)
        if record.first_ts_ns < self._last_ts_ns:
            self._tampered("their times lie before the frame before them", record.lo, record.hi)
        self._last_ts_ns = record.last_ts_ns

    def _fragment(self, record: FragmentRecord) -> bool:
        run = CompactRange(record.lo)
        size = first_ts_ns = 0
        checkpoint = 0 if record.checkpoint is None else record.checkpoint.size
        for seq in range(record.lo, record.hi):
            frame = self._read(seq)
            if frame is None:
                return False
            if seq == record.lo:
                first_ts_ns = frame.ts_ns
            size += frame.payload_len
            run.append(leaf_hash(frame.raw))
            self._look(frame)
            if seq + 1 == checkpoint and self._tree is not None:
                tree = self._tree.copy()
                tree.extend(run)
                self.facts.roots[checkpoint] = tree.root()
        stated = (record.nodes, record.first_ts_ns, record.last_ts_ns, record.bytes)
        if (run.nodes, first_ts_ns, self._last_ts_ns, size) != stated:
            self._tampered("their headers are not those that were sealed", record.lo, record.hi)
        self._report.frames += record.hi - record.lo
        self._report.payload_bytes += size
        return True

    def _read(self, seq: int) -> BundledFrame | None:
        try:
            frame = self._reader.read()
        except FormatError as exc:
            self._tampered(exc.message, seq)
            return None
        if (frame.session, frame.epoch, frame.seq) != (*self._epoch_name, seq):
            self._tampered("another frame stands in its place", seq)
            return None
        return frame

    # -- one frame ------------------------------------------------------------------------------

    def _look(self, frame: BundledFrame) -> None:
        payload, seq, kind = frame.payload, frame.seq, frame.kind
        if payload is None:
            self._withheld(seq)
            if frame.suite == Suite.PUBLIC:
                self._tampered("a public payload is withheld", seq)
        elif sha256(payload).digest() != frame.payload_sha256:
            self._tampered("the payload is not the one that was sealed", seq)
        if frame.ts_ns < self._last_ts_ns:
            self._tampered("its time lies before the frame before it", seq)
        if self._closed:
            self._tampered("a frame follows CLOSE", seq)
        self._last_ts_ns = frame.ts_ns
        self.facts.last_kind = kind
        if (
            (kind, frame.suite, frame.flags) not in _ORDINARY
            or seq < 2
            or frame.payload_len < _ENOUGH
        ):
            self._kind(frame)

    def _kind(self, frame: BundledFrame) -> None:
        """What is not just one more frame of what was done."""
        seq, kind, suite = frame.seq, frame.kind, frame.suite
        if (seq == 0) != (kind == Kind.OPEN) or (seq == 1) != (kind == Kind.IDENT):
            self._tampered("an epoch begins with OPEN and IDENT, and has each once", seq)
        if kind in PUBLIC_KINDS and suite != Suite.PUBLIC:
            self._tampered(f"{KIND_NAMES[kind]} is not public", seq)
        elif kind in KIND_NAMES and kind not in PUBLIC_KINDS and suite == Suite.PUBLIC:
            self._tampered(f"{KIND_NAMES[kind]} is public", seq)
        if frame.payload_len < _LEAST.get(suite, 0):
            self._tampered("the payload is shorter than its suite allows", seq)
        if kind == Kind.GAP:
            self._incomplete("the node states that it did not record here", seq)
        if kind not in KIND_NAMES and kind < EXTENSION_KINDS:
            self._incomplete(f"kind {kind} is unknown to this version", seq)
        if suite > Suite.AES256GCM:
            self._incomplete(f"suite {suite} is unknown to this version", seq)
        if frame.flags & ~DEFINED_FLAGS:
            self._incomplete(f"flags {frame.flags:#06x} are unknown to this version", seq)
        self._keep(frame)

    def _keep(self, frame: BundledFrame) -> None:
        # A flag may change what a payload means: what has one that is not known is not read.
        readable = frame.payload is not None and not frame.flags & ~DEFINED_FLAGS
        payload = bytes(frame.payload) if readable and frame.payload is not None else None
        if frame.kind == Kind.OPEN and frame.seq == 0:
            self.facts.opening, self.facts.opening_sha256 = payload, frame.payload_sha256
        elif frame.kind == Kind.IDENT:
            self.facts.ident_sha256 = frame.payload_sha256
        elif frame.kind == Kind.CLOSE:
            self._closed = True
            self.facts.close = payload

    def _withheld(self, seq: int) -> None:
        spans = self._report.spans
        last = spans[-1] if spans else None
        if last is not None and (last.what, last.epoch, last.hi) == (
            "withheld",
            self._epoch.number,
            seq,
        ):
            spans[-1] = Span("withheld", last.epoch, last.lo, seq + 1)
        else:
            spans.append(Span("withheld", self._epoch.number, seq, seq + 1))

    def _tampered(self, reason: str, lo: int, hi: int | None = None) -> None:
        frames = (lo, lo + 1 if hi is None else hi)
        self._report.tampered(_STEP, self._name, reason, epoch=self._epoch.number, frames=frames)

    def _incomplete(self, reason: str, seq: int) -> None:
        self._report.incomplete(
            _STEP, self._name, reason, epoch=self._epoch.number, frames=(seq, seq + 1)
        )
