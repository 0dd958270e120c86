"""The log's rows, out of its entry bundles in the vault.

The bundles say all: which entries there are, what they are named, what incidents there were and
which segment records were published. Where the log's writer stood in the ledger does not come back;
it begins anew and passes over what has its name in the log already. What it remembers of a long log
is made on the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from sealtape.ingest.findings import REASONS
from sealtape.ingest.ledger.base import Ledger
from sealtape.ingest.ledger.rows import Incident, Lease, LogEntry
from sealtape.ingest.tlog.kept import Cursor, keep
from sealtape.ingest.tlog.names import name_of
from sealtape.ingest.tlog.store import CHECKPOINT, PENDING, LogStore
from sealtape.ingest.tlog.summary import LogSummary
from sealtape.ingest.tlog.writer import KEEP_EVERY
from sealtape.ingest.vault.base import Vault
from sealtape.schemas.errors import Fenced, FormatError, StoreCorrupt
from sealtape.schemas.notes import Checkpoint, parse_checkpoint, parse_note
from sealtape.schemas.segments import SegmentRecord, record_hash
from sealtape.schemas.tlog.records import Entry, LogIncident
from sealtape.schemas.tlog.tiles import WIDTH, Tile
from sealtape.schemas.tree import CompactRange, leaf_hash

__all__ = ["FoundLog", "LogRebuild", "has_log", "place_of"]

PREFIX = "log/v1/"
CHUNK = 32 * WIDTH
"""Names are in no order, and a transaction writes their pages: in a large one each only once."""
UNKNOWN = -1

Place = tuple[str, int, int, str, bytes, int, int]
"""Topic, partition, offset, reason, session, epoch and seq: what the ledger knows it by."""
Subject = tuple[str, int, str, bytes, int, int]
"""Topic, partition, reason, session, epoch and seq: what sealed frames say of an incident."""


@dataclass(slots=True)
class FoundLog:
    """What the log in the vault says.

    Attributes:
        entries: how many all its shards have.
        records: the last segment record of each chain, as (n, hash).
        incidents: all that are in it, by their places.
        places: the offsets of incidents, by what they are about.
    """

    entries: int = 0
    records: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    incidents: dict[Place, Incident] = field(default_factory=dict)
    places: dict[Subject, int] = field(default_factory=dict)

    def take(self, entry: Entry) -> None:
        """Note what an entry says."""
        if isinstance(entry, SegmentRecord):
            self.records[entry.shard] = (entry.n, record_hash(entry))
        elif isinstance(entry, LogIncident):
            found = _incident(entry)
            self.incidents[place_of(found)] = found
            self.places[_subject(found)] = found.offset

    def known(self, incident: Incident) -> Incident:
        """An incident with the time at which it was found, where the log has that."""
        found = self.incidents.get(place_of(incident))
        return incident if found is None else replace(incident, at_ns=found.at_ns)

    def offset_of(
        self, topic: str, partition: int, reason: str, name: tuple[bytes, int, int]
    ) -> int | None:
        """Where an incident of (session, epoch, seq) was found, if the log has it."""
        return self.places.get((topic, partition, reason, *name))

    def lowest(self, topic: str, partition: int) -> int:
        """The lowest offset of an incident of this partition in the log; 0 at most."""
        offsets = [place[2] for place in self.incidents if place[:2] == (topic, partition)]
        return min([0, *offsets])


class LogRebuild:
    """Reads the shards one after the other and appends them to an empty ledger."""

    def __init__(self, ledger: Ledger, vault: Vault) -> None:
        """Nothing is read yet."""
        self._ledger = ledger
        self._vault = vault
        self._found = FoundLog()
        self._summary = LogSummary()

    async def run(self, lease: Lease) -> FoundLog:
        """Append every entry that the vault has, under the log's lease. Raises `StoreCorrupt`."""
        number = 1
        while await self._shard(lease, number):
            number += 1
        summary = self._summary
        if summary.size > KEEP_EVERY:
            cursor = await keep(self._vault, summary, Cursor())
            await self._ledger.log_append(lease, summary.number, summary.size, [], cursor.to_json())
        return self._found

    async def _shard(self, lease: Lease, number: int) -> bool:
        store = LogStore(self._vault, number)
        size, beyond = await self._bundles(store)
        notes = {name: await store.get(name) for name in (PENDING, CHECKPOINT)}
        signed = {
            name: _checkpoint(store.prefix + name, note) for name, note in notes.items() if note
        }
        for name, checkpoint in signed.items():
            if checkpoint.size > size:
                raise StoreCorrupt(
                    f"{store.prefix}{name} is of {checkpoint.size} entries, of which the vault has"
                    f" {size}.",
                    hint="Bring the log's objects back from a copy.",
                )
        if not size:
            return False
        for tile in beyond:
            # Nobody signed these, and what comes in their place states another time.
            await store.drop(tile.path)
        await self._entries(lease, store, number, size, list(signed.values()))
        newest = max(signed, key=lambda name: (signed[name].size, name == PENDING), default="")
        if newest:
            await self._ledger.log_noted(lease, number, notes[newest], notes[CHECKPOINT])
        return True

    async def _bundles(self, store: LogStore) -> tuple[int, list[Tile]]:
        """How many entries there are without a hole, and the bundles behind one."""
        tiles: list[Tile] = []
        widths: dict[int, int] = {}
        async for key in self._vault.keys(f"{store.prefix}tile/entries/"):
            try:
                tile = Tile.from_path(key.removeprefix(store.prefix))
            except FormatError as error:
                raise StoreCorrupt(f"{key} is no bundle of the log.", key=key) from error
            tiles.append(tile)
            widths[tile.index] = max(tile.width, widths.get(tile.index, 0))
        index = 0
        while widths.get(index) == WIDTH:
            index += 1
        size = index * WIDTH + widths.get(index, 0)
        return size, [tile for tile in tiles if tile.first >= size]

    async def _entries(
        self,
        lease: Lease,
        store: LogStore,
        number: int,
        size: int,
        signed: Sequence[Checkpoint],
    ) -> None:
        tree = CompactRange()
        for first in range(0, size, CHUNK):
            data = await store.entries(first, min(first + CHUNK, size))
            entries = list(self._named(store, number, first, data))
            for entry in entries:
                tree.append(leaf_hash(entry.entry))
                _check_root(store, tree, signed)
            try:
                await self._ledger.log_append(lease, number, first, entries, b"")
            except Fenced as error:
                raise StoreCorrupt(
                    f"Entries {first} to {first + len(entries) - 1} of {store.prefix} do not go"
                    f" into the ledger: {error.message}"
                ) from error
            self._found.entries += len(entries)

    def _named(
        self, store: LogStore, number: int, first: int, data: Sequence[bytes]
    ) -> Iterator[LogEntry]:
        for index, each in enumerate(data, first):
            try:
                entry = self._summary.take(each)
            except FormatError as error:
                raise StoreCorrupt(
                    f"Entry {index} of {store.prefix} is not understood: {error.message}."
                ) from error
            self._found.take(entry)
            yield LogEntry(index, name_of(entry, index, number), each)


