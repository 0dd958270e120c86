"""One partition's worker: lease, read, verify, stage, publish, and again.

Everything that may block or computes for long runs in threads. The only state that matters is the
ledger's: after any failure the worker drops what it has in hand and starts over from there, which
reads the bus again from the position. `docs/spec/ledger.md` has the crash matrix.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sealtape.capture.bus.base import Batch, Bus
from sealtape.ingest.collector import Collector
from sealtape.ingest.cut import Cut
from sealtape.ingest.findings import INLINE_BYTES
from sealtape.ingest.keyring.base import Keyring
from sealtape.ingest.ledger.base import Ledger
from sealtape.ingest.ledger.rows import FragmentRow, HeadChange, Lease, Publish, Quarantined
from sealtape.ingest.parquet import read_leaves
from sealtape.ingest.sealer import Doubt, Limits, Sealer, Taken, decode_all
from sealtape.ingest.stage import BuiltSegment, build_segment
from sealtape.ingest.vault.base import Vault
from sealtape.schemas.errors import (
    Exists,
    Fenced,
    FormatError,
    Missing,
    StoreBusy,
    StoreError,
)
from sealtape.schemas.layout import day_of, manifest_key, quarantine_key, segment_key
from sealtape.schemas.messages import KeyMessage
from sealtape.schemas.notes import Verifier
from sealtape.schemas.segments import BusRange

__all__ = ["CONSUMER", "Consumer", "Stores", "uuid7"]

CONSUMER = "ingest"
"""The name under which ingest marks its position on the bus."""

READ_BYTES = 4 << 20
BACKOFF_S = 1.0
LEAF_CACHE = 64

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stores:
    """What ingest reads from and writes to."""

    bus: Bus
    keyring: Keyring
    vault: Vault
    ledger: Ledger


def uuid7(now_ns: int, random: bytes) -> str:
    """A UUID of version 7 as 32 hex digits: 48 bits of milliseconds, then 10 random bytes."""
    value = (now_ns // 1_000_000 & (1 << 48) - 1) << 80 | int.from_bytes(random[:10], "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return f"{value:032x}"


class Consumer:
    """Claims one partition and seals what comes on it, until told to stop."""

    def __init__(
        self,
        *,
        stores: Stores,
        partition: int,
        owner: str,
        verifiers: Sequence[Verifier] | None,
        limits: Limits,
        ttl_s: float = 30.0,
        clock_ns: Callable[[], int] = time.time_ns,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """`owner` names this worker in leases and records; it must differ between processes."""
        self._stores = stores
        self._partition = partition
        self._owner = owner
        self._verifiers = verifiers
        self._limits = limits
        self._ttl_s = ttl_s
        self._clock_ns = clock_ns
        self._random = random
        self._shard = f"{stores.bus.topic}/{partition}"
        self._leaves: dict[tuple[str, int], list[bytes]] = {}
        self._renewed = 0.0
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Finish: read to the end of the bus, publish what is signed, release the lease."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until `stop`; failures of stores are logged and tried again."""
        while True:
            try:
                if await self.hold():
                    return
                pause = BACKOFF_S
            except StoreBusy as error:
                log.warning("partition %d: %s", self._partition, error)
                pause = error.retry_after_s
            except Fenced as error:
                log.warning("partition %d: %s", self._partition, error)
                pause = BACKOFF_S
            except StoreError:
                log.exception("partition %d", self._partition)
                pause = BACKOFF_S
            if await self._stopped_within(pause):
                return

    async def hold(self) -> bool:
        """Claim, and work while the lease lasts. True when stopped, False when another holds it."""
        ledger, bus = self._stores.ledger, self._stores.bus
        lease = await ledger.claim(bus.topic, self._partition, self._owner, self._ttl_s)
        if lease is None:
            return self._stopping.is_set()
        self._renewed = time.monotonic()
        await Collector(ledger, self._stores.vault).abandon_before(lease)
        known = await ledger.quarantined(bus.topic, self._partition, lease.next_offset)
        sealer = Sealer(
            topic=bus.topic,
            partition=self._partition,
            position=lease.next_offset,
            verifiers=self._verifiers,
            limits=self._limits,
            quarantined=[item.offset for item in known],
        )
        while not self._stopping.is_set():
            await self.step(sealer, lease, wait_s=self._patience_s())
        await self._drain(sealer, lease)
        await ledger.release(lease)
        return True

    async def step(self, sealer: Sealer, lease: Lease, *, wait_s: float) -> None:
        """Read and take one batch, and publish if it is time."""
        batch = await self._read(sealer, wait_s)
        if batch.records:
            await self._take(sealer, batch)
        if sealer.due(self._clock_ns()):
            await self.publish(sealer, lease)
        if time.monotonic() - self._renewed > self._ttl_s / 3:
            await self._stores.ledger.renew(lease, self._ttl_s)
            self._renewed = time.monotonic()

    async def publish(self, sealer: Sealer, lease: Lease, *, everything: bool = False) -> bool:
        """Cut, stage and publish; False when there was nothing to."""
        cut = await asyncio.to_thread(sealer.cut, self._clock_ns(), everything=everything)
        if cut is None:
            return False
        segments, quarantined = await self._stage(cut, lease)
        await self._stores.ledger.publish(
            Publish(
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
        )
        sealer.commit(cut)
        await self._stores.bus.mark(CONSUMER, self._partition, cut.next_offset)
        return True

    # -- in ----------------------------------------------------------------------------------------

    async def _read(self, sealer: Sealer, wait_s: float) -> Batch:
        bus = self._stores.bus
        try:
            return await bus.read(
                self._partition, sealer.read_to, max_bytes=READ_BYTES, wait_s=wait_s
            )
        except Missing:
            first, _ = await bus.bounds(self._partition)
            if first <= sealer.read_to:
                raise
            log.error(  # noqa: TRY400 (not about the exception)
                "partition %d: offsets %d to %d were deleted before they were read",
                self._partition,
                sealer.read_to,
                first - 1,
            )
            sealer.lost(first, self._clock_ns())
            return Batch([], first)

    async def _take(self, sealer: Sealer, batch: Batch) -> None:
        records = [(record.offset, record.key, record.value) for record in batch.records]
        taken = await asyncio.to_thread(decode_all, records, self._belongs)
        names = sealer.unknown(taken)
        if names:
            sealer.load(names, await self._stores.ledger.heads(sorted(names)))
        now_ns = self._clock_ns()
        keys = await asyncio.to_thread(sealer.take, taken, batch.next_offset, now_ns)
        for item in keys:
            await self._keep_key(sealer, item)
        for doubt in list(sealer.doubts):
            sealer.resolve(doubt, await self._sealed_leaf(doubt), now_ns)

    def _belongs(self, session: bytes) -> bool:
        return self._stores.bus.partition_of(session) == self._partition

    async def _keep_key(self, sealer: Sealer, item: Taken) -> None:
        """Put a wrap into the keyring before the position can pass it."""
        message = item.message
        assert isinstance(message, KeyMessage)
        keyring = self._stores.keyring
        try:
            await keyring.put(message)
        except Exists:
            await keyring.dispute(message)
            sealer.key_conflict(item, self._clock_ns())
        except FormatError as error:
            sealer.malformed(item, error, self._clock_ns())

    async def _sealed_leaf(self, doubt: Doubt) -> bytes | None:
        row = doubt.row
        for fragment in await self._stores.ledger.fragments(row.session):
            record = fragment.record
            if record.epoch == row.epoch and record.lo <= row.seq < record.hi:
                return (await self._fragment_leaves(fragment))[row.seq - record.lo]
        return None

    async def _fragment_leaves(self, fragment: FragmentRow) -> list[bytes]:
        name = (fragment.segment_key, fragment.index)
        leaves = self._leaves.get(name)
        if leaves is None:
            data = await self._stores.vault.get(fragment.segment_key)
            leaves = await asyncio.to_thread(read_leaves, data, *fragment.record.rows)
            if len(self._leaves) >= LEAF_CACHE:
                self._leaves.clear()
            self._leaves[name] = leaves
        return leaves

    # -- out ---------------------------------------------------------------------------------------

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
        head = await stores.ledger.shard_head(self._shard)
        bus = BusRange(stores.bus.topic, self._partition, cut.first, cut.next_offset)
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
            await stores.vault.put_new(key, built.data)
            await stores.vault.put_new(manifest_key(key), built.manifest)
            head = built.after
            segments.append(built)
        kept = [replace(item, data=b"") if item.key else item for item in quarantined]
        return segments, kept

    def _new_id(self, cut: Cut) -> str:
        return uuid7(cut.now_ns, self._random(10))

    # -- time --------------------------------------------------------------------------------------

    def _patience_s(self) -> float:
        return min(self._limits.segment_ns, self._limits.idle_ns) / 4e9

    async def _drain(self, sealer: Sealer, lease: Lease) -> None:
        read_to = -1
        while sealer.read_to != read_to:
            read_to = sealer.read_to
            await self.step(sealer, lease, wait_s=0.0)
        await self.publish(sealer, lease)

    async def _stopped_within(self, pause_s: float) -> bool:
        try:
            await asyncio.wait_for(self._stopping.wait(), pause_s)
        except TimeoutError:
            return False
        return True
