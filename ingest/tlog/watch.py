"""The watch: nodes that fell silent, sessions that never arrived.

It reads the ledger and where the bus ends, and publishes what it finds under the lease ("watch",
0): an incident, and the sessions that are `incomplete` with it. It works beside the log's worker,
also while the vault is away.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from sealtape.capture.bus import Bus
from sealtape.ingest.crew import Hold, Leaving, persist, while_held
from sealtape.ingest.cut import incident_event
from sealtape.ingest.findings import REASONS
from sealtape.ingest.ledger.rows import Incident, Lease, Publish, SessionRow
from sealtape.ingest.tlog.derive import place_after
from sealtape.ingest.tlog.kept import PAGE, recall
from sealtape.ingest.tlog.parts import LogParts
from sealtape.ingest.tlog.silence import (
    Live,
    Missing,
    MissingRule,
    Reach,
    SilenceRule,
    Silent,
)
from sealtape.ingest.tlog.summary import Hole, LogSummary
from sealtape.schemas.bodies import parse_open

__all__ = ["WATCH", "Look", "Watch"]

WATCH: Final = "watch"
"""The topic of the watch's lease and incidents; its only partition is 0."""
LOOK_S: Final = 5.0
"""Longest time between two looks."""
LIVE: Final = "live"
SILENT: Final = "node_silent"
MISSING: Final = "session_missing"

log = logging.getLogger(__name__)


class Watch:
    """Watches while it holds the lease, waits for it while another process does."""

    def __init__(self, parts: LogParts, bus: Bus, *, owner: str, ttl_s: float = 15.0) -> None:
        """Take the stores, which stay the caller's to close. `owner` is this process's name."""
        self._parts = parts
        self._bus = bus
        self._owner = owner
        self._ttl_s = ttl_s
        self._leaving = Leaving()

    async def run(self) -> None:
        """Watch until `leave`; failures of stores are logged and tried again."""
        await persist(self._attempt, self._leaving, "watching nodes")

    def leave(self) -> None:
        """End `run`."""
        self._leaving.ask(0.0)

    async def _attempt(self) -> bool:
        ledger = self._parts.ledger
        return await while_held(ledger, WATCH, 0, self._owner, self._ttl_s, self._work)

    async def _work(self, hold: Hold) -> None:
        parts = self._parts
        look = Look(parts, self._bus, hold.lease)
        every_s = min(LOOK_S, parts.pace.silent_s / 4)
        while not self._leaving.asked.is_set():
            await look.once(parts.monotonic(), parts.clock_ns())
            await self._leaving.within(every_s)


class Look:
    """What the watch remembers while it holds the lease."""

    def __init__(self, parts: LogParts, bus: Bus, lease: Lease) -> None:
        """Begin to look: what was before counts as seen now."""
        pace = parts.pace
        self._ledger = parts.ledger
        self._vault = parts.vault
        self._bus = bus
        self._lease = lease
        self._position = lease.next_offset
        self._reach = Reach(2 * max(pace.silent_s, pace.missing_s) + 60.0)
        self._silence = SilenceRule(pace.silent_s)
        self._missing = MissingRule(pace.missing_s)
        self._known: dict[tuple[bytes, int], Live] = {}
        self._summary: LogSummary | None = None

    async def once(self, now: float, now_ns: int) -> None:
        """Look, and publish what was found. Raises StoreError."""
        for partition in range(self._bus.partitions):
            # The position first: what comes in between is behind the end, never before it.
            position = await self._ledger.position(self._bus.topic, partition)
            _, end = await self._bus.bounds(partition)
            self._reach.note(partition, position, end, now)
        live = [await self._live(row) async for row in self._ledger.sessions(state=LIVE)]
        self._known = {(row.session, row.epoch): row for row in live}
        silent = self._silence.look(live, self._reach.of, now)
        missing = await self._holes(now)
        if silent or missing:
            await self._publish(silent, missing, now_ns)

    async def _live(self, row: SessionRow) -> Live:
        """What is known of a live session: who brings it, from the OPEN of its last epoch."""
        known = self._known.get((row.session, row.epoch))
        if known is not None:
            worker, journal = known.worker, known.journal
        else:
            heads = await self._ledger.heads([(row.session, row.epoch)])
            opening, _ = parse_open(heads[row.session, row.epoch].opening, None)
            worker = (opening.node, opening.boot, opening.worker)
            journal = opening.type == "journal"
        return Live(
            session=row.session,
            epoch=row.epoch,
            frames=row.frames,
            revision=row.revision,
            journal=journal,
            worker=worker,
            partition=self._bus.partition_of(row.session),
        )

    # -- numbers -----------------------------------------------------------------------------------

    async def _holes(self, now: float) -> list[Missing]:
        """Follow the log's entries, and find numbers that are missing long enough."""
        state = await self._ledger.log_state()
        if not state.number:
            return []
        summary = self._summary
        if summary is None or summary.number != state.number:
            summary, _ = await recall(self._ledger, self._vault, state)
            self._summary = summary
        while entries := await self._ledger.log_entries(summary.number, summary.size, PAGE):
            for item in entries:
                summary.take(item.entry)
        found = self._missing.look(summary.holes(), self._reach.everywhere(), now)
        return [item for item in found if not await self._told(item)]

    async def _told(self, item: Missing) -> bool:
        """Whether another process, or this one in an earlier life, has told it."""
        hole = item.hole
        for row in await self._ledger.incidents(0, hole.session):
            # It names the first of all that its session passed; some of them may have come since.
            if row.reason == MISSING and row.epoch == hole.epoch and row.seq <= hole.lo:
                self._missing.tell(item.worker, hole)
                return True
        return False

    # -- what was found ----------------------------------------------------------------------------

    async def _publish(
        self, silent: Sequence[Silent], missing: Sequence[Missing], now_ns: int
    ) -> None:
        """One transaction: incidents, and the sessions that are incomplete with them."""
        first = place_after(self._position, now_ns)
        incidents = [_silent(item, now_ns) for item in silent]
        incidents += [_missing(item.hole, now_ns) for item in missing]
        placed = tuple(
            replace(incident, offset=first + place) for place, incident in enumerate(incidents)
        )
        for incident in placed:
            log.error("%s: %s", incident.reason, incident.detail)
        await self._ledger.publish(
            Publish(
                lease=self._lease,
                first=self._position,
                next_offset=first + len(placed),
                shard=WATCH,
                at_ns=now_ns,
                incidents=placed,
                events=tuple(map(incident_event, placed)),
                silent=tuple(session for item in silent for session in item.sessions),
            )
        )
        self._position = first + len(placed)
        for item in missing:
            self._missing.tell(item.worker, item.hole)


def _silent(item: Silent, now_ns: int) -> Incident:
    node, _, worker = item.worker
    return Incident(
        topic=WATCH,
        partition=0,
        offset=0,
        reason=SILENT,
        detail=f"{REASONS[SILENT]} It is {node}, worker {worker}, with {len(item.sessions)}.",
        session=item.sign.session,
        epoch=item.sign.epoch,
        seq=item.sign.frames,
        at_ns=now_ns,
    )


def _missing(hole: Hole, now_ns: int) -> Incident:
    return Incident(
        topic=WATCH,
        partition=0,
        offset=0,
        reason=MISSING,
        detail=f"Numbers {hole.lo} to {hole.hi - 1} before this session's never came.",
        session=hole.session,
        epoch=hole.epoch,
        seq=hole.lo,
        at_ns=now_ns,
    )
