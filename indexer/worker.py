"""The indexer: makes documents of what the bus brings (live) and the ledger publishes (sealed).

Both are read at the same time. A frame is folded when it is first seen, wherever that is; seen
again it changes nothing. So the bus makes a session searchable while it runs, and the ledger makes
good whatever the indexer missed and tells when a session is sealed.

Positions are kept in the index with the documents they stand for. The bus is read from where
*ingest* stands: below that everything is in the ledger, and every key in the keyring. The indexer
holds the key of the facts alone; it cannot read what a query returned.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from sealtape.capture.bus import Bus, Record
from sealtape.indexer.documents import Orphan, SessionFold, finished
from sealtape.indexer.index import Index, Update
from sealtape.indexer.reading import Keys, Segments
from sealtape.ingest.keyring import Keyring
from sealtape.ingest.ledger import Ledger
from sealtape.ingest.ledger.rows import FragmentRow, SegmentRow
from sealtape.ingest.vault import Vault
from sealtape.schemas import messages
from sealtape.schemas.documents import CommandDocument, SessionDocument
from sealtape.schemas.errors import (
    FormatError,
    KeyUnavailable,
    Missing,
    NotFound,
    StoreBusy,
    StoreError,
)
from sealtape.schemas.frames import Frame, Kind
from sealtape.schemas.messages import KeyMessage
from sealtape.schemas.wraps import PrivateKey

__all__ = ["CONSUMER", "Indexer", "RunningIndexer", "Tally", "rebuild", "start_indexer"]

CONSUMER = "indexer"
"""Our name at the bus, for `mark`."""

READ_BYTES = 4 << 20
WAIT_S = 0.5
LEDGER_S = 0.5
COMMANDS = 4096
"""Commands in one write, about: what other sessions wait for when there is a backlog."""
BREATH_S = 0.002
"""Seconds of folding after which the event loop has its turn; `dev` records in the same loop."""
SEGMENTS = 16
"""Segments between two looks at whether to stop."""
MAX_FOLDS = 4096
"""Sessions kept in memory; the others come back from the index when they go on."""

_READ = frozenset((Kind.OPEN, Kind.IDENT, Kind.FACTS, Kind.CLOSE))
_RETRY_S = (0.1, 5.0)
_LEDGER = "ledger"

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Tally:
    """What an indexer did since it started."""

    frames: int = 0
    commands: int = 0
    segments: int = 0
    destroyed: int = 0
    """Frames passed over because the keys of their session were destroyed."""
    unreadable: int = 0
    """Frames indexed without their content: no key for us, or damaged."""
    malformed: int = 0
    """Messages on the bus that are none of ours; ingest puts them into quarantine."""
    early: int = 0
    """Frames on the bus left to ingest, because frames before them are nowhere yet."""
    unanswered: int = 0
    """Results whose command the index does not have."""


class Indexer:
    """Folds what it is given into the index; `start_indexer` runs one in the background."""

    def __init__(
        self,
        *,
        bus: Bus,
        ledger: Ledger,
        vault: Vault,
        keyring: Keyring,
        index: Index,
        private: PrivateKey | None,
    ) -> None:
        """Take the stores, which stay the caller's to close, and the indexer's private key."""
        self.tally = Tally()
        self._bus = bus
        self._ledger = ledger
        self._keyring = keyring
        self._index = index
        self._keys = Keys(keyring, private)
        self._segments = Segments(vault)
        self._folds: OrderedDict[bytes, SessionFold | None] = OrderedDict()
        self._touched: dict[bytes, SessionFold] = {}
        self._positions: dict[str, int] = {}
        self._behind: set[int] = set()
        self._pending = 0
        self._rested = 0.0
        self._lock = asyncio.Lock()

    # -- the bus -----------------------------------------------------------------------------------

    async def poll_bus(self, partition: int, *, wait_s: float = 0.0) -> bool:
        """Index what the bus has next; False when there was nothing within `wait_s`."""
        name = f"bus/{self._bus.topic}/{partition}"
        if name not in self._positions:
            self._positions[name] = await self._start(partition)
        position = self._positions[name]
        try:
            batch = await self._bus.read(partition, position, max_bytes=READ_BYTES, wait_s=wait_s)
        except Missing:
            # Deleted because ingest and a former run of ours passed it: the ledger has it.
            self._positions[name] = await self._start(partition)
            return True
        size = sum(len(record.value) for record in batch.records)
        (self._behind.add if size > READ_BYTES // 2 else self._behind.discard)(partition)
        if batch.next_offset == position:
            return False
        records = deque(batch.records)
        while True:
            async with self._lock:
                read = await self._fold(records)
                position = max(read if records else batch.next_offset, self._positions[name])
                await self._write({name: position})
                self._positions[name] = position
            if not records:
                return True

    def behind(self, partition: int) -> bool:
        """Whether the last read brought so much that there is probably more."""
        return partition in self._behind

    async def mark(self, partition: int) -> None:
        """Let the bus delete what is indexed."""
        position = self._positions.get(f"bus/{self._bus.topic}/{partition}")
        if position is not None:
            await self._bus.mark(CONSUMER, partition, position)

    async def _start(self, partition: int) -> int:
        first, _ = await self._bus.bounds(partition)
        return max(first, await self._ledger.position(self._bus.topic, partition))

    async def _fold(self, records: deque[Record]) -> int:
        """Fold records until they are enough for a write; return the offset behind the last one."""
        offset = 0
        while records and self._pending < COMMANDS:
            record = records.popleft()
            offset = record.next_offset
            await self._message(record)
            await self._breathe()
        return offset

    async def _message(self, record: Record) -> None:
        try:
            message = messages.decode(record.value)
            if message.session != record.key:
                raise FormatError("The bus key is not the session of the message.")
            if isinstance(message, KeyMessage):
                self._keys.learn(message)
        except FormatError:
            self.tally.malformed += 1
            return
        if isinstance(message, Frame):
            await self._live(message)

    async def _breathe(self) -> None:
        if time.monotonic() - self._rested > BREATH_S:
            await asyncio.sleep(0)
            self._rested = time.monotonic()

    async def _live(self, frame: Frame) -> None:
        fold = await self._fold_of(frame.session)
        if fold is None:
            self.tally.destroyed += 1
            return
        if frame.seq > fold.next_seq(frame.epoch):
            await self._catch_up(fold, frame)
        if frame.seq > fold.next_seq(frame.epoch):
            # Forged, or what is between was lost: ingest finds out, and then the ledger has it.
            self.tally.early += 1
            return
        await self._feed(fold, frame)

    async def _catch_up(self, fold: SessionFold, until: Frame) -> None:
        """Fold frames before `until` that did not come by the bus, as far as they are sealed."""
        for fragment in await self._ledger.fragments(fold.session):
            record = fragment.record
            if (record.epoch, record.lo) < (until.epoch, until.seq):
                end = until.seq if record.epoch == until.epoch else record.hi
                await self._sealed(fold, fragment, end)

    # -- the ledger --------------------------------------------------------------------------------

    async def poll_ledger(self) -> bool:
        """Index what the ledger published next; False when there is nothing new."""
        if _LEDGER not in self._positions:
            self._positions[_LEDGER] = (await self._index.positions()).get(_LEDGER, 0)
        worked = 0
        async for segment in self._ledger.segments(self._positions[_LEDGER]):
            async with self._lock:
                if segment.id > self._positions[_LEDGER]:
                    await self._segment(segment)
                    await self._write({_LEDGER: segment.id})
                    self._positions[_LEDGER] = segment.id
                    self.tally.segments += 1
            worked += 1
            if worked == SEGMENTS:
                break
        return worked > 0

    async def _segment(self, segment: SegmentRow) -> None:
        folds = []
        for fragment in await self._ledger.fragments_of(segment.id):
            fold = await self._fold_of(fragment.record.session)
            if fold is None:
                self.tally.destroyed += fragment.record.hi - fragment.record.lo
                continue
            await self._sealed(fold, fragment, fragment.record.hi)
            folds.append(fold)
        for fold in folds:
            if fold.closed and await self._is_sealed(fold) and fold.seal():
                self._touched[fold.session] = fold

    async def _sealed(self, fold: SessionFold, fragment: FragmentRow, end: int) -> None:
        record = fragment.record
        start = fold.next_seq(record.epoch)
        if start >= min(end, record.hi):
            return
        try:
            async for frame in self._segments.frames(fragment, start, end):
                await self._feed(fold, frame)
                if self._pending >= COMMANDS:
                    await self._flush({})
                await self._breathe()
        except (Missing, FormatError) as error:
            log.warning("a segment cannot be indexed: %s", error)
            self.tally.unreadable += record.hi - max(start, record.lo)

    async def _is_sealed(self, fold: SessionFold) -> bool:
        row = await self._ledger.session(fold.session)
        if row is None or row.state != "sealed":
            return False
        heads = await self._ledger.epochs(fold.session)
        return all(head.hi <= fold.next_seq(head.epoch) for head in heads)

    # -- folding -----------------------------------------------------------------------------------

    async def _fold_of(self, session: bytes) -> SessionFold | None:
        """The session's fold; None when its keys were destroyed."""
        if session in self._folds:
            self._folds.move_to_end(session)
            return self._folds[session]
        fold = None
        if not await self._keyring.destroyed(session):
            fold = await self._restored(session)
        self._folds[session] = fold
        return fold

    async def _restored(self, session: bytes) -> SessionFold:
        progress = await self._index.progress(session.hex())
        if progress is None:
            return SessionFold(session)
        try:
            document = await self._index.session(session.hex())
        except NotFound:
            document = None
        fold = SessionFold.restore(session, progress, document)
        for name in fold.running():
            command = await self._index.command(name)
            if command is not None:
                fold.give(command)
        return fold

    async def _feed(self, fold: SessionFold, frame: Frame) -> None:
        body: bytes | None = b""
        if frame.seq < fold.next_seq(frame.epoch):
            return
        if frame.kind in _READ:
            try:
                body = await self._keys.open(frame)
            except (FormatError, KeyUnavailable):
                body = None
        skipped, pending = fold.skipped, fold.pending
        fold.feed(frame, body)
        self._pending += fold.pending - pending
        self.tally.unreadable += fold.skipped - skipped
        self.tally.frames += 1
        self._touched[fold.session] = fold

    async def _write(self, positions: dict[str, int]) -> None:
        """Put what changed into the index, with the positions it stands for, in one write."""
        await self._flush(positions)
        while len(self._folds) > MAX_FOLDS:
            self._folds.popitem(last=False)

    async def _flush(self, positions: dict[str, int]) -> None:
        try:
            await self._index.put(await self._update(positions))
        except BaseException:
            # What was taken out of the folds is lost to them: the index says where to go on.
            for session in self._touched:
                self._folds.pop(session, None)
            raise
        finally:
            self._touched = {}
            self._pending = 0
        self._rested = time.monotonic()

    async def _update(self, positions: dict[str, int]) -> Update:
        sessions: list[SessionDocument] = []
        commands: list[CommandDocument] = []
        orphans: list[Orphan] = []
        progress: dict[str, bytes | None] = {}
        for fold in self._touched.values():
            document, changed, left = fold.take()
            if document is not None:
                sessions.append(document)
                progress[document.id] = fold.progress()
            commands += changed
            orphans += left
        if orphans:
            commands = await self._answered(orphans, commands)
        self.tally.commands += len(commands)
        return Update(tuple(sessions), tuple(commands), positions, progress)

    async def _answered(
        self, orphans: Iterable[Orphan], commands: Iterable[CommandDocument]
    ) -> list[CommandDocument]:
        """The commands, with those that results came for after they had left memory."""
        named = {command.id: command for command in commands}
        for orphan in orphans:
            command = named.get(orphan.command) or await self._index.command(orphan.command)
            if command is None:
                self.tally.unanswered += 1
            else:
                named[orphan.command] = finished(command, orphan.result)
        return list(named.values())


