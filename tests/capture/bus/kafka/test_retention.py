"""How long a topic keeps messages, by what its brokers say."""

import asyncio
import logging

from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from sealtape.capture.bus import open_bus
from sealtape.capture.bus.kafka import retention
from tests.capture.bus.kafka.test_login import scram
from tests.factories.kafka_topics import BASE, admin_of, new_bus, new_topic, topic_of


async def alter(bootstrap, topic, kept_ms):
    resource = ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": str(kept_ms)})
    async with admin_of(bootstrap) as admin:
        await admin.alter_configs([resource])


async def test_a_retention_that_somebody_changes_is_noticed(kafka_server, monkeypatch, caplog):
    monkeypatch.setattr(retention, "ASK_EVERY_S", 0.0)
    bus = await new_bus(kafka_server.bootstrap, retention="7d")
    topic = bus.topic.partition("@")[0]
    await bus.bounds(0)
    assert bus.retention_s == 7 * 86400
    assert caplog.text == ""
    for kept_ms, expected in ((3_600_000, 3600.0), (-1, None)):
        await alter(kafka_server.bootstrap, topic, kept_ms)
        async with asyncio.timeout(20):
            while bus.retention_s != expected:
                await bus.bounds(0)
    assert "keeps messages for 3600 s now" in caplog.text
    assert "keeps messages for ever now" in caplog.text
    await bus.close()


async def test_it_is_not_asked_each_time(kafka_server):
    bus = await new_bus(kafka_server.bootstrap, retention="7d")
    await bus.bounds(0)
    await alter(kafka_server.bootstrap, bus.topic.partition("@")[0], 1000)
    await bus.bounds(0)
    assert bus.retention_s == 7 * 86400
    await bus.close()


async def test_whoever_may_not_ask_goes_by_the_url(kafka_tls_server, monkeypatch, caplog):
    monkeypatch.setattr(retention, "ASK_EVERY_S", 0.0)
    caplog.set_level(logging.INFO)
    topic = topic_of(await new_topic(kafka_tls_server.bootstrap))
    for operation in ("READ", "DESCRIBE"):
        await asyncio.to_thread(kafka_tls_server.allow, "ingest", operation, topic)
    bus = open_bus(scram(kafka_tls_server, topic, "ingest", retention="3d"), BASE)
    for _ in range(2):
        await bus.bounds(0)
    assert bus.retention_s == 3 * 86400
    assert caplog.text.count("is not known") == 1
    assert "ACLs" in caplog.text
    await bus.close()
