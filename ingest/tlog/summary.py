"""What the log says so far, as far as its writer needs it to go on: heartbeats, keys, numbers.

It follows from the entries alone, one after the other, so it can be made again from them. Since
that takes long for a large log, it is kept now and then (`ingest.tlog.kept`). Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from sealtape.schemas import canonical, notes
from sealtape.schemas.canonical import Fields, Json
from sealtape.schemas.errors import FormatError
from sealtape.schemas.segments import SegmentRecord, record_hash
from sealtape.schemas.tlog.records import (
    Entry,
    Heartbeat,
    Listed,
    LogStart,
    NodeCount,
    SessionOpen,
    SessionSeal,
    ShardEnd,
    parse_entry,
)
from sealtape.schemas.tlog.statements import KeyStatement, Statement
from sealtape.schemas.tree import HASH_SIZE, CompactRange, leaf_hash

__all__ = ["Hole", "LogSummary", "Numbering"]

Worker: TypeAlias = tuple[str, bytes, int]
"""A node, its boot, and its worker: who numbers sessions."""
_MAX_I64: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Hole:
    """Session numbers [lo, hi) that never came, though a session with a higher one did."""

    lo: int
    hi: int
    session: bytes
    epoch: int


@dataclass(slots=True)
class Numbering:
    """The numbers of one worker's sessions: the highest that came, and what is missing below."""

    highest: int = 0
    holes: list[Hole] = field(default_factory=list)

    def take(self, entry: SessionOpen) -> None:
        """A session came."""
        number = entry.number
        if number > self.highest:
            if number > self.highest + 1:
                self.holes.append(Hole(self.highest + 1, number, entry.session, entry.epoch))
            self.highest = number
        elif self.holes:
            self.holes = [part for hole in self.holes for part in _without(hole, number)]


def _without(hole: Hole, number: int) -> Iterator[Hole]:
    if not hole.lo <= number < hole.hi:
        yield hole
        return
    for lo, hi in ((hole.lo, number), (number + 1, hole.hi)):
        if lo < hi:
            yield Hole(lo, hi, hole.session, hole.epoch)


