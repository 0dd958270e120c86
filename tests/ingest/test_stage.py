import json
from hashlib import sha256

from sealtape.ingest.cut import Group
from sealtape.ingest.ledger.rows import ShardHead
from sealtape.ingest.parquet import footer_values, read_rows, row_of
from sealtape.ingest.stage import build_segment
from sealtape.ingest.track import Stretch
from sealtape.schemas.layout import segment_key
from sealtape.schemas.segments import BusRange, FragmentGap, parse_manifest, record_hash
from sealtape.schemas.tree import CompactRange
from tests.factories.sessions import STANDARD, build_session

KEY = segment_key("main", "standard", "2026-11-22", "0192f0a0b0c07000800000000000abcd", 4)


def stretch(built, lo, hi, **parts):
    run = CompactRange(lo)
    for frame in built.frames[lo:hi]:
        run.append(frame.leaf())
    rows = [row_of(frame) for frame in built.frames[lo:hi]]
    return Stretch(built.opening, run, rows, parts.get("checkpoint"), parts.get("gap"))


def test_object_manifest_and_record_belong_together():
    one, two = sorted((build_session(seed=1), build_session(seed=2)), key=lambda b: b.session)
    note = two.messages[-1].note.decode()
    stretches = [
        stretch(one, 0, 4),
        stretch(one, 6, 8, gap=FragmentGap(4, 6, "lost")),
        stretch(two, 0, len(two.frames), checkpoint=(len(two.frames), note)),
    ]
    built = build_segment(
        Group("main", STANDARD, stretches),
        key=KEY,
        shard="frames/0",
        head=ShardHead(3, b"p" * 32),
        bus=BusRange("frames", 0, 5, 50),
        sealed_at_ns=77,
        writer="node-1",
    )
    record, fragments = parse_manifest(built.manifest)
    assert (record, fragments) == (built.sealed.record, built.sealed.fragments)
    assert (record.n, record.prev, record.object) == (3, b"p" * 32, KEY)
    assert (record.sha256, record.bytes) == (sha256(built.data).digest(), len(built.data))
    assert built.after == ShardHead(4, record_hash(record))
    assert [f.rows for f in fragments] == [(0, 4), (4, 6), (6, 6 + len(two.frames))]
    assert [(f.lo, f.hi) for f in fragments] == [(0, 4), (6, 8), (0, len(two.frames))]
    assert fragments[1].gaps == (FragmentGap(4, 6, "lost"),)
    assert fragments[2].checkpoint.note == note
    assert fragments[2].nodes == two.tree.nodes
    assert fragments[0].bytes == sum(len(frame.payload) for frame in one.frames[:4])
    rows = [row for _, row in read_rows(built.data)]
    assert rows == [row for s in stretches for row in s.rows]
    footer = footer_values(built.data)
    assert (footer["n"], footer["rows"], footer["fragments"]) == ("3", str(len(rows)), "3")
    event = json.loads(built.event.payload)
    assert (event["kind"], event["object"], event["n"]) == ("segment-sealed", KEY, "3")
    assert event["record"] == record_hash(record).hex()
