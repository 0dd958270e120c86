import pytest

from sealtape.capture.bus import open_bus
from sealtape.capture.bus.base import Bus
from sealtape.capture.bus.kafka.bus import KafkaBus
from sealtape.schemas.errors import FormatError, SettingsError, StoreError, UsageError
from tests.conformance.bus import read_all, values
from tests.factories.kafka_topics import BASE, kafka_url, new_bus


def test_a_url_is_looked_at_before_anything_is_connected():
    bus: Bus = open_bus(kafka_url("h:1", partitions=5, retention="3d"), BASE)
    assert isinstance(bus, KafkaBus)
    assert bus.partitions == 5
    assert bus.retention_s == 3 * 86400
    assert bus.partition_of(bytes(7) + b"\x08" + bytes(8)) == 3
    assert open_bus(kafka_url("h:1", retention="0s"), BASE).retention_s is None
    with pytest.raises(SettingsError):
        open_bus("kafka://h:1/t?colour=red", BASE)


async def test_without_the_client_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SettingsError) as caught:
        open_bus(kafka_url("h:1"), BASE)
    assert "sealtape[kafka]" in caught.value.hint


async def test_only_what_the_bus_has_is_touched(kafka_server):
    bus = await new_bus(kafka_server.bootstrap, partitions=2)
    for use in (
        lambda: bus.append(2, [(b"", b"")]),
        lambda: bus.read(-1, 0, max_bytes=1, wait_s=0),
        lambda: bus.bounds(2),
        lambda: bus.mark("ingest", 2, 0),
        lambda: bus.marks(2),
        lambda: bus.trim(2, []),
    ):
        with pytest.raises(UsageError, match="no partition"):
            await use()
    with pytest.raises(FormatError):
        await bus.append(0, [(b"", b"good"), (b"", bytes((4 << 20) + 1))])
    assert await read_all(bus) == []
    await bus.close()
    for use in (bus.start, lambda: bus.bounds(0), lambda: bus.append(0, [])):
        with pytest.raises(StoreError, match="closed"):
            await use()


async def test_trim_deletes_nothing(kafka_server):
    bus = await new_bus(kafka_server.bootstrap)
    await bus.append(0, [(b"", b"stays")])
    await bus.mark("ingest", 0, 1)
    await bus.trim(0, ["ingest"])
    assert values(await read_all(bus)) == [b"stays"]
    await bus.close()


async def test_the_longest_message_passes(kafka_server):
    bus = await new_bus(kafka_server.bootstrap)
    longest = (bytes(16), bytes(4 << 20))
    await bus.append(0, [longest])
    (record,) = await read_all(bus)
    assert (record.key, record.value) == longest
    await bus.close()
