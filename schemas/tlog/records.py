"""The entries of the log: what was sealed, opened, found wrong, decided; and that nothing was.

An entry is one canonical JSON object. It names sessions, segments and nodes, and no person, target
or text. Rules, and what a reader of all entries may rely on: docs/spec/records.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias

from sealtape.schemas import canonical, notes, tree
from sealtape.schemas.bodies import (
    OPEN_TYPES,
    Continues,
    RetentionClass,
    read_node,
)
from sealtape.schemas.canonical import Fields, Json
from sealtape.schemas.errors import FormatError
from sealtape.schemas.frames import SESSION_SIZE
from sealtape.schemas.layout import check_name
from sealtape.schemas.segments import SegmentRecord
from sealtape.schemas.tlog.statements import STATEMENTS, Statement, read_statement
from sealtape.schemas.tlog.tiles import MAX_ENTRY

if TYPE_CHECKING:
    from collections.abc import Iterable

DIGEST: Final = 32
_MAX_I64: Final = 2**63 - 1
_MAX_U32: Final = 2**32 - 1
_NAME: Final = 256
UNREADABLE: Final = "unreadable"
"""What a seal gives as the reason of a CLOSE whose body has none."""
_WORD: Final = re.compile(r"[a-z][a-z0-9_]{0,31}", re.ASCII)


@dataclass(frozen=True, slots=True)
class LogStart:
    """Entry 0 of every shard of the log.

    Attributes:
        log: the deployment's log name.
        number: the shard's, from 1; `log/number` is the origin of its checkpoints.
        before: the last checkpoint of the shard before, with its signatures; empty for the first.
    """

    kind: ClassVar = "log"

    log: str
    number: int
    at_ns: int
    before: str = ""

    def members(self) -> dict[str, Json]:
        """The JSON members of its own."""
        return {
            "log": self.log,
            "number": self.number,
            "at_ns": str(self.at_ns),
            "before": self.before,
        }

    @classmethod
    def read(cls, fields: Fields) -> LogStart:
        """Read the JSON members of its own."""
        log = fields.text("log", max_bytes=255)
        notes.check_key_name(log)
        found = cls(
            log,
            fields.integer("number", 1),
            fields.time_ns("at_ns"),
            fields.text("before", max_bytes=MAX_ENTRY),
        )
        if (found.number == 1) != (not found.before):
            fields.refuse("before", "must be the checkpoint of the shard before, if there is one")
        if found.before:
            text = notes.parse_note(found.before.encode()).text
            if notes.parse_checkpoint(text).origin != f"{log}/{found.number - 1}":
                fields.refuse("before", "must be of the shard before")
        return found


@dataclass(frozen=True, slots=True)
class SessionOpen:
    """An epoch of a session began; made of its OPEN, whose signed bytes `opening_sha256` names."""

    kind: ClassVar = "session-open"

    at_ns: int
    of: str
    tenant: str
    session: bytes
    epoch: int
    node: str
    boot: bytes
    worker: int
    number: int
    retention: RetentionClass
    anchor_ns: int
    continues: Continues | None
    opening_sha256: bytes

    def members(self) -> dict[str, Json]:
        """The JSON members of its own."""
        before = self.continues
        return {
            "at_ns": str(self.at_ns),
            "of": self.of,
            "tenant": self.tenant,
            "session": self.session.hex(),
            "epoch": self.epoch,
            "node": self.node,
            "boot": self.boot.hex(),
            "worker": self.worker,
            "number": str(self.number),
            "class": self.retention.members(),
            "anchor_ns": str(self.anchor_ns),
            "continues": None
            if before is None
            else {"epoch": before.epoch, "size": str(before.size), "root": before.root.hex()},
            "opening_sha256": self.opening_sha256.hex(),
        }

    @classmethod
    def read(cls, fields: Fields) -> SessionOpen:
        """Read the JSON members of its own."""
        return cls(
            at_ns=fields.time_ns("at_ns"),
            of=fields.text("of", choices=OPEN_TYPES),
            tenant=check_name(fields.text("tenant", max_bytes=63), "tenant"),
            session=fields.hex("session", SESSION_SIZE),
            epoch=fields.integer("epoch"),
            node=read_node(fields),
            boot=fields.hex("boot", 16),
            worker=fields.integer("worker", 0, 65535),
            number=fields.decimal("number", 0, _MAX_I64),
            retention=RetentionClass.read(fields.object("class")),
            anchor_ns=fields.time_ns("anchor_ns"),
            continues=_continues(fields),
            opening_sha256=fields.hex("opening_sha256", DIGEST),
        )


@dataclass(frozen=True, slots=True)
class Listed:
    """A list that lies elsewhere: how many lines, and their RFC 6962 root."""

    count: int
    root: bytes

    @classmethod
    def of(cls, lines: Iterable[bytes]) -> Listed:
        """Over the lines as they are, in their order."""
        leaves = [tree.leaf_hash(line) for line in lines]
        return cls(len(leaves), tree.root(leaves))

    def members(self) -> dict[str, Json]:
        """The JSON object."""
        return {"count": str(self.count), "root": self.root.hex()}

    @classmethod
    def read(cls, fields: Fields) -> Listed:
        """Read the JSON object."""
        found = cls(fields.decimal("count", 0, _MAX_I64), fields.hex("root", DIGEST))
        if not found.count and found.root != tree.EMPTY_ROOT:
            fields.refuse("root", "must be that of the empty tree when nothing is listed")
        fields.end()
        return found


@dataclass(frozen=True, slots=True)
class SessionSeal:
    """All that will ever be sealed of an epoch: exactly one for each.

    Attributes:
        frames: size of the epoch's tree, gaps counted in.
        root: its root; empty when frames are lost, since then nobody can compute it.
        lost: frames that never came.
        attested: the largest size that the epoch's own key signed.
        closed: CLOSE's reason, empty without one, UNREADABLE where the body gives none.
        complete: closed, nothing lost, and all of it attested.
        checkpoint_sha256: of the note over `attested` frames; zeros without one.
        fragments: the epoch's fragment records, ordered by their first frame.
    """

    kind: ClassVar = "session-seal"

    at_ns: int
    tenant: str
    session: bytes
    epoch: int
    retention: RetentionClass
    frames: int
    root: bytes
    lost: int
    attested: int
    closed: str
    first_ts_ns: int
    last_ts_ns: int
    opening_sha256: bytes
    checkpoint_sha256: bytes
    fragments: Listed

    @property
    def complete(self) -> bool:
        """Whether every frame up to CLOSE is there and signed by the epoch's key."""
        return bool(self.closed) and not self.lost and self.attested == self.frames

    def members(self) -> dict[str, Json]:
        """The JSON members of its own."""
        return {
            "at_ns": str(self.at_ns),
            "tenant": self.tenant,
            "session": self.session.hex(),
            "epoch": self.epoch,
            "class": self.retention.members(),
            "frames": str(self.frames),
            "root": self.root.hex(),
            "lost": str(self.lost),
            "attested": str(self.attested),
            "closed": self.closed,
            "first_ts_ns": str(self.first_ts_ns),
            "last_ts_ns": str(self.last_ts_ns),
            "opening_sha256": self.opening_sha256.hex(),
            "checkpoint_sha256": self.checkpoint_sha256.hex(),
            "fragments": self.fragments.members(),
        }

    @classmethod
    def read(cls, fields: Fields) -> SessionSeal:
        """Read the JSON members of its own."""
        found = cls(
            at_ns=fields.time_ns("at_ns"),
            tenant=check_name(fields.text("tenant", max_bytes=63), "tenant"),
            session=fields.hex("session", SESSION_SIZE),
            epoch=fields.integer("epoch"),
            retention=RetentionClass.read(fields.object("class")),
            frames=fields.decimal("frames", 1, _MAX_I64),
            root=fields.hex("root"),
            lost=fields.decimal("lost", 0, _MAX_I64),
            attested=fields.decimal("attested", 0, _MAX_I64),
            closed=fields.text("closed", max_bytes=32),
            first_ts_ns=fields.time_ns("first_ts_ns"),
            last_ts_ns=fields.time_ns("last_ts_ns"),
            opening_sha256=fields.hex("opening_sha256", DIGEST),
            checkpoint_sha256=fields.hex("checkpoint_sha256", DIGEST),
            fragments=Listed.read(fields.object("fragments")),
        )
        if found.closed and not _WORD.fullmatch(found.closed):
            fields.refuse("closed", "must be a lowercase word, or empty")
        if len(found.root) != (0 if found.lost else DIGEST):
            fields.refuse("root", "must be 32 bytes, or empty when frames are lost")
        if max(found.lost, found.attested) > found.frames:
            fields.refuse("frames", "must not be less than what is lost or attested of them")
        if (found.attested == 0) != (found.checkpoint_sha256 == bytes(DIGEST)):
            fields.refuse("checkpoint_sha256", "must be zeros when nothing is attested, only then")
        if found.last_ts_ns < found.first_ts_ns or not found.fragments.count:
            fields.refuse("fragments", "must be there, and the last frame not before the first")
        return found


