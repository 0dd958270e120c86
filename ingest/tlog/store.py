"""One shard of the log in the vault: tiles, entry bundles, checkpoints (docs/spec/log.md).

All objects but `checkpoint` and `checkpoint.pending` follow from the entries, so whoever tries to
write one again writes the same bytes. Other bytes under the same key are a fork: `StoreCorrupt`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from sealtape.ingest.vault import Vault
from sealtape.schemas.errors import Exists, FormatError, Missing, StoreCorrupt
from sealtape.schemas.tlog.tiles import (
    ENTRIES,
    WIDTH,
    Growth,
    Tile,
    edge,
    encode_entries,
    encode_hashes,
    parse_entries,
    parse_hashes,
    places,
    roots,
)
from sealtape.schemas.tree import EMPTY_ROOT, consistency_ranges

__all__ = ["CHECKPOINT", "PENDING", "LogStore", "fork", "noted_key"]

CHECKPOINT: Final = "checkpoint"
PENDING: Final = "checkpoint.pending"
AT_ONCE: Final = 16
"""Requests to the vault at the same time."""


def noted_key(size: int) -> str:
    """Where, below a shard's prefix, the witnessed checkpoint of that size lies."""
    return f"checkpoints/{size:020d}"


def fork(what: str) -> StoreCorrupt:
    """The error that stops the log: two histories of it meet."""
    return StoreCorrupt(
        f"The log would fork: {what}.",
        hint="Look whether the ledger or the vault is an old copy; `sealtape ledger rebuild`"
        " brings the ledger up to the vault. Nothing is written to the log until a restart.",
    )


class LogStore:
    """The objects of one shard."""

    def __init__(self, vault: Vault, number: int) -> None:
        """Below `log/v1/NUMBER/` of the vault."""
        self.prefix = f"log/v1/{number}/"
        self._vault = vault
        self._turns = asyncio.Semaphore(AT_ONCE)

    # -- objects -----------------------------------------------------------------------------------

    async def get(self, name: str) -> bytes:
        """An object; empty when there is none."""
        try:
            async with self._turns:
                return await self._vault.get(self.prefix + name)
        except Missing:
            return b""

    async def create(self, name: str, data: bytes) -> bytes:
        """Create an object; returns what is there, which is other bytes if somebody was first."""
        try:
            async with self._turns:
                await self._vault.put_new(self.prefix + name, data)
        except Exists:
            return await self.get(name)
        return data

    async def swap(self, name: str, data: bytes, before: bytes) -> None:
        """Replace one of the two objects that change; `Fenced` when it is not `before`."""
        await self._vault.swap(self.prefix + name, data, before or None)

    async def drop(self, name: str) -> None:
        """Remove what is of no more use."""
        await self._vault.erase(self.prefix + name)

    # -- tiles -------------------------------------------------------------------------------------

    async def put(self, tiles: Mapping[Tile, bytes]) -> None:
        """Write tiles; those of a level are there before those of the next. Raises StoreError."""
        for level in sorted({tile.level for tile in tiles}):
            await asyncio.gather(
                *(self._put(tile, data) for tile, data in tiles.items() if tile.level == level)
            )

    async def _put(self, tile: Tile, data: bytes) -> None:
        if await self.create(tile.path, data) != data:
            raise fork(f"{self.prefix}{tile.path} has other bytes than its entries make")

    async def tiles(self, wanted: Iterable[Tile]) -> dict[Tile, bytes]:
        """Read tiles; a partial one out of the full one that has taken its place, if need be."""
        wanted = list(wanted)
        found = await asyncio.gather(*map(self._tile, wanted))
        return dict(zip(wanted, found, strict=True))

    async def _tile(self, tile: Tile) -> bytes:
        data = await self.get(tile.path)
        if data or tile.full:
            if not data:
                raise StoreCorrupt(f"{self.prefix}{tile.path} of the log is missing.")
            return data
        whole = Tile(tile.level, tile.index)
        try:
            data = await self._tile(whole)
            if tile.level == ENTRIES:
                return encode_entries(parse_entries(whole, data)[: tile.width])
            return encode_hashes(parse_hashes(whole, data)[: tile.width])
        except FormatError as error:
            raise StoreCorrupt(f"{self.prefix}{whole.path} is damaged: {error.message}.") from error

    async def growth(self, size: int) -> Growth:
        """The tree's right end, to go on from. Raises StoreCorrupt when its tiles are not there."""
        try:
            return Growth(size, await self.tiles(edge(size)))
        except FormatError as error:
            raise StoreCorrupt(f"The log's last tiles are damaged: {error.message}.") from error

    async def roots(self, ranges: Sequence[tuple[int, int]], size: int) -> list[bytes]:
        """The roots of ranges of leaves, out of the tiles of a tree of `size`."""
        try:
            return roots(ranges, size, await self.tiles(places(ranges, size)))
        except FormatError as error:
            raise StoreCorrupt(f"The log's tiles are damaged: {error.message}.") from error

    async def root(self, size: int) -> bytes:
        """The root of the first `size` leaves."""
        return (await self.roots([(0, size)], size))[0] if size else EMPTY_ROOT

    async def prove(self, old_size: int, size: int) -> list[bytes]:
        """That the tree of `old_size` is a prefix of the one of `size`."""
        return await self.roots(consistency_ranges(old_size, size), size)

    async def entries(self, first: int, size: int) -> list[bytes]:
        """The entries [first, size) of a tree of `size`."""
        bundles = [
            Tile(ENTRIES, index, min(WIDTH, size - index * WIDTH))
            for index in range(first // WIDTH, -(-size // WIDTH))
        ]
        found: list[bytes] = []
        for tile, data in (await self.tiles(bundles)).items():
            try:
                entries = parse_entries(tile, data)
            except FormatError as error:
                raise StoreCorrupt(f"{self.prefix}{tile.path}: {error.message}.") from error
            found += entries[max(0, first - tile.first) :]
        return found
