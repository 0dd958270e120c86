import asyncio
import secrets
import time

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError


async def _topic(bootstrap, **options):
    name = f"t-{secrets.token_hex(4)}"
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        topic = NewTopic(name, num_partitions=1, replication_factor=options.pop("replicas", 1))
        answer = await admin.create_topics([topic])
        assert [error[1] for error in answer.topic_errors] == [0]
    finally:
        await admin.close()
    return name


async def _send(bootstrap, topic, *values, timeout_s=20, idempotent=True):
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        acks="all",
        enable_idempotence=idempotent,
        compression_type="zstd",
        request_timeout_ms=timeout_s * 1000,
    )
    await producer.start()
    try:
        return [await producer.send_and_wait(topic, value, partition=0) for value in values]
    finally:
        await producer.stop()


async def _read(bootstrap, topic, count):
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 0)])
        await consumer.seek_to_beginning()
        return [(await asyncio.wait_for(consumer.getone(), 20)).value for _ in range(count)]
    finally:
        await consumer.stop()


async def test_carries_what_is_sent(kafka_server):
    topic = await _topic(kafka_server.bootstrap)
    await _send(kafka_server.bootstrap, topic, b"one", b"two" * 1000)
    assert await _read(kafka_server.bootstrap, topic, 2) == [b"one", b"two" * 1000]


async def test_topics_are_not_made_by_writing(kafka_server):
    with pytest.raises(KafkaError):
        await _send(kafka_server.bootstrap, "never-made", b"x", timeout_s=2, idempotent=False)


async def test_keeps_what_it_acknowledged_when_it_is_killed(kafka_alone):
    topic = await _topic(kafka_alone.bootstrap)
    await _send(kafka_alone.bootstrap, topic, b"kept")
    kafka_alone.kill()
    assert not kafka_alone.running
    kafka_alone.start()
    assert await _read(kafka_alone.bootstrap, topic, 1) == [b"kept"]


async def test_answers_nobody_while_it_is_paused(kafka_alone):
    topic = await _topic(kafka_alone.bootstrap)
    kafka_alone.pause()
    sending = asyncio.create_task(_send(kafka_alone.bootstrap, topic, b"late"))
    await asyncio.sleep(1)
    assert not sending.done()
    kafka_alone.resume()
    await sending


async def test_a_partition_outlives_its_leader(kafka_cluster):
    topic = await _topic(kafka_cluster.bootstrap, replicas=3)
    await _send(kafka_cluster.bootstrap, topic, b"one")
    leader = kafka_cluster.leader(topic)
    leader.kill()
    started = time.monotonic()
    rest = ",".join(one.bootstrap for one in kafka_cluster.brokers if one is not leader)
    await _send(rest, topic, b"two", timeout_s=40)
    assert time.monotonic() - started < 40
    assert await _read(rest, topic, 2) == [b"one", b"two"]
    kafka_cluster.heal()


async def test_below_the_minimum_of_replicas_nothing_is_acknowledged(kafka_cluster):
    topic = await _topic(kafka_cluster.bootstrap, replicas=3)
    await _send(kafka_cluster.bootstrap, topic, b"one")
    leader = kafka_cluster.leader(topic)
    others = [one for one in kafka_cluster.brokers if one is not leader]
    for other in others:
        other.kill()
    with pytest.raises(KafkaError):
        await _send(leader.bootstrap, topic, b"two", timeout_s=3, idempotent=False)
    kafka_cluster.heal()
    await _send(kafka_cluster.bootstrap, topic, b"three")
    assert (await _read(kafka_cluster.bootstrap, topic, 2))[0] == b"one"
