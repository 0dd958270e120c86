import asyncio
import json
import shutil

import pytest

from sealtape.capture.bus import open_bus
from sealtape.capture.bus.dir import DirBus, open_dir_bus
from sealtape.schemas.errors import (
    FormatError,
    Replaced,
    SettingsError,
    StoreCorrupt,
    StoreError,
    StoreFull,
    UsageError,
)
from tests.conformance.bus import read_all, values


async def test_the_partition_count_is_fixed_at_creation(tmp_path):
    await open_bus("dir:bus?partitions=2", tmp_path).close()
    with pytest.raises(SettingsError, match="created with 2"):
        open_bus("dir:bus?partitions=3", tmp_path)
    same = open_bus("dir:bus", tmp_path)
    assert same.partitions == 2
    await same.close()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"v":2,"topic":"t","partitions":1}', "\xff"])
async def test_a_damaged_description_is_corrupt(tmp_path, text):
    await open_bus("dir:bus", tmp_path).close()
    (tmp_path / "bus" / "bus.json").write_text(text)
    with pytest.raises(StoreCorrupt):
        open_bus("dir:bus", tmp_path)


async def test_a_damaged_mark_is_corrupt(tmp_path):
    bus = open_bus("dir:bus", tmp_path)
    await bus.mark("ingest", 0, 1)
    (tmp_path / "bus" / "0000" / "ingest.mark").write_text("{}")
    with pytest.raises(StoreCorrupt):
        await bus.marks(0)
    await bus.close()


async def test_a_folder_that_cannot_be_made_is_a_store_error(tmp_path):
    (tmp_path / "bus").write_text("in the way")
    with pytest.raises(StoreError):
        open_bus("dir:bus", tmp_path)


async def test_negative_marks_and_foreign_partitions_are_refused(tmp_path):
    bus = open_bus("dir:bus", tmp_path)
    with pytest.raises(UsageError):
        await bus.mark("ingest", 0, -1)
    with pytest.raises(UsageError):
        await bus.read(1, 0, max_bytes=1, wait_s=0)
    await bus.close()


async def test_files_rotate_and_trim_deletes_whole_ones(tmp_path):
    bus = DirBus(tmp_path, partitions=1, file_bytes=1000)
    for n in range(20):
        await bus.append(0, [(b"", b"%02d" % n + bytes(400))])
    files = sorted((tmp_path / "0000").glob("*.log"))
    assert len(files) >= 6
    records = await read_all(bus)
    assert len(records) == 20
    await bus.mark("a", 0, records[10].offset)
    await bus.mark("b", 0, records[15].offset)
    await bus.trim(0, ["a"])
    first, _ = await bus.bounds(0)
    assert records[7].offset <= first <= records[10].offset
    await bus.trim(0, ["a", "b", "never-marked"])
    assert (await bus.bounds(0))[0] == first
    await bus.mark("a", 0, records[-1].next_offset)
    await bus.mark("b", 0, records[-1].next_offset)
    await bus.trim(0, ["a", "b"])
    assert len(list((tmp_path / "0000").glob("*.log"))) == 1
    await bus.append(0, [(b"", b"still taken")])
    assert values(await read_all(bus))[-1] == b"still taken"
    await bus.close()


async def test_concurrent_appends_share_a_sync(tmp_path, failing_files):
    files = failing_files()
    bus = DirBus(tmp_path, partitions=1, create=files.create, reopen=files.reopen)
    await bus.append(0, [(b"", b"first")])
    before = files.syncs
    await asyncio.gather(*(bus.append(0, [(b"", b"%d" % n)]) for n in range(50)))
    assert files.syncs - before <= 3
    await bus.close()


async def test_a_full_disk_fails_every_waiting_append_and_then_recovers(tmp_path, failing_files):
    files = failing_files(room=2000)
    bus = DirBus(tmp_path, partitions=1, create=files.create, reopen=files.reopen)
    await bus.append(0, [(b"", bytes(500))])
    results = await asyncio.gather(
        *(bus.append(0, [(b"", b"%d" % n + bytes(900))]) for n in range(4)),
        return_exceptions=True,
    )
    assert all(isinstance(result, StoreFull) for result in results)
    kept = await read_all(bus)
    files.room = 1 << 20
    await bus.append(0, [(b"", b"again")])
    records = await read_all(bus)
    assert records[: len(kept)] == kept
    assert records[-1].value == b"again"
    await bus.close()


