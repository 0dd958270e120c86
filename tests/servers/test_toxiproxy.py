import asyncio
import time

import pytest


@pytest.fixture
async def echo():
    """The address of a server that sends back what it gets."""

    async def serve(reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


@pytest.fixture
def proxy(toxiproxy, echo):
    proxy = toxiproxy.proxy(echo)
    yield proxy
    proxy.close()


async def _round_trip(port, payload=b"hello", timeout=5):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        started = time.monotonic()
        writer.write(payload)
        got = await asyncio.wait_for(reader.readexactly(len(payload)), timeout)
        assert got == payload
        return time.monotonic() - started
    finally:
        writer.close()


async def test_passes_everything_on(proxy):
    await _round_trip(proxy.port, b"x" * 1_000_000)


async def test_cut_closes_what_is_open_and_refuses_until_healed(proxy):
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"1")
    assert await reader.readexactly(1) == b"1"
    proxy.cut()
    assert await asyncio.wait_for(reader.read(), 60) == b""
    writer.close()
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await _round_trip(proxy.port)
    proxy.heal()
    await _round_trip(proxy.port)


async def test_slow_adds_its_time_and_ends(proxy):
    with proxy.slow(400):
        assert await _round_trip(proxy.port) > 0.35
    assert await _round_trip(proxy.port) < 0.35


async def test_throttled_carries_so_much(proxy):
    with proxy.throttled(100):
        assert await _round_trip(proxy.port, b"x" * 100_000) > 0.7


async def test_resetting_ends_connections_with_an_error(proxy):
    with proxy.resetting(), pytest.raises((OSError, asyncio.IncompleteReadError)):
        await _round_trip(proxy.port, b"x" * 10)
    await _round_trip(proxy.port)


async def test_limited_closes_inside_an_answer(proxy):
    with proxy.limited(7), pytest.raises(asyncio.IncompleteReadError) as cut:
        await _round_trip(proxy.port, b"0123456789")
    assert cut.value.partial == b"0123456"


async def test_half_open_says_nothing(proxy):
    with proxy.half_open(), pytest.raises(TimeoutError):
        await _round_trip(proxy.port, timeout=0.5)
    await _round_trip(proxy.port)


async def test_heal_takes_every_toxic_away(proxy):
    proxy.poison("latency", latency=5000)
    proxy.poison("timeout", timeout=0)
    proxy.heal()
    assert await _round_trip(proxy.port) < 1
