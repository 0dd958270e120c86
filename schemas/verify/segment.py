"""Verification of segments: the chain of their records, their manifests and objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sealtape.schemas.segments import FragmentRecord, SegmentRecord, fragments_root, record_hash
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
    """One segment: its record, its manifest, its object."""

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
