"""The sealer: an epoch that goes on where the one before was left."""

from dataclasses import replace

import pytest

from tests.factories.sessions import build_session
from tests.ingest.test_sealer import Bench


def recovered(commands=3, **changes):
    first = build_session(commands=commands, close=None, final_checkpoint=False)
    continues = replace(first.continues, **changes)
    second = build_session(
        commands=0,
        session=first.session,
        epoch=1,
        seed="again",
        continues=continues,
        close="aborted",
    )
    return first, second


def test_a_recovery_epoch_frees_what_waited_in_the_one_before():
    first, second = recovered()
    bench = Bench().send(*first.messages, *second.messages)
    bench.later(1).cut()
    assert bench.sealed(first.session, 0) == [(0, len(first.frames))]
    assert bench.sealed(first.session, 1) == [(0, len(second.frames))]
    assert bench.reasons == []
    assert bench.cuts[0].next_offset == bench.offset
    assert bench.heads[first.session, 1].complete


def test_a_recovery_epoch_is_compared_with_what_is_sealed_too():
    first, second = recovered()
    bench = Bench().send(*first.messages)
    bench.later(61).cut()
    bench.send(*second.messages)
    bench.later(1).cut()
    assert bench.reasons == []


@pytest.mark.parametrize("changes", [{"size": 5}, {"size": 50}, {"root": b"x" * 32}])
def test_a_recovery_epoch_that_does_not_go_on_is_said(changes):
    first, second = recovered(**changes)
    bench = Bench().send(*first.messages, *second.messages)
    bench.later(1).cut()
    assert bench.reasons == ["continuation"]
    assert bench.heads[first.session, 1].complete


@pytest.mark.parametrize("sealed", [True, False])
def test_a_session_is_taken_up_by_nobody_else(sealed):
    """In the log it would be a breach: one node's key must not be able to stop every monitor."""
    first, _ = recovered()
    other = build_session(
        seed=2, session=first.session, epoch=1, continues=first.continues, number=2, commands=0,
        close="aborted",
    )  # fmt: skip
    bench = Bench().send(*first.messages)
    if sealed:
        bench.later(61).cut()
    bench.send(*other.messages)
    bench.later(1).cut()
    assert bench.reasons == ["open_bad"] + ["no_open"] * (len(bench.reasons) - 1)
    assert bench.heads[first.session, 0].hi
    assert (first.session, 1) not in bench.heads


def test_a_recovery_epoch_without_the_one_before_is_said():
    _, second = recovered()
    bench = Bench().send(*second.messages)
    bench.later(1).cut()
    assert bench.reasons == ["continuation"]


def test_a_recovery_epoch_vouches_for_frames_past_a_hole():
    first, second = recovered()
    kept = [f for f in first.frames if f.seq != 4]
    bench = Bench().send(*kept, *second.messages)
    bench.later(1).cut()
    assert bench.sealed(first.session, 0) == [(0, 4), (5, len(first.frames))]
    assert "gap" in bench.reasons
