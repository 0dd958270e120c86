"""What of the log goes into a session's bundle: entries, checkpoints, time-stamps, proofs.

It reads the ledger for where things are and the vault for what they are; the proofs are computed
from the log's tiles and compared with the checkpoint before anything is written.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from sealtape.ingest.ledger import Ledger
from sealtape.ingest.ledger.rows import FragmentRow, Incident
from sealtape.ingest.tlog.names import name_of, open_name, seal_name, segment_name
from sealtape.ingest.tlog.store import CHECKPOINT, LogStore, noted_key
from sealtape.ingest.vault import Vault
from sealtape.schemas import notes
from sealtape.schemas.bodies import parse_open
from sealtape.schemas.bundle import inclusion_root, parts_without
from sealtape.schemas.errors import FormatError, NotFound, StoreCorrupt
from sealtape.schemas.segments import record_hash
from sealtape.schemas.tlog.records import BusPlace, Heartbeat, LogIncident, SessionOpen, parse_entry
from sealtape.schemas.tlog.statements import (
    DoneStatement,
    HoldStatement,
    IntentStatement,
    KeyStatement,
    PolicyStatement,
    ReleaseStatement,
    Statement,
)

__all__ = ["Selection", "Stamped", "select"]

MAX_BOUNDS: Final = 1000
"""Checkpoints, about, that bound the times of fragments."""

_PAGE: Final = 1000
_SIZE_DIGITS: Final = 20
_AUTHORITY: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Stamped:
    """A time-stamp over the checkpoint of a size, and its chain."""

    size: int
    authority: str
    tsr: bytes
    pem: bytes


@dataclass(slots=True)
class Selection:
    """What was chosen, as it will stand in the bundle.

    Attributes:
        session: whose it is.
        size: of the checkpoint that everything is proven under.
        entries: by index.
        inclusion: the hashes that prove them.
        notes: witnessed checkpoints by size, whole.
        consistency: proofs from the smaller ones to the largest.
        stamps: time-stamps over some of them.
        fragments: by epoch, in order, each with the index of its segment's entry.
        lacking: what a verifier will miss, in words.
    """

    session: bytes
    size: int
    entries: dict[int, bytes] = field(default_factory=dict)
    inclusion: Sequence[bytes] = ()
    notes: dict[int, bytes] = field(default_factory=dict)
    consistency: dict[int, Sequence[bytes]] = field(default_factory=dict)
    stamps: list[Stamped] = field(default_factory=list)
    fragments: dict[int, list[tuple[FragmentRow, int]]] = field(default_factory=dict)
    lacking: list[str] = field(default_factory=list)


async def select(ledger: Ledger, vault: Vault, session: bytes) -> Selection:
    """Choose what the bundle of a session needs.

    Raises:
        NotFound: nothing of the session is sealed, or no witnessed checkpoint covers it yet.
        StoreCorrupt: ledger and log contradict each other.
    """
    heads = await ledger.epochs(session)
    if not heads:
        msg = f"No frame of session {session.hex()} is sealed."
        raise NotFound(msg, hint="`sealtape sessions` lists those that are.")
    chosen = _Choice(ledger, vault, session, [head.epoch for head in heads])
    await chosen.places()
    await chosen.session_entries()
    await chosen.statements()
    await chosen.heartbeat()
    await chosen.incidents()
    await chosen.checkpoints([head.opening for head in heads])
    await chosen.stamps()
    await chosen.prove()
    return chosen.found


class _Choice:
    """A selection while it is made."""

    def __init__(self, ledger: Ledger, vault: Vault, session: bytes, epochs: Sequence[int]) -> None:
        self._ledger = ledger
        self._vault = vault
        self._session = session
        self._epochs = epochs
        self._names: dict[str, int] = {}
        self._number = 0
        self._store = LogStore(vault, 1)
        self._top = notes.Checkpoint("", 0, b"")
        self._covered: set[int] = set()
        self._sealed: list[int] = []
        self._intents: list[int] = []
        self.found = Selection(session, 0)

    async def places(self) -> None:
        """Where the log has the session, and the last witnessed checkpoint of that shard."""
        names = [open_name(self._session, epoch) for epoch in self._epochs]
        found = await self._ledger.log_find(names)
        shards = sorted({number for number, _ in found.values()})
        self._number = next(iter(shards), 1)
        self._in_one(shards)
        self._store = LogStore(self._vault, self._number)
        note = await self._store.get(CHECKPOINT)
        if note:
            self._top = notes.parse_checkpoint(notes.parse_note(note).text)
        self._names = {name: index for name, (_, index) in found.items() if index < self._top.size}
        if open_name(self._session, 0) not in self._names:
            msg = f"No witnessed checkpoint of the log covers session {self._session.hex()}."
            raise NotFound(msg, hint="`sealtape log show` says how far it is; --wait 60 waits.")
        self.found.size = self._top.size
        self.found.notes[self._top.size] = note

    def _in_one(self, shards: Iterable[int]) -> None:
        """Refuse a session with entries in another shard than the one that it opened in."""
        for number in shards:
            if number != self._number:
                msg = (
                    f"Session {self._session.hex()} lies in shards {self._number} and {number} of"
                    " the log."
                )
                raise NotFound(msg, hint="Such a session has no bundle; verify it where it is.")

    # -- entries --------------------------------------------------------------------------------

    async def session_entries(self) -> None:
        """Entry 0, and open, segments and seal of each epoch, as far as they are covered."""
        await self._take(0)
        rows = await self._ledger.fragments(self._session)
        segments = await self._segments({row.segment_key for row in rows})
        for epoch in self._epochs:
            opened = self._names.get(open_name(self._session, epoch))
            if opened is None:
                self.found.lacking.append(f"epoch {epoch} is not in the log yet")
                continue
            await self._take(opened)
            kept = self.found.fragments.setdefault(epoch, [])
            for row in sorted(rows, key=lambda row: row.record.lo):
                if row.record.epoch == epoch and row.segment_key in segments:
                    kept.append((row, segments[row.segment_key]))
            for _, index in kept:
                await self._take(index)
                self._covered.add(index)
            await self._seal(epoch)

    async def _segments(self, keys: Iterable[str]) -> dict[str, int]:
        """Where the entries of segments are, by the segments' keys."""
        names = {}
        for key in sorted(keys):
            row = await self._ledger.segment(key)
            if row is None:
                msg = f"The ledger names fragments of {key}, which it does not have."
                raise StoreCorrupt(msg, hint="`sealtape verify` says more.")
            names[segment_name(record_hash(row.record))] = key
        found = await self._ledger.log_find(list(names))
        self._in_one(number for number, _ in found.values())
        return {names[name]: index for name, (_, index) in found.items() if index < self._top.size}

    async def _seal(self, epoch: int) -> None:
        name = seal_name(self._session, epoch)
        place = (await self._ledger.log_find([name])).get(name)
        if place is not None:
            self._in_one([place[0]])
        if place is None or place[1] >= self._top.size:
            self.found.lacking.append(f"epoch {epoch} is not sealed in the log yet")
            return
        await self._take(place[1])
        self._covered.add(place[1])
        self._sealed.append(place[1])

    async def statements(self) -> None:
        """All `key` entries, and what was decided about the session and its class."""
        opened = [parse_entry(data) for data in self.found.entries.values()]
        classes = {
            (entry.tenant, entry.retention.name)
            for entry in opened
            if isinstance(entry, SessionOpen)
        }
        ids: set[bytes] = set()
        async for index, data in self._signed():
            entry = parse_entry(data)
            assert isinstance(entry, Statement)
            body = entry.body
            if isinstance(body, (HoldStatement, IntentStatement)):
                wanted = self._session in body.sessions
                ids |= {body.heading.id} if wanted else set()
            elif isinstance(body, ReleaseStatement):
                wanted = body.hold in ids
            elif isinstance(body, DoneStatement):
                wanted = body.intent in ids
            elif isinstance(body, PolicyStatement):
                wanted = (body.tenant, body.retention.name) in classes
            else:
                wanted = isinstance(body, KeyStatement)
            if wanted:
                self.found.entries[index] = data
            if wanted and isinstance(body, IntentStatement):
                self._intents.append(index)

    async def _signed(self) -> AsyncIterator[tuple[int, bytes]]:
        first = 0
        while page := await self._ledger.log_statements(self._number, first, _PAGE):
            for entry in page:
                if entry.index < self._top.size:
                    yield entry.index, entry.entry
            first = page[-1].index + 1

    async def heartbeat(self) -> None:
        """The first one behind everything else."""
        first = max(self.found.entries) + 1
        while page := await self._ledger.log_entries(self._number, first, _PAGE):
            for entry in page:
                if entry.index >= self._top.size:
                    break
                if entry.name.startswith("heartbeat/") and isinstance(
                    parse_entry(entry.entry), Heartbeat
                ):
                    self.found.entries[entry.index] = entry.entry
                    return
            first = page[-1].index + 1
        self.found.lacking.append("no heartbeat of the log is witnessed behind the session yet")

    async def incidents(self) -> None:
        """Incidents of the session that are in the log."""
        rows = await self._ledger.incidents(0, self._session)
        places = await self._ledger.log_find([_incident_name(row, self._number) for row in rows])
        for number, index in places.values():
            if number == self._number and index < self._top.size:
                await self._take(index)

    async def _take(self, index: int) -> None:
        if index not in self.found.entries:
            page = await self._ledger.log_entries(self._number, index, 1)
            if not page or page[0].index != index:
                msg = f"The ledger lacks entry {index} of the log."
                raise StoreCorrupt(msg, hint="`sealtape ledger rebuild` brings it back.")
            self.found.entries[index] = page[0].entry

    # -- checkpoints ----------------------------------------------------------------------------

    async def checkpoints(self, openings: Sequence[bytes]) -> None:
        """The first witnessed ones behind what they bound, the last ones before an intent."""
        last = 0
        covered = sorted(self._covered)
        # Of a session in very many segments only every so many is bounded exactly.
        step = -(-len(covered) // MAX_BOUNDS)
        for index in sorted({*covered[::step], *self._sealed, *self._intents}):
            if index >= last:
                last = await self._after(index)
                await self._keep(last)
        for index in self._intents:
            await self._keep(await self._before(index))
        for payload in openings:
            try:
                beacon = parse_open(payload, None)[0].beacon
            except FormatError:
                continue  # whether OPEN can be read is the verifier's to say
            if beacon is not None and beacon.origin == self._top.origin:
                await self._keep(beacon.size)

    async def _keep(self, size: int) -> None:
        """Keep the witnessed checkpoint of this size, if there is one before the largest."""
        if 0 < size < self._top.size and size not in self.found.notes:
            note = await self._store.get(noted_key(size))
            if note:
                self.found.notes[size] = note

    async def _after(self, index: int) -> int:
        """The size of the first witnessed checkpoint that covers an entry; the largest, if none."""
        prefix = self._store.prefix + "checkpoints/"
        async for key in self._vault.keys(prefix, self._store.prefix + noted_key(index)):
            return _size_of(key.removeprefix(prefix)) or self._top.size
        return self._top.size

    async def _before(self, index: int) -> int:
        """The size of the last witnessed checkpoint of at most so many entries; 0 without one."""
        prefix = self._store.prefix + "checkpoints/"
        digits = f"{index:0{_SIZE_DIGITS}d}"
        for width in range(_SIZE_DIGITS - 3, -1, -1):
            found = 0
            async for key in self._vault.keys(prefix + digits[:width]):
                size = _size_of(key.removeprefix(prefix))
                found = size if 0 < size <= index else found
            if found:
                return found
        return 0

    async def stamps(self) -> None:
        """Time-stamps over the first checkpoint behind the seals that has some."""
        prefix = self._store.prefix + "timestamps/"
        after = f"{prefix}{max(self._covered, default=0) + 1:0{_SIZE_DIGITS}d}/"
        async for key in self._vault.keys(prefix, after):
            folder, _, name = key.removeprefix(prefix).partition("/")
            size, stem = _size_of(folder), name.removesuffix(".tsr")
            if size > self._top.size or (self.found.stamps and self.found.stamps[0].size != size):
                return
            if name.endswith(".tsr") and _AUTHORITY.fullmatch(stem):
                await self._keep(size)
                pem = await self._store.get(f"timestamps/{folder}/{stem}.pem")
                tsr = await self._vault.get(key)
                if size in self.found.notes:
                    self.found.stamps.append(Stamped(size, stem, tsr, pem))

    # -- proofs ---------------------------------------------------------------------------------

    async def prove(self) -> None:
        """Compute the proofs, and see that they hold."""
        found, size = self.found, self._top.size
        found.entries = dict(sorted(found.entries.items()))
        parts = parts_without(size, found.entries)
        found.inclusion = await self._store.roots(parts, size)
        if inclusion_root(size, found.entries, found.inclusion) != self._top.root:
            msg = f"The ledger's entries are not those of the log's checkpoint at {size}."
            raise StoreCorrupt(msg, hint="`sealtape verify` says more.")
        for smaller in found.notes:
            if smaller != size:
                found.consistency[smaller] = await self._store.prove(smaller, size)


def _size_of(digits: str) -> int:
    """A size out of an object's name; 0 for what is none."""
    return int(digits) if len(digits) == _SIZE_DIGITS and digits.isdecimal() else 0


def _incident_name(row: Incident, number: int) -> str:
    place = BusPlace(row.topic, row.partition, row.offset)
    epoch, seq = (None if part < 0 else part for part in (row.epoch, row.seq))
    return name_of(LogIncident(row.at_ns, row.reason, place, row.session, epoch, seq), 0, number)
