from dataclasses import replace

import pytest

from sealtape.ingest.ledger.rows import LogEntry, LogState
from sealtape.ingest.tlog.kept import Cursor, forget, keep, recall, state_name
from sealtape.ingest.tlog.summary import LogSummary
from sealtape.schemas.errors import StoreBusy, StoreCorrupt
from sealtape.schemas.tlog.records import LogStart, encode_entry
from tests.factories.ingest_world import MemoryVault
from tests.ingest.tlog.test_summary import LOG, START, note_of, opened, summed


class Entries:
    """The ledger's entries, by shard."""

    def __init__(self, *shards):
        self.shards = shards
        self.read = 0

    async def log_entries(self, number, first=0, limit=1000):
        if number > len(self.shards):
            return []
        found = self.shards[number - 1][first : first + limit]
        self.read += len(found)
        return [LogEntry(first + at, "", data) for at, data in enumerate(found)]


FIRST = [START, *(encode_entry(opened(number)) for number in range(1, 30))]


def state(number, size, cursor=b""):
    return LogState(number, size, cursor, b"", b"")


def test_a_cursor_is_read_back():
    cursor = Cursor(3, 4, 1, 30, bytes(32))
    assert Cursor.from_json(cursor.to_json()) == cursor
    assert Cursor.from_json(b"") == Cursor()
    for broken in (b"{}", b"x", cursor.to_json()[:-1], cursor.to_json() + b" "):
        with pytest.raises(StoreCorrupt, match="cursor"):
            Cursor.from_json(broken)


async def test_a_log_is_summed_up_from_its_entries():
    summary, cursor = await recall(Entries(FIRST), MemoryVault(), state(1, 30))
    assert (summary.number, summary.size, summary.open) == (1, 30, 29)
    assert cursor == Cursor()
    nothing, _ = await recall(Entries(), MemoryVault(), state(0, 0))
    assert (nothing.number, nothing.size) == (0, 0)


async def test_only_what_came_behind_a_summary_is_read():
    vault, summary = MemoryVault(), LogSummary()
    for entry in FIRST[:20]:
        summary.take(entry)
    cursor = await keep(vault, summary, Cursor(segment=7))
    assert (cursor.segment, cursor.number, cursor.size) == (7, 1, 20)
    assert list(vault.objects) == [f"log/v1/1/{state_name(20)}"]
    entries = Entries(FIRST)
    found, again = await recall(entries, vault, state(1, 30, cursor.to_json()))
    assert entries.read == 10
    assert again == cursor
    assert found.to_json() == (await recall(entries, vault, state(1, 30)))[0].to_json()


@pytest.mark.parametrize("content", [b"", b"damaged", None])
async def test_a_lost_summary_is_made_again(content):
    vault, summary = MemoryVault(), summed()
    cursor = await keep(vault, summary, Cursor())
    key = f"log/v1/1/{state_name(1)}"
    if content is None:
        del vault.objects[key]
    else:
        vault.objects[key] = content
    found, _ = await recall(Entries(FIRST), vault, state(1, 30, cursor.to_json()))
    assert found.size == 30


async def test_another_writers_summary_is_not_taken_for_ours():
    vault = MemoryVault()
    await keep(vault, summed(), Cursor())
    other = summed()
    other.beaten_ns = 99
    assert await keep(vault, other, Cursor(segment=5)) == Cursor(segment=5)


async def test_shards_follow_each_other():
    second = [encode_entry(LogStart(LOG, 2, 20, note_of(1))), encode_entry(opened(40))]
    ledger = Entries(FIRST, second)
    summary, _ = await recall(ledger, MemoryVault(), state(2, 2))
    assert (summary.number, summary.size, summary.open) == (2, 2, 30)
    vault, half = MemoryVault(), summed()
    cursor = await keep(vault, half, Cursor())
    again, _ = await recall(ledger, vault, state(2, 2, cursor.to_json()))
    assert again.to_json() == summary.to_json()


@pytest.mark.parametrize(
    "shards", [(FIRST[:10],), (FIRST[1:],), ([*FIRST[:29], b"damaged"],), ([START, START],)]
)
async def test_entries_that_are_not_those_counted(shards):
    with pytest.raises(StoreCorrupt):
        await recall(Entries(*shards), MemoryVault(), state(1, 30))


async def test_an_old_summary_goes_where_it_may():
    vault = MemoryVault()
    cursor = await keep(vault, summed(), Cursor())
    await forget(vault, cursor)
    assert vault.objects == {}
    await forget(vault, Cursor())
    await forget(vault, replace(cursor, size=99))

    class Locked(MemoryVault):
        async def erase(self, key):
            raise StoreBusy(key, retry_after_s=1.0)

    await forget(Locked(), cursor)
