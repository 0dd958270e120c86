"""The watch over tails: what `heartbeats` finds becomes an incident by the log's inbox.

Each indexer watches the sessions that the journals of its own lanes list. What is told stands in
the ledger's incidents, so no other process tells it again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from sealtape.capture.bus import Bus
from sealtape.indexer.heartbeats import MissingTail, TailRule, listed
from sealtape.ingest.ledger import Ledger
from sealtape.ingest.tlog.gate import INCIDENT
from sealtape.ingest.tlog.silence import Reach
from sealtape.schemas.errors import StoreError
from sealtape.schemas.tlog.records import BusPlace, LogIncident, encode_entry

__all__ = ["TAIL_MISSING", "TailWatch"]

TAIL_MISSING: Final = "tail_missing"
TOPIC: Final = "heartbeats"
"""The topic of these incidents: they stand nowhere on the bus."""
LOOK_S: Final = 5.0
HORIZON_NS: Final = 86_400_000_000_000
"""A heartbeat that is older says nothing: its sessions may be deleted by now."""

log = logging.getLogger(__name__)


class TailWatch:
    """Compares what journals list with the ledger's heads."""

    def __init__(
        self,
        ledger: Ledger,
        bus: Bus,
        missing_s: float,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """The stores stay the caller's; `missing_s` is as in `log.missing_s`."""
        self._ledger = ledger
        self._bus = bus
        self._rule = TailRule(missing_s)
        self._reach = Reach(2 * missing_s + 60.0)
        self._every_s = min(LOOK_S, max(missing_s / 4, 0.05))
        self._monotonic = monotonic
        self._clock_ns = clock_ns
        self._last_ns = 0

    def take(self, body: bytes, ts_ns: int) -> None:
        """Facts of a journal."""
        if self._clock_ns() - ts_ns < HORIZON_NS:
            self._rule.note(listed(body, ts_ns), self._monotonic())

    async def run(self) -> None:
        """Look again and again until cancelled; failures of stores are logged and tried again."""
        while True:
            try:
                await self.once()
            except StoreError as error:
                log.warning("missing tails are looked for again: %s", error)
            await asyncio.sleep(self._every_s)

    async def once(self) -> list[MissingTail]:
        """Look, and submit what is missing; returns what was submitted. Raises StoreError."""
        now = self._monotonic()
        for partition in range(self._bus.partitions):
            # The position first: what comes in between is behind the end, never before it.
            position = await self._ledger.position(self._bus.topic, partition)
            _, end = await self._bus.bounds(partition)
            self._reach.note(partition, position, end, now)
        heads = await self._ledger.heads(self._rule.waiting())
        found = self._rule.look(
            lambda name: heads[name].hi if name in heads else 0,
            lambda session: self._reach.of(self._bus.partition_of(session)),
        )
        return [tail for tail in found if await self._tell(tail)]

    async def _tell(self, tail: MissingTail) -> bool:
        """Submit it, unless that was done before."""
        rows = await self._ledger.incidents(0, tail.session)
        known = any(row.reason == TAIL_MISSING and row.epoch == tail.epoch for row in rows)
        if not known:
            log.error(
                "%s: session %s epoch %d had %d frames at its node, and %d came",
                TAIL_MISSING,
                tail.session.hex(),
                tail.epoch,
                tail.size,
                tail.head,
            )
            await self._ledger.submit(INCIDENT, encode_entry(self._incident(tail)))
        self._rule.tell(tail)
        return not known

    def _incident(self, tail: MissingTail) -> LogIncident:
        self._last_ns = max(self._clock_ns(), self._last_ns + 1)  # its place: no two have one
        return LogIncident(
            at_ns=self._last_ns,
            reason=TAIL_MISSING,
            bus=BusPlace(TOPIC, self._bus.partition_of(tail.session), self._last_ns),
            session=tail.session,
            epoch=tail.epoch,
            seq=tail.head,
        )
