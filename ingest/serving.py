"""Tasks that run together: until somebody says stop, until all have ended, until one fails."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, Protocol, TypeVar

__all__ = ["Running", "end", "results", "together", "until_stopped"]

AGAIN_S = 1.0

T = TypeVar("T")


class Running(Protocol):
    """Something at work."""

    async def wait(self) -> None:
        """Return when it has ended; raise the failure that ended it."""
        ...


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they have ended. How each of them ended is for the caller to look at.

    Once is not enough: who waits with a timeout may lose a cancellation when what it waits for
    comes at the same moment (`asyncio.wait_for` before Python 3.12, and what is built on it).
    """
    tasks = tuple(tasks)
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=AGAIN_S)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # it was looked at: nothing is logged about it


def results(tasks: list[asyncio.Task[T]]) -> list[T]:
    """What ended tasks returned, without the cancelled ones; raises the first failure. Empties it.

    A failure names each frame that it passes, and a frame with its tasks in a variable names the
    failure. In such a circle all that the failed work had in hand, megabytes of an attempt, would
    stay until the collector of cycles comes by, which counts objects and not bytes.
    """
    try:
        ended = range(len(tasks))  # a task in a variable would close the circle again
        return [tasks[n].result() for n in ended if not tasks[n].cancelled()]
    finally:
        tasks.clear()


async def until_stopped(stop: asyncio.Event, *running: Running) -> None:
    """Return when `stop` is set or one of `running` has ended; raise the failure that ended it.

    Whoever calls this stops all of them afterwards, in either case.
    """
    asked = asyncio.create_task(stop.wait())
    ended = [asyncio.create_task(each.wait()) for each in running]
    try:
        await asyncio.wait([asked, *ended], return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end([asked, *ended])
    results(ended)


async def together(*work: Coroutine[Any, Any, T]) -> list[T]:
    """Run all until they have ended; the first failure ends the others and is raised as it is."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        await end(tasks)
    return results(tasks)
