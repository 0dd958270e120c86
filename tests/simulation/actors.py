"""Actors that run from gate to gate: every call of a store is a gate, before it and after it.

One actor at a time runs, from one of its gates to the next, when the scheduler says so. So an actor
can be killed, or left asleep, between any two calls: before one, or after one whose answer it will
never see. One that sleeps while others go on is a zombie when it wakes up.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor

from sealtape.schemas.errors import StoreError

_READING = """
read bounds position positions staged abandoned heads shard_head quarantined fragments leases get
"""
READING = frozenset(_READING.split())
"""Calls that change nothing: to die after one is to die before the next."""


class Inline(ThreadPoolExecutor):
    """Does at once what it is given: nothing then depends on when a thread has its turn."""

    def submit(self, work, /, *arguments, **options):
        future = Future()
        try:
            future.set_result(work(*arguments, **options))
        except BaseException as error:
            future.set_exception(error)
        return future


def without_threads(*databases):
    """Let everything that would run in threads run at once, on the running loop."""
    asyncio.get_running_loop().set_default_executor(Inline(1))
    for database in databases:
        database._thread.shutdown()
        database._thread = Inline(1)


class Actor:
    """A coroutine that waits at gates. `place` is the gate it stands at: store, method, when."""

    def __init__(self, faults):
        self.place = ("", "", "")
        self.task = None
        self._faults = faults
        self._waiting = None
        self._arrived = asyncio.Event()

    def start(self, coroutine):
        self.task = asyncio.create_task(coroutine)
        self.task.add_done_callback(lambda _: self._arrived.set())
        return self

    @property
    def done(self):
        return self.task.done()

    async def gate(self, *place):
        """Wait for the next `step`; then the call may fail as the faults have it."""
        self.place = place
        self._waiting = asyncio.get_running_loop().create_future()
        self._arrived.set()
        await self._waiting
        self._faults(self, place)

    async def step(self):
        """Run to the next gate or the end."""
        if not self._arrived.is_set():
            await self._arrived.wait()
        if self.done:
            return
        self._arrived.clear()
        self._waiting.set_result(None)
        await self._arrived.wait()

    async def kill(self):
        """End it where it stands, as a crash does: nothing of it runs any more."""
        if not self._arrived.is_set():
            await self._arrived.wait()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


class Gated:
    """A store whose calls wait at the actor's gates."""

    def __init__(self, name, store, actor):
        self._name = name
        self._store = store
        self._actor = actor

    def __getattr__(self, method):
        found = getattr(self._store, method)
        if not asyncio.iscoroutinefunction(found):
            return found

        async def call(*arguments, **options):
            await self._actor.gate(self._name, method, "before")
            if method in READING:
                return await found(*arguments, **options)
            try:
                result = await found(*arguments, **options)
            except StoreError:
                await self._actor.gate(self._name, method, "failed")
                raise
            await self._actor.gate(self._name, method, "after")
            return result

        return call


class Scheduler:
    """Picks who runs next, who falls asleep, who dies. `happened` counts what wakes sleepers."""

    def __init__(self, random, *, risky, happened):
        self.actors = []
        self._random = random
        self._risky = risky
        self._happened = happened
        self._asleep = {}

    def add(self, actor):
        self.actors.append(actor)

    async def step(self):
        """Let one of those that are awake run to its next gate."""
        self._wake()
        awake = [actor for actor in self.actors if actor not in self._asleep]
        if not awake:
            self._asleep.clear()
            return
        # The one that came first gets far while the others creep.
        actor = awake[0] if self._random.random() < 0.5 else self._random.choice(awake)
        await actor.step()
        if actor.done:
            self.actors.remove(actor)
            actor.task.result()
        elif self._random.random() < (0.15 if actor.place in self._risky else 0.005):
            self._asleep[actor] = self._happened() + self._random.randrange(1, 3)

    async def kill_one(self):
        """End somebody, asleep or awake."""
        actor = self._random.choice(self.actors)
        self.actors.remove(actor)
        self._asleep.pop(actor, None)
        await actor.kill()

    async def kill_all(self):
        while self.actors:
            await self.kill_one()

    def _wake(self):
        happened = self._happened()
        for actor in [a for a, until in self._asleep.items() if until <= happened]:
            del self._asleep[actor]
        if self._asleep and self._random.random() < 0.03:
            self._asleep.pop(self._random.choice(list(self._asleep)))
