"""Segment records, fragment records and manifests: vectors, and each rule broken once."""

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from sealtape.schemas import layout, segments, tree
from sealtape.schemas.bodies import RetentionClass
from sealtape.schemas.errors import FormatError
from sealtape.schemas.segments import (
    BusRange,
    FragmentCheckpoint,
    FragmentGap,
    FragmentRecord,
    Fragments,
    SegmentRecord,
)

VECTORS = json.loads(
    (Path(__file__).parent.parent / "vectors" / "segments.json").read_text(encoding="utf-8")
)
ID = "019aac8f5c007e1ea6d1000000000001"


def fragment(**changes):
    base = FragmentRecord(
        tenant="main",
        class_name="standard",
        session=bytes(16),
        epoch=0,
        lo=0,
        hi=3,
        nodes=(bytes(32), b"\x01" * 32),
        rows=(0, 3),
        first_ts_ns=5,
        last_ts_ns=6,
        bytes=300,
    )
    return dataclasses.replace(base, **changes)


SECOND = fragment(session=b"\x01" * 16, lo=6, hi=7, nodes=(bytes(32),), rows=(3, 4))


def segment(parts=None, **changes):
    parts = parts or (fragment(),)
    base = SegmentRecord(
        shard="bus/0",
        n=0,
        prev=segments.FIRST_PREV,
        tenant="main",
        retention=RetentionClass("standard", 10, 20),
        object=layout.segment_key("main", "standard", "2026-11-22", ID, 1),
        sha256=bytes(32),
        bytes=500,
        rows=sum(one.rows[1] - one.rows[0] for one in parts),
        fragments=Fragments(len(parts), segments.fragments_root(parts)),
        bus=BusRange("bus", 0, 5, 9),
        sealed_at_ns=7,
        writer="ingest-1",
    )
    return dataclasses.replace(base, **changes)


def test_vectors():
    text = VECTORS["manifest"]
    record, fragments = segments.parse_manifest(text.encode())
    assert segments.encode_manifest(record, fragments).decode() == text
    assert segments.fragments_root(fragments).hex() == VECTORS["fragments_root"]
    first, *lines, end = text.split("\n")
    assert end == ""
    leaves = [hashlib.sha256(b"\0" + line.encode()).digest() for line in lines]
    top = hashlib.sha256(b"\1" + leaves[0] + leaves[1]).digest()
    assert top.hex() == VECTORS["fragments_root"]
    assert hashlib.sha256(first.encode()).hexdigest() == VECTORS["record_hash"]
    assert segments.record_hash(record).hex() == VECTORS["record_hash"]
    following = SegmentRecord.from_json(VECTORS["following"].encode())
    assert following.prev == segments.record_hash(record)
    assert following.to_json().decode() == VECTORS["following"]


def test_columns_rebuild_the_header():
    names = [name for name, _ in segments.COLUMNS]
    header = ["session", "epoch", "seq", "ts_ns", "kind", "suite", "flags", "payload_len"]
    assert names == [*header, "payload_sha256", "leaf", "payload"]


@pytest.mark.parametrize(
    "record",
    [
        fragment(),
        SECOND,
        fragment(checkpoint=FragmentCheckpoint(2, "note\n")),
        fragment(lo=3, hi=4, nodes=(bytes(32),), rows=(9, 10), gaps=(FragmentGap(1, 3, "lost"),)),
        fragment(
            lo=3,
            hi=4,
            nodes=(bytes(32),),
            rows=(9, 10),
            gaps=(FragmentGap(0, 1, "lost"), FragmentGap(2, 3, "quarantined")),
        ),
    ],
)
def test_a_fragment_comes_back(record):
    assert FragmentRecord.from_json(record.to_json()) == record


