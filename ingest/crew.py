"""A worker among others: which partitions it works on, each behind a lease.

A worker says every second or two that it is at work, learns who else is, and works out its share
(`ingest.shares`). It leaves partitions that are no longer its own, and claims those that became so
as soon as nobody holds them. Only the lease decides who may write: two workers that disagree for a
moment about their shares cost time and nothing else.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from sealtape.ingest.ledger.base import Ledger
from sealtape.ingest.ledger.rows import Lease
from sealtape.ingest.serving import end, results
from sealtape.ingest.shares import shares
from sealtape.schemas.errors import Fenced, SettingsError, StoreBusy, StoreError

__all__ = ["Crew", "Hold", "Leaving", "Seat", "persist", "sweep", "while_all_held", "while_held"]

BEAT_S = 2.0
"""Longest time between two beats: how soon a worker that comes or goes is noticed."""
CLAIM_S = 1.0
"""Time between two attempts to claim what another still holds."""
RETRY_S = (0.5, 10.0)
"""Shortest and longest pause after a failure."""
SWEEP_S = 1.0
"""Shortest time between two collections of what failed attempts left."""
RELEASE_S = 5.0

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Hold:
    """A lease that was claimed, and until when it surely holds.

    `until` is by `time.monotonic`, counted from before the store was asked, so it ends no later
    here than there. A process that was stopped and goes on finds it over.
    """

    lease: Lease
    until: float

    def check(self) -> None:
        """Raise `Fenced` when another may have taken over."""
        if time.monotonic() > self.until:
            _lost(self.lease)


class Leaving:
    """Set once: work is to end. `read_s` is how long to read on before: None is to the end."""

    def __init__(self) -> None:
        """Nobody asked yet."""
        self.asked = asyncio.Event()
        self.read_s: float | None = None

    def ask(self, read_s: float | None) -> None:
        """End, after reading on for at most that long. The first to ask decides."""
        if not self.asked.is_set():
            self.read_s = read_s
            self.asked.set()

    async def within(self, seconds: float) -> bool:
        """Wait at most that long; say whether it is time to end."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.asked.wait(), seconds)
        return self.asked.is_set()


async def while_held(
    ledger: Ledger,
    topic: str,
    partition: int,
    owner: str,
    ttl_s: float,
    work: Callable[[Hold], Coroutine[Any, Any, None]],
) -> bool:
    """Claim a partition and work while the lease holds; False when another holds it.

    The lease is renewed beside the work. When that fails until the lease is over, or finds a newer
    term, the work is cancelled and `Fenced` raised. It is released afterwards, also after failures.
    Raises `SettingsError` when another process took it under our own name.
    """
    asked = time.monotonic()
    lease = await ledger.claim(topic, partition, owner, ttl_s)
    if lease is None:
        return False
    hold = Hold(lease, asked + ttl_s)
    try:
        await _both(work(hold), _keep(ledger, hold, ttl_s))
    except Fenced:
        await _check_name(ledger, lease)
        raise
    except StoreError:
        await _let_go(ledger, lease)
        raise
    await ledger.release(lease)
    return True


async def while_all_held(
    ledger: Ledger,
    topic: str,
    partitions: int,
    owner: str,
    ttl_s: float,
    work: Callable[[], Awaitable[None]],
) -> None:
    """Work once while all partitions of a topic are held.

    Waits as long as a holder that died may still have its lease. Raises `StoreBusy` when somebody
    is at work after that.
    """
    until = time.monotonic() + ttl_s + CLAIM_S

    async def one_more(partition: int) -> None:
        if partition == partitions:
            await work()
            return
        while not await while_held(
            ledger, topic, partition, owner, ttl_s, lambda _: one_more(partition + 1)
        ):
            if time.monotonic() > until:
                raise StoreBusy(
                    f"Somebody is at work on partition {partition} of {topic}.",
                    retry_after_s=ttl_s,
                    hint="End the processes that `sealtape status` names, then try again.",
                )
            await asyncio.sleep(min(CLAIM_S, ttl_s / 3))

    await one_more(0)


