import asyncio
import shutil
import time
from dataclasses import replace
from itertools import pairwise

import pytest

from sealtape.indexer.cli.log_files import LAB_WITNESSES
from sealtape.ingest.ledger import open_ledger
from sealtape.ingest.tlog.gate import STATEMENT
from sealtape.ingest.tlog.kept import recall
from sealtape.ingest.tlog.names import name_of
from sealtape.ingest.tlog.opening import read_policy
from sealtape.ingest.tlog.parts import Pace
from sealtape.ingest.tlog.store import CHECKPOINT, PENDING, LogStore, noted_key
from sealtape.ingest.tlog.worker import LogWorker
from sealtape.ingest.tlog.writer import LOG, Writer
from sealtape.ingest.vault import open_vault
from sealtape.schemas.errors import Fenced, SettingsError
from sealtape.schemas.tree import consistency_ranges, verify_consistency
from tests.factories.deployments import make_site, seal
from tests.factories.logs import (
    QUICK_PACE,
    Killed,
    Life,
    grow_log,
    kinds,
    log_of,
    read_log,
    writing,
)

WHAT = ("session-open", "segment", "session-seal", "incident")


@pytest.fixture
def site(tmp_path):
    return make_site(tmp_path / "lab")


def shown(entries):
    """The kinds of entries that come of what was sealed."""
    return [kind for kind in kinds(entries) if kind in WHAT]


async def ledger_of(site):
    return await open_ledger(site.settings.stores.ledger, site.folder)


def objects(site):
    """Every object of the log, with its bytes."""
    folder = site.folder / "vault/log"
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def consistent(site):
    """Every witnessed checkpoint that was ever shown is a prefix of the last one."""
    vault = await open_vault(site.settings.stores.vault, site.folder)
    store, policy = LogStore(vault, 1), read_policy(site.settings)
    last = policy.open(await store.get(CHECKPOINT)).checkpoint
    sizes = []
    async for key in vault.keys(store.prefix + "checkpoints/"):
        found = policy.open(await vault.get(key)).checkpoint
        sizes.append(found.size)
        assert key.endswith(noted_key(found.size))
        proof = await store.roots(consistency_ranges(found.size, last.size), last.size)
        verify_consistency(found.size, found.root, last.size, proof, last.root)
    await vault.close()
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == last.size
    return sizes


async def test_a_recorded_session_is_opened_and_sealed_in_the_log(site):
    built = site.session(commands=4)
    await seal(site, [built])
    await grow_log(site)
    entries, checkpoint = await read_log(site)
    assert checkpoint.origin == f"{site.settings.deployment.log}/1"
    found = kinds(entries)
    assert found[0] == "log"
    assert found[-1] == "heartbeat"
    assert shown(entries) == ["session-open", "segment", "session-seal"]
    opened = entries[found.index("session-open")]
    sealed = entries[found.index("session-seal")]
    assert (opened.session, opened.number) == (built.session, 1)
    assert (sealed.frames, sealed.root) == (len(built.frames), built.tree.root())
    assert sealed.complete


async def test_a_labs_keys_are_introduced_first(site):
    await grow_log(site)
    entries, _ = await read_log(site)
    roles = [entry.body.role for entry in entries if entry.kind == "key"]
    assert kinds(entries)[: 1 + len(roles)] == ["log"] + ["key"] * len(roles)
    assert roles == ["admin", "node", "log", "log", "witness", "monitor", "auditor", "indexer"]
    assert entries[-1].kind == "heartbeat"
    assert entries[-1].keys.count == len(roles)


