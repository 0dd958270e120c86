import json
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
BOOT = bytes(range(16))
ABOUT = json.dumps({"boot": BOOT.hex(), "worker": 0, "session": bytes(16).hex()}).encode()


def frame(seq):
    return Frame(bytes(16), 0, seq, 100 + seq, Kind.CLOCK, 0, 0, b"%d" % seq)


def state(number=1):
    pieces = Pieces(number, 0, 0, b"", 0, b"")
    return SessionState(number, ABOUT, 0, 0, (), NOTHING, 0, 0, 0, 0, 0, pieces)


def cut(*seqs, flags=0, number=1, offsets=NOTHING):
    return Cut(number, flags, offsets, 1, 2, 3, [encode(frame(seq)) for seq in seqs])


@pytest.fixture
def orphan(tmp_path):
    stage = Stage(tmp_path)
    dead = stage.spool(BOOT)
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


def batch(stage, spool, *batches, lane="spooled"):
    """Put files down in a worker's folder, one for each batch."""
    files = spool.lane(lane, sync=False)
    for records in batches:
        files.write(records, fresh=True)
    files.close()


@pytest.fixture
def folder(tmp_path):
    """The folder of a worker that put down three files, and what another finds in it."""
    stage = Stage(tmp_path)
    dead, mine = stage.spool(BOOT), stage.spool(os.urandom(16))
    batch(
        stage,
        dead,
        [session(), frames(0, cut(0)), slices(1, 50, [b"a"], [])],
        [frames(1, cut(1, flags=CLEARS)), session_of(2)],
        [frames(2, cut(2)), session_of(3)],
    )
    dead.close(remove=False)

    def found():
        (orphan,) = mine.claim_orphans()
        try:
            return read_orphan(orphan, SPOOL_KEY)
        finally:
            orphan.release()

    yield dead.folder, found
    mine.close(remove=True)


def session_of(size):
    tree = CompactRange()
    for seq in range(size):
        tree.append(frame(seq).leaf())
    kept = state()
    kept.size, kept.nodes = size, tree.nodes
    return (SESSION, [encode_session(kept)])


def test_a_file_that_is_gone_between_others_is_missed(folder):
    path, found = folder
    assert found().damage == []
    (path / "spooled-00000002.spool").unlink()
    what = found()
    assert what.states[1].size == 3
    where = "behind spooled-00000001.spool, before byte 52"
    assert [text.removeprefix("spooled-00000003.spool: ") for text in what.damage] == [
        f"Messages 1 to 1 are missing {where}.",
        f"Session number 1, {where}: Frames are missing in a spool.",
    ]


def test_an_empty_file_before_others_is_damage(folder):
    path, found = folder
    (path / "spooled-00000001.spool").write_bytes(b"")
    assert found().damage[0] == "spooled-00000001.spool: It holds no record from byte 0 on."
    (path / "spooled-00000001.spool").unlink()
    assert found().damage == []  # the bus had it


def test_a_copy_of_a_file_is_damage(folder):
    path, found = folder
    (path / "spooled-00000004.spool").write_bytes((path / "spooled-00000001.spool").read_bytes())
    what = found()
    assert what.damage == ["spooled-00000004.spool: It is a copy of spooled-00000001.spool."]
    assert what.states[1].size == 3


def test_files_in_the_place_of_each_other_are_damage(folder):
    path, found = folder
    one, other = path / "spooled-00000001.spool", path / "spooled-00000003.spool"
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)
    what = found()
    assert [text.split(":")[0] for text in what.damage] == [
        "spooled-00000002.spool",
        "spooled-00000003.spool",
    ]
    assert "Message 1 stands behind message 2." in what.damage[0]
    assert what.states[1].size == 3


def test_snapshots_show_frames_that_are_missing(tmp_path):
    found = Found()
    assert found.session(state()) == 0
    kept = state()
    kept.size, kept.nodes = 1, (bytes(32),)
    assert found.session(kept) == 1


@pytest.mark.parametrize("about", [b"about", b"[]", b"{}"])
def test_a_snapshot_of_nobody_is_damage(about):
    kept = state()
    kept.about = about
    with pytest.raises(FormatError, match="not understood"):
        Found().session(kept)


def test_a_session_of_another_boot_is_damage(folder):
    path, found = folder
    path.rename(path.with_name(path.name.replace(BOOT.hex(), bytes(16).hex())))
    what = found()
    assert what.states == {}
    assert what.damage[0] == (
        "spooled-00000001.spool: Damaged at byte 52: It is of another worker, or of another boot."
    )


def test_frames_of_another_session_are_strange():
    found = Found()
    found.session(state())
    other = Frame(bytes(15) + b"x", 0, 0, 100, Kind.CLOCK, 0, 0, b"")
    assert not found.is_strange(cut(0))
    assert found.is_strange(Cut(1, 0, NOTHING, 0, 0, 0, [encode(other)]))
    assert not found.is_strange(Cut(2, 0, NOTHING, 0, 0, 0, [encode(other)]))


def test_a_damaged_counter_is_told(folder):
    path, found = folder
    (path / "counter").write_bytes(b"\1" * 24)
    assert found().damage == ["counter: It does not hold what was written to it."]
    (path / "counter").unlink()
    assert found().damage == ["counter: It does not hold what was written to it."]


def test_a_recovery_without_the_end_of_a_session_is_damage(orphan):
    left = orphan([session(), session(2), frames(0, cut(0), cut(0, number=2))])
    ending = cut(0, flags=CLEARS | CLOSES)
    left.keep_recovery([encode_frames(0, 0, [ending])])
    found = read_orphan(left, SPOOL_KEY)
    assert found.states == {}
    assert found.damage == [
        "recovery.spool: The end of session number 2 is missing, here or before."
    ]
