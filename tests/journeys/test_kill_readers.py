"""kill -9 of ingest and of the indexer under traffic: nothing lost, nothing twice, same roots."""

import asyncio
import contextlib
import random

from sealtape.schemas.errors import StoreError
from tests.journeys.lab import Lab
from tests.journeys.traffic import check_roots, documents, work

KILLS = {"embedded": 6, "servers": 3}


async def trouble(lab, start, stamp, kills):
    """A room that is killed again and again; returns the last, which lives.

    Every second life ends anywhere, also while it starts; the others in the middle of their work,
    which changes the stamp.
    """
    for life in range(kills):
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


async def test_ingest_and_indexer_are_killed_while_traffic_flows(tmp_path, postgres_server, stores):
    settings = "segment_s = 0.2\nlease_s = 1"
    kills = KILLS["servers" if stores else "embedded"]
    async with Lab(tmp_path, postgres_server.port, ingest=settings, stores=stores) as lab:
        node = await lab.capture()
        quiet = asyncio.Event()
        clients = [asyncio.create_task(work(lab, quiet)) for _ in range(3)]
        published, indexed = stamps(lab)
        ingest, index = await asyncio.gather(
            trouble(lab, lab.ingest, published, kills), trouble(lab, lab.index, indexed, kills)
        )
        quiet.set()
        statements = sum(await asyncio.gather(*clients))
        assert await node.stop() == 0
        leaves = await lab.all_sealed()
        assert await ingest.stop() == 0
        assert await index.stop() == 0
        await check_roots(lab, leaves)
        report = await lab.verify()
        assert (report["verdict"], report["findings"]) == ("verified", [])
        assert report["sessions"] == len(leaves)

        before = await documents(lab)
        assert sum(each.effect == "read" for each in before["commands"]) >= statements
        await lab.cli("index", "rebuild")
        after = await documents(lab)
        assert after["sessions"] == before["sessions"]
        assert after["commands"] == before["commands"]
