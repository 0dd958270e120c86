"""The watch over tails: what `heartbeats` finds becomes an incident by the log's inbox.

Each indexer watches the sessions of the workers whose journals are in its own lanes. What is told
stands in the ledger's incidents, so no other process tells it again.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sealtape.capture.bus import Bus
from sealtape.indexer.heartbeats import EndRule, MissingTail, Open, TailRule, heartbeats, listed
from sealtape.ingest.ledger import Ledger
from sealtape.ingest.tlog.gate import INCIDENT
from sealtape.ingest.tlog.silence import Reach
from sealtape.ingest.tlog.summary import Worker
from sealtape.schemas.bodies import parse_open
from sealtape.schemas.errors import StoreError
from sealtape.schemas.tlog.records import BusPlace, LogIncident, encode_entry

__all__ = ["TAIL_MISSING", "TailWatch"]

TAIL_MISSING: Final = "tail_missing"
TOPIC: Final = "heartbeats"
"""The topic of these incidents: they stand nowhere on the bus."""
LOOK_S: Final = 5.0
LIVE: Final = "live"
HORIZON_NS: Final = 86_400_000_000_000
"""A heartbeat that is older says nothing: its sessions may be deleted by now."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Opened:
    """What the OPEN of an epoch says of whose it is."""

    worker: Worker
    number: int
    journal: bool


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
        self._ends = EndRule(missing_s)
        self._opened: dict[tuple[bytes, int], _Opened] = {}
        self._reach = Reach(2 * missing_s + 60.0)
        self._every_s = min(LOOK_S, max(missing_s / 4, 0.05))
        self._ends_s = missing_s / 10  # all live sessions are read for it, so not with each look
        self._ends_at = -math.inf
        self._monotonic = monotonic
        self._clock_ns = clock_ns
        self._last_ns = 0

    def take(self, journal: bytes, body: bytes, ts_ns: int) -> None:
        """Facts of a journal, which is a session too."""
        if self._clock_ns() - ts_ns < HORIZON_NS:
            beats, now = heartbeats(body, ts_ns), self._monotonic()
            self._rule.note(listed(beats), now)
            for beat in beats:
                self._ends.note(journal, beat, now)

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
        found = self._rule.look(lambda name: heads[name].hi if name in heads else 0, self._reached)
        if now - self._ends_at >= self._ends_s:
            found += await self._ended()
            self._ends_at = now
        return [tail for tail in found if await self._tell(tail)]

    def _reached(self, session: bytes) -> float:
        return self._reach.of(self._bus.partition_of(session))

    async def _ended(self) -> list[MissingTail]:
        """Sessions that their nodes list no more, and that are live as far as they are sealed."""
        if not self._ends.rolls:
            return []
        names = self._ends.look(await self._live(), self._reached)
        heads = await self._ledger.heads(names)
        # How long it was its node does not say any more: the end at least is missing.
        return [MissingTail(*name, head.hi, head.hi + 1) for name, head in sorted(heads.items())]

    async def _live(self) -> list[Open]:
        """All live sessions of workers whose journal is live too."""
        opened: dict[tuple[bytes, int], _Opened] = {}
        async for row in self._ledger.sessions(state=LIVE):
            name = (row.session, row.epoch)
            known = self._opened.get(name) or await self._opening(name)
            if known is not None:
                opened[name] = known
        self._opened = opened
        journals = {each.worker: name[0] for name, each in opened.items() if each.journal}
        return [
            Open(*name, each.number, journals[each.worker])
            for name, each in opened.items()
            if each.worker in journals and not each.journal
        ]

    async def _opening(self, name: tuple[bytes, int]) -> _Opened | None:
        head = (await self._ledger.heads([name])).get(name)
        if head is None:
            return None  # it went on into another epoch meanwhile
        found, _ = parse_open(head.opening, None)
        worker = (found.node, found.boot, found.worker)
        return _Opened(worker, found.number, found.type == "journal")

    async def _tell(self, tail: MissingTail) -> bool:
        """Submit it, unless that was done before."""
        rows = await self._ledger.incidents(0, tail.session)
        known = any(row.reason == TAIL_MISSING and row.epoch == tail.epoch for row in rows)
        if not known:
            log.error(
                "%s: session %s epoch %d had at least %d frames at its node, and %d came",
                TAIL_MISSING,
                tail.session.hex(),
                tail.epoch,
                tail.size,
                tail.head,
            )
            await self._ledger.submit(INCIDENT, encode_entry(self._incident(tail)))
        self._rule.tell(tail)
        self._ends.tell((tail.session, tail.epoch))
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
