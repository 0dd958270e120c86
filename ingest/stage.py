"""From a cut's group of stretches to the bytes of a segment and its manifest. Pure, but heavy."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from sealtape.ingest.cut import Group
from sealtape.ingest.ledger.rows import Event, SealedSegment, ShardHead
from sealtape.ingest.parquet import write_segment
from sealtape.ingest.track import Stretch
from sealtape.schemas import canonical
from sealtape.schemas.segments import (
    BusRange,
    FragmentCheckpoint,
    FragmentRecord,
    Fragments,
    SegmentRecord,
    encode_manifest,
    fragments_root,
    record_hash,
)

__all__ = ["BuiltSegment", "build_segment"]


@dataclass(frozen=True, slots=True)
class BuiltSegment:
    """A segment's two objects, and what the ledger is told of it."""

    data: memoryview
    manifest: bytes
    sealed: SealedSegment
    after: ShardHead
    """The shard's head once this is published."""

    @property
    def event(self) -> Event:
        """The lifecycle event of its publication."""
        record = self.sealed.record
        body: dict[str, canonical.Json] = {
            "v": 1,
            "kind": "segment-sealed",
            "object": record.object,
            "record": self.after.hash.hex(),
            "shard": record.shard,
            "n": str(record.n),
            "tenant": record.tenant,
            "class": record.retention.name,
            "rows": str(record.rows),
            "bytes": str(record.bytes),
        }
        return Event("segment-sealed", record.shard, canonical.encode(body), record.sealed_at_ns)


def build_segment(
    group: Group,
    *,
    key: str,
    shard: str,
    head: ShardHead,
    bus: BusRange,
    sealed_at_ns: int,
    writer: str,
) -> BuiltSegment:
    """Write the Parquet object, then the record that names its hash, then the manifest."""
    fragments = _fragments(group)
    count = Fragments(len(fragments), fragments_root(fragments))
    rows = fragments[-1].rows[1]
    footer = _footer(group, shard=shard, head=head, rows=rows, fragments=count, writer=writer)
    data = write_segment([stretch.rows for stretch in group.stretches], footer)
    record = SegmentRecord(
        shard=shard,
        n=head.n,
        prev=head.hash,
        tenant=group.tenant,
        retention=group.retention,
        object=key,
        sha256=sha256(data).digest(),
        bytes=len(data),
        rows=rows,
        fragments=count,
        bus=bus,
        sealed_at_ns=sealed_at_ns,
        writer=writer,
    )
    return BuiltSegment(
        data=data,
        manifest=encode_manifest(record, fragments),
        sealed=SealedSegment(key, record, fragments),
        after=ShardHead(head.n + 1, record_hash(record)),
    )


def _footer(
    group: Group, *, shard: str, head: ShardHead, rows: int, fragments: Fragments, writer: str
) -> dict[str, str]:
    """What tells a person who lost the manifest what this object was."""
    return {
        "v": "1",
        "shard": shard,
        "n": str(head.n),
        "prev": head.hash.hex(),
        "tenant": group.tenant,
        "class": group.retention.name,
        "rows": str(rows),
        "fragments": str(fragments.count),
        "fragments_root": fragments.root.hex(),
        "leaf_format": "SEALFRM1",
        "writer": writer,
    }


def _fragments(group: Group) -> tuple[FragmentRecord, ...]:
    fragments = []
    row = 0
    for stretch in group.stretches:
        fragments.append(_fragment(stretch, row))
        row += len(stretch.rows)
    return tuple(fragments)


def _fragment(stretch: Stretch, first_row: int) -> FragmentRecord:
    opening, rows = stretch.opening, stretch.rows
    times = [row.ts_ns for row in rows]
    return FragmentRecord(
        tenant=opening.tenant,
        class_name=opening.retention.name,
        session=opening.session,
        epoch=opening.epoch,
        lo=stretch.run.lo,
        hi=stretch.run.hi,
        nodes=stretch.run.nodes,
        rows=(first_row, first_row + len(rows)),
        first_ts_ns=min(times),
        last_ts_ns=max(times),
        bytes=sum(row.payload_len for row in rows),
        checkpoint=None if stretch.checkpoint is None else FragmentCheckpoint(*stretch.checkpoint),
        gaps=() if stretch.gap is None else (stretch.gap,),
    )
