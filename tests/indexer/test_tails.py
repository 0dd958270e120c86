"""A bus administrator drops a session's tail: the node's heartbeats show it, in the log too."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest

from sealtape.capture.bus import open_bus
from sealtape.capture.epoch import Terms
from sealtape.capture.node import start_capture
from sealtape.indexer.node import indexer_key, indexer_stores
from sealtape.indexer.tails import TAIL_MISSING, TailWatch
from sealtape.indexer.worker import start_indexer
from sealtape.ingest.ledger import open_ledger
from sealtape.schemas.bodies import Ident, RetentionClass
from sealtape.schemas.facts import (
    HEARTBEAT,
    Live,
    encode_fact,
    encode_facts,
    encode_head,
    encode_tail,
)
from sealtape.schemas.frames import Frame, Kind
from sealtape.schemas.messages import CheckpointMessage, decode
from sealtape.schemas.slices import CLIENT_IN
from sealtape.schemas.tlog.records import LogIncident
from tests.conformance.bus import read_all
from tests.factories.deployments import make_site, put, seal, sealing, settled
from tests.factories.logs import grow_log, kinds, read_log, writing

JOURNAL = b"\x99" * 16
KEPT = 3
"""Frames of the session that the administrator lets through."""


@pytest.fixture
def site(tmp_path):
    return make_site(tmp_path / "lab")


def quick(settings):
    listener = replace(settings.capture.postgres, listen="127.0.0.1:0")
    capture = replace(settings.capture, postgres=listener, heartbeat_s=0.2, frame_ms=20)
    return replace(settings, capture=capture)


async def recorded(site, *, short=False):
    """What a node sends while a session is open: pairs for the bus, the session, and its size.

    A `short` one is closed before any heartbeat, of which there are some afterwards.
    """
    bus = open_bus("dir:source?partitions=1", site.folder)
    running = await start_capture(quick(site.settings), bus=bus)
    ident = Ident(user="ada", target="shop", protocol="postgres", node="dev-1")
    terms = Terms(retention=RetentionClass("standard", 7_776_000, 34_560_000))
    recorder = await running.worker.open_session(
        ident, terms, on_stall=lambda _: None, on_end=lambda _: None
    )
    for number in range(4):
        recorder.data(CLIENT_IN, b"select %d" % number)
        recorder.cut()
    recorder.checkpoint()
    size = recorder.size
    if short:
        await running.worker.close_session(recorder, "client")
        size = recorder.size
    await asyncio.sleep(0.8)  # heartbeats list it or do not, and are on the bus
    pairs = [(record.key, record.value) for record in await read_all(bus)]
    await running.stop()
    await bus.close()
    return pairs, recorder.session, size


def without_tail(pairs, session):
    """What an administrator of the bus leaves of it."""
    for key, value in pairs:
        message = decode(value)
        late = (isinstance(message, Frame) and message.seq >= KEPT) or (
            isinstance(message, CheckpointMessage) and message.size > KEPT
        )
        if key != session or not late:
            yield key, value


async def incidents(site):
    ledger = await open_ledger(site.settings.stores.ledger, site.folder, read_only=True)
    try:
        return [row for row in await ledger.incidents() if row.reason == TAIL_MISSING]
    finally:
        await ledger.close()


async def watched(site, pairs, condition, missing_s=0.3, later=()):
    """Ingest, the log and the indexer at work on what the bus has, until the condition holds.

    What comes `later` does so after more than `missing_s`.
    """
    settings = site.settings
    async with sealing(site) as (stores, running), writing(site), indexer_stores(settings) as own:
        await put(stores.bus, pairs)
        indexer = await start_indexer(
            own, indexer_key(settings), refresh_s=0.05, missing_s=missing_s
        )
        try:
            async with asyncio.timeout(60):
                if later:
                    await settled(running)
                    await asyncio.sleep(2 * missing_s)
                    await put(stores.bus, later)
                while not await condition():
                    await asyncio.sleep(0.05)
        finally:
            await indexer.stop()


async def test_a_dropped_tail_is_an_incident_in_the_ledger_and_the_log(site):
    pairs, session, size = await recorded(site)
    assert size > KEPT

    async def told():
        return await incidents(site)

    await watched(site, list(without_tail(pairs, session)), told)
    (row,) = await incidents(site)
    assert (row.session, row.epoch, row.seq) == (session, 0, KEPT)
    assert row.topic == "heartbeats"
    await grow_log(site)
    entries, _ = await read_log(site)
    (entry,) = [each for each in entries if kinds([each]) == ["incident"]]
    assert isinstance(entry, LogIncident)
    assert (entry.reason, entry.session, entry.epoch, entry.seq) == (TAIL_MISSING, session, 0, KEPT)
    assert (entry.bus.topic, entry.bus.offset, entry.at_ns) == (row.topic, row.offset, row.at_ns)


async def test_a_session_too_short_for_a_heartbeat_has_an_end_too(site):
    pairs, session, size = await recorded(site, short=True)
    assert size > KEPT

    async def told():
        return await incidents(site)

    left = list(without_tail(pairs, session))
    messages = [decode(value) for _, value in left]
    beats = [
        at
        for at, message in enumerate(messages)
        if isinstance(message, Frame) and message.kind == Kind.FACTS and left[at][0] != session
    ]
    await watched(site, left[: beats[-1]], told, later=left[beats[-1] :])
    (row,) = await incidents(site)
    assert (row.session, row.epoch, row.seq) == (session, 0, KEPT)


@pytest.mark.parametrize("short", [True, False])
async def test_what_came_whole_is_none(site, short):
    pairs, session, size = await recorded(site, short=short)
    ledger = await open_ledger(site.settings.stores.ledger, site.folder)

    async def sealed():
        heads = await ledger.heads([(session, 0)])
        return heads and heads[session, 0].hi >= size

    await watched(site, pairs, sealed, missing_s=0.1)
    await asyncio.sleep(0.3)
    await ledger.close()
    assert await incidents(site) == []


class Bus:
    """As much of a bus as the watch looks at."""

    topic, partitions = "bus", 1

    def __init__(self, end=0):
        self.end = end

    async def bounds(self, _):
        return 0, self.end

    def partition_of(self, _):
        return 0


def beat(*sessions):
    tail = encode_tail(status="1/1", rows=len(sessions), live=sessions)
    return encode_facts([0, 0, 0, 0], [encode_fact(encode_head(0, HEARTBEAT, 0), tail=tail)])


async def test_it_is_told_once_whoever_watches_and_old_heartbeats_say_nothing(site):
    built = site.session(commands=2, close=None)
    await seal(site, [built])
    body = beat(Live(built.session, 0, 1, built.tree.hi + 5, bytes(32)))
    ledger = await open_ledger(site.settings.stores.ledger, site.folder)
    time = SimpleNamespace(now=0.0)

    def watch():
        made = TailWatch(ledger, Bus(), 10.0, monotonic=lambda: time.now, clock_ns=lambda: 10**18)
        made.take(JOURNAL, body, 10**18 - 5)
        return made

    first = watch()
    assert await first.once() == []
    time.now = 20.0
    (tail,) = await first.once()
    assert (tail.session, tail.head, tail.size) == (built.session, built.tree.hi, built.tree.hi + 5)
    time.now = 40.0
    assert await first.once() == []
    await grow_log(site)
    assert len(await ledger.inbox()) == 0
    second = watch()
    await second.once()
    time.now = 60.0
    assert await second.once() == []
    assert len(await incidents(site)) == 1
    old = TailWatch(ledger, Bus(), 0.0, monotonic=lambda: time.now, clock_ns=lambda: 10**18)
    old.take(JOURNAL, body, 10**18 - 90_000 * 10**9)
    assert await old.once() == []
    assert old._rule.waiting() == []
    await ledger.close()


async def test_while_ingest_is_behind_it_waits(site):
    body = beat(Live(b"\xaa" * 16, 0, 1, 5, bytes(32)))
    ledger = await open_ledger(site.settings.stores.ledger, site.folder)
    time = SimpleNamespace(now=0.0)
    watch = TailWatch(ledger, Bus(end=7), 10.0, monotonic=lambda: time.now, clock_ns=lambda: 10**18)
    watch.take(JOURNAL, body, 10**18)
    for now in (0.0, 20.0, 1000.0):
        time.now = now
        assert await watch.once() == []
    await ledger.close()
