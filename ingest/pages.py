"""The payload column of a segment, read where it lies: no copy of the bytes is made.

Verification hashes every payload once; decoding the column first would take half as long again.
Only what `write_segment` writes is read: data pages of version 1, PLAIN, neither compressed nor
behind a dictionary, of a column without nulls. `plain_values` answers None to everything else, and
the caller decodes the column in the ordinary way.

A page is a header in Thrift's compact protocol, then for each value its length (u32, little-endian)
and its bytes::

    PageHeader      1 type (0: data)   2 size   3 stored size   4 CRC-32, not checked here
                    5 DataPageHeader   1 values   2 encoding (0: PLAIN)   3, 4 levels
                                       5 statistics: none
"""

from __future__ import annotations

import struct
from typing import Final

_LENGTH: Final = struct.Struct("<I")
_STOP: Final = 0
_INT32: Final = 5
_STRUCT: Final = 12
_LONGEST_INT: Final = 5
_TYPE, _SIZE, _STORED, _CRC, _DATA_PAGE = 1, 2, 3, 4, 5
_VALUES, _ENCODING, _DEFINITIONS, _REPETITIONS, _STATISTICS = 1, 2, 3, 4, 5


class _Other(Exception):
    """This is not a page as we write them."""


def plain_values(buffer: memoryview, start: int, end: int, count: int) -> list[memoryview] | None:
    """The `count` values of the column chunk that lies at `[start, end)`, as views; else None."""
    if not 0 <= start <= end <= len(buffer):
        return None
    values: list[memoryview] = []
    chunk, at = buffer[start:end], 0
    try:
        while at < len(chunk):
            at = _page(chunk, at, values)
    except (_Other, IndexError, struct.error):
        return None
    return values if len(values) == count else None


def _page(chunk: memoryview, at: int, values: list[memoryview]) -> int:
    """Read one page; where the next one begins."""
    header: dict[int, int] = {}
    page: dict[int, int] = {}
    at = _fields(chunk, at, header, (_TYPE, _SIZE, _STORED, _CRC), page)
    size = header.get(_SIZE, -1)
    if header.get(_TYPE) != 0 or size < 0 or header.get(_STORED) != size:
        raise _Other
    if page.get(_ENCODING) != 0:
        raise _Other
    end, unpack = at + size, _LENGTH.unpack_from
    if end > len(chunk):
        raise _Other
    for _ in range(page.get(_VALUES, 0)):
        begin = at + 4
        at = begin + unpack(chunk, at)[0]
        if at > end:
            raise _Other
        values.append(chunk[begin:at])
    if at != end:
        raise _Other
    return end


def _fields(
    chunk: memoryview,
    at: int,
    found: dict[int, int],
    known: tuple[int, ...],
    inner: dict[int, int] | None,
) -> int:
    """Read a Thrift struct of 32-bit fields, and the data page's header in it; where it ends."""
    name = 0
    while (byte := chunk[at]) != _STOP:
        at += 1
        step, kind = byte >> 4, byte & 15
        name += step
        if not step or name in found:
            raise _Other  # a field's name in its long form, which ours never have
        if kind == _INT32 and name in known:
            found[name], at = _int32(chunk, at)
        elif kind == _STRUCT and name == _DATA_PAGE and inner is not None:
            names = (_VALUES, _ENCODING, _DEFINITIONS, _REPETITIONS)
            at = _fields(chunk, at, inner, names, None)
        elif kind == _STRUCT and name == _STATISTICS and inner is None and chunk[at] == _STOP:
            at += 1  # there are none
        else:
            raise _Other
    return at + 1


def _int32(chunk: memoryview, at: int) -> tuple[int, int]:
    """A zigzag varint, and where it ends."""
    value = 0
    for place in range(_LONGEST_INT):
        byte = chunk[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at + place + 1
    raise _Other
