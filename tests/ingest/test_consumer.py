"""One worker on real ledger and keyring, with bus and vault in memory."""

import asyncio
import re
from dataclasses import replace

import pytest

from sealtape.ingest import consumer as module
from sealtape.ingest import crew, intake
from sealtape.ingest.consumer import CONSUMER, Consumer, KeyConsumer, Stores, uuid7
from sealtape.ingest.keyring.sqlite import SqliteKeyring
from sealtape.ingest.ledger.sqlite import SqliteLedger
from sealtape.ingest.sealer import SECOND_NS, Limits
from sealtape.ingest.snapshot import Counts
from sealtape.schemas import messages
from sealtape.schemas.errors import Fenced, StoreBusy, StoreError
from sealtape.schemas.layout import manifest_key, parse_key
from sealtape.schemas.messages import KeyMessage
from tests.factories.ingest_world import MemoryBus, MemoryVault, WorldClock
from tests.factories.sessions import build_session, node_signer


class Room:
    """The stores of one test, and workers on them."""

    def __init__(self, ledger, keyring):
        self.clock = WorldClock()
        ledger._clock_ns = self.clock
        self.bus, self.vault, self.ledger, self.keyring = (
            MemoryBus(),
            MemoryVault(),
            ledger,
            keyring,
        )

    def send(self, *sent):
        self.bus.records[0] += [(messages.peek_session(v), v) for v in map(_encoded, sent)]

    def worker(self, owner="w1", **changes):
        return Consumer(**self.options(owner, **changes))

    def options(self, owner="w1", **changes):
        stores = Stores(self.bus, self.keyring, self.vault, self.ledger)
        return {
            "stores": replace(stores, **changes),
            "partition": 0,
            "owner": owner,
            "verifiers": [node_signer().verifier],
            "clock_ns": self.clock,
            "limits": Limits(segment_ns=SECOND_NS),
        }

    async def drain(self, **changes):
        worker = self.worker(**changes)
        worker.leave()
        assert await worker.hold()

    async def session(self, built):
        return await self.ledger.session(built.session)

    async def until(self, condition, built, forward_s=0.0):
        async with asyncio.timeout(60):
            while not condition(row := await self.session(built)):
                await asyncio.sleep(0.01)
                self.clock.forward(forward_s)
        return row

    async def reasons(self):
        return [item.reason for item in await self.ledger.incidents()]


def _encoded(message):
    return message if isinstance(message, bytes) else messages.encode(message)


@pytest.fixture
async def room(tmp_path):
    ledger = await SqliteLedger.open("sqlite:ledger.db", tmp_path)
    keyring = await SqliteKeyring.open("sqlite:keyring.db", tmp_path)
    yield Room(ledger, keyring)
    await ledger.close()
    await keyring.close()


async def test_a_session_is_sealed_and_its_keys_kept(room):
    built = build_session(commands=3)
    room.send(*built.messages)
    await room.drain()
    row = await room.session(built)
    assert (row.state, row.frames, row.close_reason) == ("sealed", len(built.frames), "client")
    assert len(await room.keyring.get(built.session, 0, "facts")) == 2
    assert room.bus.positions == {(CONSUMER, 0): len(built.messages)}
    (segment,) = [row async for row in room.ledger.segments()]
    record = segment.record
    assert (record.shard, record.writer, record.n) == ("frames/0", "w1", 0)
    assert (record.bus.topic, record.bus.first, record.bus.next) == (
        "frames",
        0,
        len(built.messages),
    )
    assert parse_key(segment.key).term == 1


async def test_what_is_sealed_is_to_be_kept_for_its_classs_term(room):
    built = build_session()
    room.send(*built.messages)
    await room.drain()
    (segment,) = [row async for row in room.ledger.segments()]
    retention = segment.record.retention
    until_ns = segment.record.sealed_at_ns + retention.retain_for_s * SECOND_NS
    assert retention.retain_for_s > 0
    assert room.vault.locked == dict.fromkeys([segment.key, manifest_key(segment.key)], until_ns)


async def test_nothing_to_do_publishes_nothing(room):
    await room.drain()
    assert [row async for row in room.ledger.segments()] == []
    assert room.bus.positions == {}


