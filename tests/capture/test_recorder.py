"""The recorder without a spool: what it hands out, and when."""

import os
from collections import Counter, deque

import pytest

from sealtape.capture.epoch import Subject, Terms, begin
from sealtape.capture.recorder import FACTS_BYTES, Hooks, Pace, SessionRecorder
from sealtape.capture.spool.records import CLEARS, CLOSES, parse_session, parse_slices
from sealtape.schemas.errors import SealtapeError
from sealtape.schemas.facts import COMMAND, RESULT, decode_facts, encode_statement, encode_tail
from sealtape.schemas.frames import Frame, Kind
from sealtape.schemas.keys import Packer
from sealtape.schemas.messages import CheckpointMessage, decode
from sealtape.schemas.notes import parse_checkpoint, parse_note
from sealtape.schemas.slices import CLIENT_IN, TARGET_IN, decode_data, encode_data
from tests.capture.stage import CLASS, IDENT, Stage

DIRECT = 1 << 20


class Kept:
    """An outlet that keeps what it is given, with a clock that a test moves."""

    def __init__(self, checkpoint_frames=256):
        self.now = 0
        self.time = 1_000
        self.dirty = []
        self.cuts = deque()
        self.checkpoints = deque()
        self.stalls = Counter()
        self.checkpoint_frames = checkpoint_frames
        self.emitted = []
        self.forwards = []

    def begin(self):
        return self.time

    def mono_ns(self):
        return self.time

    def emit(self, cut):
        self.emitted.append(cut)

    def forward(self, recorder, write, data):
        self.forwards.append(data)

    @property
    def messages(self):
        return [decode(message) for cut in self.emitted for message in cut.messages]

    @property
    def kinds(self):
        return [m.kind if isinstance(m, Frame) else "signed" for m in self.messages]


@pytest.fixture
def outlet():
    return Kept()


@pytest.fixture
def make(tmp_path, outlet):
    def recorder(snapshot=None, stalls=None, **pace):
        subject = Subject(
            type="session",
            session=bytes(16),
            number=5,
            boot=bytes(16),
            worker=0,
            ident=IDENT,
            terms=Terms(retention=CLASS, encryption=False),
        )
        epoch, _ = begin(
            Stage(tmp_path).identity(bytes(16)),
            subject,
            epoch=0,
            ts_ns=1_000_000,
            anchor_ns=1_000_000,
            continues=None,
            packer=Packer(),
            random=os.urandom,
        )
        return SessionRecorder(
            epoch,
            subject,
            about=b"about",
            anchor_ns=1_000_000,
            opened_ns=1_000_000,
            outlet=outlet,
            pace=Pace(**pace),
            hooks=Hooks((stalls if stalls is not None else []).append, lambda _: None, snapshot),
        )

    return recorder


def slices_of(outlet):
    found = []
    for frame in outlet.messages:
        if isinstance(frame, Frame) and frame.kind == Kind.DATA:
            found += decode_data(Packer().unpack(frame.payload[32:]), frame.ts_ns)
    return found


def test_small_reads_wait_for_a_cut_and_are_spooled_once(make, outlet):
    recorder = make()
    recorder.data(CLIENT_IN, b"one")
    outlet.time += 5
    recorder.data(TARGET_IN, b"two")
    assert outlet.emitted == []
    assert outlet.dirty == [recorder]
    (pieces,) = parse_slices(recorder.take_pieces(DIRECT))
    told = decode_data(encode_data([pieces.slices], pieces.slice_count), pieces.base_ns)
    assert [(s.leg, s.ts_ns, s.offset, s.data) for s in told] == [
        (CLIENT_IN, 1_001_000, 0, b"one"),
        (TARGET_IN, 1_001_005, 0, b"two"),
    ]
    assert recorder.take_pieces(DIRECT) == b""
    recorder.data(CLIENT_IN, b"three")
    (pieces,) = parse_slices(recorder.take_pieces(DIRECT))
    assert pieces.slice_count == 1
    recorder.cut()
    recorder.cut()
    assert [cut.flags for cut in outlet.emitted] == [CLEARS]
    assert outlet.emitted[0].offsets == (8, 8, 3, 3)
    assert [s.data for s in slices_of(outlet)] == [b"one", b"two", b"three"]
    assert recorder.base_mono == 0


