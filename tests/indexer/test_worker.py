import asyncio
import time
from contextlib import suppress
from dataclasses import replace

import pytest

from sealtape.capture.bus.dir import DirBus
from sealtape.indexer.index import Page
from sealtape.indexer.lane import MAX_FOLDS
from sealtape.indexer.query import parse
from sealtape.indexer.worker import catch_up
from sealtape.schemas.errors import NotFound, SettingsError, StoreBusy, StoreError
from sealtape.schemas.frames import Frame, Kind
from tests.factories.sessions import build_session, reader
from tests.factories.tapes import Tape

ALL = Page(limit=1000)


async def commands(index, text=""):
    hits = await index.search_commands(parse(text, now_ns=time.time_ns()), ALL)
    return {hit.id: hit for hit in hits.documents}


async def sessions(index, text=""):
    hits = await index.search_sessions(parse(text, now_ns=time.time_ns()), ALL)
    return {hit.id: hit for hit in hits.documents}


async def everything(index):
    return await sessions(index), await commands(index)


async def until(check):
    async with asyncio.timeout(60):
        while not (found := await check()):
            await asyncio.sleep(0.02)
    return found


async def index_all(deployment, **changes):
    indexer = deployment.indexer(**changes)
    await catch_up(indexer)
    return indexer.tally


async def test_live_then_sealed_then_read_again(deployment):
    index = deployment.index
    built = build_session(
        commands=2, user="anna", statements=["select 1 from orders", "delete from payments"]
    )
    running = await deployment.start(refresh_s=0.3)
    try:
        first_facts = next(
            at
            for at, message in enumerate(built.messages)
            if isinstance(message, Frame) and message.kind == Kind.FACTS
        )
        for message in built.messages[: first_facts + 1]:
            await deployment.append([message])

        async def found():
            return await commands(index, "user:anna orders")

        hits = await until(found)
        [hit] = hits.values()
        assert (hit.status, hit.seq) == ("ok", 3)
        live = await index.session(built.session.hex())
        assert (live.state, live.user, live.commands) == ("live", "anna", 1)

        for message in built.messages[first_facts + 1 :]:
            await deployment.append([message])

        async def closed():
            return (await index.session(built.session.hex())).state == "closed"

        await until(closed)
        assert list(await commands(index, "payments")) == [f"{built.session.hex()}:0:2"]

        await deployment.seal()

        async def sealed():
            return (await index.session(built.session.hex())).state == "sealed"

        await until(sealed)
    finally:
        await running.stop()
    before = await everything(index)
    assert len(before[1]) == 2
    tally = await index_all(deployment)
    assert await everything(index) == before
    assert tally.early == tally.unreadable == tally.malformed == 0


@pytest.mark.parametrize("encrypt", [True, False])
async def test_sealed_alone_gives_the_same_documents(deployment, encrypt):
    built = [build_session(seed=seed, commands=seed, encrypt=encrypt) for seed in range(4)]
    await deployment.send(*built)
    await index_all(deployment)
    live = await everything(deployment.index)
    assert {document.state for document in live[0].values()} == {"closed"}
    await deployment.seal()
    await index_all(deployment)
    sealed = await everything(deployment.index)
    assert {document.state for document in sealed[0].values()} == {"sealed"}
    assert sealed[1] == live[1]
    tally = await deployment.rebuild()
    assert await everything(deployment.index) == sealed
    assert tally.frames == sum(len(one.frames) for one in built)


async def test_every_message_twice_and_restarts_between(deployment):
    first = build_session(seed=5, commands=3, close=None)
    second = build_session(
        session=first.session,
        epoch=1,
        continues=first.continues,
        seed=6,
        commands=1,
        close="aborted",
    )
    for message in (*first.messages, *second.messages):
        await deployment.append([message, message])
        if isinstance(message, Frame):
            await index_all(deployment)
    documents, found = await everything(deployment.index)
    [document] = documents.values()
    assert (document.state, document.close_reason) == ("closed", "aborted")
    assert document.frames == len(first.frames) + len(second.frames)
    assert len(found) == 4
    await deployment.index.clear()
    await index_all(deployment)
    assert await everything(deployment.index) == (documents, found)