async def has_log(vault: Vault) -> bool:
    """Whether there is anything of a log in the vault."""
    async for _ in vault.keys(PREFIX):
        return True
    return False


def place_of(incident: Incident) -> Place:
    """What the ledger knows an incident by."""
    topic, partition, reason, session, epoch, seq = _subject(incident)
    return topic, partition, incident.offset, reason, session, epoch, seq


def _check_root(store: LogStore, tree: CompactRange, signed: Sequence[Checkpoint]) -> None:
    for checkpoint in signed:
        if checkpoint.size == tree.hi and checkpoint.root != tree.root():
            raise StoreCorrupt(
                f"The {tree.hi} entries of {store.prefix} are not those that were signed.",
                hint="Bring the log's objects back from a copy.",
            )


def _checkpoint(key: str, note: bytes) -> Checkpoint:
    try:
        return parse_checkpoint(parse_note(note).text)
    except FormatError as error:
        raise StoreCorrupt(f"{key} is no checkpoint: {error.message}.", key=key) from error


def _incident(entry: LogIncident) -> Incident:
    return Incident(
        topic=entry.bus.topic,
        partition=entry.bus.partition,
        offset=entry.bus.offset,
        reason=entry.reason,
        detail=REASONS.get(entry.reason, ""),
        session=entry.session,
        epoch=UNKNOWN if entry.epoch is None else entry.epoch,
        seq=UNKNOWN if entry.seq is None else entry.seq,
        at_ns=entry.at_ns,
    )


def _subject(incident: Incident) -> Subject:
    return (
        incident.topic,
        incident.partition,
        incident.reason,
        incident.session,
        incident.epoch,
        incident.seq,
    )
