"""Three brokers: a leader dies, then there are too few, then all are back."""

import asyncio

import pytest

from sealtape.capture.bus import check_bus
from sealtape.schemas.errors import StoreBusy
from tests.conformance.bus import read_all, values
from tests.factories.kafka_appends import Stream
from tests.factories.kafka_topics import BASE, new_bus


@pytest.fixture
async def bus(kafka_cluster):
    bus = await new_bus(kafka_cluster.bootstrap, partitions=3, replicas=3, min_isr=2, timeout="6s")
    yield bus
    await asyncio.to_thread(kafka_cluster.heal)
    await bus.close()


def name_of(bus):
    return bus.topic.partition("@")[0]


async def kill_leader(cluster, bus, partition=0):
    leader = await asyncio.to_thread(cluster.leader, name_of(bus), partition)
    await asyncio.to_thread(leader.kill)
    return leader


async def replicas(bus, url_of):
    checks = await check_bus(url_of, BASE)
    return {check.level for check in checks if check.name == "bus: replicas"}


def url_of(bus):
    return bus._url.store.text_form


async def test_a_leader_that_dies_costs_seconds_and_nothing_else(kafka_cluster, bus):
    streams = [Stream(bus, number, b"%d" % number) for number in range(3)]
    for stream in streams:
        await stream.more()
    await kill_leader(kafka_cluster, bus)
    for stream in streams:
        await stream.more()
    await asyncio.to_thread(kafka_cluster.heal)
    for stream in streams:
        await stream.more()
        await stream.end()
        await stream.check()


async def test_below_the_minimum_nothing_is_acknowledged_and_nothing_lost(kafka_cluster, bus):
    stream = Stream(bus)
    await stream.more()
    await kill_leader(kafka_cluster, bus)
    await stream.more()
    await kill_leader(kafka_cluster, bus)
    async with asyncio.timeout(60):
        while not stream.failures:
            await asyncio.sleep(0.1)
    acknowledged = stream.acknowledged
    with pytest.raises(StoreBusy):
        await bus.append(0, [(b"other", b"alone")])
    assert stream.acknowledged == acknowledged
    assert await replicas(bus, url_of(bus)) == {"error"}
    await asyncio.to_thread(kafka_cluster.heal)
    await stream.more()
    await stream.end()
    await stream.check()
    found = [record.value for record in await read_all(bus) if record.key == b"other"]
    assert set(found) <= {b"alone"}
    async with asyncio.timeout(30):
        while await replicas(bus, url_of(bus)) != {"ok"}:
            await asyncio.sleep(0.2)


async def test_a_leader_that_hangs_does_not_hold_up_other_partitions(kafka_cluster, bus):
    """It still holds its connections, and the cluster needs a while to give it up."""
    leader = await asyncio.to_thread(kafka_cluster.leader, name_of(bus), 0)
    others = [
        number
        for number in (1, 2)
        if await asyncio.to_thread(kafka_cluster.leader, name_of(bus), number) is not leader
    ]
    if not others:
        pytest.fail("The three partitions of a new topic have one leader.")
    for number in range(3):
        await bus.append(number, [(b"", b"before")])
    leader.pause()
    try:
        stuck = Stream(bus, 0, b"stuck")
        free = Stream(bus, others[0], b"free")
        await free.more(20)
        await stuck.more(20)
    finally:
        leader.resume()
    for stream in (stuck, free):
        await stream.end()
        await stream.check()


async def test_reads_follow_the_leader(kafka_cluster, bus):
    await bus.append(0, [(b"", b"one")])
    assert values(await read_all(bus)) == [b"one"]
    waiting = asyncio.create_task(bus.read(0, 1, max_bytes=1000, wait_s=50))
    await asyncio.sleep(0.1)
    await kill_leader(kafka_cluster, bus)
    await bus.append(0, [(b"", b"two")])
    try:
        assert values((await waiting).records) == [b"two"]
    except StoreBusy:  # a new leader took longer than the six seconds that a read has
        assert values(await read_all(bus)) == [b"one", b"two"]
