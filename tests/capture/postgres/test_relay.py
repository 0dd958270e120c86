"""The relay under pressure: half-open and slow peers, stalls, failures, huge values."""

import asyncio
import os
import ssl

import psutil
import psycopg
import pytest

from sealtape.capture.postgres.codec import messages
from sealtape.capture.postgres.refusals import REFUSALS
from sealtape.schemas.slices import CLIENT_IN, CLIENT_OUT, TARGET_IN, TARGET_OUT
from tests.capture.postgres.gateway_world import gateway_world, psql
from tests.servers.tls import TlsFront, write_certificate

MIB = 1 << 20
READY = messages.ready_for_query()


def query(text):
    return messages.message(b"Q", text.encode() + b"\0")


class RawClient:
    """A client that has logged in, with nothing between the test and the bytes."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, world, *, tls=False, limit=65536):
        context = None
        if tls:
            context = ssl.create_default_context(cafile=str(world.certificate))
            context.set_alpn_protocols(["postgresql"])
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", world.port, ssl=context, limit=limit
        )
        writer.write(messages.startup({"user": "ada", "database": "shop"}))
        writer.write(messages.password_message(world.token()))
        await reader.readuntil(READY)
        return cls(reader, writer)

    async def close(self):
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except OSError:
            pass


async def wait_for(condition, seconds=60):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_client_that_ends_its_half_still_gets_all_that_is_left(tmp_path, postgres_server):
    async with gateway_world(tmp_path, postgres_server) as world:
        client = await RawClient.open(world, limit=1 << 16)
        client.writer.write(query("select repeat('x', 1000) from generate_series(1, 100000)"))
        client.writer.write_eof()
        size = 0
        while data := await client.reader.read(1 << 16):
            size += len(data)
        assert size > 100 * MIB * 0.9
        recorded = await world.last_session()
        assert recorded.leg(CLIENT_OUT).endswith(READY)
        assert recorded.reason == "client"
        await client.close()


async def test_every_session_gets_its_end_however_its_last_bytes_were_sent(
    tmp_path, postgres_server
):
    async with gateway_world(tmp_path, postgres_server) as world:
        for rows in [100, 3000, 20000] * 10:  # some of it at once, some when the kernel can
            client = await RawClient.open(world)
            client.writer.write(query(f"select repeat('x', 1000) from generate_series(1, {rows})"))
            client.writer.write_eof()
            received = 0
            while data := await client.reader.read(1 << 16):
                received += len(data)
            assert received > rows * 1000
            recorded = await world.last_session()
            assert recorded.reason == "client"
            recorded.slices.clear()
            await client.close()


@pytest.mark.parametrize("goodbye", [b"", messages.TERMINATE])
async def test_the_end_of_a_half_reaches_a_target_over_tls_in_words(
    tmp_path, postgres_server, goodbye
):
    chain, key = write_certificate(tmp_path)
    async with (
        TlsFront("127.0.0.1", postgres_server.port, chain, key) as front,
        gateway_world(tmp_path, postgres_server, port=front.port, target_tls="require") as world,
    ):
        client = await RawClient.open(world)
        asked = query("select repeat('x', 1000) from generate_series(1, 10000)")
        client.writer.write(asked + goodbye)
        client.writer.write_eof()
        received = await client.reader.read()
        while data := await client.reader.read():
            received += data
        assert received.endswith(READY)
        recorded = await world.last_session()
        assert recorded.leg(CLIENT_IN) == asked + goodbye
        assert recorded.leg(TARGET_OUT) == asked + messages.TERMINATE
        await client.close()


async def test_a_tls_client_gets_everything_before_the_end(tmp_path, postgres_server):
    async with gateway_world(tmp_path, postgres_server) as world:
        client = await RawClient.open(world, tls=True)
        client.writer.write(query("select repeat('x', 1000) from generate_series(1, 20000)"))
        client.writer.write(messages.TERMINATE)
        received = bytearray()
        while data := await client.reader.read(1 << 16):
            received += data
        assert received.endswith(READY)
        assert len(received) > 19 * MIB * 0.95
        recorded = await world.last_session()
        assert recorded.leg(CLIENT_OUT).endswith(bytes(received[-1 * MIB :]))
        await client.close()


@pytest.mark.parametrize("tls", [False, True])
async def test_a_client_that_does_not_read_stops_the_target_and_costs_little_memory(
    tmp_path, postgres_server, tls
):
    async with gateway_world(tmp_path, postgres_server) as world:
        client = await RawClient.open(world, tls=tls)
        recorder = world.worker.sessions[-1]
        recorder.keep = False
        before = psutil.Process().memory_info().rss
        client.writer.write(query("select repeat('x', 10000) from generate_series(1, 40000)"))
        await wait_for(lambda: recorder.offsets[TARGET_IN] > MIB)
        await asyncio.sleep(0.5)
        reached = recorder.offsets[TARGET_IN]
        await asyncio.sleep(0.3)
        assert recorder.offsets[TARGET_IN] - reached < 2 * MIB  # it stands still
        assert reached < 60 * MIB
        assert psutil.Process().memory_info().rss - before < 40 * MIB
        size = 0
        while size < 400_000_000:
            size += len(await client.reader.read(1 << 18))
        await client.close()
        await world.last_session()


async def test_a_target_that_does_not_read_stops_the_client(tmp_path, postgres_server):
    async with gateway_world(tmp_path, postgres_server) as world:
        client = await RawClient.open(world)
        recorder = world.worker.sessions[-1]
        recorder.keep = False
        client.writer.write(query("select pg_sleep(1.5)"))
        block = query("select length('" + "x" * 60000 + "')")
        client.writer.transport.set_write_buffer_limits(1 << 16)

        async def send():
            for _ in range(400):
                client.writer.write(block)
                await client.writer.drain()

        sending = asyncio.create_task(send())
        await asyncio.sleep(0.8)
        assert not sending.done()
        assert recorder.offsets[CLIENT_IN] < 30 * MIB
        received = bytearray()
        while received.count(b"C\0\0\0\rSELECT 1\0") < 401:
            received += await asyncio.wait_for(client.reader.read(1 << 16), 20)
        await sending
        await client.close()
        await world.last_session()


async def test_nothing_goes_on_that_the_worker_has_not_let_go(tmp_path, postgres_server):
    async with gateway_world(tmp_path, postgres_server) as world:
        client = await RawClient.open(world)
        world.worker.stuck = True
        client.writer.write(query("create table never_made (a int)"))
        await wait_for(lambda: world.worker.kept)
        await asyncio.sleep(0.1)
        assert postgres_server.sql("select to_regclass('never_made') is null") == "t"
        recorder = world.worker.sessions[-1]
        recorder.on_stall(True)
        recorder.on_end("spool")
        answer = await client.reader.read()
        fields = messages.fields(answer[5:])
        assert fields["C"] == REFUSALS["recording-failed"].sqlstate
        await client.close()
        await world.last_session()
        for write, data in world.worker.kept:
            write(data)  # late, and for nothing
        assert recorder.reason == "spool"
        assert b"never_made" in recorder.leg(CLIENT_IN)
        assert b"never_made" not in recorder.leg(TARGET_OUT)  # read, but not sent on
        assert recorder.leg(CLIENT_OUT).endswith(answer)
        assert postgres_server.sql("select to_regclass('never_made') is null") == "t"


async def test_a_failure_inside_a_message_just_closes(tmp_path, postgres_server):
    async with gateway_world(tmp_path, postgres_server) as world:
        client = await RawClient.open(world)
        recorder = world.worker.sessions[-1]
        client.writer.write(query("select repeat('x', 100000000)"))
        await wait_for(lambda: recorder.offsets[TARGET_IN] > MIB)
        recorder.on_end("spool")
        received = await client.reader.read()
        assert b"FATAL" not in received
        await client.close()
        await world.last_session()


async def test_a_stalled_session_reads_nothing_until_it_goes_on(tmp_path, postgres_server):
    async with gateway_world(tmp_path, postgres_server) as world:
        client = await RawClient.open(world)
        recorder = world.worker.sessions[-1]
        recorder.on_stall(True)
        recorder.on_stall(True)
        before = recorder.offsets[CLIENT_IN]
        client.writer.write(query("select 1"))
        await asyncio.sleep(0.2)
        assert recorder.offsets[CLIENT_IN] == before
        recorder.on_stall(False)
        assert (await client.reader.readuntil(READY)).endswith(READY)
        await client.close()
        await world.last_session()


async def test_a_stalled_session_reads_nothing_after_its_end_either(tmp_path, postgres_server):
    """What the spool does not take would be kept in memory, as fast as the target can send."""
    async with gateway_world(tmp_path, postgres_server, target="max_session = 0.5") as world:
        client = await RawClient.open(world)
        recorder = world.worker.sessions[-1]
        world.worker.stuck = True
        client.writer.write(query("select 1"))
        await wait_for(lambda: world.worker.kept)
        recorder.on_stall(True)
        client.writer.write(bytes(50 * MIB))
        await asyncio.sleep(1.5)  # max_session is over
        recorder.on_end("spool")
        await world.last_session()
        assert recorder.offsets[CLIENT_IN] < MIB
        await client.close()


async def test_what_comes_after_the_end_is_recorded_as_not_sent_on(tmp_path, postgres_server):
    async with gateway_world(tmp_path, postgres_server, target="max_session = 0.5") as world:
        client = await RawClient.open(world)
        recorder = world.worker.sessions[-1]
        await client.reader.readuntil(b"57P01\0")
        late = query("select 'late'")
        client.writer.write(late)
        await client.writer.drain()
        await client.reader.read()
        await client.close()
        await world.last_session()
        assert recorder.leg(CLIENT_IN) == late
        assert recorder.leg(TARGET_OUT) == b""
        assert recorder.reason == "max_session"


async def test_a_target_that_dies_ends_the_session_with_its_own_last_words(
    tmp_path, postgres_server
):
    async with gateway_world(tmp_path, postgres_server) as world:
        connection = await asyncio.to_thread(psycopg.connect, world.dsn(), autocommit=True)
        pid = (await asyncio.to_thread(connection.execute, "select pg_backend_pid()")).fetchone()[0]
        postgres_server.sql(f"select pg_terminate_backend({pid})")
        with pytest.raises(psycopg.errors.AdminShutdown):
            await asyncio.to_thread(connection.execute, "select 1")
        connection.close()
        recorded = await world.last_session()
        assert recorded.reason == "target"
        assert b"57P01" in recorded.leg(CLIENT_OUT)


async def test_a_client_that_vanishes_ends_the_session(tmp_path, postgres_server):
    async with gateway_world(tmp_path, postgres_server) as world:
        client = await RawClient.open(world)
        client.writer.transport.abort()
        assert (await world.last_session()).reason == "client"


async def test_copy_both_ways_keeps_every_byte(tmp_path, postgres_server):
    async with gateway_world(tmp_path, postgres_server) as world:
        data = os.urandom(4 * MIB).hex().encode()
        lines = b"".join(data[at : at + 1000] + b"\n" for at in range(0, len(data), 1000))
        script = (
            b"create temp table t (a text);\ncopy t from stdin;\n"
            + lines
            + b"\\.\ncopy t to stdout;\n"
        )
        code, out, err = await psql(world.dsn(), "-q", stdin=script)
        assert code == 0, err
        assert out.encode() == lines
        recorded = await world.last_session()
        assert recorded.leg(CLIENT_IN).count(b"\n") >= lines.count(b"\n")


async def test_the_largest_value_streams_with_little_memory(tmp_path, postgres_server):
    size = 1_073_741_800
    async with gateway_world(tmp_path, postgres_server) as world:
        client = await RawClient.open(world, limit=1 << 16)
        recorder = world.worker.sessions[-1]
        recorder.keep = False
        process = psutil.Process()
        before = peak = process.memory_info().rss
        client.writer.write(query(f"select repeat('x', {size})"))
        got = 0
        tail = b""
        while not tail.endswith(READY):
            data = await client.reader.read(1 << 18)
            got += len(data)
            tail = (tail + data)[-len(READY) :]
            peak = max(peak, process.memory_info().rss)
        assert got > size
        assert peak - before < 16 * MIB
        await client.close()
        await world.last_session()