class LogSummary:
    """Everything up to `size` of shard `number`."""

    def __init__(self) -> None:
        """Of no log."""
        self.number = 0
        self.size = 0
        self.started_ns = 0
        self.at_ns = 0
        """The latest time that an entry states."""
        self.beaten_ns = 0
        """The time of the last heartbeat of this shard; 0 before the first."""
        self.since_beat = 0
        """Entries behind the last heartbeat."""
        self.open = 0
        self.keys = CompactRange()
        """Leaves of the shard's `key` entries."""
        self.live: dict[str, str] = {}
        """Keys that count now, with their roles."""
        self.ended: dict[str, tuple[str, int]] = {}
        """Keys that counted in this shard: their roles, and from which index on they do not."""
        self.shards: dict[str, tuple[int, bytes]] = {}
        self.nodes: dict[Worker, Numbering] = {}

    def take(self, data: bytes) -> Entry:
        """Add the bytes of the next entry; FormatError when they are none, or belong elsewhere."""
        entry = parse_entry(data)
        self.add(entry, data)
        return entry

    def add(self, entry: Entry, data: bytes) -> None:
        """Add the next entry, of which `data` are the bytes; FormatError: it belongs elsewhere."""
        if isinstance(entry, LogStart):
            self._begin(entry)
        elif not self.size:
            raise FormatError("the first entry of a log's shard is `log`")
        self._add(entry, data)
        self.size += 1
        self.since_beat += 1
        if isinstance(entry, Heartbeat):
            self.beaten_ns, self.since_beat = entry.at_ns, 0
        if not isinstance(entry, (SegmentRecord, Statement)):
            self.at_ns = max(self.at_ns, entry.at_ns)

    def heartbeat(self, now_ns: int, every_s: int) -> Heartbeat:
        """The heartbeat that would be the next entry."""
        ends = [ShardEnd(shard, n, digest) for shard, (n, digest) in self.shards.items()]
        counts = [
            NodeCount(node, boot, worker, numbering.highest)
            for (node, boot, worker), numbering in self.nodes.items()
        ]
        return Heartbeat(
            at_ns=now_ns,
            index=self.size,
            every_s=every_s,
            keys=Listed(len(self.keys), self.keys.root()),
            shards=Listed.of(sorted(end.line() for end in ends)),
            nodes=Listed.of(sorted(count.line() for count in counts)),
            open=self.open,
        )

    def holes(self) -> Iterator[tuple[Worker, Hole]]:
        """All numbers that are missing."""
        for worker, numbering in self.nodes.items():
            for hole in numbering.holes:
                yield worker, hole

    def keys_of(self, *roles: str) -> list[notes.Verifier]:
        """The keys that count now in one of these roles, of those that sign notes."""
        found = []
        for vkey, role in self.live.items():
            if role in roles:
                try:
                    found.append(notes.Verifier.from_vkey(vkey))
                except FormatError:
                    continue  # a key that signs no notes, such as an auditor's
        return found

    def _begin(self, entry: LogStart) -> None:
        if entry.number != self.number + 1:
            raise FormatError(f"shard {entry.number} of the log does not follow {self.number}")
        self.number, self.size = entry.number, 0
        self.started_ns, self.beaten_ns = entry.at_ns, 0
        self.keys, self.live, self.ended = CompactRange(), {}, {}

    def _add(self, entry: Entry, data: bytes) -> None:
        match entry:
            case SegmentRecord():
                self.shards[entry.shard] = (entry.n, record_hash(entry))
            case SessionOpen():
                self.open += 1
                name = (entry.node, entry.boot, entry.worker)
                self.nodes.setdefault(name, Numbering()).take(entry)
            case SessionSeal():
                self.open -= 1
            case Statement(body=KeyStatement() as body):
                self.keys.append(leaf_hash(data))
                self._key(body)
            case _:
                pass

    def _key(self, body: KeyStatement) -> None:
        if body.since is not None:
            self._end(body.key, body.since)
            return
        if body.replaces:
            self._end(body.replaces, self.size + 1)
        self.live[body.key] = body.role

    def _end(self, key: str, since: int) -> None:
        role = self.live.pop(key, "") or self.ended.get(key, ("", 0))[0]
        if role:
            self.ended[key] = (role, since)

    # -- kept --------------------------------------------------------------------------------------

    def to_json(self) -> bytes:
        """Write it."""
        shards: list[Json] = [
            {"shard": shard, "n": str(n), "hash": digest.hex()}
            for shard, (n, digest) in sorted(self.shards.items())
        ]
        nodes: list[Json] = [
            {
                "node": node,
                "boot": boot.hex(),
                "worker": worker,
                "highest": str(numbering.highest),
                "holes": [_hole_members(hole) for hole in numbering.holes],
            }
            for (node, boot, worker), numbering in sorted(self.nodes.items())
        ]
        live: list[Json] = [{"key": key, "role": role} for key, role in self.live.items()]
        ended: list[Json] = [
            {"key": key, "role": role, "since": str(since)}
            for key, (role, since) in self.ended.items()
        ]
        return canonical.encode(
            {
                "v": 1,
                "number": self.number,
                "size": str(self.size),
                "started_ns": str(self.started_ns),
                "at_ns": str(self.at_ns),
                "beaten_ns": str(self.beaten_ns),
                "since_beat": str(self.since_beat),
                "open": str(self.open),
                "keys": {
                    "count": str(len(self.keys)),
                    "nodes": [node.hex() for node in self.keys.nodes],
                },
                "live": live,
                "ended": ended,
                "shards": shards,
                "nodes": nodes,
            }
        )

    @classmethod
    def from_json(cls, data: bytes) -> LogSummary:
        """Read what `to_json` wrote; FormatError for anything else."""
        fields = canonical.fields(data, "summary of the log")
        fields.version(1)
        found = cls()
        found.number = fields.integer("number")
        found.size = fields.decimal("size", 0, _MAX_I64)
        found.started_ns = fields.time_ns("started_ns")
        found.at_ns = fields.time_ns("at_ns")
        found.beaten_ns = fields.time_ns("beaten_ns")
        found.since_beat = fields.decimal("since_beat", 0, _MAX_I64)
        found.open = fields.decimal("open", 0, _MAX_I64)
        keys = fields.object("keys")
        count = keys.decimal("count", 0, _MAX_I64)
        found.keys = CompactRange(0, count, keys.hexes("nodes", HASH_SIZE))
        keys.end()
        for item in fields.objects("live"):
            found.live[item.text("key")] = item.text("role")
            item.end()
        for item in fields.objects("ended") if fields.has("ended") else ():
            since = item.decimal("since", 0, _MAX_I64)
            found.ended[item.text("key")] = (item.text("role"), since)
            item.end()
        for item in fields.objects("shards"):
            end = (item.decimal("n", 0, _MAX_I64), item.hex("hash", HASH_SIZE))
            found.shards[item.text("shard")] = end
            item.end()
        for item in fields.objects("nodes", max_items=1 << 22):
            name = (item.text("node"), item.hex("boot", 16), item.integer("worker"))
            found.nodes[name] = _numbering(item)
        fields.end()
        return found


def _hole_members(hole: Hole) -> Json:
    return {
        "lo": str(hole.lo),
        "hi": str(hole.hi),
        "session": hole.session.hex(),
        "epoch": hole.epoch,
    }


def _numbering(fields: Fields) -> Numbering:
    found = Numbering(fields.decimal("highest", 0, _MAX_I64))
    for item in fields.objects("holes"):
        found.holes.append(
            Hole(
                item.decimal("lo", 1, _MAX_I64),
                item.decimal("hi", 1, _MAX_I64),
                item.hex("session", 16),
                item.integer("epoch"),
            )
        )
        item.end()
    fields.end()
    return found
