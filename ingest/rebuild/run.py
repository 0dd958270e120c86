"""`sealtape ledger rebuild`: publish again what was published, into an empty ledger.

Everything goes through the ledger's port, so that every adapter is filled the same way, with all of
its comparisons: a vault that does not fit together is refused, not guessed at.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256

from sealtape.capture.bus.base import Bus
from sealtape.ingest.consumer import uuid7
from sealtape.ingest.findings import INLINE_BYTES
from sealtape.ingest.ledger.base import Ledger
from sealtape.ingest.ledger.rows import (
    HeadChange,
    Incident,
    Lease,
    Publish,
    Quarantined,
    SealedSegment,
)
from sealtape.ingest.rebuild.chains import Chains, Link, chain_up, publications
from sealtape.ingest.rebuild.derive import Name, Pace, Remark, breaks_off, derive, remarks_of
from sealtape.ingest.rebuild.log import FoundLog, LogRebuild, has_log, place_of
from sealtape.ingest.rebuild.objects import Leaves, Segment, list_vault, read_segment
from sealtape.ingest.rebuild.reread import Found, Reread
from sealtape.ingest.tlog.writer import LOG
from sealtape.ingest.vault.base import Vault
from sealtape.schemas.errors import StoreBusy, StoreCorrupt, StoreError
from sealtape.schemas.layout import day_of, quarantine_key
from sealtape.schemas.notes import Verifier

__all__ = ["Rebuilt", "rebuild_ledger"]

OWNER = "rebuild"
LEASE_S = 60.0
QUARANTINE_PREFIX = "quarantine/v1/"
_CHUNK = 5000


@dataclass(slots=True)
class Rebuilt:
    """What a rebuild put into the ledger, and what it did not know what to do with.

    Attributes:
        entries: those of the log, in all its shards.
        left: keys in the vault that were never published, as far as the chains tell.
        positions: where ingest will read on, by (topic, partition).
        unplaced: epochs whose place on the bus is not known exactly, since the bus has not kept all
            their frames. Ingest looks at a repeated message of theirs more closely than it must.
    """

    shards: int = 0
    segments: int = 0
    frames: int = 0
    bytes: int = 0
    incidents: int = 0
    quarantined: int = 0
    unplaced: int = 0
    entries: int = 0
    left: list[str] = field(default_factory=list)
    positions: dict[tuple[str, int], int] = field(default_factory=dict)


@dataclass(slots=True)
class _Shard:
    """One chain while it is published again."""

    name: str
    links: list[Link]
    lease: Lease
    position: int = 0
    remarks: list[Remark] = field(default_factory=list)
    epochs: set[Name] = field(default_factory=set)


async def rebuild_ledger(
    *,
    ledger: Ledger,
    vault: Vault,
    bus: Bus | None,
    keys: Bus | None = None,
    verifiers: Sequence[Verifier] | None = None,
    progress: Callable[[int, str], None] | None = None,
) -> Rebuilt:
    """Fill an empty ledger from the vault's records, and from the bus as far as that still goes.

    Nothing else may work on the ledger meanwhile. Without `bus` ingest will read the last
    publication of each partition again. `keys` is the keys' own bus, where they have one; all that
    it has is read again. `progress` is told of the frames that are back and of the last object.

    Raises `StoreError`: a ledger that is not empty, a vault with holes.
    """
    return await _Rebuild(ledger, vault, verifiers, progress).run(bus, keys)


class _Rebuild:
    def __init__(
        self,
        ledger: Ledger,
        vault: Vault,
        verifiers: Sequence[Verifier] | None,
        progress: Callable[[int, str], None] | None,
    ) -> None:
        self._ledger = ledger
        self._vault = vault
        self._verifiers = verifiers
        self._progress = progress
        self._done = Rebuilt()
        self._log = FoundLog()
        self._shards: dict[str, _Shard] = {}

    async def run(self, bus: Bus | None, keys: Bus | None) -> Rebuilt:
        await _require_empty(self._ledger)
        writer = await self._claim(LOG, 0) if await has_log(self._vault) else None
        if writer is not None:
            self._log = await LogRebuild(self._ledger, self._vault).run(writer)
            self._done.entries = self._log.entries
        links, bare = await list_vault(self._vault)
        chains = chain_up(links)
        _check_against(self._log, chains)
        self._done.left = sorted([*chains.left, *bare])
        for name, chain in chains.links.items():
            if chain:
                lease = await self._claim(chain[0].bus.topic, chain[0].bus.partition)
                while lease.term < chains.terms[name]:
                    # A term names who came later, also in keys that were written before.
                    lease = await self._claim(lease.topic, lease.partition)
                self._shards[name] = _Shard(name, chain, lease)
        self._done.shards = len(self._shards)
        for group in self._in_order():
            await self._publish(self._shards[group[0].shard], group)
        for shard in self._shards.values():
            await self._finish(shard, bus)
        if writer is not None:
            await self._tell_others(writer)
            await self._ledger.release(writer)
        if keys is not None:
            await self._read_again(keys)
        positions = await self._ledger.positions()
        self._done.positions = {place: at for place, at in positions.items() if place[0] != LOG}
        return self._done

    async def _claim(self, topic: str, partition: int) -> Lease:
        lease = await self._ledger.claim(topic, partition, OWNER, LEASE_S)
        if lease is None:
            raise StoreBusy(f"{topic}/{partition} is held by another.", retry_after_s=LEASE_S)
        return lease

    # -- out of the vault --------------------------------------------------------------------------

    def _in_order(self) -> Iterator[list[Link]]:
        """All publications, as near to the order they came in as their times tell."""
        groups = [publications(shard.links) for shard in self._shards.values()]
        return heapq.merge(*groups, key=lambda group: group[0].sealed_at_ns)

    async def _publish(self, shard: _Shard, group: list[Link]) -> None:
        segments = [await read_segment(self._vault, link) for link in group]
        seen = [seen for segment in segments for seen in segment.seen()]
        heads = await self._ledger.heads(sorted({item.name for item in seen}))
        changes, sessions = derive(seen, heads, group[0].bus.first)
        paces = {item.name: Pace.at(heads.get(item.name)) for item in seen}
        for segment in segments:
            for record in segment.fragments:
                pace = paces[record.session, record.epoch]
                shard.remarks += remarks_of(
                    record, segment.clocks(record), pace, segment.record.sealed_at_ns
                )
        shard.epochs |= {item.name for item in seen}
        await self._ledger.stage(shard.lease, [link.key for link in group])
        await self._move(shard, group[0].bus.first)
        await self._ledger.publish(
            replace(
                _publication(shard, group[0].bus.next, group[0].sealed_at_ns),
                segments=tuple(map(_sealed, segments)),
                heads=tuple(changes),
                sessions=tuple(sessions),
            )
        )
        shard.position = group[0].bus.next
        self._done.segments += len(segments)
        self._done.frames += sum(segment.record.rows for segment in segments)
        self._done.bytes += sum(segment.record.bytes for segment in segments)
        if self._progress is not None:
            self._progress(self._done.frames, group[-1].key)

    async def _move(self, shard: _Shard, position: int) -> None:
        """Set the position alone: publications without segments moved it too."""
        if shard.position != position:
            await self._ledger.publish(_publication(shard, position, 0))
            shard.position = position

    # -- out of the bus ----------------------------------------------------------------------------

    async def _finish(self, shard: _Shard, bus: Bus | None) -> None:
        """Publish what the bus adds: offsets, incidents, what could not be sealed."""
        last = publications(shard.links)[-1][0].bus
        shard.remarks += [remark async for remark in self._broken_off(shard)]
        if bus is not None and shard.lease.topic == bus.topic:
            found = await self._reread(shard, bus)
        else:
            # The last publication may be one that never was committed; then it is only half here.
            found = Found(position=last.first if bus is None else last.next)
        await self._place_heads(shard, found)
        await self._tell(shard, found)
        await self._ledger.release(shard.lease)

    async def _broken_off(self, shard: _Shard) -> AsyncIterator[Remark]:
        at_ns = shard.links[-1].sealed_at_ns
        for session, epoch in sorted(shard.epochs):
            if epoch:
                heads = {head.epoch: head for head in await self._ledger.epochs(session)}
                head = heads[epoch]
                for remark in breaks_off(heads, head, at_ns):
                    yield remark

    async def _reread(self, shard: _Shard, bus: Bus) -> Found:
        leaves = Leaves(self._ledger, self._vault)
        wanted = {(remark.session, remark.epoch, remark.at_seq) for remark in shard.remarks}
        reread = Reread(
            ledger=self._ledger,
            leaves=leaves,
            bus=bus,
            partition=shard.lease.partition,
            verifiers=self._verifiers,
            wanted=wanted,
        )
        return await reread.run(shard.position)

    async def _place_heads(self, shard: _Shard, found: Found) -> None:
        """Give each head the offset that it had."""
        placed = sorted(name for name in found.offsets if name in shard.epochs)
        self._done.unplaced += len(shard.epochs) - len(placed)
        for start in range(0, len(placed), _CHUNK):
            heads = await self._ledger.heads(placed[start : start + _CHUNK])
            changes = tuple(
                HeadChange(head.digest(), replace(head, offset=found.offsets[name]))
                for name, head in heads.items()
                if head.offset != found.offsets[name]
            )
            await self._ledger.publish(
                replace(_publication(shard, shard.position, 0), heads=changes)
            )

    async def _tell(self, shard: _Shard, found: Found) -> None:
        """Add incidents and quarantined messages, and set the position."""
        incidents = [self._log.known(incident) for incident in self._placed(shard, found)]
        incidents.sort(key=lambda incident: incident.offset)
        for incident in incidents:
            self._log.incidents.pop(place_of(incident), None)
        quarantined = await self._with_objects(shard, found.quarantined)
        await self._ledger.publish(
            replace(
                _publication(shard, found.position, 0),
                incidents=tuple(incidents),
                quarantined=tuple(quarantined),
                objects=tuple(sorted({item.key for item in quarantined if item.key})),
            )
        )
        self._done.incidents += len(incidents)
        self._done.quarantined += len(quarantined)

    def _placed(self, shard: _Shard, found: Found) -> Iterator[Incident]:
        """All incidents that bus and sealed frames show, with their offsets."""
        topic, partition = shard.lease.topic, shard.lease.partition
        yield from found.incidents
        # A place that neither bus nor log has kept is given as a number that no offset has.
        nowhere = self._log.lowest(topic, partition) - 1
        for number, remark in enumerate(shard.remarks):
            name = (remark.session, remark.epoch, remark.seq)
            offset = found.places.get((remark.session, remark.epoch, remark.at_seq))
            if offset is None:
                offset = self._log.offset_of(topic, partition, remark.reason, name)
            if offset is None:
                offset = nowhere - number
            yield _incident(topic, partition, offset, remark)

    async def _tell_others(self, lease: Lease) -> None:
        """Add the incidents that only the log has."""
        others = tuple(self._log.incidents.values())
        if others:
            shard = _Shard(LOG, [], lease)
            await self._ledger.publish(replace(_publication(shard, 0, 0), incidents=others))
            self._done.incidents += len(others)

    async def _with_objects(
        self, shard: _Shard, quarantined: Sequence[Quarantined]
    ) -> list[Quarantined]:
        """Large messages by the object that has their bytes; one that is not there is made."""
        large = [item for item in quarantined if item.size > INLINE_BYTES]
        if not large:
            return list(quarantined)
        known: dict[bytes, str] = {}
        async for key in self._vault.keys(QUARANTINE_PREFIX):
            known.setdefault(sha256(await self._vault.get(key)).digest(), key)
        missing = {item.sha256: item for item in large if item.sha256 not in known}
        made = {
            digest: quarantine_key("main", day_of(item.at_ns), uuid7(item.at_ns, os.urandom(10)))
            for digest, item in missing.items()
        }
        known |= made
        await self._ledger.stage(shard.lease, sorted({known[item.sha256] for item in large}))
        for digest, key in made.items():
            await self._vault.put_new(key, missing[digest].data)
        return [
            replace(item, data=b"", key=known[item.sha256]) if item.size > INLINE_BYTES else item
            for item in quarantined
        ]

    async def _read_again(self, keys: Bus) -> None:
        """Let ingest read all the keys' bus still has: putting a wrap twice changes nothing."""
        for partition in range(keys.partitions):
            first, _ = await keys.bounds(partition)
            lease = await self._claim(keys.topic, partition)
            shard = _Shard(f"{keys.topic}/{partition}", [], lease)
            await self._move(shard, first)
            await self._ledger.release(lease)