class RunningIndexer:
    """An indexer at work. `stop` ends it; `wait` returns then, or raises why it ended by itself."""

    def __init__(self, indexer: Indexer, partitions: int, *, refresh_s: float) -> None:
        """Start reading; needs a running event loop."""
        self._indexer = indexer
        self._partitions = range(partitions)
        self._refresh_s = refresh_s
        self._stopping = asyncio.Event()
        steps: list[Callable[[], Awaitable[None]]] = [self._step_ledger]
        steps += [partial(self._step_bus, partition) for partition in self._partitions]
        self._tasks = [asyncio.create_task(self._forever(step)) for step in steps]

    @property
    def tally(self) -> Tally:
        """What it did since it started."""
        return self._indexer.tally

    async def catch_up(self) -> None:
        """Return when all that bus and ledger hold now is indexed."""
        await catch_up(self._indexer, self._partitions)

    async def wait(self) -> None:
        """Return after `stop`; raise what made it fail before."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def stop(self) -> None:
        """Finish the batch in hand and end. The stores stay open. Stopping twice is fine."""
        self._stopping.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _step_bus(self, partition: int) -> None:
        if await self._indexer.poll_bus(partition, wait_s=WAIT_S):
            if not self._indexer.behind(partition):
                await self._pause(self._refresh_s)
        else:
            await self._indexer.mark(partition)

    async def _step_ledger(self) -> None:
        if not await self._indexer.poll_ledger():
            await self._pause(max(self._refresh_s, LEDGER_S))

    async def _forever(self, step: Callable[[], Awaitable[None]]) -> None:
        delay = _RETRY_S[0]
        while not self._stopping.is_set():
            try:
                await step()
                delay = _RETRY_S[0]
            except StoreError as error:
                log.warning("the indexer will try again: %s", error)
                await self._pause(error.retry_after_s if isinstance(error, StoreBusy) else delay)
                delay = min(2 * delay, _RETRY_S[1])

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)


async def catch_up(indexer: Indexer, partitions: Iterable[int]) -> None:
    """Index all that bus and ledger hold now."""
    partitions = tuple(partitions)
    worked = True
    while worked:
        worked = await indexer.poll_ledger()
        for partition in partitions:
            while await indexer.poll_bus(partition):
                worked = True


async def start_indexer(
    *,
    bus: Bus,
    ledger: Ledger,
    vault: Vault,
    keyring: Keyring,
    index: Index,
    private: PrivateKey | None,
    refresh_s: float = 0.3,
) -> RunningIndexer:
    """Index in the background. `private` is the indexer's key (None: nothing is encrypted).

    The stores stay the caller's: close them after `stop`. `refresh_s` is the least time between two
    writes of live facts, unless there is a backlog.
    """
    indexer = Indexer(
        bus=bus, ledger=ledger, vault=vault, keyring=keyring, index=index, private=private
    )
    return RunningIndexer(indexer, bus.partitions, refresh_s=refresh_s)


async def rebuild(
    *,
    bus: Bus,
    ledger: Ledger,
    vault: Vault,
    keyring: Keyring,
    index: Index,
    private: PrivateKey | None,
) -> Tally:
    """Empty the index and make it again from the ledger, the vault and the bus.

    No other indexer may run meanwhile. Sessions whose keys were destroyed do not come back.
    """
    await index.clear()
    indexer = Indexer(
        bus=bus, ledger=ledger, vault=vault, keyring=keyring, index=index, private=private
    )
    await catch_up(indexer, range(bus.partitions))
    return indexer.tally
