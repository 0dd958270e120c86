"""Alarms on their way: signed, in order, again until they are taken, never sent twice."""

import asyncio
import logging
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from sealtape.capture.outbound import destination
from sealtape.capture.postgres.credential import credential_of
from sealtape.indexer.schedule.alarms import AlarmSender, sender_of
from sealtape.indexer.schedule.state import State
from sealtape.schemas.errors import SettingsError
from sealtape.schemas.settings import Secret, load_settings
from sealtape.schemas.verification import SIGNATURE
from tests.factories.webhooks import webhook
from tests.indexer.schedule.test_state import alarm, found, record

SECRET = "correct horse"


@pytest.fixture
async def state(tmp_path):
    opened = await State.open(tmp_path / "state.db")
    yield opened
    await opened.close()


async def wait_for(state, *alarms):
    await state.keep([record("x", 1)], found(*alarms, of="x"), send=True)


def sender(state, url, secret=SECRET, **options):
    read = credential_of(secret and Secret("inline", secret), None, where="verify.webhook_secret")
    pace = {"first_s": 0.01, "longest_s": 0.02} | options
    return AlarmSender(state, destination(url, what="test"), read, **pace)


@asynccontextmanager
async def running(sending):
    task = asyncio.create_task(sending.run())
    try:
        yield
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_alarms_come_signed_and_in_order(state):
    alarms = [alarm("a"), alarm("b"), alarm("c")]
    await wait_for(state, *alarms)
    async with webhook() as hook:
        sending = sender(state, hook.url, clock=lambda: 1_795_392_124.7)
        await sending.flush()
        assert hook.verified(SECRET) == alarms
        line, headers, _ = hook.requests[0]
        assert line == "POST /alarms?to=ops HTTP/1.1"
        assert headers["Content-Type"] == "application/json"
        assert headers[SIGNATURE].startswith("t=1795392124,v1=")
        await sending.flush()
        assert len(hook.requests) == 3, "what was taken is not sent again"
    assert (sending.sent, sending.failures, sending.waiting) == (3, 0, 0)


async def test_without_a_secret_nothing_is_signed(state):
    await wait_for(state, alarm("a"))
    async with webhook() as hook:
        await sender(state, hook.url, secret=None).flush()
    assert SIGNATURE not in hook.requests[0][1]


async def test_what_is_refused_is_sent_again_and_holds_no_other_up(state, caplog):
    await wait_for(state, alarm("a"), alarm("b"))
    async with webhook([500, 200, 301, 404]) as hook:
        sending = sender(state, hook.url)
        await sending.flush()
        assert [each.finding.object for each in hook.verified(SECRET)] == ["b", "a"]
    assert (sending.sent, sending.failures, sending.waiting) == (2, 3, 0)
    assert [r.levelno for r in caplog.records] == [logging.ERROR] * 3
    assert "it answers 500" in caplog.text


async def test_one_that_is_away_is_tried_until_it_is_back(state):
    await wait_for(state, alarm("a"), alarm("b"))
    async with webhook() as hook:
        url = hook.url
    sending = sender(state, url)
    async with running(sending), asyncio.timeout(60):
        while sending.failures < 3:
            await asyncio.sleep(0.01)
        assert sending.waiting == 2
    async with webhook() as hook:
        again = sender(state, hook.url)
        await again.flush()
        assert len(hook.verified(SECRET)) == 2, "a new start sends what waits"


async def test_what_was_taken_and_cannot_be_written_down_is_not_sent_again(state, caplog):
    """As on a full disk, which must not end the sender either."""
    await wait_for(state, alarm("a"), alarm("b"))
    await state._database.direct(lambda connection: connection.execute("PRAGMA query_only=1"))
    async with webhook() as hook:
        sending = sender(state, hook.url)
        async with running(sending), asyncio.timeout(60):
            while caplog.text.count("readonly") < 3:
                await asyncio.sleep(0.01)
            await state._database.direct(lambda c: c.execute("PRAGMA query_only=0"))
            while await state.waiting_count():
                await asyncio.sleep(0.01)
        assert [each.finding.object for each in hook.verified(SECRET)] == ["a", "b"]
    assert sending.sent == 2


async def test_it_is_woken(state):
    async with webhook() as hook:
        sending = sender(state, hook.url)
        async with running(sending):
            await asyncio.sleep(0.05)
            await wait_for(state, alarm("a"))
            sending.wake()
            await hook.until(1)


async def test_a_new_one_does_not_wait_for_one_that_is_refused(state):
    await wait_for(state, alarm("a"))
    async with webhook([500, 500, 200]) as hook:
        sending = sender(state, hook.url, first_s=3600.0, longest_s=3600.0)
        async with running(sending), asyncio.timeout(60):
            while not sending.failures:
                await asyncio.sleep(0.01)
            await wait_for(state, alarm("a"), alarm("b"))
            sending.wake()
            await hook.until(1)
            assert [each.finding.object for each in hook.verified(SECRET)] == ["b"]
            await asyncio.sleep(0.1)
            assert sending.failures == 2, "and the other has its hour"


@pytest.mark.parametrize("text", ['{ env = "NO_SUCH_SECRET" }', '{ file = "no-such-file" }'])
async def test_a_secret_that_cannot_be_read_is_a_failure(state, tmp_path, text, monkeypatch):
    monkeypatch.delenv("NO_SUCH_SECRET", raising=False)
    await wait_for(state, alarm("a"))
    async with webhook() as hook:
        toml = f'[verify]\nwebhook = "{hook.url}"\nwebhook_secret = {text}\n'
        sending = sender_of(load_settings(toml, base=str(tmp_path)), state)
        async with running(sending), asyncio.timeout(60):
            while not sending.failures:
                await asyncio.sleep(0.01)
        assert hook.requests == []


async def test_nobody_to_send_to_and_nobody_that_can_be(state, tmp_path):
    settings = load_settings("", base=str(tmp_path))
    assert sender_of(settings, state) is None
    wrong = replace(settings.verify, webhook="http://user@host/")
    with pytest.raises(SettingsError, match=r"verify\.webhook"):
        sender_of(replace(settings, verify=wrong), state)
    wrong = replace(settings.verify, webhook="https://host/", webhook_ca="absent.pem")
    with pytest.raises(SettingsError, match="CA certificates"):
        sender_of(replace(settings, verify=wrong), state)
