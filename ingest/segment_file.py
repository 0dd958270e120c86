"""Reading rows of a segment that is in the vault, without fetching all of it.

The footer is read first, then the row groups that the rows lie in, one ahead of the reader. The
last row group is kept, because whoever reads one fragment often reads its neighbour next. A small
object is fetched whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pyarrow as pa

from sealtape.ingest.parquet import Layout, Row, rows_of
from sealtape.ingest.vault import Vault

__all__ = ["SegmentFile"]

WHOLE_BYTES = 4 << 20
"""Objects up to this size are fetched in one piece."""
TAIL_BYTES = 64 << 10
"""So much of the end is fetched first: it holds the footer of most segments."""
AT_ONCE = 8


class SegmentFile:
    """One segment. Nothing is asked of the vault before the first read."""

    def __init__(self, vault: Vault, key: str) -> None:
        """Name the object."""
        self.key = key
        self._vault = vault
        self._layout: Layout | None = None
        self._whole: bytes | None = None
        self._group = -1
        self._table: pa.Table | None = None

    async def rows(self, start: int, end: int) -> AsyncIterator[tuple[int, Row]]:
        """Rows `[start, end)` with their numbers; fewer where the segment ends before.

        Raises `Missing` (the object is gone) and `FormatError` (it is no segment).
        """
        layout = await self._opened()
        numbers = layout.within(start, end)
        ahead: asyncio.Task[Mapping[int, bytes]] | None = None
        try:
            for number, following in zip(numbers, [*numbers[1:], None], strict=False):
                group = layout.groups[number]
                low, high = max(start, group.first), min(end, group.end)
                table = await self._read(layout, number, ahead)
                ahead = None
                if following is not None and self._whole is None:
                    span = layout.groups[following].span
                    ahead = asyncio.create_task(self._pieces(span))
                part = table.slice(low - group.first, high - low)
                for at, row in enumerate(rows_of(part), low):
                    yield at, row
        finally:
            if ahead is not None:
                ahead.cancel()
                await asyncio.gather(ahead, return_exceptions=True)

    async def column(self, name: str, start: int, end: int) -> list[Any]:
        """One column of rows `[start, end)`. Raises as `rows` does."""
        layout = await self._opened()
        limit = asyncio.Semaphore(AT_ONCE)

        async def part(number: int) -> list[Any]:
            async with limit:
                pieces = await self._pieces(layout.groups[number].columns[name])
            table = await asyncio.to_thread(layout.read, number, pieces, name)
            first = layout.groups[number].first
            values: Any = table.column(0).slice(max(0, start - first), end - max(start, first))
            return list(values.to_pylist())

        parts = await asyncio.gather(*map(part, layout.within(start, end)))
        return [value for values in parts for value in values]

    async def _opened(self) -> Layout:
        if self._layout is None:
            size = await self._vault.size(self.key)
            if size <= WHOLE_BYTES:
                tail = self._whole = await self._vault.get(self.key, 0, size)
            else:
                tail = await self._vault.get(self.key, max(0, size - TAIL_BYTES), size)
                needed = Layout.tail_size(tail)
                if len(tail) < needed <= size:
                    tail = await self._vault.get(self.key, size - needed, size)
            self._layout = await asyncio.to_thread(Layout, size, tail)
        return self._layout

    async def _read(
        self, layout: Layout, number: int, ahead: asyncio.Task[Mapping[int, bytes]] | None
    ) -> pa.Table:
        if self._table is None or self._group != number:
            pieces = await (ahead or self._pieces(layout.groups[number].span))
            self._table = await asyncio.to_thread(layout.read, number, pieces)
            self._group = number
        return self._table

    async def _pieces(self, span: tuple[int, int]) -> Mapping[int, bytes]:
        if self._whole is not None:
            return {0: self._whole}
        return {span[0]: await self._vault.get(self.key, *span)}
