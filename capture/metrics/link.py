"""The way from a node's supervisor to its workers: one endpoint speaks for all of them.

Each worker has one end of a socket pair, so there is no file to protect and none to leave behind. A
question is the number of the question, 4 bytes; the answer is that number, the length of the
rest, and JSON. A worker that does not answer in time is down for this once; an answer that
comes late is known by its number and passed over.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from sealtape.capture.metrics.room import RESTARTS, WORKER_UP
from sealtape.capture.metrics.sheet import Sheet
from sealtape.capture.metrics.vitals import Readiness, Vitals, build, process, written

__all__ = ["NodeVitals", "Question", "Reply", "Told"]

ASK_TIMEOUT_S: Final = 2.0
_QUESTION = struct.Struct(">I")
_ANSWER = struct.Struct(">II")


class Reply:
    """A worker's end: answers until the supervisor is gone."""

    def __init__(self, vitals: Vitals, sock: socket.socket) -> None:
        """Take the socket over; nothing happens before `open`."""
        self._vitals = vitals
        self._sock = sock
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Answer in the background."""
        self._task = asyncio.get_running_loop().create_task(self._serve())

    async def close(self) -> None:
        """Answer no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._sock.close()

    async def _serve(self) -> None:
        reader, writer = await asyncio.open_connection(sock=self._sock)
        try:
            while True:
                (number,) = _QUESTION.unpack(await reader.readexactly(_QUESTION.size))
                readiness = await self._vitals.readiness()
                told = {
                    "metrics": written(await self._vitals.families()).decode(),
                    "ready": readiness.ready,
                    "checks": dict(readiness.checks),
                }
                body = json.dumps(told).encode()
                writer.write(_ANSWER.pack(number, len(body)) + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            return  # the supervisor is gone, and this worker soon too
        finally:
            writer.close()


@dataclass(frozen=True, slots=True)
class Told:
    """A worker's answer."""

    metrics: str
    readiness: Readiness


class Question:
    """The supervisor's end."""

    def __init__(self, sock: socket.socket) -> None:
        """Take the socket over."""
        self._sock = sock
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._number = 0
        self._coming: tuple[int, int] | None = None  # the head of an answer whose body is not here
        self._turn = asyncio.Lock()

    async def ask(self) -> Told | None:
        """Return what the worker says, None when it does not answer in time or is gone."""
        async with self._turn:
            try:
                async with asyncio.timeout(ASK_TIMEOUT_S):
                    return await self._ask()
            except (TimeoutError, asyncio.IncompleteReadError, OSError):
                return None

    async def _ask(self) -> Told:
        if self._streams is None:
            self._streams = await asyncio.open_connection(sock=self._sock)
        reader, writer = self._streams
        self._number = self._number + 1 & 0xFFFFFFFF
        writer.write(_QUESTION.pack(self._number))
        await writer.drain()
        while True:
            if self._coming is None:
                self._coming = _ANSWER.unpack(await reader.readexactly(_ANSWER.size))
            number, length = self._coming
            body = await reader.readexactly(length)
            self._coming = None
            if number == self._number:
                told = json.loads(body)
                return Told(told["metrics"], Readiness(told["ready"], told["checks"]))

    def close(self) -> None:
        """Let go of the socket."""
        if self._streams is not None:
            self._streams[1].close()
        with contextlib.suppress(OSError):
            self._sock.close()


class NodeVitals:
    """What a supervisor's endpoint tells: all workers, each under its `worker` label.

    Args:
        node: the node's name.
        workers: how many there are.
    """

    def __init__(self, *, node: str, workers: int) -> None:
        self._node = node
        self._questions: dict[int, Question | None] = dict.fromkeys(range(workers))
        self.restarts = [0] * workers

    def attach(self, number: int, question: Question | None) -> None:
        """Ask a worker this way from now on; None while there is none of that number."""
        before, self._questions[number] = self._questions[number], question
        if before is not None:
            before.close()

    async def families(self) -> Iterable[Metric]:
        told = await self._ask()
        sheets = [self._sheet(number, answer is not None) for number, answer in told.items()]
        texts = [answer.metrics for answer in told.values() if answer is not None]
        return _merged(
            [
                *(family for text in texts for family in text_string_to_metric_families(text)),
                *(family for sheet in sheets for family in sheet.families()),
                *build("capture", self._node, worker="supervisor"),
                *process(worker="supervisor"),
            ]
        )

    async def readiness(self) -> Readiness:
        """Ready is a node with a worker that takes sessions and none that refuses them.

        The kernel deals connections to workers that listen, and to them alone: one that is just
        being started again is not asked.
        """
        told = await self._ask()
        checks: dict[str, str] = {}
        ready = []
        for number, answer in told.items():
            if answer is None:
                checks[f"worker {number}"] = "down"
                continue
            ready.append(answer.readiness.ready)
            for name, how in answer.readiness.checks.items():
                checks[f"worker {number}: {name}"] = how
        return Readiness(ready=bool(ready) and all(ready), checks=checks)

    async def _ask(self) -> Mapping[int, Told | None]:
        answers = await asyncio.gather(*(self._one(number) for number in self._questions))
        return dict(zip(self._questions, answers, strict=True))

    async def _one(self, number: int) -> Told | None:
        question = self._questions[number]
        return None if question is None else await question.ask()

    def _sheet(self, number: int, up: bool) -> Sheet:  # noqa: FBT001 - of this class alone
        sheet = Sheet([RESTARTS] if up else [WORKER_UP, RESTARTS], worker=str(number))
        if not up:
            sheet.put(WORKER_UP, 0)
        sheet.put(RESTARTS, self.restarts[number])
        return sheet


def _merged(families: Iterable[Metric]) -> list[Metric]:
    """Return one family a name, with the samples of all."""
    found: dict[str, Metric] = {}
    for family in families:
        known = found.setdefault(
            family.name, Metric(family.name, family.documentation, family.type)
        )
        known.samples += family.samples
    return list(found.values())
