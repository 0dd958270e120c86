"""Removes objects that were staged and never published: orphans of crashes and of lost races."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from sealtape.ingest.ledger.base import Ledger
from sealtape.ingest.ledger.rows import Lease
from sealtape.ingest.vault.base import Vault
from sealtape.schemas.errors import StoreError
from sealtape.schemas.layout import SegmentKey, manifest_key, parse_key

__all__ = ["Collector"]

GRACE_S = 3600.0
FORGET_S = 24 * 3600.0

log = logging.getLogger(__name__)


class Collector:
    """Abandons in the ledger first, by compare-and-set, and erases only what that gave free.

    A writer that is slow beyond all patience then fails at its own compare-and-set, instead of
    publishing an object that is no longer there. Such a writer may still create the object after
    it was erased, so an abandoned key is erased again and again, and forgotten only after a day.
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
        freed = [key for key in left if await self._ledger.abandon(key)]
        await self._erase(freed)
        return len(freed)

    async def collect(self, older_than_s: float = GRACE_S) -> int:
        """Abandon what was staged that long ago, erase what is abandoned; returns how many keys."""
        freed = 0
        for item in await self._ledger.staged(older_than_s):
            freed += await self._ledger.abandon(item.key)
        gone = await self._erase(await self._ledger.abandoned(0.0))
        for key in await self._ledger.abandoned(FORGET_S):
            if key in gone:
                await self._ledger.forget(key)
        return freed

    async def _erase(self, keys: Sequence[str]) -> set[str]:
        """Erase what can be erased now; what is locked, say, is tried again by `collect`."""
        gone = set()
        for key in keys:
            try:
                if isinstance(parse_key(key), SegmentKey):
                    await self._vault.erase(manifest_key(key))
                await self._vault.erase(key)
            except StoreError as error:
                log.warning("an object that was never published stays for now: %s", error)
            else:
                gone.add(key)
        return gone
