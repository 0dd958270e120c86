"""One lane of the indexer: what is its own, whatever others do at the same time."""

import asyncio
import time
from dataclasses import replace

import pytest

from sealtape.indexer import heard
from sealtape.indexer.index import Page, Update
from sealtape.indexer.lane import Desk, Lane
from sealtape.indexer.query import parse
from sealtape.indexer.worker import catch_up
from sealtape.ingest.ledger.rows import Publish
from sealtape.ingest.node import start_ingest
from sealtape.ingest.sealer import Limits
from sealtape.ingest.tlog.watch import WATCH
from sealtape.schemas import messages
from sealtape.schemas.errors import Fenced, StoreBusy
from sealtape.schemas.frames import Frame, Kind
from sealtape.schemas.messages import KeyMessage
from tests.factories.ingest_world import MemoryBus
from tests.factories.sessions import build_session, node_signer

ALL = Page(limit=1000)


def partition_of(built):
    return int.from_bytes(built.session[:8], "big") % 2


def sessions_of(partition, count, *, start=0, **options):
    """Sessions that all belong to one partition."""
    found, seed = [], start
    while len(found) < count:
        seed += 1
        built = build_session(seed=seed, **options)
        if partition_of(built) == partition:
            found.append(built)
    return found


async def everything(index):
    query = parse("", now_ns=time.time_ns())
    sessions = (await index.search_sessions(query, ALL)).documents
    commands = (await index.search_commands(query, ALL)).documents
    return {each.id: each for each in sessions}, {each.id: each for each in commands}


def lane_of(deployment, partition=0, **changes):
    stores, private = deployment.desk(changes)
    return Lane(Desk(stores, private, **changes), partition)


async def drained(lane):
    while await lane.poll_ledger() or await lane.poll_bus():
        pass
    return lane


async def test_a_lane_reads_what_is_of_its_partition_and_nothing_else(deployment):
    ours, theirs = sessions_of(0, 2), sessions_of(1, 2, start=50)
    await deployment.send(*ours, *theirs)
    await drained(lane_of(deployment))
    documents, _ = await everything(deployment.index)
    assert set(documents) == {each.session.hex() for each in ours}
    await deployment.seal()
    await deployment.index.clear()
    lane = await drained(lane_of(deployment))
    documents, _ = await everything(deployment.index)
    assert set(documents) == {each.session.hex() for each in ours}
    assert {each.state for each in documents.values()} == {"sealed"}
    assert lane.segments == (await deployment.ledger.shard_head(f"{deployment.bus.topic}/0")).n


async def test_a_slow_lane_does_not_stall_another(deployment):
    slow, quick = sessions_of(0, 1), sessions_of(1, 1)
    await deployment.send(*slow, *quick)
    await deployment.seal()
    stuck = asyncio.Event()

    class Slow:
        def __getattr__(self, name):
            return getattr(deployment.vault, name)

        async def get(self, key, *arguments):
            [fragment] = await deployment.ledger.fragments(slow[0].session)
            if key == fragment.segment_key:
                stuck.set()
                await asyncio.sleep(3600)
            return await deployment.vault.get(key, *arguments)

    running = await deployment.start(vault=Slow())
    try:
        await asyncio.wait_for(stuck.wait(), 60)
        async with asyncio.timeout(60):
            while quick[0].session.hex() not in (await everything(deployment.index))[0]:
                await asyncio.sleep(0.02)
        assert slow[0].session.hex() not in (await everything(deployment.index))[0]
        later = sessions_of(1, 2)[1]
        await deployment.send(later)
        async with asyncio.timeout(60):
            while later.session.hex() not in (await everything(deployment.index))[0]:
                await asyncio.sleep(0.02)
    finally:
        running._crew.seats.clear()
        running._task.cancel()
        await asyncio.gather(running._task, return_exceptions=True)


# -- zombies ---------------------------------------------------------------------------------------


