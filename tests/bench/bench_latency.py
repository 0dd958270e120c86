"""How soon what was recorded is searchable, sealed, and witnessed: rooms as processes.

On the real servers, load is 200 commands a second on eight connections. Beside them, twice a
second, comes a statement with a name of its own; its time of sending is compared with when a search
first finds it, with when a segment that reaches its time was published, and with when the log's
checkpoint over that segment had its witnesses, who answer on this machine. On the embedded stores
it is the first command of new sessions, with nothing else to do.
"""

import asyncio
import contextlib
import statistics
import time

from sealtape.indexer.index import Page
from sealtape.indexer.query import parse
from sealtape.ingest.tlog.opening import read_policy
from sealtape.ingest.tlog.store import CHECKPOINT, LogStore
from sealtape.ingest.vault import open_vault
from tests.bench.harness import Table, figure
from tests.factories.logs import read_log
from tests.journeys.lab import Lab
from tests.servers.stores import StoreSet

PER_S = 200
CONNECTIONS = 8
SENTINEL_S = 0.5
LOOK_S = 0.1
GOALS_S = {"searchable": 3, "sealed": 45, "witnessed": 60}


async def load(lab, until):
    """Commands at a steady rate until a time; returns how many were answered."""
    done = 0

    async def one(number):
        nonlocal done
        async with lab.asyncpg() as connection:
            count = 0
            begun = time.monotonic()
            while (now := time.monotonic()) < until:
                due = begun + count * CONNECTIONS / PER_S
                if due > now:
                    await asyncio.sleep(due - now)
                await connection.fetchval(f"select {number} + count(*) from generate_series(1, 5)")
                count += 1
                done += 1

    await asyncio.gather(*(one(number) for number in range(CONNECTIONS)))
    return done