async def test_what_the_bus_lost_comes_from_the_ledger(deployment):
    built = build_session(seed=7, commands=6, checkpoint_every=2)
    half = len(built.messages) // 2
    await deployment.send(built, only=lambda all_of_it: all_of_it[:half])
    await deployment.seal()
    position = await deployment.ledger.position(
        deployment.bus.topic, deployment.bus.partition_of(built.session)
    )
    assert position > 0
    await deployment.send(built, only=lambda all_of_it: all_of_it[half:])
    indexer = deployment.indexer()
    while await indexer.poll_bus(deployment.bus.partition_of(built.session)):
        pass
    document = await deployment.index.session(built.session.hex())
    assert (document.frames, document.state) == (len(built.frames), "closed")
    assert len(await commands(deployment.index)) == 6
    assert indexer.tally.early == 0


async def test_frames_behind_a_hole_wait_for_ingest(deployment):
    built = build_session(seed=8, commands=3)
    lost = built.frames[4]
    await deployment.send(
        built, only=lambda all_of_it: [each for each in all_of_it if each is not lost]
    )
    tally = await index_all(deployment)
    assert tally.early == len(built.frames) - 5
    document = await deployment.index.session(built.session.hex())
    assert (document.frames, document.state) == (4, "live")
    await deployment.seal()
    await index_all(deployment)
    document = await deployment.index.session(built.session.hex())
    assert (document.frames, document.state) == (len(built.frames) - 1, "closed")
    assert len(await commands(deployment.index)) == 3


async def test_a_forged_frame_from_far_ahead_hides_nothing(deployment):
    built = build_session(seed=14, commands=2)
    forged = replace(built.frames[-1], seq=10**6)
    half = len(built.messages) // 2
    await deployment.append([*built.messages[:half], forged, *built.messages[half:]])
    tally = await index_all(deployment)
    assert tally.early == 1
    document = await deployment.index.session(built.session.hex())
    assert (document.frames, document.state) == (len(built.frames), "closed")
    assert {command.status for command in (await commands(deployment.index)).values()} == {"ok"}


async def test_rubbish_on_the_bus_stops_nothing(deployment):
    built = build_session(seed=9, commands=1)
    partition = deployment.bus.partition_of(built.session)
    await deployment.bus.append(partition, [(b"", b""), (built.session, b"\xc3\x01rubbish")])
    pairs = built.encoded()
    await deployment.bus.append(partition, [(bytes(16), value) for _, value in pairs])
    await deployment.bus.append(partition, pairs)
    tally = await index_all(deployment)
    assert tally.malformed == 2 + len(pairs)
    assert len(await commands(deployment.index)) == 1


async def test_destroyed_sessions_are_passed_over(deployment):
    gone, kept = build_session(seed=10), build_session(seed=11)
    await deployment.send(gone, kept)
    await deployment.seal()
    await index_all(deployment)
    await deployment.keyring.destroy(gone.session)
    await deployment.index.drop(gone.session.hex())
    await index_all(deployment)
    with pytest.raises(NotFound):
        await deployment.index.session(gone.session.hex())
    tally = await deployment.rebuild()
    assert tally.destroyed == len(gone.frames)
    assert list(await sessions(deployment.index)) == [kept.session.hex()]


async def test_without_our_key_only_what_is_public_is_indexed(deployment):
    built = build_session(seed=12, indexer=reader("indexer", seed=2))
    await deployment.send(built)
    tally = await index_all(deployment)
    assert tally.unreadable == 4
    document = await deployment.index.session(built.session.hex())
    assert (document.user, document.state, document.commands) == ("", "closed", 3)
    assert await commands(deployment.index) == {}


async def test_results_are_not_for_the_indexer(deployment):
    built = build_session(seed=13, commands=1, row_bytes=50)
    await deployment.send(built)
    await deployment.seal()
    await index_all(deployment)
    for label, count in (("facts", 1), ("data", 0)):
        found = await deployment.keyring.get(built.session, 0, label, reader("indexer").id)
        assert len(found) == count


