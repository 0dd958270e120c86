"""Crash at any point, also in the middle of a write: what was forwarded is recorded, once."""

import asyncio
import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from sealtape.capture.epoch import Subject, Terms
from sealtape.capture.files import AppendFile
from sealtape.capture.recovery import as_record, encode_about, parse_about, recover
from sealtape.capture.spool.adopt import read_messages, read_orphan
from sealtape.capture.spool.records import Pieces, SessionState, parse_frames
from sealtape.schemas.bodies import Gap, RetentionClass
from sealtape.schemas.errors import FormatError, StoreError
from sealtape.schemas.facts import COMMAND
from sealtape.schemas.frames import Frame, Kind
from sealtape.schemas.keys import Packer
from sealtape.schemas.messages import decode
from sealtape.schemas.slices import CLIENT_IN, Hole
from tests.capture.stage import CLASS, IDENT, SPOOL_KEY, Stage, Tape, open_on

MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None


class Died(BaseException):
    """The process is gone: nothing catches this."""


class Fuse:
    """A disk on which the process dies after so many more bytes."""

    def __init__(self):
        self.left = 1 << 40
        self.dead = False

    def create(self, path):
        if self.dead:
            raise Died
        return FusedFile(self, path)


class FusedFile(AppendFile):
    def __init__(self, fuse, path):
        super().__init__(path, create=True)
        self.fuse = fuse

    def write(self, pieces):
        if self.fuse.dead:
            raise Died
        data = b"".join(pieces)
        super().write([data[: self.fuse.left]])
        if len(data) > self.fuse.left:
            self.fuse.dead = True
            raise Died
        self.fuse.left -= len(data)


class Played:
    """One session as the test knows it."""

    def __init__(self, recorder, wire):
        self.recorder = recorder
        self.wire = wire
        self.given = b""
        self.facts = 0
        self.facts_before = 0
        self.closed = False

    def forward(self, data):
        facts = self.facts

        def write(data):
            self.wire.write(data)
            self.facts_before = facts

        self.recorder.forward(write, data)


PICK = st.integers(0, 11)


class CrashMachine(RuleBasedStateMachine):
    @initialize(
        level=st.sampled_from(["spooled", "spooled", "durable", "acked"]),
        file_bytes=st.sampled_from([4096, 100_000]),
    )
    def begin(self, level, file_bytes):
        self.file_bytes = file_bytes
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory(dir=MEMORY)
        self.stage = Stage(self.folder.name, frame_bytes=3000, checkpoint_frames=5, frame_ms=10_000)
        self.terms = Terms(retention=CLASS, level=level)
        self.live, self.past = [], []
        self.run(self._start())

    def run(self, work):
        return self.runner.run(work)

    async def _start(self):
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        self.bus = self.stage.bus()
        self.fuse = Fuse()
        self.worker = await self.stage.worker(
            self.bus, create=self.fuse.create, file_bytes=self.file_bytes, limit=1 << 20
        )

    async def _settle(self, seconds=0.0):
        for _ in range(4):
            await asyncio.sleep(seconds)

    async def _unless_dead(self, work):
        """Return what `work` returns, None when the process dies before."""
        task = asyncio.ensure_future(work)
        while not self.fuse.dead and not task.done():
            await asyncio.wait([task], timeout=0.002)
        if self.fuse.dead:
            task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        return None if isinstance(result, BaseException) else result

    def picked(self, pick):
        """One of the sessions that still run; what is drawn must not depend on which those are."""
        found = [s for s in self.live if not s.closed] if not self.fuse.dead else []
        return found[pick % len(found)] if found else None

    @rule()
    def open(self):
        if self.fuse.dead or len(self.live) >= 4:
            return
        opened = self.run(self._unless_dead(open_on(self.worker, self.terms)))
        if opened is not None:
            self.live.append(Played(*opened))

    @rule(
        picks=st.lists(PICK, min_size=6, max_size=6),
        sizes=st.lists(st.sampled_from([1, 40, 40, 200, 700, 9001]), min_size=1, max_size=6),
        fact=st.booleans(),
        ticks=st.booleans(),
    )
    def play(self, picks, sizes, fact, ticks):
        async def go():
            for pick, size in zip(picks, sizes, strict=False):
                session = self.picked(pick)
                if session is None:
                    return
                chunk = b"%d:" % len(session.given) + os.urandom(size)
                session.recorder.data(CLIENT_IN, chunk)
                session.given += chunk
                if fact:
                    session.recorder.fact(COMMAND, CLIENT_IN, 0, size)
                    session.facts += 1
                session.forward(chunk)
            if ticks:
                await self._settle(0.001)

        self.run(go())

    @rule(cut=st.booleans(), sign=st.booleans())
    def time_passes(self, cut, sign):
        async def go():
            await self._settle()
            later = self.worker._clock.mono_ns() + 60_000_000_000
            if cut:
                self.worker._cut_old(later)
            if sign:
                self.worker._sign_old(later)

        self.run(go())

    @rule()
    def ticks(self):
        self.run(self._settle(0.002))

    @rule(pick=PICK)
    def close(self, pick):
        session = self.picked(pick)
        if session is None:
            return
        session.closed = True

        self.run(self._unless_dead(self.worker.close_session(session.recorder, "client")))
        if self.fuse.dead:
            session.closed = None

    @rule(left=st.integers(0, 2000), lit=st.integers(0, 3))
    def light_the_fuse(self, left, lit):
        if not self.fuse.dead and not lit:
            self.fuse.left = left

    @rule(sure=st.integers(0, 3))
    def crash(self, sure=0):
        if sure and not self.fuse.dead:
            return

        async def go():
            await self.stage.crash(self.worker)
            for orphan in self.worker._orphans:
                orphan.release()
            await self.bus.close()
            await self._start()

        self.run(go())
        self.past += self.live
        self.live = []

    def teardown(self):
        if not hasattr(self, "runner"):
            return
        self.crash()
        self.run(self._check())
        self.runner.close()
        self.folder.cleanup()

    async def _check(self):
        while len(list((self.stage.root / "spool").glob("node-1-*"))) > 1:
            await asyncio.sleep(0.01)
        await self.worker.stop()
        sessions = await self.stage.recorded(self.bus)
        for session in self.past:
            told = sessions[session.recorder.session]
            recorded = told.stream(CLIENT_IN)
            assert recorded.startswith(session.wire.data)
            assert session.given.startswith(recorded)
            assert [fact.n for fact in told.facts] == list(range(len(told.facts)))
            assert len(told.facts) >= session.facts_before
            last = told.closes[max(told.frames)]
            assert last.totals == (len(recorded), len(recorded), 0, 0)
            assert last.commands == len(told.facts)
            if session.closed:
                assert last.reason == "client"
                assert recorded == session.given
            elif session.closed is False:
                assert last.reason == "aborted"
        for told in sessions.values():
            assert max(told.frames) in told.closes
        await self.bus.close()


