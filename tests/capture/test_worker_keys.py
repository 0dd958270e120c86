"""Wrapped keys on a bus of their own: acknowledged there before a frame of theirs is anywhere."""

import asyncio
import os

import pytest

from sealtape.capture.bus.dir import DirBus
from sealtape.schemas.errors import StoreError
from sealtape.schemas.messages import is_key
from sealtape.schemas.slices import TARGET_IN
from tests.capture.stage import Stage, open_on, until
from tests.conformance.bus import read_all


@pytest.fixture
def stage(tmp_path):
    return Stage(tmp_path, frame_ms=20)


@pytest.fixture
async def bus(stage):
    bus = stage.bus()
    yield bus
    await bus.close()


@pytest.fixture
async def keys(stage):
    bus = DirBus(stage.root / "keys", partitions=1)
    yield Gate(bus)
    await bus.close()


class Gate:
    """A bus in front of another that takes nothing but one session's messages while it is shut."""

    def __init__(self, bus):
        self.bus = bus
        self.shut = False
        self.spared = None
        self.partition_of = bus.partition_of
        self.refused = 0

    async def append(self, partition, messages):
        if self.shut and any(session != self.spared for session, _ in messages):
            self.refused += 1
            raise StoreError("shut")
        return await self.bus.append(partition, messages)


async def sessions_of(bus):
    return {record.key for record in await read_all(bus)}


async def play(worker, chunk):
    recorder, wire = await open_on(worker)
    recorder.data(TARGET_IN, chunk)
    recorder.forward(wire.write, chunk)
    await until(lambda: wire.data == chunk)
    return recorder


async def test_keys_and_frames_take_separate_ways(stage, bus, keys):
    worker = await stage.worker(bus, keys=keys)
    chunk = os.urandom(200_000)
    recorder = await play(worker, chunk)
    await worker.close_session(recorder, "client")
    assert await worker.stop()
    assert all(is_key(record.value) for record in await read_all(keys.bus))
    assert not any(is_key(record.value) for record in await read_all(bus))
    told = (await stage.recorded(keys.bus, bus))[recorder.session]
    assert told.stream(TARGET_IN) == chunk


async def test_no_frame_goes_out_before_its_keys_are_acknowledged(stage, bus, keys):
    worker = await stage.worker(bus, keys=keys)
    keys.shut = True
    recorder = await play(worker, b"held back")
    await until(lambda: keys.refused > 2)
    assert worker.health().state == "bus-failing"
    assert recorder.session not in await sessions_of(bus)
    keys.shut = False
    await worker.close_session(recorder, "client")
    assert await worker.stop()
    told = (await stage.recorded(keys.bus, bus))[recorder.session]
    assert told.stream(TARGET_IN) == b"held back"


async def test_what_a_crash_left_goes_out_in_the_same_order(stage, bus, keys):
    keys.shut = True
    dead = await stage.worker(bus, keys=keys)
    recorder = await play(dead, b"forwarded before the crash")
    await stage.crash(dead)
    worker = await stage.worker(bus, keys=keys)
    await until(lambda: keys.refused > 4)
    assert await sessions_of(bus) == set()
    keys.shut = False
    await until(lambda: not list((stage.root / "spool").glob(f"*{dead._identity.boot.hex()}*")))
    assert await worker.stop()
    told = (await stage.recorded(keys.bus, bus))[recorder.session]
    assert told.stream(TARGET_IN) == b"forwarded before the crash"
    assert sorted(told.keys) == sorted(told.frames) == [0, 1]
    assert told.closes[1].reason == "aborted"


async def test_a_frames_bus_that_fails_does_not_send_keys_twice_for_ever(stage, bus, keys):
    frames = Gate(bus)
    worker = await stage.worker(frames, keys=keys)
    # The journal writes when it likes; a message of its own that waits would hold up all others.
    frames.spared = worker.journal.recorder.session
    frames.shut = True
    recorder = await play(worker, b"x")

    async def sent():
        return [r.value for r in await read_all(keys.bus) if r.key == recorder.session]

    async with asyncio.timeout(60):
        while not await sent():
            await asyncio.sleep(0.01)
    refused = frames.refused
    await until(lambda: frames.refused > refused + 3)
    wrapped = await sent()
    assert len(wrapped) == len(set(wrapped)) == 3
    frames.shut = False
    await worker.close_session(recorder, "client")
    assert await worker.stop()
    assert worker._shipper.error is None
    await asyncio.sleep(0)