async def test_ledger_vault_and_witness_agree(site):
    await seal(site, [site.session(commands=2) for _ in range(3)])
    await grow_log(site)
    entries, checkpoint = await read_log(site)
    ledger = await ledger_of(site)
    state = await ledger.log_state()
    assert (state.number, state.size) == (1, checkpoint.size)
    rows = await ledger.log_entries(1)
    assert [row.entry for row in rows] == [
        entry.to_json() if hasattr(entry, "to_json") else row.entry
        for entry, row in zip(entries, rows, strict=True)
    ]
    assert [row.name for row in rows] == [
        name_of(entry, index, 1) for index, entry in enumerate(entries)
    ]
    await ledger.close()
    vault = await open_vault(site.settings.stores.vault, site.folder)
    store = LogStore(vault, 1)
    assert (await store.get(CHECKPOINT)) == state.witnessed
    assert (await store.get(PENDING)) == state.note
    assert state.witnessed.startswith(state.note)
    assert await store.get(noted_key(checkpoint.size)) == state.witnessed
    opened = read_policy(site.settings).open(state.witnessed)
    assert opened.algorithms == {b"\x01", b"\x06"}
    assert set(opened.times) == set(LAB_WITNESSES)
    await vault.close()


async def test_it_goes_on_where_it_was(site):
    await seal(site, [site.session()])
    await grow_log(site)
    first, _ = await read_log(site)
    await seal(site, [site.session(number=2)])
    await grow_log(site)
    second, _ = await read_log(site)
    assert second[: len(first)] == first
    assert shown(second) == 2 * ["session-open", "segment", "session-seal"]
    assert await consistent(site)


async def test_an_idle_log_says_so(site):
    pace = Pace(checkpoint_s=0.05, heartbeat_s=0.4, idle_s=0.02)
    await grow_log(site, 1.3, pace=pace)
    entries, _ = await read_log(site)
    beats = [entry for entry in entries if entry.kind == "heartbeat"]
    assert len(beats) >= 4
    assert kinds(entries)[-len(beats) :] == ["heartbeat"] * len(beats)
    for before, after in pairwise(beats):
        assert after.at_ns - before.at_ns < before.every_s * 1_000_000_000
    assert {beat.open for beat in beats} == {0}


async def test_a_heartbeat_counts_what_is_there(site):
    live = site.session(close=None, number=3)
    await seal(site, [site.session(), site.session(number=2), live])
    await grow_log(site)
    entries, _ = await read_log(site)
    beat = entries[-1]
    segments = [entry for entry in entries if not hasattr(entry, "kind")]
    assert beat.open == 1
    assert beat.shards.count == len({record.shard for record in segments})
    assert beat.nodes.count == 1
    assert beat.index == len(entries) - 1


# -- one log, whatever happens ---------------------------------------------------------------------


async def test_two_workers_write_one_log(site):
    await seal(site, [site.session(number=number) for number in range(1, 9)])
    async with log_of(site) as (_, parts):
        workers = [LogWorker(parts, owner=name, ttl_s=5.0) for name in ("a", "b")]
        tasks = [asyncio.create_task(worker.run()) for worker in workers]
        await asyncio.sleep(0.5)
        assert sorted(worker.snapshot().held for worker in workers) == [False, True]
        for worker, task in zip(workers, tasks, strict=True):
            worker.leave()
            await task
    entries, _ = await read_log(site)
    assert len(entries) == len({name_of(e, i, 1) for i, e in enumerate(entries)})
    assert shown(entries).count("session-seal") == 8
    await consistent(site)


async def test_another_takes_over(site):
    await seal(site, [site.session()])
    async with log_of(site) as (stores, parts):
        first, second = (LogWorker(parts, owner=name, ttl_s=1.0) for name in ("a", "b"))
        tasks = [asyncio.create_task(first.run())]
        while not first.snapshot().held:
            await asyncio.sleep(0.01)
        tasks.append(asyncio.create_task(second.run()))
        tasks[0].cancel()  # as a process that is gone: its lease runs out
        async with asyncio.timeout(60):
            while not second.snapshot().held:
                await asyncio.sleep(0.01)
        await stores.ledger.leases()
        second.leave()
        await tasks[1]
    entries, _ = await read_log(site)
    assert kinds(entries).count("log") == 1
    assert shown(entries) == ["session-open", "segment", "session-seal"]


