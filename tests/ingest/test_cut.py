import json
from dataclasses import replace

from sealtape.ingest.cut import make_cut
from sealtape.ingest.findings import Findings
from sealtape.ingest.parquet import row_of
from sealtape.ingest.track import Track
from sealtape.schemas.frames import Frame
from tests.factories.sessions import build_session


def cut_of(*tracks, aged_ns=0, findings=None, read_to=1000):
    return make_cut(
        tracks,
        first=10,
        read_to=read_to,
        aged_ns=aged_ns,
        findings=findings or Findings("frames", 0),
        now_ns=500,
    )


def cut_track(built, *, start=100, signed=None, attested=True):
    track = Track(built.session, 0, None)
    track.open(built.opening, built.frames[0].payload, built.ephemeral.verifier)
    for offset, frame in enumerate(built.frames, start):
        track.append(row_of(frame), offset, 100)
    if signed:
        track.sign(signed, b"note", attested=attested)
    return track


def test_a_cut_changes_no_track_until_it_is_applied():
    built = build_session(commands=3)
    track = cut_track(built, signed=5)
    before = (track.head, track.base, list(track.pieces), track.pieces[0].run.copy())
    cut = cut_of(track)
    assert (track.head, track.base, track.pieces, track.pieces[0].run) == before
    (change,) = cut.changes
    change.apply(track)
    assert track.head is change.head
    assert (track.base.hi, track.next_seq) == (5, len(built.frames))
    assert track.pieces[0].rows[0].seq == 5
    assert track.root_at(len(built.frames)) == built.tree.root()


def test_the_position_is_the_lowest_offset_that_waits():
    built = build_session(commands=3)
    assert cut_of(cut_track(built, signed=5)).next_offset == 105
    assert cut_of(cut_track(built)).next_offset == 100
    assert cut_of(cut_track(built, signed=len(built.frames))).next_offset == 1000
    track = cut_track(built, signed=len(built.frames))
    track.ahead[99] = (b"", 50, 0)
    assert cut_of(track).next_offset == 50
    assert cut_of().next_offset == 1000


def test_rivals_wait_with_their_frame_and_are_quarantined_with_it():
    built = build_session(commands=3)
    rival = row_of(replace(built.frames[4], payload=b"x" * 60))
    for seq, expected in ((4, ["conflict"]), (6, [])):
        track = cut_track(built, signed=5)
        track.pieces[0].rivals[seq] = (rival, 7)
        findings = Findings("frames", 0)
        cut = cut_of(track, findings=findings)
        assert [item.reason for item in cut.quarantined] == expected
        assert cut.next_offset == (105 if expected else 7)


def test_an_empty_cut_says_so():
    assert cut_of(read_to=10).empty
    assert not cut_of(read_to=11).empty
    findings = Findings("frames", 0)
    findings.incident("gap", "why", offset=1, now_ns=2)
    assert not cut_of(read_to=10, findings=findings).empty


def test_a_head_keeps_what_it_had():
    built = build_session(commands=3)
    track = cut_track(built, signed=5)
    cut_of(track).changes[0].apply(track)
    first = track.head
    assert (first.attested, first.offset, first.closed) == (5, 104, "")
    cut_of(track, aged_ns=10**9).changes[0].apply(track)
    assert (track.head.attested, track.head.hi, track.head.closed) == (
        5,
        len(built.frames),
        "client",
    )
    assert track.head.opening == first.opening
    assert not track.head.complete
    assert track.pieces == []


def test_a_signature_whose_root_is_unknown_attests_nothing():
    built = build_session(commands=3)
    head = cut_of(cut_track(built, signed=5, attested=False)).changes[0].head
    assert (head.hi, head.attested) == (5, 0)


def test_times_are_the_least_and_the_greatest():
    built = build_session(commands=0, close=None)
    track = cut_track(built)
    track.append(row_of(Frame(built.session, 0, 2, -5, 3, 2, 0, b"")), 102, 100)
    change = cut_of(track, aged_ns=10**9).changes[0].change
    assert (change.first_ts_ns, change.last_ts_ns) == (-5, built.frames[1].ts_ns)


def test_events_name_no_person():
    built = build_session(commands=1, user="ada-lovelace", target="payroll")
    findings = Findings("frames", 0)
    findings.incident("gap", "why", offset=1, now_ns=2, session=built.session, epoch=0, seq=4)
    cut = cut_of(cut_track(built, signed=len(built.frames)), findings=findings)
    assert [event.kind for event in cut.events] == ["session-open", "session-sealed", "gap"]
    for event in cut.events:
        body = json.loads(event.payload)
        assert body["kind"] == event.kind
        assert body["session"] == built.session.hex() == event.key
        assert b"ada" not in event.payload
        assert b"payroll" not in event.payload
