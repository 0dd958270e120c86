"""The watch on real stores, with a clock that moves when told to."""

import asyncio

import pytest

from sealtape.ingest.node import open_stores
from sealtape.ingest.tlog.parts import Pace
from sealtape.ingest.tlog.watch import WATCH, Look, Watch
from sealtape.schemas.bodies import parse_open
from tests.factories.deployments import make_site, put, seal
from tests.factories.logs import grow_log, kinds, log_of, read_log

PACE = Pace(silent_s=60.0, missing_s=300.0)


@pytest.fixture
def site(tmp_path):
    return make_site(tmp_path / "lab", partitions=2)


def long_journal(site, commands):
    """A journal that a node goes on with."""
    return site.session(
        journal=True,
        number=0,
        user="",
        target="",
        close=None,
        commands=commands,
        checkpoint_every=4,
    )


class Watched:
    """A watch that looks when it is told to."""

    def __init__(self, stores, parts, lease):
        self.stores = stores
        self.ledger = stores.ledger
        self.look = Look(parts, stores.bus, lease)
        self.now = 0.0

    async def after(self, seconds):
        """Look so many seconds later."""
        self.now += seconds
        await self.look.once(self.now, int(1e18 + self.now * 1e9))
        return [row for row in await self.ledger.incidents() if row.topic == WATCH]

    async def state(self, built):
        return (await self.ledger.session(built.session)).state


@pytest.fixture
async def watched(site):
    async with log_of(site, witnesses=False, pace=PACE) as (stores, parts):
        lease = await stores.ledger.claim(WATCH, 0, "watch", 600.0)
        yield Watched(stores, parts, lease)


async def test_a_node_that_falls_silent(site, watched):
    journal, live = site.journal(), site.session(close=None)
    closed = site.session(number=2)
    await seal(site, [journal, live, closed])
    assert await watched.after(0) == []
    assert await watched.after(59) == []
    (incident,) = await watched.after(2)
    assert (incident.reason, incident.session) == ("node_silent", journal.session)
    assert incident.seq == len(journal.frames)
    assert [await watched.state(each) for each in (journal, live, closed)] == [
        "incomplete",
        "incomplete",
        "sealed",
    ]
    assert len(await watched.after(600)) == 1
    events = [event for event in await watched.ledger.outbox() if b"node_silent" in event.payload]
    assert len(events) == 1


async def test_one_that_beats_is_not_silent(site, watched):
    journal = long_journal(site, 40)
    pairs = journal.encoded()
    for at in range(0, len(pairs), 20):
        await seal(site, pairs=pairs[at : at + 20])
        assert await watched.after(45) == []
    assert await watched.state(journal) == "live"


async def test_nobody_is_silent_while_ingest_is_behind(site, watched):
    journal = site.journal()
    await seal(site, [journal])
    await watched.after(0)
    waiting = site.session(number=5)
    while watched.stores.bus.partition_of(waiting.session) != watched.stores.bus.partition_of(
        journal.session
    ):
        waiting = site.session(number=5)
    await put(watched.stores.bus, waiting.encoded())
    assert await watched.after(1) == []
    assert await watched.after(3600) == []
    await seal(site)
    assert len(await watched.after(60)) == 1


async def test_it_comes_back(site, watched):
    journal = long_journal(site, 8)
    pairs = journal.encoded()
    await seal(site, pairs=pairs[: len(pairs) // 2])
    await watched.after(0)
    assert len(await watched.after(61)) == 1
    assert await watched.state(journal) == "incomplete"
    await seal(site, pairs=pairs[len(pairs) // 2 :])
    assert await watched.state(journal) == "live"
    assert len(await watched.after(30)) == 1
    assert len(await watched.after(61)) == 2


async def test_a_session_that_never_came(site, watched):
    """Number 2 is dropped from the bus by somebody; 3 shows it."""
    await seal(site, [site.journal(), site.session(number=1), site.session(number=3)])
    await grow_log(site)
    assert await watched.after(0) == []
    found = [row for row in await watched.after(301) if row.reason == "session_missing"]
    assert [row.seq for row in found] == [2]
    (third,) = [row async for row in sessions(watched, number=3)]
    assert found[0].session == third
    later = [row for row in await watched.after(600) if row.reason == "session_missing"]
    assert len(later) == 1


async def sessions(watched, number):
    """Sessions with that number."""
    async for row in watched.ledger.sessions():
        for head in await watched.ledger.epochs(row.session):
            if parse_open(head.opening, None)[0].number == number:
                yield row.session


async def test_a_session_that_is_late_is_not_missing(site, watched):
    second = site.session(number=2)
    await seal(site, [site.session(number=1), site.session(number=3)])
    await grow_log(site)
    assert await watched.after(0) == []
    await seal(site, [second])
    await grow_log(site)
    assert [row for row in await watched.after(400) if row.reason == "session_missing"] == []


@pytest.mark.parametrize("late", [0, 1, 2, 3])
async def test_another_watch_does_not_tell_again(site, watched, late):
    """Not even when some of the missing ones came meanwhile."""
    await seal(site, [site.session(number=4)])
    await grow_log(site)
    await watched.after(0)
    assert len(await watched.after(301)) == 1
    if late:
        await seal(site, [site.session(number=late)])
        await grow_log(site)
    lease = await watched.ledger.claim(WATCH, 0, "watch", 600.0)
    async with log_of(site, stores=watched.stores, witnesses=False, pace=PACE) as (stores, parts):
        again = Watched(stores, parts, lease)
        await again.after(0)
        assert len(await again.after(900)) == 1


async def test_what_the_watch_finds_is_in_the_log(site):
    async with log_of(site, witnesses=False, pace=PACE) as (stores, parts):
        lease = await stores.ledger.claim(WATCH, 0, "watch", 600.0)
        watched = Watched(stores, parts, lease)
        await seal(site, [site.journal()])
        await watched.after(0)
        await watched.after(61)
    await grow_log(site, 0.6)
    entries, _ = await read_log(site)
    (incident,) = [entry for entry in entries if kinds([entry]) == ["incident"]]
    assert (incident.reason, incident.bus.topic) == ("node_silent", WATCH)
    assert kinds(entries).count("session-seal") == 1  # of the journal, as it is


async def test_it_runs_beside_the_log(site):
    await seal(site, [site.journal()])
    pace = Pace(silent_s=0.3, missing_s=1.0)
    async with log_of(site, pace=pace) as (stores, parts):
        watch = Watch(parts, stores.bus, owner="dev-1")
        task = asyncio.create_task(watch.run())
        async with asyncio.timeout(60):
            while not await stores.ledger.incidents():
                await asyncio.sleep(0.05)
        watch.leave()
        await task
    stores = await open_stores(site.settings)
    assert [row.reason for row in await stores.ledger.incidents()] == ["node_silent"]
    await stores.close()
