from dataclasses import replace

import pytest

from sealtape.ingest.rebuild.derive import Pace, Seen, breaks_off, closing, derive, remarks_of
from sealtape.schemas.bodies import Close
from sealtape.schemas.errors import FormatError
from sealtape.schemas.frames import Kind
from sealtape.schemas.segments import FragmentCheckpoint, FragmentGap
from tests.conformance.ledger import A, B, make_head, sealed_segment, tree_range
from tests.factories.sessions import build_session


def fragment(session=A, epoch=0, lo=0, hi=3, **changes):
    (record,) = sealed_segment(1, [(session, epoch, lo, hi)]).fragments
    return replace(record, **changes)


def seen(record, opening=b"", closed=""):
    return Seen(record, opening or (b"opening" if record.lo == 0 else b""), closed)


def one(parts, heads=None, offset=7):
    (change,), (session,) = derive(parts, heads or {}, offset)
    return change, session


def test_a_new_head_is_what_its_fragments_say():
    record = fragment(checkpoint=FragmentCheckpoint(2, "note"))
    change, session = one([seen(record)])
    head = change.after
    assert (change.before, head.lo, head.hi, head.nodes) == (None, 0, 3, record.nodes)
    assert (head.attested, head.lost, head.closed, head.offset) == (2, 0, "", 7)
    assert (head.opening, head.last_ts_ns) == (b"opening", record.last_ts_ns)
    assert (session.frames, session.bytes, session.lost, session.complete) == (3, 10, 0, False)


def test_a_head_grows_fragment_by_fragment():
    before = make_head(hi=3)
    parts = [
        seen(fragment(lo=3, hi=5, last_ts_ns=5000)),
        seen(fragment(lo=5, hi=8, checkpoint=FragmentCheckpoint(8, "note")), closed="client"),
    ]
    change, session = one(parts, {(A, 0): before}, offset=9)
    assert change.before == before.digest()
    head = change.after
    assert (head.hi, head.nodes, head.attested) == (8, tree_range(0, 8).nodes, 8)
    assert (head.closed, head.opening, head.offset) == ("client", before.opening, before.offset)
    assert head.last_ts_ns == 5000
    assert (session.frames, session.bytes, session.closed, session.complete) == (
        5,
        20,
        "client",
        True,
    )


def test_a_gap_ends_what_signatures_can_show():
    record = fragment(
        lo=5, hi=8, gaps=(FragmentGap(3, 5, "lost"),), checkpoint=FragmentCheckpoint(8, "note")
    )
    change, session = one([seen(record, closed="client")], {(A, 0): make_head(hi=3)})
    head = change.after
    assert (head.lo, head.hi, head.nodes, head.lost, head.attested) == (5, 8, record.nodes, 2, 3)
    assert (session.lost, session.complete) == (2, False)
    more = seen(fragment(lo=8, hi=9, checkpoint=FragmentCheckpoint(9, "note")))
    change, _ = one([more], {(A, 0): head})
    assert (change.after.lo, change.after.hi, change.after.attested) == (5, 9, 3)


def test_a_hole_that_nobody_stated_is_refused():
    with pytest.raises(FormatError, match="are in no segment"):
        one([seen(fragment(lo=4, hi=6))], {(A, 0): make_head(hi=3)})


def test_each_epoch_has_a_change_of_its_own():
    parts = [seen(fragment()), seen(fragment(epoch=1)), seen(fragment(B))]
    changes, sessions = derive(parts, {}, 0)
    assert [(c.after.session, c.after.epoch) for c in changes] == [(A, 0), (A, 1), (B, 0)]
    assert [(s.session, s.epoch) for s in sessions] == [(A, 0), (A, 1), (B, 0)]


def test_the_last_close_counts():
    def close(reason):
        return Kind.CLOSE, close_payload(reason)

    assert closing([]) == ""
    assert closing([(Kind.DATA, b"x"), close("client"), close("aborted")]) == "aborted"
    assert closing([(Kind.CLOSE, b"junk")]) == "unreadable"


def close_payload(reason):
    built = build_session(close=reason)
    payload = built.frames[-1].payload
    assert Close.from_json(payload).reason == reason
    return payload


def test_frames_show_by_themselves_what_was_wrong():
    record = fragment(lo=5, hi=9, gaps=(FragmentGap(3, 5, "lost"),))
    rows = [(Kind.DATA, 10), (Kind.DATA, 9), (Kind.CLOSE, 11), (Kind.DATA, 12)]
    found = remarks_of(record, rows, Pace.at(make_head()), 77)
    assert [(r.reason, r.seq, r.at_seq) for r in found] == [
        ("gap", 3, 5),
        ("time_backwards", 5, 5),
        ("time_backwards", 6, 6),
        ("time_backwards", 7, 7),
        ("after_close", 8, 8),
        ("time_backwards", 8, 8),
    ]
    assert found[0].detail == "Frames 3 to 4 never came."
    assert {r.at_ns for r in found} == {77}


def test_pace_goes_on_from_fragment_to_fragment():
    pace = Pace.at(None)
    assert remarks_of(fragment(hi=2), [(Kind.OPEN, 5), (Kind.CLOSE, 6)], pace, 0) == []
    (found,) = remarks_of(fragment(lo=2, hi=3), [(Kind.DATA, 7)], pace, 0)
    assert found.reason == "after_close"


def test_a_recovery_epoch_is_compared_with_what_came_before():
    first = build_session(close=None, final_checkpoint=False)

    def head_of(built, epoch=0):
        return replace(
            make_head(built.session, epoch),
            hi=built.tree.hi,
            nodes=built.tree.nodes,
            opening=built.frames[0].payload,
        )

    def reasons(before, continues):
        again = build_session(
            commands=0, session=first.session, epoch=1, continues=continues, seed=5
        )
        return [r.reason for r in breaks_off(before, head_of(again, 1), 0)]

    whole = head_of(first)
    assert reasons({0: whole}, first.continues) == []
    assert reasons({}, first.continues) == ["continuation"]
    torn = replace(first.continues, size=first.continues.size + 1)
    assert reasons({0: whole}, torn) == ["continuation"]
    other = replace(first.continues, root=b"x" * 32)
    assert reasons({0: whole}, other) == ["continuation"]
    # After a gap nobody knows the root.
    gapped = replace(whole, lo=1, nodes=tree_range(1, whole.hi).nodes)
    assert reasons({0: gapped}, other) == []
    assert breaks_off({}, whole, 0) == []
