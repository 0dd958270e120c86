"""What the worker's tests do not reach: a spool that cannot give back what it was given."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from sealtape.capture.files import create_file
from sealtape.capture.shipper import Shipper
from sealtape.capture.spool.lane import Budget, LaneFiles
from sealtape.capture.spool.records import FRAMES, Cut, encode_frames
from sealtape.schemas.errors import StoreCorrupt
from sealtape.schemas.messages import CheckpointMessage, encode
from tests.capture.stage import until

KEY = bytes(32)
MESSAGES = [encode(CheckpointMessage(bytes(15) + bytes((n,)), 0, 1, b"note")) for n in range(4)]


class Kept:
    """A bus of three partitions in memory."""

    partitions = 3

    def __init__(self):
        self.appended = {0: [], 1: [], 2: []}

    def partition_of(self, session):
        return session[-1] % 3

    async def append(self, partition, messages):
        self.appended[partition] += messages


class Lane:
    """As much of an outlet as the shipper looks at."""


@pytest.fixture
async def world(tmp_path):
    executor = ThreadPoolExecutor(2)
    bus = Kept()
    shipper = Shipper(
        bus, spool_key=KEY, executor=executor, keep_bytes=0, batch_bytes=1, backoff_s=(0.01,)
    )
    files = LaneFiles(
        tmp_path,
        "spooled",
        spool_key=KEY,
        budget=Budget(1 << 20),
        file_bytes=1 << 20,
        sync=False,
        create=create_file,
        random=os.urandom,
    )
    acked = []

    def acknowledged(place, end):
        files.acknowledge(place)
        acked.append(end)

    outlet = Lane()
    outlet.files, outlet.acknowledged = files, acknowledged
    running = asyncio.create_task(shipper.run())
    yield SimpleNamespace(bus=bus, shipper=shipper, files=files, outlet=outlet, acked=acked)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    files.close()
    executor.shutdown()


def put(world, first, *messages):
    cut = Cut(1, 0, (0, 0, 0, 0), 0, 0, 0, list(messages))
    records = [(FRAMES, encode_frames(first, 0, [cut]))]
    (place,) = world.files.write(records, fresh=True)
    return place, [cut], first + len(messages)


async def test_messages_read_back_reach_their_partitions_in_order(world):
    for n, message in enumerate(MESSAGES):
        place, cuts, end = put(world, n, message)
        world.shipper.add(world.outlet, place, cuts, end)
    await world.shipper.idle()
    assert world.acked == [1, 2, 3, 4]
    values = {n: [value for _, value in found] for n, found in world.bus.appended.items()}
    assert values == {0: [MESSAGES[0], MESSAGES[3]], 1: [MESSAGES[1]], 2: [MESSAGES[2]]}
    assert world.shipper.unshipped_bytes == 0


async def test_files_are_deleted_when_the_bus_has_them(world, tmp_path):
    for n, message in enumerate(MESSAGES):
        place, cuts, end = put(world, n, message)
        world.shipper.add(world.outlet, place, cuts, end)
    await until(lambda: len(list(tmp_path.glob("*.spool"))) == 1)


async def test_frames_that_cannot_be_read_back_stop_everything_loudly(world, caplog):
    place, cuts, end = put(world, 0, MESSAGES[0])
    whole = place.file.path.read_bytes()
    place.file.path.write_bytes(whole[:-1] + b"\xff")
    world.shipper.add(world.outlet, place, cuts, end)
    await until(lambda: world.shipper.error is not None)
    assert isinstance(world.shipper.error, StoreCorrupt)
    assert "read back" in caplog.text
    await asyncio.sleep(0.03)
    assert world.acked == []
    place.file.path.write_bytes(whole)
    await world.shipper.idle()
    assert world.acked == [1]
    assert world.shipper.error is None


async def test_a_file_that_cannot_be_deleted_is_a_warning(world, tmp_path, caplog):
    place, cuts, end = put(world, 0, MESSAGES[0])
    put(world, 1, MESSAGES[1])
    path = place.file.path
    path.rename(tmp_path / "moved")
    path.mkdir()
    world.shipper._keep_bytes = 1 << 20
    world.shipper.add(world.outlet, place, cuts, end)
    await until(lambda: "stays behind" in caplog.text)
