"""A fragment's rows against their own columns and its record, at once and one by one."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealtape.ingest.parquet import row_of
from sealtape.schemas.frames import Frame, Kind, Suite
from sealtape.schemas.segments import FragmentCheckpoint
from sealtape.schemas.tree import CompactRange
from sealtape.schemas.verify import FragmentVerifier, Run, Single, fragment
from tests.factories.sessions import build_session
from tests.factories.stored import columns_of, fragment_of, rows_of

KEY = "seg/v1/tenant=main/class=standard/dt=2026-11-22/0192f0a1b2c37d4e8f90a1b2c3d4e5f6-1.parquet"
BUILT = build_session(commands=3)
FRAGMENT = fragment_of(BUILT)
ROWS = rows_of(BUILT)
LAST = len(ROWS) - 1


def verified(rows, record=FRAGMENT, cuts=()):
    """Feed rows in stretches that end at `cuts`."""
    verifier = FragmentVerifier(record, KEY)
    for start, end in pairwise([0, *cuts, len(rows)]):
        verifier.take(columns_of(rows[start:end]))
    verifier.finish()
    return verifier


def layers(verifier):
    return [(finding.layer, finding.seq) for finding in verifier.report.findings]


def leaves(verifier):
    """The tree that the events describe, and what they are."""
    covered, forms = CompactRange(verifier.events[0].row.seq if verifier.events else 0), []
    for event in verifier.events:
        if isinstance(event, Run):
            covered.extend(event.covered)
            forms.append(len(event.covered))
        else:
            covered.append(event.leaf)
            forms.append(event.row.kind)
    return covered, forms


def changed(at=4, **fields):
    rows = list(ROWS)
    rows[at] = rows[at]._replace(**fields)
    return rows


@given(st.lists(st.integers(1, LAST), unique=True).map(sorted))
def test_rows_as_they_were_sealed(cuts):
    verifier = verified(ROWS, cuts=cuts)
    assert verifier.report.findings == []
    assert verifier.report.frames == len(ROWS)
    assert verifier.report.payload_bytes == FRAGMENT.bytes
    assert leaves(verifier)[0].nodes == FRAGMENT.nodes


def test_only_frames_that_need_a_look_come_one_by_one():
    verifier = verified(ROWS)
    assert leaves(verifier)[1] == [Kind.OPEN, Kind.IDENT, len(ROWS) - 3, Kind.CLOSE]
    opened, ident, run, closed = verifier.events
    assert opened.row == ROWS[0]
    assert ident.row == ROWS[1]._replace(payload=b"")
    assert closed.row == ROWS[-1]
    times = (run.epoch, run.first_ts_ns, run.last_ts_ns)
    assert times == (0, ROWS[2].ts_ns, ROWS[-2].ts_ns)


@pytest.mark.parametrize("size", range(1, len(ROWS) + 1))
def test_a_run_ends_where_a_checkpoint_does(size):
    record = replace(FRAGMENT, checkpoint=FragmentCheckpoint(size, "a note"))
    ends, at = [], 0
    for event in verified(ROWS, record).events:
        at += 1 if isinstance(event, Single) else len(event.covered)
        ends.append(at)
    assert size in ends


@pytest.mark.parametrize(
    "fields", [{"kind": Kind.GAP}, {"kind": 99}, {"kind": 200}, {"suite": 7}, {"flags": 1}], ids=str
)
def test_a_sealed_frame_of_another_sort_stands_alone(fields):
    frames = [frame if frame.seq != 4 else replace(frame, **fields) for frame in BUILT.frames]
    rows = [row_of(frame) for frame in frames]
    verifier = verified(rows, fragment_of(replace(BUILT, frames=frames)))
    assert verifier.report.findings == []
    assert [event.row.seq for event in verifier.events if isinstance(event, Single)] == [
        0,
        1,
        4,
        LAST,
    ]


def test_the_first_two_stand_alone_whatever_they_are():
    built = replace(BUILT, frames=[replace(frame, kind=Kind.DATA) for frame in BUILT.frames])
    verifier = verified(rows_of(built), fragment_of(built))
    assert verifier.report.findings == []
    assert [event.row.seq for event in verifier.events if isinstance(event, Single)] == [0, 1]


def test_a_changed_payload_is_said_once_at_its_frame():
    verifier = verified(changed(payload=ROWS[4].payload[:-1] + b"\0"))
    assert layers(verifier) == [("frame", 4)]
    assert leaves(verifier)[0].nodes == FRAGMENT.nodes
    assert len(verifier.events) == len(ROWS)


@pytest.mark.parametrize("length", [3, len(ROWS[4].payload) + 1])
def test_a_payload_of_another_length(length):
    assert ("frame", 4) in layers(verified(changed(payload_len=length)))


@pytest.mark.parametrize(
    "change",
    [{"ts_ns": 1}, {"kind": 5}, {"suite": 0}, {"flags": 1}, {"payload_len": 1 << 21}, {"seq": 9}],
    ids=str,
)
def test_a_changed_column_is_found(change):
    assert ("frame", change.get("seq", 4)) in layers(verified(changed(**change)))


def test_a_header_that_cannot_be_is_found_when_all_else_agrees():
    """Only a payload of more than a megabyte: all other ranges are those of the columns."""
    row = row_of(
        Frame(BUILT.session, 0, 4, ROWS[4].ts_ns, 3, Suite.PUBLIC, 0, bytes((1 << 20) + 1))
    )
    verifier = verified([*ROWS[:4], row, *ROWS[5:]])
    assert layers(verifier)[0] == ("frame", 4)
    assert "malformed" in verifier.report.findings[0].reason


def test_a_changed_leaf_column():
    assert layers(verified(changed(leaf=bytes(32)))) == [("frame", 4)]


def test_a_row_and_all_its_columns_replaced():
    rows = changed(**row_of(replace(BUILT.frames[4], payload=b"other"))._asdict())
    assert layers(verified(rows)) == [("tree", 0)]


@pytest.mark.parametrize("stranger", [{"session": bytes(16)}, {"epoch": 1}])
def test_a_frame_of_another_session(stranger):
    rows = changed(**row_of(replace(BUILT.frames[4], **stranger))._asdict())
    verifier = verified(rows)
    assert layers(verifier) == [("frame", 4), ("frame", LAST)]
    assert len(verifier.events) == LAST


def test_frames_in_another_order_come_one_by_one():
    """That they are in the wrong places is the session's to say; each is as it was sealed."""
    rows = [*ROWS[:4], ROWS[5], ROWS[4], *ROWS[6:]]
    verifier = verified(rows)
    assert layers(verifier) == [("tree", 0)]
    assert [event.row.seq for event in verifier.events] == [row.seq for row in rows]


def test_times_that_go_back_come_one_by_one():
    frames = [
        replace(frame, ts_ns=1) if frame.seq == 4 else frame for frame in build_session().frames
    ]
    built = replace(BUILT, frames=frames)
    verifier = verified(rows_of(built), fragment_of(built, session=frames[0].session))
    assert verifier.report.findings == []
    assert len(verifier.events) == len(frames)


def test_too_few_rows():
    assert layers(verified(ROWS[:-1])) == [("frame", LAST)]
    assert layers(verified([])) == [("frame", 0)]


@pytest.mark.parametrize("step", [1, 200, 1 << 20])
def test_who_hashes_beside_is_told_of_every_byte(monkeypatch, step):
    monkeypatch.setattr(fragment, "_STEP", step)
    told = []
    verifier = FragmentVerifier(FRAGMENT, KEY, told.append)
    verifier.take(columns_of(ROWS))
    verifier.finish()
    assert verifier.report.findings == []
    assert sum(told) == sum(row.payload_len for row in ROWS)
    assert all(size >= step for size in told[:-1])
    assert verifier.events == verified(ROWS).events
