"""One partition's lane: folds what its bus partition brings (live) and what was sealed of it.

A lane has everything of its sessions to itself: nobody else folds them, so what it keeps in memory
goes on from write to write. It learns of the same frames twice, from the bus and from the ledger;
a frame is folded when it is first seen, wherever that is, and seen again it changes nothing.

Which of several processes works on a lane is decided by a lease; see `indexer.worker` for why a
process that lost its lease without knowing does no harm.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from sealtape.capture.bus import Bus, Record
from sealtape.capture.metrics.sheet import Histogram
from sealtape.indexer.documents import JOURNAL, Orphan, SessionFold, again_of, finished
from sealtape.indexer.heard import Heard
from sealtape.indexer.index import Index, Update
from sealtape.indexer.reading import Keys, Segments
from sealtape.indexer.snapshot import FOUND_S, Tally
from sealtape.ingest.consumer import INDEXER
from sealtape.ingest.keyring import Keyring
from sealtape.ingest.ledger import Ledger
from sealtape.ingest.ledger.rows import FragmentRow, SegmentRow
from sealtape.ingest.vault import Vault
from sealtape.schemas import messages
from sealtape.schemas.bodies import parse_open
from sealtape.schemas.documents import CommandDocument, SessionDocument
from sealtape.schemas.errors import FormatError, KeyUnavailable, Missing, NotFound, StoreBusy
from sealtape.schemas.frames import Frame, Kind
from sealtape.schemas.messages import KeyMessage
from sealtape.schemas.notes import Verifier
from sealtape.schemas.segments import FragmentRecord
from sealtape.schemas.wraps import PrivateKey

__all__ = ["CONSUMER", "Desk", "IndexerStores", "Lane", "OnUpdate"]

CONSUMER = INDEXER
"""Our name at the bus, for `mark`."""

READ_BYTES = 4 << 20
KEYS_S = 5.0
"""How long one read of the keys' bus may wait for what must be there."""
SILENT_S = 10.0
"""How often the ledger is asked for sessions whose node fell silent."""
COMMANDS = 4096
"""Commands in one write, about: what other sessions wait for when there is a backlog."""
BREATH_S = 0.002
"""Seconds of folding after which the event loop has its turn; `dev` records in the same loop."""
SEGMENTS = 16
"""Segments in one write, at most; a write costs what many of them do."""
RUN_S = 0.5
"""How long segments are read for one write; what the bus brings waits for it."""
SEGMENT_READERS = 4
"""Segments in memory at the same time, over all lanes of a process."""
MAX_FOLDS = 4096
"""Sessions kept in memory; the others come back from the index when they go on."""
NO_LIMIT = 2**63

_READ = frozenset((Kind.OPEN, Kind.IDENT, Kind.FACTS, Kind.CLOSE))

OnUpdate = Callable[[Update], Awaitable[None]]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexerStores:
    """What the indexer reads, and the index it writes; `keys` is the keys' own bus, if any."""

    bus: Bus
    ledger: Ledger
    vault: Vault
    keyring: Keyring
    index: Index
    keys: Bus | None = None


@dataclass(slots=True)
class Desk:
    """What all lanes of a process share."""

    stores: IndexerStores
    private: PrivateKey | None
    on_update: OnUpdate | None = None
    """Called with each update before the index takes it; what it raises, the write raises."""
    until: Mapping[str, int] | None = None
    """Positions, by the names that the index has them under, which no lane goes past; one that is
    not named is 0. None: each reads all there is."""
    tally: Tally = field(default_factory=Tally)
    found_s: Histogram = field(default_factory=lambda: Histogram(FOUND_S))
    verifiers: Sequence[Verifier] | None = None
    """The nodes whose sessions are taken from the bus; None: any. Of what is sealed ingest knew."""
    on_journal: Callable[[bytes, bytes, int], None] | None = None
    """Called with each FACTS frame of a journal: its session, the body, the time."""
    fenced: int = 0
    failures: int = 0
    keys: Keys = field(init=False)
    readers: asyncio.Semaphore = field(init=False)
    rested: float = 0.0

    def __post_init__(self) -> None:
        self.keys = Keys(self.stores.keyring, self.private)
        self.readers = asyncio.Semaphore(SEGMENT_READERS)

    async def breathe(self) -> None:
        """Let the event loop have its turn after a while of folding."""
        if time.monotonic() - self.rested > BREATH_S:
            await asyncio.sleep(0)
            self.rested = time.monotonic()


@dataclass(slots=True)
class _Chain:
    """A shard that is followed: `whole` when all its sessions are of this lane."""

    shard: str
    name: str
    whole: bool
    position: int


