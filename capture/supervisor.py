"""Several capture workers on one address: a process each, the kernel deals the connections out.

The supervisor holds the address (so that port 0 means one port for all) and starts each worker
again when it dies; a worker's successor adopts the spool it left.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from sealtape.capture.metrics.endpoint import Endpoint
from sealtape.capture.metrics.link import NodeVitals, Question
from sealtape.capture.postgres.listener import bind
from sealtape.schemas.errors import StoreError
from sealtape.schemas.settings import Settings
from sealtape.schemas.settings.values import split_address

RESTART_S: Final = 1.0
START_TIMEOUT_S: Final = 60.0

log = logging.getLogger(__name__)


class Supervisor:
    """Runs `capture.workers` workers.

    Args:
        path: the settings file, which the workers read themselves.
        settings: what is in it.
        on_ready: called with the listeners when all workers take connections.
    """

    def __init__(
        self, *, path: Path, settings: Settings, on_ready: Callable[[dict[str, str]], None]
    ) -> None:
        self._path = path
        self._settings = settings
        self._on_ready = on_ready
        self._stopping = asyncio.Event()
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._vitals = NodeVitals(node=settings.deployment.node, workers=settings.capture.workers)

    async def run(self) -> int:
        """Run until told to stop; return the exit code."""
        host, port = split_address(self._settings.capture.postgres.listen)
        held = bind(host, port, shared=True)  # bound, never listening: it only keeps the port
        listeners: dict[str, str] = {}
        endpoint = Endpoint(self._vitals)
        try:
            if self._settings.capture.metrics:
                await endpoint.open(self._settings.capture.metrics)
                listeners["metrics"] = endpoint.address
            shown = f"[{host}]" if ":" in host else host
            listeners["postgres"] = f"{shown}:{held.getsockname()[1]}"
            return await self._work(listeners)
        finally:
            await endpoint.close()
            held.close()

    async def _work(self, listeners: dict[str, str]) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        ready = [asyncio.Event() for _ in range(self._settings.capture.workers)]
        tasks = [
            asyncio.create_task(self._keep(number, listeners["postgres"], event))
            for number, event in enumerate(ready)
        ]
        started = asyncio.create_task(_all(ready))
        waiting: list[asyncio.Task[Any]] = [started, *tasks]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if started.done():
            self._on_ready(listeners)
        else:  # a worker cannot start at all
            started.cancel()
            self._stop()
        return max(await asyncio.gather(*tasks))

    def _stop(self) -> None:
        self._stopping.set()
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()

    async def _keep(self, number: int, address: str, ready: asyncio.Event) -> int:
        """Run one worker, again and again; return the exit code of the last one."""
        while True:
            process = await self._start(number, address)
            self._processes[number] = process
            if self._stopping.is_set():
                process.terminate()
            reading = asyncio.create_task(self._read(process, ready))
            code = await process.wait()
            self._vitals.attach(number, None)
            await reading
            if self._stopping.is_set() or not ready.is_set():
                return _exit_code(code)
            log.error("worker %d ended with %d; it is started again", number, code)
            self._vitals.restarts[number] += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), RESTART_S)
            if self._stopping.is_set():
                return 0

    async def _start(self, number: int, address: str) -> asyncio.subprocess.Process:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._vitals.attach(number, Question(ours))
        with theirs:
            return await self._execute(number, address, theirs.fileno())

    async def _execute(
        self, number: int, address: str, descriptor: int
    ) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "sealtape.capture",
            "--config",
            str(self._path),
            "--json",
            "--worker",
            str(number),
            "--boot",
            os.urandom(16).hex(),
            "--listen",
            address,
            "--vitals",
            str(descriptor),
            pass_fds=(descriptor,),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C is for the supervisor, who passes it on
        )

    async def _read(self, process: asyncio.subprocess.Process, ready: asyncio.Event) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            with contextlib.suppress(ValueError):
                if json.loads(line).get("ready"):
                    ready.set()


async def _all(events: list[asyncio.Event]) -> None:
    for event in events:
        await event.wait()


def _exit_code(code: int) -> int:
    """Return what a worker's end means; a SIGTERM that met it while starting is no failure."""
    if code == -signal.SIGTERM:
        return 0
    return code if code >= 0 else StoreError.exit_code