class Late:
    """An index whose next write waits until it is told to go on, like one of a stopped process."""

    def __init__(self, index):
        self.index, self.arrived, self.go_on = index, asyncio.Event(), asyncio.Event()

    def __getattr__(self, name):
        return getattr(self.index, name)

    async def put(self, update):
        self.arrived.set()
        await self.go_on.wait()
        await self.index.put(update)


async def test_a_write_that_comes_too_late_changes_nothing_for_good(deployment):
    built = build_session(seed=3, commands=6)
    zombie_sees, rest = built.messages[:8], built.messages[8:]
    await deployment.append(zombie_sees)
    late = Late(deployment.index)
    zombie = lane_of(deployment, partition_of(built), index=late)
    writing = asyncio.create_task(zombie.poll_bus())
    await late.arrived.wait()
    await deployment.append(rest)
    await drained(lane_of(deployment, partition_of(built)))
    expected = await everything(deployment.index)
    assert {each.status for each in expected[1].values()} == {"ok"}
    late.go_on.set()
    await writing
    assert await everything(deployment.index) == expected
    # The progress it left is of an older revision: whoever goes on folds from the beginning.
    await deployment.append(built.messages[-1:])
    lane = await drained(lane_of(deployment, partition_of(built)))
    assert await everything(deployment.index) == expected
    assert lane._tally.restarted == 1
    await deployment.seal()
    lane = await drained(lane_of(deployment, partition_of(built)))
    documents, commands = await everything(deployment.index)
    assert commands == expected[1]
    [document] = documents.values()
    assert (document.state, document.frames) == ("sealed", len(built.frames))


async def test_a_sealed_session_with_old_progress_is_sealed_still(deployment):
    built = build_session(seed=4, commands=6, checkpoint_every=2)
    name = built.session.hex()
    await deployment.append(built.messages[:9])
    await drained(lane_of(deployment, partition_of(built)))
    old = await deployment.index.progress(name)
    await deployment.append(built.messages[9:])
    await deployment.seal()
    await drained(lane_of(deployment, partition_of(built)))
    expected = await everything(deployment.index)
    assert expected[0][name].state == "sealed"
    await deployment.index.put(Update(progress={name: old}))
    await deployment.append(built.messages[-2:])
    lane = await drained(lane_of(deployment, partition_of(built)))
    assert (lane._tally.restarted, lane._tally.early) == (1, 0)
    assert await everything(deployment.index) == expected
    await deployment.append(built.messages[-1:])
    lane = await drained(lane_of(deployment, partition_of(built)))
    assert lane._tally.restarted == 0


async def test_positions_that_went_back_cost_reading_and_nothing_else(deployment):
    built = sessions_of(0, 3)
    for each in built:
        await deployment.send(each)
        await deployment.seal()
    await drained(lane_of(deployment))
    expected = await everything(deployment.index)
    names = await deployment.index.positions()
    await deployment.index.put(Update(positions=dict.fromkeys(names, 0)))
    lane = await drained(lane_of(deployment))
    assert (lane._tally.segments, lane._tally.frames) == (3, 0)
    assert await everything(deployment.index) == expected


async def test_nothing_is_written_when_the_lease_may_be_over(deployment):
    built = sessions_of(0, 1)[0]
    await deployment.send(built)
    stores, private = deployment.desk({})

    def over():
        raise Fenced("over")

    told = []

    async def tell(update):
        told.append(update)

    lane = Lane(Desk(stores, private, tell), 0, over)
    with pytest.raises(Fenced):
        await lane.poll_bus()
    assert (told, await everything(deployment.index)) == ([], ({}, {}))


# -- keys on their own bus -------------------------------------------------------------------------


def parted(built):
    keys = [m for m in built.messages if isinstance(m, KeyMessage)]
    return keys, [m for m in built.messages if not isinstance(m, KeyMessage)]


async def send_keys(bus, keys):
    for each in keys:
        pair = (each.session, messages.encode(each))
        await bus.append(bus.partition_of(each.session), [pair])


@pytest.fixture
def keys_bus():
    bus = MemoryBus(2)
    bus.topic = "keys"
    return bus


