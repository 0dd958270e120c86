import asyncio
import os
import time

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import RecordsToDelete

from sealtape.capture.bus import open_bus
from sealtape.capture.bus.kafka import reader as readers
from sealtape.schemas.errors import Missing, StoreBusy, StoreCorrupt
from tests.conformance.bus import read_all, values
from tests.factories.kafka_topics import BASE, admin_of, again, foreign_topic, kafka_url, new_bus


@pytest.fixture
async def bus(kafka_server):
    bus = await new_bus(kafka_server.bootstrap, partitions=2)
    yield bus
    await bus.close()


def counted(bus, monkeypatch):
    """Count the fetches of a bus."""
    fetches = []
    fetch = bus._reader._fetch

    async def counting(partition, offset, *rest):
        fetches.append(offset)
        return await fetch(partition, offset, *rest)

    monkeypatch.setattr(bus._reader, "_fetch", counting)
    return fetches


async def test_what_a_fetch_brought_too_much_is_not_fetched_again(bus, monkeypatch):
    sent = [(b"", b"%d" % n) for n in range(100)]
    await bus.append(0, sent)
    fetches = counted(bus, monkeypatch)
    assert values(await read_all(bus, max_bytes=7)) == [value for _, value in sent]
    assert fetches == [0, 100]
    assert bus._reader._left_bytes == 0
    assert not bus._reader._left


async def test_what_is_kept_is_bounded(bus, monkeypatch):
    monkeypatch.setattr(readers, "KEEP_BYTES", 20_000)
    await bus.append(0, [(b"", os.urandom(1000)) for _ in range(50)])
    for offset in (0, 10, 20, 30, 40):
        await bus.read(0, offset, max_bytes=1, wait_s=0)
        held = sum(left.size for left in bus._reader._left.values())
        assert bus._reader._left_bytes == held <= 20_000
    fetches = counted(bus, monkeypatch)
    assert len(await read_all(bus)) == 50
    assert fetches[0] == 0


async def test_a_read_from_the_middle_of_a_batch_begins_there(bus):
    await bus.append(0, [(b"", b"%d" % n) for n in range(10)])
    batch = await bus.read(0, 4, max_bytes=2, wait_s=0)
    assert values(batch.records) == [b"4", b"5"]
    assert batch.next_offset == 6


async def test_times_are_the_brokers(bus):
    before = time.time_ns() // 1_000_000
    await bus.append(0, [(b"", b"now")])
    (record,) = await read_all(bus)
    assert before - 50 <= record.ts_ms <= time.time_ns() // 1_000_000 + 50


async def test_offsets_that_retention_deleted_are_missing(kafka_server, bus):
    await bus.append(0, [(b"", b"%d" % n) for n in range(10)])
    name = bus.topic.partition("@")[0]
    async with admin_of(kafka_server.bootstrap) as admin:
        await admin.delete_records({TopicPartition(name, 0): RecordsToDelete(before_offset=7)})
    assert await bus.bounds(0) == (7, 10)
    with pytest.raises(Missing) as caught:
        await bus.read(0, 3, max_bytes=100, wait_s=0)
    assert caught.value.context["offset"] == 3
    with pytest.raises(Missing):
        await bus.read(0, 11, max_bytes=100, wait_s=5)
    assert values(await read_all(bus)) == [b"7", b"8", b"9"]


async def test_markers_of_transactions_are_stepped_over(kafka_server, bus):
    """Nobody of ours writes any, but a topic is open to whoever its ACLs let in."""
    name = bus.topic.partition("@")[0]
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka_server.bootstrap, transactional_id=f"x-{name}"
    )
    await producer.start()
    for n in range(3):
        async with producer.transaction():
            await producer.send_and_wait(name, b"in %d" % n, partition=0)
    await producer.stop()
    await bus.append(0, [(b"", b"ours")])
    records = await read_all(bus)
    assert values(records) == [b"in 0", b"in 1", b"in 2", b"ours"]
    first, end = await bus.bounds(0)
    assert end - first == 4 + 3
    batch = await bus.read(0, 5, max_bytes=100, wait_s=0)
    assert batch.next_offset == 7