@dataclass(frozen=True, slots=True)
class BusPlace:
    """Where on the bus something was found; offset -1 where it was not found there."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class LogIncident:
    """Something that must not happen, did: the reason as docs/ingest.md lists it.

    `session` is empty and `epoch`, `seq` are None where the incident is of none.
    """

    kind: ClassVar = "incident"

    at_ns: int
    reason: str
    bus: BusPlace
    session: bytes = b""
    epoch: int | None = None
    seq: int | None = None

    def members(self) -> dict[str, Json]:
        """The JSON members of its own."""
        return {
            "at_ns": str(self.at_ns),
            "reason": self.reason,
            "bus": {
                "topic": self.bus.topic,
                "partition": self.bus.partition,
                "offset": str(self.bus.offset),
            },
            "session": self.session.hex(),
            "epoch": self.epoch,
            "seq": None if self.seq is None else str(self.seq),
        }

    @classmethod
    def read(cls, fields: Fields) -> LogIncident:
        """Read the JSON members of its own."""
        inner = fields.object("bus")
        bus = BusPlace(
            inner.text("topic", max_bytes=_NAME),
            inner.integer("partition"),
            inner.decimal("offset", -(2**63), _MAX_I64),
        )
        inner.end()
        found = cls(
            fields.time_ns("at_ns"),
            fields.text("reason", max_bytes=32),
            bus,
            fields.hex("session"),
            None if fields.null("epoch") else fields.integer("epoch"),
            None if fields.null("seq") else fields.decimal("seq", 0, _MAX_I64),
        )
        if not _WORD.fullmatch(found.reason):
            fields.refuse("reason", "must be a lowercase word")
        if not bus.topic:
            inner.refuse("topic", "must be a name")
        if len(found.session) not in (0, SESSION_SIZE):
            fields.refuse("session", f"must be {SESSION_SIZE} bytes, or empty")
        return found


@dataclass(frozen=True, slots=True)
class ShardEnd:
    """The end of a chain of segment records."""

    shard: str
    n: int
    hash: bytes

    def line(self) -> bytes:
        """As a heartbeat lists it."""
        return canonical.encode({"shard": self.shard, "n": str(self.n), "hash": self.hash.hex()})


@dataclass(frozen=True, slots=True)
class NodeCount:
    """The highest session number that a worker of a node has opened, so far as the log has it."""

    node: str
    boot: bytes
    worker: int
    number: int

    def line(self) -> bytes:
        """As a heartbeat lists it."""
        return canonical.encode(
            {
                "node": self.node,
                "boot": self.boot.hex(),
                "worker": self.worker,
                "number": str(self.number),
            }
        )


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """How things stood at this index: said also when nothing has happened.

    Attributes:
        index: its own place in the log.
        every_s: after how many seconds, at most, the next one comes.
        keys: all `key` entries before it, as they are, in their order.
        shards: the end of every chain, a `ShardEnd.line` each, sorted.
        nodes: a `NodeCount.line` each, sorted.
        open: epochs that are opened and not sealed.
    """

    kind: ClassVar = "heartbeat"

    at_ns: int
    index: int
    every_s: int
    keys: Listed
    shards: Listed
    nodes: Listed
    open: int

    def members(self) -> dict[str, Json]:
        """The JSON members of its own."""
        return {
            "at_ns": str(self.at_ns),
            "index": str(self.index),
            "every_s": self.every_s,
            "keys": self.keys.members(),
            "shards": self.shards.members(),
            "nodes": self.nodes.members(),
            "open": str(self.open),
        }

    @classmethod
    def read(cls, fields: Fields) -> Heartbeat:
        """Read the JSON members of its own."""
        return cls(
            fields.time_ns("at_ns"),
            fields.decimal("index", 0, _MAX_I64),
            fields.integer("every_s", 1),
            Listed.read(fields.object("keys")),
            Listed.read(fields.object("shards")),
            Listed.read(fields.object("nodes")),
            fields.decimal("open", 0, _MAX_I64),
        )


Plain: TypeAlias = LogStart | SessionOpen | SessionSeal | LogIncident | Heartbeat
Entry: TypeAlias = Plain | SegmentRecord | Statement

_PLAIN: Final[dict[str, type[Plain]]] = {
    "log": LogStart,
    "session-open": SessionOpen,
    "session-seal": SessionSeal,
    "incident": LogIncident,
    "heartbeat": Heartbeat,
}
KINDS: Final = ("segment", *_PLAIN, *STATEMENTS)
"""Every kind of entry."""


def encode_entry(entry: Entry) -> bytes:
    """Write an entry; FormatError for what could not be read back."""
    if isinstance(entry, (SegmentRecord, Statement)):
        data = entry.to_json()
    else:
        data = canonical.encode({"v": 1, "type": entry.kind, **entry.members()})
    parse_entry(data)
    return data


def parse_entry(data: bytes) -> Entry:
    """Read an entry; FormatError for anything but the bytes that `encode_entry` makes."""
    if len(data) > MAX_ENTRY:
        raise FormatError(f"an entry has at most {MAX_ENTRY} bytes, not {len(data)}")
    fields = canonical.fields(data, "entry")
    kind = fields.text("type", choices=KINDS)
    if kind == "segment":
        return SegmentRecord.from_json(data)
    if kind in STATEMENTS:
        return read_statement(fields)
    fields.version(1)
    found = _PLAIN[kind].read(fields)
    fields.end()
    return found


def _continues(fields: Fields) -> Continues | None:
    inner = fields.optional_object("continues")
    if inner is None:
        return None
    found = Continues(
        inner.integer("epoch", 0, _MAX_U32 - 1),
        inner.decimal("size", 1, _MAX_I64),
        inner.hex("root", DIGEST),
    )
    inner.end()
    return found
