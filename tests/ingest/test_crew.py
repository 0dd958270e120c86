"""Who works where: several workers on one ledger, with seats that only hold their lease."""

import asyncio
import logging
import time
from contextlib import asynccontextmanager

import pytest

from sealtape.ingest import crew as module
from sealtape.ingest.crew import Crew, Leaving, persist, while_held
from sealtape.ingest.ledger.sqlite import SqliteLedger
from sealtape.ingest.shares import shares
from sealtape.schemas.errors import Fenced, SettingsError, StoreBusy, StoreError
from tests.factories.circles import Burden, without_collector

TTL_S = 0.6
PARTITIONS = 6


@pytest.fixture
async def ledger(tmp_path):
    ledger = await SqliteLedger.open("sqlite:ledger.db", tmp_path)
    yield ledger
    await ledger.close()


class Holder:
    """A seat that holds its partition's lease and does nothing else."""

    def __init__(self, ledger, worker, partition, place):
        self._ledger, self._worker, self._partition, self._place = ledger, worker, partition, place
        self.leaving = Leaving()
        self.error = None

    def leave(self, read_s):
        self.leaving.ask(read_s)

    async def run(self):
        await persist(self._hold, self.leaving, f"{self._worker}/{self._partition}")

    async def _hold(self):
        return await while_held(
            self._ledger, "frames", self._partition, self._worker, TTL_S, self._work
        )

    async def _work(self, hold):
        assert self._place.setdefault(self._partition, self._worker) == self._worker
        try:
            while not await self.leaving.within(0.01):
                hold.check()
                if self.error is not None:
                    raise self.error
        finally:
            del self._place[self._partition]


class Fleet:
    """Workers of one process, told apart by name; `place` says who holds what."""

    def __init__(self, ledger):
        self.ledger = ledger
        self.place = {}
        self.crews = {}
        self.tasks = {}

    async def start(self, worker, ledger=None):
        crew = self.crews[worker] = Crew(
            ledger=ledger or self.ledger,
            role="ingest",
            worker=worker,
            ttl_s=TTL_S,
            partitions=PARTITIONS,
            seat=lambda partition: Holder(ledger or self.ledger, worker, partition, self.place),
        )
        await crew.begin()
        self.tasks[worker] = asyncio.create_task(crew.run())
        return crew

    async def stop(self, worker):
        self.crews.pop(worker).stop(0.0)
        await self.tasks.pop(worker)

    async def settled(self, workers):
        """Wait until everybody has its share; return how long that took."""
        wanted = {p: w for w in workers for p in shares(PARTITIONS, workers, w)}
        began = time.monotonic()
        async with asyncio.timeout(60):
            while self.place != wanted:
                await asyncio.sleep(0.01)
        return time.monotonic() - began


@asynccontextmanager
async def fleet_of(ledger, *workers):
    fleet = Fleet(ledger)
    try:
        for worker in workers:
            await fleet.start(worker)
        yield fleet
    finally:
        for worker in list(fleet.crews):
            await fleet.stop(worker)


async def test_who_comes_gets_a_share_and_who_goes_leaves_it(ledger, monkeypatch):
    monkeypatch.setattr(module, "CLAIM_S", 0.05)
    async with fleet_of(ledger, "a") as fleet:
        await fleet.settled(["a"])
        await fleet.start("b")
        await fleet.start("c")
        assert await fleet.settled(["a", "b", "c"]) < 2 * TTL_S
        assert set(fleet.place.values()) == {"a", "b", "c"}
        await fleet.stop("b")
        assert await fleet.settled(["a", "c"]) < 2 * TTL_S
        await fleet.stop("a")
        await fleet.settled(["c"])
    assert all(row.owner == "" for row in await ledger.leases())
    assert await ledger.beat("ingest", "z", 1.0) == ["z"]


