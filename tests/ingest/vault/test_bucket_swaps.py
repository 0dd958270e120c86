"""Swaps when requests fail: a real store behind a proxy that breaks things."""

import asyncio

import pytest

from sealtape.ingest.vault import bucket as module
from sealtape.schemas.errors import Fenced, Missing, StoreBusy, StoreError
from tests.conformance.vault import NEWEST
from tests.factories.s3_vaults import s3_vault
from tests.ingest.vault.test_bucket import CONFLICT, SLOW_DOWN, anything, gets, puts
from tests.servers.http_faults import fault_proxy


@pytest.fixture
async def proxy(s3):
    async with fault_proxy(s3.endpoint) as proxy:
        yield proxy


@pytest.fixture(params=[False, True], ids=["plain", "versions"])
async def bucket(request, s3):
    return s3.bucket(versioning=request.param)


@pytest.fixture
async def vault(s3, bucket, proxy):
    async with s3_vault(s3, bucket, endpoint=proxy.url, timeout="2s") as vault:
        yield vault


@pytest.fixture
async def plain(s3, bucket):
    """The same vault without the proxy, as another process has it."""
    async with s3_vault(s3, bucket) as plain:
        yield plain


def arrives_late(proxy, meanwhile, *, times=1):
    """Pass a put on only after `meanwhile` was done."""

    async def act(proxy, request, body, reader, writer):
        await meanwhile()
        head, answer = await proxy.ask(request, body)
        writer.write(head + answer)
        await writer.drain()
        return True

    proxy.answer(puts, "000", times=times)
    proxy.rules[-1].act = act


async def test_a_swap_is_conditional_and_carries_a_checksum(vault, proxy):
    await vault.swap(NEWEST, b"1", None)
    await vault.swap(NEWEST, b"2", b"1")
    first, second = [request for request in proxy.seen if request.method == "PUT"]
    assert first.headers["if-none-match"] == "*"
    assert second.headers["if-match"]
    assert "if-none-match" not in second.headers
    assert second.headers["x-amz-checksum-sha256"]


async def test_what_was_swapped_since_it_was_read_stays(vault, proxy, plain):
    """The other writer comes between our look and our put."""
    arrives_late(proxy, lambda: plain.swap(NEWEST, b"theirs", None))
    with pytest.raises(Fenced):
        await vault.swap(NEWEST, b"ours", None)
    assert await plain.get(NEWEST) == b"theirs"
    arrives_late(proxy, lambda: plain.swap(NEWEST, b"theirs 2", b"theirs"))
    with pytest.raises(Fenced):
        await vault.swap(NEWEST, b"ours", b"theirs")
    assert await plain.get(NEWEST) == b"theirs 2"


async def test_what_was_erased_since_it_was_read_stays_so(vault, proxy, plain):
    await plain.swap(NEWEST, b"1", None)
    arrives_late(proxy, lambda: plain.erase(NEWEST))
    with pytest.raises(Fenced):
        await vault.swap(NEWEST, b"2", b"1")
    with pytest.raises(Missing):
        await plain.get(NEWEST)


async def test_the_same_bytes_from_another_are_as_good(vault, proxy, plain):
    arrives_late(proxy, lambda: plain.swap(NEWEST, b"same", None))
    await vault.swap(NEWEST, b"same", None)


@pytest.mark.parametrize("before", [None, b"1"])
async def test_a_lost_answer_is_found_out(vault, proxy, plain, before):
    if before is not None:
        await plain.swap(NEWEST, before, None)
    proxy.lose_answer(puts)
    await vault.swap(NEWEST, b"2", before)
    assert await plain.get(NEWEST) == b"2"
    assert len([request for request in proxy.seen if request.method == "PUT"]) == 1


async def test_a_swap_whose_outcome_is_unknown_may_be_repeated(vault, proxy, plain, monkeypatch):
    await plain.swap(NEWEST, b"1", None)
    monkeypatch.setattr(module, "PATIENCE_S", 0.0)
    proxy.lose_answer(puts)
    with pytest.raises(StoreBusy):
        await vault.swap(NEWEST, b"2", b"1")
    assert await plain.get(NEWEST) == b"2"
    await vault.swap(NEWEST, b"2", b"1")


async def test_a_lost_answer_and_another_that_went_on(vault, proxy, plain):
    """Ours was in, and has been replaced since: it is not put again over theirs."""
    await plain.swap(NEWEST, b"1", None)

    async def act(proxy, request, body, reader, writer):
        await proxy.ask(request, body)
        await plain.swap(NEWEST, b"3", b"2")
        writer.transport.abort()
        return False

    proxy.answer(puts, "000")
    proxy.rules[-1].act = act
    with pytest.raises(Fenced):
        await vault.swap(NEWEST, b"2", b"1")
    assert await plain.get(NEWEST) == b"3"


async def test_what_passes_is_tried_again(vault, proxy, plain):
    proxy.answer(puts, "503 Slow Down", SLOW_DOWN, times=2)
    proxy.answer(puts, "409 Conflict", CONFLICT, times=1)
    proxy.reset(gets, times=2)
    await vault.swap(NEWEST, b"1", None)
    assert await plain.get(NEWEST) == b"1"


async def test_an_outage_is_busy(vault, proxy, plain, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_S", 0.3)
    proxy.reset(anything, times=99)
    with pytest.raises(StoreBusy):
        await vault.swap(NEWEST, b"1", None)
    proxy.rules.clear()
    proxy.reset(puts, times=99)
    with pytest.raises(StoreBusy, match="swap"):
        await vault.swap(NEWEST, b"1", None)
    with pytest.raises(Missing):
        await plain.get(NEWEST)


async def test_a_condition_that_never_holds_is_busy(vault, proxy, monkeypatch):
    """The object is as it was at each look, and no put gets through."""
    monkeypatch.setattr(module, "PATIENCE_S", 0.3)
    proxy.answer(puts, "412 Precondition Failed", times=99)
    with pytest.raises(StoreBusy, match="all the time"):
        await vault.swap(NEWEST, b"1", None)


async def test_an_answer_that_is_no_use_is_not_asked_for_again(vault, proxy):
    proxy.answer(puts, "501 Not Implemented")
    with pytest.raises(StoreError, match="501"):
        await vault.swap(NEWEST, b"1", None)
    assert len([request for request in proxy.seen if request.method == "PUT"]) == 1


async def test_a_cancelled_swap_leaves_one_or_the_other(vault, proxy, plain):
    await plain.swap(NEWEST, b"1", None)
    proxy.delay(puts, 0.3)
    swap = asyncio.create_task(vault.swap(NEWEST, b"2", b"1"))
    await asyncio.sleep(0.15)
    swap.cancel()
    with pytest.raises(asyncio.CancelledError):
        await swap
    await asyncio.sleep(0.5)
    assert await plain.get(NEWEST) in (b"1", b"2")
