"""A real ingest process that kills itself: `python -m tests.factories.ingest_driver FOLDER [STEP]`.

Reads the bus in FOLDER to its end, seals and publishes, and ends. STEP is `store.method#n:when`: at
the n-th call of that method it sends itself SIGKILL, `before` the call or `after` it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from sealtape.capture.bus import open_bus
from sealtape.ingest.consumer import Consumer, Stores
from sealtape.ingest.keyring import open_keyring
from sealtape.ingest.ledger import open_ledger
from sealtape.ingest.sealer import Limits
from sealtape.ingest.vault import open_vault
from tests.factories.sessions import node_signer


class Deadly:
    """A store of which one call is the last thing this process does."""

    def __init__(self, name, store, step):
        self._name = name
        self._store = store
        self._step = step
        self._calls = 0

    def __getattr__(self, method):
        found = getattr(self._store, method)
        place, _, when = self._step.partition(":")
        wanted, _, number = place.partition("#")
        if wanted != f"{self._name}.{method}":
            return found

        async def call(*arguments, **options):
            self._calls += 1
            last = self._calls == int(number)
            if last and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = await found(*arguments, **options)
            if last:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call


async def open_ingest_stores(folder):
    return {
        "bus": open_bus("dir:bus?partitions=1", folder),
        "keyring": await open_keyring("sqlite:keyring.db", folder),
        "vault": await open_vault("file:vault", folder),
        "ledger": await open_ledger("sqlite:ledger.db", folder),
    }


async def drive(folder, step):
    stores = await open_ingest_stores(folder)
    consumer = Consumer(
        stores=Stores(**{name: Deadly(name, store, step) for name, store in stores.items()}),
        partition=0,
        owner="node-1",
        verifiers=[node_signer().verifier],
        limits=Limits(),
    )
    consumer.leave()
    assert await consumer.hold()
    for store in stores.values():
        await store.close()


if __name__ == "__main__":
    asyncio.run(drive(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""))
