import asyncio
import os

import pytest

from sealtape.schemas.facts import COMMAND
from sealtape.schemas.frames import Kind
from sealtape.schemas.slices import CLIENT_IN, TARGET_IN
from tests.capture.stage import Stage, open_on


@pytest.fixture
def stage(tmp_path):
    return Stage(tmp_path, frame_ms=40)


@pytest.fixture
async def bus(stage):
    bus = stage.bus()
    yield bus
    await bus.close()


async def test_what_is_relayed_is_on_the_bus_and_verifies(stage, bus):
    worker = await stage.worker(bus)
    recorder, wire = await open_on(worker)
    recorder.data(CLIENT_IN, b"select 1")
    n = recorder.fact(COMMAND, CLIENT_IN, 0, 8)
    worker.forward(recorder, wire.write, b"select 1")
    assert wire.data == b""
    await asyncio.sleep(0.01)
    assert wire.data == b"select 1"
    recorder.data(TARGET_IN, b"1")
    recorder.forward(wire.write, b"1")
    large = os.urandom(300_000)
    await asyncio.sleep(0)
    recorder.data(TARGET_IN, large)
    recorder.forward(wire.write, large)
    await worker.close_session(recorder, "client")
    assert await worker.stop()
    told = (await stage.recorded(bus))[recorder.session]
    assert told.stream(CLIENT_IN) == b"select 1"
    assert told.stream(TARGET_IN) == b"1" + large
    assert [fact.n for fact in told.facts] == [n]
    assert told.kinds[:2] == [Kind.OPEN, Kind.IDENT]
    assert told.kinds[-1] == Kind.CLOSE
    assert told.closes[0].reason == "client"
    assert told.closes[0].totals == (8, 0, 300_001, 0)
    assert told.closes[0].commands == 1
    assert told.checkpoints[0][-1].size == len(told.frames[0])
    assert not list((stage.root / "spool").glob("node-1-*"))
