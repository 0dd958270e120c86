"""Running a room until a signal, with logs on standard error."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable

from sealtape.capture.__main__ import loop_factory


def run_until_signal(
    serve: Callable[[asyncio.Event], Awaitable[None]], *, loop: str = "auto"
) -> None:
    """Run `serve` with an event that SIGINT and SIGTERM set; a second signal ends at once.

    Args:
        serve: returns when it has drained after the event was set, or raises what ended it.
        loop: `uvloop`, `asyncio`, or `auto` for uvloop where it is installed.
    """
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        runner.run(_serve(serve))


async def _serve(serve: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def asked(number: signal.Signals) -> None:
        stop.set()
        loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked, number)
    await serve(stop)