async def test_many_sessions_leave_memory_and_come_back(deployment, monkeypatch):
    monkeypatch.setattr("sealtape.indexer.lane.MAX_FOLDS", 2)
    built = [build_session(seed=20 + seed, commands=3) for seed in range(6)]
    longest = max(len(one.messages) for one in built)
    indexer = deployment.indexer()
    for at in range(longest):
        for one in built:
            await deployment.append(one.messages[at : at + 1])
        await catch_up(indexer)
    assert max(lane.folds for lane in indexer.lanes) <= 2 < MAX_FOLDS
    documents, found = await everything(deployment.index)
    assert {document.frames for document in documents.values()} == {9}
    assert {command.status for command in found.values()} == {"ok"}
    assert len(found) == 18
    assert indexer.tally.early == indexer.tally.unanswered == 0


class Counting:
    """An index that counts the commands of each write."""

    def __init__(self, index):
        self.index, self.puts = index, []

    def __getattr__(self, name):
        return getattr(self.index, name)

    async def put(self, update):
        self.puts.append(len(update.commands))
        await self.index.put(update)


async def test_a_backlog_is_written_in_parts(deployment, monkeypatch):
    monkeypatch.setattr("sealtape.indexer.lane.COMMANDS", 5)
    built = [build_session(seed=50 + seed, commands=20) for seed in range(3)]
    await deployment.send(*built)
    live = Counting(deployment.index)
    await index_all(deployment, index=live)
    documents, found = await everything(deployment.index)
    assert len(found) == 60
    assert max(live.puts) <= 6
    await deployment.seal()
    await deployment.index.clear()
    sealed = Counting(deployment.index)
    tally = await index_all(deployment, index=sealed)
    assert max(sealed.puts) <= 6
    assert tally.frames == sum(len(one.frames) for one in built)
    again, commands_again = await everything(deployment.index)
    assert commands_again == found
    assert {each.commands for each in again.values()} == {20}
    assert {each.state for each in again.values()} == {"sealed"}
    assert set(again) == set(documents)


async def test_a_crash_between_the_parts_of_a_backlog(deployment, monkeypatch):
    monkeypatch.setattr("sealtape.indexer.lane.COMMANDS", 4)
    built = build_session(seed=54, commands=20)
    await deployment.send(built)
    for seal in (False, True):
        if seal:
            await deployment.seal()
            await deployment.index.clear()
        for good in range(6):
            failing = Failing(deployment.index, ["no"] * good + ["before"] * 99)
            with suppress(StoreError):
                await index_all(deployment, index=failing)
        await index_all(deployment)
        documents, found = await everything(deployment.index)
        assert [each.frames for each in documents.values()] == [len(built.frames)]
        assert {each.status for each in found.values()} == {"ok"}
        assert len(found) == 20


async def test_a_backlog_is_read_without_a_pause(deployment, monkeypatch):
    monkeypatch.setattr("sealtape.indexer.lane.READ_BYTES", 2000)
    built = build_session(seed=55, commands=100)
    await deployment.send(built)
    began = time.monotonic()
    running = await deployment.start(refresh_s=1.0)
    try:

        async def indexed():
            return len(await commands(deployment.index)) == 100

        await until(indexed)
    finally:
        await running.stop()
    assert time.monotonic() - began < 50


async def test_the_loop_goes_on_while_there_is_a_backlog(deployment):
    await deployment.send(*[build_session(seed=60 + seed, commands=150) for seed in range(4)])
    gaps, stop = [], asyncio.Event()

    async def clock():
        while not stop.is_set():
            before = time.perf_counter()
            await asyncio.sleep(0)
            gaps.append(time.perf_counter() - before)

    ticking = asyncio.create_task(clock())
    began = time.perf_counter()
    await index_all(deployment)
    took = time.perf_counter() - began
    stop.set()
    await ticking
    assert sorted(gaps)[-3] < max(0.05, took / 4)
    assert len(gaps) > 20


