"""The log's worker alone: from sealed sessions in the ledger to signed entries in the vault.

Everything is on: entries, the ledger's transactions, tiles that are fsync'd, both signatures.
No witness is asked, since that is another party's time.
"""

import asyncio
import tempfile
import time
from pathlib import Path

from tests.bench.harness import Table, figure
from tests.factories.deployments import make_site, seal
from tests.factories.logs import grow_log, read_log

SESSIONS = 1000


async def measure(folder):
    """Seal short sessions, then write the log of them; returns how many entries, and the time."""
    site = make_site(folder / "lab")
    await seal(site, [site.session(commands=0, number=n) for n in range(1, SESSIONS + 1)])
    cpu, wall = time.process_time(), time.perf_counter()
    await grow_log(site, witnesses=False)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    entries, checkpoint = await read_log(site)
    assert checkpoint.size == len(entries) > 2 * SESSIONS
    return {"entries": len(entries), "cpu_s": cpu, "wall_s": wall}


def test_log(effort, publish):
    rounds, _ = effort(3, 0)
    taken = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            taken.append(asyncio.run(measure(Path(folder))))
    best = min(taken, key=lambda one: one["cpu_s"])
    per_s = best["entries"] / best["cpu_s"]
    table = Table("the log, one core", ("", "entries/CPU s", "entries/s wall"))
    table.row("short sessions", figure(per_s), figure(best["entries"] / best["wall_s"]))
    table.goal("entries/s", per_s, 500, at_most=False)
    publish("log", table)
