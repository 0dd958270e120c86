"""When checkpoints are time-stamped, and what is kept of it."""

import asyncio
import time
from dataclasses import replace
from hashlib import sha256

import pytest

from sealtape.ingest.tlog.timestamping import Timestamping
from sealtape.ingest.tlog.worker import DAY_NS, LogWorker
from sealtape.ingest.vault import open_vault
from sealtape.schemas.timestamps import verify_timestamp
from tests.factories.deployments import make_site
from tests.factories.logs import QUICK_PACE, log_of
from tests.ingest.tlog.test_timestamping import ROOT, authority, serving, stamps

BEATING = replace(QUICK_PACE, heartbeat_s=0.2)


@pytest.fixture
def site(tmp_path):
    return make_site(tmp_path / "lab")


async def kept(site):
    """What lies below `timestamps/`, with the checkpoints that were stamped."""
    vault = await open_vault(site.settings.stores.vault, site.folder)
    found = {}
    async for key in vault.keys("log/v1/1/timestamps/"):
        size, name = key.split("/")[-2:]
        found[size, name] = await vault.get(key)
    notes = {
        size: await vault.get(f"log/v1/1/checkpoints/{size}")
        for size in {size for size, _ in found}
    }
    await vault.close()
    return found, notes


async def stamped(site, *authorities, seconds=1.0, pace=BEATING, **changes):
    """Run a worker that has its checkpoints stamped."""
    stamping = Timestamping(authorities, timeout_s=5.0)
    async with log_of(site, pace=pace, stamping=stamping, **changes) as (_, parts):
        worker = LogWorker(parts, owner="dev-1")
        task = asyncio.create_task(worker.run())
        await asyncio.sleep(seconds)
        snapshot = worker.snapshot()
        worker.leave()
        await task
    return snapshot


async def test_a_witnessed_checkpoint_is_stamped(site):
    async with serving(stamps()) as (one, first), serving(stamps()) as (two, second):
        snapshot = await stamped(site, authority(one), authority(two, "two"))
        # Once an hour, whatever the log does meanwhile.
        assert (len(first), len(second)) == (1, 1)
    found, notes = await kept(site)
    (size,) = notes
    assert set(found) == {
        (size, f"{name}.{kind}") for name in ("one", "two") for kind in ("tsr", "pem")
    }
    for name in ("one", "two"):
        tsr, chain = found[size, f"{name}.tsr"], found[size, f"{name}.pem"]
        assert verify_timestamp(tsr, sha256(notes[size]).digest(), ROOT.pem, chain)
    assert snapshot.stamped_s < 2
    assert [status.state for status in snapshot.authorities] == ["ok", "ok"]


async def test_again_and_again(site):
    async with serving(stamps()) as (url, requests):
        await stamped(site, authority(url), pace=replace(BEATING, timestamp_s=0.3), seconds=1.5)
        assert len(requests) >= 3
    assert len((await kept(site))[1]) == len(requests)


async def test_first_thing_on_a_new_day(site):
    began, start = time.monotonic(), 20_000 * DAY_NS - 500_000_000

    def clock_ns():
        return start + int((time.monotonic() - began) * 1e9)

    async with serving(stamps()) as (url, requests):
        await stamped(site, authority(url), seconds=1.5, clock_ns=clock_ns)
        assert len(requests) == 2


async def test_one_that_is_away_is_asked_again(site):
    async with serving(stamps(), status=500) as (down, _), serving(stamps()) as (url, _):
        snapshot = await stamped(site, authority(down, "down"))
        assert snapshot.stamped_s is None
        assert snapshot.authorities[0].answers["refused"] > 1
        assert (await kept(site))[0] == {}
        await stamped(site, authority(down, "down"), authority(url))
    found, _ = await kept(site)
    assert {name for _, name in found} == {"one.tsr", "one.pem"}
