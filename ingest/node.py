"""The ingest node: one worker per partition of the bus, and the collector of orphans."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from sealtape.capture.bus import Bus, open_bus
from sealtape.ingest.collector import Collector
from sealtape.ingest.consumer import Consumer, Stores
from sealtape.ingest.keyring import Keyring, open_keyring
from sealtape.ingest.ledger import Ledger, open_ledger
from sealtape.ingest.sealer import SECOND_NS, Limits
from sealtape.ingest.vault import Vault, open_vault
from sealtape.schemas.errors import SettingsError, StoreError
from sealtape.schemas.notes import Verifier
from sealtape.schemas.settings import IngestSettings, Settings
from sealtape.schemas.trust import parse_trust

__all__ = ["RunningIngest", "limits_of", "open_stores", "read_trust", "serve", "start_ingest"]

COLLECT_EVERY_S = 300.0

log = logging.getLogger(__name__)


class RunningIngest:
    """What `start_ingest` started."""

    def __init__(
        self, stores: Stores, consumers: Sequence[Consumer], tasks: Sequence[asyncio.Task[None]]
    ) -> None:
        """Only `start_ingest` calls this; the last task is the collector's."""
        self._stores = stores
        self._consumers = consumers
        self._tasks = tasks

    async def wait(self) -> None:
        """Return when ingest has ended; raise what ended it, if that was a failure."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if not task.cancelled():
                task.result()

    async def lag(self) -> int:
        """How far the published positions are behind the bus, in its offsets, all partitions."""
        bus, ledger = self._stores.bus, self._stores.ledger
        behind = 0
        for partition in range(bus.partitions):
            _, end = await bus.bounds(partition)
            behind += end - await ledger.position(bus.topic, partition)
        return behind

    async def stop(self) -> None:
        """Seal what is signed up to the end of the bus, release the leases, end. Raises failures.

        What still waits for a signature stays on the bus. The stores stay open.
        """
        for consumer in self._consumers:
            consumer.stop()
        *workers, collector = self._tasks
        results = await asyncio.gather(*workers, return_exceptions=True)
        collector.cancel()
        await asyncio.gather(collector, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result


async def start_ingest(
    *,
    bus: Bus,
    keyring: Keyring,
    vault: Vault,
    ledger: Ledger,
    owner: str,
    verifiers: Sequence[Verifier] | None,
    limits: Limits | None = None,
    lease_s: float = 15.0,
) -> RunningIngest:
    """Start sealing what comes on `bus`. The caller opened the stores and closes them afterwards.

    `owner` names this process in leases and segment records. A process that is started again after
    a crash must have the same one, to take its lease back at once; two that run at the same time
    must not. `verifiers` are the trusted node keys, None trusts any ("trust: self").
    """
    stores = Stores(bus=bus, keyring=keyring, vault=vault, ledger=ledger)
    consumers = [
        Consumer(
            stores=stores,
            partition=partition,
            owner=owner,
            verifiers=verifiers,
            limits=limits or Limits(),
            ttl_s=lease_s,
        )
        for partition in range(bus.partitions)
    ]
    tasks = [
        asyncio.create_task(consumer.run(), name=f"ingest-{partition}")
        for partition, consumer in enumerate(consumers)
    ]
    tasks.append(asyncio.create_task(_collect(stores), name="ingest-collector"))
    return RunningIngest(stores, consumers, tasks)


async def _collect(stores: Stores) -> None:
    collector = Collector(stores.ledger, stores.vault)
    while True:
        try:
            await stores.vault.tidy()
            removed = await collector.collect()
            if removed:
                log.info("removed %d objects that were never published", removed)
        except StoreError:
            log.exception("collecting orphans")
        await asyncio.sleep(COLLECT_EVERY_S)


def limits_of(settings: IngestSettings) -> Limits:
    """When to cut, from the settings; patience for signatures is never shorter than for a cut."""
    segment_ns = int(settings.segment_s * SECOND_NS)
    return Limits(
        segment_bytes=settings.segment_bytes,
        segment_ns=segment_ns,
        hold_ns=max(Limits().hold_ns, 3 * segment_ns),
    )


def read_trust(settings: Settings) -> tuple[Verifier, ...]:
    """The node keys of the trust file. Raises `SettingsError` and `FormatError`."""
    path = Path(settings.base) / settings.keys.trust
    try:
        return parse_trust(path.read_text(encoding="utf-8")).nodes
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"The trust file {path} cannot be read.", hint="keys.trust names it.", path=str(path)
        ) from error


async def open_stores(settings: Settings) -> Stores:
    """Open the stores that the settings name."""
    base, names = Path(settings.base), settings.stores
    async with AsyncExitStack() as undo:
        bus = open_bus(names.bus, base)
        undo.push_async_callback(bus.close)
        await bus.start()
        keyring = await open_keyring(names.keyring, base)
        undo.push_async_callback(keyring.close)
        vault = await open_vault(names.vault, base)
        undo.push_async_callback(vault.close)
        ledger = await open_ledger(names.ledger, base)
        undo.pop_all()
    return Stores(bus=bus, keyring=keyring, vault=vault, ledger=ledger)


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Run ingest alone until `stop` is set; raises what ends it before."""
    verifiers = read_trust(settings)
    stores = await open_stores(settings)
    try:
        running = await start_ingest(
            bus=stores.bus,
            keyring=stores.keyring,
            vault=stores.vault,
            ledger=stores.ledger,
            owner=settings.deployment.node,
            verifiers=verifiers,
            limits=limits_of(settings.ingest),
            lease_s=settings.ingest.lease_s,
        )
        stopped = asyncio.create_task(stop.wait())
        ended = asyncio.create_task(running.wait())
        await asyncio.wait({stopped, ended}, return_when=asyncio.FIRST_COMPLETED)
        for task in (stopped, ended):
            task.cancel()
        await running.stop()
    finally:
        for store in (stores.bus, stores.keyring, stores.vault, stores.ledger):
            await store.close()
