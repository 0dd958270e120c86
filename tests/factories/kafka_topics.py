"""Topics of their own for tests that share a broker."""

import asyncio
import secrets
from contextlib import asynccontextmanager
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from sealtape.capture.bus import open_bus, prepare_bus
from sealtape.capture.bus.kafka.url import parse_kafka_url
from sealtape.schemas.errors import StoreBusy

BASE = Path("/")


def kafka_url(bootstrap, topic=None, **options):
    """A `kafka:` URL on a broker without TLS and replicas, for a topic nobody else uses."""
    topic = topic or f"t-{secrets.token_hex(6)}"
    given = {"partitions": 1, "replicas": 1, "tls": "disable", "timeout": "10s", **options}
    query = "&".join(f"{name}={value}" for name, value in given.items())
    return f"kafka://{bootstrap}/{topic}?{query}"


async def new_topic(bootstrap, **options):
    """Create a topic, with patience whatever `timeout` the URL is to have; return its URL."""
    url = kafka_url(bootstrap, **options)
    await prepare_bus(kafka_url(bootstrap, topic_of(url), **{**options, "timeout": "60s"}), BASE)
    return url


async def new_bus(bootstrap, **options):
    """Create a topic; return a bus on it, started."""
    bus = open_bus(await new_topic(bootstrap, **options), BASE)
    await again(bus.start)
    return bus


async def again(work, seconds=90):
    """Do what may be refused on a loaded machine until it is done."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                return await work()
            except StoreBusy:
                await asyncio.sleep(0.1)


def topic_of(url):
    """The topic's name in a URL."""
    return url.partition("?")[0].rpartition("/")[2]


@asynccontextmanager
async def admin_of(bootstrap):
    """aiokafka's administration client: what an operator does with Kafka's own tools."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def delete_topic(bootstrap, url):
    """Delete a topic, and wait until the broker has forgotten it."""
    async with admin_of(bootstrap) as admin:
        answer = await admin.delete_topics([topic_of(url)])
        assert [code for _, code in answer.topic_error_codes] == [0]
        while topic_of(url) in await admin.list_topics():
            await asyncio.sleep(0.05)


async def foreign_topic(bootstrap, url, **configs):
    """Create a URL's topic as somebody else might, with settings of theirs."""
    parsed = parse_kafka_url(url, BASE)
    async with admin_of(bootstrap) as admin:
        topic = NewTopic(
            parsed.topic,
            parsed.partitions,
            parsed.replicas,
            topic_configs={name.replace("_", "."): str(value) for name, value in configs.items()},
        )
        answer = await admin.create_topics([topic])
        assert [error[1] for error in answer.topic_errors] == [0]
