"""The log's writer: rows of the ledger in, entries of the log out, each once.

It works while it holds the lease ("log", 0). Every batch goes into the ledger in one transaction
with the cursor behind it, fenced by the lease: whatever is killed, and whoever else believes to be
the writer, an entry is there once or not at all. A name that is taken already is passed over, so a
writer may begin anew at any earlier cursor.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from sealtape.ingest.cut import incident_event
from sealtape.ingest.findings import REASONS
from sealtape.ingest.ledger.rows import (
    FragmentRow,
    Head,
    Incident,
    Lease,
    LogEntry,
    Publish,
    SegmentRow,
    Unsealed,
)
from sealtape.ingest.tlog.derive import (
    Patience,
    continued_at,
    incident_entry,
    open_entry,
    place_after,
    seal_entry,
)
from sealtape.ingest.tlog.gate import INCIDENT, STATEMENT, check_submitted
from sealtape.ingest.tlog.kept import Cursor, forget, keep
from sealtape.ingest.tlog.names import NO_OFFSET, name_of, seal_name, segment_name
from sealtape.ingest.tlog.parts import LogParts
from sealtape.ingest.tlog.pending import PendingSeals, seals_among
from sealtape.ingest.tlog.summary import LogSummary
from sealtape.schemas.errors import FormatError
from sealtape.schemas.segments import record_hash
from sealtape.schemas.tlog.records import Entry, LogIncident, LogStart, encode_entry, parse_entry

__all__ = ["LOG", "Writer"]

LOG: Final = "log"
"""The topic of the writer's lease; its only partition is 0."""
CHUNK: Final = 500
"""Most entries of one transaction."""
SEGMENTS: Final = 64
FRAGMENTS: Final = 4096
"""Most segments and, but for a single one, fragments that are read for one batch."""
AT_ONCE: Final = 16
LOOK_S: Final = 1.0
"""Shortest time between two looks at what is not sealed."""
KEEP_EVERY: Final = 10_000
"""A summary is kept every so many entries."""
LEAP_NS: Final = 600 * 10**9
"""How far the clock may go back before entries follow it."""
_HASTE: Final = 0.75
"""Heartbeats are a quarter earlier than promised, so that a slow store delays none too long."""

log = logging.getLogger(__name__)

Name: TypeAlias = tuple[bytes, int]


@dataclass(frozen=True, slots=True)
class _Item:
    """An entry to be, and the cursor once it is in."""

    name: str
    data: bytes
    entry: Entry
    cursor: Cursor