async def test_a_writer_that_lost_its_lease_adds_nothing(site):
    await seal(site, [site.session()])
    async with log_of(site) as (stores, parts):
        lease = await stores.ledger.claim(LOG, 0, "a", 0.01)
        summary, cursor = await recall(stores.ledger, stores.vault, await stores.ledger.log_state())
        zombie = Writer(parts, lease, summary, cursor)
        await zombie.begin()
        size = (await stores.ledger.log_state()).size
        await asyncio.sleep(0.05)
        assert await stores.ledger.claim(LOG, 0, "b", 5.0) is not None
        with pytest.raises(Fenced):
            await zombie.step()
        assert (await stores.ledger.log_state()).size == size


async def test_one_that_was_overtaken_does_not_call_it_a_fork(site):
    """A process that slept finds that another has signed more than it knows of."""
    async with log_of(site) as (stores, parts):

        class Overtaken:
            times = 0

            async def signed(self, origin):
                self.times += 1
                if self.times == 2:
                    await stores.ledger.claim(LOG, 0, "slept", 0.01)
                    return 1_000_000
                return await parts.signer.signed(origin)

            def __getattr__(self, name):
                return getattr(parts.signer, name)

        worker = LogWorker(replace(parts, signer=Overtaken()), owner="slept", ttl_s=5.0)
        task = asyncio.create_task(worker.run())
        with pytest.raises(SettingsError, match="under the name"):
            await task
        assert not worker.snapshot().stopped


async def killed(site, folder, last, after):
    """Kill a worker at its `last`-th write, then let another go on; None when it was never hit."""
    shutil.copytree(site.folder, folder)
    copy = site.moved(folder)
    life = Life(last, after=after)
    try:
        await grow_log(copy, witnesses=False, life=life)
    except Killed:
        await grow_log(copy, witnesses=False)
        return copy, life.writes
    return None


async def test_killed_at_any_write_the_log_is_the_same(site, tmp_path):
    live = site.session(close=None, number=2)
    await seal(site, [site.session(), live])
    await grow_log(site, witnesses=False)
    await seal(site, pairs=[(live.session, b"garbage")])
    await seal(site, [site.session(number=3)])
    before, _ = await read_log(site)
    steps = set()
    for after in (False, True):
        last = 1
        while (found := await killed(site, tmp_path / f"{last}{after}", last, after)) is not None:
            copy, writes = found
            entries, _ = await read_log(copy)
            assert entries[: len(before)] == before
            new = shown(entries[len(before) :])
            assert new == ["incident", "session-open", "segment", "session-seal"]
            await consistent(copy)
            steps.add(writes[-1])
            last += 1
    assert steps >= {"log_append", "log_noted", "put_new", "sign", "swap"}


async def restored(site, tmp_path):
    """Grow the log behind the back of a copy of the ledger, and put the copy back."""
    await seal(site, [site.session()])
    await grow_log(site)
    shutil.copy(site.folder / "ledger.db", tmp_path / "old.db")
    await seal(site, [site.session(number=2)])
    await grow_log(site)
    for path in site.folder.glob("ledger.db*"):
        path.unlink()
    shutil.copy(tmp_path / "old.db", site.folder / "ledger.db")


async def stopped(site, **options):
    """Run a worker until it refuses to write; what it says."""
    async with writing(site, **options) as (_, worker):
        async with asyncio.timeout(60):
            while not worker.snapshot().stopped:
                await asyncio.sleep(0.02)
        return worker.snapshot().stopped


async def test_an_old_ledger_makes_no_second_history(site, tmp_path):
    await restored(site, tmp_path)
    before = objects(site)
    assert "would fork" in await stopped(site)
    assert objects(site) == before


