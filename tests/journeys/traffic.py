"""Clients for labs in trouble: their statements, and what they are told when they are cut off."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field

import asyncpg

NOISE = """\
drop table if exists noise;
create table noise as select n, (
    select string_agg(uuid_send(gen_random_uuid()), ''::bytea) from generate_series(1, {sixteens})
) as data from generate_series(1, 8) n;
"""
CUT_OFF = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # how asyncpg takes an error that comes while nothing runs
)


async def work(lab, stopping, pause_s=0.002, *, port=None):
    """A client that runs statements, and reconnects now and then; how many there were."""
    done = 0
    while not stopping.is_set():
        async with lab.asyncpg(port=port) as connection:
            for n in range(random.randrange(5, 60)):
                await statements(connection, n, done)
                done += 2
                await asyncio.sleep(pause_s)
    return done


async def statements(connection, n, done):
    """Two of them, one extended and one simple."""
    assert await connection.fetchval("select $1::int + $2::int", n, done) == n + done
    await connection.execute(f"select repeat('{n}', {n * 50}) as filler_{n % 7}")


def make_noise(server, kib):
    """Make the table that `bulk` reads: rows that no compression makes smaller."""
    server.sql(NOISE.format(sixteens=kib * 64))


async def bulk(lab, stopping, pause_s, *, port=None):
    """A client that reads a row of noise after the other; how many statements there were."""
    done = 0
    while not stopping.is_set():
        async with lab.asyncpg(port=port) as connection:
            for n in range(40):
                await connection.fetchval("select data from noise where n = $1", n % 8 + 1)
                done += 1
                await asyncio.sleep(pause_s)
                if stopping.is_set():
                    break
    return done


@dataclass
class Persisted:
    """What clients that always came back have done, and how they were cut off."""

    statements: int = 0
    told: Counter = field(default_factory=Counter)
    longest_s: float = 0.0


async def persist(lab, stopping, port, found, pause_s=0.01):
    """A client that comes back whenever it is cut off or refused; `found` counts."""
    loop = asyncio.get_running_loop()
    answered = loop.time()
    while not stopping.is_set():
        try:
            connection = await lab.connect(port=port)
        except CUT_OFF as exc:
            found.told[reason(exc)] += 1
            await asyncio.sleep(0.1)
            continue
        try:
            for n in range(random.randrange(5, 60)):
                await statements(connection, n, found.statements)
                found.statements += 2
                found.longest_s = max(found.longest_s, loop.time() - answered)
                answered = loop.time()
                await asyncio.sleep(pause_s)
                if stopping.is_set():
                    break
            await connection.close(timeout=30)
        except CUT_OFF as exc:
            found.told[reason(exc)] += 1
            connection.terminate()


def reason(error):
    """The code of an answer in the protocol's words, or the name of what was no such answer."""
    return getattr(error, "sqlstate", None) or type(error).__name__
