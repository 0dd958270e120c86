"""One session's evidence: what verifies, and what each change to it is called."""

from dataclasses import replace

import pytest

from sealtape.ingest.parquet import row_of
from sealtape.schemas.bodies import Gap
from sealtape.schemas.frames import Frame, Kind
from sealtape.schemas.messages import CheckpointMessage
from sealtape.schemas.segments import FragmentCheckpoint, FragmentGap, FragmentRecord
from sealtape.schemas.tree import CompactRange
from sealtape.schemas.verify import FragmentVerifier, Report, SessionVerifier, Single
from tests.factories.sessions import LOG, START_NS, build_session, node_signer
from tests.factories.stored import columns_of

NOW = START_NS + 10**9
TRUST = [node_signer().verifier]


def fragment_of(built, lo, hi, *, checkpoint=None, gaps=(), nodes=()):
    return FragmentRecord(
        tenant="main",
        class_name="standard",
        session=built.session,
        epoch=built.epoch,
        lo=lo,
        hi=hi,
        nodes=nodes,
        rows=(0, hi - lo),
        first_ts_ns=built.frames[lo].ts_ns,
        last_ts_ns=built.frames[hi - 1].ts_ns,
        bytes=0,
        checkpoint=checkpoint,
        gaps=gaps,
    )


def last_checkpoint(built, hi, lo=0):
    found = [m for m in built.messages if isinstance(m, CheckpointMessage) and lo < m.size <= hi]
    return FragmentCheckpoint(found[-1].size, found[-1].note.decode()) if found else None


class Run:
    """A verifier fed from built sessions."""

    def __init__(self, built, *, trust=TRUST, log=LOG, now_ns=NOW):
        self.report = Report()
        self.verifier = SessionVerifier(
            built.session, log=log, trust=trust, now_ns=now_ns, report=self.report
        )

    def feed(self, built, lo=0, hi=None, *, frames=None, **kwargs):
        hi = len(built.frames) if hi is None else hi
        kwargs.setdefault("checkpoint", last_checkpoint(built, hi, lo))
        self.verifier.fragment(fragment_of(built, lo, hi, **kwargs), "seg/x")
        for frame in built.frames[lo:hi] if frames is None else frames:
            self.verifier.frame(row_of(frame), frame.leaf())
        return self

    def finish(self):
        self.verifier.finish()
        self.report.sessions = 1
        return self.report


def reasons(report):
    return [(f.verdict, f.layer, f.seq) for f in report.findings]


def test_a_whole_session_verifies():
    built = build_session(commands=5)
    run = Run(built).feed(built)
    assert run.finish().exit_code == 0, run.report.findings
    assert run.verifier.root(0) == built.tree.root()
    assert run.verifier.sizes == {0: len(built.frames)}
    assert run.verifier.opening(0) == built.opening
    assert run.verifier.root(3) is None
    assert run.verifier.opening(3) is None


@pytest.mark.parametrize("cut", range(1, 12))
def test_in_two_fragments(cut):
    built = build_session(commands=5, checkpoint_every=4)
    run = Run(built).feed(built, 0, cut).feed(built, cut)
    assert run.finish().findings == []


def test_without_a_trust_file_the_report_says_so():
    built = build_session()
    report = Run(built, trust=None).feed(built).finish()
    assert report.exit_code == 0
    assert report.notes[0].startswith("trust: self")


def test_an_unknown_node_is_not_believed():
    built = build_session(node=node_signer("evil", 9))
    report = Run(built).feed(built).finish()
    assert report.exit_code == 1
    assert report.findings[0].layer == "certificate"


def test_the_log_must_be_ours_unless_none_is_named():
    built = build_session()
    assert Run(built, log="other/log").feed(built).finish().exit_code == 1
    assert Run(built, log=None).feed(built).finish().exit_code == 0


