"""Tasks that run together: until somebody says stop, until all have ended, until one fails."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, Protocol

__all__ = ["Running", "end", "together", "until_stopped"]

AGAIN_S = 1.0


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


async def until_stopped(stop: asyncio.Event, *running: Running) -> None:
    """Return when `stop` is set or one of `running` has ended; raise the failure that ended it.

    Whoever calls this stops all of them afterwards, in either case.
    """
    asked = asyncio.create_task(stop.wait())
    ended = [asyncio.create_task(each.wait()) for each in running]
    tasks = [asked, *ended]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end(tasks)
    _raise_first(ended)


async def together(*work: Coroutine[Any, Any, None]) -> None:
    """Run all until they have ended; the first failure ends the others and is raised as it is."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        await end(tasks)
    _raise_first(tasks)


def _raise_first(tasks: Iterable[asyncio.Task[Any]]) -> None:
    for task in tasks:
        if not task.cancelled():
            task.result()
