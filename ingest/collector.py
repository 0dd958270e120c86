"""Removes objects that were staged and never published: orphans of crashes and of lost races."""

from __future__ import annotations

from sealtape.ingest.ledger.base import Ledger
from sealtape.ingest.ledger.rows import Lease
from sealtape.ingest.vault.base import Vault
from sealtape.schemas.layout import SegmentKey, manifest_key, parse_key

__all__ = ["Collector"]

GRACE_S = 3600.0


class Collector:
    """Abandons in the ledger first, by compare-and-set, and erases only what that gave free.

    A writer that is slow beyond all patience then fails at its own compare-and-set, instead of
    publishing an object that is no longer there.
    """

    def __init__(self, ledger: Ledger, vault: Vault) -> None:
        """Work on these stores."""
        self._ledger = ledger
        self._vault = vault

    async def abandon_before(self, lease: Lease) -> int:
        """Clear what earlier terms of the lease's partition left: they can publish no more."""
        left = [
            item.key
            for item in await self._ledger.staged(0.0)
            if (item.topic, item.partition) == (lease.topic, lease.partition)
            and item.term < lease.term
        ]
        return await self._clear(left)

    async def collect(self, older_than_s: float = GRACE_S) -> int:
        """Clear what was staged that long ago, and finish what an earlier run began."""
        old = [item.key for item in await self._ledger.staged(older_than_s)]
        return await self._clear(old) + await self._clear(await self._ledger.abandoned())

    async def _clear(self, keys: list[str]) -> int:
        cleared = 0
        for key in keys:
            if not await self._ledger.abandon(key):
                continue
            if isinstance(parse_key(key), SegmentKey):
                await self._vault.erase(manifest_key(key))
            await self._vault.erase(key)
            await self._ledger.forget(key)
            cleared += 1
        return cleared