async def test_shards_go_on_from_one_worker_to_the_next(room):
    for number in range(3):
        room.send(*build_session(seed=number).messages)
        await room.drain(owner=f"w{number}")
    records = [row.record async for row in room.ledger.segments()]
    assert [record.n for record in records] == [0, 1, 2]
    assert [record.bus.first for record in records] == [0, *(r.bus.next for r in records[:-1])]


async def test_a_copy_of_what_was_sealed_long_ago_is_dropped(room):
    built = build_session(commands=3)
    room.send(*built.messages)
    await room.drain()
    room.send(*built.messages)
    await room.drain()
    assert await room.reasons() == []
    assert (await room.session(built)).frames == len(built.frames)
    assert await room.ledger.position("frames", 0) == 2 * len(built.messages)


async def test_another_frame_in_a_sealed_place_is_quarantined(room):
    built = build_session(commands=3)
    room.send(*built.messages)
    await room.drain()
    room.send(replace(built.frames[4], payload=b"forged" * 20))
    await room.drain()
    assert await room.reasons() == ["conflict"]
    assert (await room.session(built)).incidents == 1


async def test_sealed_leaves_are_read_once(room, monkeypatch):
    built = build_session(commands=3)
    room.send(*built.messages)
    await room.drain()
    reads = []
    real = room.vault.get

    async def counted(key, *arguments):
        reads.append(key)
        return await real(key, *arguments)

    monkeypatch.setattr(room.vault, "get", counted)
    monkeypatch.setattr(intake, "LEAF_CACHE", 1)
    room.send(*built.frames[:6])
    await room.drain()
    assert len(reads) == 1


async def test_of_a_large_segment_only_leaves_are_read(room, monkeypatch):
    built = build_session(commands=30, row_bytes=200_000)
    room.send(*built.messages)
    await room.drain()
    fetched = []
    real = room.vault.get

    async def counted(key, *arguments):
        fetched.append(data := await real(key, *arguments))
        return data

    monkeypatch.setattr(room.vault, "get", counted)
    room.send(built.frames[4])
    await room.drain()
    assert await room.reasons() == []
    assert 0 < sum(map(len, fetched)) < 200_000


@pytest.mark.parametrize("damage", ["gone", "no segment", "fewer rows"])
async def test_a_damaged_segment_stops_no_recording(room, damage):
    small, built = build_session(seed=1, commands=0), build_session(seed=2, commands=6)
    keys = []
    for each in (small, built):
        room.send(*each.messages)
        await room.drain()
        keys.append((await room.ledger.fragments(each.session))[0].segment_key)
    objects = room.vault.objects
    if damage == "gone":
        del objects[keys[1]]
    else:
        objects[keys[1]] = objects[keys[0]] if damage == "fewer rows" else bytes(1000)
    after = build_session(seed=3)
    room.send(built.frames[7], *after.messages)
    await room.drain()
    assert await room.reasons() == ["seal_unreadable"]
    (kept,) = await room.ledger.quarantined("frames", 0)
    assert messages.decode(kept.data) == built.frames[7]
    assert (await room.session(after)).state == "sealed"


async def test_a_late_frame_of_a_gap_is_quarantined(room):
    built = build_session(commands=4)
    kept = [m for m in built.messages if getattr(m, "seq", -1) != 5]
    room.send(*kept)
    worker = room.worker()
    task = asyncio.create_task(worker.run())
    await room.until(lambda row: row is not None, built, forward_s=0.5)
    room.clock.forward(61)
    await room.until(lambda row: row.frames == len(built.frames) - 1, built)
    room.send(built.frames[5])
    worker.leave()
    await task
    assert sorted(await room.reasons()) == ["gap", "late_frame"]
    row = await room.session(built)
    assert (row.state, row.lost, row.incidents) == ("closed", 1, 2)


async def test_large_quarantined_messages_go_into_the_vault(room):
    large, small = b"\xc3\x01" + b"x" * 70_000, b"\xc3\x01" + b"y" * 100
    room.bus.records[0] += [(bytes(16), large), (bytes(16), small)]
    await room.drain()
    first, second = await room.ledger.quarantined("frames", 0)
    assert (first.data, room.vault.objects[first.key], first.size) == (b"", large, len(large))
    assert (second.data, second.key) == (small, "")
    assert await room.ledger.staged(0.0) == []


