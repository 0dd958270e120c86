"""Segments: the chain of records, manifests and objects."""

from dataclasses import replace
from hashlib import sha256

import pytest

from sealtape.schemas.segments import (
    BusRange,
    Fragments,
    SegmentRecord,
    fragments_root,
    record_hash,
)
from sealtape.schemas.verify import ChainVerifier, Report, SegmentVerifier
from tests.factories.sessions import STANDARD, build_session
from tests.factories.stored import fragment_of

KEY = "seg/v1/tenant=main/class=standard/dt=2026-11-22/0192f0a1b2c37d4e8f90a1b2c3d4e5f6-1.parquet"
OBJECT = b"the object's bytes"


def record_of(fragments, n=0, prev=bytes(32)):
    return SegmentRecord(
        shard="bus-0",
        n=n,
        prev=prev,
        tenant="main",
        retention=STANDARD,
        object=KEY,
        sha256=sha256(OBJECT).digest(),
        bytes=len(OBJECT),
        rows=sum(f.hi - f.lo for f in fragments),
        fragments=Fragments(len(fragments), fragments_root(fragments)),
        bus=BusRange("bus", 0, 0, 100),
        sealed_at_ns=1,
        writer="w",
    )


BUILT = build_session(commands=3)
FRAGMENT = fragment_of(BUILT)
RECORD = record_of([FRAGMENT])


@pytest.fixture
def report():
    return Report(sessions=1)


def layers(report):
    return [(finding.layer, finding.seq) for finding in report.findings]


def chained(count):
    records, prev = [], bytes(32)
    for n in range(count):
        records.append(record_of([FRAGMENT], n, prev))
        prev = record_hash(records[-1])
    return records


def test_a_chain(report):
    chain = ChainVerifier("bus-0", report)
    records = chained(3)
    for record in records:
        chain.record(record)
    chain.finish(3, record_hash(records[-1]))
    assert report.findings == []


@pytest.mark.parametrize(
    ("order", "says"),
    [([0, 2], "record 1 is missing"), ([0, 1, 1], "record 1 is there twice"), ([1], "is missing")],
)
def test_a_chain_with_holes_and_repeats(report, order, says):
    chain = ChainVerifier("bus-0", report)
    for index in order:
        chain.record(chained(3)[index])
    assert says in report.findings[0].reason


def test_a_record_that_was_edited_breaks_the_next(report):
    chain = ChainVerifier("bus-0", report)
    first, second = chained(2)
    chain.record(replace(first, writer="another"))
    chain.record(second)
    assert "does not follow" in report.findings[0].reason


def test_the_ledgers_head_must_be_the_end_of_the_chain(report):
    chain = ChainVerifier("bus-0", report)
    chain.record(chained(1)[0])
    chain.finish(2, bytes(32))
    assert layers(report) == [("chain", None)]


def test_the_object_and_its_manifest(report):
    verifier = SegmentVerifier(RECORD, report)
    assert verifier.manifest(RECORD, [FRAGMENT])
    verifier.object(len(OBJECT), sha256(OBJECT).digest())
    assert report.findings == []


def test_another_object(report):
    verifier = SegmentVerifier(RECORD, report)
    verifier.object(len(OBJECT) + 1, bytes(32))
    verifier.object(len(OBJECT), bytes(32))
    assert [f.reason.split(",")[0] for f in report.findings] == [
        "it has 19 bytes",
        "its bytes are not those that were sealed",
    ]


def test_another_manifest(report):
    verifier = SegmentVerifier(RECORD, report)
    assert verifier.manifest(replace(RECORD, writer="x"), [FRAGMENT])
    assert not verifier.manifest(RECORD, [])
    assert not verifier.manifest(RECORD, [replace(FRAGMENT, bytes=1)])
    assert [f.layer for f in report.findings] == ["manifest"] * 3