async def test_keys_come_before_the_frames_that_need_them(deployment, keys_bus):
    built = sessions_of(0, 2)
    for each in built:
        keys, frames = parted(each)
        await send_keys(keys_bus, keys)
        await deployment.append(frames)
    keys_bus.records[0].insert(1, (bytes(16), b"rubbish"))
    keys_bus.batch = 3
    lane = await drained(lane_of(deployment, keys=keys_bus))
    documents, commands = await everything(deployment.index)
    assert {each.user for each in documents.values()} != {""}
    assert len(commands) == 6
    assert (lane._tally.unreadable, lane._tally.malformed) == (0, 1)


async def test_sealed_segments_are_read_with_keys_that_ingest_has_not_passed(deployment, keys_bus):
    keys, frames = parted(built := sessions_of(0, 1)[0])
    await send_keys(keys_bus, keys)
    await deployment.append(frames)
    await deployment.seal()
    assert await deployment.keyring.get(built.session, 0, "facts") == []
    lane = lane_of(deployment, keys=keys_bus)
    assert await lane.poll_ledger()
    assert len((await everything(deployment.index))[1]) == 3
    assert lane._tally.unreadable == 0


async def test_keys_below_ingests_position_are_in_the_keyring(deployment, keys_bus):
    keys, frames = parted(sessions_of(0, 1)[0])
    await send_keys(keys_bus, keys)
    running = await start_ingest(
        bus=deployment.bus,
        keyring=deployment.keyring,
        vault=deployment.vault,
        ledger=deployment.ledger,
        keys=keys_bus,
        owner="test",
        verifiers=[node_signer().verifier],
        limits=Limits(segment_ns=50_000_000),
    )
    await running.stop()
    assert await deployment.ledger.position("keys", 0) == len(keys)
    keys_bus.first[0] = len(keys)
    await deployment.append(frames)
    lane = lane_of(deployment, keys=keys_bus)
    await drained(lane)
    keys_bus.records[0] += [(bytes(16), b"x")] * 3
    keys_bus.first[0] += 2  # deleted behind our back
    await deployment.append(frames[-1:])
    await drained(lane)
    assert len((await everything(deployment.index))[1]) == 3
    assert lane._tally.unreadable == 0


async def test_a_keys_bus_that_keeps_back_what_it_has_is_tried_again(deployment, keys_bus):
    keys, frames = parted(sessions_of(0, 1)[0])
    await deployment.append(frames)
    await send_keys(keys_bus, keys)
    hidden, keys_bus.records[0] = keys_bus.records[0], []

    async def bounds(partition):
        return 0, len(hidden)

    keys_bus.bounds = bounds
    lane = lane_of(deployment, keys=keys_bus)
    with pytest.raises(StoreBusy):
        await lane.poll_bus()
    keys_bus.records[0] = hidden
    await drained(lane)
    assert lane._tally.unreadable == 0
    assert len((await everything(deployment.index))[1]) == 3


# -- what came by another topic --------------------------------------------------------------------


@pytest.mark.parametrize("partitions", [2, 3])
async def test_segments_of_a_topic_that_was_the_bus_once(deployment, partitions):
    first = MemoryBus(partitions)
    first.topic = "frames@first"
    opened = [
        build_session(seed=seed, commands=2, close=None, final_checkpoint=True) for seed in range(6)
    ]
    for each in opened:
        for pair in each.encoded():
            await first.append(first.partition_of(each.session), [pair])
    await deployment.with_bus(first).seal()
    for number, each in enumerate(opened):
        again = build_session(
            seed=f"again {number}",
            session=each.session,
            epoch=1,
            continues=each.continues,
            commands=1,
            close="aborted",
        )
        await deployment.send(again)
    indexer = deployment.indexer()
    for lane in indexer.lanes:  # the bus first: what came before is fetched
        await lane.poll_bus()
    await catch_up(indexer)
    live = await everything(deployment.index)
    assert {each.commands for each in live[0].values()} == {3}
    assert {each.started_ns for each in live[0].values()} == {
        each.frames[0].ts_ns for each in opened
    }
    await deployment.seal()
    await catch_up(indexer)
    documents, commands = await everything(deployment.index)
    assert {each.state for each in documents.values()} == {"sealed"}
    assert len(commands) == 18
    tally = await deployment.rebuild()
    assert await everything(deployment.index) == (documents, commands)
    assert tally.frames == sum(each.frames for each in documents.values())
    names = await deployment.index.positions()
    parts = {name for name in names if name.startswith("ledger/frames@first/")}
    assert any(":" in name.rpartition("/")[2] for name in parts) == (partitions == 3)


