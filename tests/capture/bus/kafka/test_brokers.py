import pytest

from sealtape.capture.bus.kafka.brokers import brokers_of
from sealtape.capture.bus.kafka.url import parse_kafka_url
from sealtape.schemas.errors import StoreBusy, StoreError
from tests.factories.kafka_topics import BASE, kafka_url, new_topic
from tests.servers.process import free_port


async def test_what_a_broker_says_of_a_topic(kafka_server):
    url = parse_kafka_url(await new_topic(kafka_server.bootstrap, partitions=2), BASE)
    async with brokers_of(url) as brokers:
        found = await brokers.describe()
        assert found.nodes == {1: url.hosts[0]}
        assert found.code == 0
        assert any(found.topic_id)
        assert sorted(part.number for part in found.partitions) == [0, 1]
        assert all((p.leader, p.replicas, p.in_sync) == (1, (1,), (1,)) for p in found.partitions)
        assert found.operations >= {"read", "write", "describe"}
        assert (await brokers.settings(url.hosts[0]))["cleanup.policy"] == "delete"
        assert await brokers.create(url.hosts[0]) is False


async def test_the_second_address_is_asked_when_the_first_is_away(kafka_server):
    hosts = f"127.0.0.1:{free_port()},{kafka_server.bootstrap}"
    async with brokers_of(parse_kafka_url(kafka_url(hosts), BASE)) as brokers:
        assert (await brokers.describe()).code == 3


async def test_what_is_not_there_has_no_settings(kafka_server):
    url = parse_kafka_url(kafka_url(kafka_server.bootstrap), BASE)
    async with brokers_of(url) as brokers:
        with pytest.raises(StoreError, match="does not exist"):
            await brokers.settings(url.hosts[0])


async def test_nobody_there_is_busy():
    url = parse_kafka_url(kafka_url(f"127.0.0.1:{free_port()}"), BASE)
    async with brokers_of(url) as brokers:
        with pytest.raises(StoreBusy):
            await brokers.describe()
