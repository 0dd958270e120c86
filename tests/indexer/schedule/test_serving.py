"""Steps spread over the day, until somebody says stop."""

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from sealtape.indexer.cli.verify_log import policy_of, trusted_nodes
from sealtape.indexer.schedule import serving
from sealtape.indexer.schedule.serving import once, start_schedule
from sealtape.indexer.schedule.state import State, open_state
from sealtape.schemas.errors import SettingsError, StoreError
from sealtape.schemas.scheduling import DAY_NS
from sealtape.schemas.verification import PASS
from tests.factories.webhooks import webhook
from tests.indexer.harm import overwrite
from tests.indexer.schedule.conftest import objects_of
from tests.indexer.schedule.test_state import record

SECRET = "correct horse"


def settings_of(site, **verify):
    settings = site.settings
    return replace(settings, verify=replace(settings.verify, **verify))


def trust_of(site):
    return {
        "trust": trusted_nodes(site.settings, None),
        "policy": policy_of(site.settings, None),
    }


@asynccontextmanager
async def scheduled(site, **verify):
    running = await start_schedule(settings_of(site, **verify), **trust_of(site))
    try:
        yield running
    finally:
        await running.stop()


async def until(condition):
    async with asyncio.timeout(30):
        while not await condition():
            await asyncio.sleep(0.02)


async def kept(site):
    state = await open_state(site.settings, read_only=True)
    try:
        return await state.history()
    finally:
        await state.close()


def damage(site, number=1):
    path = site.objects()[number]
    whole = path.read_bytes()
    overwrite(path, whole[:-1] + b"?")
    return path, whole


async def test_all_is_read_within_the_budget_one_after_the_other(site):
    keys = objects_of(site)
    total = sum((site.folder / "vault" / key).stat().st_size for key in keys)
    # All of it in two seconds.
    async with scheduled(site, bytes_per_day=total * 43_200, every_s=0.01) as running:
        begun = time.monotonic()

        async def all_read():
            return running.rounds.tally.objects >= len(keys)

        await until(all_read)
        passed = time.monotonic() - begun
    records = [record for record in await kept(site) if record.object != PASS]
    assert {record.object for record in records} == set(keys)
    assert len({record.at_ns for record in records}) > 1, "it was not one burst"
    assert passed > 0.5


async def test_a_new_start_waits_as_long_as_the_old_one_would_have(site):
    async with scheduled(site, bytes_per_day=1, every_s=0.01) as running:

        async def one_read():
            return running.rounds.tally.objects == 1

        await until(one_read)
    async with scheduled(site, bytes_per_day=1, every_s=0.01) as running:
        await asyncio.sleep(0.3)
        assert running.rounds.tally.last_ns == 0, "the day's budget is spent"


async def test_a_new_round_finds_what_was_changed_and_sends_it(site):
    (site.folder / "hook").write_text(SECRET + "\n")
    async with webhook([503]) as hook:
        text = site.config.read_text()
        text += f'\n[verify]\nwebhook = "{hook.url}"\nwebhook_secret = {{ file = "hook" }}\n'
        text += 'again_s = "100ms"\nevery_s = "50ms"\n'
        site.config.write_text(text)
        async with scheduled(site) as running:

            async def a_round():
                return running.rounds.coverage.objects and not running.rounds.coverage.unverified

            await until(a_round)
            assert running.rounds.standing.total() == 0
            path, _ = damage(site)
            await hook.until(1)
            await hook.until(running.rounds.standing.total())
            await asyncio.sleep(0.3)
            alarms = hook.verified(SECRET)
            found = running.rounds.standing["tampered"]
            assert len(alarms) == len({each.id for each in alarms}) == found
            assert str(path.relative_to(site.folder / "vault")) in {
                each.finding.object for each in alarms
            }
            assert running.sender.failures == 1


