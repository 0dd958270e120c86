"""kill -9 of ingest and of the indexer under traffic: nothing lost, nothing twice, same roots.

On real servers, and with a capture node that is killed too: `test_kill_rooms`.
"""

import asyncio
import contextlib
import random

import pytest

from sealtape.schemas.errors import StoreError
from tests.journeys.aftermath import check_recorded, documents
from tests.journeys.lab import Lab
from tests.journeys.traffic import work

KILLS = 6


async def trouble(lab, start, stamp):
    """A room that is killed again and again; returns the last, which lives.

    Every second life ends anywhere, also while it starts; the others in the middle of their work,
    which changes the stamp.
    """
    for life in range(KILLS):
        room, before = start(), await stamp()
        if life % 2:
            await lab.until(stamp, lambda after, before=before: after != before, what="work done")
            await asyncio.sleep(random.random() * 0.5)
        else:
            await asyncio.sleep(random.random() * 1.5)
        await room.kill()
    return start()


def stamps(lab):
    """Questions whose answers change when ingest, and when the indexer, has done something."""

    async def published():
        with contextlib.suppress(StoreError):  # there is none yet
            async with lab.stores() as stores:
                return await stores.ledger.positions()
        return None

    async def indexed():
        return len(await lab.commands("protocol:*"))

    return published, indexed


@pytest.mark.timeout(600)
async def test_ingest_and_indexer_are_killed_while_traffic_flows(tmp_path, postgres_server):
    settings = "segment_s = 0.2\nlease_s = 1"
    async with Lab(tmp_path, postgres_server.port, ingest=settings) as lab:
        node = await lab.capture()
        quiet = asyncio.Event()
        clients = [asyncio.create_task(work(lab, quiet)) for _ in range(3)]
        published, indexed = stamps(lab)
        ingest, index = await asyncio.gather(
            trouble(lab, lab.ingest, published), trouble(lab, lab.index, indexed)
        )
        quiet.set()
        statements = sum(await asyncio.gather(*clients))
        assert await node.stop() == 0
        leaves = await lab.all_sealed()
        assert await ingest.stop() == 0
        assert await index.stop() == 0
        await check_recorded(lab, leaves)
        commands = (await documents(lab))["commands"]
        assert sum(each.effect == "read" for each in commands) >= statements