async def test_neither_with_a_vault_that_forgot(site, tmp_path):
    """Ledger and vault are both old copies: the signer knows what it signed."""
    await seal(site, [site.session()])
    await grow_log(site)
    shutil.copytree(site.folder, tmp_path / "old")
    await seal(site, [site.session(number=2)])
    await grow_log(site)
    for name in ("keys/log.signed",):
        shutil.copy(site.folder / name, tmp_path / "old" / name)
    assert "the signer has signed" in await stopped(site.moved(tmp_path / "old"))


async def test_neither_with_a_signer_that_forgot(site, tmp_path):
    await restored(site, tmp_path)
    (site.folder / "keys/log.signed").unlink()
    before = objects(site)
    assert "the vault has a checkpoint" in await stopped(site)
    assert objects(site) == before


async def test_nor_with_witnesses_alone_that_remember(site, tmp_path):
    """Everything of the operator is old: the witness does not cosign a second history."""
    await seal(site, [site.session()])
    await grow_log(site)
    shutil.copytree(site.folder, tmp_path / "old")
    await seal(site, [site.session(number=2)])
    await grow_log(site)
    copy = site.moved(tmp_path / "old")
    shutil.rmtree(copy.folder / "witness")
    shutil.copytree(site.folder / "witness", copy.folder / "witness")
    _, before = await read_log(copy)
    async with writing(copy) as (_, worker):
        await seal(copy, [site.session(number=3)])
        async with asyncio.timeout(60):
            while worker.snapshot().signed <= before.size:
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)
        assert worker.snapshot().witnessed == before.size
        (witness,) = [each for each in worker.snapshot().witnesses if each.name == "witness"]
        assert witness.state != "ok"
    assert (await read_log(copy))[1] == before


async def test_tiles_that_were_changed_stop_the_log(site):
    await seal(site, [site.session()])
    await grow_log(site)
    for path in (site.folder / "vault/log/v1/1/tile/0").rglob("*"):
        if path.is_file():
            path.chmod(0o600)
            path.write_bytes(bytes(len(path.read_bytes())))
    await seal(site, [site.session(number=2)])
    assert await stopped(site)


async def test_an_entry_bundle_of_another_history_stops_the_log(site, tmp_path):
    """What is to be written is there already, with other bytes."""
    await seal(site, [site.session()])
    await grow_log(site)
    _, checkpoint = await read_log(site)
    place = site.folder / "vault/log/v1/1/tile/entries/000.p"
    for size in range(checkpoint.size + 1, checkpoint.size + 5):
        (place / str(size)).write_bytes(b"another")
    await seal(site, [site.session(number=2)])
    assert "other bytes" in await stopped(site)
    assert (await read_log(site))[1] == checkpoint


async def test_a_lost_answer_of_the_vault_is_no_fork(site):
    """What was written, and was not known to be, is written again with the same bytes."""
    await seal(site, [site.session()])
    with pytest.raises(Killed):
        await grow_log(site, life=Life(2, after=True))
    await grow_log(site)
    assert shown((await read_log(site))[0]) == ["session-open", "segment", "session-seal"]


# -- witnesses -------------------------------------------------------------------------------------


async def test_without_a_quorum_it_is_only_pending(site):
    await seal(site, [site.session()])
    async with log_of(site) as (stores, parts):
        assert parts.policy.quorum is not None
        with_nobody = LogWorker(replace(parts, cosigners=None), owner="dev-1")
        task = asyncio.create_task(with_nobody.run())
        async with asyncio.timeout(60):
            while not with_nobody.snapshot().signed:
                await asyncio.sleep(0.02)
        found = with_nobody.snapshot()
        assert (found.witnessed, found.witnessed_s) == (0, None)
        with_nobody.leave()
        await task
        store = LogStore(stores.vault, 1)
        assert await store.get(PENDING)
        assert not await store.get(CHECKPOINT)
    await grow_log(site)
    assert await store_has_all(site)


