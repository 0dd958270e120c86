"""The rows of a segment column by column, so that thousands are compared in a few operations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sealtape.schemas.frames import DIGEST_SIZE, SESSION_SIZE


class StoredFrame(NamedTuple):
    """One row: see `sealtape.schemas.verify.base.StoredRow`."""

    session: bytes
    epoch: int
    seq: int
    ts_ns: int
    kind: int
    suite: int
    flags: int
    payload_len: int
    payload_sha256: bytes
    leaf: bytes
    payload: bytes


@dataclass(frozen=True, slots=True)
class Columns:
    """Rows that follow each other. Fixed-size values are joined, one after the other.

    Attributes:
        sessions: 16 bytes a row.
        epochs: one a row, as all that follows.
        seqs: and so on.
        times: ts_ns.
        kinds: a byte a row.
        suites: a byte a row.
        flags: as stored.
        lengths: payload_len.
        digests: payload_sha256, 32 bytes a row.
        leaves: 32 bytes a row.
        payloads: views into the memory that the rows were read to; valid as long as they are kept.
    """

    sessions: bytes
    epochs: Sequence[int]
    seqs: Sequence[int]
    times: Sequence[int]
    kinds: bytes
    suites: bytes
    flags: Sequence[int]
    lengths: Sequence[int]
    digests: bytes
    leaves: bytes
    payloads: Sequence[bytes | memoryview]

    def __len__(self) -> int:
        """How many rows."""
        return len(self.payloads)

    def part(self, start: int, end: int) -> Columns:
        """The rows `[start, end)`."""
        wide, digest = slice(start * SESSION_SIZE, end * SESSION_SIZE), _digests(start, end)
        rows = slice(start, end)
        return Columns(
            self.sessions[wide],
            self.epochs[rows],
            self.seqs[rows],
            self.times[rows],
            self.kinds[rows],
            self.suites[rows],
            self.flags[rows],
            self.lengths[rows],
            self.digests[digest],
            self.leaves[digest],
            self.payloads[rows],
        )

    def row(self, index: int) -> StoredFrame:
        """One row; copies its payload."""
        at, digest = index * SESSION_SIZE, _digests(index, index + 1)
        return StoredFrame(
            self.sessions[at : at + SESSION_SIZE],
            self.epochs[index],
            self.seqs[index],
            self.times[index],
            self.kinds[index],
            self.suites[index],
            self.flags[index],
            self.lengths[index],
            self.digests[digest],
            self.leaves[digest],
            bytes(self.payloads[index]),
        )

    def rows(self) -> Iterator[StoredFrame]:
        """All rows, one by one; copies their payloads."""
        return map(self.row, range(len(self)))


def _digests(start: int, end: int) -> slice:
    return slice(start * DIGEST_SIZE, end * DIGEST_SIZE)