def test_a_buffer_never_grows_beyond_a_frame(make, outlet):
    recorder = make(frame_bytes=1000)
    for _ in range(50):
        recorder.data(CLIENT_IN, bytes(90))
    recorder.cut()
    sizes = [len(Packer().unpack(m.payload[32:])) for m in outlet.messages]
    assert 900 < max(sizes) < 1100
    assert sum(len(s.data) for s in slices_of(outlet)) == 4500


@pytest.mark.parametrize("size", [999, 1000, 1001, 2000, 2500])
def test_big_reads_become_frames_at_once(make, outlet, size):
    recorder = make(frame_bytes=1000)
    recorder.data(CLIENT_IN, b"before")
    data = os.urandom(size)
    recorder.data(TARGET_IN, data)
    frames = size // 1000
    assert outlet.kinds == [Kind.DATA] * (1 + frames)
    recorder.cut()
    found = slices_of(outlet)
    assert b"".join(s.data for s in found[1:]) == data
    assert [s.offset for s in found[1:]] == [n * 1000 for n in range(len(found) - 1)]


def test_much_in_one_tick_becomes_frames_instead_of_slices(make, outlet):
    recorder = make()
    recorder.data(CLIENT_IN, bytes(100))
    assert recorder.take_pieces(200)
    recorder.data(CLIENT_IN, bytes(150))
    assert recorder.take_pieces(200)
    recorder.data(CLIENT_IN, bytes(300))
    assert recorder.take_pieces(200) == b""
    assert outlet.kinds == [Kind.DATA]


def test_facts_are_numbered_counted_and_cut_with_the_data(make, outlet):
    recorder = make()
    recorder.data(CLIENT_IN, b"select")
    n = recorder.fact(COMMAND, CLIENT_IN, 0, 6, statement=encode_statement("select"))
    outlet.time += 7
    recorder.fact(RESULT, ref=n, tail=encode_tail(code="42P01"), error=True)
    (pieces,) = parse_slices(recorder.take_pieces(DIRECT))
    assert (pieces.slice_count, pieces.fact_count) == (1, 2)
    recorder.cut()
    assert outlet.kinds == [Kind.DATA, Kind.FACTS]
    frame = outlet.messages[1]
    told = decode_facts(Packer().unpack(frame.payload[32:]), frame.ts_ns)
    assert told.totals == (6, 6, 0, 0)
    assert [(f.n, f.ref, f.ts_ns) for f in told.facts] == [(0, -1, 1_001_000), (1, 0, 1_001_007)]
    cut = outlet.emitted[0]
    assert (cut.facts, cut.commands, cut.errors) == (2, 1, 1)


def test_facts_alone_make_a_frame_and_never_too_large_a_one(make, outlet):
    recorder = make()
    statement = encode_statement("x" * 4096, objects=["o" * 256] * 64)
    for _ in range(20):
        recorder.fact(COMMAND, statement=statement)
    recorder.cut()
    assert set(outlet.kinds) == {Kind.FACTS}
    sizes = [len(Packer().unpack(m.payload[32:])) for m in outlet.messages]
    assert len(sizes) > 3
    assert max(sizes) < FACTS_BYTES + 1000


def test_time_in_frames_never_goes_backwards(make, outlet):
    recorder = make(snapshot=lambda: ("x/1", b""), state_every=1)
    recorder.data(CLIENT_IN, b"a")
    outlet.time += 50
    recorder.clock(5)
    outlet.time -= 30
    recorder.data(CLIENT_IN, b"b")
    recorder.fact(COMMAND)
    recorder.state_if_due()
    recorder.data(CLIENT_IN, bytes(100_000))
    recorder.finish("client", "")
    times = [m.ts_ns for m in outlet.messages if isinstance(m, Frame)]
    assert times == sorted(times)