def test_a_changed_frame_breaks_the_signed_root():
    built = build_session(commands=5)
    frames = list(built.frames)
    frames[4] = replace(frames[4], payload=frames[4].payload[:-1] + b"\0")
    report = Run(built).feed(built, frames=frames).finish()
    assert ("tampered", "checkpoint", len(frames) - 1) in reasons(report)


def test_a_dropped_frame_is_named():
    built = build_session(commands=5)
    frames = [frame for frame in built.frames if frame.seq != 4]
    report = Run(built).feed(built, frames=frames).finish()
    assert ("tampered", "tree", 5) in reasons(report)


def test_a_frame_after_close():
    built = build_session(commands=2)
    extra = replace(built.frames[3], seq=len(built.frames), ts_ns=built.frames[-1].ts_ns)
    report = Run(built).feed(built, frames=[*built.frames, extra]).finish()
    assert "a frame follows CLOSE" in [f.reason for f in report.findings]


def test_time_never_runs_back():
    built = build_session(commands=2)
    frames = list(built.frames)
    frames[3] = replace(frames[3], ts_ns=frames[2].ts_ns - 1)
    report = Run(built).feed(built, frames=frames).finish()
    assert ("tampered", "frame", 3) in reasons(report)


def test_a_live_session_is_incomplete():
    built = build_session(close=None)
    report = Run(built).feed(built).finish()
    assert report.exit_code == 2
    assert "not closed" in report.findings[0].reason


def test_an_unsigned_end_is_incomplete():
    built = build_session(commands=5, final_checkpoint=False)
    report = Run(built).feed(built).finish()
    assert ("incomplete", "checkpoint", 2) in reasons(report)


def test_a_hole_between_fragments():
    built = build_session(commands=5, checkpoint_every=4)
    report = Run(built).feed(built, 0, 4).feed(built, 6).finish()
    assert ("tampered", "session", 4) in reasons(report)


def test_frames_sealed_twice():
    built = build_session(commands=5, checkpoint_every=4)
    report = Run(built).feed(built, 0, 6).feed(built, 4).finish()
    assert ("tampered", "session", 4) in reasons(report)


def test_a_gap_stated_by_ingest_is_incomplete():
    built = build_session(commands=5, checkpoint_every=100)
    gap = (FragmentGap(2, 3, "lost on the bus"),)
    report = Run(built).feed(built, 0, 2).feed(built, 3, gaps=gap, checkpoint=None).finish()
    assert report.exit_code == 2
    assert ("incomplete", "session", 2) in reasons(report)


def test_a_stated_gap_that_does_not_begin_where_the_frames_end():
    built = build_session(commands=5, checkpoint_every=100)
    gap = (FragmentGap(3, 4, "lost"),)
    report = Run(built).feed(built, 0, 2).feed(built, 4, gaps=gap, checkpoint=None).finish()
    assert ("tampered", "session", 2) in reasons(report)


def test_a_gap_stated_by_the_node_is_incomplete():
    built = build_session(commands=1, close=None)
    last = built.frames[-1]
    gap = Frame(built.session, 0, last.seq + 1, last.ts_ns, Kind.GAP, 0, 0, Gap("spool").to_json())
    report = Run(built).feed(built, frames=[*built.frames, gap]).finish()
    assert ("incomplete", "session", gap.seq) in reasons(report)


@pytest.mark.parametrize(
    ("change", "layer"), [({"kind": 99}, "frame"), ({"suite": 9}, "frame"), ({"flags": 2}, "frame")]
)
def test_what_this_version_does_not_know_is_incomplete(change, layer):
    built = build_session(commands=3)

    class Unknown:
        def __init__(self, frame):
            row = row_of(frame)
            for name in row._fields:
                setattr(self, name, change.get(name, getattr(row, name)))

    run = Run(built)
    run.verifier.fragment(fragment_of(built, 0, len(built.frames)), "seg/x")
    for frame in built.frames:
        row = Unknown(frame) if frame.seq == 3 else row_of(frame)
        run.verifier.frame(row, frame.leaf())
    assert ("incomplete", layer, 3) in reasons(run.finish())


