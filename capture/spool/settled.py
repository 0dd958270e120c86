"""Sessions of a lane that have their receipts, for whoever adopts the folder (docs/spec/spool.md).

Only what is not to be seen from the files themselves is kept: files are deleted one by one, so a
session's last one may go before its first, which another session still needs.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from sealtape.capture.files import AppendFile, mapped, sync_directory
from sealtape.schemas.errors import StoreCorrupt

__all__ = ["encode_settled", "parse_settled", "read_settled", "settled_name", "write_settled"]

MAGIC: Final = b"SEALSET1"
_CRC: Final = struct.Struct(">I")
_NUMBER: Final = 8


def settled_name(lane: str) -> str:
    """The name of a lane's file."""
    return f"{lane}.settled"


def encode_settled(numbers: Sequence[int]) -> bytes:
    """The bytes of the file."""
    body = MAGIC + b"".join(number.to_bytes(_NUMBER, "big") for number in numbers)
    return body + _CRC.pack(zlib.crc32(body))


def parse_settled(data: bytes) -> frozenset[int]:
    """Read what `encode_settled` wrote. Raises `StoreCorrupt`."""
    body, crc = data[: -_CRC.size], data[-_CRC.size :]
    numbers = body[len(MAGIC) :]
    whole = body.startswith(MAGIC) and crc == _CRC.pack(zlib.crc32(body))
    if not whole or len(numbers) % _NUMBER:
        raise StoreCorrupt(
            "The spool's list of sessions with receipts is damaged.",
            hint="Its folder is left alone; docs/operations.md says what to do with it.",
        )
    places = range(0, len(numbers), _NUMBER)
    return frozenset(int.from_bytes(numbers[at : at + _NUMBER], "big") for at in places)


def write_settled(
    folder: Path, lane: str, numbers: Sequence[int], create: Callable[[Path], AppendFile]
) -> None:
    """Put the list down durably, all or nothing; blocks. Raises `StoreError`."""
    path = folder / settled_name(lane)
    draft = path.with_name(f"{path.name}.draft")
    with mapped("delete", draft):
        draft.unlink(missing_ok=True)
    file = create(draft)
    try:
        file.write([encode_settled(numbers)])
        file.sync()
    finally:
        file.close()
    with mapped("rename", draft):
        draft.rename(path)
    sync_directory(folder)


def read_settled(folder: Path) -> frozenset[int]:
    """All sessions of a folder that have receipts, whatever their lane. Raises `StoreError`."""
    found: frozenset[int] = frozenset()
    for path in sorted(folder.glob(settled_name("*"))):
        with mapped("read", path):
            data = path.read_bytes()
        try:
            found |= parse_settled(data)
        except StoreCorrupt as exc:
            raise StoreCorrupt(f"{path.name}: {exc.message}", hint=exc.hint) from exc
    return found
