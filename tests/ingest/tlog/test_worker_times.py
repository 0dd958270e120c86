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


async def stamped(site, *authorities, until, pace=BEATING, **changes):
    """Run a worker that has its checkpoints stamped, until what is waited for has come."""
    stamping = Timestamping(authorities, timeout_s=5.0)
    async with log_of(site, pace=pace, stamping=stamping, **changes) as (_, parts):
        worker = LogWorker(parts, owner="dev-1")
        task = asyncio.create_task(worker.run())
        async with asyncio.timeout(60):
            while not until(worker.snapshot()):
                await asyncio.sleep(0.02)
        snapshot = worker.snapshot()
        worker.leave()
        await task
    return snapshot


async def test_a_witnessed_checkpoint_is_stamped(site):
    async with serving(stamps()) as (one, first), serving(stamps()) as (two, second):
        snapshot = await stamped(
            site,
            authority(one),
            authority(two, "two"),
            until=lambda now: now.stamped_s is not None and now.stamped_s > 0.5,
        )
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
    assert [status.state for status in snapshot.authorities] == ["ok", "ok"]


async def test_again_and_again(site):
    async with serving(stamps()) as (url, requests):
        pace = replace(BEATING, timestamp_s=0.3)
        await stamped(site, authority(url), pace=pace, until=lambda _: len(requests) >= 3)
    assert len((await kept(site))[1]) == len(requests)


async def test_first_thing_on_a_new_day(site):
    async with serving(stamps()) as (url, requests):

        def clock_ns():  # the day ends with the first stamp
            return time.monotonic_ns() + (20_001 if requests else 20_000) * DAY_NS

        await stamped(
            site,
            authority(url),
            witnesses=False,  # they have clocks of their own
            clock_ns=clock_ns,
            until=lambda _: len(requests) >= 2,
        )
    assert len((await kept(site))[1]) == len(requests) == 2


async def test_one_that_fails_is_asked_again_though_the_other_stamped(site):
    async with serving(stamps(), status=500) as (bad, asked), serving(stamps()) as (url, requests):
        pace = replace(BEATING, timestamp_s=3600.0)
        await stamped(
            site, authority(bad, "bad"), authority(url), pace=pace, until=lambda _: len(asked) > 2
        )
    assert len(requests) == 1


async def test_one_that_is_away_is_asked_again(site):
    async with serving(stamps(), status=500) as (down, _), serving(stamps()) as (url, _):
        snapshot = await stamped(
            site,
            authority(down, "down"),
            until=lambda now: now.authorities and now.authorities[0].answers.get("refused", 0) > 1,
        )
        assert snapshot.stamped_s is None
        assert (await kept(site))[0] == {}
        await stamped(
            site,
            authority(down, "down"),
            authority(url),
            until=lambda now: now.stamped_s is not None,
        )
    found, _ = await kept(site)
    assert {name for _, name in found} == {"one.tsr", "one.pem"}