class Failing:
    """An index whose writes fail, before or after they were done."""

    def __init__(self, index, failures):
        self.index, self.failures = index, failures

    def __getattr__(self, name):
        return getattr(self.index, name)

    async def put(self, update):
        failure = self.failures.pop(0) if self.failures else None
        if failure == "before":
            raise StoreError("The index failed.")
        await self.index.put(update)
        if failure == "after":
            raise StoreError("The index failed, or so it says.")
        if failure == "busy":
            raise StoreBusy("The index is busy.", retry_after_s=0.01)


@pytest.mark.parametrize("step", [1, 2, 5, 100])
async def test_a_failing_index_loses_nothing(deployment, step):
    built = [build_session(seed=30 + seed, commands=2) for seed in range(2)]
    for one in built:
        for at in range(0, len(one.messages), step):
            await deployment.append(one.messages[at : at + step])
    failing = Failing(deployment.index, ["before", "after", "busy"] * 4)
    indexer = deployment.indexer(index=failing)
    while failing.failures:
        with suppress(StoreError):
            await catch_up(indexer)
        await deployment.append(built[0].messages[-1:])
    await catch_up(indexer)
    documents, found = await everything(deployment.index)
    assert {document.frames for document in documents.values()} == {7}
    assert {command.status for command in found.values()} == {"ok"}
    assert len(found) == 4
    assert indexer.tally.early == indexer.tally.unanswered == 0


async def test_it_tries_again_and_ends_when_told(deployment):
    built = build_session(seed=40)
    failing = Failing(deployment.index, ["before", "after", "busy"])
    running = await deployment.start(index=failing)
    waiting = asyncio.create_task(running.wait())
    await deployment.send(built)

    async def indexed():
        return not failing.failures

    await until(indexed)
    await running.catch_up()
    assert len(await commands(deployment.index)) == 3
    assert running.tally.frames >= len(built.frames)
    assert not waiting.done()
    await running.stop()
    await running.stop()
    await waiting


async def test_a_fault_of_ours_is_not_hidden(deployment):
    class Broken(Failing):
        async def put(self, update):
            raise ZeroDivisionError

    running = await deployment.start(index=Broken(deployment.index, []))
    await deployment.send(build_session(seed=41))
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(running.wait(), 60)
    await running.stop()


async def test_it_lets_the_bus_delete_what_is_indexed(deployment):
    built = build_session(seed=42)
    partition = deployment.bus.partition_of(built.session)
    running = await deployment.start()
    await deployment.send(built)
    _, end = await deployment.bus.bounds(partition)

    async def marked():
        return (await deployment.bus.marks(partition)).get("indexer") == end

    await until(marked)
    await running.stop()


async def test_positions_are_kept(deployment):
    built = build_session(seed=43)
    await deployment.send(built)
    await deployment.seal()
    await index_all(deployment)
    place = f"{deployment.bus.topic}/{deployment.bus.partition_of(built.session)}"
    positions = await deployment.index.positions()
    segments = [segment async for segment in deployment.ledger.chain(place)]
    assert positions[f"ledger/{place}"] == len(segments) > 0
    tally = await index_all(deployment)
    assert (tally.segments, tally.frames) == (0, 0)


@pytest.mark.parametrize("restart", [True, False])
async def test_results_that_come_late(deployment, restart, monkeypatch):
    monkeypatch.setattr("sealtape.indexer.documents.MAX_RUNNING", 2)
    tape = Tape()
    for text in ("alpha", "beta", "gamma", "delta"):
        tape.begun(text)
    tape.ended(0, status="error", code="42P01")
    tape.ended(1, rows=1)
    tape.ended(2, rows=2)
    tape.ended(2, status="error", code="23503")
    tape.close()
    indexer = deployment.indexer()
    for message in tape.messages:
        await deployment.append([message])
        if restart:
            indexer = deployment.indexer()
        await catch_up(indexer)
    found = {each.text: each for each in (await commands(deployment.index)).values()}
    assert {text: each.status for text, each in found.items()} == {
        "alpha": "error",
        "beta": "ok",
        "gamma": "error",
        "delta": "error",
    }
    assert (found["gamma"].error, found["gamma"].version) == ("23503", 2)
    assert (found["delta"].error, found["delta"].version) == ("", 1)
    live = await everything(deployment.index)
    await deployment.seal()
    await deployment.rebuild()
    documents, again = await everything(deployment.index)
    assert again == live[1]
    assert {each.state for each in documents.values()} == {"sealed"}


