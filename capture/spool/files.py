"""Spool files on a disk: one that is being written, and any that was."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

from sealtape.capture.files import AppendFile, mapped
from sealtape.capture.spool.records import (
    ENCRYPTED,
    FILE_HEADER,
    FILE_MAGIC,
    FileKey,
    Stored,
    encode_record,
    holds_record,
    is_cut_short,
    parse_file_header,
    read_records,
)
from sealtape.schemas.errors import FormatError, KeyUnavailable, StoreError

SUFFIX = ".spool"
KEEPS = "-receipt"


class SpoolFile:
    """A file that one writer appends to and nobody ever opens for appending again.

    After a write that failed the file is left as it is: what stands behind the last whole record
    is ignored by readers, and the writer goes on in a new file under a new key.
    """

    __slots__ = ("_counter", "_file", "_key", "owed", "path", "unacked")

    def __init__(
        self, path: Path, key: FileKey, create: Callable[[Path], AppendFile], *, sync: bool
    ) -> None:
        """Create the file, with its header."""
        self.path = path
        self.unacked = 0
        self.owed: set[int] = set()
        self._key = key
        self._counter = 0
        self._file = create(path)
        try:
            self._file.write([key.header()])
            if sync:
                self._file.sync()
        except StoreError:
            self._file.close()
            raise

    @property
    def size(self) -> int:
        """Bytes written."""
        return self._file.size

    def write(self, records: Sequence[tuple[int, Sequence[bytes]]]) -> list[tuple[int, int]]:
        """Append records (kind, body pieces) in one write; return where each starts and ends."""
        buffers: list[bytes] = []
        places: list[tuple[int, int]] = []
        at = self._file.size
        for kind, pieces in records:
            self._counter += 1
            if kind in ENCRYPTED:
                pieces = [self._key.seal(self._counter, kind, b"".join(pieces))]
            record = encode_record(self._counter, kind, pieces)
            buffers += record
            end = at + sum(map(len, record))
            places.append((at, end))
            at = end
        self._file.write(buffers)
        return places

    def write_one(self, kind: int, body: bytes) -> None:
        """Append one encrypted record; what `write` does, for the hot path."""
        self._counter = counter = self._counter + 1
        self._file.write(encode_record(counter, kind, (self._key.seal(counter, kind, body),)))

    def sync(self) -> None:
        """Make everything written durable."""
        self._file.sync()

    def close(self) -> None:
        """Close."""
        self._file.close()


class StoredFile:
    """A spool file opened for reading."""

    def __init__(self, path: Path, spool_key: bytes) -> None:
        """Open; raises `StoreError`. Use as a context manager."""
        self.path = path
        self._spool_key = spool_key
        self._key: FileKey | None = None
        with mapped("open", path):
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    @property
    def size(self) -> int:
        """Bytes in the file."""
        with mapped("look at", self.path):
            return os.fstat(self._fd).st_size

    def records(self) -> Iterator[Stored]:
        """Yield whole records, decrypted.

        Raises `FormatError` for a damaged header, and after the last record before other damage;
        `KeyUnavailable` for another spool key. A file that a crash left without a whole header
        holds no records, and a record that it cut short at the end is no damage.
        """
        header = self.read(0, FILE_HEADER)
        if len(header) < FILE_HEADER or not any(header):
            begun = header[: len(FILE_MAGIC)] == FILE_MAGIC[: len(header)]
            if not begun and any(self.read(0, self.size)):
                raise FormatError("Damaged at byte 0.")
            return
        end = FILE_HEADER
        key = self._key_of(header)
        for count, stored in enumerate(read_records(self.read), 1):
            if stored.counter != count:
                raise FormatError(f"Damaged at byte {end}: record {stored.counter} for {count}.")
            yield self._opened(key, stored)
            end = stored.start + stored.length
        tail = self.read(end, max(self.size - end, 0))
        if holds_record(tail) or not is_cut_short(tail, end):
            raise FormatError(f"Damaged at byte {end}.")

    def _key_of(self, header: bytes) -> FileKey:
        try:
            return parse_file_header(header, self._spool_key)
        except FormatError as exc:
            raise FormatError(f"Damaged at byte 0: {exc.message}") from exc
        except KeyUnavailable as exc:
            raise KeyUnavailable(f"{self.path.name}: {exc.message}", hint=exc.hint) from exc

    @staticmethod
    def _opened(key: FileKey, stored: Stored) -> Stored:
        if stored.kind not in ENCRYPTED:
            return stored
        try:
            body = key.open(stored.counter, stored.kind, stored.body)
        except FormatError as exc:
            raise FormatError(f"Damaged at byte {stored.start}: {exc.message}") from exc
        return Stored(stored.start, stored.length, stored.counter, stored.kind, body)

    def read(self, at: int, length: int) -> bytes:
        """Return up to `length` bytes from `at` on."""
        with mapped("read", self.path):
            return os.pread(self._fd, length, at)


def file_name(lane: str, number: int) -> str:
    """Return the name of a lane's file; names sort in the order of writing."""
    return f"{lane}-{number:08d}{SUFFIX}"


def lane_of(path: Path) -> str:
    """Return the lane a file belongs to."""
    return path.name.rpartition("-")[0]


def lane_name(level: str, *, keeps: bool) -> str:
    """Return the lane of a durability level; one that keeps its files waits for receipts."""
    return f"{level}{KEEPS}" if keeps else level


def keeps(lane: str) -> bool:
    """Say whether the files of a lane wait for receipts."""
    return lane.endswith(KEEPS)


def number_of(path: Path) -> int:
    """Return which file of its lane it is."""
    return int(path.name.removesuffix(SUFFIX).rpartition("-")[2])
