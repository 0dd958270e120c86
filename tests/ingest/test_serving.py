import asyncio

import pytest

from sealtape.ingest import serving
from sealtape.ingest.serving import end, results, together, until_stopped
from tests.factories.circles import Burden, without_collector


class Room:
    """Something that runs until it ends by itself, or for ever."""

    def __init__(self):
        self.ended = asyncio.Event()
        self.error = None
        self.cancelled = False

    async def wait(self):
        try:
            await self.ended.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if self.error is not None:
            raise self.error


async def test_it_returns_when_told_to():
    stop, rooms = asyncio.Event(), [Room(), Room()]
    waiting = asyncio.create_task(until_stopped(stop, *rooms))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    stop.set()
    await asyncio.wait_for(waiting, 60)
    assert [room.cancelled for room in rooms] == [True, True]


async def test_it_returns_when_one_ends():
    stop, rooms = asyncio.Event(), [Room(), Room()]
    rooms[1].ended.set()
    await asyncio.wait_for(until_stopped(stop, *rooms), 60)
    assert rooms[0].cancelled


async def test_it_raises_what_ended_one():
    room = Room()
    room.error = KeyError("bug")
    room.ended.set()
    with pytest.raises(KeyError):
        await asyncio.wait_for(until_stopped(asyncio.Event(), Room(), room), 5)


async def test_a_failure_ends_the_others():
    ended = []

    async def waits():
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    async def fails():
        await asyncio.sleep(0.01)
        raise KeyError("bug")

    with pytest.raises(KeyError):
        await asyncio.wait_for(together(waits(), fails(), waits()), 5)
    assert ended == [True, True]
    assert await together(asyncio.sleep(0, "a"), asyncio.sleep(0.01, "b")) == ["a", "b"]


async def test_nothing_of_failed_work_stays():
    burden = Burden()

    async def fails():
        mine = burden.lifted()
        await asyncio.sleep(0)
        raise KeyError(len(mine))

    with without_collector():
        with pytest.raises(KeyError):
            await together(fails(), asyncio.sleep(60))
        assert burden.gone()


async def test_results_leave_no_task_behind():
    tasks = [asyncio.create_task(asyncio.sleep(60)), asyncio.create_task(asyncio.sleep(0, 7))]
    await asyncio.sleep(0.01)
    await end(tasks)
    assert results(tasks) == [7]
    assert tasks == []


async def test_who_loses_a_cancellation_is_cancelled_again(monkeypatch):
    monkeypatch.setattr(serving, "AGAIN_S", 0.02)
    lost = []

    async def deaf():
        for _ in range(3):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                lost.append(True)
        raise KeyError("at last")

    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    await asyncio.wait_for(end([task]), 60)
    assert len(lost) == 3
    assert isinstance(task.exception(), KeyError)
    await end([task])
