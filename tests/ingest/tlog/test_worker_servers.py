"""The log on a real PostgreSQL and a real S3 store: one history there as well."""

import asyncio

import pytest

from sealtape.ingest.ledger import prepare_ledger
from sealtape.ingest.tlog.store import CHECKPOINT, LogStore
from sealtape.ingest.tlog.worker import LogWorker
from sealtape.ingest.vault import open_vault
from tests.factories.deployments import seal
from tests.factories.logs import Killed, Life, grow_log, kinds, log_of, read_log, writing
from tests.factories.served_sites import make_site_on_servers


@pytest.fixture
async def site(tmp_path, postgres_stores, s3_server, monkeypatch):
    """A deployment whose ledger and vault are servers."""
    return await make_site_on_servers(tmp_path / "lab", postgres_stores, s3_server, monkeypatch)


WHAT = ("session-open", "segment", "session-seal")


async def test_entries_checkpoints_and_witnesses(site):
    await seal(site, [site.session(number=number) for number in (1, 2, 3)])
    await grow_log(site)
    await seal(site, [site.session(number=4)])
    await grow_log(site)
    entries, checkpoint = await read_log(site)
    found = kinds(entries)
    assert [found.count(kind) for kind in ("session-open", "session-seal")] == [4, 4]
    assert checkpoint.size == len(entries)


async def test_two_workers_and_one_that_is_lost(site):
    await seal(site, [site.session(number=number) for number in range(1, 6)])
    async with log_of(site) as (_, parts):
        first, second = (LogWorker(parts, owner=name, ttl_s=2.0) for name in ("a", "b"))
        tasks = [asyncio.create_task(worker.run()) for worker in (first, second)]
        async with asyncio.timeout(30):
            while not (first.snapshot().held or second.snapshot().held):
                await asyncio.sleep(0.02)
            at_work = 0 if first.snapshot().held else 1
            tasks[at_work].cancel()
            other = (first, second)[1 - at_work]
            while not other.snapshot().held:
                await asyncio.sleep(0.02)
        other.leave()
        await tasks[1 - at_work]
    entries, _ = await read_log(site)
    assert kinds(entries).count("log") == 1
    assert kinds(entries).count("session-seal") == 5


@pytest.mark.parametrize("last", [2, 5, 9])
@pytest.mark.parametrize("after", [False, True])
async def test_killed_it_goes_on(site, last, after):
    await seal(site, [site.session()])
    with pytest.raises(Killed):
        await grow_log(site, witnesses=False, life=Life(last, after=after))
    await grow_log(site, witnesses=False)
    entries, _ = await read_log(site)
    assert [kind for kind in kinds(entries) if kind in WHAT] == list(WHAT)


async def test_an_old_ledger_makes_no_second_history(site, postgres_stores):
    """A ledger that is new beside a vault that has a log."""
    await seal(site, [site.session()])
    await grow_log(site)
    text = site.config.read_text()
    fresh = postgres_stores.database().url()
    await prepare_ledger(fresh, site.folder)
    line = next(line for line in text.splitlines() if line.startswith("ledger = "))
    site.config.write_text(text.replace(line, f'ledger = "{fresh}"'))
    vault = await open_vault(site.settings.stores.vault, site.folder)
    before = await LogStore(vault, 1).get(CHECKPOINT)
    async with writing(site) as (_, worker):
        async with asyncio.timeout(60):
            while not worker.snapshot().stopped:
                await asyncio.sleep(0.02)
    assert "fork" in worker.snapshot().stopped
    assert await LogStore(vault, 1).get(CHECKPOINT) == before
    await vault.close()
