"""A small deployment of real embedded stores, filled with synthetic sessions."""

import asyncio
import dataclasses
import time
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from sealtape.capture.bus import open_bus
from sealtape.indexer.index import open_index
from sealtape.indexer.worker import Indexer, IndexerStores, rebuild, start_indexer
from sealtape.ingest.keyring import open_keyring
from sealtape.ingest.ledger import open_ledger
from sealtape.ingest.node import start_ingest
from sealtape.ingest.sealer import Limits
from sealtape.ingest.vault import open_vault
from sealtape.schemas import messages
from tests.factories.sessions import node_signer, reader


class Deployment(SimpleNamespace):
    def with_bus(self, bus):
        """The same deployment on another bus."""
        other = type(self)(**vars(self))
        other.bus, other.stores = bus, self.stores | {"bus": bus}
        return other

    async def trim(self, partition):
        """Delete from the bus what ingest has sealed."""
        end = await self.ledger.position(self.bus.topic, partition)
        await self.bus.mark("ingest", partition, end)
        await self.bus.trim(partition, ["ingest"])

    async def send(self, *sessions, only=None):
        """Append whole sessions, or what `only` picks of their messages, each as one batch."""
        for built in sessions:
            picked = built.messages if only is None else only(built.messages)
            await self.append(picked)

    async def append(self, picked):
        pairs = [(message.session, messages.encode(message)) for message in picked]
        if pairs:
            await self.bus.append(self.bus.partition_of(pairs[0][0]), pairs)

    async def seal(self):
        """Run ingest until everything on the bus is published."""
        running = await start_ingest(
            bus=self.bus,
            keyring=self.keyring,
            vault=self.vault,
            ledger=self.ledger,
            owner="test",
            verifiers=[node_signer().verifier],
            limits=Limits(segment_ns=50_000_000, hold_ns=100_000_000, idle_ns=10_000_000),
        )
        try:
            until = time.monotonic() + 20
            while await running.lag() > 0:
                assert time.monotonic() < until
                await asyncio.sleep(0.02)
        finally:
            await running.stop()

    def indexer(self, **changes):
        return Indexer(*self.desk(changes), **changes)

    async def start(self, **changes):
        return await start_indexer(*self.desk(changes), **{"refresh_s": 0.05} | changes)

    def desk(self, changes):
        """The stores and the indexer's key, with those of `changes`, which are taken out of it."""
        fields = {field.name for field in dataclasses.fields(IndexerStores)}
        stores = self.stores | {name: changes.pop(name) for name in fields & changes.keys()}
        return IndexerStores(**stores), changes.pop("private", reader("indexer"))

    async def rebuild(self, **options):
        return await rebuild(*self.desk({}), **options)


@asynccontextmanager
async def opened(folder: Path):
    bus = open_bus("dir:bus?partitions=2", folder)
    keyring = await open_keyring("sqlite:keyring.db", folder)
    vault = await open_vault("file:vault", folder)
    ledger = await open_ledger("sqlite:ledger.db", folder)
    index = await open_index("sqlite:index.db", folder)
    stores = {"bus": bus, "keyring": keyring, "vault": vault, "ledger": ledger, "index": index}
    try:
        yield Deployment(folder=folder, stores=stores, **stores)
    finally:
        for store in stores.values():
            await store.close()


@pytest.fixture
async def deployment(tmp_path):
    async with opened(tmp_path) as found:
        yield found
