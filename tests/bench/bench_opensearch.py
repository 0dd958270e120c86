"""The index in OpenSearch: how fast it is written, when documents are found, how fast it answers.

`SEALTAPE_BENCH_DOCUMENTS` says how many commands the searches have before them (1,000,000).
"""

import asyncio
import os
import random
import statistics
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sealtape.indexer.index import open_index, prepare_index
from sealtape.indexer.index.base import Page, Update
from sealtape.indexer.query import parse
from tests.bench import processes
from tests.bench.harness import Table, figure
from tests.conformance.index import S, command, session
from tests.servers import availability
from tests.servers.opensearch import OpenSearchServer

START = 20_780 * 86_400 * S
COMMANDS = 40
"""Of one session."""
PUT = 4096
"""Commands in one write: what the indexer writes when it is behind."""
LANES = 2
VERBS = ("select", "update", "insert into", "delete from")
NOUNS = ("orders", "customers", "invoices", "payments", "items", "ledger", "audit_log", "users")
COLUMNS = ("id", "price", "total", "created_at", "status", "email", "amount", "city", "note")
QUERIES = (
    *("payments", "update orders", '"where price"', "cust*", '"select st"*', "effect:write"),
    *("user:user7@example.com error:true", "table:invoices -effect:read", "source:10.3.0.0/16"),
    *("error:42P01 since:2h", "target:db3 city", "session:00"),
)
"""Searches as people make them; each is asked of commands and of sessions."""


def recorded(sessions, seed):
    """Sessions with their commands, a few thousand commands at a time."""
    dice = random.Random(seed)
    owners, commands = [], []
    for number in range(sessions):
        start = START + number * S
        owner = session(
            dice.getrandbits(128), started_ns=start, ended_ns=start + 60 * S, state="sealed",
            user=f"user{number % 50}@example.com", target=f"db{number % 7}",
            source=f"10.{number % 256}.{number // 256 % 256}.7:51234", commands=COMMANDS,
        )  # fmt: skip
        made = [statement(dice, owner, n) for n in range(COMMANDS)]
        owners.append(replace(owner, effects=tuple(sorted({each.effect for each in made}))))
        commands += made
        if len(commands) >= PUT:
            yield owners, commands
            owners, commands = [], []
    if owners:
        yield owners, commands


def statement(dice, owner, n):
    verb, noun = dice.randrange(4), dice.choice(NOUNS)
    columns = ", ".join(dice.choices(COLUMNS, k=4))
    failed = dice.random() < 0.02
    return command(
        owner, n, time_ns=owner.started_ns + n * S, version=1,
        text=f"{VERBS[verb]} {noun} {columns} where {dice.choice(COLUMNS)} = $1 and n{n} = $2",
        tables=(f"public.{noun}",), effect="read" if verb == 0 else "write",
        rows=dice.randrange(100), bytes_out=dice.randrange(9999), duration_ns=dice.randrange(S),
        status="error" if failed else "ok", error="42P01" if failed else "",
        message="relation does not exist" if failed else "",
        fingerprint=f"{dice.getrandbits(12):016x}",
    )  # fmt: skip


@pytest.fixture(scope="module")
def server():
    """An OpenSearch of its own, with the memory that a small one has."""
    availability.need(OpenSearchServer)
    with OpenSearchServer.own() as own:
        yield own


def updates(sessions, seed):
    """So many sessions as the indexer writes them."""
    for number, (owners, commands) in enumerate(recorded(sessions, seed)):
        progress = {owner.id: b'{"epochs":[],"running":[],"v":1}' for owner in owners}
        yield Update(tuple(owners), tuple(commands), {f"bus/{seed}": number}, progress)


async def fill(index, made):
    """Write updates one after the other; returns how many commands they had."""
    count = 0
    for update in made:
        await index.put(update)
        count += len(update.commands)
    return count


