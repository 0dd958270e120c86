import asyncio
import logging

import pytest

from sealtape.schemas.errors import UsageError
from tests.factories.kafka_topics import admin_of, again, new_bus


@pytest.fixture
async def bus(kafka_server):
    bus = await new_bus(kafka_server.bootstrap, partitions=2)
    yield bus
    await bus.close()


async def test_kafkas_own_tools_see_a_mark(kafka_server, bus):
    await bus.append(1, [(b"", b"x")])
    await bus.mark("ingest", 1, 1)
    async with admin_of(kafka_server.bootstrap) as admin:
        offsets = await admin.list_consumer_group_offsets("sealtape-ingest")
    name = bus.topic.partition("@")[0]
    ours = {key.partition: value.offset for key, value in offsets.items() if key.topic == name}
    assert ours == {1: 1}


async def test_marks_of_other_topics_are_not_ours(kafka_server, bus):
    other = await new_bus(kafka_server.bootstrap)
    await other.mark("ingest", 0, 9)
    assert await bus.marks(0) == {}
    await bus.mark("ingest", 0, 4)
    assert await bus.marks(0) == {"ingest": 4}
    assert await other.marks(0) == {"ingest": 9}
    await other.close()


@pytest.mark.parametrize("name", ["", "../x", "A", "x" * 64])
async def test_a_consumer_has_a_plain_name(bus, name):
    with pytest.raises(UsageError):
        await bus.mark(name, 0, 1)
    with pytest.raises(UsageError):
        await bus.mark("ingest", 0, -1)


async def test_a_mark_that_fails_is_logged_once_and_stops_nobody(kafka_alone, caplog):
    bus = await new_bus(kafka_alone.bootstrap, timeout="3s")
    await marked(bus, 1)  # the first commit of a broker makes the topic that offsets are kept in
    caplog.clear()
    kafka_alone.pause()
    with caplog.at_level(logging.WARNING):
        await bus.mark("ingest", 0, 2)
        await bus.mark("ingest", 0, 3)
    assert caplog.text.count("sealtape-ingest is not up to date") == 1
    kafka_alone.resume()
    await marked(bus, 4)
    await bus.close()


async def marked(bus, offset):
    async with asyncio.timeout(120):
        while await again(lambda: bus.marks(0)) != {"ingest": offset}:
            await bus.mark("ingest", 0, offset)


async def test_a_coordinator_that_moved_is_found_again(kafka_alone):
    bus = await new_bus(kafka_alone.bootstrap, timeout="60s")
    await bus.mark("ingest", 0, 1)
    await asyncio.to_thread(kafka_alone.kill)
    await asyncio.to_thread(kafka_alone.start)
    await bus.mark("ingest", 0, 2)
    assert await bus.marks(0) == {"ingest": 2}
    bus._marks._coordinators["sealtape-ingest"] = 77
    await bus.mark("ingest", 0, 3)
    assert await bus.marks(0) == {"ingest": 3}
    await bus.close()
