"""The relay: lifecycle events out of the ledger's outbox onto the events bus, at least once.

One relay works at a time, whoever holds the lease `("outbox", 0)`. An event leaves the outbox only
when the events bus has it, so a crash between the two sends it twice, under the same id
(docs/spec/events.md). While the bus is away events wait in the outbox; sealing does not wait.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from sealtape.ingest.crew import Hold, Leaving, persist, while_held
from sealtape.ingest.events_topic import Sink
from sealtape.ingest.ledger import Ledger
from sealtape.ingest.ledger.rows import Event
from sealtape.schemas.ocsf import OcsfEvent, lifecycle_event

__all__ = ["OUTBOX", "Relay", "RunningRelay", "append_events", "start_relay"]

OUTBOX = "outbox"
"""The topic of the relay's lease; its only partition is 0."""
BATCH = 500
IDLE_S = 0.5
FLUSH_S = 5.0
"""How long a process that ends tries to send what was published last."""
TRIM_EVERY_S = 600.0


async def append_events(bus: Sink, events: Iterable[OcsfEvent]) -> None:
    """Put events on the bus; those with one route keep their order. Raises StoreError."""
    lanes: dict[int, list[tuple[bytes, bytes]]] = {}
    for event in events:
        lane = lanes.setdefault(bus.partition_of(event.route), [])
        lane.append((event.key, event.to_json()))
    for partition, messages in sorted(lanes.items()):
        await bus.append(partition, messages)


class Relay:
    """Relays while it holds the lease, waits for it while another process does."""

    def __init__(self, ledger: Ledger, events: Sink, *, owner: str, ttl_s: float = 15.0) -> None:
        """Take the stores, which stay the caller's to close. `owner` is this process's name."""
        self.relayed = 0
        """Events sent since the start; one that was sent twice counts twice."""
        self.oldest_ns: int | None = None
        """When the oldest event was made that is not sent yet; None for none, and while another
        process relays."""
        self._ledger = ledger
        self._events = events
        self._owner = owner
        self._ttl_s = ttl_s
        self._trimmed: float | None = None
        self._leaving = Leaving()

    async def run(self) -> None:
        """Work until `leave`; failures of stores are logged and tried again."""
        await persist(self._attempt, self._leaving, "relaying events")

    def leave(self) -> None:
        """End `run`, after one more try to send what is there."""
        self._leaving.ask(0.0)

    async def step(self) -> bool:
        """Send what the outbox has next; False when it is empty. Raises StoreError."""
        rows = await self._ledger.outbox(limit=BATCH)
        self.oldest_ns = rows[0].at_ns if rows else None
        if not rows:
            return False
        await self._events.start()
        await append_events(self._events, map(_mapped, rows))
        await self._ledger.sent([row.id for row in rows])
        self.relayed += len(rows)
        return True

    async def _attempt(self) -> bool:
        held = await while_held(self._ledger, OUTBOX, 0, self._owner, self._ttl_s, self._work)
        if not held:
            self.oldest_ns = None
        return held

    async def _work(self, hold: Hold) -> None:
        """Relay until it is time to end, and for some seconds more what was published last."""
        relaying = asyncio.ensure_future(self._relay())
        asked = asyncio.ensure_future(self._leaving.asked.wait())
        try:
            await asyncio.wait({relaying, asked}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({relaying}, timeout=FLUSH_S)
        finally:
            for task in (relaying, asked):
                task.cancel()
            await asyncio.gather(relaying, asked, return_exceptions=True)
        if not relaying.cancelled():
            relaying.result()

    async def _relay(self) -> None:
        """Return when the outbox is empty and it is time to end."""
        while True:
            while await self.step():  # first, so that what waits is known whatever else fails
                pass
            await self._trim()
            if self._leaving.asked.is_set():
                return
            await self._leaving.within(IDLE_S)

    async def _trim(self) -> None:
        """Let the bus delete what is older than it may keep; a server does that by itself."""
        now = time.monotonic()
        if self._trimmed is not None and now - self._trimmed < TRIM_EVERY_S:
            return
        await self._events.start()
        for partition in range(self._events.partitions):
            await self._events.trim(partition, ())
        self._trimmed = now


def _mapped(row: Event) -> OcsfEvent:
    return lifecycle_event(row.kind, row.key, row.payload, row.at_ns)


class RunningRelay:
    """What `start_relay` started."""

    def __init__(self, relay: Relay) -> None:
        """Start; needs a running event loop."""
        self.relay = relay
        self._task = asyncio.create_task(relay.run(), name="relay")

    async def wait(self) -> None:
        """Return when it has ended; raise what ended it."""
        await asyncio.wait({self._task})
        self._task.result()

    async def stop(self) -> None:
        """Send what is there, release the lease, end. Raises failures. Stopping twice is fine."""
        self.relay.leave()
        await self._task


def start_relay(ledger: Ledger, events: Sink, *, owner: str, lease_s: float) -> RunningRelay:
    """Relay in the background; see `Relay`. Stop it after ingest, so that it sends the last too."""
    return RunningRelay(Relay(ledger, events, owner=owner, ttl_s=lease_s))