async def test_messages_without_key_or_value_have_empty_ones(kafka_server, bus):
    producer = AIOKafkaProducer(bootstrap_servers=kafka_server.bootstrap)
    await producer.start()
    name = bus.topic.partition("@")[0]
    await producer.send_and_wait(name, None, b"key", partition=1)
    await producer.send_and_wait(name, b"value", partition=1)
    await producer.stop()
    found = [(record.key, record.value) for record in await read_all(bus, 1)]
    assert found == [(b"key", b""), (b"", b"value")]


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_what_a_broker_compresses_is_read(kafka_server, codec):
    url = kafka_url(kafka_server.bootstrap)
    await foreign_topic(kafka_server.bootstrap, url, compression_type=codec)
    bus = open_bus(url, BASE)
    sent = [(b"k", b"again and " * 500) for _ in range(5)]
    await bus.append(0, sent)
    assert [(record.key, record.value) for record in await read_all(bus)] == sent
    await bus.close()


async def test_a_batch_that_the_brokers_disk_damaged_is_corrupt(kafka_alone):
    bus = await new_bus(kafka_alone.bootstrap)
    await bus.append(0, [(b"", b"whole")])
    await bus.append(0, [(b"", b"to be damaged")])
    name = bus.topic.partition("@")[0]
    (segment,) = (kafka_alone.place / "data" / f"{name}-0").glob("*.log")
    data = bytearray(segment.read_bytes())
    data[data.index(b"damaged")] ^= 1
    with segment.open("r+b") as file:
        file.write(data)
    with pytest.raises(StoreCorrupt, match="checksum"):
        await bus.read(0, 0, max_bytes=1000, wait_s=0)
    await bus.close()


async def test_by_name_all_is_the_same(kafka_server, by_name):
    bus = await new_bus(kafka_server.bootstrap)
    sent = [(b"k%d" % n, os.urandom(3000)) for n in range(30)]
    await bus.append(0, sent)
    found = await read_all(bus, max_bytes=5000)
    assert [(record.key, record.value) for record in found] == sent
    with pytest.raises(Missing):
        await bus.read(0, 31, max_bytes=1, wait_s=0)
    await bus.close()


async def test_readers_live_through_a_restart(kafka_alone):
    bus = await new_bus(kafka_alone.bootstrap, timeout="90s")
    await bus.append(0, [(b"", b"before")])
    assert values(await read_all(bus)) == [b"before"]
    waiting = asyncio.create_task(bus.read(0, 1, max_bytes=1000, wait_s=90))
    await asyncio.to_thread(kafka_alone.kill)
    await asyncio.to_thread(kafka_alone.start)
    await bus.append(0, [(b"", b"after")])
    assert values((await waiting).records) == [b"after"]
    await bus.close()


async def test_a_broker_that_hangs_is_busy_in_time(kafka_alone):
    bus = await new_bus(kafka_alone.bootstrap, timeout="1500ms")
    try:
        await again(lambda: bus.append(0, [(b"", b"kept")]))
        kafka_alone.pause()
        for use in (
            lambda: bus.read(0, 0, max_bytes=1, wait_s=0),
            lambda: bus.bounds(0),
        ):
            started = time.monotonic()
            with pytest.raises(StoreBusy):
                await use()
            assert time.monotonic() - started < 20
        kafka_alone.resume()
        found = values(await again(lambda: read_all(bus)))
        assert dict.fromkeys(found) == {b"kept": None}
    finally:
        kafka_alone.resume()
        await bus.close()


async def test_an_answer_that_ends_in_the_middle_is_asked_for_again(kafka_behind, line):
    bus = await new_bus(kafka_behind.bootstrap, timeout="10s")
    sent = [(b"", os.urandom(50_000)) for _ in range(20)]
    await bus.append(0, sent)

    line.poison("limit_data", bytes=200_000)
    reading = asyncio.create_task(bus.read(0, 0, max_bytes=2 << 20, wait_s=0))
    await asyncio.sleep(1)
    assert not reading.done()
    line.heal()
    assert values((await reading).records) == [value for _, value in sent]
    assert values(await read_all(bus)) == [value for _, value in sent]
    await bus.close()