TestCrash = CrashMachine.TestCase
TestCrash.settings = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def subject(**terms):
    return Subject(
        type="session",
        session=bytes(16),
        number=7,
        boot=bytes(range(16)),
        worker=3,
        ident=IDENT,
        terms=Terms(retention=RetentionClass("short", 1, 2), **terms),
    )


def test_what_the_spool_knows_of_a_session_comes_back():
    assert parse_about(encode_about(subject())) == subject()


@pytest.mark.parametrize("about", [b"", b"{}", b"[]", b'{"class": 1}', b"\xff"])
def test_a_damaged_description_is_a_format_error(about):
    with pytest.raises(FormatError):
        parse_about(about)


def state(**changes):
    fields = {
        "number": 7,
        "about": encode_about(subject()),
        "epoch": 4,
        "size": 1,
        "nodes": (bytes(32),),
        "offsets": (1, 2, 3, 4),
        "facts": 0,
        "commands": 0,
        "errors": 0,
        "last_ns": 50,
        "signed": 1,
        "pieces": Pieces(7, 0, 0, b"", 0, b""),
    }
    return SessionState(**{**fields, **changes})


def recovered(stage, what, *, damaged=False):
    return recover(
        what,
        stage.identity(bytes(16)),
        now_ns=10,
        damaged=damaged,
        packer=Packer(),
        random=os.urandom,
    )


@pytest.mark.parametrize(
    ("on_failure", "damaged", "reason"),
    [("end", False, None), ("continue", False, "spool"), ("end", True, "damaged")],
)
def test_what_nobody_can_know_is_a_gap_of_unknown_length(tmp_path, on_failure, damaged, reason):
    about = encode_about(subject(on_failure=on_failure))
    found = recovered(Stage(tmp_path), state(about=about), damaged=damaged)
    frames = [m for m in map(decode, found) if isinstance(m, Frame)]
    gaps = [Gap.from_json(frame.payload) for frame in frames if frame.kind == Kind.GAP]
    if reason is None:
        assert gaps == []
    else:
        legs = tuple(Hole(leg, total, -1) for leg, total in enumerate((1, 2, 3, 4)))
        assert gaps == [Gap(reason, legs)]


def test_a_recovery_epoch_is_never_older_than_what_it_continues(tmp_path):
    stage = Stage(tmp_path)
    found = recovered(stage, state())
    record = b"".join(as_record(7, state(), found))
    (cut,) = parse_frames(record)[2]
    assert cut.messages == found
    frames = [m for m in map(decode, found) if isinstance(m, Frame)]
    assert {frame.epoch for frame in frames} == {5}
    assert {frame.ts_ns for frame in frames} == {50}


class Film:
    """A disk that remembers everything written to it, in order."""

    def __init__(self):
        self.writes = []

    def create(self, path):
        return FilmedFile(self, path)


