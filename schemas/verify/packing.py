"""Many small rows of one size in a kept state, as few long strings: quick to write and to read.

A monitor keeps a few bytes for each session and segment of a log. As an object each they would
take minutes to write; here 512 of them are one string of hex.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from sealtape.schemas.canonical import Fields, Json

_CHUNK: Final = 512
_MAX_CHUNKS: Final = 1 << 20


def packed(rows: Sequence[bytes]) -> list[Json]:
    """The rows, in their order, as strings."""
    return [b"".join(rows[at : at + _CHUNK]).hex() for at in range(0, len(rows), _CHUNK)]


def unpacked(fields: Fields, name: str, size: int) -> Iterator[bytes]:
    """The rows of `size` bytes each that `packed` made a member `name` of."""
    limit = size * _CHUNK
    for text in fields.texts(name, max_items=_MAX_CHUNKS, max_bytes=2 * limit):
        try:
            data = bytes.fromhex(text)
        except ValueError:
            fields.refuse(name, "must be hex")
        if len(data) % size:
            fields.refuse(name, f"must hold rows of {size} bytes")
        for at in range(0, len(data), size):
            yield data[at : at + size]