class Writer:
    """Appends while `lease` is current; any failure is for a new writer to go on from."""

    def __init__(self, parts: LogParts, lease: Lease, summary: LogSummary, cursor: Cursor) -> None:
        """Go on from `summary` and `cursor`, as `recall` gives them."""
        self.summary = summary
        self.appended = 0
        """Entries that this writer has added."""
        self.pending = PendingSeals()
        self._parts = parts
        self._ledger = parts.ledger
        self._lease = lease
        self._position = lease.next_offset
        self._cursor = cursor
        self._pace = parts.pace
        self._patience = Patience(parts.pace.final_s)
        self._looked = -math.inf
        self._look_s = 0.0
        self._beat = -math.inf
        self._odd: set[Name] = set()

    # -- steps -------------------------------------------------------------------------------------

    async def begin(self, before: bytes = b"") -> None:
        """Begin the next shard; `before` is the last checkpoint of this one. Raises `Fenced`."""
        number = self.summary.number + 1
        start = LogStart(self._parts.log, number, self._now(), before.decode())
        entries = [start, *map(parse_entry, self._parts.introduce(number))]
        named = [
            _Item(name_of(entry, index, number), encode_entry(entry), entry, self._cursor)
            for index, entry in enumerate(entries)
        ]
        await self._add(number, 0, named, self._cursor)
        log.info("shard %d of the log %s begins", number, self._parts.log)

    async def introduced(self) -> bool:
        """Whether nodes would have keys in the next shard, if they have some in this one.

        A session that opens before its node's key is introduced could never be shown to be a
        node's: so statements that introduce one must wait in the inbox before the shard begins.
        """
        if "node" not in self.summary.live.values():
            return True
        number, after = self.summary.number + 1, 0
        following = LogSummary()
        following.number = self.summary.number
        following.add(LogStart(self._parts.log, number, self._now(), ""), b"")
        for entry in self._parts.introduce(number):
            following.take(entry)
        while rows := await self._ledger.inbox(after):
            after = rows[-1].id
            for row in rows:
                try:
                    if row.kind == STATEMENT:
                        check_submitted(row.kind, row.payload, self._parts.log, following)
                        following.take(row.payload)
                except FormatError:
                    continue  # it is refused, and said so, when its turn comes
        return "node" in following.live.values()

    async def step(self) -> bool:
        """Append what there is next; False when there is nothing. Raises StoreError."""
        before = self.appended
        await self._submitted()
        await self._incidents()
        more = await self._segments()
        await self._seals()
        if self._due():
            await self.heartbeat()
        return more or self.appended != before

    def look(self) -> None:
        """Look for final epochs with the next step, however short ago the last look was."""
        self._look_s = 0.0

    async def heartbeat(self) -> None:
        """Say how things stand; and keep the summary now and then."""
        entry = self.summary.heartbeat(self._now(), math.ceil(self._pace.heartbeat_s))
        await self._append([self._item(entry)])
        self._beat = self._parts.monotonic()
        kept = self._cursor
        if (
            self.summary.size - (kept.size if kept.number == self.summary.number else 0)
            > KEEP_EVERY
        ):
            cursor = await keep(self._parts.vault, self.summary, kept)
            if cursor != kept:
                await self._add(self.summary.number, self.summary.size, [], cursor)
                await forget(self._parts.vault, kept)

    def _due(self) -> bool:
        every_s = self._pace.heartbeat_s * _HASTE
        passed_s = (self._parts.clock_ns() - self.summary.beaten_ns) / 1e9
        return passed_s >= every_s or self._parts.monotonic() - self._beat >= every_s

    # -- the inbox ---------------------------------------------------------------------------------

    async def _submitted(self) -> None:
        after = 0
        while rows := await self._ledger.inbox(after):
            after = rows[-1].id
            mine = [row for row in rows if row.kind in (STATEMENT, INCIDENT)]
            for row in mine:
                # One by one: a key that is introduced may sign what comes next.
                try:
                    check_submitted(row.kind, row.payload, self._parts.log, self.summary)
                except FormatError as error:
                    log.error("what was submitted as %s is refused: %s", row.kind, error)  # noqa: TRY400
                    continue
                entry = parse_entry(row.payload)
                if isinstance(entry, LogIncident) and entry.bus.offset != NO_OFFSET:
                    await self._tell(entry)  # its entry is made of the ledger's row
                elif not await self._append([self._item(entry, row.payload)]):
                    log.error("a %s that is in the log already was submitted again", row.kind)
            if mine:
                await self._ledger.taken([row.id for row in mine])

    # -- incidents ---------------------------------------------------------------------------------

    async def _tell(self, entry: LogIncident) -> None:
        """Make an incident that another room found, at a place of its own, one of the ledger's."""
        place = entry.bus
        for known in await self._ledger.incidents(0, entry.session):
            where = (known.topic, known.partition, known.offset, known.reason)
            if where == (place.topic, place.partition, place.offset, entry.reason):
                return
        await self._publish(
            Incident(
                topic=place.topic,
                partition=place.partition,
                offset=place.offset,
                reason=entry.reason,
                detail=REASONS.get(entry.reason, "Another room found it."),
                session=entry.session,
                epoch=-1 if entry.epoch is None else entry.epoch,
                seq=-1 if entry.seq is None else entry.seq,
                at_ns=entry.at_ns,
            )
        )

    async def _publish(self, incident: Incident) -> None:
        place = place_after(self._position, self._now())
        await self._ledger.publish(
            Publish(
                lease=self._lease,
                first=self._position,
                next_offset=place + 1,
                shard=LOG,
                at_ns=self._now(),
                incidents=(incident,),
                events=(incident_event(incident),),
            )
        )
        self._position = place + 1

    async def _incidents(self) -> None:
        rows = await self._ledger.incidents(self._cursor.incident)
        items = []
        for row in rows:
            cursor = replace(self._cursor, incident=row.id)
            try:
                items.append(self._item(incident_entry(row), cursor=cursor))
            except FormatError as error:
                log.error("incident %d does not fit the log: %s", row.id, error)  # noqa: TRY400
        await self._append(items)
        if rows and self._cursor.incident < rows[-1].id:
            cursor = replace(self._cursor, incident=rows[-1].id)
            await self._add(self.summary.number, self.summary.size, [], cursor)

    async def _after_seal(self, row: FragmentRow) -> None:
        """Frames came for an epoch of which the log says that no more will: once, an incident."""
        record = row.record
        for known in await self._ledger.incidents(0, record.session):
            if (known.reason, known.epoch, known.seq) == ("after_seal", record.epoch, record.lo):
                return
        now_ns = self._now()
        place = place_after(self._position, now_ns)
        incident = Incident(
            topic=LOG,
            partition=0,
            offset=place,
            reason="after_seal",
            detail=REASONS["after_seal"],
            session=record.session,
            epoch=record.epoch,
            seq=record.lo,
            at_ns=now_ns,
        )
        await self._publish(incident)

    # -- segments ----------------------------------------------------------------------------------

    async def _segments(self) -> bool:
        """Append the next segments and the epochs that begin in them; False: there are none."""
        rows, held = [], []
        async for row in self._ledger.segments(self._cursor.segment):
            rows.append(row)
            held.append(await self._ledger.fragments_of(row.id))
            if len(rows) == SEGMENTS or sum(map(len, held)) >= FRAGMENTS:
                break
        if not rows:
            return False
        there = await self._ledger.log_find([segment_name(record_hash(row.record)) for row in rows])
        for row, fragments in zip(rows, held, strict=True):
            if segment_name(record_hash(row.record)) in there:
                fragments.clear()  # it is in the log with all that began in it
        await self._look_after_seals([f for fragments in held for f in fragments])
        begun = [
            (f.record.session, f.record.epoch)
            for fragments in held
            for f in fragments
            if f.record.lo == 0
        ]
        heads = await self._ledger.heads(begun)
        await self._append(await asyncio.to_thread(self._made, rows, held, heads))
        return True

    def _made(
        self,
        rows: Sequence[SegmentRow],
        held: Sequence[Sequence[FragmentRow]],
        heads: dict[Name, Head],
    ) -> list[_Item]:
        items: list[_Item] = []
        for row, fragments in zip(rows, held, strict=True):
            now_ns, cursor = self._now(), self._cursor
            if items:
                cursor = items[-1].cursor
            for fragment in fragments:
                head = heads.get((fragment.record.session, fragment.record.epoch))
                if fragment.record.lo == 0 and head is not None:
                    items.append(self._item(open_entry(head, now_ns), cursor=cursor))
            cursor = replace(cursor, segment=row.id)
            items.append(self._item(row.record, row.record.to_json(), cursor=cursor))
        return items

    async def _look_after_seals(self, rows: Sequence[FragmentRow]) -> None:
        names = {seal_name(row.record.session, row.record.epoch): row for row in rows}
        for name in await self._ledger.log_find(list(names)):
            await self._after_seal(names[name])

    # -- seals -------------------------------------------------------------------------------------

    async def _seals(self) -> None:
        """Seal the epochs that are final, if their last segment is in the log."""
        began = self._parts.monotonic()
        if began - self._looked < self._look_s:
            return
        items = await self._unsealed()
        quiet = {id(item) for item in self._patience.look(items, began)}
        for at in range(0, len(items), CHUNK):
            part = items[at : at + CHUNK]
            sealed = []
            for found in await _few_at_once(
                [self._final(each, id(each) in quiet) for each in part]
            ):
                sealed += found
            await self._append(await self._opened(sealed))
        self._looked = self._parts.monotonic()
        self._look_s = max(LOOK_S, 5 * (self._looked - began))

    async def _unsealed(self) -> list[Unsealed]:
        items: list[Unsealed] = []
        after = None
        while page := await self._ledger.unsealed(after):
            items += page
            after = (page[-1].head.session, page[-1].head.epoch)
        return items

    async def _final(self, item: Unsealed, quiet: bool) -> list[_Item]:  # noqa: FBT001
        """The seal of an epoch; none while something may come, or a segment is not in the log."""
        head = item.head
        if not (quiet or head.complete or (item.followed and await self._continued(head))):
            return []
        rows = await self._ledger.fragments(head.session)
        rows = [row for row in rows if row.record.epoch == head.epoch]
        if any(row.segment_id > self._cursor.segment for row in rows):
            return []
        name = (head.session, head.epoch)
        try:
            return [self._item(seal_entry(head, rows, self._now()))]
        except FormatError as error:
            if name not in self._odd:
                log.error("an epoch cannot be sealed in the log: %s", error)  # noqa: TRY400
            self._odd.add(name)
            return []

    async def _continued(self, head: Head) -> bool:
        """Whether all is here of an epoch that a later one goes on from."""
        size = continued_at(await self._ledger.epochs(head.session), head.epoch)
        return size is not None and head.hi >= size

    async def _opened(self, seals: Sequence[_Item]) -> list[_Item]:
        """Those seals whose `session-open` is in the log."""
        opens = {item.name: item.name.replace("seal/", "open/", 1) for item in seals}
        there = await self._ledger.log_find(list(opens.values()))
        return [item for item in seals if opens[item.name] in there]

    # -- appending ---------------------------------------------------------------------------------

    def _item(self, entry: Entry, data: bytes = b"", *, cursor: Cursor | None = None) -> _Item:
        data = data or encode_entry(entry)
        name = name_of(entry, self.summary.size, self.summary.number)
        return _Item(name, data, entry, cursor or self._cursor)

    async def _append(self, items: Sequence[_Item]) -> int:
        """Append what is not in the log yet, and move the cursor; returns how many were new."""
        before = self.appended
        for at in range(0, len(items), CHUNK):
            part = items[at : at + CHUNK]
            fresh = {item.name: item for item in part}
            for name in await self._ledger.log_find(list(fresh)):
                del fresh[name]
            cursor = part[-1].cursor
            if fresh or cursor != self._cursor:
                number, first = self.summary.number, self.summary.size
                await self._add(number, first, list(fresh.values()), cursor)
        return self.appended - before

    async def _add(self, number: int, first: int, items: Sequence[_Item], cursor: Cursor) -> None:
        entries = [
            LogEntry(first + place, item.name, item.data) for place, item in enumerate(items)
        ]
        await self._ledger.log_append(self._lease, number, first, entries, cursor.to_json())
        self._cursor = cursor
        for item in items:
            self.summary.add(item.entry, item.data)
        self.pending.add(self.summary.size, seals_among([item.entry for item in items]))
        self.appended += len(items)

    def _now(self) -> int:
        """The time that an entry states; it does not go back for a clock that is a little ahead.

        One that was far ahead is followed back: else the log would state times to come until they
        have come, and a monitor finds every entry of them.
        """
        now_ns, last_ns = self._parts.clock_ns(), self.summary.at_ns
        return last_ns if now_ns < last_ns <= now_ns + LEAP_NS else now_ns


async def _few_at_once(work: Sequence[Coroutine[Any, Any, list[_Item]]]) -> list[list[_Item]]:
    """Run all, some at the same time; their results in order."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(each: Coroutine[Any, Any, list[_Item]]) -> list[_Item]:
        async with turns:
            return await each

    return await asyncio.gather(*map(one, work))