def test_rows_are_counted_below_two_to_the_63():
    far = (
        fragment()
        .to_json()
        .replace(b'"rows":["0","3"]', b'"rows":["%d","%d"]' % (2**63, 2**63 + 3))
    )
    with pytest.raises(FormatError, match="rows must be within"):
        FragmentRecord.from_json(far)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tenant": "Main"}, "tenant"),
        ({"class_name": ""}, "retention class"),
        ({"hi": 0, "nodes": (), "rows": (0, 0)}, "at least one frame"),
        ({"rows": (0, 4)}, "one row for each"),
        ({"nodes": (bytes(32),)}, "hashes"),
        ({"nodes": (bytes(32), bytes(31))}, "32 bytes"),
        ({"last_ts_ns": 4}, "older"),
        ({"checkpoint": FragmentCheckpoint(4, "n")}, "inside the fragment"),
        ({"checkpoint": FragmentCheckpoint(0, "n")}, "inside the fragment|within"),
        ({"gaps": (FragmentGap(0, 1, "lost"),)}, "lie before"),
        ({"session": b"\xff"}, "16 bytes"),
    ],
)
def test_a_fragment_against_the_rules_is_refused(changes, reason):
    record = fragment(**changes)
    if "session" not in changes:
        with pytest.raises(FormatError, match=reason):
            record.to_json()
    members = json.loads(fragment().to_json())
    names = {"class_name": "class"}
    plain = json.loads(json.dumps({names.get(k, k): v for k, v in changes.items()}, default=shape))
    for name, value in plain.items():
        members[name] = written(name, value)
    raw = json.dumps(members, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(FormatError, match=reason):
        FragmentRecord.from_json(raw)


def shape(value):
    return value.hex() if isinstance(value, bytes) else dataclasses.asdict(value)


def written(name, value):
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return [written(name, item) for item in value]
    if isinstance(value, dict):
        return {key: str(item) for key, item in value.items()}
    return value


@pytest.mark.parametrize(
    "gaps",
    [
        (FragmentGap(1, 2, "lost"),),  # ends before the fragment
        (FragmentGap(2, 3, "lost"), FragmentGap(0, 1, "lost")),
        (FragmentGap(0, 2, "lost"), FragmentGap(2, 3, "lost")),  # touch: one gap
        (FragmentGap(3, 3, "lost"),),
        (FragmentGap(2, 3, "Lost it"),),
    ],
)
def test_gaps_against_the_rules_are_refused(gaps):
    with pytest.raises(FormatError):
        fragment(lo=3, hi=4, nodes=(bytes(32),), rows=(0, 1), gaps=gaps).to_json()


def test_a_fragments_range_extends_to_the_root():
    leaves = [tree.leaf_hash(bytes([n])) for n in range(7)]
    whole = tree.CompactRange()
    for lo, hi in ((0, 3), (3, 7)):
        part = tree.CompactRange(lo)
        for leaf in leaves[lo:hi]:
            part.append(leaf)
        whole.extend(fragment(lo=lo, hi=hi, nodes=part.nodes, rows=(lo, hi)).range)
    assert whole.root() == tree.root(leaves)


def test_a_segment_record_comes_back():
    first = segment()
    assert SegmentRecord.from_json(first.to_json()) == first
    second = segment(n=1, prev=segments.record_hash(first), replaces=(bytes(32), b"\x01" * 32))
    assert SegmentRecord.from_json(second.to_json()) == second


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"object": "quarantine/v1/tenant=main/dt=2026-11-22/" + ID + ".bin"}, "be a segment"),
        ({"object": "elsewhere"}, "object key"),
        ({"tenant": "other"}, "must name the record's"),
        ({"retention": RetentionClass("other", 1, 2)}, "must name the record's"),
        ({"n": 1}, "64 zeros"),
        ({"prev": b"\x01" * 32}, "64 zeros"),
        ({"prev": b""}, "32 bytes"),
        ({"shard": ""}, "shard"),
        ({"writer": ""}, "writer"),
        ({"rows": 0}, "within"),
        ({"fragments": Fragments(0, bytes(32))}, "within"),
        ({"bus": BusRange("bus", 0, 9, 8)}, "below first"),
        ({"replaces": (bytes(31),)}, "32 bytes"),
        ({"replaces": (bytes(32),) * 513}, "at most"),
    ],
)
def test_a_segment_record_against_the_rules_is_refused(changes, reason):
    with pytest.raises(FormatError, match=reason):
        segment(**changes).to_json()


def test_records_of_another_type_or_size_are_refused():
    with pytest.raises(FormatError, match="must be one of segment"):
        SegmentRecord.from_json(fragment().to_json())
    with pytest.raises(FormatError, match="allowed"):
        SegmentRecord.from_json(b"{" + b" " * segments.MAX_RECORD)


def test_a_manifest_comes_back():
    fragments = (fragment(), SECOND)
    record = segment(fragments)
    data = segments.encode_manifest(record, fragments)
    assert data.count(b"\n") == 3
    assert segments.parse_manifest(data) == (record, fragments)


@pytest.mark.parametrize(
    "fragments",
    [
        (SECOND, fragment()),  # rows out of order
        (fragment(), dataclasses.replace(SECOND, rows=(4, 5))),  # a row left out
        (fragment(session=b"\x02" * 16), SECOND),  # sessions out of order
        (fragment(), fragment(lo=2, hi=3, nodes=(bytes(32),), rows=(3, 4))),  # frames twice
        (fragment(tenant="other"),),
        (fragment(class_name="other"),),
    ],
)
def test_a_manifest_against_the_rules_is_neither_written_nor_read(fragments):
    record = segment(fragments)
    with pytest.raises(FormatError):
        segments.encode_manifest(record, fragments)
    lines = [record.to_json(), *(one.to_json() for one in fragments), b""]
    with pytest.raises(FormatError):
        segments.parse_manifest(b"\n".join(lines))


def test_a_manifest_covers_all_rows():
    with pytest.raises(FormatError, match="all of its rows"):
        segments.encode_manifest(segment(rows=4), (fragment(),))


def test_a_manifest_holds_the_fragments_its_record_names():
    data = segments.encode_manifest(segment(), (fragment(),))
    first, second, _ = data.split(b"\n")
    for other in (
        first + b"\n",
        first + b"\n" + second,
        data + second + b"\n",
        data.replace(b'"bytes":"300"', b'"bytes":"301"'),
        b"",
        data + b"\n",
    ):
        with pytest.raises(FormatError):
            segments.parse_manifest(other)


def test_a_manifest_is_bounded(monkeypatch):
    data = segments.encode_manifest(segment(), (fragment(),))
    monkeypatch.setattr(segments, "MAX_MANIFEST", len(data) - 1)
    with pytest.raises(FormatError, match="allowed"):
        segments.parse_manifest(data)
    with pytest.raises(FormatError, match="allowed"):
        segments.encode_manifest(segment(), (fragment(),))
    monkeypatch.undo()
    monkeypatch.setattr(segments, "MAX_FRAGMENTS", 0)
    with pytest.raises(FormatError, match="at most 0 fragments"):
        segments.parse_manifest(data)