async def test_how_long_it_took_from_capture(deployment):
    built = sessions_of(0, 1)[0]
    await deployment.send(built)
    lane = await drained(lane_of(deployment))
    facts = sum(frame.kind == Kind.FACTS for frame in built.frames)
    assert sum(lane._desk.found_s.counts) == facts > 0
    again = await drained(lane_of(deployment))
    assert sum(again._desk.found_s.counts) == 0


async def test_a_session_whose_node_fell_silent(deployment):
    """It is told once; what still comes of it makes it live again, and closed."""
    (built,) = sessions_of(0, 1, close=None)
    await deployment.send(built)
    await deployment.seal()
    lane = await drained(lane_of(deployment))
    ledger = deployment.ledger
    lease = await ledger.claim(WATCH, 0, "watch", 5.0)
    first = lease.next_offset
    await ledger.publish(Publish(lease, first, first + 1, WATCH, 1, silent=(built.session,)))
    documents, _ = await everything(deployment.index)
    assert documents[built.session.hex()].state == "live"
    lane = await drained(lane_of(deployment))
    documents, _ = await everything(deployment.index)
    silent = documents[built.session.hex()]
    assert silent.state == "incomplete"
    lane._looked = -60.0
    await drained(lane)
    documents, _ = await everything(deployment.index)
    assert documents[built.session.hex()] == silent
    await deployment.index.clear()
    await drained(lane_of(deployment))
    documents, _ = await everything(deployment.index)
    assert documents[built.session.hex()].state == "incomplete", "made anew, it is the same"


# -- frames that somebody slipped into the bus -----------------------------------------------------


def slipped_in(built, at):
    """A session whose frames of kind FACTS come behind others with their seq, from `at` on."""
    for message in built.messages:
        if isinstance(message, Frame) and message.kind == Kind.FACTS and message.seq >= at:
            yield replace(message, payload=b"forged" + message.payload[6:])
        yield message


@pytest.mark.parametrize("restarted", ["", "before the seal", "after the seal", "many"])
async def test_what_is_sealed_takes_the_place_of_what_was_slipped_in(
    deployment, restarted, monkeypatch
):
    if restarted == "many":
        monkeypatch.setattr(heard, "MAX_LEAVES", 3)
    (built,) = sessions_of(0, 1, commands=6, facts_frames=True)
    lane = lane_of(deployment)
    lane._heard = heard.Heard(heard.MAX_LEAVES)
    await deployment.append(slipped_in(built, 4))
    await drained(lane)
    assert len((await everything(deployment.index))[1]) < 6
    if restarted == "before the seal":
        lane = await drained(lane_of(deployment))
    await deployment.seal()
    if restarted == "after the seal":
        lane = lane_of(deployment)
    await drained(lane)
    found = await everything(deployment.index)
    assert len(found[1]) == 6
    assert lane._tally.restarted == 1
    await deployment.rebuild()
    assert await everything(deployment.index) == found