async def sentinels(lab, until):
    """Seconds from sending a statement until a search finds it, and the times of sending."""
    waiting, took, sent = {}, [], []

    async def look(index):
        """One reader asks for the newest ones: many would cost more than what is measured."""
        while waiting or time.monotonic() < until:
            query = parse("sentinel*", now_ns=time.time_ns())
            hits = await index.search_commands(query, Page(limit=50))
            now = time.monotonic()
            for document in hits.documents:
                if began := waiting.pop(document.text.rpartition(" ")[2], None):
                    took.append(now - began)
            await asyncio.sleep(LOOK_S)

    async with (
        lab.index_opened() as index,
        lab.asyncpg() as connection,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(look(index))
        while time.monotonic() < until:
            name = f"sentinel{len(sent):05d}"
            sent.append(time.time_ns())
            waiting[name] = time.monotonic()
            await connection.execute(f"select 1 as {name}")
            await asyncio.sleep(SENTINEL_S)
    return sorted(took), sent


async def measure(lab, seconds):
    await lab.capture()
    lab.ingest()
    lab.index()
    async with lab.asyncpg() as connection:
        await connection.execute("select 1 as warmed_up")
        await lab.until(lambda: lab.commands("warmed_up"), what="a first statement")
    # Servers that were just started compile first.
    await load(lab, time.monotonic() + seconds / 3)
    until = time.monotonic() + seconds
    async with checkpoints(lab) as seen:
        done, (found, sent) = await asyncio.gather(load(lab, until), sentinels(lab, until))
        sealed = await sealed_in(lab, sent)
        places = await places_of(lab, seen, {record.object for record in sealed})
    waits = [record.sealed_at_ns - at for at, record in zip(sent, sealed, strict=True)]
    over = [
        next(when for when, size in seen if size > places[record.object]) - at
        for at, record in zip(sent, sealed, strict=True)
    ]
    return done, {
        "searchable": found,
        "sealed": sorted(each / 1e9 for each in waits),
        "witnessed": sorted(each / 1e9 for each in over),
    }


@contextlib.asynccontextmanager
async def checkpoints(lab):
    """When which witnessed size of the log was first seen: grows until it is left."""
    vault = await open_vault(lab.settings.stores.vault, lab.folder)
    policy, store, seen = read_policy(lab.settings), LogStore(vault, 1), []

    async def watch():
        while True:
            note = await store.get(CHECKPOINT)
            size = policy.open(note).checkpoint.size if note else 0
            if not seen or size != seen[-1][1]:
                seen.append((time.time_ns(), size))
            await asyncio.sleep(LOOK_S)

    watching = asyncio.create_task(watch())
    try:
        yield seen
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await vault.close()


async def places_of(lab, seen, objects):
    """Where segments stand in the log, once a witnessed checkpoint covers all of them."""
    async with asyncio.timeout(120):
        while True:
            entries, checkpoint = await read_log(lab)
            places = {
                entry.object: index
                for index, entry in enumerate(entries)
                if getattr(entry, "object", None) in objects
            }
            if objects <= places.keys() and seen[-1][1] >= checkpoint.size:
                return places
            await asyncio.sleep(LOOK_S)


async def sealed_in(lab, sent):
    """The record of the first segment that reaches each time of sending."""
    (session,) = await lab.until(
        lambda: lab.sessions("sentinel00000"), lambda found: len(found) == 1, what="its session"
    )
    await lab.sealed(1, "sentinel00000", seconds=120)
    async with lab.stores() as stores:
        fragments = await stores.ledger.fragments(session.session)
        keys = {row.segment_key for row in fragments}
        records = {key: (await stores.ledger.segment(key)).record for key in keys}
    found = []
    for at in sent:
        covering = [row for row in fragments if row.record.last_ts_ns >= at]
        first = min(covering, key=lambda row: row.record.lo)
        found.append(records[first.segment_key])
    return found


def test_latency(
    postgres_server, kafka_server, s3_server, postgres_stores, opensearch_server,
    effort, publish, tmp_path,
):  # fmt: skip
    _, seconds = effort(1, 9)
    length = 90 if seconds == 9 else 10
    stores = StoreSet.new(
        tmp_path, kafka=kafka_server, s3=s3_server, postgres=postgres_stores,
        opensearch=opensearch_server,
    )  # fmt: skip

    async def run():
        lab = Lab(tmp_path, postgres_server.port, stores=stores, ingest="segment_s = 20")
        async with lab:
            return await measure(lab, length)

    done, waits = asyncio.run(run())
    table = Table(
        f"From a client's statement, at {done / length:.0f} commands a second",
        ("until it is", "median, s", "p99, s", "most, s", "samples"),
    )
    for name, took in waits.items():
        p99 = took[int(len(took) * 0.99)]
        table.row(
            name, figure(statistics.median(took)), figure(p99), figure(took[-1]), str(len(took))
        )
        table.goal(f"{name}, p99, s", p99, GOALS_S[name], at_most=True)
    publish("latency", table)


async def first_commands(lab, count):
    """Seconds until a search finds the first command of each of many new sessions, all open."""
    await lab.capture()
    lab.ingest()
    lab.index()
    took = []
    async with contextlib.AsyncExitStack() as stack:
        for number in range(count):
            connection = await stack.enter_async_context(lab.asyncpg())
            began = time.monotonic()
            await connection.execute(f"select 1 as first{number:03d}")
            while not await lab.commands(f"first{number:03d}"):
                await asyncio.sleep(0.02)
            took.append(time.monotonic() - began)
    return sorted(took[1:])  # the first one waits for processes that start


def test_first_commands(effort, publish, postgres_server, tmp_path):
    """On the embedded stores, with nothing else to do."""
    count, _ = effort(30, 0)

    async def run():
        async with Lab(tmp_path, postgres_server.port) as lab:
            return await first_commands(lab, max(count, 5))

    took = asyncio.run(run())
    table = Table("first commands of new sessions, embedded stores", ("", "p50 s", "most s", "n"))
    most = took[-1]
    table.row("searchable", figure(statistics.median(took)), figure(most), figure(len(took)))
    table.goal("searchable, all, s", most, 3, at_most=True)
    publish("latency first", table)
