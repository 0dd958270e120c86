"""The requests that name a topic by its id: their bytes, and asked of a real broker."""

import asyncio
import base64
import io
from types import SimpleNamespace

import pytest
from aiokafka.protocol.fetch import FetchRequest_v11
from aiokafka.protocol.produce import ProduceRequest_v7
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from sealtape.capture.bus.kafka import protocol
from sealtape.capture.bus.kafka.brokers import brokers_of
from sealtape.capture.bus.kafka.protocol import (
    FetchById,
    Id,
    MetadataById,
    ProduceById,
    id_text,
)
from sealtape.capture.bus.kafka.url import parse_kafka_url
from tests.factories.kafka_topics import BASE, new_topic

UNKNOWN_ID = 100
ID = bytes(range(16))


def batch(*values):
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 20)
    for number, value in enumerate(values):
        builder.append(number, 1, b"key", value, [])
    return bytes(builder.build())


@pytest.fixture
async def asked(kafka_server):
    url = parse_kafka_url(await new_topic(kafka_server.bootstrap, partitions=2), BASE)
    async with brokers_of(url) as brokers:
        found = await brokers.describe()
        asked = SimpleNamespace(
            name=url.topic, id=found.topic_id, ask=lambda one: brokers._ask(url.hosts[0], one)
        )
        for partition in (0, 1):  # the broker knows that it leads before it does
            while FetchById.outcome(await asked.ask(fetch(asked, partition=partition)))[0]:
                await asyncio.sleep(0.05)
        yield asked


def fetch(asked, topic_id=None, offset=0, partition=1, epoch=-1):
    topic_id = asked.id if topic_id is None else topic_id
    return FetchById(
        asked.name, topic_id, partition, offset, epoch=epoch, max_bytes=1 << 20, wait_ms=0
    )


async def test_a_topic_is_described_with_its_id(asked):
    answer = await asked.ask(MetadataById(asked.name))
    code, name, topic_id, internal, partitions, operations, _ = answer.topics[0]
    assert (code, name, topic_id, internal) == (0, asked.name, asked.id, False)
    assert sorted(part[1] for part in partitions) == [0, 1]
    assert operations & 1 << 3
    assert operations & 1 << 4


async def test_what_is_produced_by_id_is_fetched_by_id(asked):
    records = batch(b"one", b"two")
    answer = await asked.ask(ProduceById(asked.name, asked.id, 1, records, 5000))
    assert ProduceById.outcome(answer) == (0, 0)
    answer = await asked.ask(ProduceById(asked.name, asked.id, 1, records, 5000))
    assert ProduceById.outcome(answer) == (0, 2)
    code, found = FetchById.outcome(await asked.ask(fetch(asked)))
    assert code == 0
    assert found.count(b"one") == found.count(b"two") == 2
    code, found = FetchById.outcome(await asked.ask(fetch(asked, partition=0)))
    assert (code, found) == (0, b"")


async def test_another_topics_id_is_refused(asked):
    records = batch(b"stray")
    answer = await asked.ask(ProduceById(asked.name, ID, 1, records, 5000))
    assert ProduceById.outcome(answer)[0] == UNKNOWN_ID
    assert FetchById.outcome(await asked.ask(fetch(asked, ID)))[0] == UNKNOWN_ID
    assert FetchById.outcome(await asked.ask(fetch(asked)))[1] == b""


async def test_an_offset_that_is_not_there_is_told(asked):
    assert FetchById.outcome(await asked.ask(fetch(asked, offset=7)))[0] == 1


async def test_a_leader_of_another_election_does_not_answer(asked):
    for epoch, code in ((0, 0), (1, 75)):
        assert FetchById.outcome(await asked.ask(fetch(asked, epoch=epoch)))[0] == code


def test_older_brokers_are_asked_by_name():
    produce = ProduceById("t", ID, 3, b"records", 5000).build(ProduceRequest_v7)
    assert produce.topics == [("t", [(3, b"records")])]
    assert (produce.required_acks, produce.timeout) == (-1, 5000)
    asked = FetchById("t", ID, 3, 77, epoch=5, max_bytes=9, wait_ms=8).build(FetchRequest_v11)
    assert asked.topics == [("t", [(3, 5, 77, -1, 9)])]
    assert (asked.max_wait_time, asked.max_bytes, asked.isolation_level) == (8, 9, 0)


async def test_requests_by_name_are_understood_too(asked):
    """As brokers before 3.1 and 4.1 would get them."""

    class ByName:
        def __init__(self, request, version):
            self.request, self.version = request, version

        def prepare(self, versions):
            return self.request.build(self.version)

    request = ProduceById(asked.name, asked.id, 1, batch(b"one"), 5000)
    answer = await asked.ask(ByName(request, ProduceRequest_v7))
    assert ProduceById.outcome(answer) == (0, 0)
    answer = await asked.ask(ByName(fetch(asked), FetchRequest_v11))
    code, found = FetchById.outcome(answer)
    assert code == 0
    assert b"one" in found


def test_ids_are_shown_as_kafka_shows_them():
    assert id_text(ID) == base64.urlsafe_b64encode(ID).decode()[:22]
    assert Id.decode(io.BytesIO(Id.encode(ID))) == ID
    with pytest.raises(ValueError, match="UUID"):
        Id.decode(io.BytesIO(ID[:15]))


# -- without a broker: what is written is what the schemas read ------------------------------------


def sent(request, kind):
    """A request as its bytes say it."""
    data = request.build(kind).encode()
    decoded = kind.decode(io.BytesIO(data))
    assert decoded.encode() == data
    return decoded


def answered(kind, *values):
    return kind.decode(io.BytesIO(kind(*values).encode()))


def test_a_topic_is_asked_for_by_name_with_what_is_permitted():
    asked = sent(MetadataById("t"), protocol._MetadataRequest)
    assert asked.topics == [(bytes(16), "t", {})]
    assert asked.allow_auto_topic_creation is False
    assert asked.include_topic_operations is True


def test_records_are_produced_to_an_id():
    asked = sent(ProduceById("t", ID, 3, b"records", 5000), protocol._ProduceRequest)
    assert asked.topics == [(ID, [(3, b"records", {})], {})]
    assert (asked.required_acks, asked.timeout) == (-1, 5000)
    part = (3, 0, 42, -1, 0, [], None, {})
    answer = answered(protocol._ProduceResponse, [(ID, [part], {})], 0, {})
    assert ProduceById.outcome(answer) == (0, 42)


def test_records_are_fetched_by_an_id():
    request = FetchById("t", ID, 3, 77, epoch=5, max_bytes=9, wait_ms=8)
    asked = sent(request, protocol._FetchRequest)
    assert asked.topics == [(ID, [(3, 5, 77, -1, -1, 9, {})], {})]
    assert (asked.max_wait_ms, asked.max_bytes, asked.isolation_level) == (8, 9, 0)


@pytest.mark.parametrize(
    ("error", "code", "records", "outcome"),
    [
        (0, 0, b"batch", (0, b"batch")),
        (0, 1, None, (1, b"")),
        (71, 0, b"batch", (71, b"")),
    ],
)
def test_what_a_fetch_brings(error, code, records, outcome):
    part = (3, code, 100, 100, 0, [], -1, records, {})
    answer = answered(protocol._FetchResponse, 0, error, 0, [(ID, [part], {})], {})
    assert FetchById.outcome(answer) == outcome
