"""Running a room until a signal, with logs on standard error."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable

from sealtape.capture.__main__ import loop_factory
from sealtape.capture.logs import configure
from sealtape.schemas.settings import Settings


def run_until_signal(
    serve: Callable[[asyncio.Event], Awaitable[None]],
    settings: Settings,
    *,
    room: str,
    worker: str = "",
    loop: str = "auto",
) -> None:
    """Run `serve` with an event that SIGINT and SIGTERM set; a second signal ends at once.

    Args:
        serve: returns when it has drained after the event was set, or raises what ended it.
        settings: the deployment's, for how to log.
        room, worker: what runs, for the logs.
        loop: `uvloop`, `asyncio`, or `auto` for uvloop where it is installed.
    """
    deployment = settings.deployment
    configure(deployment.log_format, room=room, node=deployment.node, worker=worker)
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
