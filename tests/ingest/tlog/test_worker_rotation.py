"""The end of a shard of the log, and the beginning of the next, also when something died before."""

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from hashlib import sha256

import pytest

from sealtape.indexer.cli.main import main
from sealtape.ingest.tlog.opening import read_policy
from sealtape.ingest.tlog.parts import nobody
from sealtape.ingest.tlog.timestamping import Timestamping
from sealtape.ingest.tlog.worker import LogWorker
from sealtape.ingest.vault import open_vault
from sealtape.schemas.timestamps import verify_timestamp
from tests.factories.deployments import make_site, seal
from tests.factories.logs import grow_log, kinds, log_of, read_log, rotate
from tests.ingest.tlog.test_timestamping import ROOT, authority, serving, stamps


@pytest.fixture
def site(tmp_path):
    return make_site(tmp_path / "lab")


@asynccontextmanager
async def killed(site):
    """A worker that is at work, and dies without another word."""
    async with log_of(site) as (_, parts):
        worker = LogWorker(parts, owner="dev-1", ttl_s=1.0)
        task = asyncio.create_task(worker.run())
        try:
            await until(lambda: worker.snapshot().witnessed)
            yield worker
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def until(test):
    async with asyncio.timeout(60):
        while not test():
            await asyncio.sleep(0.02)


async def test_a_heartbeat_is_behind_all_of_a_shard_that_ends(site):
    """Else what was sealed before a crash could never show that no revocation was left out."""
    async with killed(site) as worker:
        size = worker.snapshot().witnessed
        await seal(site, [site.session()])
        await until(lambda: worker.snapshot().witnessed == size + 3)
    entries, _ = await read_log(site)
    assert kinds(entries)[-2:] == ["segment", "session-seal"]
    rotate(site)
    await grow_log(site)
    ended, last = await read_log(site)
    assert ended[: len(entries)] == entries
    assert kinds(ended[len(entries) :]) == ["heartbeat"]
    begun, _ = await read_log(site, number=2)
    assert f"\n{last.size}\n" in begun[0].before


async def test_the_last_checkpoint_of_a_shard_is_stamped(site):
    """No later one of that shard will be, however short ago another was."""
    async with serving(stamps()) as (url, requests):
        stamping = Timestamping([authority(url)])
        await grow_log(site, stamping=stamping)
        await seal(site, [site.session()])
        await grow_log(site)  # without the authority
        rotate(site)
        await grow_log(site, stamping=stamping)
    _, last = await read_log(site)
    vault = await open_vault(site.settings.stores.vault, site.folder)
    prefix = f"log/v1/1/timestamps/{last.size:020d}/one"
    note = await vault.get(f"log/v1/1/checkpoints/{last.size:020d}")
    chain = await vault.get(f"{prefix}.pem")
    assert verify_timestamp(
        await vault.get(f"{prefix}.tsr"), sha256(note).digest(), ROOT.pem, chain
    )
    await vault.close()
    assert len(requests) == 2  # and the next shard waits for its hour


async def test_a_process_that_does_not_know_the_shard_yet_is_no_fork(site, caplog):
    """It was not started again since the rotation, and leaves the log to those that were."""
    await grow_log(site)
    before = read_policy(site.settings)
    rotate(site)
    await grow_log(site)
    entries, _ = await read_log(site, number=2)
    async with log_of(site) as (_, parts):
        old = LogWorker(replace(parts, policy=before), owner="old", ttl_s=1.0)
        task = asyncio.create_task(old.run())
        await until(lambda: "names no key of sealtape.test/log/2" in caplog.text)
        new = LogWorker(parts, owner="new", ttl_s=1.0)
        other = asyncio.create_task(new.run())
        await until(lambda: new.snapshot().size > len(entries))
        assert old.snapshot().stopped == ""
        for worker in (old, new):
            worker.leave()
        await asyncio.gather(task, other)


async def test_an_authority_that_is_away_does_not_hold_up_the_next_shard(site):
    await grow_log(site)
    rotate(site)
    async with serving(stamps(), status=500) as (url, _):
        await grow_log(site, stamping=Timestamping([authority(url)]))
    assert kinds((await read_log(site, number=2))[0])[0] == "log"


# -- keys ------------------------------------------------------------------------------------------


def statement(site, *words):
    assert main(["-c", str(site.config), "statement", *map(str, words)]) == 0


def submitted(site):
    """What introduces the deployment's keys, made and submitted as the page on the log says."""
    path = site.folder / "keys.statement"
    statement(site, "deployment", "--sign", site.folder / "keys/admin.key", "-o", path)
    statement(site, "submit", path)


async def in_production(site):
    """Run the worker as where administrators introduce the keys themselves."""
    await grow_log(site, introduce=nobody)


async def test_a_shard_begins_with_the_keys_that_were_submitted_for_it(site):
    await asyncio.to_thread(submitted, site)
    await in_production(site)
    rotate(site)
    await seal(site, [site.session()])
    await asyncio.to_thread(submitted, site)
    await in_production(site)
    entries, _ = await read_log(site, number=2)
    found = kinds(entries)
    assert found[:9] == ["log", *["key"] * 8]
    assert "session-open" in found[9:]
    names = [each.body.key.partition("+")[0] for each in entries[1:9] if each.body.role == "log"]
    assert [name[-6:] for name in names] == ["/log/2"] * 2


@pytest.mark.parametrize("handed_in", ["nothing", "what nobody who counts has signed"])
async def test_a_shard_without_nodes_keys_does_not_begin(site, caplog, handed_in, tmp_path):
    await asyncio.to_thread(submitted, site)
    await in_production(site)
    rotate(site)
    if handed_in != "nothing":
        stranger = make_site(tmp_path / "stranger").folder / "keys/admin.key"
        path, node = site.folder / "odd.statement", site.trusted[0].vkey
        words = ("key", "--role", "node", "--key", node, "--sign", stranger, "-o", path)
        await asyncio.to_thread(statement, site, *words)
        await asyncio.to_thread(statement, site, "submit", path)
    await seal(site, [site.session()])
    await in_production(site)
    assert "introduces a node's key" in caplog.text
    assert "session-open" in kinds((await read_log(site))[0])


async def test_what_is_submitted_while_the_old_shard_is_written_is_refused(site, caplog):
    await asyncio.to_thread(submitted, site)
    await in_production(site)
    await asyncio.to_thread(submitted, site)
    await in_production(site)
    assert kinds((await read_log(site))[0]).count("key") == 8
    assert "counts in shard 1 already" in caplog.text


async def test_a_log_whose_nodes_never_had_keys_goes_on(site):
    await in_production(site)
    rotate(site)
    await in_production(site)
    assert kinds((await read_log(site, number=2))[0]) == ["log", "heartbeat"]
