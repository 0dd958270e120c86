"""Scheduled verification of a ledger on a real PostgreSQL and a vault on a real S3 store."""

import time

import pytest

from sealtape.ingest.ledger import prepare_ledger
from sealtape.ingest.vault import prepare_vault
from sealtape.schemas.verification import PASS
from tests.factories.deployments import make_site, seal
from tests.factories.logs import grow_log
from tests.factories.s3_vaults import SECRET_VARIABLE, s3_url
from tests.indexer.schedule.conftest import DAY_NS, Clock, rounds_of


@pytest.fixture
async def site(tmp_path, postgres_stores, s3_server, monkeypatch):
    """A deployment whose ledger and vault are servers."""
    monkeypatch.setenv(SECRET_VARIABLE, s3_server.secret_key)
    site = make_site(tmp_path / "lab")
    vault = s3_url(s3_server, s3_server.bucket())
    ledger = postgres_stores.database().url()
    text = site.config.read_text()
    site.config.write_text(f'{text}ledger = "{ledger}"\nvault = "{vault}"\n')
    await prepare_ledger(ledger, site.folder)
    await prepare_vault(vault, site.folder)
    return site


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
