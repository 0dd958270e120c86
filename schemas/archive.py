"""The one ZIP file of some names and contents: stored, sorted, nothing optional in it.

Every byte follows from the files, so two readers cannot see two contents in one file, and two
writers of the same files write the same bytes. Rules: docs/spec/bundle.md. A writer of large files
uses `local_header` and `ending`; `pack` and `unpack` have everything in memory (`unpack` gives
views into what it is given, so a mapped file costs none).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from sealtape.schemas.errors import FormatError

MAX_FILES: Final = 65_534

_FULL: Final = 0xFFFF_FFFF
_LOCAL: Final = b"PK\3\4"
_FIXED: Final = 30  # of a local header, before the name
_COMMON: Final = struct.Struct("<HHHHHIIIHH")
_DATE: Final = 33  # 1980-01-01


@dataclass(frozen=True, slots=True)
class Member:
    """A file: its name, what its content is like, and where its local header begins."""

    name: str
    size: int
    crc: int
    offset: int


def local_header(member: Member) -> bytes:
    """What stands before a file's content."""
    large = member.size >= _FULL
    extra = struct.pack("<HHQQ", 1, 16, member.size, member.size) if large else b""
    return _LOCAL + _common(member, extra) + member.name.encode("ascii") + extra


def central_header(member: Member) -> bytes:
    """A file's line in the table at the end."""
    extra = b""
    if member.size >= _FULL:
        extra += struct.pack("<QQ", member.size, member.size)
    if member.offset >= _FULL:
        extra += struct.pack("<Q", member.offset)
    if extra:
        extra = struct.pack("<HH", 1, len(extra)) + extra
    places = struct.pack("<HHHII", 0, 0, 0, 0, min(member.offset, _FULL))
    version = b"\x2d\0" if extra else b"\x14\0"
    head = b"PK\1\2" + version + _common(member, extra) + places
    return head + member.name.encode("ascii") + extra


def ending(members: Iterable[Member], offset: int) -> bytes:
    """What stands behind the last file's content, which ends at `offset`."""
    headers = [central_header(member) for member in members]
    table = b"".join(headers)
    count, size = len(headers), len(table)
    if count > MAX_FILES:
        raise FormatError(f"an archive has at most {MAX_FILES} files, not {count}")
    if offset >= _FULL:
        table += b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, size, offset)
        table += b"PK\6\7" + struct.pack("<IQI", 0, offset + size, 1)
    end = struct.pack("<HHHHIIH", 0, 0, count, count, size, min(offset, _FULL), 0)
    return table + b"PK\5\6" + end


def pack(files: Mapping[str, bytes]) -> bytes:
    """The archive of these files."""
    parts: list[bytes] = []
    members: list[Member] = []
    offset = 0
    for name in sorted(files):
        content = files[name]
        member = Member(name, len(content), zlib.crc32(content), offset)
        members.append(member)
        parts += [local_header(member), content]
        offset += len(parts[-2]) + len(content)
    return b"".join([*parts, ending(members, offset)])


def unpack(data: bytes | memoryview) -> dict[str, memoryview]:
    """The files of an archive, in its order; FormatError for bytes that `pack` would not write."""
    view = memoryview(data)
    files: dict[str, memoryview] = {}
    members: list[Member] = []
    offset = 0
    while bytes(view[offset : offset + 4]) == _LOCAL:
        member, begin = _member(view, offset)
        if members and member.name <= members[-1].name:
            raise FormatError(f"{member.name!r} is out of order in the archive, or there twice")
        content = view[begin : begin + member.size]
        if zlib.crc32(content) != member.crc:
            raise FormatError(f"the content of {member.name} has another CRC-32", file=member.name)
        members.append(member)
        files[member.name] = content
        offset = begin + member.size
        if len(members) > MAX_FILES:
            raise FormatError(f"an archive has at most {MAX_FILES} files")
    if view[offset:] != ending(members, offset):
        raise FormatError("the archive is cut off, or its end is not what its files give")
    return files


def _common(member: Member, extra: bytes) -> bytes:
    """What both headers of a file have alike."""
    version = 45 if max(member.size, member.offset) >= _FULL else 20
    size = min(member.size, _FULL)
    name = len(member.name.encode("ascii"))
    return _COMMON.pack(version, 0, 0, 0, _DATE, member.crc, size, size, name, len(extra))


def _member(view: memoryview, offset: int) -> tuple[Member, int]:
    """The file whose local header is here, and where its content begins."""
    fixed = view[offset : offset + _FIXED]
    if len(fixed) < _FIXED:
        raise FormatError("the archive is cut off in a header")
    crc, size, _, length, _ = struct.unpack("<IIIHH", fixed[14:])
    begin = offset + _FIXED + length
    try:
        name = bytes(view[offset + _FIXED : begin]).decode("ascii")
    except UnicodeDecodeError as exc:
        raise FormatError("a file's name in the archive is not ASCII") from exc
    if size == _FULL:
        size = int.from_bytes(view[begin + 4 : begin + 12], "little")
    member = Member(name, size, crc, offset)
    header = local_header(member)
    begin = offset + len(header)
    if view[offset:begin] != header:
        raise FormatError(f"the header of {name!r} is not what its file gives", file=name)
    if begin + size > len(view):
        raise FormatError(f"the archive is cut off in {name}", file=name)
    return member, begin