class Lane:
    """Folds the sessions of one partition into the index."""

    def __init__(self, desk: Desk, partition: int, check: Callable[[], None] | None = None) -> None:
        """`check` raises `Fenced` when another may be at work on this partition."""
        stores = desk.stores
        self.partition = partition
        self.position = -1
        """Where reading of the bus goes on; -1 before it began."""
        self.oldest_ms: int | None = None
        self.behind = False
        """Whether the last read of the bus brought so much that there is probably more."""
        self._desk = desk
        self._stores = stores
        self._tally = desk.tally
        self._check = check or (lambda: None)
        self._segments = Segments(stores.vault)
        self._reading = 0
        self._chains: list[_Chain] | None = None
        self._keys_at = -1
        self._looked = -SILENT_S
        self._silent: set[bytes] = set()
        self._folds: OrderedDict[bytes, SessionFold | None] = OrderedDict()
        self._touched: dict[bytes, SessionFold] = {}
        self._captured: list[int] = []
        self._heard = Heard()
        self._pending = 0
        self._lock = asyncio.Lock()

    @property
    def folds(self) -> int:
        """Sessions in memory."""
        return len(self._folds)

    # -- the bus -----------------------------------------------------------------------------------

    async def poll_bus(self, *, wait_s: float = 0.0) -> bool:
        """Index what the bus has next; False when there was nothing within `wait_s`."""
        bus = self._stores.bus
        name = f"bus/{bus.topic}/{self.partition}"
        if self.position < 0:
            self.position = await self._start(bus)
        position, limit = self.position, self._limit(name)
        if position >= limit:
            return False
        try:
            batch = await bus.read(self.partition, position, max_bytes=READ_BYTES, wait_s=wait_s)
        except Missing:
            # Deleted because ingest and a former run of ours passed it: the ledger has it. Where
            # the bus ends too early ingest finds out, and goes on at its end.
            position = await self._start(bus)
            moved, self.position = position != self.position, position
            return moved
        self.behind = sum(len(record.value) for record in batch.records) > READ_BYTES // 2
        self.oldest_ms = batch.records[0].ts_ms if batch.records else None
        if batch.next_offset == position:
            return False
        records = deque(record for record in batch.records if record.offset < limit)
        end = min(batch.next_offset, limit)
        while True:
            async with self._lock:
                await self._learn()
                read = await self._fold(records)
                position = max(read if records else end, self.position)
                await self._write({name: position})
                self.position = position
            if not records:
                return True

    async def mark(self) -> None:
        """Let the bus delete what is indexed."""
        if self.position >= 0:
            await self._stores.bus.mark(CONSUMER, self.partition, self.position)

    def _limit(self, name: str) -> int:
        until = self._desk.until
        return NO_LIMIT if until is None else until.get(name, 0)

    async def _start(self, bus: Bus) -> int:
        first, end = await bus.bounds(self.partition)
        position = await self._stores.ledger.position(bus.topic, self.partition)
        return min(max(first, position), end)

    async def _fold(self, records: deque[Record]) -> int:
        """Fold records until they are enough for a write; return the offset behind the last one."""
        offset = 0
        while records and self._pending < COMMANDS:
            record = records.popleft()
            offset = record.next_offset
            await self._message(record)
            await self._desk.breathe()
        return offset

    async def _message(self, record: Record) -> None:
        try:
            message = messages.decode(record.value)
            if message.session != record.key:
                raise FormatError("The bus key is not the session of the message.")
            if isinstance(message, KeyMessage):
                self._desk.keys.learn(message)
        except FormatError:
            self._tally.malformed += 1
            return
        if isinstance(message, Frame):
            await self._live(message)

    async def _live(self, frame: Frame) -> None:
        fold = await self._fold_of(frame.session)
        if fold is None:
            self._tally.destroyed += 1
            return
        await self._catch_up(fold, frame.epoch, frame.seq)
        known = fold.next_seq(frame.epoch)
        if frame.seq > known:
            # Forged, or what is between was lost: ingest finds out, and then the ledger has it.
            self._tally.early += 1
            return
        if not known and not self._begins(frame, fold):
            self._tally.malformed += 1
            return
        self._heard.add((frame.session, frame.epoch), frame.seq, frame.leaf())
        if frame.kind == Kind.FACTS and frame.seq == known:
            self._captured.append(frame.ts_ns)
        await self._feed(fold, frame)

    def _begins(self, frame: Frame, fold: SessionFold) -> bool:
        """Whether a frame is the OPEN of its epoch, by a node that is trusted: the session's."""
        if frame.kind != Kind.OPEN:
            return False
        try:
            opening, _ = parse_open(frame.payload, self._desk.verifiers)
        except FormatError:
            return False
        known = fold.document
        if known is not None and (known.node, known.tenant) != (opening.node, opening.tenant):
            return False
        return (opening.session, opening.epoch) == (frame.session, frame.epoch)

    async def _catch_up(self, fold: SessionFold, epoch: int, seq: int) -> None:
        """Fold frames before (epoch, seq) that did not come by the bus, as far as they are sealed.

        A frame that is next needs nothing, nor does the first of a session.
        """
        known = fold.next_seq(epoch)
        if seq <= known and (known or not epoch):
            return
        for fragment in await self._stores.ledger.fragments(fold.session):
            record = fragment.record
            if (record.epoch, record.lo) < (epoch, seq):
                end = seq if record.epoch == epoch else record.hi
                await self._sealed(fold, fragment, end)

    # -- keys --------------------------------------------------------------------------------------

    async def _learn(self) -> None:
        """Read the keys' own bus to its end: a key is there before the first frame under it."""
        keys = self._stores.keys
        if keys is None:
            return
        if self._keys_at < 0:
            self._keys_at = await self._start(keys)
        first, end = await keys.bounds(self.partition)
        if not first <= self._keys_at <= end:
            self._keys_at = min(await self._start(keys), end)
        while self._keys_at < end:
            batch = await keys.read(
                self.partition, self._keys_at, max_bytes=READ_BYTES, wait_s=KEYS_S
            )
            if batch.next_offset == self._keys_at:
                raise StoreBusy("The keys' bus does not hand out what it has.", retry_after_s=1.0)
            for record in batch.records:
                self._key(record)
                await self._desk.breathe()
            self._keys_at = batch.next_offset

    def _key(self, record: Record) -> None:
        try:
            message = messages.decode(record.value)
            if isinstance(message, KeyMessage) and message.session == record.key:
                self._desk.keys.learn(message)
                return
        except FormatError:
            pass  # counted like whatever else is no key of the record's session
        self._tally.malformed += 1

    # -- the ledger --------------------------------------------------------------------------------

    async def poll_ledger(self) -> bool:
        """Index what was published next of this partition; False when there is nothing new."""
        if self._chains is None:
            self._chains = await self._find_chains()
        for chain in self._chains:
            if await self._run(chain):
                return True
        if time.monotonic() - self._looked >= SILENT_S:
            await self._find_silent()
            self._looked = time.monotonic()
        return False

    async def _run(self, chain: _Chain) -> bool:
        """Index the next segments of a chain with one write; False when there are none."""
        async with self._lock:
            end, first, began = chain.position, chain.position, time.monotonic()
            limit = self._limit(chain.name)
            async for segment in self._stores.ledger.chain(chain.shard, first):
                if segment.record.n >= limit:
                    break
                await self._learn()
                await self._segment(segment, whole=chain.whole)
                end = segment.record.n + 1
                if end - first == SEGMENTS or time.monotonic() - began > RUN_S:
                    break
            if end == first:
                return False
            await self._write({chain.name: end})
            self._tally.segments += end - first
            chain.position = end
            return True

    async def _find_silent(self) -> None:
        """Note which sessions the ledger declared incomplete; once, for their frames end it."""
        bus, silent = self._stores.bus, set[bytes]()
        async for row in self._stores.ledger.sessions(state="incomplete"):
            if bus.partition_of(row.session) == self.partition:
                silent.add(row.session)
        async with self._lock:
            told = silent & self._silent
            for session in sorted(silent - told):
                fold = await self._fold_of(session)
                if fold is not None and fold.document is None:
                    continue  # its OPEN comes yet
                told.add(session)
                if fold is not None and fold.fall_silent():
                    self._touched[session] = fold
            if self._touched:
                await self._write({})
        self._silent = told

    @property
    def segments(self) -> int:
        """How many records of the partition's own shard are indexed."""
        return self._chains[-1].position if self._chains else 0

    async def _find_chains(self) -> list[_Chain]:
        """The shards with sessions of this lane, its own the last.

        The others are of topics that were the bus once. One with as many partitions divided the
        sessions as this one does; from another each lane picks its own.
        """
        bus, ledger = self._stores.bus, self._stores.ledger
        partitions: dict[str, int] = {}
        for topic, claimed in await ledger.positions():
            partitions[topic] = max(partitions.get(topic, 0), claimed + 1)
        positions = await self._stores.index.positions()
        chains: list[_Chain] = []
        for shard in [*await ledger.shards(), f"{bus.topic}/{self.partition}"]:
            topic, _, number = shard.rpartition("/")
            alike = topic == bus.topic or partitions.get(topic) == bus.partitions
            if (alike and int(number) != self.partition) or shard in [c.shard for c in chains]:
                continue
            name = f"ledger/{shard}" if alike else f"ledger/{shard}:{self.partition}"
            chains.append(_Chain(shard, name, alike, positions.get(name, 0)))
        return sorted(chains, key=lambda chain: chain.shard.rpartition("/")[0] == bus.topic)

    async def _segment(self, segment: SegmentRow, *, whole: bool) -> None:
        folds = []
        async with self._open_segments():
            for fragment in await self._stores.ledger.fragments_of(segment.id):
                record = fragment.record
                if not whole and self._stores.bus.partition_of(record.session) != self.partition:
                    continue
                fold = await self._fold_of(record.session)
                if fold is None:
                    self._tally.destroyed += record.hi - record.lo
                    continue
                await self._catch_up(fold, record.epoch, record.lo)
                read = await self._sealed(fold, fragment, record.hi)
                if self._heard.differs(record, read) or await self._differs(record):
                    fold = await self._again(fold)
                self._heard.sealed(record)
                folds.append(fold)
        for fold in folds:
            await self._seal(fold)

    async def _differs(self, record: FragmentRecord) -> bool:
        """Whether frames that a former lane of ours folded from the bus are sealed otherwise."""
        owed = self._heard.owed(record)
        if owed is None:
            return False
        name, leaves = (record.session, record.epoch), list[bytes]()
        try:
            for fragment in await self._stores.ledger.fragments(record.session):
                place = fragment.record
                if place.epoch == record.epoch and place.lo < owed[1] and owed[0] < place.hi:
                    leaves += await self._segments.leaves(fragment, *owed)
        except (Missing, FormatError) as error:
            log.warning("a segment cannot be compared with what is indexed: %s", error)
            return False
        return len(leaves) != owed[1] - owed[0] or not self._heard.matches(name, leaves)

    async def _again(self, fold: SessionFold) -> SessionFold:
        """Fold what is sealed of a session in the place of what the bus had brought of it."""
        name = fold.session
        log.warning("session %s is indexed again: its frames differ", name.hex())
        for epoch in fold.epochs:
            self._heard.forget((name, epoch))
        # Before anything is written: until then the index has what finds the difference again.
        self._touched.pop(name, None)
        self._check()
        await self._stores.index.withdraw(name.hex(), fold.again + 1)
        self._folds[name] = again = await self._from_the_beginning(name, fold.again + 1)
        return again

    async def _seal(self, fold: SessionFold) -> None:
        if fold.closed and await self._is_sealed(fold) and fold.seal():
            self._touched[fold.session] = fold

    async def _is_sealed(self, fold: SessionFold) -> bool:
        row = await self._stores.ledger.session(fold.session)
        if row is None or row.state != "sealed":
            return False
        heads = await self._stores.ledger.epochs(fold.session)
        return all(head.hi <= fold.next_seq(head.epoch) for head in heads)

    async def _sealed(self, fold: SessionFold, fragment: FragmentRow, end: int) -> list[bytes]:
        """Fold frames of a fragment; returns their leaves if the bus had brought others of it."""
        record, read = fragment.record, list[bytes]()
        start = fold.next_seq(record.epoch)
        if start >= min(end, record.hi):
            return read
        try:
            async with self._open_segments():
                async for frame in self._segments.frames(fragment, start, end):
                    if start > record.lo:
                        read.append(frame.leaf())
                    await self._feed(fold, frame, fragment.segment_key)
                    if self._pending >= COMMANDS:
                        await self._flush({})
                    await self._desk.breathe()
        except (Missing, FormatError) as error:
            log.warning("segment %s cannot be indexed: %s", fragment.segment_key, error)
            self._tally.fail(fragment.segment_key, error)
            self._tally.unreadable += record.hi - max(start, record.lo)
        return read

    @asynccontextmanager
    async def _open_segments(self) -> AsyncIterator[None]:
        """Hold one of the places for segments in memory, and let go of the segment afterwards."""
        if not self._reading:
            await self._desk.readers.acquire()
        self._reading += 1
        try:
            yield
        finally:
            self._reading -= 1
            if not self._reading:
                self._segments = Segments(self._stores.vault)
                self._desk.readers.release()

    # -- folding -----------------------------------------------------------------------------------

    async def _fold_of(self, session: bytes) -> SessionFold | None:
        """The session's fold; None when its keys were destroyed."""
        if session in self._folds:
            self._folds.move_to_end(session)
            return self._folds[session]
        fold = None
        if not await self._stores.keyring.destroyed(session):
            fold = await self._restored(session)
        self._folds[session] = fold
        return fold

    async def _restored(self, session: bytes) -> SessionFold:
        index = self._stores.index
        progress = await index.progress(session.hex())
        if progress is None:
            return SessionFold(session)
        try:
            document = await index.session(session.hex())
            fold = SessionFold.restore(session, progress, document)
        except (NotFound, FormatError):
            return await self._from_the_beginning(session, again_of(progress))
        for name in fold.running():
            command = await index.command(name)
            if command is not None:
                fold.give(command)
        for epoch, chain in fold.heard.items():
            self._heard.restore((session, epoch), chain)
        return fold

    async def _from_the_beginning(self, session: bytes, again: int) -> SessionFold:
        """Fold all that is sealed again. The index ignores documents older than those it has."""
        self._tally.restarted += 1
        fold = SessionFold(session)
        fold.again = again
        for fragment in await self._stores.ledger.fragments(session):
            await self._sealed(fold, fragment, fragment.record.hi)
        await self._seal(fold)
        return fold

    async def _feed(self, fold: SessionFold, frame: Frame, segment: str = "") -> None:
        """Fold a frame of the bus, or of a segment."""
        body: bytes | None = b""
        if frame.seq < fold.next_seq(frame.epoch):
            return
        if frame.kind in _READ:
            try:
                body = await self._desk.keys.open(frame)
            except KeyUnavailable:
                body = None
            except FormatError as error:
                body = None
                if segment:
                    self._tally.fail(segment, error)
        skipped, pending = fold.skipped, fold.pending
        fold.feed(frame, body)
        self._pending += fold.pending - pending
        self._tally.unreadable += fold.skipped - skipped
        self._tally.frames += 1
        self._touched[fold.session] = fold
        told, document = self._desk.on_journal, fold.document
        journal = document is not None and document.protocol == JOURNAL
        if told is not None and journal and frame.kind == Kind.FACTS and body:
            told(frame.session, body, frame.ts_ns)

    # -- out ---------------------------------------------------------------------------------------

    async def _write(self, positions: dict[str, int]) -> None:
        """Put what changed into the index, with the positions it stands for, in one write."""
        await self._flush(positions)
        while len(self._folds) > MAX_FOLDS:
            self._folds.popitem(last=False)

    async def _flush(self, positions: dict[str, int]) -> None:
        try:
            update = await self._update(positions)
            self._check()
            if self._desk.on_update is not None:
                await self._desk.on_update(update)
            await self._stores.index.put(update)
        except BaseException:
            # What was taken out of the folds is lost to them: the index says where to go on.
            for session in self._touched:
                self._folds.pop(session, None)
            raise
        finally:
            captured, self._captured = self._captured, []
            self._touched = {}
            self._pending = 0
        now_ns = time.time_ns()
        for ts_ns in captured:
            self._desk.found_s.observe(max(0, now_ns - ts_ns) / 1e9)
        self._desk.rested = time.monotonic()

    async def _update(self, positions: dict[str, int]) -> Update:
        sessions: list[SessionDocument] = []
        commands: list[CommandDocument] = []
        orphans: list[Orphan] = []
        progress: dict[str, bytes | None] = {}
        again: dict[str, int] = {}
        for fold in self._touched.values():
            document, changed, left = fold.take()
            if document is not None:
                sessions.append(document)
                chains = {epoch: self._heard.chain((fold.session, epoch)) for epoch in fold.epochs}
                fold.heard = {epoch: chain for epoch, chain in chains.items() if chain is not None}
                progress[document.id] = fold.progress()
            if fold.again:
                again[fold.session.hex()] = fold.again
            commands += changed
            orphans += left
        if orphans:
            commands = await self._answered(orphans, commands)
        self._tally.commands += len(commands)
        return Update(tuple(sessions), tuple(commands), positions, progress, again)

    async def _answered(
        self, orphans: Iterable[Orphan], commands: Iterable[CommandDocument]
    ) -> list[CommandDocument]:
        """The commands, with those that results came for after they had left memory."""
        named = {command.id: command for command in commands}
        for orphan in orphans:
            command = named.get(orphan.command) or await self._stores.index.command(orphan.command)
            if command is None:
                self._tally.unanswered += 1
            else:
                named[orphan.command] = finished(command, orphan.result)
        return list(named.values())