async def test_a_cancelled_appender_does_not_disturb_the_others(tmp_path):
    bus = DirBus(tmp_path, partitions=1)
    first = asyncio.create_task(bus.append(0, [(b"", b"first")]))
    second = asyncio.create_task(bus.append(0, [(b"", b"second")]))
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert values(await read_all(bus))[-1] == b"second"
    await bus.close()


async def test_close_finishes_what_was_started(tmp_path):
    bus = DirBus(tmp_path, partitions=1)
    appends = [asyncio.create_task(bus.append(0, [(b"", b"%d" % n)])) for n in range(3)]
    await asyncio.sleep(0)
    await bus.close()
    await asyncio.gather(*appends)
    again = DirBus(tmp_path)
    assert len(await read_all(again)) == 3
    await again.close()


async def test_a_too_long_key_is_a_format_error(tmp_path):
    bus = DirBus(tmp_path)
    with pytest.raises(FormatError):
        await bus.append(0, [(bytes(70_000), b"")])
    await bus.close()


def test_the_description_says_what_the_spec_page_says(tmp_path):
    bus = DirBus(tmp_path, partitions=2)
    text = json.loads((tmp_path / "bus.json").read_text())
    assert text == {"v": 1, "partitions": 2, "topic": bus.topic}
    asyncio.run(bus.close())


async def test_retention_deletes_what_nobody_has_marked(tmp_path):
    now = 1_000_000 * 10**9
    bus = DirBus(tmp_path / "bus", retention_s=60.0, clock_ns=lambda: now)
    assert bus.retention_s == 60.0
    await bus.append(0, [(b"", b"old")])
    await bus.trim(0, [])
    assert values(await read_all(bus)) == [b"old"]
    now += 61 * 10**9
    await bus.trim(0, ["never-marked"])
    first, end = await bus.bounds(0)
    assert first == end > 0
    await bus.close()


@pytest.mark.parametrize(
    ("option", "seconds"),
    [("retention=7d", 604800.0), ("partitions=1&retention=1h", 3600.0), ("retention=0s", None)],
)
async def test_the_url_says_how_long_messages_are_kept(tmp_path, option, seconds):
    bus = open_dir_bus(f"dir:bus?{option}", tmp_path)
    assert bus.retention_s == seconds
    await bus.close()


@pytest.mark.parametrize("option", ["retention=", "retention=week", "retention=-1d", "keep=7d"])
def test_what_the_url_says_wrongly(tmp_path, option):
    with pytest.raises(SettingsError, match="not understood"):
        open_dir_bus(f"dir:bus?{option}", tmp_path)


# -- deleted and made anew -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "use",
    [
        lambda bus: bus.append(0, [(b"", b"stray")]),
        lambda bus: bus.read(0, 0, max_bytes=100, wait_s=0),
        lambda bus: bus.bounds(0),
        lambda bus: bus.mark("ingest", 0, 1),
        lambda bus: bus.marks(0),
        lambda bus: bus.trim(0, []),
    ],
    ids=["append", "read", "bounds", "mark", "marks", "trim"],
)
async def test_a_running_bus_never_goes_on_in_another_folder(tmp_path, use):
    bus = open_bus("dir:bus", tmp_path)
    await bus.append(0, [(b"", b"old")])
    shutil.rmtree(tmp_path / "bus")
    for _ in range(2):
        with pytest.raises(StoreError) as caught:
            await use(bus)
        assert not isinstance(caught.value, Replaced)
        assert "sealtape setup" in caught.value.hint
    other = open_bus("dir:bus", tmp_path)
    await other.append(0, [(b"", b"new one"), (b"", b"new two")])
    for _ in range(2):
        with pytest.raises(Replaced, match="deleted and made anew"):
            await use(bus)
    assert values(await read_all(other)) == [b"new one", b"new two"]
    await bus.close()
    await other.close()
