"""Running what was started until somebody says stop, or until it ends by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol

__all__ = ["Running", "together", "until_stopped"]


class Running(Protocol):
    """Something at work."""

    async def wait(self) -> None:
        """Return when it has ended; raise the failure that ended it."""
        ...


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
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in ended:
        if not task.cancelled():
            task.result()


async def together(*work: Coroutine[Any, Any, None]) -> None:
    """Run all until they have ended; the first failure ends the others and is raised as it is."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if not task.cancelled():
            task.result()
