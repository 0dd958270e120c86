"""Kafka away for longer than sessions may wait: each level keeps what it promises.

At `acked` sessions stall, end after the grace time with an error in the protocol's words, and new
ones are refused; at `spooled` and `durable` the same happens when the spool is full, not before.
Nothing that reached either side is missing from the record.
"""

import asyncio
import contextlib
import os
import time

import asyncpg
import psycopg
import pytest

from tests.journeys.aftermath import check_index, check_recorded, check_sealed, check_taps
from tests.journeys.lab import tapped_lab, target_text
from tests.journeys.taps import Tap
from tests.journeys.watch import Watch
from tests.servers.stores import StoreSet

GRACE_S = 3
SPOOL = "6MiB"
NOISE = 16 << 10
CANNOT_RECORD = "58030"
REFUSED = "57P03"


@pytest.fixture
def own_kafka(tmp_path, kafka_alone, s3_server, postgres_stores, opensearch_server):
    """Stores on a Kafka of the test's own."""
    return StoreSet.new(
        tmp_path, kafka=kafka_alone, s3=s3_server, postgres=postgres_stores,
        opensearch=opensearch_server,
    )  # fmt: skip


@contextlib.asynccontextmanager
async def world(folder, server, stores, *, level, capture=""):
    """A lab with `shop` at level spooled and `careful` at another: (lab, watch, taps, rooms)."""
    settings = {
        "capture": f"grace_s = {GRACE_S}\n{capture}",
        "more": target_text("careful", server.port, more=f'level = "{level}"'),
        "stores": stores,
        "metrics": True,
    }
    async with tapped_lab(folder, server, **settings) as (lab, inner), Tap(0) as outer:
        text = lab.config.read_text()  # both targets through the tap
        lab.config.write_text(text.replace(f":{server.port}", f":{inner.port}"))
        node, ingest, index = await lab.capture(), lab.ingest(), lab.index()
        outer.target = node.port
        async with Watch(lab, capture=node, ingest=ingest, indexer=index) as watch:
            await watch.well()
            yield lab, watch, (outer, inner), (node, ingest, index)


def connected(lab, target, port):
    """A connection of psycopg: it tells the error with which a session was ended."""
    return psycopg.connect(lab.dsn(target, port=port), autocommit=True)


async def refused(lab, target, port):
    """What a new client of a target is told; empty when it gets in."""
    try:
        connection = await lab.connect(target, port=port)
    except asyncpg.PostgresError as exc:
        return exc.sqlstate
    await connection.close(timeout=30)
    return ""


async def over(lab, taps, rooms):
    """Let all of it drain: the leaves that were on the bus."""
    for tap in taps:
        await tap.quiet()
    node, ingest, index = rooms
    assert await node.stop() == 0
    leaves = await lab.all_sealed()
    assert await ingest.stop() == 0
    assert await index.stop() == 0
    return leaves


