"""Networks that are slow, cut, half-open, and servers that end: a real store behind toxiproxy."""

import asyncio
import os
import time

import pytest

from sealtape.ingest.vault import bucket as module
from sealtape.schemas.errors import Exists, Missing, StoreBusy
from tests.factories.s3_vaults import SECRET_VARIABLE, s3_vault

DATA = os.urandom(2 << 20)


@pytest.fixture
def link(s3, toxiproxy):
    proxy = toxiproxy.proxy(s3.address)
    yield proxy
    proxy.close()


@pytest.fixture
async def vault(s3, link):
    options = {"endpoint": f"http://{link.address}", "timeout": "5s"}
    async with s3_vault(s3, s3.bucket(), **options) as vault:
        yield vault


async def test_a_short_cut_is_not_noticed(vault, link):
    await vault.put_new("before", b"1")
    link.cut()
    puts = [asyncio.create_task(vault.put_new(f"a/{number}", DATA)) for number in range(4)]
    reads = [asyncio.create_task(vault.get("before")) for _ in range(4)]
    await asyncio.sleep(1)
    link.heal()
    await asyncio.gather(*puts)
    assert await asyncio.gather(*reads) == [b"1"] * 4
    for number in range(4):
        assert await vault.get(f"a/{number}") == DATA


async def test_a_long_cut_is_told_within_seconds_and_over_when_it_is_over(vault, link):
    link.cut()
    started = time.monotonic()
    with pytest.raises(StoreBusy, match="refused"):
        await vault.put_new("a", DATA)
    assert time.monotonic() - started < 12
    link.heal()
    await vault.put_new("a", DATA)
    with pytest.raises(Exists):
        await vault.put_new("a", DATA)


async def test_a_slow_store_is_waited_for(vault, link):
    with link.slow(2000):
        await vault.put_new("a", b"1")
        assert await vault.get("a") == b"1"
        assert [key async for key in vault.keys("")] == ["a"]
        await vault.erase("a")
    with pytest.raises(Missing):
        await vault.get("a")


async def test_a_narrow_link_carries_what_it_can(vault, link):
    with link.throttled(10):
        await vault.put_new("a", bytes(20_000))
        assert len(await vault.get("a")) == 20_000


async def test_a_half_open_connection_is_left(vault, link, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_S", 0.0)
    await vault.put_new("before", b"1")
    with link.half_open():
        started = time.monotonic()
        for call in (vault.get("before"), vault.put_new("a", DATA)):
            with pytest.raises(StoreBusy, match="no answer in time"):
                await call
        assert time.monotonic() - started < 25
    assert await vault.get("before") == b"1"
    await vault.put_new("b", DATA)


async def test_a_connection_that_breaks_inside_a_request(vault, link):
    with link.limited(1 << 20, stream="upstream"), pytest.raises(StoreBusy):
        await vault.put_new("a", DATA)
    with pytest.raises(Missing):
        await vault.get("a")
    await vault.put_new("a", DATA)
    with link.limited(1 << 20):
        with pytest.raises(StoreBusy):
            await vault.get("a")
        assert await vault.get("a", 5, 10_000) == DATA[5:10_000]
    assert await vault.get("a") == DATA


async def test_resets_at_any_moment(vault, link):
    """What was said to be there is there, and whole; what was said to fail is whole or absent."""
    stopping = asyncio.Event()

    async def disturb():
        quiet_s = 0.1
        while not stopping.is_set():
            await asyncio.to_thread(link.poison, "reset_peer", timeout=30)
            await asyncio.sleep(0.15)
            await asyncio.to_thread(link.heal)
            await asyncio.sleep(quiet_s)
            quiet_s *= 1.2  # so that a slow machine gets through, too

    disturbing = asyncio.create_task(disturb())
    outcomes = {}
    for number in range(15):
        data = bytes([number]) * (200_000 + number)
        try:
            await vault.put_new(f"a/{number}", data)
            outcomes[number] = "put"
        except StoreBusy:
            outcomes[number] = "unknown"
    stopping.set()
    await disturbing
    link.heal()
    assert "put" in outcomes.values(), outcomes
    for number, outcome in outcomes.items():
        data = bytes([number]) * (200_000 + number)
        try:
            assert await vault.get(f"a/{number}") == data
        except Missing:
            assert outcome == "unknown"


async def test_a_server_that_is_killed_and_comes_back(s3_alone, monkeypatch):
    monkeypatch.setenv(SECRET_VARIABLE, s3_alone.secret_key)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    async with s3_vault(s3_alone, s3_alone.bucket(versioning=True)) as vault:
        await vault.put_new("a", DATA)
        await asyncio.to_thread(s3_alone.kill)
        with pytest.raises(StoreBusy):
            await vault.put_new("b", DATA)
        with pytest.raises(StoreBusy):
            await vault.erase("a")
        await asyncio.to_thread(s3_alone.start)
        assert await vault.get("a") == DATA
        await vault.put_new("b", DATA)
        await vault.erase("a")
        assert [key async for key in vault.keys("")] == ["b"]