async def test_a_result_without_its_command_is_counted(deployment):
    tape = Tape()
    tape.begun("alpha")
    tape.n = 7
    tape.ended(5)
    await deployment.append(tape.close().messages)
    assert (await index_all(deployment)).unanswered == 1


async def test_a_bus_that_was_trimmed_too_early(deployment):
    bus = DirBus(deployment.folder / "small", partitions=2, file_bytes=1000)
    small = deployment.with_bus(bus)
    built = build_session(seed=15)
    partition = bus.partition_of(built.session)
    indexer = small.indexer()
    await catch_up(indexer)
    for message in built.messages:
        await small.append([message])
    await small.seal()
    await small.trim(partition)
    assert (await bus.bounds(partition))[0] > 0
    await catch_up(indexer)
    assert (await deployment.index.session(built.session.hex())).state == "sealed"
    await bus.close()


async def test_destroyed_while_it_runs(deployment):
    built = build_session(seed=17, commands=4)
    await deployment.keyring.destroy(built.session)
    await deployment.send(built)
    tally = await index_all(deployment)
    assert tally.destroyed == len(built.frames)
    assert await everything(deployment.index) == ({}, {})


async def test_a_damaged_segment_stops_nothing(deployment):
    built, kept = build_session(seed=18), build_session(seed=19)
    await deployment.send(built)
    await deployment.seal()
    [fragment] = await deployment.ledger.fragments(built.session)
    await deployment.vault.erase(fragment.segment_key)
    await deployment.send(kept)
    await deployment.seal()
    tally = await index_all(deployment)
    assert tally.unreadable == len(built.frames)
    assert list(await sessions(deployment.index)) == [kept.session.hex()]


async def test_a_session_without_opening_comes_back_as_nothing(deployment):
    built = build_session(seed=44, commands=1)
    opening = built.frames[0]
    broken = [
        replace(each, payload=b"rubbish") if each is opening else each for each in built.messages
    ]
    for message in broken:
        await deployment.append([message])
        await index_all(deployment)
    assert await everything(deployment.index) == ({}, {})


async def test_stopping_between_segments(deployment, monkeypatch):
    monkeypatch.setattr("sealtape.indexer.lane.SEGMENTS", 1)
    built = [
        built for seed in range(45, 60) if partition_of(built := build_session(seed=seed)) == 1
    ]
    for one in built:
        await deployment.send(one)
        await deployment.seal()
    indexer = deployment.indexer()
    assert await indexer.lanes[1].poll_ledger()
    assert indexer.tally.segments == 1
    assert not await indexer.lanes[0].poll_ledger()
    await catch_up(indexer)
    assert indexer.tally.segments >= len(built) > 1
    assert not await indexer.poll_ledger()
    assert len(await sessions(deployment.index)) == len(built)


async def test_catching_up_waits_for_an_index_that_is_busy(deployment, monkeypatch):
    await deployment.send(*(build_session(seed=seed) for seed in range(45, 50)))
    await deployment.seal()
    put, busy = deployment.index.put, [StoreBusy("Not yet.", retry_after_s=0.01)] * 3

    async def now_and_then(update):
        if busy:
            raise busy.pop()
        await put(update)

    monkeypatch.setattr(deployment.index, "put", now_and_then)
    await catch_up(deployment.indexer())
    assert not busy
    assert len(await sessions(deployment.index)) == 5


