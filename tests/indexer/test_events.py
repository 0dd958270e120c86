"""What the indexer tells SIEMs, from real frames on a bus through a real index."""

import asyncio
import json
from collections import Counter

import pytest

from sealtape.capture.bus.dir import DirBus
from sealtape.indexer import events as emitting
from sealtape.indexer.events import EventSource
from sealtape.indexer.index import Update, open_index
from sealtape.indexer.worker import catch_up
from sealtape.schemas import facts
from sealtape.schemas.errors import StoreError
from tests.factories.ocsf import problems
from tests.factories.sessions import build_session
from tests.factories.tapes import Tape


class Told:
    """An indexer whose updates are told to SIEMs, as the worker does it."""

    def __init__(self, deployment, events):
        self.deployment, self.events = deployment, events
        self.source = EventSource(events, deployment.index)

    async def index(self, index=None):
        index = index or self.deployment.index
        await catch_up(self.deployment.indexer(index=index, on_update=self.source))

    async def restart(self):
        """Forget all that was in memory."""
        self.source = EventSource(self.events, self.deployment.index)


@pytest.fixture
async def events(tmp_path):
    bus = DirBus(tmp_path / "events", partitions=2)
    yield bus
    await bus.close()


@pytest.fixture
def told(deployment, events):
    return Told(deployment, events)


async def on(bus):
    found = []
    for partition in range(bus.partitions):
        at, end = await bus.bounds(partition)
        while at < end:
            batch = await bus.read(partition, at, max_bytes=1 << 20, wait_s=0)
            for record in batch.records:
                assert not problems(record.value)
                found.append(json.loads(record.value))
            at = batch.next_offset
    return found


def codes(found):
    return Counter(event["metadata"]["event_code"] for event in found)


def ids(found):
    return Counter(event["metadata"]["uid"] for event in found)


async def test_a_session_from_start_to_end(deployment, told, events):
    built = build_session(commands=2, user="anna", statements=["select 1", "select 2"])
    await deployment.send(built)
    await told.index()
    start, one, two, end = await on(events)
    name, last = built.session.hex(), built.frames[-1].seq
    assert (start["metadata"]["uid"], start["type_uid"]) == (f"{name}:0:1:0", 300201)
    assert start["user"]["name"] == "anna"
    assert start["service"] == {"name": "shop"}
    assert {one["type_uid"], two["type_uid"]} == {600504}
    assert one["status"] == two["status"] == "Success"
    assert (end["metadata"]["uid"], end["type_uid"]) == (f"{name}:0:{last}:0", 300202)
    assert end["session"]["expiration_reason"] == "client"
    assert {event["metadata"]["correlation_uid"] for event in (start, one, two, end)} == {name}


async def test_each_event_once_in_whatever_parts_the_frames_come(deployment, told, events):
    built = build_session(commands=3)
    for message in built.messages:
        await deployment.append([message])
        await told.index()
    assert codes(await on(events)) == {"session-start": 1, "statement": 3, "session-end": 1}
    await deployment.seal()
    await told.index()
    assert codes(await on(events)) == {"session-start": 1, "statement": 3, "session-end": 1}
    assert told.source.sent == 5


async def test_a_restart_after_each_frame_sends_nothing_twice(deployment, told, events):
    built = build_session(commands=2)
    for message in built.messages:
        await deployment.append([message])
        await told.restart()
        await told.index()
    assert codes(await on(events)) == {"session-start": 1, "statement": 2, "session-end": 1}


async def send(deployment, tape, since=0):
    """Append what a tape holds from a message on; how many it holds now."""
    await deployment.append(tape.build.messages[since:])
    return len(tape.build.messages)


async def test_a_long_statement_is_told_when_it_runs_and_when_it_is_done(deployment, told, events):
    tape = Tape()
    ref = tape.begun("vacuum")
    sent = await send(deployment, tape)
    await told.index()
    *_, running = await on(events)
    assert (running["status_id"], running["status"]) == (99, "Running")
    assert "duration" not in running
    tape.ended(ref, status="ok", rows=0, duration_ns=5_000_000_000)
    tape.close()
    await send(deployment, tape, sent)
    await told.index()
    *_, done, end = await on(events)
    assert running["metadata"]["uid"] == done["metadata"]["uid"] + ":0"
    assert (done["status"], done["duration"]) == ("Success", 5000)
    assert end["metadata"]["event_code"] == "session-end"