async def _both(work: Coroutine[Any, Any, None], keeping: Coroutine[Any, Any, None]) -> None:
    """Run both until one ends, then end the other."""
    tasks = [asyncio.create_task(work), asyncio.create_task(keeping)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end(tasks)
    results(tasks)


async def _keep(ledger: Ledger, hold: Hold, ttl_s: float) -> None:
    """Renew until that is no longer possible."""
    pause = ttl_s / 3
    while True:
        await asyncio.sleep(pause)
        asked = time.monotonic()
        if asked > hold.until:
            _lost(hold.lease)
        try:
            await asyncio.wait_for(ledger.renew(hold.lease, ttl_s), hold.until - asked)
        except Fenced:
            raise
        except (StoreError, TimeoutError) as error:
            log.warning("the lease of %s is not renewed: %s", _name(hold.lease), error)
            pause = min(pause, CLAIM_S)
        else:
            hold.until = asked + ttl_s
            pause = ttl_s / 3


async def _let_go(ledger: Ledger, lease: Lease) -> None:
    try:
        await asyncio.wait_for(ledger.release(lease), RELEASE_S)
    except (StoreError, TimeoutError) as error:
        log.warning("the lease of %s is left to run out: %s", _name(lease), error)


async def _check_name(ledger: Ledger, lease: Lease) -> None:
    """Raise `SettingsError` when a newer term is held under our own name."""
    place = (lease.topic, lease.partition)
    for row in await ledger.leases():
        if (row.topic, row.partition) == place and row.term > lease.term:
            if row.owner == lease.owner:
                raise SettingsError(
                    f"Another process is at work under the name {lease.owner!r}; this one ends.",
                    hint="Give each its own: --worker, SEALTAPE_WORKER or the room's `worker`.",
                )
            return


def _lost(lease: Lease) -> None:
    raise Fenced(
        f"The lease of {_name(lease)} ran out before it could be renewed.",
        hint="Claim the partition again and read on from its position.",
    )


def _name(lease: Lease) -> str:
    return f"{lease.topic}/{lease.partition}"


class _Swept:
    """When circles were collected last, in this process."""

    at = -math.inf


def sweep() -> None:
    """Collect what failed attempts have left in circles; at most once in `SWEEP_S`.

    A failure that names itself, over a cause or a frame, as those of database clients do, keeps all
    that the frames it passed had in hand: a segment, its rows. The collector counts objects and not
    bytes: ten such attempts may go by before it comes.
    """
    if time.monotonic() - _Swept.at >= SWEEP_S:
        gc.collect()
        _Swept.at = time.monotonic()


async def persist(attempt: Callable[[], Awaitable[bool]], leaving: Leaving, name: str) -> None:
    """Attempt until it succeeds or it is time to end; failures of stores are tried again.

    Who is asked to read to the end attempts it once more, also after a failure.
    """
    pause, last = RETRY_S[0], False
    while True:
        began = time.monotonic()
        try:
            if await attempt():
                return
            wait, failed = CLAIM_S, False
        except StoreBusy as error:
            log.warning("%s: %s", name, error)
            wait, failed = error.retry_after_s, True
        except StoreError as error:
            failed = True
            pause = RETRY_S[0] if time.monotonic() - began > RETRY_S[1] else pause
            wait, pause = pause, min(2 * pause, RETRY_S[1])
            if isinstance(error, Fenced):
                log.warning("%s: %s", name, error)
            else:
                log.exception("%s", name)
        if failed:
            sweep()
        if await leaving.within(0.0 if last else wait):
            if last or leaving.read_s is not None:
                return
            last = True


class Seat(Protocol):
    """What works on one partition."""

    async def run(self) -> None:
        """Claim and work, again and again, until told to leave; raise only what is a fault."""
        ...

    def leave(self, read_s: float | None) -> None:
        """End after reading on for at most `read_s` seconds (None: to the end of the bus)."""
        ...


AnySeat = TypeVar("AnySeat", bound=Seat)


class Crew(Generic[AnySeat]):
    """Keeps one worker's share of a role's partitions."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        role: str,
        worker: str,
        ttl_s: float,
        partitions: int,
        seat: Callable[[int], AnySeat],
    ) -> None:
        """`worker` names this process among those of its `role`; `seat` makes what works."""
        self.live: tuple[str, ...] = ()
        self.seats: dict[int, AnySeat] = {}
        """What works at the moment, by partition; some may be on their way out."""
        self.beaten = 0.0
        """When it last said that it is at work, by `time.monotonic`; 0.0 is never."""
        self._ledger = ledger
        self._role = role
        self._worker = worker
        self._ttl_s = ttl_s
        self._partitions = partitions
        self._seat = seat
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._leaving = Leaving()

    def stop(self, read_s: float | None) -> None:
        """Leave all partitions, and end."""
        self._leaving.ask(read_s)

    async def begin(self) -> None:
        """Take a first share; once, before `run`. So whoever stops at once has read the bus."""
        await self._round()

    async def run(self) -> None:
        """Keep the share until `stop`; raises the fault that ended a seat before."""
        try:
            while not self._leaving.asked.is_set():
                await self._round()
                await self._pause(max(0.05, min(self._ttl_s / 3, BEAT_S)))
            await self._leave()
        finally:
            await end(self._tasks.values())

    async def _round(self) -> None:
        try:
            asked = time.monotonic()
            beat = self._ledger.beat(self._role, self._worker, self._ttl_s)
            self.live = tuple(await asyncio.wait_for(beat, self._ttl_s))
            self.beaten = asked
        except (StoreError, TimeoutError) as error:
            # What it has it keeps: nobody else can claim anything either, or the lease decides.
            log.warning("%s %s cannot say that it is at work: %s", self._role, self._worker, error)
            return
        mine = shares(self._partitions, self.live, self._worker)
        for partition, seat in self.seats.items():
            if partition not in mine:
                seat.leave(0.0)
        for partition in sorted(mine - self.seats.keys()):
            seat = self.seats[partition] = self._seat(partition)
            name = f"{self._role}-{partition}"
            self._tasks[partition] = asyncio.create_task(seat.run(), name=name)

    async def _pause(self, seconds: float) -> None:
        asked = asyncio.create_task(self._leaving.asked.wait())
        try:
            await asyncio.wait(
                {asked, *self._tasks.values()},
                timeout=seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            asked.cancel()
        self._clear()

    def _clear(self) -> None:
        for partition in [p for p, task in self._tasks.items() if task.done()]:
            del self.seats[partition]
            self._tasks.pop(partition).result()

    async def _leave(self) -> None:
        # Said first, so that others are ready to claim what is released below.
        try:
            await asyncio.wait_for(self._ledger.leave(self._role, self._worker), RELEASE_S)
        except (StoreError, TimeoutError) as error:
            log.warning("%s %s could not say that it leaves: %s", self._role, self._worker, error)
        for seat in self.seats.values():
            seat.leave(self._leaving.read_s)
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._clear()