async def test_a_worker_that_dies_is_replaced_when_its_time_is_over(ledger, monkeypatch):
    monkeypatch.setattr(module, "CLAIM_S", 0.05)
    async with fleet_of(ledger, "a", "b") as fleet:
        await fleet.settled(["a", "b"])
        fleet.crews.pop("b")
        dead = fleet.tasks.pop("b")
        dead.cancel()  # as a crash does: nothing is released, nothing said
        await asyncio.gather(dead, return_exceptions=True)
        await fleet.settled(["a"])


async def test_what_has_only_one_partition_waits_for_the_others_lease(ledger):
    lease = await ledger.claim("frames", 0, "other", 30.0)
    async with fleet_of(ledger, "a") as fleet:
        while len(fleet.place) < PARTITIONS - 1:
            await asyncio.sleep(0.01)
        assert 0 not in fleet.place
        await ledger.release(lease)
        await fleet.settled(["a"])


async def test_the_fault_of_a_seat_ends_the_crew(ledger):
    fleet = Fleet(ledger)
    crew = await fleet.start("a")
    await fleet.settled(["a"])
    crew.seats[2].error = KeyError("bug")
    with pytest.raises(KeyError):
        await asyncio.wait_for(fleet.tasks["a"], 60)


class Fails:
    """A ledger of which some methods fail, or hang, while `down`."""

    def __init__(self, ledger, *methods, hang=False):
        self._ledger, self._methods, self._hang = ledger, methods, hang
        self.down = True

    def __getattr__(self, name):
        real = getattr(self._ledger, name)
        if name not in self._methods:
            return real

        async def call(*arguments):
            if self.down and self._hang:
                await asyncio.sleep(60)
            if self.down:
                raise StoreError("down")
            return await real(*arguments)

        return call


@pytest.mark.parametrize("hang", [False, True])
async def test_a_ledger_that_is_down_costs_only_time(ledger, monkeypatch, caplog, hang):
    monkeypatch.setattr(module, "RELEASE_S", 0.1)
    broken = Fails(ledger, "beat", "leave", hang=hang)
    fleet = Fleet(ledger)
    crew = await fleet.start("a", broken)
    assert crew.beaten == 0.0
    assert "cannot say that it is at work" in caplog.text
    broken.down = False
    await fleet.settled(["a"])
    assert crew.live == ("a",)
    broken.down = True
    await fleet.stop("a")
    assert "could not say that it leaves" in caplog.text
    assert all(row.owner == "" for row in await ledger.leases())


@pytest.mark.parametrize("hang", [False, True])
async def test_work_ends_when_the_lease_cannot_be_renewed(ledger, hang, caplog):
    caplog.set_level(logging.WARNING)
    broken = Fails(ledger, "renew", hang=hang)
    began = time.monotonic()
    with pytest.raises(Fenced):
        await while_held(broken, "frames", 0, "a", TTL_S, forever)
    assert TTL_S * 0.8 < time.monotonic() - began < 60
    assert "is not renewed" in caplog.text


async def forever(hold):
    while True:
        await asyncio.sleep(0.01)


async def test_a_failed_renewal_is_tried_again_in_time(ledger):
    broken = Fails(ledger, "renew")

    async def work(hold):
        until = hold.until
        await asyncio.sleep(TTL_S / 2)
        broken.down = False
        while hold.until == until:
            await asyncio.sleep(0.01)

    assert await while_held(broken, "frames", 0, "a", TTL_S, work)


async def test_a_newer_term_ends_the_work(ledger):
    async def work(hold):
        await ledger.release(hold.lease)
        assert await ledger.claim("frames", 0, "b", 30.0)
        await forever(hold)

    with pytest.raises(Fenced):
        await while_held(ledger, "frames", 0, "a", TTL_S, work)
    assert await while_held(ledger, "frames", 0, "a", TTL_S, forever) is False


async def test_two_processes_of_one_name_do_not_fight(ledger):
    async def work(hold):
        assert await ledger.claim("frames", 0, "a", 30.0)
        await forever(hold)

    with pytest.raises(SettingsError, match="'a'"):
        await while_held(ledger, "frames", 0, "a", TTL_S, work)