class FilmedFile(AppendFile):
    def __init__(self, film, path):
        super().__init__(path, create=True)
        self.film = film
        film.writes.append((path.name, b""))

    def write(self, pieces):
        self.film.writes.append((self.path.name, b"".join(pieces)))
        super().write(pieces)


class NoBus:
    """A bus that is away: the spool keeps everything."""

    partitions = 1

    def partition_of(self, session):
        return 0

    async def append(self, partition, messages):
        raise StoreError("away")


async def scene(stage, level):
    """Play a while; return the film, and what had been forwarded when how much was written."""
    film, forwarded = Film(), []
    worker = await stage.worker(NoBus(), create=film.create, file_bytes=6000)
    film.boot = worker._identity.boot
    terms = Terms(retention=CLASS, level=level)
    given = {}

    def play(recorder, size, *, fact=True):
        chunk = b"%d:" % len(given[recorder.session]) + os.urandom(size)
        given[recorder.session] += chunk
        recorder.data(CLIENT_IN, chunk)
        if fact:
            recorder.fact(COMMAND, CLIENT_IN, 0, size)

        def write(data):
            last = sum(len(data) for _, data in film.writes)
            forwarded.append((last, len(film.writes), recorder.session, data))

        recorder.forward(write, chunk)

    recorders = []
    for _ in range(3):
        recorder, _ = await open_on(worker, terms)
        given[recorder.session] = b""
        recorders.append(recorder)
        for size in (5, 50, 300):
            play(recorder, size)
            await asyncio.sleep(0.002)
    for turn in range(6):
        for recorder in recorders:
            play(recorder, 40)
            recorder.cut() if turn == 2 else None
            play(recorder, 60, fact=False)
        await asyncio.sleep(0.003)
        play(recorders[0], 2500)
        play(recorders[1], 400)
        await asyncio.sleep(0.003)
    await worker.close_session(recorders[1], "client")
    play(recorders[2], 10)
    await asyncio.sleep(0.01)
    await stage.crash(worker)
    return film, forwarded, given


def killed_at(film, write, cut, folder, boot):
    """Make the spool folder of a process killed in the middle of a write."""
    home = folder / f"node-1-{boot.hex()}-0"
    home.mkdir(parents=True)
    (home / "counter").write_bytes(bytes(24))
    for name, data in film.writes[:write]:
        with (home / name).open("ab") as file:
            file.write(data)
    if cut is not None:
        name, data = film.writes[write]
        with (home / name).open("ab") as file:
            file.write(data[:cut])
    return home


@pytest.mark.parametrize("level", ["spooled", "durable"])
async def test_killed_in_any_write_nothing_forwarded_is_lost(level):
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        stage = Stage(Path(name) / "stage", frame_bytes=2000, checkpoint_frames=5, frame_ms=10_000)
        film, forwarded, given = await scene(stage, level)
        assert len(film.writes) > 30
        assert len({name for name, _ in film.writes}) > 2
        moments = []
        for write, (_, data) in enumerate(film.writes):
            cuts = {0, 21, len(data) // 2, len(data) - 1}
            starts = [m.start() for m in re.finditer(b"SSR1", data)]
            cuts.update(start + at for start in starts for at in (0, 25))
            moments += [(write, cut) for cut in sorted(cuts) if 0 <= cut < len(data)]
        for number, (write, cut) in enumerate(moments):
            root = Path(name) / str(number)
            killed_at(film, write, cut, root / "spool", film.boot)
            told = recovered_from(stage, root)
            sent = {}
            for _, writes, session, data in forwarded:
                if writes <= write:
                    sent[session] = sent.get(session, b"") + data
            for session, data in sent.items():
                assert session in told, (write, cut)
                recorded = told[session].stream(CLIENT_IN)
                assert recorded.startswith(data), (write, cut)
                assert given[session].startswith(recorded)
                facts = [fact.n for fact in told[session].facts]
                assert facts == list(range(len(facts)))
            for one in told.values():
                assert max(one.frames) in one.closes, (write, cut)
                if one.openings[0].type == "session":
                    length = len(one.stream(CLIENT_IN))
                    assert one.closes[max(one.frames)].totals == (length, length, 0, 0)
                    assert one.closes[max(one.frames)].commands == len(one.facts)
            shutil.rmtree(root)


def recovered_from(stage, root):
    """Adopt what lies in a folder, without a worker; return what was recorded."""
    world = Stage(root)
    world.signer, world.auditor, world.indexer = stage.signer, stage.auditor, stage.indexer
    spool = world.spool(os.urandom(16))
    (orphan,) = spool.claim_orphans()
    found = read_orphan(orphan, SPOOL_KEY)
    assert found.damage == []
    records = [
        as_record(number, kept, recovered(world, kept))
        for number, kept in found.states.items()
        if kept.size
    ]
    orphan.keep_recovery(records)
    tape = Tape(world)
    for messages in read_messages(orphan, SPOOL_KEY, {}):
        for message in messages:
            tape.take(decode(message).session, message)
    orphan.release()
    spool.close(remove=True)
    return tape.finish()