async def test_a_failed_statement_and_one_without_an_answer(deployment, told, events):
    tape = Tape()
    tape.ended(
        tape.begun("select nope"), status="error", code="42703", message="column does not exist"
    )
    tape.begun("select pg_sleep(99)")
    tape.close()
    await send(deployment, tape)
    await told.index()
    _, failed, cut, _ = await on(events)
    assert (failed["status"], failed["status_code"]) == ("Failure", "42703")
    assert failed["status_detail"] == "column does not exist"
    assert cut["status_detail"] == "The session ended before a result."


async def test_refusals_and_the_node_that_gave_them(deployment, told, events):
    tape = Tape(protocol="journal")
    attributes = {"user": "eve", "source": "192.0.2.9:7", "target": "shop", "protocol": "postgres"}
    tail = facts.encode_tail(
        status="not-allowed", code="42501", message="none of your groups", attributes=attributes
    )
    tape.facts(facts.encode_fact(facts.encode_head(0, facts.REFUSAL, 0), tail=tail))
    tape.close()
    await send(deployment, tape)
    await told.index()
    start, refused, stop = await on(events)
    assert (start["type_uid"], stop["type_uid"]) == (600203, 600204)
    assert (refused["type_uid"], refused["status"]) == (300201, "Failure")
    assert (refused["user"]["name"], refused["service"]["name"]) == ("eve", "shop")
    assert refused["src_endpoint"] == {"ip": "192.0.2.9", "port": 7}
    assert refused["status_code"] == "42501"


async def test_a_session_that_a_node_recovered_ends_once(deployment, told, events):
    first = build_session(commands=1, close=None)
    await deployment.send(first)
    await told.index()
    assert codes(await on(events)) == {"session-start": 1, "statement": 1}
    recovery = build_session(
        session=first.session, epoch=1, continues=first.continues, commands=0, close="aborted",
        seed=9,
    )  # fmt: skip
    await deployment.send(recovery)
    await told.index()
    *_, end = await on(events)
    last = recovery.frames[-1].seq
    assert end["metadata"]["uid"] == f"{first.session.hex()}:1:{last}:0"
    assert (end["status"], end["severity"]) == ("Failure", "Medium")


class Broken:
    """An index whose `put` fails."""

    def __init__(self, index):
        self.index = index

    def __getattr__(self, name):
        return getattr(self.index, name)

    async def put(self, update):
        raise StoreError("no room")


async def test_a_crash_between_topic_and_index_sends_the_same_again(deployment, told, events):
    await deployment.send(build_session(commands=2))
    with pytest.raises(StoreError):
        await told.index(Broken(deployment.index))
    assert codes(await on(events)) == {"session-start": 1, "statement": 2, "session-end": 1}
    await told.restart()
    await told.index()
    again = await on(events)
    assert set(ids(again).values()) == {2}
    by_id = {}
    for event in again:
        assert by_id.setdefault(event["metadata"]["uid"], event) == event


class Away(DirBus):
    """A bus that answers only when it is `there`."""

    there = False

    async def append(self, partition, messages):
        if not self.there:
            raise StoreError("The bus is away.")
        return await super().append(partition, messages)


async def test_indexing_waits_while_the_events_bus_is_away(deployment, tmp_path):
    bus = Away(tmp_path / "events", partitions=2)
    told = Told(deployment, bus)
    built = build_session(commands=2)
    await deployment.send(built)
    for _ in range(2):
        with pytest.raises(StoreError, match="away"):
            await told.index()
        assert await deployment.index.positions() == {}
        assert await deployment.index.progress(built.session.hex()) is None
    bus.there = True
    await told.index()
    assert codes(await on(bus)) == {"session-start": 1, "statement": 2, "session-end": 1}
    assert (await deployment.index.session(built.session.hex())).commands == 2
    await bus.close()


async def test_a_rebuild_tells_nothing(deployment, told, events):
    await deployment.send(build_session(commands=2))
    await told.index()
    before = await on(events)
    await deployment.rebuild(on_update=told.source)
    await told.restart()
    await told.index()
    assert await on(events) == before


