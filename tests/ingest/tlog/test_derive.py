"""Entries of hand-made rows; what real ones make is in test_writer.py."""

from dataclasses import replace
from hashlib import sha256

import pytest

from sealtape.ingest.ledger.rows import FragmentRow, Head, Incident, Unsealed
from sealtape.ingest.tlog.derive import (
    Patience,
    continued_at,
    incident_entry,
    open_entry,
    place_after,
    seal_entry,
)
from sealtape.schemas.errors import FormatError
from sealtape.schemas.segments import FragmentCheckpoint, FragmentGap, FragmentRecord
from sealtape.schemas.tlog.records import Listed, encode_entry
from sealtape.schemas.tree import CompactRange
from tests.factories.sessions import build_session

BUILT = build_session(commands=6, number=4)
NEXT = build_session(commands=0, session=BUILT.session, epoch=1, continues=BUILT.continues, seed=9)


def part(lo, hi):
    found = CompactRange(lo)
    for frame in BUILT.frames[lo:hi]:
        found.append(frame.leaf())
    return found


def fragment(lo, hi, *, segment=1, signed=False, gaps=()):
    note = BUILT.checkpoint(hi).note.decode() if signed else ""
    record = FragmentRecord(
        tenant="main",
        class_name="standard",
        session=BUILT.session,
        epoch=0,
        lo=lo,
        hi=hi,
        nodes=part(lo, hi).nodes,
        rows=(0, hi - lo),
        first_ts_ns=BUILT.frames[lo].ts_ns,
        last_ts_ns=BUILT.frames[hi - 1].ts_ns,
        bytes=0,
        checkpoint=FragmentCheckpoint(hi, note) if signed else None,
        gaps=gaps,
    )
    return FragmentRow(segment, f"seg/{segment}", 0, record)


def head(lo=0, hi=None, *, lost=0, closed="client", built=BUILT):
    hi = len(built.frames) if hi is None else hi
    opening = built.frames[0].payload
    nodes = part(lo, hi).nodes
    return Head(built.session, built.epoch, lo, hi, nodes, 1, 1, hi, lost, closed, opening)


WHOLE = len(BUILT.frames)


def test_an_opening_is_said_to_everybody():
    entry = open_entry(head(), 77)
    encode_entry(entry)
    opening = BUILT.opening
    assert (entry.at_ns, entry.number, entry.node) == (77, 4, opening.node)
    assert (entry.retention, entry.anchor_ns) == (opening.retention, opening.anchor_ns)
    assert entry.opening_sha256 == sha256(BUILT.frames[0].payload).digest()
    assert open_entry(head(hi=1, built=NEXT), 1).continues == BUILT.continues


def test_a_seal_adds_up_what_is_there():
    rows = [fragment(0, 5, signed=True), fragment(5, WHOLE, segment=2, signed=True)]
    entry = seal_entry(head(), rows, 9)
    encode_entry(entry)
    assert entry.complete
    assert entry.root == BUILT.tree.root()
    assert entry.fragments == Listed.of(row.record.to_json() for row in rows)
    assert entry.checkpoint_sha256 == sha256(BUILT.checkpoint(WHOLE).note).digest()
    assert entry.first_ts_ns == BUILT.frames[0].ts_ns
    assert entry.last_ts_ns == BUILT.frames[-1].ts_ns


def test_nothing_attested():
    entry = seal_entry(head(closed=""), [fragment(0, WHOLE)], 9)
    encode_entry(entry)
    assert (entry.attested, entry.checkpoint_sha256) == (0, bytes(32))
    assert not entry.complete


def test_the_last_signature_counts():
    rows = [fragment(0, 5, signed=True), fragment(5, WHOLE)]
    assert seal_entry(head(), rows, 9).attested == 5


def test_frames_that_are_lost_leave_no_root():
    gap = (FragmentGap(5, 7, "lost"),)
    rows = [fragment(0, 5, signed=True), fragment(7, WHOLE, gaps=gap)]
    entry = seal_entry(head(lo=7, lost=2), rows, 9)
    encode_entry(entry)
    assert (entry.root, entry.lost, entry.frames) == (b"", 2, WHOLE)


@pytest.mark.parametrize(
    ("rows", "lost"),
    [
        ([], 0),
        ([fragment(0, 5)], 0),
        ([fragment(5, WHOLE)], 0),
        ([fragment(0, 6), fragment(5, WHOLE)], 0),
        ([fragment(5, WHOLE), fragment(0, 5)], 0),
        ([fragment(0, 5), fragment(7, WHOLE)], 0),
        ([fragment(0, 5), fragment(7, WHOLE)], 2),  # nobody states the gap
        ([fragment(0, 5), fragment(7, WHOLE, gaps=(FragmentGap(5, 7, "lost"),))], 3),
    ],
)
def test_fragments_that_are_not_the_heads(rows, lost):
    with pytest.raises(FormatError, match="are not the"):
        seal_entry(head(lo=7 if lost else 0, lost=lost), rows, 9)


def test_a_head_that_lost_nothing_begins_at_nothing():
    with pytest.raises(FormatError, match="begins at 3"):
        seal_entry(head(lo=3), [fragment(0, WHOLE)], 9)


def test_an_incident_without_its_sentence():
    row = Incident("frames", 2, 17, "gap", "Frames 3 to 4.", b"", -1, -1, 5, 99)
    entry = incident_entry(row)
    assert b"Frames" not in encode_entry(entry)
    assert (entry.bus.offset, entry.epoch, entry.seq, entry.at_ns) == (17, None, None, 5)
    known = incident_entry(replace(row, session=bytes(16), epoch=0, seq=0))
    assert (known.epoch, known.seq) == (0, 0)


def test_where_a_later_epoch_goes_on():
    heads = [head(), head(hi=1, built=NEXT)]
    assert continued_at(heads, 0) == WHOLE
    assert continued_at(heads, 1) is None
    assert continued_at(heads[:1], 0) is None


def test_places_grow_with_the_time():
    assert place_after(5, 100) == 100
    assert place_after(101, 100) == 101


# -- patience --------------------------------------------------------------------------------------


def unsealed(state="live", changed_ns=1, *, closed="client", followed=False):
    return Unsealed(replace(head(), closed=closed), state, followed, changed_ns)


@pytest.mark.parametrize(
    ("item", "final"),
    [
        (unsealed(), True),
        (unsealed(closed="", followed=True), True),
        (unsealed("incomplete", closed=""), True),
        (unsealed(closed=""), False),
    ],
)
def test_nothing_is_waited_for_longer(item, final):
    patience = Patience(120.0)
    assert patience.look([item], 0.0) == []
    assert patience.look([item], 119.0) == []
    assert patience.look([item], 120.0) == ([item] if final else [])


def test_whatever_changes_begins_it_anew():
    patience = Patience(120.0)
    patience.look([unsealed()], 0.0)
    for now, item in ((100.0, unsealed(changed_ns=2)), (200.0, unsealed("incomplete", 2))):
        assert patience.look([item], now) == []
    assert patience.look([unsealed("incomplete", 2)], 319.0) == []
    assert patience.look([unsealed("incomplete", 2)], 320.0)


def test_what_was_not_there_in_between_is_new():
    patience = Patience(120.0)
    patience.look([unsealed()], 0.0)
    patience.look([], 60.0)
    assert patience.look([unsealed()], 130.0) == []
