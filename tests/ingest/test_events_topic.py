"""Events go on in the topic that took the place of theirs; nothing else does so."""

import logging
import shutil

import pytest

from sealtape.capture.bus import open_bus
from sealtape.ingest.events_topic import EventsTopic, open_events
from sealtape.schemas.errors import StoreBusy, StoreError
from sealtape.schemas.settings import load_settings
from tests.conformance.bus import read_all, values

URL = "dir:events?partitions=2"


@pytest.fixture
async def topic(tmp_path):
    topic = EventsTopic(URL, tmp_path)
    yield topic
    await topic.close()


def made_anew(folder, url=URL):
    shutil.rmtree(folder / "events")
    return open_bus(url, folder)


async def test_it_is_a_bus_to_write_to(topic):
    await topic.start()
    assert topic.partitions == 2
    await topic.append(topic.partition_of(b"\x01" * 16), [(b"k", b"one")])
    await topic.trim(0, ())
    assert (await topic.bounds(0)) == (0, 0)
    assert (await topic.bounds(1))[1] > 0


@pytest.mark.parametrize(
    "use",
    [
        lambda topic: topic.append(0, [(b"", b"new")]),
        lambda topic: topic.bounds(0),
        lambda topic: topic.trim(0, ()),
    ],
    ids=["append", "bounds", "trim"],
)
async def test_it_goes_on_in_the_topic_that_was_made_anew(topic, tmp_path, caplog, use):
    await topic.append(0, [(b"", b"old")])
    other = made_anew(tmp_path)
    with caplog.at_level(logging.WARNING), pytest.raises(StoreBusy, match="made anew"):
        await use(topic)
    [record] = [record for record in caplog.records if record.name.endswith("events_topic")]
    assert "what nobody had read of it is lost" in record.getMessage()
    await use(topic)
    await topic.append(0, [(b"", b"last")])
    assert values(await read_all(other))[-1] == b"last"
    assert b"old" not in values(await read_all(other))
    await other.close()


async def test_while_it_is_deleted_nothing_is_made(topic, tmp_path):
    await topic.append(0, [(b"", b"old")])
    shutil.rmtree(tmp_path / "events")
    with pytest.raises(StoreError, match="is not there"):
        await topic.append(0, [(b"", b"new")])
    assert not (tmp_path / "events").exists()


async def test_one_that_is_not_what_the_url_says_is_a_fault_of_the_store(topic, tmp_path):
    """Sealing goes on without events, so it is not the end of a process."""
    await topic.append(0, [(b"", b"old")])
    other = made_anew(tmp_path, "dir:events?partitions=3")
    for _ in range(2):
        with pytest.raises(StoreError, match="3 partitions") as caught:
            await topic.append(0, [(b"", b"new")])
        assert not isinstance(caught.value, StoreBusy)
    await other.close()


async def test_the_settings_name_it(tmp_path):
    settings = load_settings('[deployment]\nmode = "dev"\n', base=str(tmp_path))
    topic = open_events(settings)
    await topic.start()
    assert (tmp_path / "events" / "bus.json").exists()
    await topic.close()
