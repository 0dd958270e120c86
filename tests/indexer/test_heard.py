"""Which of a session's live frames are the sealed ones."""

from dataclasses import replace

import pytest

from sealtape.indexer.heard import Chain, Heard
from sealtape.schemas.segments import FragmentRecord
from sealtape.schemas.tree import CompactRange
from tests.factories.sessions import build_session

BUILT = build_session(commands=12)
NAME = (BUILT.session, 0)
LEAVES = [frame.leaf() for frame in BUILT.frames]


def fragment(lo, hi):
    run = CompactRange(lo)
    for leaf in LEAVES[lo:hi]:
        run.append(leaf)
    return FragmentRecord(
        tenant="main",
        class_name="standard",
        session=BUILT.session,
        epoch=0,
        lo=lo,
        hi=hi,
        nodes=run.nodes,
        rows=(0, hi - lo),
        first_ts_ns=1,
        last_ts_ns=1,
        bytes=1,
    )


def heard(lo, hi, wrong=(), **options):
    found = Heard(**options)
    for seq in range(lo, hi):
        found.add(NAME, seq, bytes(32) if seq in wrong else LEAVES[seq])
    return found


def test_the_same_frames_do_not_differ():
    found = heard(0, 12)
    for lo, hi in ((0, 5), (5, 6), (6, 12)):
        assert not found.differs(fragment(lo, hi), [])
        found.sealed(fragment(lo, hi))
    assert found.leaves == 0


@pytest.mark.parametrize("wrong", [5, 7, 9])
def test_another_frame_differs(wrong):
    found = heard(0, 12, wrong={wrong})
    assert not found.differs(fragment(0, 5), [])
    assert found.differs(fragment(5, 10), [])
    assert not found.differs(fragment(10, 12), [])


def test_the_first_of_several_counts():
    found = heard(0, 6, wrong={3})
    found.add(NAME, 3, LEAVES[3])
    found.add(NAME, 6, LEAVES[6])
    assert found.differs(fragment(0, 7), [])
    assert found.leaves == 7


def test_what_was_read_from_the_segment_completes_a_fragment():
    assert not heard(4, 7).differs(fragment(4, 12), LEAVES[7:12])
    assert heard(4, 7, wrong={6}).differs(fragment(4, 12), LEAVES[7:12])
    assert not heard(4, 7).differs(fragment(4, 12), LEAVES[4:12])
    assert not heard(4, 7).differs(fragment(4, 12), LEAVES[8:12])


def test_of_what_did_not_come_whole_nothing_is_known():
    assert not heard(5, 8, wrong={6}).differs(fragment(4, 8), [])
    assert not heard(4, 7, wrong={6}).differs(fragment(4, 8), [])
    assert not Heard().differs(fragment(0, 3), [])
    other = replace(fragment(4, 8), epoch=1)
    assert not heard(4, 8, wrong={6}).differs(other, [])
    Heard().sealed(other)


def test_behind_a_hole_it_begins_again():
    found = heard(0, 4)
    found.add(NAME, 6, LEAVES[6])
    assert found.leaves == 1
    found.sealed(fragment(0, 4))
    assert found.leaves == 1
    found.sealed(fragment(6, 9))
    assert found.leaves == 0


def test_it_keeps_no_more_than_it_may():
    found = heard(0, 4, max_leaves=6)
    for seq in range(4):
        found.add((bytes(16), seq), 0, bytes(32))
    assert found.leaves == 4
    assert not found.differs(replace(fragment(0, 4), nodes=(bytes(32),)), [])
    assert heard(0, 12, max_leaves=6).leaves <= 6


@pytest.mark.parametrize("wrong", [(), {2}, {5}, {9}])
def test_another_lane_compares_with_what_is_sealed(wrong):
    """By the digest; and with what it heard itself since."""
    first, found = heard(0, 6, wrong), Heard()
    found.restore(NAME, first.chain(NAME))
    found.restore(NAME, Chain(0, 1, bytes(32)))
    for seq in range(4, 12):
        found.add(NAME, seq, bytes(32) if seq in wrong else LEAVES[seq])
    assert found.leaves == 6
    assert found.owed(fragment(0, 4)) is None
    found.sealed(fragment(0, 4))
    assert found.owed(fragment(4, 8)) == (0, 8)
    assert found.matches(NAME, LEAVES[:8]) is (not wrong & set(range(8)) if wrong else True)
    assert not found.matches(NAME, LEAVES[:5])
    found.sealed(fragment(4, 8))
    assert found.chain(NAME) == heard(8, 12, wrong).chain(NAME)
    assert found.owed(fragment(8, 12)) is None
    assert found.differs(fragment(8, 12), []) is (9 in wrong)
    found.sealed(fragment(8, 12))
    assert (found.chain(NAME), found.leaves) == (None, 0)


def test_of_too_many_the_digest_is_left():
    found = heard(0, 10, wrong={3}, max_leaves=4)
    assert found.chain(NAME) == heard(0, 10, wrong={3}).chain(NAME)
    assert found.owed(fragment(0, 12)) == (0, 10)
    assert not found.matches(NAME, LEAVES[:10])
    assert heard(0, 10, max_leaves=4).matches(NAME, LEAVES[:10])
    found.forget(NAME)
    found.forget(NAME)
    assert (found.chain(NAME), found.leaves) == (None, 0)