def test_extension_kinds_are_no_finding():
    built = build_session(commands=1, close=None)
    last = built.frames[-1]
    extra = Frame(built.session, 0, last.seq + 1, last.ts_ns, 200, 0, 0, b"x")
    report = Run(built).feed(built, frames=[*built.frames, extra]).finish()
    assert [f.reason for f in report.findings] == [
        "not closed: it is live, or its node has not come back"
    ]


def test_open_and_ident_stand_first_and_once():
    built = build_session(commands=2)
    ident = replace(built.frames[1], seq=4, ts_ns=built.frames[4].ts_ns)
    frames = [*built.frames[:4], ident, *built.frames[5:]]
    report = Run(built).feed(built, frames=frames).finish()
    assert ("tampered", "session", 4) in reasons(report)


def test_another_ident_than_open_names():
    built, other = build_session(commands=2), build_session(commands=2, seed=7)
    ident = replace(built.frames[1], payload=other.frames[1].payload)
    frames = [built.frames[0], ident, *built.frames[2:]]
    report = Run(built).feed(built, frames=frames).finish()
    assert ("tampered", "certificate", 1) in reasons(report)


def test_open_of_another_session():
    built, other = build_session(commands=2), build_session(commands=2, seed=7)
    opening = replace(other.frames[0], session=built.session)
    report = Run(built).feed(built, frames=[opening, *built.frames[1:]]).finish()
    assert ("tampered", "certificate", 0) in reasons(report)
    assert "OPEN belongs to another session or epoch" in [f.reason for f in report.findings]


def test_open_of_another_epoch():
    built = build_session(commands=2)
    later = build_session(commands=2, seed=7, session=built.session, epoch=1,
                          continues=built.continues)  # fmt: skip
    opening = replace(later.frames[0], epoch=0)
    report = Run(built).feed(built, frames=[opening, *built.frames[1:]]).finish()
    assert "OPEN belongs to another session or epoch" in [f.reason for f in report.findings]


@pytest.mark.parametrize("payload", [b"", b"{}\n\nx", b"\xff"])
def test_an_open_that_cannot_be_read(payload):
    built = build_session(commands=2)
    for trust in (TRUST, None):
        opening = replace(built.frames[0], payload=payload)
        report = Run(built, trust=trust).feed(built, frames=[opening, *built.frames[1:]]).finish()
        assert ("tampered", "certificate", 0) in reasons(report)


def test_a_close_that_cannot_be_read():
    built = build_session(commands=2)
    close = replace(built.frames[-1], payload=b"{}")
    report = Run(built).feed(built, frames=[*built.frames[:-1], close]).finish()
    assert ("tampered", "session", close.seq) in reasons(report)


def test_a_forged_checkpoint():
    built = build_session(commands=5)
    good = last_checkpoint(built, len(built.frames))
    lines = good.note.split("\n")
    forged = replace(good, note="\n".join([*lines[:-2], lines[-2][:-8] + "AAAAAAA=", ""]))
    report = Run(built).feed(built, checkpoint=forged).finish()
    assert ("tampered", "checkpoint", good.size - 1) in reasons(report)


def test_a_checkpoint_of_another_size():
    built = build_session(commands=5)
    note = built.checkpoint(4).note.decode()
    report = Run(built).feed(built, checkpoint=FragmentCheckpoint(6, note)).finish()
    assert ("tampered", "checkpoint", 5) in reasons(report)


def test_frames_cut_off_below_a_signed_size():
    built = build_session(commands=5)
    frames = built.frames[:-2]
    report = Run(built).feed(built, frames=frames).finish()
    assert ("tampered", "checkpoint", len(frames)) in reasons(report)


# -- many frames at once ----------------------------------------------------------------------


