"""The events topic on a real Kafka that goes away: nothing is lost, indexing waits and goes on."""

import asyncio
import contextlib
import json
from contextlib import asynccontextmanager

import pytest

from sealtape.capture.bus import open_bus, prepare_bus
from sealtape.indexer.events import EventSource
from sealtape.ingest.events_topic import EventsTopic
from sealtape.ingest.relay import start_relay
from sealtape.schemas.errors import StoreBusy
from tests.factories.kafka_topics import delete_topic, new_topic
from tests.factories.ocsf import problems
from tests.factories.sessions import build_session

AWAY_S = 6.0
SESSIONS = 12


@asynccontextmanager
async def topic(server, folder):
    """A bus on a topic of its own, which gives up on a call after two seconds."""
    bus = open_bus(await new_topic(server.bootstrap, partitions=3, timeout="2s"), folder)
    try:
        yield bus
    finally:
        await bus.close()


async def on(bus):
    found = []
    for partition in range(bus.partitions):
        at, end = await bus.bounds(partition)
        while at < end:
            batch = await bus.read(partition, at, max_bytes=1 << 20, wait_s=1)
            for record in batch.records:
                assert not problems(record.value)
                found.append(json.loads(record.value))
            at = batch.next_offset
    return found


async def until(check, seconds=60.0):
    async with asyncio.timeout(seconds):
        while True:
            with contextlib.suppress(StoreBusy):  # a broker that comes back is slow at first
                if found := await check():
                    return found
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("way", ["stopped", "paused"])
async def test_events_come_when_kafka_is_back(deployment, tmp_path, kafka_alone, way):
    built = [build_session(commands=3, seed=seed) for seed in range(SESSIONS)]
    leave, come = (
        (kafka_alone.stop, kafka_alone.start)
        if way == "stopped"
        else (kafka_alone.pause, kafka_alone.resume)
    )
    async with topic(kafka_alone, tmp_path) as bus:
        source = EventSource(bus, deployment.index)
        running = await deployment.start(on_update=source)
        relay = start_relay(deployment.ledger, bus, owner="relay", lease_s=5.0)
        await deployment.send(*built[: SESSIONS // 2])
        await deployment.seal()

        async def told():
            return source.sent >= 5 * SESSIONS // 2 and not await deployment.ledger.outbox()

        await until(told)
        await asyncio.to_thread(leave)
        try:
            await deployment.send(*built[SESSIONS // 2 :])
            await deployment.seal()  # it does not wait for the events
            waiting = len(await deployment.ledger.outbox())
            assert waiting >= 2 * SESSIONS // 2
            await asyncio.sleep(AWAY_S)
            for late in built[SESSIONS // 2 :]:
                assert await deployment.index.progress(late.session.hex()) is None
            assert len(await deployment.ledger.outbox()) == waiting
        finally:
            await asyncio.to_thread(come)

        async def all_told():
            events = await on(bus)
            return events if wanted(built) <= {e["metadata"]["uid"] for e in events} else None

        events = await until(all_told)
        await relay.stop()
        await running.stop()
        assert await deployment.ledger.outbox() == []
        for each in built:
            assert (await deployment.index.session(each.session.hex())).commands == 3
        by_id = {}
        for event in events:
            assert by_id.setdefault(event["metadata"]["uid"], event) == event


async def test_events_go_on_in_a_topic_that_was_made_anew(deployment, tmp_path, kafka_server):
    """Indexer and relay find out by themselves; nobody starts them again."""
    built = [build_session(commands=3, seed=seed) for seed in range(2)]
    url = await new_topic(kafka_server.bootstrap, partitions=3, timeout="2s")
    sink = EventsTopic(url, tmp_path)
    running = await deployment.start(on_update=EventSource(sink, deployment.index))
    relay = start_relay(deployment.ledger, sink, owner="relay", lease_s=5.0)
    try:
        await deployment.send(built[0])
        await deployment.seal()

        async def told():
            return not await deployment.ledger.outbox() and await _indexed(deployment, built[0])

        await until(told)
        await delete_topic(kafka_server.bootstrap, url)
        await deployment.send(built[1])
        await deployment.seal()
        await asyncio.sleep(1)
        assert not await _indexed(deployment, built[1])
        await prepare_bus(url, tmp_path)
        bus = open_bus(url, tmp_path)

        async def all_told():
            events = await on(bus)
            return wanted(built[1:]) <= {e["metadata"]["uid"] for e in events}

        await until(all_told)
        await bus.close()
    finally:
        await relay.stop()
        await running.stop()
        await sink.close()


async def _indexed(deployment, built):
    return await deployment.index.progress(built.session.hex()) is not None


def wanted(built):
    """The ids a SIEM must have got of whole sessions of three statements."""
    found = set()
    for each in built:
        name, last = each.session.hex(), len(each.frames)
        found |= {f"{name}:0:1:0", f"{name}:0:{last - 1}:0"}
        found |= {f"{name}:0:{3 + 2 * n}:{2 * n}" for n in range(3)}
        found |= {f"{name}:0:{last}:session-sealed"}
    return found
