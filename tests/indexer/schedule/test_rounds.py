"""Steps of scheduled verification on a deployment that was sealed by the real ingest."""

import logging
import sqlite3
import time

import pytest

from sealtape.indexer.schedule.rounds import EVENT, SOON_NS
from sealtape.schemas.errors import StoreError
from sealtape.schemas.verification import PASS
from tests.factories.deployments import seal
from tests.factories.logs import grow_log
from tests.indexer.harm import edit, overwrite
from tests.indexer.schedule.conftest import DAY_NS, Clock, objects_of, rounds_of


@pytest.fixture
def clock():
    return Clock(time.time_ns())


def sizes(site):
    return {key: (site.folder / "vault" / key).stat().st_size for key in objects_of(site)}


async def test_a_round_of_what_nobody_changed(site, clock):
    async with rounds_of(site, clock) as (rounds, state):
        assert await rounds.verdict() == "incomplete", "nothing is read yet"
        step = await rounds.step(1 << 30)
        assert step.fresh == ()
        assert step.objects == len(objects_of(site))
        assert step.read == sum(sizes(site).values())
        assert await rounds.verdict() == "verified"
        records = {record.object: record for record in await state.history()}
    assert records.keys() == {PASS, *objects_of(site)}
    for key, size in sizes(site).items():
        assert records[key].bytes == size
        assert records[key].verdict == "verified"
        assert records[key].sessions >= 1
        assert records[key].log.size > 3
    assert sum(record.frames for record in records.values()) > 20
    assert rounds.coverage.share == 1
    assert rounds.coverage.unverified == 0


async def test_what_was_never_read_comes_first_then_the_oldest(site, clock):
    keys = objects_of(site)
    async with rounds_of(site, clock, again_s=0) as (rounds, state):
        seen = []
        for _ in range(2 * len(keys) + 1):
            before = await state.verified()
            await rounds.step(1)
            clock.now_ns += 1
            after = await state.verified()
            seen += [key for key in keys if after.get(key) != before.get(key)]
    assert seen[: len(keys)] == seen[len(keys) : 2 * len(keys)]
    assert sorted(seen[: len(keys)]) == sorted(keys)
    assert seen[2 * len(keys)] == seen[0]


async def test_a_new_start_goes_on(site, clock):
    keys = objects_of(site)
    for count in range(1, len(keys) + 1):
        async with rounds_of(site, clock) as (rounds, state):
            assert (await rounds.step(1)).objects == 1
            assert len((await state.verified()).keys() - {PASS}) == count
    async with rounds_of(site, clock) as (rounds, state):
        assert (await rounds.step(1 << 30)).objects == 0, "nothing is due"
        assert await rounds.verdict() == "verified"
    (site.folder / "verification.db").unlink()
    async with rounds_of(site, clock) as (rounds, state):
        assert (await rounds.step(1 << 30)).objects == len(keys), "what was lost is read again"


async def test_the_budget_holds(site, clock):
    first, second, *_ = sizes(site).values()
    async with rounds_of(site, clock) as (rounds, _):
        assert (await rounds.step(0)).objects == 0
        assert (await rounds.step(first + second)).objects == 2