@pytest.mark.timeout(600)
async def test_acked_sessions_end_after_the_grace_time(
    tmp_path, postgres_server, kafka_alone, own_kafka
):
    postgres_server.sql("drop table if exists outage; create table outage (n int)")
    async with world(tmp_path, postgres_server, own_kafka, level="acked") as (
        lab, watch, taps, rooms,
    ):  # fmt: skip
        port = taps[0].port
        careful = await asyncio.to_thread(connected, lab, "careful", port)
        shop = await lab.connect(port=port)
        await asyncio.to_thread(careful.execute, "insert into outage values (1)")
        await shop.execute("insert into outage values (10)")
        await asyncio.to_thread(kafka_alone.stop)
        began = time.monotonic()
        with pytest.raises(psycopg.Error) as told:
            await asyncio.to_thread(careful.execute, "insert into outage values (2)")
        assert told.value.sqlstate == CANNOT_RECORD
        assert "can no longer be recorded" in str(told.value)
        assert time.monotonic() - began >= GRACE_S
        careful.close()
        assert await refused(lab, "careful", port) == REFUSED
        assert await refused(lab, "shop", port) == ""
        await shop.execute("insert into outage values (11)")
        seen = await watch.look()
        assert "error" in seen.status["bus"]
        assert seen.status["capture"]["oldest_unacked_s"] > GRACE_S
        assert seen.told("capture", "oldest_unacked_seconds") > GRACE_S
        assert seen.told("capture", "refused_total") > 0
        assert seen.ready("capture")
        assert postgres_server.sql("select n from outage order by n") == "1\n10\n11"

        await asyncio.to_thread(kafka_alone.start)
        await lab.until(lambda: refused(lab, "careful", port), lambda code: not code)
        async with lab.asyncpg("careful", port=port) as connection:
            await connection.execute("insert into outage values (3)")
        await shop.close()
        leaves = await over(lab, taps, rooms)
        assert postgres_server.sql("select n from outage order by n") == "1\n3\n10\n11"
        await check_recorded(lab, leaves)
        reasons = await check_taps(lab, *(tap.sessions() for tap in taps))
        assert reasons.count("spool") == 1
        assert set(reasons) == {"spool", "client"}


def until_cut_off(lab, target, port):
    """Send noise until the session is ended: the code, how long it stalled, how often it went.

    Answers are short: in the middle of one there would be no place for an error.
    """
    count, answered = 0, time.monotonic()
    with connected(lab, target, port) as connection:
        try:
            while True:
                connection.execute("select length(%s)", (os.urandom(NOISE).hex(),))
                count, answered = count + 1, time.monotonic()
                time.sleep(0.02)
        except psycopg.Error as exc:
            return exc.sqlstate, time.monotonic() - answered, count


@pytest.mark.timeout(600)
async def test_a_full_spool_ends_sessions_of_every_level(
    tmp_path, postgres_server, kafka_alone, own_kafka
):
    capture = f'spool_limit = "{SPOOL}"'
    async with world(tmp_path, postgres_server, own_kafka, level="durable", capture=capture) as (
        lab,
        watch,
        taps,
        rooms,
    ):
        port = taps[0].port
        async with lab.asyncpg(port=port) as connection:
            await connection.execute("select 1 as before_it_all")
        await asyncio.to_thread(kafka_alone.stop)
        targets = ("shop", "careful")
        reading = [asyncio.to_thread(until_cut_off, lab, name, port) for name in targets]
        for code, stalled_s, count in await asyncio.gather(*reading):
            assert code == CANNOT_RECORD
            assert stalled_s >= GRACE_S * 0.9
            assert count > 5  # they went on, into the spool
        assert [await refused(lab, name, port) for name in targets] == [REFUSED] * 2
        seen = await watch.look()
        assert seen.told("capture", "spool_failing") == 1
        assert seen.checks("capture")["spool"] != "ok"
        assert not seen.ready("capture")
        assert seen.told("capture", "spool_bytes") <= seen.told("capture", "spool_limit_bytes")

        await asyncio.to_thread(kafka_alone.start)
        for name in targets:
            await lab.until(lambda name=name: refused(lab, name, port), lambda code: not code)
            async with lab.asyncpg(name, port=port) as connection:
                await connection.execute("select 1 as after_it_all")
        leaves = await over(lab, taps, rooms)
        await check_sealed(lab, leaves)
        await check_index(lab)
        reasons = await check_taps(lab, *(tap.sessions() for tap in taps))
        assert reasons.count("spool") == 2
        assert set(reasons) == {"spool", "client"}
        # Sessions are whole; the node's journal states that it could not record for a while.
        (journal,) = await lab.lines("sessions", "protocol:journal")
        report = await lab.verify(expect=2)
        assert {each["session"] for each in report["findings"]} == {journal["session"]}
        assert {each["verdict"] for each in report["findings"]} == {"incomplete"}
