"""kill -9 of ingest and of the indexer under traffic: nothing lost, nothing twice, same roots."""

import asyncio
import dataclasses
import random

from sealtape.schemas.tree import CompactRange, root
from tests.journeys.lab import Lab

KILLS = 6


async def work(lab, stopping):
    """A client that runs statements, and reconnects now and then."""
    done = 0
    while not stopping.is_set():
        async with lab.asyncpg() as connection:
            for n in range(random.randrange(5, 60)):
                await connection.fetchval("select $1::int + $2::int", n, done)
                await connection.execute(f"select repeat('{n}', {n * 50}) as filler_{n % 7}")
                done += 2
                await asyncio.sleep(0.002)
    return done


async def trouble(lab, start, files):
    """A room that is killed again and again; returns the last, which lives.

    Every second life ends anywhere, also while it starts; the others in the middle of their work.
    """

    async def stamp():
        return sorted((path, path.stat().st_mtime_ns) for path in lab.folder.glob(files))

    for life in range(KILLS):
        room, before = start(), await stamp()
        if life % 2:
            await lab.until(stamp, lambda after, before=before: after != before, what="work done")
            await asyncio.sleep(random.random() * 0.5)
        else:
            await asyncio.sleep(random.random() * 1.5)
        await room.kill()
    return start()


async def check_roots(lab, expected):
    """The ledger's trees are over exactly the frames that were on the bus."""
    async with lab.stores() as stores:
        heads = await stores.ledger.heads(sorted(expected))
        assert set(heads) == set(expected)
        for name, leaves in expected.items():
            assert sorted(leaves) == list(range(len(leaves)))
            head = heads[name]
            assert (head.lo, head.hi, head.complete) == (0, len(leaves), True)
            sealed = CompactRange(head.lo, head.hi, head.nodes)
            assert sealed.root() == root([leaves[seq] for seq in sorted(leaves)])
            held = []
            async for frame in stores.recording(name[0]).frames():
                held.append((frame.epoch, frame.seq))
            assert held == sorted(set(held))
            assert sum(epoch == name[1] for epoch, _ in held) == len(leaves)
        assert await stores.ledger.incidents() == []


async def test_ingest_and_indexer_are_killed_while_traffic_flows(tmp_path, postgres_server):
    settings = "segment_s = 0.2\nlease_s = 1"
    async with Lab(tmp_path, postgres_server.port, ingest=settings) as lab:
        node = await lab.capture()
        quiet = asyncio.Event()
        clients = [asyncio.create_task(work(lab, quiet)) for _ in range(3)]
        ingest, index = await asyncio.gather(
            trouble(lab, lab.ingest, "vault/**/*.parquet"), trouble(lab, lab.index, "index.db-wal")
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
        await lab.cli("index", "--rebuild")
        after = await documents(lab)
        assert after["sessions"] == before["sessions"]
        assert after["commands"] == before["commands"]


async def documents(lab):
    """All that the index holds, in an order of its own."""
    sessions = [*await lab.sessions(), *await lab.sessions("protocol:journal")]
    commands = await lab.commands("protocol:*")
    assert len({(each.session, each.epoch, each.n) for each in commands}) == len(commands)
    return {
        "sessions": sorted(map(dataclasses.astuple, sessions), key=lambda each: each[0]),
        "commands": sorted(commands, key=lambda each: (each.session, each.epoch, each.n)),
    }
