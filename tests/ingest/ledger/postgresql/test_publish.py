"""What the conformance suite cannot see: many rows, many publishers, a server that dies."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sealtape.ingest.ledger import open_ledger
from sealtape.ingest.ledger.rows import Event, HeadChange, Incident
from sealtape.schemas.errors import Exists, Fenced, StoreBusy, StoreError
from sealtape.schemas.segments import record_hash
from tests.conformance.ledger import (
    TOPIC,
    A,
    claimed,
    contents,
    make_head,
    publication,
    published,
    sealed_segment,
    session_change,
)
from tests.conformance.postgresql import Cutter

BASE = Path()


def names(count):
    return [number.to_bytes(16, "big") for number in range(count)]


async def test_ten_thousand_fragments_are_quick(ledger):
    lease = await claimed(ledger)
    sessions = names(10_000)
    template = make_head()
    segment = sealed_segment(1, [(session, 0, 0, 1) for session in sessions])
    publish = publication(
        lease,
        0,
        9,
        segments=(segment,),
        heads=tuple(HeadChange(None, replace(template, session=s)) for s in sessions),
        sessions=tuple(session_change(s) for s in sessions),
        events=tuple(Event("session-open", s.hex(), b"{}", 7) for s in sessions),
    )
    await ledger.stage(lease, [segment.key])
    started = time.process_time()
    await ledger.publish(publish)
    assert time.process_time() - started < 5  # half a second where nothing else runs
    assert len(await ledger.heads([(s, 0) for s in sessions])) == 10_000
    assert len(await ledger.outbox(limit=20_000)) == 10_000
    (row,) = [row async for row in ledger.segments()]
    assert [f.record for f in await ledger.fragments_of(row.id)] == list(segment.fragments)


async def test_one_publication_may_change_a_head_twice(ledger):
    lease = await claimed(ledger)
    first, second = make_head(hi=3), make_head(hi=6)
    changes = (HeadChange(None, first), HeadChange(first.digest(), second))
    await published(ledger, lease, 0, 0, heads=changes)
    assert await ledger.epochs(A) == [second]
    with pytest.raises(Fenced):
        await published(ledger, lease, 0, 0, heads=changes)


async def test_staging_a_key_twice_in_one_call_is_refused(ledger):
    lease = await claimed(ledger)
    with pytest.raises(Exists):
        await ledger.stage(lease, ["a", "a"])
    assert await ledger.staged(0.0) == []


async def publisher(schema, partition, rounds):
    """Publish segments of one partition, each with an event."""
    ledger = await open_ledger(schema.url("ingest"), BASE)
    lease = await ledger.claim(TOPIC, partition, f"w{partition}", 60.0)
    shard, prev = f"{TOPIC}/{partition}", bytes(32)
    for n in range(rounds):
        session = bytes([partition, n]) * 8
        segment = sealed_segment(
            1000 * partition + n, [(session, 0, 0, 1)], prev=prev, n=n, shard=shard
        )
        prev = record_hash(segment.record)
        await ledger.stage(lease, [segment.key])
        await ledger.publish(
            replace(
                publication(
                    lease,
                    n,
                    n + 1,
                    segments=(segment,),
                    sessions=(session_change(session),),
                    incidents=(Incident(TOPIC, partition, n, "gap", "", session, 0, 0, 7),),
                    events=(Event("e", session.hex(), b"{}", 7),),
                ),
                shard=shard,
            )
        )
    await ledger.close()


async def test_ids_grow_in_the_order_in_which_they_are_seen(schema):
    """A tail that asks for what is after the last id it saw misses nothing."""
    reading = await open_ledger(schema.url("reader"), BASE, read_only=True)
    writers = [asyncio.create_task(publisher(schema, number, 15)) for number in range(4)]
    segments, events, incidents = [], [], []
    done = False
    while not done:
        done = all(writer.done() for writer in writers)
        last = segments[-1] if segments else 0
        segments += [row.id async for row in reading.segments(after=last)]
        events += [e.id for e in await reading.outbox(after=events[-1] if events else 0)]
        last = incidents[-1] if incidents else 0
        incidents += [i.id for i in await reading.incidents(after=last)]
    await asyncio.gather(*writers)
    assert segments == events == incidents == list(range(1, 61))
    await reading.close()


async def test_of_two_that_publish_the_same_one_wins(schema):
    """Zombies included: everybody tries with the lease that was current when he claimed."""
    ledgers = [await open_ledger(schema.url("ingest"), BASE) for _ in range(4)]
    for n in range(10):
        leases = [await ledger.claim(TOPIC, 0, "w", 60.0) for ledger in ledgers]
        for number, (ledger, lease) in enumerate(zip(ledgers, leases, strict=True)):
            if lease.term == max(other.term for other in leases):
                await ledger.stage(lease, [f"{n}-{number}"])
        tries = [
            ledger.publish(publication(lease, n, n + 1, sessions=(session_change(),)))
            for ledger, lease in zip(ledgers, leases, strict=True)
            for _ in range(2)
        ]
        outcomes = await asyncio.gather(*tries, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes if outcome is not None] == [Fenced] * 7
    row = await ledgers[0].session(A)
    assert (row.revision, row.frames) == (10, 30)
    for ledger in ledgers:
        await ledger.close()


async def test_a_claim_waits_for_a_publication_and_fences_the_next(schema, ledger):
    other = await open_ledger(schema.url("ingest"), BASE)
    lease = await claimed(ledger)
    publish = asyncio.create_task(ledger.publish(publication(lease, 0, 5)))
    newer = await claimed(other)
    outcome = (await asyncio.gather(publish, return_exceptions=True))[0]
    assert (outcome is None and newer.next_offset == 5) or isinstance(outcome, Fenced)
    with pytest.raises(Fenced):
        await ledger.publish(publication(lease, newer.next_offset, 9))
    await other.close()


# -- the connection, the server


@pytest.fixture
async def cutter(schema):
    cutter = await Cutter(schema.server).start()
    yield cutter
    await cutter.stop()


def full(lease):
    segment = sealed_segment(1, [(A, 0, 0, 3)])
    return publication(
        lease,
        0,
        5,
        segments=(segment,),
        heads=(HeadChange(None, make_head()),),
        sessions=(session_change(),),
        incidents=(Incident(TOPIC, 0, 4, "gap", "why", A, 0, 3, 7),),
        events=(Event("e", "k", b"{}", 7),),
    )


STATEMENTS = ["BEGIN", "UPDATE lease", "UPDATE object", "INTO shard", "INTO head", "INTO session"]
STATEMENTS += ["INTO fragment", "UPDATE counter", "INTO segment", "INTO incident", "INTO outbox"]


@pytest.mark.parametrize("statement", STATEMENTS)
async def test_a_connection_lost_before_the_commit_changes_nothing_but_time(
    schema, ledger, cutter, statement
):
    through = await open_ledger(cutter.url(schema.url("ingest")), BASE)
    lease = await claimed(through)
    publish = full(lease)
    await through.stage(lease, [publish.segments[0].key])
    cutter.cut(statement, forward=True)
    await through.publish(publish)
    assert cutter.cuts == 1
    found = await contents(ledger)
    assert (found[0], len(found[1]), found[2][0].revision, len(found[6]), len(found[8])) == (
        5,
        1,
        2,
        1,
        1,
    )
    await through.close()


@pytest.mark.parametrize("statement", STATEMENTS[1:])
async def test_a_client_that_is_stopped_anywhere_lets_go_of_the_lease(
    schema, ledger, cutter, statement, monkeypatch
):
    monkeypatch.setattr("sealtape.ingest.postgresql.access._IDLE_S", 1.0)
    through = await open_ledger(cutter.url(schema.url("ingest")), BASE)
    lease = await claimed(through)
    publish = full(lease)
    await through.stage(lease, [publish.segments[0].key])
    cutter.stall(statement)
    stopped = asyncio.create_task(through.publish(publish))
    async with asyncio.timeout(60):
        while not cutter.cuts:
            await asyncio.sleep(0.01)
    async with asyncio.timeout(5):
        assert (await claimed(ledger)).next_offset == 0
    with pytest.raises(Fenced):
        await stopped
    await through.close()


@pytest.mark.parametrize("heard", [False, True])
async def test_after_a_commit_without_an_answer_a_claim_tells(schema, ledger, cutter, heard):
    through = await open_ledger(cutter.url(schema.url("ingest")), BASE)
    lease = await claimed(through)
    publish = full(lease)
    await through.stage(lease, [publish.segments[0].key])
    cutter.cut("COMMIT\0", forward=heard)
    with pytest.raises(StoreError, match="unknown"):
        await through.publish(publish)
    again = await claimed(through)
    assert again.next_offset == (5 if heard else 0)
    assert len((await contents(ledger))[1]) == heard
    if not heard:
        await through.publish(replace(publish, lease=again))
    with pytest.raises(Fenced):
        await through.publish(replace(publish, lease=again))
    assert (await ledger.session(A)).frames == 3
    await through.close()


async def test_a_server_that_is_killed_while_it_commits_leaves_all_or_nothing(own_schema):
    """Kill -9 of the whole server again and again, in the middle of publications."""
    schema = own_schema
    ledger = await open_ledger(schema.url("ingest", patience="20s"), BASE)
    position, prev, number, unknown = 0, bytes(32), 0, 0
    for round_ in range(6):
        lease = await ledger.claim(TOPIC, 0, "w", 60.0)
        assert lease.next_offset == position
        assert (await ledger.shard_head(f"{TOPIC}/0")).hash == prev
        crash = schema.server.crash_soon(0.02 + 0.03 * round_)
        while not crash.done():
            segment = sealed_segment(1000 * round_ + number, [(A, 0, 0, 3)], prev=prev, n=number)
            publish = publication(
                lease,
                position,
                position + 1,
                segments=(segment,),
                sessions=(session_change(),),
                events=(Event("e", "k", b"{}", 7),),
            )
            try:
                await ledger.stage(lease, [segment.key])
                await ledger.publish(publish)
            except (StoreError, Exists):
                # Neither done nor undone to us: claim again and look.
                unknown += 1
                await crash
                lease = await ledger.claim(TOPIC, 0, "w", 60.0)
                if lease.next_offset == position:
                    continue
                assert (await ledger.segment(segment.key)) is not None
            position, number, prev = position + 1, number + 1, record_hash(segment.record)
        await crash
    rows = [row async for row in ledger.segments()]
    assert [row.record.n for row in rows] == list(range(number))
    assert [row.id for row in rows] == list(range(1, number + 1))
    assert (await ledger.session(A)).frames == 3 * number
    assert len(await ledger.outbox(limit=100_000)) == number
    assert number > 10
    await ledger.close()


async def test_a_server_that_stays_away_is_busy(own_schema):
    ledger = await open_ledger(own_schema.url("ingest", patience="200ms"), BASE)
    lease = await claimed(ledger)
    own_schema.server.halt()
    try:
        with pytest.raises(StoreBusy):
            await ledger.publish(publication(lease, 0, 5))
    finally:
        own_schema.server.resume()
    await ledger.publish(publication(lease, 0, 5))
    await ledger.close()