async def told(worker, wanted):
    """What a worker says once `wanted` is so."""
    async with asyncio.timeout(60):
        while not wanted(now := worker.snapshot()):
            await asyncio.sleep(0.02)
    return now


async def test_seals_are_counted_until_they_are_witnessed(site, monkeypatch):
    """Also those that another process added."""
    monkeypatch.setattr("sealtape.ingest.tlog.worker.FLUSH_S", 0.2)  # nobody will cosign
    await seal(site, [site.session() for _ in range(2)])
    begun = time.time_ns() - 200 * 10**9  # not ahead of the monitor's clock, nor far behind
    clock = [begun]
    async with log_of(site, clock_ns=lambda: clock[0]) as (_, parts):
        for _ in range(2):
            worker = LogWorker(replace(parts, cosigners=None), owner="dev-1")
            task = asyncio.create_task(worker.run())
            now = await told(worker, lambda now: now.pending == 2)
            assert now.pending_s == (clock[0] - begun) / 1e9
            clock[0] += 90 * 10**9
            assert worker.snapshot().pending_s == now.pending_s + 90
            worker.leave()
            await task
            assert (worker.snapshot().pending, worker.snapshot().pending_s) == (0, None)
        worker = LogWorker(parts, owner="dev-1")
        task = asyncio.create_task(worker.run())
        now = await told(worker, lambda now: now.witnessed == now.size > 0)
        assert (now.pending, now.pending_s) == (0, None)
        worker.leave()
        await task


async def store_has_all(site):
    entries, checkpoint = await read_log(site)
    return len(entries) == checkpoint.size and shown(entries)[-1] == "session-seal"


async def test_what_was_signed_and_not_witnessed_is_witnessed_later(site):
    await seal(site, [site.session()])
    async with log_of(site, witnesses=False) as (_, parts):
        worker = LogWorker(parts, owner="dev-1")
        task = asyncio.create_task(worker.run())
        worker.leave()
        await task
    vault = site.folder / "vault/log/v1/1"
    (vault / "checkpoint").unlink()
    shutil.rmtree(vault / "checkpoints")
    await grow_log(site)
    assert await store_has_all(site)


# -- statements and incidents ----------------------------------------------------------------------


async def test_an_incident_is_an_entry(site):
    built = site.session()
    await seal(site, pairs=[(built.session, b"garbage")])
    await grow_log(site)
    entries, _ = await read_log(site)
    (incident,) = [entry for entry in entries if kinds([entry]) == ["incident"]]
    assert (incident.reason, incident.bus.offset) == ("malformed", 0)


async def test_what_nobody_signed_is_left_out(site):
    await grow_log(site)
    other = make_site(site.folder / "other")
    await grow_log(other)
    ledger, foreign = await ledger_of(site), await ledger_of(other)
    entry = next(row.entry for row in await foreign.log_entries(1) if b'"key"' in row.entry)
    for payload in (entry, b"garbage", (await ledger.log_entries(1))[0].entry):
        await ledger.submit(STATEMENT, payload)
    before, _ = await read_log(site)
    await grow_log(site)
    entries, _ = await read_log(site)
    assert kinds(entries[len(before) :]) == ["heartbeat"]
    assert await ledger.inbox() == []
    await ledger.close()
    await foreign.close()


async def test_the_snapshot_tells_how_it_stands(site):
    async with writing(site) as (_, worker):
        async with asyncio.timeout(60):
            while not worker.snapshot().witnessed:
                await asyncio.sleep(0.02)
        found = worker.snapshot()
        assert found.held
        assert found.number == 1
        assert found.size >= found.signed >= found.witnessed > 0
        assert found.witnessed_s < 10
        assert found.appended == found.size
        assert {witness.state for witness in found.witnesses} == {"ok"}
    assert not worker.snapshot().held
    assert worker.snapshot().appended >= found.appended


def test_the_usual_pace():
    assert QUICK_PACE.checkpoint_s < Pace().checkpoint_s == 10.0
