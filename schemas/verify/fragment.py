"""Verification of one fragment: its rows against their own columns and against its record.

Rows come column by column. Where everything is as it was sealed, which is nearly always, whole
stretches are hashed and compared at once; only where something differs is each row looked at by
itself, to name the frame. Findings are kept apart, so that a fragment that turns out to be
unreadable leaves nothing behind, and so that fragments can be verified by other processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from sealtape.schemas import frames
from sealtape.schemas.errors import FormatError
from sealtape.schemas.frames import Kind, Suite
from sealtape.schemas.segments import FragmentRecord
from sealtape.schemas.tree import CompactRange
from sealtape.schemas.verify.base import StoredRow
from sealtape.schemas.verify.columns import Columns, StoredFrame
from sealtape.schemas.verify.findings import Report

_PLAIN_KINDS: Final = bytes([Kind.DATA, Kind.FACTS, Kind.STATE, Kind.CLOCK])
_PLAIN_SUITES: Final = bytes([Suite.PUBLIC, Suite.SALTED, Suite.AES256GCM])
_READ_KINDS: Final = (Kind.OPEN, Kind.CLOSE)
_STEP: Final = 256 << 10
"""So many bytes of payloads stay in a core's cache until somebody else has hashed them too."""


@dataclass(frozen=True, slots=True)
class Run:
    """Frames of which a session needs to know nothing but their hashes and times.

    All are of kind DATA, FACTS, STATE or CLOCK, of a known suite and without flags; they follow
    each other, and so do their times; none is the first or second of its epoch.

    Attributes:
        epoch: the epoch.
        covered: their leaves, as computed.
        first_ts_ns: the first frame's time.
        last_ts_ns: the last frame's time.
    """

    epoch: int
    covered: CompactRange
    first_ts_ns: int
    last_ts_ns: int


@dataclass(frozen=True, slots=True)
class Single:
    """One frame that a session has to look at. Its payload is kept only of OPEN and CLOSE."""

    row: StoredFrame
    leaf: bytes


