"""Workers that come, die, freeze and thaw share the work, and everything is sealed once."""

import asyncio

import pytest

from tests.journeys.fleet import LEASE_S, PARTITIONS, Fleet
from tests.servers.stores import StoreSet

SLACK_S = {"embedded": 4.0, "servers": 20.0}
"""What a machine may take on top that runs the servers too, and other tests."""


@pytest.fixture(params=["embedded", "servers"])
def fleet_stores(request, tmp_path):
    if request.param == "embedded":
        return None
    servers = {
        name: request.getfixturevalue(fixture)
        for name, fixture in (
            ("kafka", "kafka_server"),
            ("s3", "s3_server"),
            ("postgres", "postgres_stores"),
            ("opensearch", "opensearch_server"),
        )
    }
    return StoreSet.new(tmp_path, **servers, partitions=PARTITIONS)


async def ingest_in_trouble(fleet):
    """kill -9, a zombie, a newcomer, a zombie that comes back; the times all that took."""
    times = {}
    await fleet.kill("one")
    times["killed"] = await fleet.shared("ingest", ["three", "two"])
    fleet.freeze("two")
    times["frozen"] = await fleet.shared("ingest", ["three"])
    fleet.start("ingest", "four")
    await fleet.shared("ingest", ["four", "three"])
    fleet.thaw("two")
    times["thawed"] = await fleet.shared("ingest", ["four", "three", "two"])
    return times


async def indexers_in_trouble(fleet):
    times = {}
    fleet.freeze("y")
    times["frozen"] = await fleet.shared("index", ["x"])
    fleet.thaw("y")
    times["thawed"] = await fleet.shared("index", ["x", "y"])
    await fleet.kill("x")
    times["killed"] = await fleet.shared("index", ["y"])
    fleet.start("index", "z")
    await fleet.shared("index", ["y", "z"])
    return times


@pytest.mark.timeout(600)
async def test_processes_share_the_work_whatever_happens_to_them(tmp_path, fleet_stores):
    slack_s = SLACK_S["servers" if fleet_stores else "embedded"]
    async with Fleet(tmp_path, fleet_stores) as fleet:
        for worker in ("one", "two", "three"):
            fleet.start("ingest", worker)
        for worker in ("x", "y"):
            fleet.start("index", worker)
        await fleet.shared("ingest", ["one", "three", "two"])
        await fleet.shared("index", ["x", "y"])

        sessions = [fleet.site.session(commands=30, checkpoint_every=3) for _ in range(30)]
        feeding = asyncio.create_task(fleet.feed(sessions, seconds=25))
        times = await asyncio.gather(ingest_in_trouble(fleet), indexers_in_trouble(fleet))
        await feeding
        await fleet.all_sealed(sessions)
        before = await fleet.documents()
        assert len(before["commands"]) == 30 * 30
        assert {each.status for each in before["commands"].values()} == {"ok"}
        assert await fleet.drain() == [0] * 5

        await fleet.check(sessions)
        assert len(fleet.writers) >= 3
        for each in times:
            assert max(each.values()) <= 2 * LEASE_S + slack_s, times
        await fleet.rebuild()
        assert await fleet.documents() == before
