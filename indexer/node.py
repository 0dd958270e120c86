"""The indexer put together from a deployment's settings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from sealtape.capture.bus import Bus, open_bus
from sealtape.indexer.index import Index, open_index
from sealtape.indexer.worker import Tally, rebuild, start_indexer
from sealtape.ingest.keyring import Keyring, open_keyring
from sealtape.ingest.ledger import Ledger, open_ledger
from sealtape.ingest.vault import Vault, open_vault
from sealtape.schemas.errors import KeyUnavailable
from sealtape.schemas.settings import Settings
from sealtape.schemas.wraps import PrivateKey

__all__ = ["IndexerStores", "indexer_key", "indexer_stores", "rebuild_index", "serve"]


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexerStores:
    """What the indexer reads, and the index it writes."""

    bus: Bus
    ledger: Ledger
    vault: Vault
    keyring: Keyring
    index: Index


@asynccontextmanager
async def indexer_stores(settings: Settings) -> AsyncIterator[IndexerStores]:
    """Open the stores of a deployment and close them again, the last opened first."""
    base, urls = Path(settings.base), settings.stores
    opened: list[Bus | Ledger | Vault | Keyring | Index] = []
    try:
        opened.append(bus := open_bus(urls.bus, base))
        await bus.start()
        opened.append(ledger := await open_ledger(urls.ledger, base))
        opened.append(vault := await open_vault(urls.vault, base))
        opened.append(keyring := await open_keyring(urls.keyring, base))
        opened.append(index := await open_index(urls.index, base))
        yield IndexerStores(bus=bus, ledger=ledger, vault=vault, keyring=keyring, index=index)
    finally:
        for store in reversed(opened):
            await store.close()


def indexer_key(settings: Settings) -> PrivateKey:
    """Return the indexer's private key. Raises `KeyUnavailable`."""
    path = Path(settings.base, settings.keys.indexer_private)
    try:
        return PrivateKey.from_text(path.read_text(encoding="ascii"))
    except (OSError, UnicodeDecodeError) as exc:
        msg = f"The indexer's private key {path} cannot be read."
        raise KeyUnavailable(msg, hint="keys.indexer_private names it.") from exc


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Index until `stop` is set; raises what ends it before."""
    private = indexer_key(settings)
    async with indexer_stores(settings) as stores:
        running = await start_indexer(
            bus=stores.bus,
            ledger=stores.ledger,
            vault=stores.vault,
            keyring=stores.keyring,
            index=stores.index,
            private=private,
            refresh_s=settings.indexer.refresh_s,
        )
        stopped = asyncio.create_task(stop.wait())
        ended = asyncio.create_task(running.wait())
        await asyncio.wait({stopped, ended}, return_when=asyncio.FIRST_COMPLETED)
        for task in (stopped, ended):
            task.cancel()
        await running.stop()
        if ended.done() and not ended.cancelled():
            ended.result()


async def rebuild_index(settings: Settings) -> Tally:
    """Empty the index and make it again."""
    private = indexer_key(settings)
    async with indexer_stores(settings) as stores:
        return await rebuild(
            bus=stores.bus,
            ledger=stores.ledger,
            vault=stores.vault,
            keyring=stores.keyring,
            index=stores.index,
            private=private,
        )
