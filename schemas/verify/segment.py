"""Verification of segments: the chain of their records, their manifests and their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import Final

from sealtape.schemas import frames, tree
from sealtape.schemas.errors import FormatError
from sealtape.schemas.segments import FragmentRecord, SegmentRecord, fragments_root, record_hash
from sealtape.schemas.verify.base import StoredRow
from sealtape.schemas.verify.findings import Report

FIRST_PREV: Final = bytes(32)


class ChainVerifier:
    """The segment records of one shard, each naming the hash of the one before."""

    def __init__(self, shard: str, report: Report) -> None:
        """Begin before the shard's first record."""
        self._shard = shard
        self._report = report
        self.n = 0
        self.head = FIRST_PREV

    def record(self, record: SegmentRecord) -> None:
        """Take the next record of the shard."""
        if record.n != self.n:
            missing = (
                f"record {self.n} is missing"
                if record.n > self.n
                else f"record {record.n} is there twice"
            )
            self._report.tampered(
                "chain", f"shard {self._shard}", f"{missing} before {record.object}"
            )
        elif record.prev != self.head:
            self._report.tampered(
                "chain",
                record.object,
                f"record {record.n} does not follow the record before it in {self._shard}",
            )
        self.n = record.n + 1
        self.head = record_hash(record)

    def finish(self, n: int, head: bytes) -> None:
        """Compare with the head that the ledger keeps."""
        if (n, head) != (self.n, self.head):
            self._report.tampered(
                "chain",
                f"shard {self._shard}",
                f"the ledger's head is record {n}, the records end at {self.n}",
            )


class SegmentVerifier:
    """One segment: its record, its fragments, its object."""

    def __init__(self, record: SegmentRecord, report: Report) -> None:
        """Begin with the record as the chain has it."""
        self._record = record
        self._report = report

    def manifest(self, record: SegmentRecord, fragments: Sequence[FragmentRecord]) -> bool:
        """Compare the manifest object with the record; False when its fragments cannot be used."""
        thing = self._record.object
        if record != self._record:
            self._report.tampered(
                "manifest", thing, "the manifest's segment record is not the ledger's"
            )
        expected = (self._record.fragments.count, self._record.fragments.root)
        if (len(fragments), fragments_root(fragments)) != expected:
            self._report.tampered(
                "manifest", thing, "the manifest's fragments are not those of the record"
            )
            return False
        return True

    def object(self, size: int, digest: bytes) -> None:
        """Compare the object's size and SHA-256 with the record."""
        if size != self._record.bytes:
            self._report.tampered(
                "object",
                self._record.object,
                f"it has {size} bytes, {self._record.bytes} were sealed",
            )
        elif digest != self._record.sha256:
            self._report.tampered(
                "object", self._record.object, "its bytes are not those that were sealed"
            )

    def fragment(
        self,
        record: FragmentRecord,
        rows: Iterable[StoredRow],
        take: Callable[[StoredRow, bytes], None],
    ) -> None:
        """Check a fragment's rows against their own columns and its record.

        Args:
            record: which frames must be there.
            rows: the rows that the record names, in order.
            take: is given each frame of the fragment with its leaf.
        """
        covered = tree.CompactRange(record.lo)
        payload_bytes = 0
        for row in rows:
            if (row.session, row.epoch) != (record.session, record.epoch):
                self._frame(record, covered.hi, "a frame of another session stands in its place")
                continue
            leaf = self._leaf(record, row)
            covered.append(leaf)
            payload_bytes += len(row.payload)
            take(row, leaf)
        self._report.frames += len(covered)
        self._report.payload_bytes += payload_bytes
        if covered.hi != record.hi:
            self._frame(
                record,
                covered.hi,
                f"{len(covered)} frames are there, {record.hi - record.lo} were sealed",
            )
        elif covered.nodes != record.nodes:
            self._report.tampered(
                "tree",
                self._record.object,
                f"frames {record.lo} to {record.hi - 1} are not those that were sealed",
                session=record.session,
                epoch=record.epoch,
                seq=record.lo,
            )

    def _leaf(self, record: FragmentRecord, row: StoredRow) -> bytes:
        """Return the row's leaf; where the payload alone is damaged, that of the sealed header.

        So damage is said once, at its frame, and does not spread to roots and signatures.
        """
        digest = sha256(row.payload).digest()
        if digest != row.payload_sha256 or len(row.payload) != row.payload_len:
            self._frame(record, row.seq, "the payload is not the one that was sealed")
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
            self._frame(record, row.seq, f"the header is malformed: {exc.message}")
            return row.leaf
        leaf = frames.leaf_hash(header)
        if leaf != row.leaf:
            self._frame(
                record, row.seq, "the header's columns do not give the leaf that was sealed"
            )
        return leaf

    def _frame(self, record: FragmentRecord, seq: int, reason: str) -> None:
        self._report.tampered(
            "frame",
            self._record.object,
            reason,
            session=record.session,
            epoch=record.epoch,
            seq=seq,
        )
