"""From the outbox to the events bus: at least once, in order, by one process at a time."""

import asyncio
import json
import logging

import pytest

from sealtape.capture.bus.dir import DirBus
from sealtape.ingest import relay as relaying
from sealtape.ingest.findings import REASONS
from sealtape.ingest.ledger.rows import Event
from sealtape.ingest.ledger.sqlite import SqliteLedger
from sealtape.ingest.relay import OUTBOX, Relay, start_relay
from sealtape.schemas import canonical
from sealtape.schemas.errors import SettingsError, StoreBusy, StoreError
from sealtape.schemas.ocsf.lifecycle import SEVERITIES
from tests.conformance.ledger import claimed, published
from tests.factories.ocsf import problems

SESSIONS = [bytes([n]) * 16 for n in range(1, 9)]
TTL_S = 1.0


def opened(session, frames=9):
    body = {
        "v": 1, "kind": "session-open", "session": session.hex(), "epoch": 0, "tenant": "main",
        "class": "standard", "frames": str(frames),
    }  # fmt: skip
    return Event("session-open", session.hex(), canonical.encode(body), 5)


@pytest.fixture
async def ledger(tmp_path):
    ledger = await SqliteLedger.open("sqlite:ledger.db", tmp_path)
    yield ledger
    await ledger.close()


@pytest.fixture
async def events(tmp_path):
    bus = DirBus(tmp_path / "events", partitions=2)
    yield bus
    await bus.close()


@pytest.fixture
async def publish(ledger):
    """Put events into the outbox, as a publication does."""
    lease = await claimed(ledger)
    position = 0

    async def call(*rows):
        nonlocal position
        await published(ledger, lease, position, position + 1, events=rows)
        position += 1

    return call


async def on(bus):
    """All events on a bus, each checked against OCSF, by partition."""
    found = []
    for partition in range(bus.partitions):
        first, end = await bus.bounds(partition)
        while first < end:
            batch = await bus.read(partition, first, max_bytes=1 << 20, wait_s=0)
            for record in batch.records:
                assert not problems(record.value)
                event = json.loads(record.value)
                assert record.key.decode() == event["metadata"]["correlation_uid"]
                found.append((partition, event))
            first = batch.next_offset
    return found


async def until(check, seconds=60.0):
    async with asyncio.timeout(seconds):
        while not await check():
            await asyncio.sleep(0.02)


async def test_what_is_published_is_sent_and_leaves_the_outbox(ledger, events, publish):
    await publish(*map(opened, SESSIONS))
    running = start_relay(ledger, events, owner="a", lease_s=TTL_S)
    await until(lambda: sent_all(ledger))
    await publish(opened(SESSIONS[0], 10))
    await until(lambda: sent_all(ledger))
    await running.stop()
    found = await on(events)
    assert running.relay.relayed == len(found) == 9
    for partition, event in found:
        session = bytes.fromhex(event["metadata"]["correlation_uid"])
        assert partition == events.partition_of(session)
    frames = [e["unmapped"]["sealtape"]["frames"] for _, e in found
              if e["metadata"]["correlation_uid"] == SESSIONS[0].hex()]  # fmt: skip
    assert frames == [9, 10]


async def sent_all(ledger):
    return not await ledger.outbox()


async def test_more_than_a_batch(ledger, events, publish, monkeypatch):
    monkeypatch.setattr(relaying, "BATCH", 3)
    await publish(*map(opened, SESSIONS))
    relay = Relay(ledger, events, owner="a")
    assert await relay.step()
    assert len(await ledger.outbox()) == 5
    assert await relay.step()
    assert await relay.step()
    assert not await relay.step()
    assert len(await on(events)) == 8


async def test_an_event_no_version_knows_is_sent_all_the_same(ledger, events, publish):
    await publish(Event("shard-moved", "k", b"\xff not json", 5), opened(SESSIONS[0]))
    assert await Relay(ledger, events, owner="a").step()
    assert sorted(e["class_uid"] for _, e in await on(events)) == [0, 1008]


async def test_one_relays_at_a_time_and_another_takes_over(ledger, events, publish):
    first = start_relay(ledger, events, owner="a", lease_s=TTL_S)
    await until(lambda: held_by(ledger, "a"))
    second = start_relay(ledger, events, owner="b", lease_s=TTL_S)
    await asyncio.sleep(1.5 * TTL_S)  # the lease is renewed all the while
    await publish(opened(SESSIONS[0]))
    await until(lambda: sent_all(ledger))
    assert (first.relay.relayed, second.relay.relayed) == (1, 0)
    await first.stop()
    await publish(opened(SESSIONS[1]))
    await until(lambda: sent_all(ledger))
    await second.stop()
    assert second.relay.relayed == 1


async def held_by(ledger, owner):
    return [lease.owner for lease in await ledger.leases() if lease.topic == OUTBOX] == [owner]


async def test_one_that_died_is_followed_when_its_lease_is_over(ledger, events, publish):
    assert await ledger.claim(OUTBOX, 0, "dead", 0.5) is not None
    await publish(opened(SESSIONS[0]))
    running = start_relay(ledger, events, owner="b", lease_s=TTL_S)
    await until(lambda: sent_all(ledger))
    await running.stop()


