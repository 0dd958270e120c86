"""A spool that a dead worker left full, with nothing free for the next one."""

import asyncio

from sealtape.capture import worker as worker_module
from sealtape.schemas.slices import CLIENT_IN
from tests.capture.stage import Stage, open_on, until
from tests.capture.test_worker import BrokenBus


async def test_a_worker_starts_behind_a_spool_that_was_left_full(tmp_path):
    """What it adopts takes all the room: that goes to the bus although nothing can be written."""
    stage = Stage(tmp_path, frame_ms=40, grace_s=0.5)
    bus = BrokenBus(stage.bus())
    first = await stage.worker(bus)
    recorder, _ = await open_on(first)
    recorder.data(CLIENT_IN, bytes(100_000))
    await first.close_session(recorder, "client")
    assert not await first.stop(timeout_s=0)
    left = first.health().spool_bytes
    starting = asyncio.create_task(stage.worker(bus, limit=left + 100))
    await asyncio.sleep(0.5)
    assert not starting.done()  # there is no room for its journal
    bus.broken = False
    async with asyncio.timeout(60):
        worker = await starting
    await until(lambda: worker.counts.orphans == 0)
    assert worker.health().state == "ok"
    assert await worker.stop()
    told = (await stage.recorded(bus.bus)).values()
    ends = sorted(session.closes[0].reason for session in told)
    assert ends == ["client", "shutdown", "shutdown"]
    await bus.bus.close()


async def test_a_spool_is_adopted_when_its_disk_has_room_again(
    tmp_path, failing_files, monkeypatch
):
    monkeypatch.setattr(worker_module, "ADOPT_AGAIN_S", 0.1)
    stage, disk = Stage(tmp_path, frame_ms=40, grace_s=0.5), failing_files()
    bus = stage.bus()
    first = await stage.worker(bus, create=disk.create)
    recorder, _ = await open_on(first)
    recorder.data(CLIENT_IN, b"select 1")
    await asyncio.sleep(0.01)
    await stage.crash(first)
    room, disk.room = disk.room, 0
    starting = asyncio.create_task(stage.worker(bus, create=disk.create))
    await asyncio.sleep(0.5)
    assert not starting.done()
    disk.room = room
    async with asyncio.timeout(60):
        worker = await starting
    await until(lambda: worker.counts.orphans == 0)
    assert await worker.stop()
    told = (await stage.recorded(bus))[recorder.session]
    assert told.closes[1].reason == "aborted"
    assert told.stream(CLIENT_IN) == b"select 1"
    await bus.close()


async def test_a_worker_that_waits_for_room_says_so_again_and_again(
    tmp_path, failing_files, monkeypatch, caplog
):
    """Who looks at the log after a night finds it there, also while the worker still starts."""
    monkeypatch.setattr(worker_module, "SAY_AGAIN_S", 0.1)
    stage, disk = Stage(tmp_path, frame_ms=40, grace_s=0.5), failing_files(room=0)
    bus = stage.bus()
    starting = asyncio.create_task(stage.worker(bus, create=disk.create))
    await until(lambda: caplog.text.count("has not been writable for") >= 2)
    assert "No space left" in caplog.messages[-1]
    assert not starting.done()
    disk.room = 1 << 30
    async with asyncio.timeout(60):
        worker = await starting
    told = len(caplog.messages)
    await asyncio.sleep(1.5)
    assert not any("writable for" in message for message in caplog.messages[told:])
    assert await worker.stop()
    await bus.close()
