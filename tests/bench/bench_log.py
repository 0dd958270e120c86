"""The log: its worker, what it keeps of a session, and making the ledger's part of it anew.

Everything is on: entries, the ledger's transactions, tiles that are fsync'd, both signatures.
No witness is asked, since that is another party's time.
"""

import asyncio
import json
import os
import tempfile
import time
from pathlib import Path

from sealtape.ingest.ledger import open_ledger, prepare_ledger
from sealtape.ingest.rebuild import rebuild_ledger
from sealtape.ingest.vault import open_vault
from tests.bench.harness import Table, figure
from tests.factories.deployments import make_site, seal
from tests.factories.large_logs import grow
from tests.factories.logs import grow_log, read_log

SESSIONS = 1000
VECTORS = Path(__file__).parents[1] / "vectors/records.json"
GIVEN = "101112131415161718191a1b1c1d1e1f"
"""The session of the vectors."""


async def measure(folder):
    """Seal short sessions, then write the log of them."""
    site = make_site(folder / "lab")
    await seal(site, [site.session(commands=0, number=n) for n in range(1, SESSIONS + 1)])
    before = sizes(site.folder)
    cpu, wall = time.process_time(), time.perf_counter()
    await grow_log(site, witnesses=False)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    entries, checkpoint = await read_log(site)
    assert checkpoint.size == len(entries) > 2 * SESSIONS
    return {"entries": len(entries), "cpu_s": cpu, "wall_s": wall} | kept(site.folder, before)


def sizes(folder):
    """Bytes of the vault, of the log's part of it, and of the ledger."""
    files = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    log = folder / "vault/log"
    return {
        "vault": sum(size for path, size in files.items() if folder / "vault" in path.parents),
        "log": sum(size for path, size in files.items() if log in path.parents),
        "ledger": sum(size for path, size in files.items() if path.name.startswith("ledger.db")),
    }  # fmt: skip


def kept(folder, before):
    after = sizes(folder)
    assert after["log"] > before["log"] == 0
    return {
        "log_bytes": after["log"] / SESSIONS,
        "vault_bytes": before["vault"] / SESSIONS,
        "ledger_bytes": (after["ledger"] - before["ledger"]) / SESSIONS,
        "ledger_before": before["ledger"] / SESSIONS,
    }


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
    space = Table(
        "What a short session takes, bytes", ("", "its recording", "the log adds", "in all")
    )
    for name, first, more in (
        ("vault", best["vault_bytes"], best["log_bytes"]),
        ("ledger", best["ledger_before"], best["ledger_bytes"]),
    ):
        space.row(name, figure(first), figure(more), figure(first + more))
    publish("log", table, space)


def sessions():
    """Makes entry after entry: a shard's first, then sessions that open and are sealed."""
    found = {each["name"]: each["entry"] for each in json.loads(VECTORS.read_text())["entries"]}
    halves = [found[name].split(GIVEN) for name in ("session_seal", "session_open")]

    def entry(index):
        before, after = halves[index % 2]
        return (
            f"{before}{(index + 1) // 2:032x}{after}".encode() if index else found["log"].encode()
        )

    return entry


async def anew(folder):
    """Fill an empty ledger from the log alone; returns how many entries it has."""
    await prepare_ledger("sqlite:ledger.db", folder)
    ledger = await open_ledger("sqlite:ledger.db", folder)
    vault = await open_vault("file:vault", folder)
    done = await rebuild_ledger(ledger=ledger, vault=vault, bus=None)
    await vault.close()
    await ledger.close()
    return done.entries


def test_a_large_log(effort, publish, tessera_fsck, tmp_path):
    """A million entries: the ledger's rows out of the vault, and tessera's fsck over all tiles."""
    _, seconds = effort(1, 9)
    wanted = int(os.environ.get("SEALTAPE_BENCH_ENTRIES", "1000000"))
    count = wanted if seconds == 9 else min(wanted, 20_000)
    folder = tmp_path / "vault/log/v1/1"
    log = grow(folder, count, entry=sessions())
    cpu, wall = time.process_time(), time.perf_counter()
    assert asyncio.run(anew(tmp_path)) == count
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    began = time.perf_counter()
    assert tessera_fsck(f"{folder.as_uri()}/", log.vkey, tmp_path) == ""
    checked = time.perf_counter() - began
    table = Table(f"A log of {count:,} entries, made anew and checked", ("", "s", "CPU s"))
    table.row("the ledger's rows out of the entries", figure(wall), figure(cpu))
    table.row("tessera's fsck", figure(checked), None)
    table.goal("both, s", wall + checked, 60, at_most=True)
    publish("log large", table)
