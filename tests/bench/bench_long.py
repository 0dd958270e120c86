"""One long session: how soon `replay --at` shows what came near its end.

A COPY of so many gigabytes goes through the gateway, is recorded and sealed, then comes one more
statement; `SEALTAPE_BENCH_SESSION_GB` says how many (20). Needs twice that on the disk.
"""

import asyncio
import os
import time

from tests.bench.harness import Table, figure
from tests.journeys.lab import Lab

ROW = 8000
COPY = (
    "copy (select n, repeat(md5(n::text), {repeats}) from generate_series(1, {rows}) n) to stdout"
)


async def record(lab, size):
    """Record the session; returns its id and the place of its last statement."""
    await lab.dev()
    sql = COPY.format(repeats=ROW // 32, rows=size // ROW)
    words = ("-c", sql, "-c", "select 'here' as place_near_the_end")
    code, _, errors = await psql(lab, words)
    assert code == 0, errors
    hits = await lab.until(
        lambda: lab.commands("place_near_the_end"), what="the last statement", seconds=1200
    )
    (row,) = await lab.sealed(1, seconds=3600)
    assert row.frames > size >> 20, f"only {row.frames} frames were sealed"
    return hits[0].session.hex(), hits[0].seq


async def psql(lab, words):
    """Run psql for as long as it takes."""
    from tests.servers.postgres import client_environment, program

    process = await asyncio.create_subprocess_exec(
        program("psql"), lab.dsn(token=lab.token(ttl_s=7200)), "-XAtq", *words,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        env=client_environment(),
    )  # fmt: skip
    _, errors = await process.communicate()
    return process.returncode, "", errors.decode()


def test_replay_at_the_end_of_a_long_session(postgres_server, effort, publish, tmp_path):
    rounds, seconds = effort(5, 9)
    gigabytes = float(os.environ.get("SEALTAPE_BENCH_SESSION_GB", "20")) if seconds == 9 else 0.2
    size = int(gigabytes * 1e9)

    async def run():
        async with Lab(tmp_path, postgres_server.port, ingest="segment_s = 5") as lab:
            began = time.perf_counter()
            session, seq = await record(lab, size)
            recorded = time.perf_counter() - began
            took = []
            for _ in range(rounds):
                began = time.perf_counter()
                out = await lab.cli("replay", session, "--at", str(seq))
                took.append(time.perf_counter() - began)
                assert "place_near_the_end" in out
            began = time.perf_counter()
            await lab.cli("--help")
            return recorded, sorted(took), time.perf_counter() - began

    recorded, took, start = asyncio.run(run())
    table = Table(
        f"`replay --at` at the end of a session of {figure(gigabytes)} GB",
        ("", "seconds"),
    )
    table.row("median, process start included", figure(took[len(took) // 2]))
    table.row("most", figure(took[-1]))
    table.row("`sealtape --help`, to compare", figure(start))
    table.row("recording and sealing it", figure(recorded))
    table.goal("seconds", took[len(took) // 2], 2, at_most=True)
    publish("long session", table)
