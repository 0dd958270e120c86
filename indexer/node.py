"""The indexer put together from a deployment's settings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from sealtape.capture.bus import open_bus
from sealtape.capture.kms import read_private_key
from sealtape.capture.metrics import open_endpoint
from sealtape.indexer.events import EventSource
from sealtape.indexer.index import open_index
from sealtape.indexer.lane import IndexerStores
from sealtape.indexer.metrics import IndexerVitals
from sealtape.indexer.worker import RunningIndexer, Tally, rebuild, start_indexer
from sealtape.ingest.events_topic import EventsTopic, open_events
from sealtape.ingest.keyring import open_keyring
from sealtape.ingest.ledger import open_ledger
from sealtape.ingest.node import check_keys, read_trust
from sealtape.ingest.serving import until_stopped
from sealtape.ingest.vault import open_vault
from sealtape.schemas.errors import KeyUnavailable
from sealtape.schemas.settings import Settings
from sealtape.schemas.wraps import PrivateKey

__all__ = [
    "IndexerStores",
    "indexer_key",
    "indexer_stores",
    "rebuild_index",
    "serve",
    "start_room",
    "vitals_of",
]


@asynccontextmanager
async def indexer_stores(settings: Settings) -> AsyncIterator[IndexerStores]:
    """Open the stores of a deployment and close them again, the last opened first."""
    base, urls = Path(settings.base), settings.stores
    async with AsyncExitStack() as stack:
        bus = open_bus(urls.bus, base)
        stack.push_async_callback(bus.close)
        await bus.start()
        keys = open_bus(urls.keys, base) if urls.keys else None
        if keys is not None:
            stack.push_async_callback(keys.close)
            await keys.start()
            check_keys(bus.partitions, keys.partitions)
        ledger = await open_ledger(urls.ledger, base)
        stack.push_async_callback(ledger.close)
        vault = await open_vault(urls.vault, base)
        stack.push_async_callback(vault.close)
        keyring = await open_keyring(urls.keyring, base)
        stack.push_async_callback(keyring.close)
        index = await open_index(urls.index, base)
        stack.push_async_callback(index.close)
        yield IndexerStores(
            bus=bus, ledger=ledger, vault=vault, keyring=keyring, index=index, keys=keys
        )


def indexer_key(settings: Settings) -> PrivateKey:
    """Return the indexer's private key. Raises `KeyUnavailable`."""
    try:
        return read_private_key(settings.keys.indexer_private, Path(settings.base))
    except KeyUnavailable as exc:
        hint = f"{exc.hint} keys.indexer_private names it."
        raise KeyUnavailable(exc.message, hint=hint) from exc


async def start_room(
    settings: Settings,
    stores: IndexerStores,
    private: PrivateKey | None,
    events: EventsTopic,
    about: IndexerVitals,
) -> RunningIndexer:
    """Start the indexer as the settings say, on stores that the caller opened and closes.

    What it indexes it tells on `events` before; how it is, `about` tells from now on.
    """
    source = EventSource(events, stores.index)
    running = await start_indexer(
        stores,
        private,
        worker=settings.indexer.worker or settings.deployment.node,
        lease_s=settings.indexer.lease_s,
        refresh_s=settings.indexer.refresh_s,
        on_update=source,
        missing_s=settings.log.missing_s,
        verifiers=read_trust(settings),
    )
    about.attach(
        running.snapshot,
        partitions=stores.bus.partitions,
        sent=lambda: source.sent,
        probes={
            "bus": lambda: stores.bus.bounds(0),
            "index": stores.index.positions,
            "events": lambda: events.bounds(0),
        },
    )
    return running


def vitals_of(settings: Settings) -> IndexerVitals:
    """What an indexer of this deployment tells before it has started."""
    return IndexerVitals(node=settings.deployment.node, lease_s=settings.indexer.lease_s)


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Index until `stop` is set; raises what ends it before."""
    private = indexer_key(settings)
    about = vitals_of(settings)
    async with AsyncExitStack() as stack:
        endpoint = await open_endpoint(settings.indexer.metrics, about)
        stack.push_async_callback(endpoint.close)
        stores = await stack.enter_async_context(indexer_stores(settings))
        events = open_events(settings)
        stack.push_async_callback(events.close)
        running = await start_room(settings, stores, private, events, about)
        stack.push_async_callback(running.stop)
        await until_stopped(stop, running)


async def rebuild_index(settings: Settings, progress: Callable[[int], None] | None = None) -> Tally:
    """Empty the index and make it again; `progress` is told of the frames that were indexed.

    What the index did not have before is told on the events bus, as the indexer does. Raises
    `StoreBusy` while an indexer is at work.
    """
    private = indexer_key(settings)
    async with indexer_stores(settings) as stores, AsyncExitStack() as stack:
        events = open_events(settings)
        stack.push_async_callback(events.close)
        return await rebuild(
            stores,
            private,
            lease_s=settings.indexer.lease_s,
            progress=progress,
            on_update=EventSource(events, stores.index),
            verifiers=read_trust(settings),
        )