async def test_a_second_wrap_is_kept_aside_and_said(room):
    built = build_session(commands=0)
    wrap = built.messages[0]
    again = build_session(commands=0).messages[0]
    assert wrap.sealed != again.sealed
    room.send(wrap, again, replace(wrap, recipient="nobody"))
    await room.drain()
    assert await room.reasons() == ["key_conflict", "malformed"]
    assert [w.sealed for w in await room.keyring.get(built.session, 0, "data")] == [wrap.sealed]
    assert [w.sealed for w in await room.keyring.disputed(built.session)] == [again.sealed]


async def test_each_key_that_is_kept_leaves_as_an_event(room):
    built = build_session(commands=1)
    room.send(*built.messages)
    await room.drain()
    told = [event.payload for event in await room.ledger.outbox() if event.kind == "key-wrapped"]
    wraps = [message for message in built.messages if isinstance(message, KeyMessage)]
    assert len(told) == len(wraps) == 3
    for wrap, payload in zip(wraps, told, strict=True):
        assert wrap.recipient.encode() in payload


async def test_keys_of_a_destroyed_session_do_not_come_back(room):
    built = build_session(commands=0)
    await room.keyring.destroy(built.session)
    room.send(*built.messages)
    await room.drain()
    assert await room.keyring.get(built.session, None, "data") == []
    assert (await room.session(built)).state == "sealed"


async def test_messages_deleted_before_they_were_read_are_said(room):
    built = build_session(commands=1)
    room.send(*build_session(seed=5).messages)
    room.bus.first[0] = len(room.bus.records[0])
    room.send(*built.messages)
    await room.drain()
    assert await room.reasons() == ["bus_lost"]
    assert (await room.session(built)).state == "sealed"


async def test_a_bus_that_was_cut_off_is_believed_after_a_while(room, monkeypatch, caplog):
    monkeypatch.setattr(module, "CUT_S", 0.05)
    first, lost = build_session(seed=1, commands=1), build_session(seed=2, commands=30)
    room.send(*first.messages, *lost.messages)
    await room.drain()
    del room.bus.records[0][len(first.messages) :]
    after = build_session(seed=3, commands=1)
    room.send(*after.messages)
    end = len(room.bus.records[0])
    worker = room.worker()
    task = asyncio.create_task(worker.run())
    async with asyncio.timeout(60):
        while await room.ledger.position("frames", 0) != end:
            await asyncio.sleep(0.01)
    assert "was cut off, or is an old copy" in caplog.text
    room.send(*build_session(seed=4, commands=1).messages)
    worker.leave()
    await task
    assert await room.reasons() == ["bus_cut"]
    assert (await room.session(build_session(seed=4, commands=1))).state == "sealed"
    assert (await room.session(lost)).state == "sealed"


async def cut_off(room, monkeypatch, *, end):
    """Ingest has passed all there is; then the bus ends at `end`, and ingest goes on from there."""
    await room.drain()
    assert await room.ledger.position("frames", 0) == len(room.bus.records[0]) > end
    monkeypatch.setattr(module, "CUT_S", 0.05)
    del room.bus.records[0][end:]
    said = await room.reasons()
    worker = room.worker()
    task = asyncio.create_task(worker.run())
    async with asyncio.timeout(60):
        while await room.reasons() != [*said, "bus_cut"]:
            await asyncio.sleep(0.01)
    worker.leave()
    await task


async def test_what_comes_at_offsets_that_were_in_quarantine_before_the_cut_is_kept(
    room, monkeypatch
):
    first, second = (build_session(seed=seed, commands=3) for seed in (1, 2))
    waiting = build_session(seed=3, checkpoint_every=256, final_checkpoint=False)
    strays = [build_session(seed=seed).frames[3] for seed in (7, 8)]
    broken = [messages.encode(stray) + b"!" for stray in strays]
    room.send(*first.messages, *first.messages[:3], broken[0], strays[0])
    at = len(first.messages) + 3
    await cut_off(room, monkeypatch, end=at - 3)
    # Before them waits what is read again after a restart, and they with it.
    room.send(*waiting.frames[:3], broken[1], strays[1], *second.messages)
    for _ in range(2):
        await room.drain()
        assert await room.ledger.position("frames", 0) == at - 3
    kept = await room.ledger.quarantined("frames", 0)
    assert sorted((item.offset, item.data) for item in kept) == sorted(
        [(at, data) for data in broken] + [(at + 1, messages.encode(stray)) for stray in strays]
    )
    for reason, offset in (("malformed", at), ("no_open", at + 1)):
        stated = [item for item in await room.ledger.incidents() if item.reason == reason]
        assert [(item.offset, item.session) for item in stated] == [
            (offset, stray.session) for stray in strays
        ]
    assert (await room.session(second)).state == "sealed"


