"""Segments: the columns of the Parquet object and the records that seal it.

A segment is a Parquet object with one row per frame, a *segment record* that names its hash and the
record before it in its shard, and a *fragment record* per contiguous range of one session's frames.
The manifest holds the records verbatim, one line each. Rules: docs/spec/segments.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeAlias

from sealtape.schemas import canonical, tree
from sealtape.schemas.bodies import RetentionClass
from sealtape.schemas.canonical import Fields, Json
from sealtape.schemas.errors import FormatError
from sealtape.schemas.frames import SESSION_SIZE
from sealtape.schemas.layout import SegmentKey, check_name, parse_key

__all__ = [
    "COLUMNS",
    "FIRST_PREV",
    "MAX_FRAGMENTS",
    "BusRange",
    "FragmentCheckpoint",
    "FragmentGap",
    "FragmentRecord",
    "Fragments",
    "SegmentRecord",
    "encode_manifest",
    "fragments_root",
    "parse_manifest",
    "record_hash",
]

COLUMNS = (
    ("session", "fixed16"),
    ("epoch", "uint32"),
    ("seq", "int64"),
    ("ts_ns", "int64"),
    ("kind", "uint8"),
    ("suite", "uint8"),
    ("flags", "uint16"),
    ("payload_len", "uint32"),
    ("payload_sha256", "fixed32"),
    ("leaf", "fixed32"),
    ("payload", "binary"),
)
"""The columns, in order; all of them required. Rows are sorted by (session, epoch, seq)."""

FIRST_PREV = bytes(32)
MAX_FRAGMENTS = 65_536
MAX_RECORD = 64 << 10
MAX_MANIFEST = 256 << 20
MAX_REPLACES = 512
MAX_GAPS = 64

Octets: TypeAlias = bytes  # inside a record, `bytes` is a number of them

_DIGEST = 32
_MAX_I64 = (1 << 63) - 1
_MAX_NOTE = 16 << 10
_WORD = re.compile(r"[a-z][a-z0-9_]{0,31}", re.ASCII)


def _record(data: bytes, kind: str) -> Fields:
    if len(data) > MAX_RECORD:
        raise FormatError(f"A {kind} record has {len(data)} bytes; {MAX_RECORD} are allowed.")
    fields = canonical.fields(data, f"{kind} record")
    fields.version(1)
    fields.text("type", choices=(kind,))
    return fields


# -- fragments -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FragmentCheckpoint:
    """The largest checkpoint of the epoch with `lo < size <= hi`: its size and its signed note."""

    size: int
    note: str


@dataclass(frozen=True, slots=True)
class FragmentGap:
    """Frames [lo, hi) of the epoch that never arrived."""

    lo: int
    hi: int
    reason: str


@dataclass(frozen=True, slots=True)
class FragmentRecord:
    """Frames [lo, hi) of one session epoch in a segment, at its rows [rows[0], rows[1]).

    `nodes` are the hashes of the compact range [lo, hi), `bytes` the sum of the stored payloads.
    `gaps` state the frames directly before `lo` that never arrived.
    """

    tenant: str
    class_name: str
    session: Octets
    epoch: int
    lo: int
    hi: int
    nodes: tuple[Octets, ...]
    rows: tuple[int, int]
    first_ts_ns: int
    last_ts_ns: int
    bytes: int
    checkpoint: FragmentCheckpoint | None = None
    gaps: tuple[FragmentGap, ...] = ()

    @property
    def range(self) -> tree.CompactRange:
        """The fragment's part of the epoch's tree; extend one by the next to get to the root."""
        return tree.CompactRange(self.lo, self.hi, self.nodes)

    def to_json(self) -> Octets:
        """Write the record; what `from_json` would refuse is a FormatError."""
        checkpoint = self.checkpoint
        gaps: list[Json] = [
            {"lo": str(gap.lo), "hi": str(gap.hi), "reason": gap.reason} for gap in self.gaps
        ]
        data = canonical.encode(
            {
                "v": 1,
                "type": "fragment",
                "tenant": self.tenant,
                "class": self.class_name,
                "session": self.session.hex(),
                "epoch": self.epoch,
                "lo": str(self.lo),
                "hi": str(self.hi),
                "nodes": [node.hex() for node in self.nodes],
                "rows": [str(row) for row in self.rows],
                "first_ts_ns": str(self.first_ts_ns),
                "last_ts_ns": str(self.last_ts_ns),
                "bytes": str(self.bytes),
                "checkpoint": None
                if checkpoint is None
                else {"size": str(checkpoint.size), "note": checkpoint.note},
                "gaps": gaps,
            }
        )
        self._check()
        return data

    @classmethod
    def from_json(cls, data: Octets) -> FragmentRecord:
        """Read the record."""
        fields = _record(data, "fragment")
        rows = fields.decimals("rows", count=2, high=_MAX_I64)
        record = cls(
            tenant=fields.text("tenant", max_bytes=63),
            class_name=fields.text("class", max_bytes=63),
            session=fields.hex("session", SESSION_SIZE),
            epoch=fields.integer("epoch"),
            lo=fields.decimal("lo", 0, _MAX_I64),
            hi=fields.decimal("hi", 0, _MAX_I64),
            nodes=fields.hexes("nodes", _DIGEST, max_items=128),
            rows=(rows[0], rows[1]),
            first_ts_ns=fields.time_ns("first_ts_ns"),
            last_ts_ns=fields.time_ns("last_ts_ns"),
            bytes=fields.decimal("bytes", 0, _MAX_I64),
            checkpoint=_checkpoint(fields),
            gaps=tuple(_gap(inner) for inner in fields.objects("gaps", max_items=MAX_GAPS)),
        )
        fields.end()
        record._check()
        return record

    def _check(self) -> None:
        check_name(self.tenant, "tenant")
        check_name(self.class_name, "retention class")
        count = self.hi - self.lo
        if count < 1 or self.rows[1] - self.rows[0] != count:
            raise FormatError("A fragment has at least one frame, and one row for each.")
        _ = self.range
        if self.last_ts_ns < self.first_ts_ns:
            raise FormatError("A fragment's last frame must not be older than its first.")
        if self.checkpoint is not None and not self.lo < self.checkpoint.size <= self.hi:
            raise FormatError("A fragment's checkpoint must end inside the fragment.")
        before = -1
        for gap in self.gaps:
            if not before < gap.lo < gap.hi <= self.lo:
                raise FormatError("A fragment's gaps lie before it, in order and apart.")
            if not _WORD.fullmatch(gap.reason):
                raise FormatError("The reason for a gap must be a lowercase word.")
            before = gap.hi
        if self.gaps and before != self.lo:
            raise FormatError("A fragment's last gap must end where the fragment begins.")


def _checkpoint(fields: Fields) -> FragmentCheckpoint | None:
    inner = fields.optional_object("checkpoint")
    if inner is None:
        return None
    found = FragmentCheckpoint(
        inner.decimal("size", 1, _MAX_I64), inner.text("note", max_bytes=_MAX_NOTE)
    )
    inner.end()
    return found


def _gap(fields: Fields) -> FragmentGap:
    gap = FragmentGap(
        fields.decimal("lo", 0, _MAX_I64),
        fields.decimal("hi", 0, _MAX_I64),
        fields.text("reason", max_bytes=32),
    )
    fields.end()
    return gap


def fragments_root(fragments: Sequence[FragmentRecord]) -> bytes:
    """Return the RFC 6962 root over the canonical bytes of fragment records, in manifest order."""
    return tree.root([tree.leaf_hash(fragment.to_json()) for fragment in fragments])


# -- segments --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fragments:
    """How many fragment records a segment has, and their root."""

    count: int
    root: bytes


@dataclass(frozen=True, slots=True)
class BusRange:
    """The bus positions [first, next) that were read for a segment."""

    topic: str
    partition: int
    first: int
    next: int


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """What seals a segment. `prev` is the hash of the shard's record before, zeros for the first.

    `replaces` are the hashes of the records whose segments this one takes the place of.
    """

    shard: str
    n: int
    prev: Octets
    tenant: str
    retention: RetentionClass
    object: str
    sha256: Octets
    bytes: int
    rows: int
    fragments: Fragments
    bus: BusRange
    sealed_at_ns: int
    writer: str
    replaces: tuple[Octets, ...] = ()

    def to_json(self) -> Octets:
        """Write the record; what `from_json` would refuse is a FormatError."""
        data = canonical.encode(
            {
                "v": 1,
                "type": "segment",
                "shard": self.shard,
                "n": str(self.n),
                "prev": self.prev.hex(),
                "tenant": self.tenant,
                "class": self.retention.members(),
                "object": self.object,
                "sha256": self.sha256.hex(),
                "bytes": str(self.bytes),
                "rows": str(self.rows),
                "fragments": {
                    "count": self.fragments.count,
                    "root": self.fragments.root.hex(),
                },
                "bus": {
                    "topic": self.bus.topic,
                    "partition": self.bus.partition,
                    "first": str(self.bus.first),
                    "next": str(self.bus.next),
                },
                "replaces": [digest.hex() for digest in self.replaces],
                "sealed_at_ns": str(self.sealed_at_ns),
                "writer": self.writer,
            }
        )
        SegmentRecord.from_json(data)
        return data

    @classmethod
    def from_json(cls, data: Octets) -> SegmentRecord:
        """Read the record."""
        fields = _record(data, "segment")
        record = cls(
            shard=fields.text("shard", max_bytes=256),
            n=fields.decimal("n", 0, _MAX_I64),
            prev=fields.hex("prev", _DIGEST),
            tenant=fields.text("tenant", max_bytes=63),
            retention=RetentionClass.read(fields.object("class")),
            object=fields.text("object", max_bytes=512),
            sha256=fields.hex("sha256", _DIGEST),
            bytes=fields.decimal("bytes", 0, _MAX_I64),
            rows=fields.decimal("rows", 1, _MAX_I64),
            fragments=_fragments(fields.object("fragments")),
            bus=_bus(fields.object("bus")),
            replaces=fields.hexes("replaces", _DIGEST, max_items=MAX_REPLACES),
            sealed_at_ns=fields.time_ns("sealed_at_ns"),
            writer=fields.text("writer", max_bytes=256),
        )
        fields.end()
        record._check()
        return record

    def _check(self) -> None:
        key = parse_key(self.object)
        if not isinstance(key, SegmentKey):
            raise FormatError("The object of a segment record must be a segment.")
        if (key.tenant, key.class_name) != (self.tenant, self.retention.name):
            raise FormatError("A segment's key must name the record's tenant and retention class.")
        if (self.n == 0) != (self.prev == FIRST_PREV):
            raise FormatError("The first record of a shard, and no other, follows 64 zeros.")
        if not self.shard or not self.writer:
            raise FormatError("A segment record must name its shard and its writer.")


def _fragments(fields: Fields) -> Fragments:
    found = Fragments(fields.integer("count", 1, MAX_FRAGMENTS), fields.hex("root", _DIGEST))
    fields.end()
    return found


def _bus(fields: Fields) -> BusRange:
    bus = BusRange(
        fields.text("topic", max_bytes=256),
        fields.integer("partition"),
        fields.decimal("first", 0, _MAX_I64),
        fields.decimal("next", 0, _MAX_I64),
    )
    if bus.next < bus.first:
        fields.refuse("next", "must not be below first")
    fields.end()
    return bus


def record_hash(record: SegmentRecord) -> bytes:
    """Return what the next record of the shard names as `prev`: SHA-256 of the canonical bytes."""
    return sha256(record.to_json()).digest()


# -- manifests -------------------------------------------------------------------------------------


def encode_manifest(record: SegmentRecord, fragments: Sequence[FragmentRecord]) -> bytes:
    """Write a manifest: the segment record, then its fragment records, one line each."""
    lines = [record.to_json(), *(fragment.to_json() for fragment in fragments)]
    _check_manifest(record, fragments, lines[1:])
    data = b"".join(line + b"\n" for line in lines)
    _check_size(data)
    return data


def parse_manifest(data: bytes) -> tuple[SegmentRecord, tuple[FragmentRecord, ...]]:
    """Read a manifest; count, root, rows and names of its fragments must be the record's."""
    _check_size(data)
    first, *lines = data.split(b"\n")
    if not lines or lines.pop():
        raise FormatError("A manifest must end with a line end.")
    if len(lines) > MAX_FRAGMENTS:
        raise FormatError(f"A manifest has at most {MAX_FRAGMENTS} fragments.")
    record = SegmentRecord.from_json(first)
    fragments = tuple(map(FragmentRecord.from_json, lines))
    _check_manifest(record, fragments, lines)
    return record, fragments


def _check_size(data: bytes) -> None:
    if len(data) > MAX_MANIFEST:
        raise FormatError(f"A manifest has {len(data)} bytes; {MAX_MANIFEST} are allowed.")


def _check_manifest(
    record: SegmentRecord, fragments: Sequence[FragmentRecord], lines: Sequence[bytes]
) -> None:
    root = tree.root([tree.leaf_hash(line) for line in lines])
    if Fragments(len(lines), root) != record.fragments:
        raise FormatError("A manifest's fragments are not those its record names.")
    row, place = 0, (b"", 0, 0)
    for fragment in fragments:
        if (fragment.tenant, fragment.class_name) != (record.tenant, record.retention.name):
            raise FormatError("A fragment must have its segment's tenant and retention class.")
        here = (fragment.session, fragment.epoch, fragment.lo)
        if fragment.rows[0] != row or here < place:
            raise FormatError("A segment's fragments must be in order and leave out no row.")
        row, place = fragment.rows[1], (fragment.session, fragment.epoch, fragment.hi)
    if row != record.rows:
        raise FormatError("A segment's fragments must cover all of its rows.")