class FragmentVerifier:
    """Feed the rows that a record names, in order, then `finish`; then read the results.

    Attributes:
        report: what was found, and how much was verified.
        events: what `SessionVerifier` has to be told, in order.
    """

    def __init__(
        self, record: FragmentRecord, thing: str, beside: Callable[[int], None] | None = None
    ) -> None:
        """Take which frames must be there, and the name of the object they lie in.

        `beside` is called with each so many bytes of payloads that were hashed right before.
        """
        self.report = Report()
        self.events: list[Run | Single] = []
        self._record = record
        self._object = thing
        self._beside = beside
        self._covered = CompactRange(record.lo)
        self._signed = 0 if record.checkpoint is None else record.checkpoint.size
        self._bytes = 0

    def take(self, columns: Columns) -> None:
        """Take the next rows."""
        leaves = self._sealed_leaves(columns)
        if leaves is None:
            for row in columns.rows():
                self._row(row)
            return
        at = 0
        for end in self._ends(columns):
            if end > at:
                self._run(columns, leaves, at, end)
            if end < len(leaves) and not _is_plain(columns, end):
                self._single(columns.row(end), leaves[end])
                end += 1
            at = end
        self._bytes += sum(columns.lengths)

    def finish(self) -> None:
        """Compare what came with the record."""
        record, covered = self._record, self._covered
        self.report.frames += len(covered)
        self.report.payload_bytes += self._bytes
        if covered.hi != record.hi:
            self._frame(
                covered.hi, f"{len(covered)} frames are there, {record.hi - record.lo} were sealed"
            )
        elif covered.nodes != record.nodes:
            self.report.tampered(
                "tree",
                self._object,
                f"frames {record.lo} to {record.hi - 1} are not those that were sealed",
                session=record.session,
                epoch=record.epoch,
                seq=record.lo,
            )

    # -- many rows at once -------------------------------------------------------------------------

    def _sealed_leaves(self, columns: Columns) -> list[bytes] | None:
        """Hash all rows; their leaves, or None when any of them has to be looked at by itself."""
        record, count, lo = self._record, len(columns), self._covered.hi
        if (
            columns.sessions != record.session * count
            or set(columns.epochs) != {record.epoch}
            or list(columns.seqs) != list(range(lo, lo + count))
            or list(columns.times) != sorted(columns.times)
            or list(columns.lengths) != list(map(len, columns.payloads))
        ):
            return None
        digests = self._digests(columns.payloads)
        if b"".join(digests) != columns.digests:
            return None
        try:
            leaves = frames.leaf_hashes(
                record.session,
                record.epoch,
                columns.seqs,
                columns.times,
                columns.kinds,
                columns.suites,
                columns.flags,
                columns.lengths,
                digests,
            )
        except FormatError:
            return None
        return leaves if b"".join(leaves) == columns.leaves else None

    def _digests(self, payloads: Sequence[bytes | memoryview]) -> list[bytes]:
        if self._beside is None:
            return [sha256(payload).digest() for payload in payloads]
        digests, size = [], 0
        for payload in payloads:
            digests.append(sha256(payload).digest())
            size += len(payload)
            if size >= _STEP:
                self._beside(size)
                size = 0
        self._beside(size)
        return digests

    def _ends(self, columns: Columns) -> Iterator[int]:
        """Where runs end: before a frame that is not plain, behind the signed one, at the end."""
        lo, count = self._covered.hi, len(columns)
        ends = {count}
        if lo < self._signed < lo + count:
            ends.add(self._signed - lo)
        if (
            lo < 2
            or columns.kinds.translate(None, _PLAIN_KINDS)
            or columns.suites.translate(None, _PLAIN_SUITES)
            or any(columns.flags)
        ):
            ends.update(index for index in range(count) if not _is_plain(columns, index))
        return iter(sorted(ends))

    def _run(self, columns: Columns, leaves: list[bytes], start: int, end: int) -> None:
        covered = CompactRange.over(self._covered.hi, leaves[start:end])
        self._covered.extend(covered)
        times = columns.times
        self.events.append(Run(self._record.epoch, covered, times[start], times[end - 1]))

    # -- one row -----------------------------------------------------------------------------------

    def _row(self, row: StoredFrame) -> None:
        if (row.session, row.epoch) != (self._record.session, self._record.epoch):
            self._frame(self._covered.hi, "a frame of another session stands in its place")
            return
        self._single(row, self._leaf(row))
        self._bytes += len(row.payload)

    def _single(self, row: StoredFrame, leaf: bytes) -> None:
        self._covered.append(leaf)
        kept = row if row.kind in _READ_KINDS else row._replace(payload=b"")
        self.events.append(Single(kept, leaf))

    def _leaf(self, row: StoredRow) -> bytes:
        """Return the row's leaf; where the payload alone is damaged, that of the sealed header.

        So damage is said once, at its frame, and does not spread to roots and signatures.
        """
        digest = sha256(row.payload).digest()
        if digest != row.payload_sha256 or len(row.payload) != row.payload_len:
            self._frame(row.seq, "the payload is not the one that was sealed")
        try:
            header = frames.header(
                row.session,
                row.epoch,
                row.seq,
                row.ts_ns,
                row.kind,
                row.suite,
                row.flags,
                row.payload_len,
                row.payload_sha256,
            )
        except FormatError as exc:
            self._frame(row.seq, f"the header is malformed: {exc.message}")
            return row.leaf
        leaf = frames.leaf_hash(header)
        if leaf != row.leaf:
            self._frame(row.seq, "the header's columns do not give the leaf that was sealed")
        return leaf

    def _frame(self, seq: int, reason: str) -> None:
        self.report.tampered(
            "frame",
            self._object,
            reason,
            session=self._record.session,
            epoch=self._record.epoch,
            seq=seq,
        )


def _is_plain(columns: Columns, index: int) -> bool:
    """Whether a frame may be part of a `Run`."""
    return (
        columns.seqs[index] >= 2
        and columns.kinds[index] in _PLAIN_KINDS
        and columns.suites[index] in _PLAIN_SUITES
        and not columns.flags[index]
    )
