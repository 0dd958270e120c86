import os

import pytest

from sealtape.capture.spool.adopt import Found, read_messages, read_orphan
from sealtape.capture.spool.records import (
    CLEARS,
    CLOSES,
    FRAMES,
    SESSION,
    SLICES,
    Cut,
    Pieces,
    SessionState,
    encode_frames,
    encode_pieces,
    encode_session,
)
from sealtape.schemas.errors import FormatError
from sealtape.schemas.frames import Frame, Kind
from sealtape.schemas.messages import CheckpointMessage, encode
from sealtape.schemas.tree import CompactRange
from tests.capture.stage import SPOOL_KEY, Stage

NOTHING = (0, 0, 0, 0)


def frame(seq):
    return Frame(bytes(16), 0, seq, 100 + seq, Kind.CLOCK, 0, 0, b"%d" % seq)


def state(number=1):
    pieces = Pieces(number, 0, 0, b"", 0, b"")
    return SessionState(number, b"about", 0, 0, (), NOTHING, 0, 0, 0, 0, 0, pieces)


def cut(*seqs, flags=0, number=1, offsets=NOTHING):
    return Cut(number, flags, offsets, 1, 2, 3, [encode(frame(seq)) for seq in seqs])


@pytest.fixture
def orphan(tmp_path):
    stage = Stage(tmp_path)
    dead = stage.spool(os.urandom(16))
    mine = stage.spool(os.urandom(16))
    claimed = []

    def make(*batches):
        lane = dead.lane("spooled", sync=False)
        for number, records in enumerate(batches):
            lane.write(records, fresh=number == 0)
        lane.close()
        dead.close(remove=False)
        claimed.extend(mine.claim_orphans())
        return claimed[0]

    yield make
    for each in claimed:
        each.release()
    mine.close(remove=True)


def session(number=1):
    return (SESSION, [encode_session(state(number))])


def frames(first, *cuts, acked=0):
    return (FRAMES, encode_frames(first, acked, cuts))


def slices(*args):
    return (SLICES, [encode_pieces(*args)])


def test_frames_slices_and_cuts_are_followed(orphan):
    found = read_orphan(
        orphan(
            [session(), frames(0, cut(0, 1))],
            [slices(1, 50, [b"a", b"b"], [b"f"])],
            [slices(1, 50, [b"c"], []), slices(99, 1, [b"nobody's"], [])],
            [frames(2, cut(2, flags=CLEARS, offsets=(9, 0, 0, 0)), acked=2)],
            [slices(1, 70, [b"d"], [b"g"])],
        ),
        SPOOL_KEY,
    )
    kept = found.states[1]
    assert kept.pieces == Pieces(1, 70, 1, b"d", 1, b"g")
    assert (kept.size, kept.offsets, kept.facts, kept.commands) == (3, (9, 0, 0, 0), 1, 2)
    tree = CompactRange()
    for seq in range(3):
        tree.append(frame(seq).leaf())
    assert kept.nodes == tree.nodes
    assert found.acked == {"spooled": 2}
    assert found.damage == []


def test_a_closed_session_is_not_recovered(orphan):
    found = read_orphan(
        orphan([session(), session(2), frames(0, cut(0, flags=CLEARS | CLOSES))]), SPOOL_KEY
    )
    assert list(found.states) == [2]


def test_a_repeated_write_changes_nothing():
    found = Found()
    found.session(state())
    found.cut(cut(0, 1, flags=CLEARS))
    found.pieces(Pieces(1, 5, 1, b"later", 0, b""))
    found.cut(cut(0, 1, flags=CLEARS))
    assert found.states[1].pieces.slices == b"later"
    assert found.states[1].size == 2


def test_checkpoints_say_how_far_the_epoch_is_signed():
    found = Found()
    found.session(state())
    signed = encode(CheckpointMessage(bytes(16), 0, 2, b"note"))
    found.cut(Cut(1, 0, NOTHING, 0, 0, 0, [encode(frame(0)), encode(frame(1)), signed]))
    found.cut(cut(2))
    assert (found.states[1].signed, found.states[1].size) == (2, 3)


def test_what_does_not_fit_together_is_damage():
    found = Found()
    found.session(state())
    with pytest.raises(FormatError, match="missing"):
        found.cut(cut(1))
    found.pieces(Pieces(1, 5, 1, b"a", 0, b""))
    with pytest.raises(FormatError, match="together"):
        found.pieces(Pieces(1, 6, 1, b"b", 0, b""))


def test_damage_is_listed_and_the_rest_is_used(orphan):
    left = orphan([session(), frames(0, cut(0)), (FRAMES, [b"nonsense"])])
    found = read_orphan(left, SPOOL_KEY)
    assert found.states[1].size == 1
    assert len(found.damage) == 1
    assert [len(messages) for messages in read_messages(left, SPOOL_KEY, {})] == [1]


def test_only_what_the_bus_may_lack_is_shipped(orphan):
    left = orphan(
        [session(), frames(0, cut(0, 1))], [frames(2, cut(2), cut(3), acked=3)], [frames(4, cut(4))]
    )
    found = read_orphan(left, SPOOL_KEY)
    shipped = [m for messages in read_messages(left, SPOOL_KEY, found.acked) for m in messages]
    assert shipped == [encode(frame(3)), encode(frame(4))]


def test_after_recovery_no_session_is_recovered_again(orphan):
    left = orphan([session(), frames(0, cut(0))])
    left.keep_recovery([encode_frames(0, 0, [cut(0)])])
    assert read_orphan(left, SPOOL_KEY).states == {}
    assert len(list(read_messages(left, SPOOL_KEY, {}))) == 2
