"""One partition's worker: lease, read, verify, stage, publish, and again.

Everything that may block or computes for long runs in threads. The only state that matters is the
ledger's: after any failure the worker drops what it has in hand and starts over from there, which
reads the bus again from the position. `docs/spec/ledger.md` has the crash matrix.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar

from sealtape.capture.bus.base import Batch
from sealtape.ingest.collector import Collector
from sealtape.ingest.crew import Hold, Leaving, persist, while_held
from sealtape.ingest.cut import Cut, incident_event
from sealtape.ingest.findings import INLINE_BYTES, REASONS
from sealtape.ingest.intake import Intake, Stores
from sealtape.ingest.ledger.rows import HeadChange, Incident, Lease, Publish, Quarantined
from sealtape.ingest.sealer import SECOND_NS, Limits, Sealer
from sealtape.ingest.snapshot import Arrivals, Counts, PartitionSnapshot, RetentionWatch
from sealtape.ingest.stage import BuiltSegment, build_segment
from sealtape.schemas.errors import Fenced, Missing, StoreBusy, StoreError
from sealtape.schemas.frames import MAX_SEQ
from sealtape.schemas.layout import day_of, manifest_key, quarantine_key, segment_key
from sealtape.schemas.notes import Verifier
from sealtape.schemas.segments import BusRange

__all__ = ["CONSUMER", "INDEXER", "Consumer", "KeyConsumer", "Stores", "uuid7"]

CONSUMER = "ingest"
"""The name under which ingest marks its position on the bus."""
INDEXER = "indexer"
"""The name under which the indexer marks its own; what both have passed may be deleted there."""

READ_BYTES = 4 << 20
LOOK_S = 2.0
"""Time between two looks at the bus's end while there is a backlog."""
CUT_S = 30.0
"""How long a bus must end too early to be believed: a new leader may not know its end at first."""
MS = 1_000_000
LOGGED = 20
"""Incidents of one publication that are logged one by one."""

log = logging.getLogger(__name__)


def _tell(incidents: Sequence[Incident]) -> None:
    """Log what was found wrong; all of it is in the ledger."""
    for incident in incidents[:LOGGED]:
        fields = {"reason": incident.reason, "epoch": incident.epoch, "seq": incident.seq}
        place = {"partition": incident.partition, "offset": incident.offset}
        session = {"session": incident.session.hex()}
        log.warning("incident: %s", incident.detail, extra=session | fields | place)
    if len(incidents) > LOGGED:
        log.warning("%d more incidents were published with these", len(incidents) - LOGGED)