async def test_a_rebuild_tells_what_came_since_the_indexers_were_stopped(deployment, told, events):
    old, known, sealed, live = (build_session(commands=2, seed=seed) for seed in range(4))
    half = len(known.messages) // 2
    await deployment.send(old)
    await deployment.seal()
    await deployment.append(known.messages[:half])
    await told.index()
    assert codes(await on(events)) == {"session-start": 2, "statement": 2, "session-end": 1}
    await deployment.append(known.messages[half:])
    await deployment.send(sealed)
    await deployment.seal()
    await deployment.send(live)
    await told.restart()
    await deployment.rebuild(on_update=told.source)
    whole = await on(events)
    by_id = {}
    for event in whole:
        assert by_id.setdefault(event["metadata"]["uid"], event) == event
    assert codes(by_id.values()) == {"session-start": 4, "statement": 8, "session-end": 4}
    # What was read live and sealed before its segment was followed may come again, no more.
    again = {uid for uid, count in ids(whole).items() if count > 1}
    assert all(uid.startswith(known.session.hex()) for uid in again)
    for each in (old, known, sealed, live):
        assert (await deployment.index.session(each.session.hex())).commands == 2
    await told.index()
    assert await on(events) == whole


async def test_a_progress_that_cannot_be_read_is_as_good_as_none(deployment, told, events):
    built = build_session(commands=2)
    half = len(built.messages) // 2
    await deployment.append(built.messages[:half])
    await told.index()
    name = built.session.hex()
    await deployment.index.put(Update(progress={name: b"of another version"}))
    await told.restart()
    await deployment.append(built.messages[half:])
    await told.index()
    by_id = {event["metadata"]["uid"]: event for event in await on(events)}
    assert codes(by_id.values()) == {"session-start": 1, "statement": 2, "session-end": 1}
    assert (await deployment.index.session(name)).commands == 2


async def test_a_rebuild_of_an_index_that_was_lost_tells_nothing(
    deployment, told, events, tmp_path, caplog
):
    await deployment.send(build_session(commands=2))
    await deployment.rebuild(on_update=told.source)
    assert await on(events) == []
    assert "had no positions" in caplog.text


async def test_of_what_it_has_forgotten_it_asks_the_index(deployment, told, events, monkeypatch):
    monkeypatch.setattr(emitting, "MAX_KNOWN", 1)
    built = [build_session(commands=2, seed=seed) for seed in range(4)]
    for part in range(max(len(each.messages) for each in built)):
        for each in built:
            await deployment.append(each.messages[part : part + 1])
        await told.index()
    assert set(ids(await on(events)).values()) == {1}
    assert codes(await on(events)) == {"session-start": 4, "statement": 8, "session-end": 4}
    assert len(told.source._known) == 1


async def test_updates_of_other_sessions_come_at_the_same_time(
    deployment, events, monkeypatch, tmp_path
):
    monkeypatch.setattr(emitting, "MAX_KNOWN", 1)
    updates = []

    async def keep(update):
        updates.append(update)

    for seed in range(8):
        await deployment.send(build_session(commands=2, seed=seed))
        await catch_up(deployment.indexer(on_update=keep))
    empty = await open_index("sqlite:other.db", tmp_path)
    source = EventSource(events, empty)
    await asyncio.gather(*map(source, updates))
    assert codes(await on(events)) == {"session-start": 8, "statement": 16, "session-end": 8}
    await empty.close()


async def test_a_command_without_its_session(deployment, told, events):
    built = build_session(commands=1)
    await deployment.send(built)
    await told.index()
    command = await deployment.index.command(f"{built.session.hex()}:0:0")
    await told.restart()
    await told.source(Update(commands=(command,)))
    found = await on(events)
    assert found[-1]["database"]["name"] == "shop"
    assert found[-1]["metadata"]["uid"] == f"{built.session.hex()}:0:3:0"
    assert ids(found)[found[-1]["metadata"]["uid"]] == 2


async def test_positions_alone_tell_nothing(told, events):
    await told.source(Update(positions={"ledger": 5}))
    assert told.source.sent == 0
    assert await on(events) == []