async def test_a_frame_below_its_head_is_looked_at_where_offsets_began_anew(room, monkeypatch):
    """Its offset is one that the head has passed; it is not the message that stood there."""
    built = build_session(commands=6)
    room.send(*built.messages)
    await cut_off(room, monkeypatch, end=4)
    forged = replace(built.frames[5], payload=b"of another")
    room.send(built.frames[5], forged)
    await room.drain()
    kept = await room.ledger.quarantined("frames", 0)
    assert [(item.offset, item.reason) for item in kept] == [(5, "conflict")]
    assert await room.reasons() == ["bus_cut", "conflict"]


async def test_a_cut_is_said_at_the_offset_where_the_bus_was_cut_off(room, monkeypatch):
    built = build_session(commands=6)
    room.send(*built.messages)
    await cut_off(room, monkeypatch, end=9)
    room.send(*built.messages[9:])
    await cut_off(room, monkeypatch, end=4)
    assert [item.offset for item in await room.ledger.incidents()] == [9, 4]


async def test_what_was_read_before_the_bus_was_cut_off_is_sealed(room, monkeypatch):
    monkeypatch.setattr(module, "CUT_S", 0.05)
    built = build_session(commands=4, close=None, final_checkpoint=False, checkpoint_every=256)
    room.send(*built.messages)
    worker = room.worker()
    task = asyncio.create_task(worker.run())
    async with asyncio.timeout(60):
        while (found := worker.snapshot()) is None or found.read_to < len(built.messages):
            await asyncio.sleep(0.01)
        del room.bus.records[0][-4:]
        while await room.reasons() != ["bus_cut"]:
            await asyncio.sleep(0.01)
    worker.leave()
    await task
    assert (await room.session(built)).frames == len(built.frames)


@pytest.mark.parametrize("proven", [False, True])
async def test_what_waited_behind_a_hole_of_a_bus_that_was_cut_off_is_kept(
    room, monkeypatch, proven
):
    monkeypatch.setattr(module, "CUT_S", 0.05)
    built = build_session(commands=6, close=None, final_checkpoint=False)
    behind = built.frames[7:]
    sent = [*built.messages[:6], *behind, *[built.checkpoint(len(built.frames))] * proven]
    room.send(*sent)
    worker = room.worker()
    task = asyncio.create_task(worker.run())
    async with asyncio.timeout(60):
        while (found := worker.snapshot()) is None or found.read_to < len(sent):
            await asyncio.sleep(0.01)
        del room.bus.records[0][6:]
        while "bus_cut" not in await room.reasons():
            await asyncio.sleep(0.01)
    worker.leave()
    await task
    kept = [messages.decode(item.data) for item in await room.ledger.quarantined("frames", 0)]
    assert kept == ([] if proven else list(behind))
    assert (await room.session(built)).frames == 2 + len(behind) * proven
    assert await room.ledger.position("frames", 0) == 6


async def test_a_bus_that_ends_too_early_for_a_moment_is_waited_for(room):
    built = build_session(commands=3)
    room.send(*built.messages)
    await room.drain()
    hidden = room.bus.records[0].pop()
    room.clock.forward(60)
    worker = room.worker("w2")
    task = asyncio.create_task(worker.run())
    await asyncio.sleep(0.2)
    room.bus.records[0].append(hidden)
    worker.leave()
    await task
    assert await room.reasons() == []


