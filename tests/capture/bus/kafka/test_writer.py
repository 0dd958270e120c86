import asyncio
import os
import time

import psutil
import pytest

from sealtape.capture.bus import open_bus
from sealtape.capture.bus.kafka.writer import BATCH_BYTES, LEAST_BYTES
from sealtape.schemas.errors import StoreBusy, StoreError
from tests.conformance.bus import read_all, values
from tests.factories.kafka_appends import Stream
from tests.factories.kafka_topics import BASE, again, foreign_topic, kafka_url, new_bus, new_topic


@pytest.fixture
async def bus(kafka_server):
    bus = await new_bus(kafka_server.bootstrap, partitions=2)
    yield bus
    await bus.close()


# -- a broker that works ---------------------------------------------------------------------------


async def test_large_appends_go_in_batches_that_any_topic_takes(bus):
    sent = [(b"%d" % n, os.urandom(60_000)) for n in range(50)]
    end = await bus.append(0, sent)
    records = await read_all(bus)
    assert [(record.key, record.value) for record in records] == sent
    assert end == records[-1].next_offset
    assert bus._writer._lanes[0].producer.sequence == 50


async def test_appends_that_wait_share_a_batch_and_each_learns_its_own_end(bus):
    ends = await asyncio.gather(
        *(bus.append(0, [(b"", b"%d" % n), (b"", b"%d'" % n)]) for n in range(200))
    )
    assert ends == list(range(2, 402, 2))


async def test_a_message_beyond_the_topics_limit_is_refused_and_only_it(kafka_server):
    bus = await small_topic(kafka_server.bootstrap)
    try:
        with pytest.raises(StoreError, match="longer than the topic") as caught:
            await bus.append(0, [(b"", b"before"), (b"", os.urandom(200_000))])
        assert "max.message.bytes" in caught.value.hint
        await bus.append(0, [(b"", b"after")])
        assert values(await read_all(bus))[-1] == b"after"
    finally:
        await bus.close()


async def test_a_batch_beyond_the_topics_limit_is_split(kafka_server):
    bus = await small_topic(kafka_server.bootstrap)
    try:
        sent = [(b"", os.urandom(50_000)) for _ in range(9)]
        await bus.append(0, sent)
        assert values(await read_all(bus)) == [value for _, value in sent]
    finally:
        await bus.close()


async def small_topic(bootstrap):
    """A topic that somebody else made, with a limit that is too low."""
    url = kafka_url(bootstrap)
    await foreign_topic(bootstrap, url, max_message_bytes=100_000)
    return open_bus(url, BASE)


async def test_compression_is_the_urls(kafka_server):
    bus = await new_bus(kafka_server.bootstrap, compression="zstd")
    try:
        sent = [(b"k", b"the same again " * 1000) for _ in range(20)]
        await bus.append(0, sent)
        assert [(r.key, r.value) for r in await read_all(bus)] == sent
    finally:
        await bus.close()


async def test_a_broker_that_forgot_the_producer_gets_a_new_one(bus):
    await bus.append(0, [(b"", b"one")])
    known = bus._writer._lanes[0].producer
    known.sequence += 5  # to the broker it looks as if batches were missing
    await bus.append(0, [(b"", b"two")])
    assert bus._writer._lanes[0].producer.id != known.id
    known.epoch += 1
    bus._writer._lanes[0].producer = known
    await bus.append(0, [(b"", b"three")])
    assert values(await read_all(bus)) == [b"one", b"two", b"three"]


async def test_sequence_numbers_wrap(bus):
    await bus.append(0, [(b"", b"zero")])
    lane = bus._writer._lanes[0]
    lane.producer = await bus._writer._introduce(5)
    lane.producer.sequence = (1 << 31) - 3  # a new producer may begin anywhere
    for n in range(4):
        await bus.append(0, [(b"", b"%d" % n), (b"", b"%d'" % n)])
    found = values(await read_all(bus))
    assert found == [b"zero", b"0", b"0'", b"1", b"1'", b"2", b"2'", b"3", b"3'"]


async def test_closing_finishes_what_is_on_its_way(bus):
    appends = [asyncio.create_task(bus.append(0, [(b"", b"%d" % n)])) for n in range(20)]
    await asyncio.sleep(0)
    await bus.close()
    assert await asyncio.gather(*appends) == list(range(1, 21))


# -- a broker that goes away -----------------------------------------------------------------------