def at_once(built, lo=0, hi=None, *, frames=None):
    """What the verifier of the fragment makes of it: runs, and frames that need a look."""
    hi = len(built.frames) if hi is None else hi
    record = fragment_of(built, lo, hi, checkpoint=last_checkpoint(built, hi, lo))
    verifier = FragmentVerifier(record, "seg/x")
    verifier.take(
        columns_of([row_of(frame) for frame in (built.frames[lo:hi] if frames is None else frames)])
    )
    return record, verifier.events


def feed_at_once(run, built, lo=0, hi=None, **kwargs):
    record, events = at_once(built, lo, hi, **kwargs)
    run.verifier.fragment(record, "seg/x")
    for event in events:
        if isinstance(event, Single):
            run.verifier.frame(event.row, event.leaf)
        else:
            run.verifier.run(event)
    return run


@pytest.mark.parametrize("every", [3, 4, 100])
@pytest.mark.parametrize("cut", [1, 2, 5, 8])
def test_runs_verify_as_their_frames_do(every, cut):
    built = build_session(commands=5, checkpoint_every=every)
    run = feed_at_once(feed_at_once(Run(built), built, 0, cut), built, cut)
    assert run.finish().findings == []
    assert run.verifier.root(0) == built.tree.root()
    assert run.verifier.sizes == {0: len(built.frames)}


def test_a_changed_frame_breaks_the_signed_root_of_a_run():
    built = build_session(commands=5)
    frames = list(built.frames)
    frames[4] = replace(frames[4], payload=b"other")
    report = feed_at_once(Run(built), built, frames=frames).finish()
    assert ("tampered", "checkpoint", len(frames) - 1) in reasons(report)


def test_a_run_after_close():
    built = build_session(commands=2)
    last = built.frames[-1]
    extra = [replace(built.frames[3], seq=last.seq + n, ts_ns=last.ts_ns) for n in (1, 2)]
    report = feed_at_once(Run(built), built, frames=[*built.frames, *extra]).finish()
    assert "a frame follows CLOSE" in [f.reason for f in report.findings]


def test_time_never_runs_back_between_runs():
    built = build_session(commands=5, checkpoint_every=4)
    early = [replace(frame, ts_ns=frame.ts_ns - 10**9) for frame in built.frames[5:-1]]
    run = feed_at_once(Run(built), built, 0, 5)
    report = feed_at_once(run, built, 5, frames=[*early, built.frames[-1]]).finish()
    assert ("tampered", "frame", 5) in reasons(report)


def test_after_a_hole_no_checkpoint_of_a_run_is_looked_at():
    built = build_session(commands=5, checkpoint_every=4)
    run = feed_at_once(feed_at_once(Run(built), built, 0, 4), built, 6)
    assert reasons(run.finish()) == [("tampered", "session", 4)]


# -- epochs -----------------------------------------------------------------------------------


def recovered(**kwargs):
    first = build_session(commands=3, close=None, final_checkpoint=False, **kwargs)
    second = build_session(
        commands=1,
        seed=5,
        session=first.session,
        epoch=1,
        continues=first.continues,
        close="aborted",
        start_ns=START_NS + 10**10,
    )
    return first, second


def test_a_recovered_session_verifies_and_names_what_the_node_attests():
    first, second = recovered()
    report = Run(first).feed(first).feed(second).finish()
    assert report.exit_code == 0, report.findings
    assert "are attested by the node's key" in report.notes[0]


def test_a_shortened_first_epoch():
    first, second = recovered()
    report = Run(first).feed(first, 0, 4).feed(second).finish()
    assert report.exit_code == 1
    assert "continues" in report.findings[0].reason


def test_a_missing_epoch():
    first, second = recovered()
    report = Run(first).feed(second).finish()
    assert ("tampered", "session", None) in reasons(report)
    assert "epochs [0] are missing" in [f.reason for f in report.findings]


