"""What a deployment says of itself while it runs, and the memory that its rooms take.

async with Watch(lab, capture=node, ingest=ingest, indexer=index) as watch:
    seen = await watch.look()
    seen.status["bus"], seen.told("ingest", "failures_total"), seen.checks("indexer")
watch.peak["ingest"]                    bytes
"""

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass

import psutil

from sealtape.capture.metrics.asking import metrics_at, readiness_at

SAMPLE_S = 0.25
WELL_S = 180.0


@dataclass
class Seen:
    """What was said at one time: `sealtape status --json`; each room's `/metrics` and `/readyz`."""

    status: dict
    metrics: dict
    readiness: dict
    status_s: float

    def told(self, room, metric):
        """A metric of a room, summed over its labels."""
        return self.metrics[room][f"sealtape_{room}_{metric}"]

    def ready(self, room):
        return self.readiness[room]["ready"]

    def checks(self, room):
        return self.readiness[room]["checks"]


class Watch:
    """Asks rooms that have `metrics` addresses, and measures them from the outside."""

    def __init__(self, lab, **rooms):
        self._lab = lab
        self._rooms = rooms
        self.peak = dict.fromkeys(rooms, 0)

    async def __aenter__(self):
        self._task = asyncio.create_task(self._measure())
        return self

    async def __aexit__(self, *error):
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def look(self):
        """Ask all of them now; AssertionError when a room does not answer."""
        began = time.monotonic()
        status = asyncio.create_task(self._lab.cli("status", "--json"))
        metrics, readiness = await self.metrics(), await self.readiness()
        told = json.loads(await status)
        return Seen(told, metrics, readiness, time.monotonic() - began)

    async def metrics(self):
        """Ask each room's `/metrics` alone; AssertionError when one does not answer."""
        return await self._ask(metrics_at, "/metrics")

    async def readiness(self):
        """Ask each room's `/readyz` alone; AssertionError when one does not answer."""
        return await self._ask(readiness_at, "/readyz")

    async def well(self, *, seconds=WELL_S, what="every room ready"):
        """Wait until every room says that it is ready."""

        async def ill():
            said = await self._answers(readiness_at)
            return [room for room, one in said.items() if one is None or not one["ready"]]

        await self._lab.until(ill, lambda rooms: not rooms, seconds=seconds, what=what)

    async def _ask(self, question, path):
        found = await self._answers(question)
        silent = [room for room, answer in found.items() if answer is None]
        assert not silent, f"no answer at {path}: {silent}\n{self._lab.logs()[-4000:]}"
        return found

    async def _answers(self, question):
        answers = (question(self._lab.addresses[room]) for room in self._rooms)
        return dict(zip(self._rooms, await asyncio.gather(*answers), strict=True))

    async def _measure(self):
        while True:
            for name, room in self._rooms.items():
                self.peak[name] = max(self.peak[name], resident(room.pid))
            await asyncio.sleep(SAMPLE_S)


def resident(pid):
    """Bytes that a process and its children hold in memory; 0 when it is gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return sum(each.memory_info().rss for each in (process, *process.children()))
    return 0