@pytest.mark.parametrize("restarted", [False, True])
async def test_no_command_is_left_of_what_was_slipped_in(deployment, restarted, monkeypatch):
    """Here it can be read, and has statements that the session never had, and results for them."""
    monkeypatch.setattr("sealtape.indexer.lane.COMMANDS", 2)
    (built,) = sessions_of(0, 1, commands=6, encrypt=False)
    forged = build_session(session=built.session, commands=12, encrypt=False)
    false = [f for f in forged.frames[len(built.frames) - 1 :] if f.kind == Kind.FACTS]
    true = [m for m in built.messages if isinstance(m, Frame) and m.kind == Kind.FACTS]
    places = {message.seq: found.payload for message, found in zip(true[1:], false, strict=False)}
    lane = lane_of(deployment)
    for message in built.messages:
        if isinstance(message, Frame) and message.seq in places:
            await deployment.append([replace(message, payload=places[message.seq])])
        await deployment.append([message])
    await drained(lane)
    _, commands = await everything(deployment.index)
    assert max(each.n for each in commands.values()) > 11
    await deployment.seal()
    await drained(lane_of(deployment) if restarted else lane)
    found = await everything(deployment.index)
    assert len(found[1]) == 6
    await drained(lane_of(deployment))
    assert await everything(deployment.index) == found
    await deployment.rebuild()
    assert await everything(deployment.index) == found


async def test_what_was_folded_as_it_is_sealed_is_not_folded_again(deployment):
    """Over restarts at any place: sealed in parts, by lanes that each fold a part."""
    (built,) = sessions_of(0, 1, commands=12, facts_frames=True, checkpoint_every=4)
    for at in range(0, len(built.messages), 7):
        await deployment.append(built.messages[at : at + 7])
        lane = await drained(lane_of(deployment))
        await deployment.seal()
        if at % 2:
            await drained(lane)
    lane = await drained(lane_of(deployment))
    found = await everything(deployment.index)
    assert [each.state for each in found[0].values()] == ["sealed"]
    assert lane._tally.restarted == 0
    assert b"heard" not in await deployment.index.progress(built.session.hex())
    await deployment.rebuild()
    assert await everything(deployment.index) == found


async def test_a_frame_of_an_epoch_that_never_began_is_left_to_ingest(deployment):
    (built,) = sessions_of(0, 1, commands=3)
    second = built.frames[4]
    lane = lane_of(deployment)
    await deployment.append([*built.messages, replace(second, epoch=1, seq=0)])
    await drained(lane)
    assert lane._tally.malformed == 1
    ((document,), _) = map(dict.values, await everything(deployment.index))
    assert document.state == "closed"
    await deployment.seal()
    await drained(lane)
    assert [each.state for each in (await everything(deployment.index))[0].values()] == ["sealed"]


@pytest.mark.parametrize("trusted", [False, True])
async def test_of_the_bus_only_trusted_nodes_sessions_are_taken(deployment, trusted):
    (built,) = sessions_of(0, 1)
    verifiers = [node_signer(seed=1 if trusted else 2).verifier]
    lane = lane_of(deployment, verifiers=verifiers)
    await deployment.send(built)
    await drained(lane)
    assert len((await everything(deployment.index))[0]) == trusted
    # What is sealed was let in by ingest.
    await deployment.seal()
    await drained(lane)
    assert [each.state for each in (await everything(deployment.index))[0].values()] == ["sealed"]


async def test_a_session_is_taken_up_by_nobody_else(deployment):
    """Ingest puts what another node's key signed for it into quarantine."""
    first = build_session(seed=1, commands=3, close=None)
    other = build_session(
        seed=2, session=first.session, epoch=1, continues=first.continues, commands=4,
        close="aborted", node=node_signer("node-2"),
    )  # fmt: skip
    lane = lane_of(deployment)
    await deployment.append([*first.messages, *other.messages])
    await drained(lane)
    found = await everything(deployment.index)
    assert [len(each) for each in found] == [1, 3]
    assert [each.state for each in found[0].values()] == ["live"]


async def test_an_open_that_names_another_session_begins_none(deployment):
    (built, other) = sessions_of(0, 2)
    await deployment.append([replace(built.frames[0], session=other.session)])
    lane = await drained(lane_of(deployment))
    assert await everything(deployment.index) == ({}, {})
    await deployment.append([replace(built.frames[0], payload=b"no note")])
    await drained(lane)
    assert lane._tally.malformed == 2
