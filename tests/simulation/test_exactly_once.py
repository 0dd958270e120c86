"""Exactly once, whatever crashes, sleeps, wakes up or is told a lie: schedules over the real parts.

`python -m tests.simulation.test_exactly_once SEED` runs one schedule and says what happened in it.
"""

import asyncio
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from sealtape.ingest.collector import Collector
from sealtape.ingest.keyring.sqlite import SqliteKeyring
from sealtape.ingest.ledger import publish as steps
from sealtape.ingest.ledger.sqlite import SqliteLedger
from sealtape.schemas.segments import record_hash
from tests.simulation.actors import without_threads
from tests.simulation.ingest import IngestWorld

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
STEPS = (200, 400, 800)


async def run_schedule(seed, **options):
    """Run one schedule; return what happened in it."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        ledger = await SqliteLedger.open("sqlite:ledger.db", Path(folder))
        keyring = await SqliteKeyring.open("sqlite:keyring.db", Path(folder))
        without_threads(ledger._database, keyring._database)
        try:
            return await play(IngestWorld(seed, ledger=ledger, keyring=keyring), seed, **options)
        finally:
            await ledger.close()
            await keyring.close()


async def play(world, seed, **options):
    try:
        await world.run(steps=world.random.choice(STEPS))
        await world.check(**options)
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise
    finally:
        await world.stop()
    return world.seen + Counter(published=len(world.published))


async def run_schedules(seeds, **options):
    seen = Counter()
    for seed in seeds:
        seen += await run_schedule(seed, **options)
    return seen


@pytest.mark.parametrize("block", range(10))
async def test_everything_is_sealed_exactly_once(block):
    seen = await run_schedules(range(block * 30, block * 30 + 30))
    # It is no proof when nothing goes wrong.
    assert min(seen["Fenced"], seen["replaced"], seen["before"]) >= 10
    assert seen["after"] >= 3
    assert seen["published"] >= 80


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("block", range(10))
async def test_everything_is_sealed_exactly_once_soak(block):
    await run_schedules(range(1000 * (block + 1), 1000 * (block + 2)))


async def failing_seed(limit, *said, **options):
    """The first schedule that fails, and says one of these if any are given; and how."""
    for seed in range(limit):
        try:
            await run_schedule(seed, **options)
        except Exception as error:
            if not said or any(words in str(error) for words in said):
                return seed, error
    return None


# -- ablations: what each guard is for -------------------------------------------------------------


def remove_the_position_swap(monkeypatch):
    """Publish whatever the lease's term and position are by now."""

    def position_unchecked(connection, publication):
        lease = publication.lease
        connection.execute(
            "UPDATE lease SET next_offset=? WHERE topic=? AND part=?",
            (publication.next_offset, lease.topic, lease.partition),
        )

    monkeypatch.setattr(steps, "swap_position", position_unchecked)


def remove_the_later_swaps(monkeypatch):
    """Leave only the swap of term and position between a zombie and the ledger."""
    real = steps.swap_head

    def head_unchecked(connection, change, now_ns):
        head = change.after
        row = connection.execute(
            "SELECT digest FROM head WHERE session=? AND epoch=?", (head.session, head.epoch)
        ).fetchone()
        real(connection, type(change)(row[0] if row else None, head), now_ns)

    def shard_unchecked(connection, shard, segments):
        for segment in segments:
            values = (shard, segment.record.n + 1, record_hash(segment.record))
            connection.execute("INSERT OR REPLACE INTO shard VALUES (?,?,?)", values)

    def staged_unchecked(connection, key):
        connection.execute("UPDATE object SET state='published' WHERE key=?", (key,))

    monkeypatch.setattr(steps, "swap_head", head_unchecked)
    monkeypatch.setattr(steps, "extend_shard", shard_unchecked)
    monkeypatch.setattr(steps, "take_staged", staged_unchecked)


@pytest.fixture
def no_collector(monkeypatch):
    """The collector would erase what a zombie then publishes, which is another test."""

    async def nothing(self, *arguments):
        return 0

    monkeypatch.setattr(Collector, "collect", nothing)
    monkeypatch.setattr(Collector, "abandon_before", nothing)


async def test_without_the_swap_of_the_position_messages_are_passed_twice(monkeypatch):
    remove_the_position_swap(monkeypatch)
    assert await failing_seed(60, "went from") is not None


async def test_the_swap_of_term_and_position_is_enough(monkeypatch, no_collector):
    remove_the_later_swaps(monkeypatch)
    assert await failing_seed(60, orphans="left") is None


async def test_without_any_swap_frames_are_sealed_twice(monkeypatch, no_collector):
    remove_the_later_swaps(monkeypatch)
    remove_the_position_swap(monkeypatch)
    monkeypatch.setattr(IngestWorld, "_check_positions", lambda self: None)
    said = "sealed", "chain is broken"
    assert await failing_seed(200, *said, orphans="left") is not None


async def test_without_the_collectors_swap_sealed_objects_are_erased(monkeypatch):
    async def abandon_unchecked(self, key):
        def work(connection):
            connection.execute("UPDATE object SET state='abandoned' WHERE key=?", (key,))
            return True

        return await self._database.write(work)

    monkeypatch.setattr(SqliteLedger, "abandon", abandon_unchecked)
    assert await failing_seed(100, "is sealed and not there") is not None


async def test_without_the_writers_swap_erased_objects_are_sealed(monkeypatch):
    def staged_unchecked(connection, key):
        connection.execute("UPDATE object SET state='published' WHERE key=?", (key,))

    monkeypatch.setattr(steps, "take_staged", staged_unchecked)
    assert await failing_seed(200, "is sealed and not there") is not None


if __name__ == "__main__":
    print(dict(asyncio.run(run_schedule(int(sys.argv[1])))))