async def test_stores_that_are_away_are_tried_again(site, caplog):
    ledger = site.folder / "ledger.db"
    ledger.rename(site.folder / "elsewhere")
    async with scheduled(site, every_s=0.05) as running:

        async def failed():
            return running.rounds.tally.failures > 1

        async def read():
            return running.rounds.tally.objects == len(objects_of(site))

        await until(failed)
        (site.folder / "elsewhere").rename(ledger)
        await until(read)
    assert "it is tried again" in caplog.text


async def test_what_ends_it_is_raised(site, monkeypatch):
    async with scheduled(site, every_s=0.01) as running:

        async def broken(_):
            raise RuntimeError("nobody foresaw this")

        monkeypatch.setattr(running.rounds, "step", broken)
        with pytest.raises(RuntimeError, match="foresaw"):
            await running.wait()


async def test_a_step_that_does_not_end_is_cut_off(site, monkeypatch):
    monkeypatch.setattr(serving, "DRAIN_S", 0.05)
    begun = asyncio.Event()

    async def endless(_):
        begun.set()
        await asyncio.Event().wait()

    running = await start_schedule(settings_of(site, every_s=0.01), **trust_of(site))
    monkeypatch.setattr(running.rounds, "step", endless)
    async with asyncio.timeout(20):
        await begun.wait()
        await running.stop()


async def test_settings_that_cannot_be_used_leave_nothing_open(site):
    with pytest.raises(SettingsError):
        await start_schedule(settings_of(site, webhook="http://u@h/"), **trust_of(site))


async def test_once_reads_what_is_left_of_the_day(site):
    keys = objects_of(site)
    sizes = [(site.folder / "vault" / key).stat().st_size for key in keys]
    budget = sizes[0] + sizes[1]
    settings = settings_of(site, bytes_per_day=budget, again_s=0.0)
    first = await once(settings, **trust_of(site))
    assert (first.objects, first.read, first.verdict) == (2, budget, "verified")
    assert first.coverage.unverified == len(keys) - 2
    second = await once(settings, **trust_of(site))
    assert (second.objects, second.read) == (0, 0), "today's budget is spent"
    state = await State.open(site.folder / "verification.db")
    assert await state.read_since(time.time_ns() - DAY_NS, time.time_ns()) == budget
    await state.close()


async def test_once_reads_on_when_a_clock_was_ahead(site):
    """What is said to have been read next year takes nothing of today, and is no coverage."""
    key, ahead_ns = objects_of(site)[0], time.time_ns() + 365 * DAY_NS
    state = await State.open(site.folder / "verification.db")
    await state.keep([record(key, ahead_ns, size=1 << 60)], {})
    await state.close()
    found = await once(settings_of(site), **trust_of(site))
    assert found.objects == len(objects_of(site))


async def test_once_says_what_stands_also_where_it_read_nothing(site):
    path, whole = damage(site)
    first = await once(settings_of(site), **trust_of(site))
    assert first.verdict == "tampered"
    assert len(first.fresh) == len(first.standing) > 0
    overwrite(path, whole)
    second = await once(settings_of(site), **trust_of(site))
    assert (second.objects, second.fresh) == (0, ())
    assert second.verdict == "tampered", "it was not read again yet"
    third = await once(settings_of(site, again_s=0.0), **trust_of(site))
    assert (third.verdict, third.standing) == ("verified", ())


async def test_once_waits_for_the_webhook_a_while(site, monkeypatch):
    damage(site)
    monkeypatch.setattr(serving, "ONCE_S", 0.2)
    async with webhook() as hook:
        url = hook.url
    silent = await once(settings_of(site, webhook=url), **trust_of(site))
    assert silent.unsent == len(silent.standing) > 0
    async with webhook() as hook:
        heard = await once(settings_of(site, webhook=hook.url), **trust_of(site))
        assert len(hook.requests) == silent.unsent
    assert heard.unsent == 0
    with pytest.raises(StoreError):
        (site.folder / "verification.db").write_bytes(b"x" * 5000)
        await once(settings_of(site), **trust_of(site))