async def test_a_lease_is_released_after_a_failure(ledger, caplog):
    async def fails(hold):
        raise StoreError("no")

    with pytest.raises(StoreError):
        await while_held(ledger, "frames", 0, "a", TTL_S, fails)
    assert (await ledger.leases())[0].owner == ""
    with pytest.raises(StoreError):
        await while_held(Fails(ledger, "release"), "frames", 0, "a", TTL_S, fails)
    assert "left to run out" in caplog.text


@pytest.mark.parametrize("failure", [StoreError, StoreBusy, Fenced])
async def test_nothing_of_a_failed_attempt_stays(ledger, caplog, monkeypatch, failure):
    """Attempts follow each other in seconds, and each has megabytes in hand."""
    caplog.set_level(logging.CRITICAL)
    monkeypatch.setattr(module, "RETRY_S", (0.01, 0.01))
    monkeypatch.setattr(module, "sweep", lambda: None)
    burden, attempts = Burden(), []

    async def fails(hold):
        mine = burden.lifted()
        await asyncio.sleep(0.01)
        raise failure(f"{len(mine)}", **given)

    async def attempt():
        assert burden.gone()
        attempts.append(1)
        if len(attempts) == 4:
            return True
        return await while_held(ledger, "frames", 0, "a", TTL_S, fails)

    given = {"retry_after_s": 0.01} if failure is StoreBusy else {}
    with without_collector():
        await asyncio.wait_for(persist(attempt, Leaving(), "frames/0"), 60)
    assert len(attempts) == 4


async def test_what_names_itself_is_collected_after_a_failure(ledger, caplog, monkeypatch):
    """As foreign exceptions do, and `raise error.reason` inside of `except`."""
    caplog.set_level(logging.CRITICAL)
    monkeypatch.setattr(module, "RETRY_S", (0.05, 0.05))
    monkeypatch.setattr(module, "SWEEP_S", 0.02)
    burden, attempts = Burden(), []

    async def fails(hold):
        mine = burden.lifted()
        error = StoreError(f"{len(mine)}")
        error.itself = error
        raise error

    async def attempt():
        assert burden.gone()
        attempts.append(1)
        return len(attempts) == 3 or await while_held(ledger, "frames", 0, "a", TTL_S, fails)

    with without_collector():
        await asyncio.wait_for(persist(attempt, Leaving(), "frames/0"), 60)
    assert len(attempts) == 3


async def test_a_cancelled_worker_is_like_a_dead_one(ledger):
    task = asyncio.create_task(while_held(ledger, "frames", 0, "a", 30.0, forever))
    while not await ledger.leases():
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await ledger.leases())[0].owner == "a"


async def test_a_hold_is_over_by_our_own_clock_first(ledger):
    async def work(hold):
        time.sleep(TTL_S * 1.5)
        hold.check()

    with pytest.raises(Fenced, match="ran out"):
        await while_held(ledger, "frames", 0, "a", TTL_S, work)


async def test_pauses_grow_and_end_when_told_to(monkeypatch, caplog):
    monkeypatch.setattr(module, "RETRY_S", (0.01, 0.03))
    errors = [StoreBusy("busy", retry_after_s=0.01), Fenced("fenced"), *[StoreError("no")] * 4]
    waits, leaving = [], Leaving()
    real = leaving.within

    async def within(seconds):
        waits.append(seconds)
        return await real(seconds)

    async def attempt():
        if errors:
            raise errors.pop(0)
        return len(waits) > 6

    monkeypatch.setattr(leaving, "within", within)
    await persist(attempt, leaving, "it")
    assert waits == [0.01, 0.01, 0.02, 0.03, 0.03, 0.03, module.CLAIM_S]
    assert "it: busy" in caplog.text
    leaving.ask(0.0)
    leaving.ask(None)
    assert leaving.read_s == 0.0
    await persist(lambda: asyncio.sleep(0, result=False), leaving, "it")