async def test_a_topic_made_anew_is_said(room):
    room.bus.topic = "frames@one"
    old = build_session(seed=1)
    room.send(*old.messages)
    await room.drain()
    room.bus.topic, room.bus.records[0] = "frames@two", []
    room.send(*build_session(seed=2).messages)
    await room.drain()
    await room.drain()
    (incident,) = await room.ledger.incidents()
    assert (incident.topic, incident.reason) == ("frames@two", "topic_recreated")
    assert "Before it was frames@one." in incident.detail
    records = [row.record async for row in room.ledger.segments()]
    assert [(record.shard, record.n) for record in records] == [
        ("frames@one/0", 0),
        ("frames@two/0", 0),
    ]


async def test_half_of_the_retention_is_said_though_the_vault_is_down(room, monkeypatch, caplog):
    monkeypatch.setattr(crew, "RETRY_S", (0.05, 0.05))
    room.bus.retention_s = 3600.0
    room.bus.ts_ms = room.clock() // 10**6 - 1_801_000
    built = build_session(commands=1)
    room.send(*built.messages)
    worker = room.worker(vault=Failing(room.vault, "put_new", errors := [StoreError("down")] * 3))
    task = asyncio.create_task(worker.run())
    async with asyncio.timeout(60):
        while errors:
            await asyncio.sleep(0.01)
            room.clock.forward(0.5)
    assert await room.reasons() == ["retention_half"]
    await room.until(lambda row: row and row.state == "sealed", built, forward_s=0.5)
    assert await room.reasons() == ["retention_half"]
    assert "Half of the time is over" in caplog.text
    async with asyncio.timeout(60):
        while worker.snapshot() is None or worker.snapshot().oldest_ms is not None:
            await asyncio.sleep(0.01)
    assert not worker.snapshot().retention_half
    worker.leave()
    await task


async def test_a_worker_can_leave_at_once(room):
    built = build_session(commands=3)
    room.send(*built.messages)
    worker = room.worker()
    worker.leave(0.0)
    assert await worker.hold()
    assert await room.session(built) is None
    assert await room.ledger.position("frames", 0) == 0


async def test_reading_on_ends_after_its_time(room):
    room.bus.batch = 1
    worker = room.worker(bus=Endless(room.bus))
    worker.leave(0.2)
    assert await asyncio.wait_for(worker.hold(), 60)


class Endless:
    """A bus on which always one more message stands, and no good one."""

    def __init__(self, bus):
        self._bus = bus

    def __getattr__(self, name):
        return getattr(self._bus, name)

    async def read(self, partition, offset, **options):
        self._bus.records[0].append((bytes(16), b"bad"))
        return await self._bus.read(partition, offset, **options)


async def test_what_it_says_about_itself(room):
    counts = Counts()
    built = build_session(commands=3)
    room.send(*built.messages, *built.messages)
    room.bus.records[0].append((bytes(16), b"bad"))
    room.bus.ts_ms = room.clock() // 10**6
    worker = room.worker()
    worker._counts = counts
    assert worker.snapshot() is None
    assert worker.place == ("frames", 0)
    task = asyncio.create_task(worker.run())
    await room.until(lambda row: row and row.state == "sealed", built, forward_s=0.5)
    while (found := worker.snapshot()).lag:
        await asyncio.sleep(0.01)
    end = len(room.bus.records[0])
    assert (found.term, found.position, found.end) == (1, end, end)
    assert found.oldest_ms is None
    worker.leave()
    await task
    assert (counts.frames, counts.segments, counts.quarantined) == (len(built.frames), 1, 1)
    assert counts.bytes == (await room.session(built)).bytes
    assert counts.incidents == {"malformed": 1}
    assert counts.duplicates > 0
    assert sum(counts.sealed_s.counts) >= 1
    assert (counts.fenced, counts.failures) == (0, 0)


async def test_keys_have_a_worker_of_their_own(room):
    built = build_session(commands=1)
    keys, frames = MemoryBus(), [m for m in built.messages if not isinstance(m, KeyMessage)]
    keys.topic = "keys"
    keys.records[0] = [
        (built.session, messages.encode(m)) for m in built.messages if isinstance(m, KeyMessage)
    ]
    room.send(*frames)
    await room.drain(keys=keys)
    assert await room.keyring.get(built.session, 0, "facts") == []
    options = room.options(keys=keys)
    worker = KeyConsumer(**options)
    worker.leave()
    assert await worker.hold()
    assert len(await room.keyring.get(built.session, 0, "facts")) == 2
    assert await room.ledger.position("keys", 0) == len(keys.records[0])
    assert await room.reasons() == []
    assert (await room.session(built)).state == "sealed"


