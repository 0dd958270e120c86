"""The ingest node: this worker's share of the bus's partitions, and the collector of orphans."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from sealtape.capture.bus import Bus, open_bus
from sealtape.capture.metrics import open_endpoint
from sealtape.ingest.collector import Collector
from sealtape.ingest.consumer import CONSUMER, INDEXER, Consumer, KeyConsumer
from sealtape.ingest.crew import Crew
from sealtape.ingest.events_topic import open_events
from sealtape.ingest.intake import Stores
from sealtape.ingest.keyring import Keyring, open_keyring
from sealtape.ingest.ledger import Ledger, open_ledger
from sealtape.ingest.metrics import IngestVitals
from sealtape.ingest.relay import RunningRelay, start_relay
from sealtape.ingest.sealer import SECOND_NS, Limits
from sealtape.ingest.serving import end, together, until_stopped
from sealtape.ingest.snapshot import Counts, IngestSnapshot
from sealtape.ingest.tlog.opening import RunningLog, log_parts, start_log
from sealtape.ingest.tlog.serving import serve_log
from sealtape.ingest.vault import Vault, open_vault
from sealtape.ingest.vault.standing import Standing
from sealtape.schemas.errors import SettingsError, StoreError
from sealtape.schemas.notes import Verifier
from sealtape.schemas.settings import IngestSettings, Settings
from sealtape.schemas.trust import parse_trust

__all__ = [
    "DRAIN_S",
    "ROLE",
    "RunningIngest",
    "limits_of",
    "open_stores",
    "read_trust",
    "serve",
    "start_ingest",
    "tell",
    "vitals_of",
]

ROLE = "ingest"
"""What these workers are called among those at work in the ledger."""
COLLECT_EVERY_S = 300.0
TRIM_EVERY_S = 60.0
MEMORY_BYTES = 256 << 20
"""Payload that all partitions of a worker let wait together before they cut; what waits for a
signature may take as much again."""
LEAST_BYTES = 4 << 20
DRAIN_S = 5.0
"""How long a process that was told to end reads on before it publishes a last time."""

log = logging.getLogger(__name__)


class Berth:
    """One partition of frames and, where keys have a bus of their own, the same one of keys."""

    def __init__(self, consumers: Sequence[Consumer]) -> None:
        """Work with these, each under its own lease."""
        self.consumers = tuple(consumers)

    def leave(self, read_s: float | None) -> None:
        """End; see `Consumer.leave`."""
        for consumer in self.consumers:
            consumer.leave(read_s)

    async def run(self) -> None:
        """Work until `leave`; raise only what is a fault."""
        await together(*(consumer.run() for consumer in self.consumers))


class RunningIngest:
    """What `start_ingest` started."""

    def __init__(
        self, stores: Stores, worker: str, crew: Crew[Berth], counts: Counts, collector: Collector
    ) -> None:
        """Only `start_ingest` calls this."""
        self.stores = stores
        """What it works on; the caller's to close."""
        self._worker = worker
        self._crew = crew
        self._counts = counts
        self._tasks = (
            asyncio.create_task(crew.run(), name="ingest-crew"),
            asyncio.create_task(_clean(stores, collector), name="ingest-cleaner"),
        )

    async def wait(self) -> None:
        """Return when ingest has ended; raise what ended it, if that was a failure."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if not task.cancelled():
                task.result()

    async def lag(self) -> int:
        """How far the published positions are behind the bus, in its offsets, all partitions."""
        bus, ledger = self.stores.bus, self.stores.ledger
        behind = 0
        for partition in range(bus.partitions):
            _, end = await bus.bounds(partition)
            behind += max(0, end - await ledger.position(bus.topic, partition))
        return behind

    def snapshot(self) -> IngestSnapshot:
        """What this worker has, does and did."""
        counts, held, claiming = self._counts, [], []
        for consumer in self._consumers():
            found = consumer.snapshot()
            if found is None:
                claiming.append(consumer.place)
            else:
                held.append(found)
        beaten = self._crew.beaten
        return IngestSnapshot(
            worker=self._worker,
            workers=self._crew.live,
            beaten_s=time.monotonic() - beaten if beaten else math.inf,
            partitions=tuple(held),
            claiming=tuple(claiming),
            segments=counts.segments,
            frames=counts.frames,
            bytes=counts.bytes,
            duplicates=counts.duplicates,
            quarantined=counts.quarantined,
            incidents=dict(counts.incidents),
            fenced=counts.fenced,
            failures=counts.failures,
            sealed_s=counts.sealed_s,
        )

    async def stop(self, read_s: float | None = None) -> None:
        """Seal what is signed, release the leases, end. Raises failures.

        It reads on for at most `read_s` seconds before, with None to the end of the bus. What still
        waits for a signature stays on the bus. The stores stay open. Stopping twice is fine.
        """
        self._crew.stop(read_s)
        crew, cleaner = self._tasks
        try:
            await crew
        finally:
            await end([cleaner])

    def _consumers(self) -> Iterator[Consumer]:
        for _, berth in sorted(self._crew.seats.items()):
            yield from berth.consumers


async def start_ingest(
    *,
    bus: Bus,
    keyring: Keyring,
    vault: Vault,
    ledger: Ledger,
    keys: Bus | None = None,
    owner: str,
    verifiers: Sequence[Verifier] | None,
    limits: Limits | None = None,
    lease_s: float = 15.0,
) -> RunningIngest:
    """Start sealing what comes on `bus`. The caller opened the stores and closes them afterwards.

    `keys` is the bus of the wrapped keys where they have one of their own. `owner` names this
    process among those at work, in leases and in segment records. A process that is started again
    after a crash should have the same one, to take its leases back at once; two that run at the
    same time must not. `verifiers` are the trusted node keys, None trusts any ("trust: self").
    """
    stores = Stores(bus=bus, keyring=keyring, vault=vault, ledger=ledger, keys=keys)
    counts = Counts()

    def berth(partition: int) -> Berth:
        share = portion(limits or Limits(), -(-bus.partitions // len(crew.live)))
        return Berth(
            [
                consumer(
                    stores=stores,
                    partition=partition,
                    owner=owner,
                    verifiers=verifiers,
                    limits=share,
                    ttl_s=lease_s,
                    counts=counts,
                )
                for consumer in ((Consumer,) if keys is None else (KeyConsumer, Consumer))
            ]
        )

    crew = _crew(stores, owner, lease_s, berth)
    await crew.begin()
    return RunningIngest(stores, owner, crew, counts, Collector(ledger, vault))


def _crew(stores: Stores, owner: str, lease_s: float, berth: Callable[[int], Berth]) -> Crew[Berth]:
    return Crew(
        ledger=stores.ledger,
        role=ROLE,
        worker=owner,
        ttl_s=lease_s,
        partitions=stores.bus.partitions,
        seat=berth,
    )


async def _clean(stores: Stores, collector: Collector) -> None:
    # Each by itself: a store that refuses one of them must not keep the others from being done.
    await together(
        _again_and_again(stores.vault.tidy, COLLECT_EVERY_S),
        _again_and_again(partial(_collect, collector), COLLECT_EVERY_S),
        _again_and_again(partial(_trim, stores), TRIM_EVERY_S),
    )


async def _again_and_again(work: Callable[[], Awaitable[object]], seconds: float) -> None:
    while True:
        try:
            await work()
        except StoreError:
            log.exception("cleaning up")
        await asyncio.sleep(seconds)


async def _collect(collector: Collector) -> None:
    removed = await collector.collect()
    if removed:
        log.info("removed %d objects that were never published", removed)


async def _trim(stores: Stores) -> None:
    """Let go of what ingest and the indexer have both passed; of keys, what the keyring has."""
    for partition in range(stores.bus.partitions):
        await stores.bus.trim(partition, [CONSUMER, INDEXER])
        if stores.keys is not None:
            await stores.keys.trim(partition, [CONSUMER])


def portion(limits: Limits, partitions: int) -> Limits:
    """The limits of one of so many partitions of a worker: they share its memory."""
    most = max(LEAST_BYTES, MEMORY_BYTES // partitions)
    return replace(limits, segment_bytes=min(limits.segment_bytes, most))


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
    """Open the stores that the settings name. Raises `SettingsError` and `StoreError`."""
    base, names = Path(settings.base), settings.stores
    async with AsyncExitStack() as undo:
        bus = open_bus(names.bus, base)
        undo.push_async_callback(bus.close)
        await bus.start()
        keys = open_bus(names.keys, base) if names.keys else None
        if keys is not None:
            undo.push_async_callback(keys.close)
            await keys.start()
            check_keys(bus.partitions, keys.partitions)
        keyring = await open_keyring(names.keyring, base)
        undo.push_async_callback(keyring.close)
        vault = await open_vault(names.vault, base)
        undo.push_async_callback(vault.close)
        ledger = await open_ledger(names.ledger, base)
        undo.pop_all()
    return Stores(bus=bus, keyring=keyring, vault=vault, ledger=ledger, keys=keys)


def check_keys(frames: int, keys: int) -> None:
    """Refuse a keys' bus on which a session would have another partition than on the bus."""
    if frames != keys:
        raise SettingsError(
            f"The bus has {frames} partitions, the one for keys has {keys}.",
            hint="stores.keys must name one with as many as stores.bus has.",
        )


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Run ingest alone until `stop` is set; raises what ends it before."""
    verifiers = read_trust(settings)
    owner = settings.ingest.worker or settings.deployment.node
    about = vitals_of(settings)
    async with AsyncExitStack() as stack:
        endpoint = await open_endpoint(settings.ingest.metrics, about)
        stack.push_async_callback(endpoint.close)
        stores = await open_stores(settings)
        stack.push_async_callback(stores.close)
        base = Path(settings.base)
        server = await serve_log(settings.log, base, stores.ledger, stores.vault)
        stack.push_async_callback(server.close)
        events = open_events(settings)
        stack.push_async_callback(events.close)
        relay = start_relay(stores.ledger, events, owner=owner, lease_s=settings.ingest.lease_s)
        stack.push_async_callback(relay.stop)
        written = await _start_log(settings, stores, owner, stack)
        running = await start_ingest(
            bus=stores.bus,
            keyring=stores.keyring,
            vault=stores.vault,
            ledger=stores.ledger,
            keys=stores.keys,
            owner=owner,
            verifiers=verifiers,
            limits=limits_of(settings.ingest),
            lease_s=settings.ingest.lease_s,
        )
        stack.push_async_callback(running.stop, DRAIN_S)
        tell(about, running, relay, written)
        await until_stopped(stop, running, relay, *([] if written is None else [written]))


async def _start_log(
    settings: Settings, stores: Stores, owner: str, stack: AsyncExitStack
) -> RunningLog | None:
    """Write the log until `stack` is left; None where this process has no signer, by its settings.

    What is left before, as it was entered after, has sealed its last by then.
    """
    if not settings.log.signer:
        return None
    parts = await stack.enter_async_context(log_parts(settings, stores.ledger, stores.vault))
    running = start_log(parts, stores.bus, owner=owner, lease_s=settings.ingest.lease_s)
    stack.push_async_callback(running.stop)
    return running


def vitals_of(settings: Settings) -> IngestVitals:
    """What an ingest worker of this deployment tells before it has started."""
    return IngestVitals(node=settings.deployment.node, lease_s=settings.ingest.lease_s)


def tell(
    about: IngestVitals,
    running: RunningIngest,
    relay: RunningRelay,
    written: RunningLog | None,
) -> None:
    """Let `about` tell how this worker is."""
    bus, keys = running.stores.bus, running.stores.keys
    about.attach(
        running.snapshot,
        topics=tuple(each.topic for each in (keys, bus) if each is not None),
        partitions=bus.partitions,
        relayed=lambda: (relay.relay.relayed, relay.relay.oldest_ns),
        log=None if written is None else written.worker.snapshot,
        probes={"bus": lambda: bus.bounds(0), "vault": Standing(running.stores.vault).ask},
    )
