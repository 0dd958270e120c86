"""The segments that a log names, as a monitor follows them: their chains, and what replaces what.

Of each record a few bytes are kept: its hash, where its entry stands, its chain, tenant and class.
What lies in a segment is said by its manifest, which the record's hash authenticates. Whoever feeds
a monitor brings those that `LogRules.wanted` names.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, TypeAlias

from sealtape.schemas.canonical import Fields, Json
from sealtape.schemas.errors import FormatError
from sealtape.schemas.segments import FIRST_PREV, FragmentRecord, SegmentRecord, parse_manifest
from sealtape.schemas.tlog.records import Listed, ShardEnd
from sealtape.schemas.tree import HASH_SIZE, leaf_hash
from sealtape.schemas.verify.packing import packed, unpacked
from sealtape.schemas.verify.violations import Place, Report

Manifests: TypeAlias = Mapping[bytes, bytes | None]
"""The bytes of manifests, by the hash of their segment's record; None where there is none."""

Group: TypeAlias = tuple[str, str, str, int, int]
"""A chain, and the tenant and class with its terms: of these, segments may be put together."""

Leafed: TypeAlias = tuple[FragmentRecord, bytes]
"""A fragment record, and its leaf in trees over such records."""

_MAX_I64: Final = 2**63 - 1
_MAX_LISTED: Final = 1 << 24
_KEPT: Final = struct.Struct(">IQI?")


@dataclass(frozen=True, slots=True)
class Known:
    """What is kept of a segment record: where its entry stands, its group, what replaced it."""

    place: Place
    group: int
    replaced: bool


class SegmentChains:
    """All chains of segment records, and all records."""

    def __init__(self, report: Report) -> None:
        """Of no segment; what is wrong goes to `report`."""
        self._report = report
        self._ends: dict[str, tuple[int, bytes]] = {}
        self._records: dict[bytes, bytes] = {}
        self._groups: dict[Group, int] = {}

    def known(self, digest: bytes) -> Known | None:
        """What is kept of the record with that hash."""
        kept = self._records.get(digest)
        if kept is None:
            return None
        number, index, group, replaced = _KEPT.unpack(kept)
        return Known((number, index), group, replaced)

    def take(self, place: Place, record: SegmentRecord, digest: bytes) -> None:
        """The next record of its chain."""
        n, before = self._ends.get(record.shard, (-1, FIRST_PREV))
        if record.n != n + 1:
            which = f"record {n}" if n >= 0 else "nothing"
            reason = f"record {record.n} of {record.shard} follows {which}"
            self._report("chain", place, reason)
        elif record.prev != before:
            reason = f"record {record.n} of {record.shard} names another record before it"
            self._report("chain", place, reason)
        self._ends[record.shard] = (record.n, digest)
        group = self._group(record)
        for old in record.replaces:
            self._replace(place, old, group)
        self._records[digest] = _KEPT.pack(*place, group, False)

    def fragments(self, place: Place, digest: bytes, manifests: Manifests) -> list[Leafed] | None:
        """What lies in a segment; None, and reported, when its manifest does not say so."""
        data = manifests.get(digest)
        if data is None:
            self._report("manifest", place, f"the manifest of segment {digest.hex()} is gone")
            return None
        try:
            _, found = parse_manifest(data)
        except FormatError as exc:
            reason = f"the manifest of segment {digest.hex()}: {exc.message}"
            self._report("manifest", place, reason)
            return None
        first, *lines = data.split(b"\n")
        if sha256(first).digest() != digest:
            self._report("manifest", place, f"the manifest of segment {digest.hex()} is another's")
            return None
        return [(item, leaf_hash(line)) for item, line in zip(found, lines, strict=False)]

    def covers(self, place: Place, new: Iterable[Leafed], old: Iterable[Leafed]) -> None:
        """Segments are replaced by one: that has the very frames of theirs."""
        if _frames(new) != _frames(old):
            self._report("replaces", place, "the frames are not those of the replaced segments")

    def listed(self) -> Listed:
        """As a heartbeat lists the ends of the chains."""
        ends = (ShardEnd(shard, n, digest).line() for shard, (n, digest) in self._ends.items())
        return Listed.of(sorted(ends))

    def _group(self, record: SegmentRecord) -> int:
        terms = record.retention
        name = (record.shard, record.tenant, terms.name, terms.retain_for_s, terms.delete_after_s)
        return self._groups.setdefault(name, len(self._groups))

    def _replace(self, place: Place, digest: bytes, group: int) -> None:
        known = self.known(digest)
        if known is None:
            wrong = "is none before it"
        elif known.group != group:
            wrong = "is of another chain, tenant or class"
        elif known.replaced:
            wrong = "is replaced already"
        else:
            self._records[digest] = _KEPT.pack(*known.place, known.group, True)
            return
        self._report("replaces", place, f"segment {digest.hex()}, to be replaced, {wrong}")

    # -- kept --------------------------------------------------------------------------------------

    def members(self) -> dict[str, Json]:
        """The state, as JSON."""
        ends: list[Json] = [
            {"shard": shard, "n": str(n), "hash": digest.hex()}
            for shard, (n, digest) in self._ends.items()
        ]
        groups: list[Json] = [
            {"shard": shard, "tenant": tenant, "class": name, "terms": [str(retain), str(delete)]}
            for shard, tenant, name, retain, delete in self._groups
        ]
        rows = [digest + kept for digest, kept in self._records.items()]
        return {"ends": ends, "groups": groups, "records": packed(rows)}

    def read(self, fields: Fields) -> None:
        """Read what `members` gave."""
        for item in fields.objects("ends", max_items=_MAX_LISTED):
            end = (item.decimal("n", 0, _MAX_I64), item.hex("hash", HASH_SIZE))
            self._ends[item.text("shard")] = end
            item.end()
        for item in fields.objects("groups", max_items=_MAX_LISTED):
            retain, delete = item.decimals("terms", count=2)
            name = (item.text("shard"), item.text("tenant"), item.text("class"), retain, delete)
            self._groups[name] = len(self._groups)
            item.end()
        for row in unpacked(fields, "records", HASH_SIZE + _KEPT.size):
            self._records[row[:HASH_SIZE]] = row[HASH_SIZE:]
        fields.end()


def _frames(fragments: Iterable[Leafed]) -> dict[tuple[bytes, int], list[list[int]]]:
    """The frames of each epoch, as ranges that do not touch."""
    found: dict[tuple[bytes, int], list[list[int]]] = {}
    for item in sorted((record for record, _ in fragments), key=_order):
        ranges = found.setdefault((item.session, item.epoch), [])
        if ranges and ranges[-1][1] == item.lo:
            ranges[-1][1] = item.hi
        else:
            ranges.append([item.lo, item.hi])
    return found


def _order(item: FragmentRecord) -> tuple[bytes, int, int]:
    return item.session, item.epoch, item.lo