def _check_against(log: FoundLog, chains: Chains) -> None:
    """Raise `StoreCorrupt` unless the last records that the log has of each chain are there."""
    for name, (n, digest) in log.records.items():
        chain = chains.links.get(name, [])
        if len(chain) <= n or chain[n].hash != digest:
            raise StoreCorrupt(
                f"The log has a record {n} of shard {name}, and no manifest in the vault is it.",
                hint="Bring manifest and segment back from a copy, or see sealtape verify.",
            )


async def _require_empty(ledger: Ledger) -> None:
    used = bool(await ledger.positions() or await ledger.shards())
    used = used or (await ledger.log_state()).number > 0
    async for _ in ledger.sessions():
        used = True
        break
    if used:
        raise StoreError(
            "The ledger is not empty.",
            hint="Stop ingest and indexers, and name a new file or schema in stores.ledger.",
        )


def _publication(shard: _Shard, position: int, at_ns: int) -> Publish:
    return Publish(shard.lease, shard.position, position, shard.name, at_ns)


def _sealed(segment: Segment) -> SealedSegment:
    return SealedSegment(segment.link.key, segment.record, segment.fragments)


def _incident(topic: str, partition: int, offset: int, remark: Remark) -> Incident:
    return Incident(
        topic,
        partition,
        offset,
        remark.reason,
        remark.detail,
        remark.session,
        remark.epoch,
        remark.seq,
        remark.at_ns,
    )