def test_writing(server, effort, publish, tmp_path):
    """A backlog in large writes of two lanes, beside the embedded index; then small writes."""
    rounds, seconds = effort(3, 9)
    sessions = 1000 if seconds == 9 else 200
    table = Table(
        f"Indexing {sessions * COMMANDS:,} commands in writes of {PUT:,}, {LANES} at a time",
        ("index", "documents/s", "CPU of the client, µs", "of the server, µs"),
    )
    url = server.index_url(server.prefix())
    asyncio.run(prepare_index(url, Path("/")))
    asyncio.run(_warm(url, 8 if seconds == 9 else 1))
    urls = {"opensearch": url, "sqlite": f"sqlite:{tmp_path}/index.db"}
    for name, where in urls.items():
        found = [
            asyncio.run(_bulk(where, sessions, 100 + number, server)) for number in range(rounds)
        ]
        rate, client, cluster = max(found)
        table.row(name, figure(rate), figure(client), figure(cluster) if name != "sqlite" else None)
        if name == "opensearch":
            table.goal("documents a second in OpenSearch", rate, 5000, at_most=False)
    small = Table(
        "A write of 60 commands until it is found, in OpenSearch", ("", "median, ms", "p99, ms")
    )
    took = sorted(asyncio.run(_small(url, 300 if seconds == 9 else 30)))
    tail = took[int(len(took) * 0.99)]
    small.row("put", figure(statistics.median(took) * 1000), figure(tail * 1000))
    small.goal("seconds until found, p99", tail, 3.0, at_most=True)
    publish("opensearch writing", table, small)


async def _warm(url, times):
    """A server that was just started compiles first: its first 200,000 documents are slow."""
    index = await open_index(url, Path("/"))
    for number in range(times):
        await fill(index, updates(600, number))
    await index.close()


async def _bulk(url, sessions, seed, server):
    lanes = [list(updates(sessions // LANES, LANES * seed + lane)) for lane in range(LANES)]
    index = await open_index(url, Path("/"))
    began, ours, theirs = time.perf_counter(), time.process_time(), processes.cpu_s((server.pid,))
    count = sum(await asyncio.gather(*(fill(index, lane) for lane in lanes)))
    wall = time.perf_counter() - began
    ours, theirs = time.process_time() - ours, processes.cpu_s((server.pid,)) - theirs
    await index.close()
    return count / wall, ours / count * 1e6, theirs / count * 1e6


async def _small(url, times):
    index = await open_index(url, Path("/"))
    dice, took = random.Random(5), []
    owner = session(99, started_ns=START)
    for number in range(times):
        grown = replace(owner, revision=2 * number)
        commands = tuple(statement(dice, owner, number * 60 + n) for n in range(60))
        started = time.perf_counter()
        await index.put(Update((grown,), commands, {"bus/0": number}, {owner.id: b"{}"}))
        took.append(time.perf_counter() - started)
        await asyncio.sleep(0.05)
    await index.close()
    return took


def test_searching(server, effort, publish):
    """A page of 50 of each query, of commands and of sessions."""
    rounds, seconds = effort(9, 9)
    wanted = int(os.environ.get("SEALTAPE_BENCH_DOCUMENTS", "1000000"))
    count = wanted if seconds == 9 else min(wanted, 40_000)
    url = server.index_url(server.prefix())
    asyncio.run(prepare_index(url, Path("/")))
    commands, sessions = asyncio.run(_search(url, count, rounds))
    table = Table(
        f"Searching {count:,} commands of {count // COMMANDS:,} sessions in OpenSearch",
        ("of", "median, ms", "p95, ms", "slowest query", "its median, ms"),
    )
    for name, found in (("commands", commands), ("sessions", sessions)):
        took = sorted(one for times in found.values() for one in times)
        slowest = max(found, key=lambda query: statistics.median(found[query]))
        p95 = took[int(len(took) * 0.95)] * 1000
        table.row(
            name, figure(statistics.median(took) * 1000), figure(p95), f"`{slowest}`",
            figure(statistics.median(found[slowest]) * 1000),
        )  # fmt: skip
        table.goal(f"p95 of searches of {name}, ms", p95, 200, at_most=True)
    publish("opensearch searching", table)


async def _search(url, count, rounds):
    index = await open_index(url, Path("/"))
    await fill(index, updates(count // COMMANDS, 1))
    now_ns = START + count // COMMANDS * S
    found = []
    for search in (index.search_commands, index.search_sessions):
        times = {query: [] for query in QUERIES}
        for number in range(rounds + 2):
            for query in QUERIES:
                started = time.perf_counter()
                await search(parse(query, now_ns=now_ns), Page())
                if number > 1:  # the first two warm it up
                    times[query].append(time.perf_counter() - started)
        found.append(times)
    await index.close()
    return found
