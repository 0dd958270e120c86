"""What every bus adapter must do. A test module gives `bus_url`, a fresh bus per test."""

import asyncio
import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from sealtape.capture.bus import check_bus, open_bus, prepare_bus
from sealtape.schemas.errors import Missing, SealtapeError, StoreError

APPENDER = """
import asyncio, sys
from pathlib import Path
from sealtape.capture.bus import open_bus

async def main(url, name, size, count):
    bus = open_bus(url, Path("/"))
    for n in range(count):
        key = name.encode()
        values = [(key, b"%s %d " % (key, 3 * n + i) + b"x" * size) for i in range(3)]
        await bus.append(0, values)
        print(3 * n + 2, flush=True)
    await bus.close()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
"""


def appender(url, name, size, count):
    command = [sys.executable, "-c", APPENDER, url, name, str(size), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


async def read_all(bus, partition=0, offset=None, max_bytes=1 << 20):
    if offset is None:
        offset, _ = await bus.bounds(partition)
    records = []
    while True:
        batch = await bus.read(partition, offset, max_bytes=max_bytes, wait_s=0)
        if not batch.records:
            return records
        records += batch.records
        offset = batch.next_offset


def values(records):
    return [record.value for record in records]


class BusContract:
    @pytest.fixture
    async def bus(self, bus_url):
        bus = open_bus(bus_url, Path("/"))
        await bus.start()
        yield bus
        await bus.close()

    async def test_a_new_bus_is_empty(self, bus):
        first, end = await bus.bounds(0)
        assert first == end
        batch = await bus.read(0, first, max_bytes=1000, wait_s=0)
        assert batch.records == []
        assert batch.next_offset == first

    async def test_starting_again_does_nothing(self, bus):
        topic = bus.topic
        await bus.append(0, [(b"", b"kept")])
        await bus.start()
        assert bus.topic == topic
        assert values(await read_all(bus)) == [b"kept"]

    async def test_what_is_kept_at_most_is_told(self, bus):
        assert bus.retention_s is None or bus.retention_s > 0

    async def test_offsets_that_are_not_kept_are_missing(self, bus):
        _, end = await bus.bounds(0)
        with pytest.raises(Missing):
            await bus.read(0, end + 1000, max_bytes=1000, wait_s=0)
        await bus.append(0, [(b"", b"one"), (b"", b"two")])
        _, end = await bus.bounds(0)
        with pytest.raises(Missing):
            await bus.read(0, end + 1000, max_bytes=1000, wait_s=0.1)
        assert values(await read_all(bus)) == [b"one", b"two"]

    async def test_messages_come_back_in_order_with_their_keys(self, bus):
        sent = [(b"k%d" % n, os.urandom(n)) for n in range(40)]
        for at in range(0, 40, 8):
            await bus.append(0, sent[at : at + 8])
        records = await read_all(bus)
        assert [(record.key, record.value) for record in records] == sent

    async def test_append_returns_the_offset_after_its_own_last_message(self, bus):
        ends = await asyncio.gather(
            *(bus.append(0, [(b"", b"%d" % n), (b"", b"%d'" % n)]) for n in range(5))
        )
        records = await read_all(bus)
        by_value = {record.value: record for record in records}
        for n, end in enumerate(ends):
            assert by_value[b"%d'" % n].next_offset == end
        assert ends[-1] == (await bus.bounds(0))[1]

    async def test_offsets_grow_and_name_the_same_message_for_ever(self, bus, bus_url):
        for n in range(6):
            await bus.append(0, [(b"k", b"%d" % n)])
        records = await read_all(bus)
        assert all(a.offset < a.next_offset <= b.offset for a, b in pairwise(records))
        other = open_bus(bus_url, Path("/"))
        try:
            for n, record in enumerate(records):
                batch = await other.read(0, record.offset, max_bytes=1, wait_s=0)
                assert values(batch.records) == [b"%d" % n]
                assert batch.next_offset == record.next_offset
        finally:
            await other.close()

    async def test_reading_changes_nothing(self, bus):
        await bus.append(0, [(b"k", b"one"), (b"k", b"two")])
        first, _ = await bus.bounds(0)
        once = await bus.read(0, first, max_bytes=1000, wait_s=0)
        again = await bus.read(0, first, max_bytes=1000, wait_s=0)
        assert once == again

    async def test_a_batch_is_bounded_but_never_empty(self, bus):
        await bus.append(0, [(b"", b"x" * 100) for _ in range(10)])
        first, _ = await bus.bounds(0)
        assert len((await bus.read(0, first, max_bytes=350, wait_s=0)).records) == 3
        assert len((await bus.read(0, first, max_bytes=1, wait_s=0)).records) == 1
        assert len(await read_all(bus, max_bytes=250)) == 10

    async def test_a_large_message_passes(self, bus):
        large = os.urandom(3 << 20)
        await bus.append(0, [(b"", b"small"), (b"", large), (b"", b"after")])
        assert values(await read_all(bus, max_bytes=1000)) == [b"small", large, b"after"]

    async def test_a_message_beyond_the_limit_is_refused_alone(self, bus):
        good = asyncio.create_task(bus.append(0, [(b"", b"good")]))
        with pytest.raises(SealtapeError):
            await bus.append(0, [(b"", bytes((4 << 20) + 1))])
        await good
        assert values(await read_all(bus)) == [b"good"]

    async def test_read_waits_for_the_first_message(self, bus):
        _, end = await bus.bounds(0)
        reading = asyncio.create_task(bus.read(0, end, max_bytes=1000, wait_s=10))
        await asyncio.sleep(0.05)
        assert not reading.done()
        await bus.append(0, [(b"", b"late")])
        async with asyncio.timeout(9):
            assert values((await reading).records) == [b"late"]

    async def test_read_waits_for_another_process(self, bus, bus_url):
        _, end = await bus.bounds(0)
        process = appender(bus_url, "other", 10, 1)
        try:
            batch = await bus.read(0, end, max_bytes=1000, wait_s=20)
            assert batch.records[0].value.startswith(b"other 0 ")
        finally:
            process.communicate()

    async def test_read_gives_up_after_its_time(self, bus):
        _, end = await bus.bounds(0)
        async with asyncio.timeout(30):
            batch = await bus.read(0, end, max_bytes=1000, wait_s=0.1)
        assert batch.next_offset == end

    async def test_a_read_that_waits_holds_up_nobody(self, bus):
        ends = [(await bus.bounds(n))[1] for n in range(3)]
        waiting = [
            asyncio.create_task(bus.read(n, ends[n], max_bytes=1000, wait_s=20))
            for n in (0, 0, 1, 1, 2)
        ]
        await asyncio.sleep(0.1)
        async with asyncio.timeout(15):
            await bus.append(2, [(b"", b"two")])
            assert values((await waiting[4]).records) == [b"two"]
            assert values(await read_all(bus, 2)) == [b"two"]
        assert not any(task.done() for task in waiting[:4])
        await bus.append(0, [(b"", b"zero")])
        await bus.append(1, [(b"", b"one")])
        found = [values((await task).records) for task in waiting[:4]]
        assert found == [[b"zero"], [b"zero"], [b"one"], [b"one"]]

    async def test_readers_at_several_places_do_not_disturb_each_other(self, bus):
        sent = [(b"%d" % n, os.urandom(200)) for n in range(60)]
        await bus.append(0, sent)
        first, _ = await bus.bounds(0)

        async def read_slowly(max_bytes):
            found, offset = [], first
            while len(found) < len(sent):
                batch = await bus.read(0, offset, max_bytes=max_bytes, wait_s=0)
                found += [(record.key, record.value) for record in batch.records]
                offset = batch.next_offset
                await asyncio.sleep(0)
            return found

        found = await asyncio.gather(*(read_slowly(n) for n in (1, 450, 450, 900, 1 << 20)))
        assert found == [sent] * 5

    async def test_a_caller_that_gives_up_leaves_a_working_bus(self, bus):
        _, end = await bus.bounds(0)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await bus.read(0, end, max_bytes=1000, wait_s=20)
        dropped = asyncio.create_task(bus.append(0, [(b"", b"given up")]))
        await asyncio.sleep(0)
        dropped.cancel()
        await bus.append(0, [(b"", b"kept")])
        await asyncio.gather(dropped, return_exceptions=True)
        assert [value for value in values(await read_all(bus)) if value == b"kept"] == [b"kept"]

    async def test_what_was_prepared_passes_its_checks(self, bus, bus_url):
        assert await prepare_bus(bus_url, Path("/")) == []
        checks = await check_bus(bus_url, Path("/"))
        assert checks
        assert [check for check in checks if check.level == "error"] == []

    async def test_partitions_are_separate_and_fixed(self, bus):
        assert bus.partitions >= 2
        await bus.append(0, [(b"", b"zero")])
        await bus.append(1, [(b"", b"one")])
        assert values(await read_all(bus, 0)) == [b"zero"]
        assert values(await read_all(bus, 1)) == [b"one"]
        with pytest.raises(SealtapeError):
            await bus.append(bus.partitions, [(b"", b"")])

    async def test_a_session_belongs_to_one_partition(self, bus):
        session = bytes(7) + b"\x03" + bytes(8)
        assert bus.partition_of(session) == 3 % bus.partitions

    async def test_an_empty_append_does_nothing(self, bus):
        before = (await bus.bounds(0))[1]
        assert await bus.append(0, []) == before
        assert (await bus.bounds(0))[1] == before

    async def test_everything_is_there_after_opening_again(self, bus, bus_url):
        await bus.append(0, [(b"k", b"kept")])
        await bus.mark("ingest", 0, 7)
        topic = bus.topic
        await bus.close()
        again = open_bus(bus_url, Path("/"))
        try:
            await again.start()
            assert again.topic == topic
            assert values(await read_all(again)) == [b"kept"]
            assert await again.marks(0) == {"ingest": 7}
            await again.append(0, [(b"k", b"more")])
            assert values(await read_all(again)) == [b"kept", b"more"]
        finally:
            await again.close()

    async def test_marks_are_per_consumer_and_partition(self, bus):
        assert await bus.marks(0) == {}
        await bus.mark("ingest", 0, 5)
        await bus.mark("indexer", 0, 3)
        await bus.mark("ingest", 0, 9)
        await bus.mark("ingest", 1, 1)
        assert await bus.marks(0) == {"ingest": 9, "indexer": 3}
        assert await bus.marks(1) == {"ingest": 1}
        with pytest.raises(SealtapeError):
            await bus.mark("../escape", 0, 1)

    async def test_trim_never_deletes_what_a_consumer_still_needs(self, bus):
        await bus.append(0, [(b"", b"%d" % n) for n in range(50)])
        records = await read_all(bus)
        await bus.trim(0, ["ingest", "indexer"])
        await bus.mark("ingest", 0, records[-1].next_offset)
        await bus.trim(0, ["ingest", "indexer"])
        assert await read_all(bus) == records
        await bus.mark("indexer", 0, records[20].offset)
        await bus.trim(0, ["ingest", "indexer"])
        first, end = await bus.bounds(0)
        assert first <= records[20].offset
        assert end == records[-1].next_offset
        kept = await read_all(bus)
        assert kept == records[-len(kept) :]
        if first > records[0].offset:
            with pytest.raises(Missing):
                await bus.read(0, records[0].offset, max_bytes=1000, wait_s=0)

    async def test_appenders_in_several_processes_keep_their_own_order(self, bus, bus_url):
        processes = [appender(bus_url, name, 500, 30) for name in ("a", "b", "c")]
        mine = [(b"me", b"me %d " % n) for n in range(30)]
        for message in mine:
            await bus.append(0, [message])
        for process in processes:
            assert process.communicate()[0]
            assert process.returncode == 0
        records = await read_all(bus)
        assert len(records) == 3 * 90 + 30
        for name, count in ((b"a", 90), (b"b", 90), (b"c", 90), (b"me", 30)):
            numbers = [int(r.value.split()[1]) for r in records if r.key == name]
            assert numbers == list(range(count))

    @pytest.mark.parametrize("size", [100, 300_000])
    async def test_an_appender_killed_at_any_moment_loses_nothing_acknowledged(
        self, bus, bus_url, size
    ):
        total = 0
        for victim in range(4):
            process = appender(bus_url, f"v{victim}", size, 100_000)
            for _ in range(5 + victim):
                acknowledged = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            rest = process.communicate()[0].split()
            acknowledged = max([acknowledged, *map(int, rest)])
            await bus.append(0, [(b"me", b"after %d" % victim)])
            total += acknowledged + 1
            records = [r for r in await read_all(bus) if r.key == b"v%d" % victim]
            numbers = [int(r.value.split()[1]) for r in records]
            assert numbers == list(range(len(numbers)))
            assert len(numbers) > acknowledged
            assert all(
                len(r.value) == len(b"v%d %d " % (victim, n)) + size for n, r in enumerate(records)
            )
        assert len(await read_all(bus)) >= total + 4

    async def test_a_closed_bus_refuses_with_a_store_error(self, bus):
        await bus.close()
        await bus.close()
        with pytest.raises(StoreError):
            await bus.append(0, [(b"", b"")])
