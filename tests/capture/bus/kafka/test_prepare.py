import asyncio

import pytest

from sealtape.capture.bus import open_bus, prepare_bus
from sealtape.capture.bus.kafka.brokers import brokers_of
from sealtape.capture.bus.kafka.url import parse_kafka_url
from sealtape.capture.bus.kafka.wanted import wanted
from sealtape.schemas.errors import StoreBusy, StoreError
from tests.factories.kafka_topics import BASE, foreign_topic, kafka_url, topic_of
from tests.servers.process import free_port


async def settings_of(url):
    parsed = parse_kafka_url(url, BASE)
    async with brokers_of(parsed) as brokers:
        return await brokers.settings(parsed.hosts[0])


async def test_a_topic_is_made_as_the_url_says_and_only_once(kafka_server):
    url = kafka_url(kafka_server.bootstrap, partitions=3, retention="36h")
    assert await prepare_bus(url, BASE) == [
        f"created the topic {topic_of(url)}: 3 partitions, 1 replicas, 1 must acknowledge"
    ]
    assert await prepare_bus(url, BASE) == []
    found = await settings_of(url)
    good = wanted(parse_kafka_url(url, BASE))
    assert {name: found[name] for name in good} == good
    assert good["retention.ms"] == str(36 * 3600 * 1000)
    bus = open_bus(url, BASE)
    await bus.append(2, [(b"", b"at once")])
    await bus.close()


async def test_two_who_prepare_at_once_make_one_topic(kafka_server):
    url = kafka_url(kafka_server.bootstrap)
    done = await asyncio.gather(*(prepare_bus(url, BASE) for _ in range(4)))
    assert sum(map(len, done)) == 1


async def test_a_topic_that_is_there_is_not_changed(kafka_server):
    url = kafka_url(kafka_server.bootstrap)
    await foreign_topic(kafka_server.bootstrap, url, cleanup_policy="compact")
    assert await prepare_bus(url, BASE) == []
    assert (await settings_of(url))["cleanup.policy"] == "compact"


async def test_another_number_of_partitions_is_an_error(kafka_server):
    url = kafka_url(kafka_server.bootstrap, partitions=2)
    await prepare_bus(url, BASE)
    with pytest.raises(StoreError, match="2 partitions, not 3"):
        await prepare_bus(url.replace("partitions=2", "partitions=3"), BASE)


async def test_more_replicas_than_brokers_are_refused_with_words(kafka_server):
    url = kafka_url(kafka_server.bootstrap, replicas=3)
    with pytest.raises(StoreError, match="fewer brokers") as caught:
        await prepare_bus(url, BASE)
    assert "replicas" in caught.value.hint


async def test_brokers_that_are_away_are_busy():
    with pytest.raises(StoreBusy):
        await prepare_bus(kafka_url(f"127.0.0.1:{free_port()}"), BASE)
