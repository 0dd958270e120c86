"""Traffic for labs in trouble, and what must hold when it is over."""

import asyncio
import dataclasses
import random

from sealtape.schemas.tree import CompactRange, root


async def work(lab, stopping, pause_s=0.002):
    """A client that runs statements, and reconnects now and then."""
    done = 0
    while not stopping.is_set():
        async with lab.asyncpg() as connection:
            for n in range(random.randrange(5, 60)):
                await connection.fetchval("select $1::int + $2::int", n, done)
                await connection.execute(f"select repeat('{n}', {n * 50}) as filler_{n % 7}")
                done += 2
                await asyncio.sleep(pause_s)
    return done


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


async def documents(lab):
    """All that the index holds, in an order of its own."""
    sessions = [*await lab.sessions(), *await lab.sessions("protocol:journal")]
    commands = await lab.commands("protocol:*")
    assert len({(each.session, each.epoch, each.n) for each in commands}) == len(commands)
    return {
        "sessions": sorted(map(dataclasses.astuple, sessions), key=lambda each: each[0]),
        "commands": sorted(commands, key=lambda each: (each.session, each.epoch, each.n)),
    }