async def test_catching_up_fails_when_the_index_stays_busy(deployment, monkeypatch):
    monkeypatch.setattr("sealtape.indexer.worker.PATIENCE_S", 0.05)
    await deployment.send(build_session(seed=45))
    await deployment.seal()

    async def busy(update):
        raise StoreBusy("Not yet.", retry_after_s=0.01)

    monkeypatch.setattr(deployment.index, "put", busy)
    with pytest.raises(StoreBusy, match="Not yet"):
        await catch_up(deployment.indexer())


@pytest.mark.parametrize(("limit", "value", "writes"), [("SEGMENTS", 4, 2), ("RUN_S", -1.0, 6)])
async def test_a_backlog_of_segments_takes_few_writes(
    deployment, monkeypatch, limit, value, writes
):
    monkeypatch.setattr(f"sealtape.indexer.lane.{limit}", value)
    built = []
    for seed in range(45, 70):
        one = build_session(seed=seed, commands=2)
        if partition_of(one) == 1 and len(built) < 6:
            await deployment.send(one)
            await deployment.seal()
            built.append(one)
    put, positions = deployment.index.put, []

    async def counted(update):
        await put(update)
        positions.extend(update.positions.values())

    monkeypatch.setattr(deployment.index, "put", counted)
    lane = deployment.indexer().lanes[1]
    while await lane.poll_ledger():
        pass
    assert len(positions) == writes
    assert positions[-1] == lane.segments == 6
    assert {each.state for each in (await sessions(deployment.index)).values()} == {"sealed"}


def partition_of(built):
    """The partition of a session on the deployment's bus."""
    return int.from_bytes(built.session[:8], "big") % 2


LEASE_S = 0.6


async def test_two_indexers_share_the_lanes(deployment):
    first = await deployment.start(worker="one", lease_s=LEASE_S)
    second = await deployment.start(worker="two", lease_s=LEASE_S)

    async def shared():
        lanes = [running.snapshot().lanes for running in (first, second)]
        return all(len(each) == 1 for each in lanes)

    await until(shared)
    assert first.snapshot().workers == second.snapshot().workers == ("one", "two")
    built = [build_session(seed=seed) for seed in range(6)]
    await deployment.send(*built)
    await deployment.seal()

    async def sealed(count):
        found = await sessions(deployment.index)
        return len(found) == count and {each.state for each in found.values()} == {"sealed"}

    await until(lambda: sealed(6))
    assert first.tally.frames > 0 < second.tally.frames
    assert first.tally.frames + second.tally.frames == sum(len(each.frames) for each in built)
    first._task.cancel()  # as a crash: nothing is released
    await asyncio.gather(first._task, return_exceptions=True)
    later = [build_session(seed=seed) for seed in range(6, 12)]
    await deployment.send(*later)
    await deployment.seal()
    await until(lambda: sealed(12))
    snapshot = second.snapshot()
    assert [lane.partition for lane in snapshot.lanes] == [0, 1]
    assert (snapshot.claiming, snapshot.fenced, snapshot.failures) == ((), 0, 0)
    assert {lane.behind for lane in snapshot.lanes} == {0}
    await second.stop()
    tally = await index_all(deployment)
    assert tally.frames == 0


async def test_a_zombie_of_the_same_name_ends(deployment):
    first = await deployment.start(worker="one", lease_s=LEASE_S)
    second = await deployment.start(worker="one", lease_s=LEASE_S)
    with pytest.raises(SettingsError, match="'one'"):
        await asyncio.wait_for(first.wait(), 60)
    with pytest.raises(SettingsError):
        await first.catch_up()
    await second.catch_up()
    await first.stop()
    await second.stop()


async def test_nothing_is_rebuilt_under_an_indexer_at_work(deployment):
    await deployment.send(build_session(seed=1))
    running = await deployment.start(lease_s=LEASE_S)
    await running.catch_up()
    before = await everything(deployment.index)
    with pytest.raises(StoreBusy, match="at work"):
        await deployment.rebuild(lease_s=LEASE_S)
    assert await everything(deployment.index) == before
    await running.stop()
    began = time.monotonic()
    await deployment.rebuild(lease_s=30.0)
    assert time.monotonic() - began < 25
    assert await everything(deployment.index) == before
