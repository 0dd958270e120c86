"""Scheduled verification of a ledger on a real PostgreSQL and a vault on a real S3 store."""

import time

import pytest

from sealtape.schemas.verification import PASS
from tests.factories.deployments import seal
from tests.factories.logs import grow_log
from tests.factories.served_sites import make_site_on_servers
from tests.indexer.schedule.conftest import DAY_NS, Clock, rounds_of


@pytest.fixture
async def site(tmp_path, postgres_stores, s3_server, monkeypatch):
    """A deployment whose ledger and vault are servers."""
    return await make_site_on_servers(tmp_path / "lab", postgres_stores, s3_server, monkeypatch)


async def test_rounds(site):
    await seal(site, [site.session(), site.session(commands=2)])
    await seal(site, [site.session()])
    await grow_log(site)
    clock = Clock(time.time_ns())
    async with rounds_of(site, clock) as (rounds, state):
        steps = [await rounds.step(1) for _ in range(4)]
        assert [alarm.finding for step in steps for alarm in step.fresh] == []
        read = {record.object: record for record in await state.history()}
        assert read.keys() - {PASS}
        assert all(record.log.size > 3 for record in read.values())
        assert rounds.coverage.share == 1
        assert await rounds.verdict() == "verified"
        clock.now_ns += 2 * DAY_NS
        await seal(site, [site.session()])
        await grow_log(site)
        step = await rounds.step(1 << 30)
        assert step.objects == len(read), "all of before, and one more"
        assert step.fresh == ()
