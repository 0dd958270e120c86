import asyncio
import time
from contextlib import asynccontextmanager, suppress

import pytest
from aiokafka.protocol.admin import ApiVersionRequest

from sealtape.capture.bus.kafka.protocol import MetadataById
from sealtape.capture.bus.kafka.url import parse_kafka_url
from sealtape.capture.bus.kafka.wire import Wire
from sealtape.schemas.errors import StoreBusy, StoreCorrupt, StoreError
from tests.factories.kafka_topics import BASE, kafka_url, new_topic
from tests.servers.process import free_port


@pytest.fixture
async def wire(kafka_server):
    url = parse_kafka_url(await new_topic(kafka_server.bootstrap), BASE)
    wire = Wire(url)
    wire.address, wire.topic = url.hosts[0], url.topic
    yield wire
    await wire.close()


def idle(wire):
    return [one for some in wire._idle.values() for one in some]


async def test_one_connection_serves_one_request_after_the_other(wire):
    for _ in range(3):
        await wire.ask(wire.address, ApiVersionRequest(), limit_s=5)
    assert len(idle(wire)) == 1
    await asyncio.gather(
        *(wire.ask(wire.address, MetadataById(wire.topic), limit_s=5) for _ in range(4))
    )
    assert 1 < len(idle(wire)) <= 4
    assert not wire._lent


async def test_a_connection_is_greeted_once(kafka_server):
    greeted = []

    async def greet(connection):
        greeted.append(connection)

    url = parse_kafka_url(await new_topic(kafka_server.bootstrap), BASE)
    wire = Wire(url, greet)
    for _ in range(3):
        await wire.ask(url.hosts[0], ApiVersionRequest(), limit_s=5)
    assert len(greeted) == 1
    await wire.close()


async def test_what_was_interrupted_is_closed(wire):
    await wire.ask(wire.address, ApiVersionRequest(), limit_s=5)
    (connection,) = idle(wire)
    asking = asyncio.create_task(wire.ask(wire.address, ApiVersionRequest(), limit_s=5))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert not connection.connected()
    assert idle(wire) == []
    await wire.ask(wire.address, ApiVersionRequest(), limit_s=5)


async def test_a_connection_that_died_while_idle_is_replaced(wire):
    await wire.ask(wire.address, ApiVersionRequest(), limit_s=5)
    idle(wire)[0]._writer.transport.abort()
    await asyncio.sleep(0.05)
    await wire.ask(wire.address, ApiVersionRequest(), limit_s=5)
    assert len(idle(wire)) == 1


async def test_a_silence_costs_one_wait_and_not_one_for_each_connection(kafka_alone):
    """As behind a firewall that forgot all connections while they were idle."""
    url = parse_kafka_url(await new_topic(kafka_alone.bootstrap), BASE)
    wire = Wire(url)
    address = url.hosts[0]
    await asyncio.gather(*(wire.ask(address, ApiVersionRequest(), limit_s=5) for _ in range(3)))
    assert len(idle(wire)) == 3
    kafka_alone.pause()
    with pytest.raises(StoreBusy, match="does not answer"):
        await wire.ask(address, ApiVersionRequest(), limit_s=0.3)
    kafka_alone.resume()
    assert idle(wire) == []
    await wire.ask(address, ApiVersionRequest(), limit_s=5)
    await wire.close()


async def test_nobody_there_is_busy(kafka_server):
    wire = Wire(parse_kafka_url(kafka_url("h"), BASE))
    with pytest.raises(StoreBusy, match="Kafka at 127"):
        await wire.ask(("127.0.0.1", free_port()), ApiVersionRequest(), limit_s=5)
    with pytest.raises(StoreBusy, match="no-such-host"):
        await wire.ask(("no-such-host.invalid", 1), ApiVersionRequest(), limit_s=5)
    await wire.close()


@asynccontextmanager
async def peer(answer):
    """Somebody who is no broker; yields the address."""
    ended = []

    async def talk(reader, writer):
        ended.append(asyncio.get_running_loop().create_future())
        await reader.read(10)
        writer.write(answer)
        await reader.read()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        ended[-1].set_result(None)

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()
    server.close()
    await asyncio.gather(*ended)


async def test_somebody_silent_is_busy_in_time():
    wire = Wire(parse_kafka_url(kafka_url("h"), BASE))
    async with peer(b"") as address:
        started = time.monotonic()
        with pytest.raises(StoreBusy, match=r"does not answer within 0\.3 s"):
            await wire.ask(address, ApiVersionRequest(), limit_s=0.3)
        assert time.monotonic() - started < 20
        assert not wire._lent
        await wire.close()


async def test_somebody_who_speaks_otherwise_is_named():
    wire = Wire(parse_kafka_url(kafka_url("h"), BASE))
    async with peer(b"\0\0\0\x0c\0\0\0\1\0\0\0\0\0\xff\xff\xff") as address:
        with pytest.raises(StoreCorrupt, match="not Kafka's protocol"):
            await wire.ask(address, ApiVersionRequest(), limit_s=2)
        await wire.close()


async def test_closed_is_closed(wire):
    await wire.ask(wire.address, ApiVersionRequest(), limit_s=5)
    (connection,) = idle(wire)
    await wire.close()
    await wire.close()
    assert not connection.connected()
    with pytest.raises(StoreError, match="closed"):
        await wire.ask(wire.address, ApiVersionRequest(), limit_s=5)
