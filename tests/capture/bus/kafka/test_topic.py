import asyncio
import time

import pytest

from sealtape.capture.bus import open_bus, prepare_bus
from sealtape.capture.bus.kafka import topic as topics
from sealtape.schemas.errors import Missing, StoreBusy, StoreError
from tests.conformance.bus import read_all, values
from tests.factories.kafka_topics import (
    BASE,
    delete_topic,
    kafka_url,
    new_bus,
    new_topic,
    topic_of,
)
from tests.servers.process import free_port


async def test_a_topic_is_its_name_and_its_id(kafka_server):
    url = await new_topic(kafka_server.bootstrap)
    bus = open_bus(url, BASE)
    with pytest.raises(StoreError, match="not started"):
        _ = bus.topic
    await bus.start()
    name, _, topic_id = bus.topic.partition("@")
    assert name == topic_of(url)
    assert len(topic_id) == 22
    await bus.close()


async def test_everything_else_starts_the_bus_by_itself(kafka_server):
    url = await new_topic(kafka_server.bootstrap)
    for use in (
        lambda bus: bus.append(0, [(b"k", b"v")]),
        lambda bus: bus.read(0, 0, max_bytes=1, wait_s=0),
        lambda bus: bus.bounds(0),
        lambda bus: bus.mark("ingest", 0, 1),
        lambda bus: bus.marks(0),
    ):
        bus = open_bus(url, BASE)
        await use(bus)
        assert "@" in bus.topic
        await bus.close()


async def test_a_topic_that_is_not_there_names_what_makes_it(kafka_server):
    bus = open_bus(kafka_url(kafka_server.bootstrap), BASE)
    with pytest.raises(StoreError, match="does not exist") as caught:
        await bus.start()
    assert not isinstance(caught.value, StoreBusy)
    assert "sealtape setup" in caught.value.hint
    await bus.close()


async def test_a_topic_that_is_just_being_made_is_waited_for(kafka_server):
    url = kafka_url(kafka_server.bootstrap)
    bus = open_bus(url, BASE)
    starting = asyncio.create_task(bus.start())
    await asyncio.sleep(0.2)
    await prepare_bus(url, BASE)
    await starting
    await bus.close()


async def test_another_number_of_partitions_is_an_error(kafka_server):
    url = await new_topic(kafka_server.bootstrap, partitions=2)
    bus = open_bus(url.replace("partitions=2", "partitions=3"), BASE)
    with pytest.raises(StoreError, match="2 partitions, not 3"):
        await bus.start()
    await bus.close()


async def test_brokers_that_are_away_are_busy(kafka_server):
    bus = open_bus(kafka_url(f"127.0.0.1:{free_port()}", timeout="1s"), BASE)
    for use in (bus.start, lambda: bus.bounds(0), lambda: bus.append(0, [(b"", b"")])):
        started = time.monotonic()
        with pytest.raises(StoreBusy):
            await use()
        assert time.monotonic() - started < 20
    await bus.close()


async def test_one_of_several_addresses_is_enough(kafka_server):
    hosts = f"127.0.0.1:{free_port()},{kafka_server.bootstrap}"
    bus = await new_bus(hosts)
    await bus.append(0, [(b"", b"one")])
    assert values(await read_all(bus)) == [b"one"]
    await bus.close()


# -- deleted and made anew -------------------------------------------------------------------------


async def make_anew(server, url):
    await delete_topic(server.bootstrap, url)
    await prepare_bus(url, BASE)


async def test_a_topic_made_anew_is_another_topic(kafka_server):
    url = await new_topic(kafka_server.bootstrap)
    names = []
    for _ in range(2):
        bus = open_bus(url, BASE)
        await bus.start()
        names.append(bus.topic)
        await bus.close()
        await make_anew(kafka_server, url)
    assert names[0] != names[1]
    assert {name.partition("@")[0] for name in names} == {topic_of(url)}


@pytest.mark.parametrize(
    "use",
    [
        lambda bus: bus.append(0, [(b"", b"stray")]),
        lambda bus: bus.read(0, 0, max_bytes=100, wait_s=0),
        lambda bus: bus.read(0, 1, max_bytes=100, wait_s=0),
        lambda bus: bus.read(0, 9, max_bytes=100, wait_s=0),
        lambda bus: bus.bounds(0),
    ],
    ids=["append", "read the first", "read on", "read beyond", "bounds"],
)
async def test_a_running_bus_never_goes_on_in_another_topic(kafka_server, use):
    url = await new_topic(kafka_server.bootstrap)
    bus = open_bus(url, BASE)
    await bus.append(0, [(b"", b"old")])
    await make_anew(kafka_server, url)
    other = open_bus(url, BASE)
    await other.append(0, [(b"", b"new one"), (b"", b"new two")])
    for _ in range(2):
        with pytest.raises(StoreError, match="deleted and made anew") as caught:
            await use(bus)
        assert not isinstance(caught.value, StoreBusy | Missing)
    assert values(await read_all(other)) == [b"new one", b"new two"]
    await bus.close()
    await other.close()


async def test_where_only_names_are_understood_another_topic_is_noticed_in_time(
    kafka_server, by_name, monkeypatch
):
    monkeypatch.setattr(topics, "MAX_AGE_S", 0.2)
    url = await new_topic(kafka_server.bootstrap)
    bus = open_bus(url, BASE)
    await bus.append(0, [(b"", b"old")])
    assert values(await read_all(bus)) == [b"old"]
    await make_anew(kafka_server, url)
    await asyncio.sleep(0.25)
    for use in (
        lambda: bus.append(0, [(b"", b"stray")]),
        lambda: bus.read(0, 0, max_bytes=100, wait_s=0),
        lambda: bus.bounds(0),
    ):
        with pytest.raises(StoreError, match="deleted and made anew"):
            await use()
    await bus.close()


async def test_each_new_connection_begins_with_the_question_which_topic_it_is(
    kafka_server, by_name
):
    url = await new_topic(kafka_server.bootstrap)
    bus = open_bus(url, BASE)
    await bus.append(0, [(b"", b"old")])
    await make_anew(kafka_server, url)
    for connection in [one for some in bus._topic._wire._idle.values() for one in some]:
        await connection.end()
    with pytest.raises(StoreError, match="deleted and made anew"):
        await bus.append(0, [(b"", b"stray")])
    await bus.close()


async def test_a_topic_that_was_deleted_is_an_error_and_not_a_wait(kafka_server):
    url = await new_topic(kafka_server.bootstrap)
    bus = open_bus(url, BASE)
    await bus.append(0, [(b"", b"old")])
    await delete_topic(kafka_server.bootstrap, url)
    for use in (
        lambda: bus.append(0, [(b"", b"stray")]),
        lambda: bus.read(0, 0, max_bytes=100, wait_s=0),
        lambda: bus.bounds(0),
    ):
        with pytest.raises(StoreError, match="does not exist"):
            await use()
    await bus.close()


async def test_who_asks_at_the_same_time_shares_the_answer(kafka_server, monkeypatch):
    bus = await new_bus(kafka_server.bootstrap)
    learnt = []
    learn = bus._topic._learn
    monkeypatch.setattr(bus._topic, "_learn", lambda answer: (learnt.append(1), learn(answer)))
    await asyncio.gather(*(bus._topic.refresh() for _ in range(20)))
    assert len(learnt) <= 2
    await bus.close()
