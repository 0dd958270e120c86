import asyncio
import contextlib
import socket

import pytest

from sealtape.capture.postgres.codec import messages
from sealtape.capture.postgres.wire import Disconnected, Wire


@contextlib.asynccontextmanager
async def wired(limit=1024, *, tls=False):
    """Yield a wire and the other end of its connection."""
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    _, wire = await loop.create_connection(lambda: Wire(tls=tls, limit=limit), sock=ours)
    reader, writer = await asyncio.open_connection(sock=theirs)
    try:
        yield wire, reader, writer
    finally:
        wire.abort()
        writer.close()
        await asyncio.sleep(0)


async def test_reads_are_exact_however_the_bytes_come():
    async with wired() as (wire, _, writer):
        reading = asyncio.create_task(wire.exactly(5))
        for byte in b"hello world":
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert await reading == b"hello"
        assert await wire.exactly(1) == b" "
        assert await wire.exactly(5) == b"world"


async def test_messages_are_bounded():
    async with wired() as (wire, _, writer):
        writer.write(messages.message(b"p", b"secret\0") + messages.message(b"p", b"x" * 100))
        assert await wire.message(64) == (b"p\0\0\0\x0b", b"secret\0")
        with pytest.raises(messages.ProtocolViolation):
            await wire.message(64)


async def test_more_than_the_limit_waits_in_the_kernel_and_is_read_on_when_wanted():
    async with wired(limit=1024) as (wire, _, writer):
        data = bytes(range(256)) * 8192
        writer.write(data)
        await asyncio.sleep(0.2)
        assert len(wire._buffer) < 1 << 20
        assert await wire.exactly(len(data)) == data


async def test_an_end_before_enough_is_a_disconnection():
    async with wired() as (wire, _, writer):
        writer.write(b"abc")
        reading = asyncio.create_task(wire.exactly(4))
        await asyncio.sleep(0.02)
        writer.write_eof()
        with pytest.raises(Disconnected):
            await reading
        assert wire.ended
        assert not wire.lost
        assert await wire.exactly(3) == b"abc"  # what came before the end is there
        with pytest.raises(Disconnected):
            await wire.exactly(1)


async def test_until_closed_throws_away_what_still_comes():
    async with wired(limit=10) as (wire, _, writer):
        waiting = asyncio.create_task(wire.until_closed())
        writer.write(b"x" * 100_000)
        await writer.drain()
        await asyncio.sleep(0.02)
        assert not waiting.done()
        writer.close()
        await asyncio.wait_for(waiting, 60)


@pytest.mark.parametrize("size", [0, 3, 5000])
async def test_the_next_protocol_gets_what_was_not_read(size):
    class Next(asyncio.Protocol):
        def __init__(self):
            self.got = b""

        def data_received(self, data):
            self.got += data

    async with wired(limit=16) as (wire, _, writer):
        writer.write(b"head" + b"x" * size)
        assert await wire.exactly(4) == b"head"
        await asyncio.sleep(0.05)
        following = Next()
        following.got = wire.take_over(following)
        writer.write(b"tail")
        async with asyncio.timeout(60):
            while len(following.got) < size + 4:
                await asyncio.sleep(0.01)
        assert following.got == b"x" * size + b"tail"


async def test_a_lost_connection_is_told_apart_from_an_end():
    async with wired() as (wire, _, _writer):
        waiting = asyncio.create_task(wire.until_closed())
        await asyncio.sleep(0)
        wire.abort()
        await asyncio.wait_for(waiting, 60)
        assert wire.lost
        wire.take_over(asyncio.Protocol())


async def test_a_connection_that_closed_after_its_last_bytes_can_be_aborted():
    async with wired() as (wire, reader, _):
        wire.transport.write(b"x" * (8 << 20))  # more than the kernel takes at once
        wire.transport.close()
        assert len(await reader.read(-1)) == 8 << 20
        async with asyncio.timeout(60):
            while not wire.lost:
                await asyncio.sleep(0.01)
        wire.abort()  # the transport's own abort raises AttributeError here, on asyncio
