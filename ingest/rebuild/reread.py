"""What the bus still says about a partition: where sealed frames stood, what could not be sealed.

The real sealer reads it again, with heads that pretend to know no offset: so it holds each sealed
frame for a possible copy, and the sealed leaf tells. What it then finds is what ingest found.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from sealtape.capture.bus.base import Batch, Bus
from sealtape.ingest.consumer import CONSUMER
from sealtape.ingest.findings import QUARANTINE_REASONS
from sealtape.ingest.ledger.base import Ledger
from sealtape.ingest.ledger.rows import Head, Incident, Quarantined
from sealtape.ingest.parquet import Row
from sealtape.ingest.rebuild.derive import Name
from sealtape.ingest.rebuild.objects import Leaves
from sealtape.ingest.sealer import Limits, Sealer, Taken, decode_all
from sealtape.schemas.bodies import parse_open
from sealtape.schemas.errors import FormatError
from sealtape.schemas.messages import CheckpointMessage, KeyMessage
from sealtape.schemas.notes import Verifier, open_checkpoint

__all__ = ["Found", "Reread"]

READ_BYTES = 4 << 20
# Frames sealed past the position stand behind a frame that waits; that much is read to find them.
BEYOND_BYTES = 64 << 20
UNKNOWN = -1


@dataclass(slots=True)
class Found:
    """What one partition's bus gave.

    Attributes:
        position: the lowest offset of anything that may not have been dealt with.
        offsets: the offset that each head must have, for epochs of which every frame was found.
        places: the offsets of the frames that were asked for, as (session, epoch, seq).
    """

    position: int
    offsets: dict[Name, int] = field(default_factory=dict)
    places: dict[tuple[bytes, int, int], int] = field(default_factory=dict)
    incidents: list[Incident] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)


class _Tally:
    """Which frames of one epoch were found."""

    __slots__ = ("bits", "count", "offset")

    def __init__(self) -> None:
        self.bits = bytearray()
        self.count = 0
        self.offset = UNKNOWN

    def add(self, seq: int, offset: int) -> bool:
        """Note a frame; False when it was noted before."""
        byte, bit = divmod(seq, 8)
        if byte >= len(self.bits):
            self.bits.extend(bytes(byte + 1 - len(self.bits)))
        if self.bits[byte] >> bit & 1:
            return False
        self.bits[byte] |= 1 << bit
        self.count += 1
        self.offset = max(self.offset, offset)
        return True


class Reread:
    """Reads one partition from the first message it still has."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        leaves: Leaves,
        bus: Bus,
        partition: int,
        verifiers: Sequence[Verifier] | None,
        wanted: Collection[tuple[bytes, int, int]],
    ) -> None:
        """`wanted` are frames whose offsets are asked for."""
        self._ledger = ledger
        self._leaves = leaves
        self._bus = bus
        self._partition = partition
        self._verifiers = verifiers
        self._wanted = wanted
        self._heads: dict[Name, Head] = {}
        self._tallies: dict[Name, _Tally] = {}
        self._waiting: list[int] = []
        self._kept: set[int] = set()
        self._told = 0
        self._places: dict[tuple[bytes, int, int], int] = {}

    async def run(self, position: int) -> Found:
        """Read; below `position` all wraps are in the keyring, by what the vault says."""
        first, end = await self._bus.bounds(self._partition)
        if end < position or (first > position and await self._passed() < first):
            # An older copy, or one that lost what was unread: ingest finds that, and says so.
            return Found(position)
        sealer = Sealer(
            topic=self._bus.topic,
            partition=self._partition,
            position=first,
            verifiers=self._verifiers,
            limits=Limits(),
        )
        beyond = 0
        while sealer.read_to < end and beyond < BEYOND_BYTES:
            batch = await self._bus.read(
                self._partition, sealer.read_to, max_bytes=READ_BYTES, wait_s=0.0
            )
            await self._take(sealer, batch, position)
            if batch.next_offset > position:
                beyond += sum(len(record.value) for record in batch.records)
        waiting = [offset for offset in self._waiting if offset not in self._kept]
        return Found(
            position=min([*waiting, sealer.read_to]),
            offsets=dict(self._complete()),
            places=self._places,
            incidents=sorted(sealer.findings.incidents, key=lambda item: item.offset),
            quarantined=sorted(sealer.findings.quarantined, key=lambda item: item.offset),
        )

    async def _passed(self) -> int:
        """What ingest has marked as passed.

        Positions move without a segment, too, which the vault does not show; the mark is taken for
        nothing but not to sound a false alarm.
        """
        return (await self._bus.marks(self._partition)).get(CONSUMER, 0)

    async def _take(self, sealer: Sealer, batch: Batch, position: int) -> None:
        if not batch.records:
            return
        records = [(record.offset, record.key, record.value) for record in batch.records]
        taken = await asyncio.to_thread(decode_all, records, self._belongs)
        names = sealer.unknown(taken)
        if names:
            heads = await self._ledger.heads(sorted(names))
            self._heads.update(heads)
            unplaced = {name: replace(head, offset=UNKNOWN) for name, head in heads.items()}
            sealer.load(names, unplaced)
        now_ns = batch.records[-1].ts_ms * 1_000_000
        await asyncio.to_thread(sealer.take, taken, batch.next_offset, now_ns)
        self._waiting.extend(self._unsettled(taken, position))
        for doubt in list(sealer.doubts):
            row = doubt.row
            leaf = await self._leaves.leaf(row.session, row.epoch, row.seq)
            sealer.resolve(doubt, leaf, now_ns)
            if leaf == row.leaf:
                self._note(row, doubt.offset)
        self._kept |= {item.offset for item in sealer.findings.quarantined[self._told :]}
        self._told = len(sealer.findings.quarantined)
        for item in taken:
            if isinstance(item.message, CheckpointMessage) and item.offset not in self._kept:
                await self._look_at(sealer, item, item.message, now_ns)

    async def _look_at(
        self, sealer: Sealer, item: Taken, message: CheckpointMessage, now_ns: int
    ) -> None:
        """Find checkpoints that were no use: of another tree, or of frames sealed without them.

        The sealer cannot tell, since to it all those frames were sealed before it began.
        """
        name = message.session, message.epoch
        fragment = await self._leaves.fragment(*name, message.size - 1)
        if fragment is None:
            return
        sealed = fragment.record.checkpoint
        if sealed is not None and sealed.note.encode() == message.note:
            return
        root = await self._leaves.root(*name, message.size)
        if root is None:
            return
        if open_checkpoint(message.note, self._verifier(name)).root != root:
            reason = "checkpoint_root"
        elif sealed is None or sealed.size < message.size:
            reason = "checkpoint_late"
        else:
            return
        sealer.findings.quarantine(
            reason,
            QUARANTINE_REASONS[reason],
            offset=item.offset,
            data=item.value,
            now_ns=now_ns,
            session=message.session,
            epoch=message.epoch,
            seq=message.size - 1,
        )

    def _verifier(self, name: Name) -> Verifier:
        return Verifier.from_vkey(parse_open(self._heads[name].opening, None)[0].key)

    def _belongs(self, session: bytes) -> bool:
        return self._bus.partition_of(session) == self._partition

    def _unsettled(self, taken: Iterable[Taken], position: int) -> Iterable[int]:
        """Offsets of messages that ingest has not dealt with, unless they are in quarantine."""
        for item in taken:
            message = item.message
            if isinstance(message, FormatError) or item.name is None:
                continue
            head = self._heads.get(item.name)
            size = 0 if head is None else head.hi
            if isinstance(message, KeyMessage):
                # Wraps were put before anything of the same publication was.
                unsettled = item.offset >= position
            elif isinstance(message, CheckpointMessage):
                unsettled = message.size > size
            else:
                unsettled = message.seq >= size
            if unsettled:
                yield item.offset

    def _note(self, row: Row, offset: int) -> None:
        tally = self._tallies.setdefault((row.session, row.epoch), _Tally())
        place = (row.session, row.epoch, row.seq)
        if tally.add(row.seq, offset) and place in self._wanted:
            self._places[place] = offset

    def _complete(self) -> Iterable[tuple[Name, int]]:
        """The epochs of which every sealed frame was found."""
        for name, tally in self._tallies.items():
            head = self._heads[name]
            if tally.count == head.hi - head.lost:
                yield name, tally.offset