async def test_each_object_alone_finds_what_everything_at_once_finds(site, long_site, clock):
    payload = long_site[1].frames[5].payload
    (path,) = [path for path in site.objects() if payload in path.read_bytes()]
    data = bytearray(path.read_bytes())
    data[data.find(payload) + len(payload) // 2] ^= 1
    overwrite(path, data)
    harmed = str(path.relative_to(site.folder / "vault"))
    async with rounds_of(site, clock) as (rounds, state):
        fresh = []
        for _ in objects_of(site):
            fresh += (await rounds.step(1)).fresh
        records = {record.object: record for record in await state.history()}
        assert await rounds.verdict() == "tampered"
    assert {(a.finding.layer, a.finding.object) for a in fresh} == {
        ("object", harmed),
        ("frame", harmed),
    }
    (frame,) = [a.finding for a in fresh if a.finding.layer == "frame"]
    assert (frame.session, frame.seq) == (long_site[1].session.hex(), 5)
    assert records[harmed].verdict == "tampered"
    assert records[harmed].findings == 2
    assert {r.verdict for key, r in records.items() if key != harmed} == {"verified"}


async def test_a_finding_is_told_once_and_ends_when_it_is_mended(site, clock, caplog):
    path = site.objects()[1]
    whole = path.read_bytes()
    overwrite(path, whole[:-1] + b"?")
    async with rounds_of(site, clock) as (rounds, _):
        with caplog.at_level(logging.ERROR):
            first = await rounds.step(1 << 30)
        told = [record for record in caplog.records if record.message == EVENT]
        assert len(told) == len(first.fresh) > 0
        assert told[0].levelname == "ERROR"
        assert {record.verdict for record in told} == {"tampered"}
        assert {record.finding for record in told} == {a.id.hex() for a in first.fresh}
        clock.now_ns += 2 * DAY_NS
        assert (await rounds.step(1 << 30)).fresh == (), "it stands, and was told"
        assert rounds.standing["tampered"] == len(first.fresh)
        overwrite(path, whole)
        clock.now_ns += 2 * DAY_NS
        await rounds.step(1 << 30)
        assert await rounds.verdict() == "verified"
        assert rounds.standing["tampered"] == 0
        overwrite(path, whole[:-1] + b"?")
        clock.now_ns += 2 * DAY_NS
        assert {a.id for a in (await rounds.step(1 << 30)).fresh} == {a.id for a in first.fresh}
        assert rounds.tally.found["tampered"] == 2 * len(first.fresh)


async def test_an_object_that_is_gone(site, clock):
    path = site.objects()[2]
    path.unlink()
    async with rounds_of(site, clock) as (rounds, state):
        fresh = []
        for _ in range(len(objects_of(site)) + 1):
            fresh += (await rounds.step(1)).fresh
        gone = str(path.relative_to(site.folder / "vault"))
        (record,) = [record for record in await state.history() if record.object == gone]
    assert record.bytes == 0
    assert record.verdict == "tampered"
    assert ("object", "it is gone, and nothing says it was deleted") in {
        (a.finding.layer, a.finding.reason) for a in fresh
    }


@pytest.mark.parametrize(
    ("statement", "layer"),
    [
        ("UPDATE shard SET n = n + 1", "chain"),
        ("DELETE FROM segment WHERE id = (SELECT max(id) FROM segment)", "chain"),
        ("UPDATE log_state SET size = size - 1", "ledger"),
        ("UPDATE fragment SET record = (SELECT record FROM fragment LIMIT 1)", "ledger"),
    ],
)
async def test_what_is_no_object_is_found_by_the_pass(site, clock, statement, layer):
    edit(site, statement)
    async with rounds_of(site, clock) as (rounds, state):
        fresh = (await rounds.step(0)).fresh
        assert layer in {alarm.finding.layer for alarm in fresh}
        assert await rounds.verdict() == "tampered"
        (record,) = await state.history([PASS])
        assert record.object == PASS
        assert await state.seen() is None, "what was seen before stays as evidence"


async def test_a_log_that_was_rolled_back(site, clock):
    with sqlite3.connect(site.folder / "ledger.db") as ledger:
        (number,) = ledger.execute("SELECT number FROM log_state").fetchone()
    ledger.close()
    checkpoint = site.folder / f"vault/log/v1/{number}/checkpoint"
    kept = sorted((checkpoint.parent / "checkpoints").iterdir())
    async with rounds_of(site, clock) as (rounds, state):
        await rounds.step(0)
        assert (await state.seen()).of_shard(1).size > 3
        overwrite(checkpoint, kept[0].read_bytes())
        clock.now_ns += 2 * DAY_NS
        fresh = (await rounds.step(0)).fresh
    assert len(kept) > 1, "the log was witnessed more than once"
    assert any("rolled back" in alarm.finding.reason for alarm in fresh)


@pytest.mark.parametrize("column", ["frames = frames + 1", "close_reason = 'x'"])
async def test_a_sessions_row_is_compared_when_its_end_is_read(site, long_site, clock, column):
    name = long_site[1].session
    edit(site, (f"UPDATE session SET {column} WHERE session = ?", name))
    async with rounds_of(site, clock) as (rounds, state):
        keys = objects_of(site)
        fresh = [alarm for _ in keys for alarm in (await rounds.step(1)).fresh]
        records = {record.object: record for record in await state.history()}
    assert {alarm.finding.session for alarm in fresh} == {name.hex()}
    assert {alarm.finding.layer for alarm in fresh} == {"ledger"}
    with sqlite3.connect(site.folder / "ledger.db") as ledger:
        sql = (
            "SELECT s.key FROM fragment f JOIN segment s ON s.id = f.segment_id"
            " WHERE f.session = ? ORDER BY f.epoch, f.lo"
        )
        lies = [row[0] for row in ledger.execute(sql, (name,))]
    ledger.close()
    assert len(lies) > 1
    assert [key for key in keys if records[key].findings] == lies[-1:]


async def test_a_live_session_is_no_finding_and_one_that_only_says_so_is(site, long_site, clock):
    async with rounds_of(site, clock) as (rounds, _):
        assert (await rounds.step(1 << 30)).fresh == ()
        edit(site, ("UPDATE session SET state = 'live' WHERE session = ?", long_site[1].session))
        clock.now_ns += 2 * DAY_NS
        fresh = (await rounds.step(1 << 30)).fresh
        assert {a.finding.session for a in fresh} == {long_site[1].session.hex()}
        edit(site, ("UPDATE session SET state = 'sealed' WHERE session = ?", long_site[3].session))
        clock.now_ns += 2 * DAY_NS
        fresh = (await rounds.step(1 << 30)).fresh
        assert "not closed" in " ".join(a.finding.reason for a in fresh)


async def test_a_vault_that_is_away(site, clock):
    (site.folder / "ledger.db").rename(site.folder / "elsewhere")
    async with rounds_of(site, clock) as (rounds, state):
        with pytest.raises(StoreError):
            await rounds.step(1)
        assert await state.history() == []


async def test_without_a_policy(site, clock):
    (site.folder / "policy.toml").unlink()
    async with rounds_of(site, clock) as (rounds, state):
        assert (await rounds.step(1 << 30)).fresh == ()
        assert all(record.log is not None for record in await state.history())
    for path in (site.folder / "vault/log/v1/1").glob("checkpoint*"):
        if path.is_file():
            path.unlink()
    (site.folder / "verification.db").unlink()
    async with rounds_of(site, clock) as (rounds, state):
        await rounds.step(1 << 30)
        assert all(record.log is None for record in await state.history())


async def test_what_the_log_lacked_is_looked_for_again_soon(site, clock):
    checkpoint = site.folder / "vault/log/v1/1/checkpoint"
    witnessed = checkpoint.read_bytes()
    overwrite(checkpoint, checkpoint.with_name("checkpoint.pending").read_bytes())
    async with rounds_of(site, clock) as (rounds, state):
        (alarm,) = (await rounds.step(0)).fresh
        assert "quorum" in alarm.finding.reason
        assert await rounds.verdict() == "incomplete"
        clock.now_ns += SOON_NS - 1
        await rounds.step(0)
        assert rounds.tally.passes == 1
        clock.now_ns += 1
        await rounds.step(0)
        assert rounds.tally.passes == 2
        overwrite(checkpoint, witnessed)
        clock.now_ns += SOON_NS
        await rounds.step(0)
        assert await state.standing() == []
        clock.now_ns += SOON_NS
        await rounds.step(0)
        assert rounds.tally.passes == 3, "from here on it is due after its time"


async def test_a_log_that_stood_still_is_told_once_and_ends_when_it_went_on(site, clock):
    await seal(site, [site.session(commands=1)])
    async with rounds_of(site, clock) as (rounds, state):
        clock.now_ns += 3600 * 10**9
        step = await rounds.step(1 << 30)
        (alarm,) = step.fresh
        assert (alarm.finding.verdict, alarm.finding.layer) == ("incomplete", "log")
        assert "not in the log" in alarm.finding.reason
        assert await state.standing(PASS) == [alarm]
        await grow_log(site)
        clock.now_ns += SOON_NS
        assert (await rounds.step(0)).fresh == ()
        assert await state.standing() == []


async def test_a_finding_that_cannot_be_kept_is_told_all_the_same(site, clock, caplog):
    """A full disk, or one that is read-only: each step tells it, and the alert can fire."""
    async with rounds_of(site, clock) as (rounds, state):
        await rounds.step(0)  # the pass
        for path in site.objects():
            overwrite(path, path.read_bytes()[:-1] + b"?")
        database = state._database
        await database.direct(lambda connection: connection.execute("PRAGMA query_only=1"))
        for number in (1, 2):
            with pytest.raises(StoreError, match="readonly"):
                await rounds.step(1 << 30)
            told = [record for record in caplog.records if record.message == EVENT]
            names = {record.finding for record in told}
            assert len(told) == number * len(names) > 0
            assert told[-1].verdict == "tampered"
            assert rounds.standing["tampered"] == len(names)
        await database.direct(lambda connection: connection.execute("PRAGMA query_only=0"))
        assert {alarm.id.hex() for alarm in (await rounds.step(1 << 30)).fresh} == names
        assert rounds.standing["tampered"] == len(names)
