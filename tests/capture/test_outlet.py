"""Lanes on their own: order, groups, what a failure keeps. The rest is in test_worker.py."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from sealtape.capture.clock import Clock
from sealtape.capture.outlet import QUEUE_HIGH, RECORD_BYTES, Batch, Due, Outlet
from sealtape.capture.recorder import Pace
from sealtape.capture.spool.records import FRAMES, Cut, encode_frames
from tests.capture.stage import Stage

NOTHING = (0, 0, 0, 0)


class Watch:
    """Owner and sink in one: keeps what it is told."""

    def __init__(self):
        self.told = []
        self.added = []

    def spool_fails(self, outlet, error):
        self.told.append("fails")

    def spool_works(self, outlet):
        self.told.append("works")

    def add(self, outlet, place, cuts, end):
        self.added.append((place, [m for cut in cuts for m in cut.messages], end))


class Session:
    """As much of a recorder as a lane looks at."""

    def __init__(self):
        self.queued_bytes = 0
        self.stalls = []

    def stall(self, reason):
        self.stalls.append(reason)

    def unstall(self, reason):
        if self.stalls:
            self.stalls.append("go on")


@pytest.fixture
async def lane(tmp_path, failing_files):
    disk = failing_files()
    spool = Stage(tmp_path).spool(bytes(16), disk.create)
    executor = ThreadPoolExecutor(2)
    watch = Watch()

    def make(level):
        outlet = Outlet(
            level,
            spool.lane(level, sync=level == "durable"),
            watch,
            clock=Clock(),
            executor=executor,
            pace=Pace(),
            due=Due(),
            owner=watch,
        )
        outlet.disk, outlet.watch = disk, watch
        made.append(outlet)
        return outlet

    made = []
    yield make
    for outlet in made:
        outlet.close()
        outlet.files.close()
    executor.shutdown()
    spool.close(remove=True)


def cut(*messages):
    return Cut(1, 0, NOTHING, 0, 0, 0, list(messages))


@pytest.mark.parametrize("level", ["spooled", "durable"])
async def test_messages_are_put_down_in_order_with_their_ordinals(lane, level):
    outlet = lane(level)
    outlet.emit(cut(b"a", b"b"))
    outlet.emit(cut(b"c"))
    await outlet.settled()
    outlet.emit(cut(b"d"))
    await outlet.settled()
    assert [(messages, end) for _, messages, end in outlet.watch.added] == [
        ([b"a", b"b", b"c"], 3),
        ([b"d"], 4),
    ]


async def test_a_new_file_says_how_many_messages_were_before_it(lane):
    outlet = lane("spooled")
    outlet.emit(cut(b"a", b"b"))
    await outlet.settled()
    outlet.acknowledged(outlet.watch.added[0][0], 2)
    assert outlet._frame_records(Batch(), head=False) == []
    assert outlet._frame_records(Batch(), head=True) == [(FRAMES, encode_frames(2, 2, []))]


async def test_large_ticks_are_split_into_records(lane):
    outlet = lane("spooled")
    for _ in range(5):
        outlet.emit(cut(bytes(RECORD_BYTES // 2 + 1)))
    await outlet.settled()
    assert [end for _, _, end in outlet.watch.added] == [2, 4, 5]


async def test_forwards_wait_for_the_disk_and_keep_their_order(lane):
    outlet = lane("durable")
    session, sent = Session(), []
    for n in range(30):
        outlet.emit(cut(b"m"))
        outlet.forward(session, sent.append, b"%d" % n)
        if n % 4 == 0:
            await asyncio.sleep(0)
    assert len(sent) < 30
    await outlet.settled()
    assert sent == [b"%d" % n for n in range(30)]
    assert session.queued_bytes == 0


async def test_acked_forwards_wait_for_the_bus_also_those_without_frames(lane):
    outlet = lane("acked")
    session, sent = Session(), []
    outlet.emit(cut(b"m"))
    outlet.forward(session, sent.append, b"one")
    await asyncio.sleep(0.01)
    outlet.forward(session, sent.append, b"two")
    outlet.forward(session, sent.append, bytes(QUEUE_HIGH))
    await asyncio.sleep(0.01)
    assert sent == []
    assert session.stalls == ["queue"]
    (place, _, end) = outlet.watch.added[0]
    outlet.acknowledged(place, end)
    assert [len(data) for data in sent] == [3, 3, QUEUE_HIGH]
    assert session.stalls[-1] == "go on"
    outlet.forward(session, sent.append, b"nothing to wait for")
    await asyncio.sleep(0.01)
    assert sent[-1] == b"nothing to wait for"


async def test_releasing_sends_what_waits_for_one_session_only(lane):
    outlet = lane("acked")
    one, two, sent = Session(), Session(), []
    outlet.emit(cut(b"m"))
    outlet.forward(one, sent.append, b"1a")
    outlet.forward(two, sent.append, b"2a")
    await asyncio.sleep(0.01)
    outlet.forward(one, sent.append, b"1b")
    outlet.release(one)
    assert sent == [b"1a", b"1b"]
    (place, _, end) = outlet.watch.added[0]
    outlet.acknowledged(place, end)
    assert sent == [b"1a", b"1b", b"2a"]


@pytest.mark.parametrize("level", ["spooled", "durable"])
@pytest.mark.parametrize("with_frames", [False, True])
@pytest.mark.parametrize("fault", ["room", "strange"])
async def test_a_failure_keeps_everything_for_the_next_attempt(lane, level, with_frames, fault):
    outlet = lane(level)
    outlet.emit(cut(b"first"))
    await outlet.settled()
    setattr(outlet.disk, fault, 5)
    session, sent = Session(), []

    class Dirty(Session):
        dirty = True
        number = 1

        def take_pieces(self, direct):
            return b"some slices"

        def snapshot(self):
            return b"all of it"

    dirty = Dirty()
    outlet.live[1] = dirty
    outlet.dirty.append(dirty)
    if with_frames:
        outlet.emit(cut(b"second"))
    outlet.forward(session, sent.append, b"one")
    while outlet.failing is None:
        await asyncio.sleep(0.001)
    outlet.emit(cut(b"third"))
    outlet.forward(session, sent.append, b"two")
    outlet.retry()
    await asyncio.sleep(0.05)
    assert sent == []
    assert outlet.watch.told == ["fails"]
    setattr(outlet.disk, fault, 1 << 20 if fault == "room" else False)
    outlet.retry()
    while outlet.failing is not None:
        await asyncio.sleep(0.001)
    assert outlet.watch.told == ["fails", "works"]
    assert sent == [b"one", b"two"]
    shipped = [m for _, messages, _ in outlet.watch.added for m in messages]
    assert shipped == [b"first", *([b"second"] if with_frames else []), b"third"]
    outlet.retry()


async def test_a_session_that_never_came_to_be_leaves_nothing(lane):
    outlet = lane("spooled")

    class Stillborn(Session):
        number = 1

        def announcement(self):
            return b"name"

    session, sent = Stillborn(), []
    outlet.announce(session)
    outlet.emit(cut(b"its"))
    outlet.emit(Cut(2, 0, NOTHING, 0, 0, 0, [b"another's"]))
    outlet.forward(session, sent.append, b"x")
    assert outlet.forget(session)
    await outlet.settled()
    assert sent == []
    assert outlet.live == {}
    assert outlet.watch.added[0][1] == [b"another's"]
    assert not outlet.forget(session)  # what is put down cannot be taken back


async def test_a_waiter_that_gave_up_is_not_woken(lane):
    outlet = lane("spooled")
    outlet.settled().cancel()
    await outlet.settled()
