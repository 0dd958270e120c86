"""The bytes of the `dir:` bus (`docs/spec/bus-dir.md`): file headers and records. Pure.

An offset is a position in the partition's log: the header of a file says at which offset its first
record stands, and a record stands at that base plus its distance from the end of the file header.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from sealtape.capture.bus.base import MAX_MESSAGE, Record
from sealtape.schemas.errors import FormatError

FILE_MAGIC = b"SEALBUS1"
RECORD_MAGIC = b"SBR1"
MAX_KEY = 0xFFFF

_FILE = struct.Struct(">8sIQQI")
_RECORD = struct.Struct(">4sII")
_INNER = struct.Struct(">QQqH")
FILE_HEADER = _FILE.size
RECORD_HEADER = _RECORD.size + _INNER.size
MAX_RECORD = RECORD_HEADER + MAX_KEY + MAX_MESSAGE


@dataclass(frozen=True, slots=True)
class FileHeader:
    """Where a file stands in its partition, and at which offset the file before it ended."""

    partition: int
    base: int
    previous_end: int

    def encode(self) -> bytes:
        """Return the 32 bytes at the start of the file."""
        head = _FILE.pack(FILE_MAGIC, self.partition, self.base, self.previous_end, 0)[:-4]
        return head + zlib.crc32(head).to_bytes(4, "big")


def parse_file_header(data: bytes) -> FileHeader:
    """Read a file header; `FormatError` when it is short, foreign or damaged."""
    if len(data) < FILE_HEADER:
        raise FormatError("A bus file is shorter than its header.")
    magic, partition, base, previous_end, crc = _FILE.unpack_from(data)
    if magic != FILE_MAGIC or crc != zlib.crc32(data[: FILE_HEADER - 4]):
        raise FormatError("A bus file does not start with an intact header.")
    return FileHeader(partition, base, previous_end)


def check_lengths(messages: Sequence[tuple[bytes, bytes]]) -> None:
    """Refuse a key or value that is too long for a record (`FormatError`)."""
    for key, value in messages:
        if len(key) > MAX_KEY or len(value) > MAX_MESSAGE:
            raise FormatError(
                f"A bus message of {len(value)} bytes is too long.",
                hint=f"Keep values within {MAX_MESSAGE} bytes.",
            )


def encode_records(
    messages: Sequence[tuple[bytes, bytes]], *, offset: int, synced: int, ts_ms: int
) -> tuple[list[bytes], list[int]]:
    """Return the pieces to write at `offset`, and the offset after each message.

    `synced` is the offset below which everything is known to be on the disk: a reader that later
    finds damage below it knows that the damaged bytes had been acknowledged.
    """
    pieces: list[bytes] = []
    ends: list[int] = []
    for key, value in messages:
        inner = _INNER.pack(offset, synced, ts_ms, len(key)) + key
        crc = zlib.crc32(value, zlib.crc32(inner))
        length = _RECORD.size + len(inner) + len(value)
        pieces.append(_RECORD.pack(RECORD_MAGIC, length, crc) + inner)
        pieces.append(value)
        offset += length
        ends.append(offset)
    return pieces, ends


@dataclass(frozen=True, slots=True)
class Parsed:
    """What stands at one place of a file.

    `record` is None when there is none; then `needed` is how many bytes a whole one would have at
    least, or 0 when the bytes there are damaged.
    """

    record: Record | None
    synced: int
    needed: int


_DAMAGED = Parsed(None, 0, 0)


def parse_record(window: bytes, at: int, offset: int) -> Parsed:
    """Read the record at `window[at:]`, which must say that it stands at `offset`."""
    have = len(window) - at
    if window[at : at + 4] != RECORD_MAGIC[: max(have, 0)]:
        return _DAMAGED
    if have < RECORD_HEADER:
        return Parsed(None, 0, RECORD_HEADER)
    _, length, crc = _RECORD.unpack_from(window, at)
    stands_at, synced, ts_ms, key_length = _INNER.unpack_from(window, at + _RECORD.size)
    if stands_at != offset or not RECORD_HEADER + key_length <= length <= MAX_RECORD:
        return _DAMAGED
    if have < length:
        return Parsed(None, 0, length)
    with memoryview(window) as view:
        if zlib.crc32(view[at + _RECORD.size : at + length]) != crc:
            return _DAMAGED
    start = at + RECORD_HEADER
    key, value = window[start : start + key_length], window[start + key_length : at + length]
    return Parsed(Record(offset, offset + length, ts_ms, key, value), synced, length)


def proves_damage(window: bytes, offset: int) -> bool:
    """Say whether a whole record in `window` knew `offset`, where the window starts, as durable.

    If so, what stands at `offset` had been acknowledged and is damaged; else it is the torn end of
    an append that nobody was told about.
    """
    at = window.find(RECORD_MAGIC, 1)
    while at >= 0:
        parsed = parse_record(window, at, offset + at)
        if parsed.record is not None and parsed.synced > offset:
            return True
        at = window.find(RECORD_MAGIC, at + 1)
    return False
