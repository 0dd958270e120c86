"""What the vault holds, for a rebuild: records of all manifests, rows and leaves of segments."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sealtape.ingest.ledger.base import Ledger
from sealtape.ingest.ledger.rows import FragmentRow
from sealtape.ingest.parquet import read_leaves
from sealtape.ingest.rebuild.chains import Link, link_of
from sealtape.ingest.rebuild.derive import Seen, closing
from sealtape.ingest.vault.base import Vault
from sealtape.schemas.errors import FormatError, Missing, StoreCorrupt
from sealtape.schemas.frames import Kind
from sealtape.schemas.layout import SEGMENT_PREFIX, manifest_key, segment_of_manifest
from sealtape.schemas.segments import (
    MAX_RECORD,
    FragmentRecord,
    SegmentRecord,
    parse_manifest,
    record_hash,
)
from sealtape.schemas.tree import CompactRange

__all__ = ["Leaves", "Segment", "list_vault", "read_segment"]

_MANIFEST = ".manifest.jsonl"
_SEGMENTS = 16
_SESSIONS = 4096


async def list_vault(vault: Vault) -> tuple[list[Link], list[str]]:
    """The links of all manifests, and the keys of objects without one."""
    links: list[Link] = []
    objects: set[str] = set()
    async for key in vault.keys(SEGMENT_PREFIX):
        if not key.endswith(_MANIFEST):
            objects.add(key)
            continue
        head = await vault.get(key, 0, MAX_RECORD + 1)
        try:
            record = SegmentRecord.from_json(head.split(b"\n", 1)[0])
            links.append(link_of(segment_of_manifest(key), record))
        except FormatError as error:
            raise StoreCorrupt(f"{key} is damaged: {error.message}", key=key) from error
    return links, sorted(objects - {link.key for link in links})


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment that was read and is the one its record names."""

    link: Link
    record: SegmentRecord
    fragments: tuple[FragmentRecord, ...]
    kinds: list[int]
    times: list[int]
    payloads: Any

    def seen(self) -> Iterator[Seen]:
        """Its fragments, with what their rows say."""
        for record in self.fragments:
            start, end = record.rows
            opening = self._payload(start) if record.lo == 0 else b""
            closes = [row for row in range(start, end) if self.kinds[row] == Kind.CLOSE]
            reason = closing((Kind.CLOSE, self._payload(row)) for row in closes)
            yield Seen(record, opening, reason)

    def clocks(self, record: FragmentRecord) -> Iterator[tuple[int, int]]:
        """(kind, ts_ns) of a fragment's frames."""
        start, end = record.rows
        return zip(self.kinds[start:end], self.times[start:end], strict=True)

    def _payload(self, row: int) -> bytes:
        payload: bytes = self.payloads[row].as_py()
        return payload


async def read_segment(vault: Vault, link: Link) -> Segment:
    """Read object and manifest. Raises `StoreCorrupt` unless both are what the chain says."""
    try:
        manifest = await vault.get(manifest_key(link.key))
        data = await vault.get(link.key)
    except Missing as error:
        raise StoreCorrupt(
            f"{link.key} is in the chain and not in the vault.",
            hint="Bring it back from a copy, or let sealtape verify say what is lost with it.",
            key=link.key,
        ) from error
    try:
        return await asyncio.to_thread(_parse, link, manifest, data)
    except FormatError as error:
        raise StoreCorrupt(f"{link.key} is damaged: {error.message}", key=link.key) from error


def _parse(link: Link, manifest: bytes, data: bytes) -> Segment:
    record, fragments = parse_manifest(manifest)
    if record_hash(record) != link.hash:
        raise FormatError("Its manifest changed while it was read.")
    if len(data) != record.bytes or sha256(data).digest() != record.sha256:
        raise FormatError("Its bytes are not those its record names.")
    try:
        table = pq.read_table(pa.BufferReader(data), columns=["kind", "ts_ns", "payload"])
    except (pa.ArrowException, OSError, ValueError) as error:
        raise FormatError(f"It is not a readable segment: {error}.") from error
    if table.num_rows != record.rows:
        raise FormatError("It has not the rows its record names.")
    kinds: Any = table.column("kind").to_pylist()
    times: Any = table.column("ts_ns").to_pylist()
    return Segment(link, record, fragments, kinds, times, table.column("payload"))


class Leaves:
    """Sealed leaves by (session, epoch, seq), through the rebuilt ledger and the vault."""

    def __init__(self, ledger: Ledger, vault: Vault) -> None:
        """Keep a few segments' leaves and some thousand sessions' fragments at hand."""
        self._ledger = ledger
        self._vault = vault
        self._segments: OrderedDict[str, list[bytes]] = OrderedDict()
        self._sessions: OrderedDict[bytes, list[FragmentRow]] = OrderedDict()

    async def leaf(self, session: bytes, epoch: int, seq: int) -> bytes | None:
        """The leaf; None where the frame is sealed as a gap, or not sealed."""
        fragment = await self.fragment(session, epoch, seq)
        if fragment is None:
            return None
        leaves = await self._of(fragment.segment_key)
        return leaves[fragment.record.rows[0] + seq - fragment.record.lo]

    async def fragment(self, session: bytes, epoch: int, seq: int) -> FragmentRow | None:
        """The fragment that a frame is sealed in."""
        fragments = await self._fragments(session)
        place = bisect_right(fragments, (epoch, seq), key=_start) - 1
        if place < 0:
            return None
        record = fragments[place].record
        return fragments[place] if record.epoch == epoch and seq < record.hi else None

    async def root(self, session: bytes, epoch: int, size: int) -> bytes | None:
        """The root of an epoch's first `size` frames; None where one of them is not sealed."""
        tree = CompactRange()
        for fragment in await self._fragments(session):
            record = fragment.record
            if record.epoch != epoch or record.lo >= size:
                continue
            if record.lo != tree.hi:
                return None
            if record.hi <= size:
                tree.extend(record.range)
                continue
            first = record.rows[0]
            leaves = await self._of(fragment.segment_key)
            for leaf in leaves[first : first + size - record.lo]:
                tree.append(leaf)
        return tree.root() if tree.hi == size else None

    async def _fragments(self, session: bytes) -> list[FragmentRow]:
        fragments = self._sessions.get(session)
        if fragments is None:
            fragments = await self._ledger.fragments(session)
            _keep(self._sessions, session, fragments, _SESSIONS)
        return fragments

    async def _of(self, key: str) -> list[bytes]:
        leaves = self._segments.get(key)
        if leaves is None:
            data = await self._vault.get(key)
            leaves = await asyncio.to_thread(read_leaves, data, 0, _ALL)
            _keep(self._segments, key, leaves, _SEGMENTS)
        self._segments.move_to_end(key)
        return leaves


_ALL = 1 << 62


def _start(fragment: FragmentRow) -> tuple[int, int]:
    return fragment.record.epoch, fragment.record.lo


def _keep(cache: OrderedDict[Any, Any], name: object, value: object, limit: int) -> None:
    cache[name] = value
    if len(cache) > limit:
        cache.popitem(last=False)