def uuid7(now_ns: int, random: bytes) -> str:
    """A UUID of version 7 as 32 hex digits: 48 bits of milliseconds, then 10 random bytes."""
    value = (now_ns // 1_000_000 & (1 << 48) - 1) << 80 | int.from_bytes(random[:10], "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return f"{value:032x}"


class Consumer:
    """Claims one partition and seals what comes on it, until told to leave."""

    keys_only: ClassVar[bool] = False
    """Whether it works on the keys' own bus, where nothing is sealed."""

    def __init__(
        self,
        *,
        stores: Stores,
        partition: int,
        owner: str,
        verifiers: Sequence[Verifier] | None,
        limits: Limits,
        ttl_s: float = 30.0,
        counts: Counts | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """`owner` names this worker in leases and records; it must differ between processes."""
        bus = stores.keys if self.keys_only else stores.bus
        assert bus is not None
        self._bus = bus
        self._stores = stores
        self._partition = partition
        self._owner = owner
        self._verifiers = verifiers
        self._limits = limits
        self._ttl_s = ttl_s
        self._counts = counts or Counts()
        self._clock_ns = clock_ns
        self._random = random
        self._intake = Intake(stores, partition, clock_ns=clock_ns, keys_only=self.keys_only)
        self._leaving = Leaving()
        self._held: tuple[Lease, Sealer] | None = None
        self._arrivals = Arrivals()
        self._retention = RetentionWatch()
        self._end = 0
        self._looked = -math.inf
        self._short_since: float | None = None

    @property
    def place(self) -> tuple[str, int]:
        """Topic and partition."""
        return self._bus.topic, self._partition

    def leave(self, read_s: float | None = None) -> None:
        """Finish: read on for at most `read_s`, publish what is signed, release the lease.

        0.0 reads nothing more; None reads to the end of the bus.
        """
        self._leaving.ask(read_s)

    def snapshot(self) -> PartitionSnapshot | None:
        """How far it is; None while another holds the partition."""
        if self._held is None:
            return None
        lease, sealer = self._held
        return PartitionSnapshot(
            topic=lease.topic,
            partition=lease.partition,
            term=lease.term,
            position=sealer.first,
            read_to=sealer.read_to,
            end=max(self._end, sealer.read_to),
            oldest_ms=self._arrivals.oldest_ms,
            retention_half=self._retention.half,
            retention_s=self._bus.retention_s,
        )

    async def run(self) -> None:
        """Work until `leave`; failures of stores are logged and tried again."""
        await persist(self._counted_hold, self._leaving, f"{self._bus.topic}/{self._partition}")

    async def _counted_hold(self) -> bool:
        try:
            return await self.hold()
        except Fenced:
            self._counts.fenced += 1
            raise
        except StoreError:
            self._counts.failures += 1
            raise

    async def hold(self) -> bool:
        """Claim, and work while the lease lasts. True when told to leave, False: another has it."""
        topic, partition = self.place
        ledger = self._stores.ledger
        return await while_held(ledger, topic, partition, self._owner, self._ttl_s, self._work)

    async def _work(self, hold: Hold) -> None:
        lease = hold.lease
        await Collector(self._stores.ledger, self._stores.vault).abandon_before(lease)
        known = await self._stores.ledger.quarantined(*self.place, lease.next_offset)
        sealer = Sealer(
            topic=lease.topic,
            partition=lease.partition,
            position=lease.next_offset,
            verifiers=self._verifiers,
            limits=self._limits,
            quarantined=[(item.offset, item.sha256) for item in known],
            anew=await self._anew(),
        )
        self._arrivals = Arrivals()
        self._held = lease, sealer
        try:
            await self._check_topic(sealer, lease)
            while not self._leaving.asked.is_set():
                await self._step(sealer, lease, wait_s=self._patience_s())
            await self._drain(sealer, lease)
        finally:
            self._held = None
            self._counts.duplicates += sealer.duplicates

    async def _anew(self) -> int:
        """The lowest offset at which this bus was ever cut off."""
        cuts = await self._stores.ledger.incidents(session=b"", reason="bus_cut")
        here = [item.offset for item in cuts if (item.topic, item.partition) == self.place]
        return min(here, default=MAX_SEQ)

    async def _step(self, sealer: Sealer, lease: Lease, *, wait_s: float) -> None:
        """Read and take one batch, and publish if it is time."""
        batch = await self._read(sealer, lease, wait_s)
        if batch.records:
            self._arrivals.add(batch.records[0].offset, batch.records[0].ts_ms)
            await self._intake.take(sealer, batch)
        await self._look(sealer, lease)
        if sealer.due(self._clock_ns()):
            await self._publish(sealer, lease)

    async def _drain(self, sealer: Sealer, lease: Lease) -> None:
        read_s = self._leaving.read_s
        until = math.inf if read_s is None else time.monotonic() + read_s
        read_to = -1
        while sealer.read_to != read_to and time.monotonic() < until:
            read_to = sealer.read_to
            await self._step(sealer, lease, wait_s=0.0)
        await self._publish(sealer, lease)

    # -- in ----------------------------------------------------------------------------------------

    async def _read(self, sealer: Sealer, lease: Lease, wait_s: float) -> Batch:
        at = sealer.read_to
        try:
            batch = await self._bus.read(self._partition, at, max_bytes=READ_BYTES, wait_s=wait_s)
        except Missing:
            first, end = await self._bus.bounds(self._partition)
            if end < at:
                return await self._ends_early(sealer, lease, end, wait_s)
            if first <= at:
                raise
            log.error(  # noqa: TRY400 (not about the exception)
                "%s/%d: offsets %d to %d were deleted before they were read",
                *self.place,
                at,
                first - 1,
            )
            sealer.lost(first, self._clock_ns())
            batch = Batch([], first)
        self._short_since = None
        return batch

    async def _ends_early(self, sealer: Sealer, lease: Lease, end: int, wait_s: float) -> Batch:
        """Go on from the bus's end, once it is sure that it lies before what was read."""
        now = time.monotonic()
        if self._short_since is None:
            self._short_since = now
            log.error(
                "%s/%d ends at %d, and %d was reached already: it was cut off, or is an old copy",
                *self.place,
                end,
                sealer.read_to,
            )
        if now - self._short_since < CUT_S:
            await self._leaving.within(max(wait_s, 0.01))
            return Batch([], sealer.read_to)
        # What was read and is no longer there is sealed now, signed or not, or put into quarantine:
        # it does not come again.
        await self._publish(sealer, lease, end=end)
        detail = f"The bus ends at {end}, and {sealer.read_to} was reached already."
        await self._announce(sealer, lease, "bus_cut", detail, offset=end)
        self._short_since = None
        raise StoreBusy(f"Reading goes on from offset {end}.", retry_after_s=0.1)

    # -- looking around ----------------------------------------------------------------------------

    async def _look(self, sealer: Sealer, lease: Lease) -> None:
        """Know where the bus ends, and say so when what is unread will be deleted before long."""
        if time.monotonic() - self._looked > LOOK_S:
            self._looked = time.monotonic()
            _, self._end = await self._bus.bounds(self._partition)
        now_ms, kept_s = self._clock_ns() // MS, self._bus.retention_s
        if self._retention.look(self._arrivals.oldest_ms, now_ms, kept_s):
            await self._announce(sealer, lease, "retention_half", REASONS["retention_half"])
            self._retention.told = True

    async def _check_topic(self, sealer: Sealer, lease: Lease) -> None:
        """Say so when there was another topic of the same name before this one."""
        name, _, identity = lease.topic.partition("@")
        if lease.next_offset or not identity:
            return
        known = {
            topic
            for topic, part in await self._stores.ledger.positions()
            if part == lease.partition
        }
        for topic in sorted(known - {lease.topic}):
            if topic.partition("@")[0] == name:
                detail = f"{REASONS['topic_recreated']} Before it was {topic}."
                await self._announce(sealer, lease, "topic_recreated", detail)

    async def _announce(
        self, sealer: Sealer, lease: Lease, reason: str, detail: str, *, offset: int = MAX_SEQ
    ) -> None:
        """Publish an incident of the partition by itself: it must not wait for the vault.

        Reading goes on at `offset`, if that is below the position.
        """
        log.error("%s/%d: %s", *self.place, detail)
        now_ns = self._clock_ns()
        at = sealer.first if offset == MAX_SEQ else offset
        incident = Incident(*self.place, at, reason, detail, b"", -1, -1, now_ns)
        publication = Publish(
            lease=lease,
            first=sealer.first,
            next_offset=min(sealer.first, offset),
            shard=self._shard,
            at_ns=now_ns,
            incidents=(incident,),
            events=(incident_event(incident),),
        )
        await self._stores.ledger.publish(publication)
        self._counts.incidents[reason] += 1

    # -- out ---------------------------------------------------------------------------------------

    async def _publish(self, sealer: Sealer, lease: Lease, *, end: int | None = None) -> None:
        """Cut, stage and publish, if there is anything; of a bus that was cut off at `end`, all."""
        everything, end = end is not None, MAX_SEQ if end is None else end
        cut = await asyncio.to_thread(sealer.cut, self._clock_ns(), everything=everything, end=end)
        if cut is None:
            return
        segments, quarantined = await self._stage(cut, lease)
        await self._stores.ledger.publish(self._publication(cut, lease, segments, quarantined))
        sealer.commit(cut)
        self._count(cut, sealer)
        await self._bus.mark(CONSUMER, self._partition, cut.next_offset)

    def _publication(
        self,
        cut: Cut,
        lease: Lease,
        segments: Sequence[BuiltSegment],
        quarantined: Sequence[Quarantined],
    ) -> Publish:
        return Publish(
            lease=lease,
            first=cut.first,
            next_offset=cut.next_offset,
            shard=self._shard,
            at_ns=cut.now_ns,
            segments=tuple(built.sealed for built in segments),
            objects=tuple(item.key for item in quarantined if item.key),
            heads=tuple(
                HeadChange(None if c.before is None else c.before.digest(), c.head)
                for c in cut.changes
            ),
            sessions=tuple(change.change for change in cut.changes),
            incidents=tuple(cut.incidents),
            quarantined=tuple(quarantined),
            events=(*(built.event for built in segments), *cut.events),
        )

    async def _stage(self, cut: Cut, lease: Lease) -> tuple[list[BuiltSegment], list[Quarantined]]:
        """Announce all objects, then create them; nothing counts until it is published."""
        stores = self._stores
        day = day_of(cut.now_ns)
        keys = [
            segment_key(group.tenant, group.retention.name, day, self._new_id(cut), lease.term)
            for group in cut.groups
        ]
        quarantined = [
            replace(item, key=quarantine_key("main", day, self._new_id(cut)))
            if item.size > INLINE_BYTES
            else item
            for item in cut.quarantined
        ]
        large = [item for item in quarantined if item.key]
        if keys or large:
            await stores.ledger.stage(lease, [*keys, *(item.key for item in large)])
        for item in large:
            await stores.vault.put_new(item.key, item.data)
        segments = await self._put_segments(cut, keys) if keys else []
        kept = [replace(item, data=b"") if item.key else item for item in quarantined]
        return segments, kept

    async def _put_segments(self, cut: Cut, keys: Sequence[str]) -> list[BuiltSegment]:
        stores = self._stores
        head = await stores.ledger.shard_head(self._shard)
        bus = BusRange(*self.place, cut.first, cut.next_offset)
        segments = []
        for key, group in zip(keys, cut.groups, strict=True):
            built = await asyncio.to_thread(
                build_segment,
                group,
                key=key,
                shard=self._shard,
                head=head,
                bus=bus,
                sealed_at_ns=cut.now_ns,
                writer=self._owner,
            )
            # At least its class's term, counted from now: no session of it is sealed before.
            until_ns = cut.now_ns + group.retention.retain_for_s * SECOND_NS
            vault = stores.vault
            await vault.put_new(key, built.data, retain_until_ns=until_ns)
            await vault.put_new(manifest_key(key), built.manifest, retain_until_ns=until_ns)
            head = built.after
            # The vault has them: they are not to wait in memory for a ledger that is away.
            segments.append(replace(built, data=memoryview(b""), manifest=b""))
        return segments

    def _count(self, cut: Cut, sealer: Sealer) -> None:
        counts = self._counts
        counts.segments += len(cut.groups)
        counts.frames += sum(change.change.frames for change in cut.changes)
        counts.bytes += sum(change.change.bytes for change in cut.changes)
        counts.quarantined += len(cut.quarantined)
        counts.incidents.update(incident.reason for incident in cut.incidents)
        _tell(cut.incidents)
        now_ms = self._clock_ns() // MS
        for ts_ms in self._arrivals.pass_to(sealer.first, sealer.read_to):
            counts.sealed_s.observe(max(0, now_ms - ts_ms) / 1000)

    @property
    def _shard(self) -> str:
        return f"{self._bus.topic}/{self._partition}"

    def _new_id(self, cut: Cut) -> str:
        return uuid7(cut.now_ns, self._random(10))

    def _patience_s(self) -> float:
        return min(self._limits.segment_ns, self._limits.idle_ns) / 4e9


class KeyConsumer(Consumer):
    """Puts what comes on one partition of the keys' own bus into the keyring."""

    keys_only = True