async def test_a_zombie_lets_go(ledger, events, publish, caplog):
    running = start_relay(ledger, events, owner="a", lease_s=TTL_S)
    await until(lambda: held_by(ledger, "a"))
    await ledger.release(await ledger.claim(OUTBOX, 0, "a", TTL_S))  # another term
    other = await ledger.claim(OUTBOX, 0, "b", 3 * TTL_S)
    with caplog.at_level(logging.WARNING):
        await until(lambda: logged(caplog, "relaying events"))
    await ledger.release(other)
    await publish(opened(SESSIONS[0]))
    await until(lambda: sent_all(ledger))
    await running.stop()


async def test_two_of_one_name_are_a_fault(ledger, events):
    running = start_relay(ledger, events, owner="a", lease_s=TTL_S)
    await until(lambda: held_by(ledger, "a"))
    await ledger.claim(OUTBOX, 0, "a", 60)
    with pytest.raises(SettingsError, match="under the name 'a'"):
        await asyncio.wait_for(running.wait(), 60)
    with pytest.raises(SettingsError):
        await running.stop()


async def logged(caplog, text):
    return text in caplog.text


class Away(DirBus):
    """A bus that answers only when it is `there`."""

    there = False
    error = StoreError("The bus is away.")

    async def append(self, partition, messages):
        if not self.there:
            raise self.error
        return await super().append(partition, messages)


@pytest.mark.parametrize(
    "error", [StoreError("The bus is away."), StoreBusy("Not now.", retry_after_s=0.1)]
)
async def test_events_wait_in_the_outbox_while_the_bus_is_away(
    ledger, publish, tmp_path, caplog, error
):
    bus = Away(tmp_path / "events", partitions=2)
    bus.error = error
    await publish(*map(opened, SESSIONS))
    running = start_relay(ledger, bus, owner="a", lease_s=TTL_S)
    with caplog.at_level(logging.WARNING):
        await until(lambda: logged(caplog, str(error)))
    assert len(await ledger.outbox()) == len(SESSIONS)
    assert running.relay.oldest_ns == (await ledger.outbox(limit=1))[0].at_ns
    bus.there = True
    await until(lambda: sent_all(ledger))
    await running.stop()
    assert running.relay.oldest_ns is None
    assert len({e["metadata"]["uid"] for _, e in await on(bus)}) == len(SESSIONS)
    await bus.close()


class Unmade(DirBus):
    """A topic that nobody has made."""

    async def start(self):
        raise StoreError("The topic does not exist.")


async def test_what_waits_is_known_also_where_the_bus_never_was(ledger, publish, tmp_path):
    bus = Unmade(tmp_path / "events", partitions=2)
    await publish(opened(SESSIONS[0]))
    running = start_relay(ledger, bus, owner="a", lease_s=TTL_S)
    await until(lambda: waits(running))
    await running.stop()
    assert running.relay.oldest_ns == (await ledger.outbox(limit=1))[0].at_ns
    await bus.close()


async def waits(running):
    return running.relay.oldest_ns is not None


async def test_stopping_while_the_bus_is_away_does_not_hang(ledger, publish, tmp_path):
    bus = Away(tmp_path / "events", partitions=2)
    await publish(opened(SESSIONS[0]))
    running = start_relay(ledger, bus, owner="a", lease_s=TTL_S)
    await asyncio.sleep(0.2)
    await running.stop()
    assert len(await ledger.outbox()) == 1
    await bus.close()


class Silent(DirBus):
    """A bus that never answers."""

    async def append(self, partition, messages):
        await asyncio.Event().wait()


async def test_stopping_does_not_wait_for_a_bus_that_never_answers(
    ledger, publish, tmp_path, monkeypatch
):
    monkeypatch.setattr(relaying, "FLUSH_S", 0.2)
    bus = Silent(tmp_path / "events", partitions=2)
    await publish(opened(SESSIONS[0]))
    running = start_relay(ledger, bus, owner="a", lease_s=TTL_S)
    await until(lambda: held_by(ledger, "a"))
    await asyncio.wait_for(running.stop(), 60)
    assert len(await ledger.outbox()) == 1
    assert await ledger.claim(OUTBOX, 0, "b", TTL_S) is not None, "it was released"
    await bus.close()


class Forgetful(SqliteLedger):
    """A ledger whose process dies between sending and confirming."""

    forgets = 1

    async def sent(self, ids):
        if self.forgets:
            self.forgets -= 1
            raise StoreError("killed")
        await super().sent(ids)


async def test_what_is_sent_twice_has_the_same_ids(tmp_path, events):
    ledger = await Forgetful.open("sqlite:other.db", tmp_path)
    lease = await claimed(ledger)
    await published(ledger, lease, 0, 1, events=tuple(map(opened, SESSIONS)))
    relay = Relay(ledger, events, owner="a")
    with pytest.raises(StoreError):
        await relay.step()
    assert await relay.step()
    found = [event for _, event in await on(events)]
    assert len(found) == 2 * len(SESSIONS)
    by_id = {}
    for event in found:
        assert by_id.setdefault(event["metadata"]["uid"], event) == event
    assert len(by_id) == len(SESSIONS)
    await ledger.close()


async def test_what_ingest_publishes_last_is_sent_before_the_end(ledger, events, publish):
    running = start_relay(ledger, events, owner="a", lease_s=TTL_S)
    await until(lambda: held_by(ledger, "a"))
    await asyncio.sleep(0.1)  # it looked, and looks again in half a second
    await publish(opened(SESSIONS[0]))
    await asyncio.wait_for(running.stop(), 60)
    await running.wait()
    await running.stop()
    assert await sent_all(ledger)
    assert await ledger.claim(OUTBOX, 0, "b", TTL_S) is not None


def test_the_severities_are_of_reasons_there_are():
    assert set(SEVERITIES) <= set(REASONS)
