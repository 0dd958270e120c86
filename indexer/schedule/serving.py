"""Scheduled verification at work: steps spread over the day, until somebody says stop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Final

from sealtape.indexer.monitor.folder import MonitorFolder
from sealtape.indexer.schedule.alarms import AlarmSender, sender_of
from sealtape.indexer.schedule.rounds import Rounds
from sealtape.indexer.schedule.state import State, open_state
from sealtape.ingest.serving import end
from sealtape.schemas.errors import SealtapeError
from sealtape.schemas.evidence import EvidencePolicy
from sealtape.schemas.notes import Verifier
from sealtape.schemas.scheduling import DAY_NS, MOST, Coverage, allowance, pause_ns
from sealtape.schemas.settings import Settings
from sealtape.schemas.verification import Alarm

__all__ = ["Round", "RunningSchedule", "once", "start_schedule"]

DRAIN_S: Final = 5.0
"""How long a step that runs may go on after a stop. What it read then has its turn again."""

SETTLE_NS: Final = 60 * 1_000_000_000
"""Nothing is read so long after a start: a log that began with us has a checkpoint by then."""

ONCE_S: Final = 30.0
"""How long a run for one round waits for the webhook."""

log = logging.getLogger(__name__)


class RunningSchedule:
    """Steps, and the sending of alarms, as tasks of their own."""

    def __init__(
        self,
        settings: Settings,
        state: State,
        rounds: Rounds,
        sender: AlarmSender | None,
        *,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Begin at once; `stop` must follow."""
        self.rounds = rounds
        self.sender = sender
        self._verify = settings.verify
        self._state = state
        self._clock_ns = clock_ns
        self._stop = asyncio.Event()
        self._tasks = [asyncio.create_task(self._run())]
        if sender is not None:
            self._tasks.append(asyncio.create_task(sender.run()))

    async def wait(self) -> None:
        """Return when it has ended; raise the failure that ended it."""
        await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in self._tasks:
            if task.done():
                await task

    async def stop(self) -> None:
        """Let a step that runs come to its end, for a short time, and close the file."""
        self._stop.set()
        await asyncio.wait(self._tasks[:1], timeout=DRAIN_S)
        await end(self._tasks)
        await self._state.close()

    async def _run(self) -> None:
        begun_ns, read = await self._state.last()
        rested_ns = self._clock_ns() - begun_ns
        every_ns = int(self._verify.every_s * 1e9)
        left = pause_ns(read, self._verify.bytes_per_day) - max(0, rested_ns)
        await self._rest(max(left, min(every_ns, SETTLE_NS)))
        allowed = allowance(self._verify.bytes_per_day, every_ns)
        while not self._stop.is_set():
            read = await self._step(allowed)
            await self._rest(max(every_ns, pause_ns(read, self._verify.bytes_per_day)))

    async def _step(self, allowed: int) -> int:
        read, fresh = 0, True  # a step that fails may have found something before
        try:
            step = await self.rounds.step(allowed)
            read, fresh = step.read, bool(step.fresh)
        except SealtapeError as error:
            self.rounds.tally.failures += 1
            log.warning("Nothing could be verified now, it is tried again: %s", error)
        if fresh and self.sender is not None:
            self.sender.wake()
        return read

    async def _rest(self, pause: int) -> None:
        try:
            async with asyncio.timeout(pause / 1e9):
                await self._stop.wait()
        except TimeoutError:
            return


async def start_schedule(
    settings: Settings,
    *,
    trust: tuple[Verifier, ...],
    policy: EvidencePolicy | None,
    monitor: MonitorFolder | None = None,
) -> RunningSchedule:
    """Verify as the settings say, from now on. Raises `SettingsError` and `StoreError`."""
    state = await open_state(settings)
    try:
        sender = sender_of(settings, state)
    except SealtapeError:
        await state.close()
        raise
    rounds = Rounds(settings, state, trust=trust, policy=policy, monitor=monitor)
    return RunningSchedule(settings, state, rounds, sender)


@dataclass(frozen=True, slots=True)
class Round:
    """What came of one round: what it read, and how everything stands after it."""

    read: int
    objects: int
    fresh: tuple[Alarm, ...]
    verdict: str
    coverage: Coverage
    standing: tuple[Alarm, ...]
    unsent: int


async def once(
    settings: Settings,
    *,
    trust: tuple[Verifier, ...],
    policy: EvidencePolicy | None,
    monitor: MonitorFolder | None = None,
) -> Round:
    """Read what is due within what is left of the day's budget, and send what was found."""
    async with AsyncExitStack() as stack:
        state = await open_state(settings)
        stack.push_async_callback(state.close)
        sender = sender_of(settings, state)
        rounds = Rounds(settings, state, trust=trust, policy=policy, monitor=monitor)
        now_ns = time.time_ns()
        left = settings.verify.bytes_per_day - await state.read_since(now_ns - DAY_NS, now_ns)
        fresh: list[Alarm] = []
        read = objects = 0
        while True:
            step = await rounds.step(max(0, left - read))
            read, objects = read + step.read, objects + step.objects
            fresh += step.fresh
            if step.objects < MOST:
                break
        if sender is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(ONCE_S):
                    await sender.flush()
        return Round(
            read=read,
            objects=objects,
            fresh=tuple(fresh),
            verdict=await rounds.verdict(),
            coverage=rounds.coverage,
            standing=tuple(await state.standing()),
            unsent=await state.waiting_count(),
        )
