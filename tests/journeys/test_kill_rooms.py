"""kill -9 and SIGSTOP/SIGCONT of capture, ingest and the indexer under load, on real servers.

What clients and targets had on their wires is what is recorded, every session is sealed once, the
roots are those of what was on the bus, and the index holds what the ledger does.

SEALTAPE_SEED=N plays the rounds of another run again: which room is struck how, and about when.
"""

import asyncio
import os
import random
import signal
import time

import pytest

from tests.journeys.aftermath import check_recorded, check_taps, documents
from tests.journeys.lab import tapped_lab
from tests.journeys.taps import Tap
from tests.journeys.traffic import Persisted, persist

ROUNDS, SOAK_ROUNDS = 5, 30
CLIENTS = 3
LEASE_S = 2
SETTINGS = {
    "capture": "frame_ms = 50\ncheckpoint_s = 0.5\ngrace_s = 3",
    "ingest": f"segment_s = 0.2\nlease_s = {LEASE_S}",
    "index": f"lease_s = {LEASE_S}",
}


class Rooms:
    """The living process of each room; `strike` does something to one and replaces it."""

    def __init__(self, lab, outer, seed):
        self.lab, self.outer, self.random = lab, outer, random.Random(seed)
        self.living, self._named = {}, 0

    async def start(self, room):
        if room == "capture":
            self.living[room] = await self.lab.capture()
            self.outer.target = self.living[room].port
            return
        self._named += 1
        self.living[room] = getattr(self.lab, room)(f"w{self._named}")

    async def strike(self, room, way, after_s, for_s):
        await asyncio.sleep(after_s)
        struck = self.living[room]
        if way == "killed":
            await struck.kill()
            await self.start(room)
            return
        await struck.heeding()
        struck.process.send_signal(signal.SIGSTOP)  # its lease runs out, and another takes over
        await self.start(room)
        await asyncio.sleep(LEASE_S + for_s)
        struck.process.send_signal(signal.SIGCONT)  # and now there are two
        await asyncio.sleep(for_s)
        assert await struck.stop(signal.SIGTERM) == 0

    async def rounds(self, count):
        """Strike every room in every round; each room in both ways."""
        ways = {
            room: self.random.sample(["killed", "frozen"] * (count // 2 + 1), count)
            for room in ("capture", "ingest", "index")
        }
        for number in range(count):
            print(f"round {number + 1}:", {room: each[number] for room, each in ways.items()})
            await asyncio.gather(
                *(
                    self.strike(room, each[number], *(self.random.random() for _ in range(2)))
                    for room, each in ways.items()
                )
            )
            await asyncio.sleep(self.random.random())
        return ways


async def struck(folder, server, stores, count):
    """Clients at work while rooms are struck; then all that must hold."""
    seed = int(os.environ.get("SEALTAPE_SEED", time.time_ns() % 1_000_000))
    print(f"SEALTAPE_SEED={seed}")
    async with (
        tapped_lab(folder, server, stores=stores, **SETTINGS) as (lab, inner),
        Tap(0) as outer,
    ):
        rooms, quiet, found = Rooms(lab, outer, seed), asyncio.Event(), Persisted()
        for room in ("capture", "ingest", "index"):
            await rooms.start(room)
        load = asyncio.gather(
            *(persist(lab, quiet, outer.port, found, 0.02) for _ in range(CLIENTS))
        )
        try:
            await lab.until(lab.sessions, seconds=180, what="the first session")
            ways = await rooms.rounds(count)
        finally:
            quiet.set()
            await load
        print(found)
        for tap in (outer, inner):
            await tap.quiet()
        await lab.adopted()
        assert await rooms.living["capture"].stop() == 0
        leaves = await lab.all_sealed(seconds=180)
        for room in ("ingest", "index"):
            assert await rooms.living[room].stop() == 0
        await check_recorded(lab, leaves)
        commands = (await documents(lab))["commands"]
        assert sum(each.effect == "read" for each in commands) >= found.statements
        reasons = await check_taps(lab, outer.sessions(), inner.sessions())
        assert reasons.count("aborted") >= ways["capture"].count("killed")
        assert set(reasons) <= {"aborted", "client", "shutdown"}


@pytest.mark.timeout(600)
async def test_killed_and_frozen_in_every_room(tmp_path, postgres_server, real_stores):
    await struck(tmp_path, postgres_server, real_stores, ROUNDS)


@pytest.mark.soak
async def test_killed_and_frozen_for_long(tmp_path, postgres_server, real_stores):
    await struck(tmp_path, postgres_server, real_stores, SOAK_ROUNDS)
