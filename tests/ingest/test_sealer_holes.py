"""A hole behind which nothing more comes: it is given up in time, and the position goes on."""

from sealtape.schemas.messages import CheckpointMessage
from tests.factories.sessions import build_session
from tests.ingest.test_sealer import LIMITS, SECOND_NS, Bench

HOLD_S = LIMITS.hold_ns / SECOND_NS


def test_a_hole_is_due_when_nothing_else_waits():
    built = build_session(commands=6, checkpoint_every=2)
    lost = built.frames[4]
    bench = Bench().send(*(message for message in built.messages if message is not lost))
    bench.later(LIMITS.segment_ns / SECOND_NS).cut()
    assert bench.sealed(built.session) == [(0, 4)]
    assert not bench.sealer.due(bench.now)
    assert bench.later(HOLD_S).sealer.due(bench.now)
    bench.cut()
    assert bench.sealed(built.session) == [(0, 4), (5, len(built.frames))]
    assert bench.cuts[-1].next_offset == bench.offset
    assert not bench.later(HOLD_S).sealer.due(bench.now)


def test_a_lone_signature_of_frames_that_never_came_is_due():
    built = build_session(commands=2, close=None)
    ahead = built.checkpoint(len(built.frames))
    sent = [m for m in built.messages if not isinstance(m, CheckpointMessage) or m.size == 2]
    bench = Bench().send(*sent[:5]).later(LIMITS.hold_ns / SECOND_NS)
    bench.cut()
    bench.send(ahead)
    assert not bench.sealer.due(bench.now)
    assert bench.later(HOLD_S).sealer.due(bench.now)
    bench.cut()
    assert bench.reasons[-1] == "checkpoint_ahead"
