"""Running a room until a signal, with logs on standard error."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

from sealtape.capture.__main__ import loop_factory
from sealtape.capture.logs import configure
from sealtape.schemas.errors import SettingsError, UsageError
from sealtape.schemas.settings import Settings, values

WORKER = "SEALTAPE_WORKER"
"""The environment variable that names a worker."""


def add_worker(parser: argparse.ArgumentParser) -> None:
    """Add the option of rooms of which several processes may run."""
    parser.add_argument(
        "--worker",
        metavar="NAME",
        help=f"name of this process among those of its room (else ${WORKER}, the room's `worker`, "
        "`deployment.node`)",
    )


def worker_name(given: str | None, configured: str, node: str) -> str:
    """Return the name of this process in leases.

    Args:
        given: by the option, None without it.
        configured: the room's `worker` of the settings, may be empty.
        node: `deployment.node`.

    Raises:
        UsageError, SettingsError: the option or the variable is no name.
    """
    if given is not None:
        return _checked(given, UsageError("--worker must be {}."))
    if named := os.environ.get(WORKER):
        return _checked(named, SettingsError(f"{WORKER} must be {{}}."))
    return configured or node


def _checked(text: str, error: UsageError) -> str:
    try:
        return values.name(text)
    except ValueError as exc:
        raise type(error)(error.message.format(exc)) from exc


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
    run_apart(
        serve,
        log_format=deployment.log_format,
        node=deployment.node,
        room=room,
        worker=worker,
        loop=loop,
    )


def run_apart(
    serve: Callable[[asyncio.Event], Awaitable[None]],
    *,
    log_format: str,
    node: str,
    room: str,
    worker: str = "",
    loop: str = "auto",
) -> None:
    """Like `run_until_signal`, for what runs without a deployment's settings."""
    configure(log_format, room=room, node=node, worker=worker)
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
