"""kill -9 of ingest and of the indexer under traffic: nothing lost, nothing twice, same roots."""

import asyncio
import dataclasses
import random

from sealtape.schemas import messages
from sealtape.schemas.errors import FormatError
from sealtape.schemas.frames import Frame
from sealtape.schemas.tree import CompactRange, root
from tests.journeys.lab import Lab

KILLS = 8


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


async def trouble(start, stopping):
    """A room that is killed again and again; returns the last, which lives."""
    for _ in range(KILLS):
        room = start()
        await asyncio.sleep(0.5 + random.random() * 0.8)  # to come up, and to be somewhere
        await room.kill()
    stopping.set()
    return start()


async def on_the_bus(stores):
    """The leaves of every (session, epoch) that were put on the bus."""
    found = {}
    for partition in range(stores.bus.partitions):
        position, end = await stores.bus.bounds(partition)
        while position < end:
            batch = await stores.bus.read(partition, position, max_bytes=4 << 20, wait_s=0)
            for record in batch.records:
                try:
                    message = messages.decode(record.value)
                except FormatError:
                    continue
                if isinstance(message, Frame):
                    leaves = found.setdefault((message.session, message.epoch), {})
                    assert leaves.setdefault(message.seq, message.leaf()) == message.leaf()
            position = batch.next_offset
    return found


async def check_roots(lab):
    """The ledger's trees are over exactly the frames that were on the bus."""
    async with lab.stores() as stores:
        expected = await on_the_bus(stores)
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
        return len(expected)


async def test_ingest_and_indexer_are_killed_while_traffic_flows(tmp_path, postgres_server):
    settings = "segment_s = 0.2\nlease_s = 1"
    async with Lab(tmp_path, postgres_server.port, ingest=settings) as lab:
        node = await lab.capture()
        stopping, quiet = asyncio.Event(), asyncio.Event()
        clients = [asyncio.create_task(work(lab, quiet)) for _ in range(3)]
        ingest, index = await asyncio.gather(
            trouble(lab.ingest, stopping), trouble(lab.index, stopping)
        )
        quiet.set()
        statements = sum(await asyncio.gather(*clients))
        assert await node.stop() == 0

        async def unfinished():
            return [each for each in await everything(lab) if each.state != "sealed"]

        await lab.until(unfinished, lambda left: not left, what="sealing")
        assert await ingest.stop() == 0
        assert await index.stop() == 0
        count = await check_roots(lab)
        report = await lab.verify()
        assert (report["verdict"], report["findings"]) == ("verified", [])
        assert report["sessions"] == count

        before = await documents(lab)
        assert sum(each.effect == "read" for each in before["commands"]) >= statements
        await lab.cli("index", "--rebuild")
        after = await documents(lab)
        assert after["sessions"] == before["sessions"]
        assert after["commands"] == before["commands"]


async def everything(lab):
    return await lab.sessions() + await lab.sessions("protocol:journal")


async def documents(lab):
    """All that the index holds, in an order of its own."""
    sessions = await everything(lab)
    commands = await lab.commands("protocol:*")
    assert len({(each.session, each.epoch, each.n) for each in commands}) == len(commands)
    return {
        "sessions": sorted(map(dataclasses.astuple, sessions), key=lambda each: each[0]),
        "commands": sorted(commands, key=lambda each: (each.session, each.epoch, each.n)),
    }
