"""The index comes to what the frames say, whoever writes late, twice or not at all."""

import asyncio
import math
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from sealtape.indexer.documents import SessionFold
from sealtape.indexer.index.sqlite import SqliteIndex
from sealtape.ingest.keyring.sqlite import SqliteKeyring
from sealtape.ingest.ledger.sqlite import SqliteLedger
from tests.simulation.actors import without_threads
from tests.simulation.index import IndexWorld

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
STEPS = (200, 400)


async def run_schedule(seed):
    """Run one schedule; return what happened in it."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        stores = {
            "ledger": await SqliteLedger.open("sqlite:ledger.db", Path(folder)),
            "keyring": await SqliteKeyring.open("sqlite:keyring.db", Path(folder)),
            "index": await SqliteIndex.open("sqlite:index.db", Path(folder)),
            "another": await SqliteIndex.open("sqlite:another.db", Path(folder)),
        }
        without_threads(*(store._database for store in stores.values()))
        world = IndexWorld(seed, **stores)
        try:
            with pytest.MonkeyPatch.context() as patch:
                # Many small writes and few large ones; a slow machine's clock decides nothing.
                patch.setattr("sealtape.indexer.lane.SEGMENTS", world.random.choice([1, 16]))
                patch.setattr("sealtape.indexer.lane.RUN_S", math.inf)
                await world.run(steps=world.random.choice(STEPS))
                await world.check()
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        finally:
            await world.scheduler.kill_all()
            for store in stores.values():
                await store.close()
    return world.seen


@pytest.mark.parametrize("block", range(4))
async def test_the_index_comes_to_what_the_frames_say(block):
    seen = Counter()
    for seed in range(block * 25, block * 25 + 25):
        seen += await run_schedule(seed)
    assert seen["put"] > 100
    assert min(seen["before"], seen["after"], seen["restarted"]) >= 2


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_the_index_comes_to_what_the_frames_say_soak():
    seen = Counter()
    for seed in range(1000, 4000):
        seen += await run_schedule(seed)
    assert seen["restarted"] > 10


async def test_without_the_revision_in_the_progress_frames_are_counted_twice(monkeypatch):
    real = SessionFold.restore.__func__

    def unchecked(cls, session, progress, document):
        fold = real(cls, session, progress, None)
        fold.document = document
        return fold

    monkeypatch.setattr(SessionFold, "restore", classmethod(unchecked))
    for seed in range(300):
        try:
            await run_schedule(seed)
        except AssertionError:
            return
    raise AssertionError("nobody noticed")


if __name__ == "__main__":
    print(dict(asyncio.run(run_schedule(int(sys.argv[1])))))