def test_checkpoints_follow_every_so_many_frames(make, outlet):
    outlet.checkpoint_frames = 3
    recorder = make(frame_bytes=10)
    for _ in range(4):
        recorder.data(CLIENT_IN, bytes(10))
    assert outlet.kinds == [3, 3, 3, "signed", 3]
    assert len(outlet.checkpoints) == 1
    recorder.checkpoint()
    recorder.checkpoint()
    assert outlet.kinds[5:] == ["signed"]
    assert [m.size for m in outlet.messages if isinstance(m, CheckpointMessage)] == [5, 6]


def test_nothing_can_be_added_to_what_is_closed(make, outlet):
    recorder = make()
    recorder.data(CLIENT_IN, b"a")
    recorder.finish("killed", "by-officer")
    recorder.finish("client", "")
    assert outlet.kinds == [Kind.DATA, Kind.CLOSE, "signed"]
    assert outlet.emitted[-1].flags == CLEARS | CLOSES
    assert recorder.closed
    assert (recorder.size, recorder.epoch, recorder.unsigned) == (4, 0, 0)
    signed = parse_checkpoint(parse_note(outlet.messages[-1].note).text)
    assert (recorder.size, recorder.root()) == (signed.size, signed.root)
    recorder.data(CLIENT_IN, b"late")
    recorder.fact(COMMAND)
    recorder.cut()
    recorder.clock(1)
    recorder.checkpoint()
    recorder.state_if_due()
    recorder.begin_gap()
    recorder.end_gap()
    assert len(outlet.emitted) == 2
    assert recorder.offsets == [5, 5, 0, 0]


def test_a_close_needs_a_known_reason(make):
    with pytest.raises(SealtapeError):
        make().finish("boredom", "")


def test_a_gap_that_closes_with_the_session_is_stated(make, outlet):
    recorder = make()
    recorder.begin_gap()
    recorder.begin_gap()
    recorder.data(TARGET_IN, b"unseen")
    recorder.forward(outlet.forwards.append, b"at once")
    assert outlet.forwards == [b"at once"]
    recorder.finish("client", "")
    assert outlet.kinds == [Kind.GAP, Kind.CLOSE, "signed"]


def test_reading_is_stalled_while_there_is_any_reason(make):
    stalls = []
    recorder = make(stalls=stalls)
    recorder.unstall("queue")
    recorder.stall("queue")
    recorder.stall("spool")
    recorder.unstall("queue")
    assert stalls == [True]
    recorder.unstall("spool")
    assert stalls == [True, False]


def test_snapshots_hold_the_tree_and_all_that_is_in_no_frame(make, outlet):
    recorder = make()
    first = parse_session(recorder.announcement())
    assert (first.size, first.nodes, first.about) == (0, (), b"about")
    recorder.data(CLIENT_IN, b"framed")
    recorder.cut()
    recorder.data(CLIENT_IN, b"open")
    recorder.fact(COMMAND)
    state = parse_session(recorder.snapshot())
    assert (state.size, state.signed, state.number) == (3, 2, 5)
    assert (state.pieces.slice_count, state.pieces.fact_count) == (1, 1)
    assert recorder.take_pieces(DIRECT) == b""
    assert state.offsets == (6, 6, 0, 0)
    assert (state.facts, state.commands) == (0, 0)


def test_an_empty_decoder_state_is_one_frame(make, outlet):
    recorder = make(snapshot=lambda: ("x/1", b""), state_every=10)
    recorder.data(CLIENT_IN, bytes(9))
    recorder.state_if_due()
    recorder.data(CLIENT_IN, b"1")
    recorder.state_if_due()
    assert outlet.kinds == [Kind.DATA, Kind.STATE]
