"""Frames that somebody slipped into the bus: what they may not do to the frames beside them."""

from dataclasses import replace

import pytest

from sealtape.schemas.frames import Frame, Kind
from tests.factories.sessions import build_session
from tests.ingest.test_sealer import LIMITS, Bench, forged, frames_of
from tests.ingest.test_sealer_epochs import recovered

TIGHT = replace(LIMITS, aside_bytes=1_000_000)


def slipped_in(built, before=None, after=None):
    """The session's messages with other frames by seq, before and behind the true ones."""
    for message in built.messages:
        seq = message.seq if isinstance(message, Frame) else None
        if before is not None and seq in before:
            yield forged(message, **before[seq])
        yield message
        if after is not None and seq in after:
            yield forged(message, **after[seq])


def test_what_is_said_of_the_order_is_of_frames_that_are_sealed():
    built = build_session(commands=4)
    for changes in ({"ts_ns": 2**62}, {"kind": Kind.CLOSE}):
        bench = Bench().send(*slipped_in(built, before={3: changes}))
        bench.later(1).cut()
        assert bench.heads[built.session, 0].complete
        assert bench.reasons == ["conflict"]


def test_a_close_that_was_slipped_in_ends_no_epoch():
    built = build_session(commands=20, checkpoint_every=5, close=None)
    bench = Bench()
    for message in slipped_in(built, before={3: {"kind": Kind.CLOSE}}):
        bench.send(message)
    track = bench.sealer._tracks[built.session, 0]
    assert not track.ended


def test_large_frames_that_were_slipped_in_leave_nothing_behind():
    built = build_session(commands=4)
    bench = Bench().send(*slipped_in(built, before={3: {"payload": bytes(300_000)}}))
    bench.send(*slipped_in(built, after={5: {"payload": bytes(300_000)}}))
    bench.later(1).cut()
    assert bench.heads[built.session, 0].complete
    assert (bench.sealer._waiting_bytes, bench.sealer._aside_bytes) == (0, 0)


def test_frames_under_an_earlier_signature_stay():
    built = build_session(commands=8, checkpoint_every=5)
    bench = Bench().send(*slipped_in(built, before={7: {}}, after={3: {}}))
    bench.later(1).cut()
    assert [row.frame() for stretch in bench.stretches for row in stretch.rows] == list(
        built.frames
    )
    assert bench.heads[built.session, 0].complete
    assert [reason for reason, _ in bench.quarantined] == ["conflict", "conflict"]


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [({7}, {5}, True), ({4, 6}, {3, 7, 9, 10}, True), ({4, 6}, {3, 7, 8, 9, 10}, False)],
)
def test_frames_that_came_before_and_behind_the_true_ones(before, after, told):
    built = build_session(commands=8)
    sides = ({seq: {} for seq in seqs} for seqs in (before, after))
    bench = Bench().send(*slipped_in(built, *sides))
    bench.send(built.messages[-1]).later(61).cut()
    assert bench.heads[built.session, 0].complete == told
    assert ("checkpoint_root" in bench.reasons) != told
    assert bench.reasons.count("conflict") == len(before | after)
    assert bench.sealer._aside_bytes == 0


def test_a_recovery_epoch_tells_which_of_two_frames_is_true():
    first, second = recovered()
    last = first.frames[-1].seq
    bench = Bench().send(*slipped_in(first, before={last: {}}), *second.messages)
    bench.later(1).cut()
    assert bench.reasons == ["conflict"]
    sealed = [row.frame() for s in bench.stretches for row in s.rows if not s.opening.epoch]
    assert sealed == list(first.frames)


# -- how much of them is held


def test_frames_past_a_hole_are_held_up_to_a_size():
    built = build_session(commands=6)
    early = [
        replace(forged(built.frames[4]), seq=100 + n, payload=bytes(400_000)) for n in range(4)
    ]
    bench = Bench(limits=TIGHT).send(*built.frames[:3], *early)
    assert [item.reason for item in bench.sealer.findings.incidents] == ["early_frame"] * 2
    bench.cut()
    bench.later(61).cut()
    assert bench.sealer._aside_bytes == 0
    assert [reason for reason, _ in bench.quarantined] == ["early_frame"] * 4


def test_other_frames_for_one_seq_are_held_up_to_a_size():
    built = build_session(commands=6)
    others = [forged(frame, payload=bytes(400_000)) for frame in built.frames[3:7]]
    bench = Bench(limits=TIGHT).send(*built.frames, *others)
    assert [item.reason for item in bench.sealer.findings.incidents] == ["conflict"] * 2


def test_a_proven_hole_is_stated_when_there_is_no_more_room_behind_it():
    built = build_session(commands=12, checkpoint_every=10)
    kept = [m for m in built.messages if not (isinstance(m, Frame) and m.seq == 4)]
    bench = Bench(limits=replace(LIMITS, early_frames=len(built.frames[5:12]))).send(*kept)
    bench.later(1).cut()
    assert bench.reasons == ["gap"]
    assert bench.quarantined == []
    assert bench.sealed(built.session) == [(0, 4), (5, len(built.frames))]


def test_a_signature_of_lost_frames_does_not_wait_for_frames_behind_it():
    built = build_session(commands=8)
    signed = built.messages[-1]
    bench = Bench().send(*frames_of(built, 0, 6), signed)
    for number in range(4):
        bench.later(40).send(forged(built.frames[-1], seq=1000 + number))
        bench.cut()
    assert "checkpoint_ahead" in bench.reasons
    assert bench.sealer.first > 6


def test_each_of_several_holes_is_an_incident_of_its_own():
    built = build_session(commands=8)
    lost = {3, 4, 7, 10}
    bench = Bench()
    bench.send(*(m for m in built.messages if not (isinstance(m, Frame) and m.seq in lost)))
    bench.later(61).cut()
    assert bench.reasons == ["gap"] * 3
    assert len({item.offset for cut in bench.cuts for item in cut.incidents}) == 3