def test_a_signed_first_epoch_needs_no_note():
    first = build_session(commands=3, close=None)
    second = build_session(
        commands=1, seed=5, session=first.session, epoch=1, continues=first.continues,
        close="aborted", start_ns=START_NS + 10**10,
    )  # fmt: skip
    report = Run(first).feed(first).feed(second).finish()
    assert (report.exit_code, report.notes) == (0, [])


def test_nothing_goes_on_after_it_was_closed():
    first = build_session(commands=3)
    second = build_session(
        commands=1, seed=5, session=first.session, epoch=1, continues=first.continues,
        start_ns=START_NS + 10**10,
    )  # fmt: skip
    report = Run(first).feed(first).feed(second).finish()
    assert reasons(report) == [("incomplete", "session", 0)]
    assert report.findings[0].epoch == 1


@pytest.mark.parametrize("other", [{"number": 2}, {"tenant": "other"}])
def test_no_other_session_goes_on_with_it(other):
    first = build_session(commands=3, close=None)
    second = build_session(
        commands=1, seed=5, session=first.session, epoch=1, continues=first.continues,
        close="aborted", start_ns=START_NS + 10**10, **other,
    )  # fmt: skip
    report = Run(first).feed(first).feed(second).finish()
    assert reasons(report) == [("tampered", "session", 0)]
    assert "another tenant, node or number" in report.findings[0].reason


def test_an_unreadable_open_of_the_next_epoch_is_its_own_finding():
    first, second = recovered()
    opening = replace(second.frames[0], payload=b"")
    report = Run(first).feed(first).feed(second, frames=[opening, *second.frames[1:]]).finish()
    assert {f.epoch for f in report.findings} == {1}


# -- what is absent ---------------------------------------------------------------------------


def nodes_of(built, lo, hi):
    covered = CompactRange(lo)
    for frame in built.frames[lo:hi]:
        covered.append(frame.leaf())
    return covered.nodes


def test_the_rest_of_a_session_verifies_without_a_fragment():
    built = build_session(commands=8, checkpoint_every=4)
    run = Run(built).feed(built, 0, 4)
    middle = fragment_of(
        built, 4, 9, nodes=nodes_of(built, 4, 9), checkpoint=last_checkpoint(built, 9, 4)
    )
    run.verifier.absent(middle, "seg/y")
    assert run.feed(built, 9).finish().findings == []


def test_an_absent_fragment_that_ends_at_a_signed_size():
    built = build_session(commands=8, checkpoint_every=4)
    signed = last_checkpoint(built, 9, 4)
    run = Run(built).feed(built, 0, 4)
    nodes = nodes_of(built, 4, signed.size)
    absent = fragment_of(built, 4, signed.size, nodes=nodes, checkpoint=signed)
    run.verifier.absent(absent, "seg/y")
    assert run.verifier._epochs[0].signed == signed.size
    assert run.feed(built, signed.size).finish().findings == []


def test_an_absent_beginning_leaves_nothing_to_check_against():
    built = build_session(commands=8, checkpoint_every=4)
    run = Run(built)
    run.verifier.absent(fragment_of(built, 0, 4, nodes=nodes_of(built, 0, 4)), "seg/y")
    run.feed(built, 4).finish()
    assert run.verifier.root(0) is None
    assert run.report.exit_code == 0  # the caller has said what is absent


# -- the journal ------------------------------------------------------------------------------


def journal(built):
    """A verifier that believes `built` is a journal, as its OPEN would say."""
    run = Run(built, trust=None)
    run.feed(built)
    run.verifier._epochs[0].opening = replace(built.opening, type="journal", number=0)
    return run


def test_a_running_nodes_journal_is_open():
    built = build_session(close=None)
    report = journal(built).finish()
    assert report.exit_code == 0
    assert "journal" in report.notes[-1]


def test_a_silent_journal_is_incomplete():
    built = build_session(close=None)
    run = journal(built)
    run.verifier._now_ns = built.frames[-1].ts_ns + 61 * 10**9
    assert run.finish().exit_code == 2