async def test_a_bus_that_contradicts_itself_is_an_error(room, monkeypatch):
    async def bounds(partition):
        return 0, 10

    room.bus.first[0] = 5
    monkeypatch.setattr(room.bus, "bounds", bounds)
    with pytest.raises(StoreError):
        await room.drain()


async def test_only_one_of_two_owners_works(room):
    first, second = room.worker("w1"), room.worker("w2")
    lease = await room.ledger.claim("frames", 0, "w1", 30.0)
    assert await second.hold() is False
    await room.ledger.release(lease)
    second.leave()
    assert await second.hold() is True
    first.leave()
    assert await first.hold() is True


async def test_leases_are_renewed_while_work_goes_on(room, monkeypatch):
    worker = room.worker()
    worker._ttl_s = 0.3
    renewed = asyncio.Event()
    real = room.ledger.renew

    async def counted(lease, ttl_s):
        await real(lease, ttl_s)
        renewed.set()

    monkeypatch.setattr(room.ledger, "renew", counted)
    task = asyncio.create_task(worker.run())
    await asyncio.wait_for(renewed.wait(), 60)
    worker.leave()
    await task


class Failing:
    """A store whose method fails so many times."""

    def __init__(self, store, method, errors):
        self._store, self._method, self._errors = store, method, errors

    def __getattr__(self, name):
        if name != self._method or not self._errors:
            return getattr(self._store, name)

        async def fail(*arguments, **options):
            raise self._errors.pop()

        return fail


@pytest.mark.parametrize(
    ("store", "method"),
    [
        ("vault", "put_new"),
        ("ledger", "publish"),
        ("ledger", "stage"),
        ("ledger", "heads"),
        ("keyring", "put"),
        ("bus", "read"),
        ("bus", "mark"),
    ],
)
async def test_failures_of_stores_are_tried_again(room, monkeypatch, store, method):
    monkeypatch.setattr(crew, "RETRY_S", (0.01, 0.01))
    built = build_session(commands=2)
    room.send(*built.messages)
    errors = [StoreError("no"), StoreBusy("wait", retry_after_s=0.01), Fenced("lost")]
    worker = room.worker(**{store: Failing(getattr(room, store), method, errors)})
    task = asyncio.create_task(worker.run())
    row = await room.until(lambda row: row and row.state == "sealed", built, forward_s=0.5)
    worker.leave()
    await task
    assert row.frames == len(built.frames)
    assert await room.reasons() == []


async def test_it_stops_while_it_waits_for_a_store(room, monkeypatch):
    monkeypatch.setattr(crew, "RETRY_S", (60.0, 60.0))
    worker = room.worker(bus=Failing(room.bus, "read", [StoreError("no")] * 99))
    task = asyncio.create_task(worker.run())
    await asyncio.sleep(0.1)
    worker.leave()
    await asyncio.wait_for(task, 60)


async def test_a_fault_of_ours_is_not_hidden(room):
    worker = room.worker(bus=Failing(room.bus, "read", [KeyError("bug")]))
    with pytest.raises(KeyError):
        await worker.run()


async def test_the_loop_goes_on_while_much_is_sealed(room):
    built = build_session(commands=400, row_bytes=60_000, facts_frames=False)
    room.send(*built.messages)
    longest, last = 0.0, asyncio.get_running_loop().time()
    worker = room.worker()
    worker.leave()
    task = asyncio.create_task(worker.hold())
    while not task.done():
        await asyncio.sleep(0.005)
        now = asyncio.get_running_loop().time()
        longest, last = max(longest, now - last), now
    await task
    assert (await room.session(built)).state == "sealed"
    assert longest < 0.5


def test_ids_are_uuids_of_version_7():
    texts = [
        uuid7(1_790_000_000_000_000_000 + n * 10**6, bytes([255 * (n % 2)]) * 10) for n in range(4)
    ]
    assert all(re.fullmatch(r"[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}", text) for text in texts)
    assert [int(text[:12], 16) for text in texts] == [1_790_000_000_000 + n for n in range(4)]
    assert len(set(texts)) == 4