async def test_restarts_in_the_middle_of_appends_lose_nothing(kafka_alone):
    bus = await new_bus(kafka_alone.bootstrap, partitions=2, timeout="3s")
    streams = [Stream(bus, 0), Stream(bus, 1, b"other", size=90_000)]
    try:
        for end in (kafka_alone.stop, kafka_alone.kill):
            for stream in streams:
                await stream.more()
            await asyncio.to_thread(end)
            await asyncio.sleep(1)
            await asyncio.to_thread(kafka_alone.start)
        for stream in streams:
            await stream.more()
            await stream.end()
            await stream.check()
    finally:
        await bus.close()


async def test_a_broker_that_hangs_is_busy_in_time_and_costs_no_memory(kafka_alone):
    bus = await new_bus(kafka_alone.bootstrap, timeout="1500ms")
    stream = Stream(bus)
    try:
        await stream.more()
        kafka_alone.pause()
        process = psutil.Process()
        large = [(b"large", os.urandom(1 << 20)) for _ in range(4)]
        grown = []
        for _ in range(4):
            started = time.monotonic()
            with pytest.raises(StoreBusy, match=r"does not answer|has no leader|closed"):
                await bus.append(0, large)
            assert time.monotonic() - started < 20
            grown.append(process.memory_info().rss)
        assert grown[-1] - grown[0] < 30 << 20
        kafka_alone.resume()
        await stream.more()
        await stream.end()
        await stream.check()
        assert stream.failures
        await again(lambda: bus.append(0, large))
    finally:
        kafka_alone.resume()
        await bus.close()


async def test_one_that_is_not_there_is_busy_at_once_and_needs_no_restart(kafka_alone):
    url = await new_topic(kafka_alone.bootstrap, timeout="2s")
    await asyncio.to_thread(kafka_alone.stop)
    bus = open_bus(url, BASE)
    try:
        with pytest.raises(StoreBusy):
            await bus.start()
        stream = Stream(bus)
        await asyncio.sleep(1)
        await asyncio.to_thread(kafka_alone.start)
        await stream.more()
        await stream.end()
        await stream.check()
    finally:
        await bus.close()


# -- a line that loses, slows and cuts -------------------------------------------------------------


async def test_an_answer_that_is_lost_doubles_nothing(kafka_behind, line):
    bus = await new_bus(kafka_behind.bootstrap, timeout="60s")
    stream = Stream(bus)
    try:
        await stream.more()
        for _ in range(3):
            with line.toxic("timeout", timeout=300):  # answers vanish, then the line is cut
                await asyncio.sleep(1)
            await stream.more()
        await stream.end()
        assert stream.failures == []
        await stream.check(twice=False)
    finally:
        await bus.close()


async def test_cuts_and_resets_lose_nothing(kafka_behind, line):
    bus = await new_bus(kafka_behind.bootstrap, timeout="3s")
    stream = Stream(bus, size=40_000)
    try:
        for _ in range(3):
            await stream.more(30)
            line.cut()
            await asyncio.sleep(0.3)
            line.heal()
            await stream.more(30)
            with line.resetting():
                await asyncio.sleep(0.3)
        await stream.more(30)
        await stream.end()
        await stream.check()
    finally:
        await bus.close()


async def test_batches_shrink_on_a_slow_line_until_they_pass(kafka_behind, line):
    bus = await new_bus(kafka_behind.bootstrap, timeout="3s")
    lane = bus._writer._lanes[0]
    messages = [(b"", os.urandom(8000)) for _ in range(40)]
    try:
        await again(lambda: bus.append(0, messages[:1]))
        with line.throttled(40):
            with pytest.raises(StoreBusy):
                await bus.append(0, messages)
            assert lane.batch_bytes < BATCH_BYTES
            lane.batch_bytes = LEAST_BYTES
            started = time.monotonic()
            await again(lambda: bus.append(0, messages[:10]))
            assert time.monotonic() - started > 1
        for _ in range(8):
            await again(lambda: bus.append(0, messages[:1]))
        assert lane.batch_bytes == BATCH_BYTES
    finally:
        await bus.close()


async def test_a_half_open_line_is_noticed(kafka_behind, line):
    bus = await new_bus(kafka_behind.bootstrap, timeout="2s")
    try:
        await again(lambda: bus.append(0, [(b"", b"one")]))
        with line.half_open(), pytest.raises(StoreBusy):
            await bus.append(0, [(b"", b"two")])
        await again(lambda: bus.append(0, [(b"", b"three")]))
        found = dict.fromkeys(values(await again(lambda: read_all(bus))))
        assert [value for value in found if value != b"two"] == [b"one", b"three"]
    finally:
        await bus.close()
