"""The relay: lifecycle events out of the ledger's outbox onto the events bus, at least once.

One relay works at a time, whoever holds the lease `("outbox", 0)`. An event leaves the outbox only
when the events bus has it, so a crash between the two sends it twice, under the same id
(docs/spec/events.md). While the bus is away events wait in the outbox; sealing does not wait.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from contextlib import suppress

from sealtape.capture.bus import Bus
from sealtape.ingest.ledger import Ledger
from sealtape.ingest.ledger.rows import Event, Lease
from sealtape.schemas.errors import StoreBusy, StoreError
from sealtape.schemas.ocsf import OcsfEvent, lifecycle_event

__all__ = ["OUTBOX", "Relay", "append_events"]

OUTBOX = "outbox"
"""The topic of the relay's lease; its only partition is 0."""
BATCH = 500
IDLE_S = 0.5
FLUSH_S = 5.0
TRIM_EVERY_S = 600.0
_RETRY_S = (0.5, 10.0)

log = logging.getLogger(__name__)


async def append_events(bus: Bus, events: Iterable[OcsfEvent]) -> None:
    """Put events on the bus; those with one route keep their order. Raises StoreError."""
    lanes: dict[int, list[tuple[bytes, bytes]]] = {}
    for event in events:
        lane = lanes.setdefault(bus.partition_of(event.route), [])
        lane.append((event.key, event.to_json()))
    for partition, messages in sorted(lanes.items()):
        await bus.append(partition, messages)


class Relay:
    """Relays while it holds the lease, waits for it while another process does."""

    def __init__(self, ledger: Ledger, events: Bus, *, owner: str, ttl_s: float = 15.0) -> None:
        """Take the stores, which stay the caller's to close. `owner` is this process's name."""
        self.relayed = 0
        """Events sent since the start; one that was sent twice counts twice."""
        self._ledger = ledger
        self._events = events
        self._owner = owner
        self._ttl_s = ttl_s
        self._renewed = 0.0
        self._trimmed = 0.0
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Work until `stop`; failures of stores are logged and tried again."""
        delay = _RETRY_S[0]
        while not self._stopping.is_set():
            pause = self._ttl_s / 3
            try:
                await self._hold()
                delay = _RETRY_S[0]
            except StoreError as error:
                log.warning("events wait in the outbox: %s", error)
                pause = error.retry_after_s if isinstance(error, StoreBusy) else delay
                delay = min(2 * delay, _RETRY_S[1])
            await self._pause(pause)

    def stop(self) -> None:
        """End `run`, after one more try to send what is there."""
        self._stopping.set()

    async def _hold(self) -> None:
        """Relay while the lease lasts; return when another holds it, or when stopped."""
        lease = await self._ledger.claim(OUTBOX, 0, self._owner, self._ttl_s)
        if lease is None:
            return
        self._renewed = time.monotonic()
        try:
            while not self._stopping.is_set():
                await self._keep(lease)
                await self._trim()
                if not await self.step():
                    await self._pause(IDLE_S)
            # What ingest published last, while it was asked to end too.
            with suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_S):
                    while await self.step():
                        pass
        finally:
            await self._ledger.release(lease)

    async def step(self) -> bool:
        """Send what the outbox has next; False when it is empty."""
        rows = await self._ledger.outbox(limit=BATCH)
        if not rows:
            return False
        await self._events.start()
        await append_events(self._events, map(_mapped, rows))
        await self._ledger.sent([row.id for row in rows])
        self.relayed += len(rows)
        return True

    async def _keep(self, lease: Lease) -> None:
        if time.monotonic() - self._renewed > self._ttl_s / 3:
            await self._ledger.renew(lease, self._ttl_s)
            self._renewed = time.monotonic()

    async def _trim(self) -> None:
        """Let the bus delete what is older than it may keep; a server does that by itself."""
        if self._trimmed and time.monotonic() - self._trimmed < TRIM_EVERY_S:
            return
        await self._events.start()
        for partition in range(self._events.partitions):
            await self._events.trim(partition, ())
        self._trimmed = time.monotonic()

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)


def _mapped(row: Event) -> OcsfEvent:
    return lifecycle_event(row.kind, row.key, row.payload, row.at_ns)
