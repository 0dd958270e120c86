"""Exactly once, whatever crashes, sleeps and wakes up: random schedules over the real parts."""

import os
import tempfile
from pathlib import Path

import pytest

from sealtape.ingest.collector import Collector
from sealtape.ingest.keyring.sqlite import SqliteKeyring
from sealtape.ingest.ledger import publish as steps
from sealtape.ingest.ledger.sqlite import SqliteLedger
from sealtape.schemas.segments import record_hash
from tests.factories.ingest_world import IngestWorld

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


async def run_schedule(seed):
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        ledger = await SqliteLedger.open("sqlite:ledger.db", Path(folder))
        keyring = await SqliteKeyring.open("sqlite:keyring.db", Path(folder))
        world = IngestWorld(seed, ledger=ledger, keyring=keyring)
        try:
            await world.run(steps=world.random.choice([200, 400, 800]))
            await world.check()
        finally:
            await world.stop()
            await ledger.close()
            await keyring.close()


@pytest.mark.parametrize("block", range(10))
async def test_everything_is_sealed_exactly_once(block):
    for seed in range(block * 30, block * 30 + 30):
        await run_schedule(seed)


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_everything_is_sealed_exactly_once_soak():
    for seed in range(1000, 6000):
        await run_schedule(seed)


async def failing_seed(limit):
    for seed in range(limit):
        try:
            await run_schedule(seed)
        except Exception as error:
            return seed, error
    return None


def remove_the_later_swaps(monkeypatch):
    """Leave only the swap of term and position between a zombie and the ledger."""
    real = steps.swap_head

    def head_unchecked(connection, change):
        head = change.after
        row = connection.execute(
            "SELECT digest FROM head WHERE session=? AND epoch=?", (head.session, head.epoch)
        ).fetchone()
        real(connection, type(change)(row[0] if row else None, head))

    def shard_unchecked(connection, shard, segments):
        for segment in segments:
            values = (shard, segment.record.n + 1, record_hash(segment.record))
            connection.execute("INSERT OR REPLACE INTO shard VALUES (?,?,?)", values)

    def staged_unchecked(connection, key):
        connection.execute("UPDATE object SET state='published' WHERE key=?", (key,))

    monkeypatch.setattr(steps, "swap_head", head_unchecked)
    monkeypatch.setattr(steps, "extend_shard", shard_unchecked)
    monkeypatch.setattr(steps, "take_staged", staged_unchecked)


def remove_the_position_swap(monkeypatch):
    def position_unchecked(connection, publication):
        lease = publication.lease
        connection.execute(
            "UPDATE lease SET next_offset=? WHERE topic=? AND part=?",
            (publication.next_offset, lease.topic, lease.partition),
        )

    monkeypatch.setattr(steps, "swap_position", position_unchecked)


@pytest.fixture
def no_collector(monkeypatch):
    """The collector would erase what a zombie then publishes, which is another test."""

    async def nothing(self, *arguments):
        return 0

    monkeypatch.setattr(Collector, "collect", nothing)
    monkeypatch.setattr(Collector, "abandon_before", nothing)
    monkeypatch.setattr(IngestWorld, "orphans", "left")


async def test_the_swap_of_term_and_position_is_enough(monkeypatch, no_collector):
    remove_the_later_swaps(monkeypatch)
    assert await failing_seed(60) is None


async def test_without_any_swap_frames_are_sealed_twice(monkeypatch, no_collector):
    remove_the_later_swaps(monkeypatch)
    remove_the_position_swap(monkeypatch)
    assert await failing_seed(400) is not None


async def test_without_the_collectors_swap_sealed_objects_are_erased(monkeypatch):
    async def abandon_unchecked(self, key):
        def work(connection):
            connection.execute("UPDATE object SET state='abandoned' WHERE key=?", (key,))
            return True

        return await self._database.write(work)

    monkeypatch.setattr(SqliteLedger, "abandon", abandon_unchecked)
    assert await failing_seed(200) is not None
