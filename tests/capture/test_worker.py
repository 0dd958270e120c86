import asyncio
import os
import signal
import subprocess
import sys

import pytest

from sealtape.capture.clock import Clock
from sealtape.capture.epoch import Terms
from sealtape.schemas.bodies import Clock as ClockBody
from sealtape.schemas.bodies import Gap, StateBody
from sealtape.schemas.errors import SettingsError, StoreBusy, StoreError
from sealtape.schemas.facts import COMMAND, HEARTBEAT, NODE
from sealtape.schemas.frames import Kind
from sealtape.schemas.slices import CLIENT_IN, CLIENT_OUT, TARGET_IN, TARGET_OUT, Hole
from tests.capture.stage import CLASS, SPOOL_KEY, Stage, open_on, until


@pytest.fixture
def stage(tmp_path):
    return Stage(tmp_path, frame_ms=40, grace_s=0.6)


@pytest.fixture
async def bus(stage):
    bus = stage.bus()
    yield bus
    await bus.close()


class BrokenBus:
    """A bus in front of another that can be told to fail."""

    def __init__(self, bus):
        self.bus = bus
        self.broken = True
        self.refused = 0
        self.partitions = bus.partitions
        self.partition_of = bus.partition_of

    async def append(self, partition, messages):
        if self.broken:
            self.refused += 1
            if self.refused % 2:
                raise StoreBusy("too much", retry_after_s=0.01)
            raise StoreError("the broker is away")
        return await self.bus.append(partition, messages)


async def test_what_is_relayed_is_on_the_bus_and_verifies(stage, bus):
    worker = await stage.worker(bus)
    recorder, wire = await open_on(worker)
    recorder.data(CLIENT_IN, b"select 1")
    n = recorder.fact(COMMAND, CLIENT_IN, 0, 8)
    worker.forward(recorder, wire.write, b"select 1")
    assert wire.data == b""
    await asyncio.sleep(0.01)
    assert wire.data == b"select 1"
    recorder.data(TARGET_IN, b"1")
    recorder.forward(wire.write, b"1")
    large = os.urandom(300_000)
    await asyncio.sleep(0)
    recorder.data(TARGET_IN, large)
    recorder.forward(wire.write, large)
    await worker.close_session(recorder, "client")
    assert await worker.stop()
    told = (await stage.recorded(bus))[recorder.session]
    assert told.stream(CLIENT_IN) == b"select 1"
    assert told.stream(TARGET_IN) == b"1" + large
    assert [fact.n for fact in told.facts] == [n]
    assert told.kinds[:2] == [Kind.OPEN, Kind.IDENT]
    assert told.kinds[-1] == Kind.CLOSE
    assert told.closes[0].reason == "client"
    assert told.closes[0].totals == (8, 8, 300_001, 300_001)
    assert told.closes[0].commands == 1
    assert told.checkpoints[0][-1].size == len(told.frames[0])
    assert not list((stage.root / "spool").glob("node-1-*"))


@pytest.mark.parametrize("level", ["spooled", "durable", "acked"])
async def test_every_level_forwards_in_order_and_records_all(stage, bus, level):
    worker = await stage.worker(bus)
    terms = Terms(retention=CLASS, level=level)
    recorder, wire = await open_on(worker, terms)
    sent = b""
    for n in range(60):
        chunk = b"%d," % n + os.urandom(n * 900)
        recorder.data(TARGET_IN, chunk)
        recorder.forward(wire.write, chunk)
        recorder.forward(wire.write, b"")
        sent += chunk
        if n % 3 == 0:
            await asyncio.sleep(0)
    await worker.close_session(recorder, "target")
    await until(lambda: wire.data == sent)
    assert await worker.stop()
    told = (await stage.recorded(bus))[recorder.session]
    assert told.stream(TARGET_IN) == sent
    assert recorder.queued_bytes == 0
    assert not wire.stalled or wire.stalled[-1] is False


async def test_an_unknown_level_is_a_settings_error(stage, bus):
    worker = await stage.worker(bus)
    with pytest.raises(SettingsError):
        await open_on(worker, Terms(retention=CLASS, level="hoped"))
    await worker.stop()


async def test_without_encryption_frames_are_salted_and_no_key_is_sent(stage, bus):
    worker = await stage.worker(bus)
    recorder, _ = await open_on(worker, Terms(retention=CLASS, encryption=False))
    recorder.data(CLIENT_IN, b"plain")
    await worker.close_session(recorder, "client")
    await worker.stop()
    told = (await stage.recorded(bus))[recorder.session]
    assert told.keys == {}
    assert told.stream(CLIENT_IN) == b"plain"


async def test_indexers_get_facts_only(stage, bus):
    worker = await stage.worker(bus)
    recorder, _ = await open_on(worker)
    await worker.close_session(recorder, "client")
    await worker.stop()
    wrapped = []
    batch = await bus.read(0, 0, max_bytes=1 << 20, wait_s=0)
    from sealtape.schemas.messages import KeyMessage, decode

    for record in batch.records:
        message = decode(record.value)
        if isinstance(message, KeyMessage) and message.session == recorder.session:
            wrapped.append((message.label, message.recipient.partition("-")[0]))
            assert (message.tenant, message.retention) == ("main", "standard")
    assert sorted(wrapped) == [("data", "auditor"), ("facts", "auditor"), ("facts", "indexer")]


async def test_time_cuts_frames_and_checkpoints(tmp_path):
    stage = Stage(tmp_path, frame_ms=40, checkpoint_s=0.2)
    bus = stage.bus()
    worker = await stage.worker(bus)
    recorder, _ = await open_on(worker)
    recorder.data(CLIENT_IN, b"one")
    await until(lambda: recorder.size == 3)
    assert recorder.unsigned == 1
    await until(lambda: recorder.unsigned == 0)
    recorder.data(CLIENT_IN, b"two")
    await asyncio.sleep(0.02)
    recorder.data(CLIENT_IN, b"three")
    await until(lambda: recorder.size == 4)
    await stage.crash(worker)
    await bus.close()


async def test_many_frames_are_signed_every_so_often(tmp_path):
    stage = Stage(tmp_path, checkpoint_frames=4, frame_bytes=1000)
    bus = stage.bus()
    worker = await stage.worker(bus)
    recorder, _ = await open_on(worker)
    for _ in range(10):
        recorder.data(CLIENT_IN, bytes(1000))
        assert recorder.unsigned < 4
    await worker.close_session(recorder, "client")
    await worker.stop()
    told = (await stage.recorded(bus))[recorder.session]
    assert [message.size for message in told.checkpoints[0]] == [2, 6, 10, 13]
    await bus.close()


async def test_state_frames_let_a_decoder_start(tmp_path):
    stage = Stage(tmp_path, state_every=1000)
    bus = stage.bus()
    worker = await stage.worker(bus)
    large = os.urandom(200_000)
    recorder, _ = await open_on(worker, snapshot=lambda: ("postgres/1", large))
    recorder.data(CLIENT_IN, bytes(999))
    recorder.state_if_due()
    recorder.data(TARGET_IN, b"x")
    recorder.state_if_due()
    recorder.state_if_due()
    await worker.close_session(recorder, "client")
    await worker.stop()
    told = (await stage.recorded(bus))[recorder.session]
    assert told.kinds == [Kind.OPEN, Kind.IDENT, Kind.DATA, Kind.STATE, Kind.STATE, Kind.CLOSE]
    parts = [StateBody.from_json(told.bodies[0, seq]) for seq in (3, 4)]
    assert b"".join(part.data for part in parts) == large
    assert parts[0].offsets == (999, 999, 1, 1)
    await bus.close()


async def test_changed_bytes_are_recorded_on_their_own_leg(stage, bus):
    worker = await stage.worker(bus)
    recorder, _ = await open_on(worker)
    recorder.data(TARGET_IN, b"key data")
    recorder.data(CLIENT_OUT, b"other key", 8)
    recorder.data(CLIENT_IN, b"bad")
    recorder.data(TARGET_OUT, b"", 3)
    large = os.urandom(150_000)
    recorder.data(TARGET_IN, b"small")
    recorder.data(CLIENT_OUT, large, 5)
    await worker.close_session(recorder, "client")
    await worker.stop()
    told = (await stage.recorded(bus))[recorder.session]
    found = [(s.leg, len(s.data), s.replaces) for s in told.slices]
    assert found[:5] == [(2, 8, 0), (3, 9, 8), (0, 3, 0), (1, 0, 3), (2, 5, 0)]
    assert [replaces for _, _, replaces in found[5:]] == [5, 0, 0]
    assert told.stream(CLIENT_OUT) == b"other key" + large
    assert told.closes[0].totals == (3, 0, 13, 9 + len(large))


async def test_the_journal_lists_live_sessions_and_events(tmp_path):
    stage = Stage(tmp_path, heartbeat_s=0.05)
    bus = stage.bus()
    worker = await stage.worker(bus)
    recorder, _ = await open_on(worker)
    worker.journal.count("scan")
    worker.journal.refusal("bad-token", protocol="postgres", source="192.0.2.1", code="28000")
    await asyncio.sleep(0.2)
    journal = worker.journal.recorder
    await worker.close_session(recorder, "client")
    await worker.stop()
    sessions = await stage.recorded(bus)
    told = sessions[journal.session]
    beats = [fact for fact in told.facts if fact.kind == HEARTBEAT]
    live = beats[0].live[0]
    assert (live.session, live.number, live.epoch) == (recorder.session, 1, 0)
    assert live.size >= 2
    events = [fact.status for fact in told.facts if fact.kind == NODE]
    assert events[0] == "started"
    assert "counted" in events
    assert events[-1] == "stopped"
    assert told.openings[0].number == 0
    assert told.closes[0].reason == "shutdown"
    assert [fact.status for fact in told.facts if fact.code == "28000"] == ["bad-token"]
    await bus.close()


async def test_a_stepped_clock_is_stated_in_every_session(tmp_path):
    stage = Stage(tmp_path)
    bus = stage.bus()
    shift = 0
    import time

    clock = Clock(lambda: time.time_ns() + shift, time.monotonic_ns)
    worker = await stage.worker(bus, clock=clock)
    recorder, _ = await open_on(worker)
    recorder.data(CLIENT_IN, b"before")
    shift = -3_600_000_000_000
    worker._watch_clock()
    worker._watch_clock()
    recorder.data(CLIENT_IN, b"after")
    await worker.close_session(recorder, "client")
    await worker.stop()
    told = (await stage.recorded(bus))[recorder.session]
    assert told.kinds[2:] == [Kind.DATA, Kind.CLOCK, Kind.DATA, Kind.CLOSE]
    step = ClockBody.from_json(told.bodies[0, 3]).step_ns
    assert abs(step + 3_600_000_000_000) < 1_000_000_000
    await bus.close()


async def test_a_full_spool_stalls_then_goes_on_where_it_was(stage, bus, failing_files):
    disk = failing_files()
    worker = await stage.worker(bus, create=disk.create)
    recorder, wire = await open_on(worker)
    disk.room = 10
    recorder.data(CLIENT_IN, b"held back")
    recorder.forward(wire.write, b"held back")
    await until(lambda: wire.stalled == [True])
    assert wire.data == b""
    assert worker.health().state == "failing"
    assert "No space" in worker.health().error
    with pytest.raises(StoreError):
        await open_on(worker)
    recorder.data(CLIENT_IN, b", and more")
    recorder.forward(wire.write, b", and more")
    disk.room = 1 << 30
    await until(lambda: wire.stalled == [True, False])
    assert wire.data == b"held back, and more"
    assert worker.health().state == "ok"
    assert wire.ended == []
    await worker.close_session(recorder, "client")
    assert await worker.stop()
    told = (await stage.recorded(bus))[recorder.session]
    assert told.stream(CLIENT_IN) == b"held back, and more"


@pytest.mark.parametrize("level", ["spooled", "durable"])
async def test_a_spool_that_stays_full_ends_the_session(stage, bus, failing_files, level):
    disk = failing_files()
    worker = await stage.worker(bus, create=disk.create)
    recorder, wire = await open_on(worker, Terms(retention=CLASS, level=level))
    recorder.data(CLIENT_IN, b"good")
    recorder.forward(wire.write, b"good")
    await until(lambda: wire.data == b"good")
    disk.fail_write = disk.fail_sync = True
    recorder.data(CLIENT_IN, b"never sent")
    recorder.forward(wire.write, b"never sent")
    await until(lambda: wire.ended == ["spool"])
    async with asyncio.timeout(2):
        await worker.close_session(recorder, "spool")
    assert wire.data == b"good"
    disk.fail_write = disk.fail_sync = False
    await until(lambda: worker.health().state == "ok")
    assert await worker.stop()
    told = (await stage.recorded(bus))[recorder.session]
    assert told.closes[0].reason == "spool"
    assert told.stream(CLIENT_IN).startswith(b"good")


async def test_terms_may_let_a_session_go_on_with_a_stated_gap(stage, bus, failing_files):
    disk = failing_files()
    worker = await stage.worker(bus, create=disk.create)
    recorder, wire = await open_on(worker, Terms(retention=CLASS, on_failure="continue"))
    recorder.data(CLIENT_IN, b"recorded")
    recorder.forward(wire.write, b"recorded")
    await until(lambda: wire.data == b"recorded")
    disk.room = 0
    recorder.data(CLIENT_IN, b", kept")
    recorder.forward(wire.write, b", kept")
    await until(lambda: recorder.unrecorded)
    assert wire.data == b"recorded, kept"
    recorder.data(CLIENT_IN, b", lost")
    assert recorder.fact(COMMAND) == 0
    recorder.forward(wire.write, b", lost")
    assert wire.data == b"recorded, kept, lost"
    disk.room = 1 << 30
    await until(lambda: not recorder.unrecorded)
    assert wire.stalled == wire.ended == []
    recorder.data(CLIENT_IN, b", back")
    assert recorder.fact(COMMAND) == 1
    await worker.close_session(recorder, "client")
    await worker.stop()
    told = (await stage.recorded(bus))[recorder.session]
    gap = Gap.from_json(told.bodies[0, told.kinds.index(Kind.GAP)])
    assert gap.legs == (Hole(CLIENT_IN, 14, 6), Hole(TARGET_OUT, 14, 6))
    assert b"".join(s.data for s in told.slices) == b"recorded, kept, back"
    assert [s.offset for s in told.slices][-1] == 20
    assert told.closes[0].totals[0] == 26


async def test_the_spool_limit_is_a_full_spool(stage, bus):
    blocked = BrokenBus(bus)
    worker = await stage.worker(blocked, limit=1 << 20)
    recorder, wire = await open_on(worker)
    sent = b""
    for _ in range(60):
        if True in wire.stalled:
            break
        chunk = os.urandom(50_000)
        sent += chunk
        recorder.data(TARGET_IN, chunk)
        recorder.forward(wire.write, chunk)
        await asyncio.sleep(0.01)
    assert wire.stalled == [True]
    assert worker.health().spool_bytes <= 1 << 20
    blocked.broken = False
    await until(lambda: wire.stalled == [True, False])
    assert wire.data == sent
    await until(lambda: worker.health().spool_bytes < 300_000)
    await worker.close_session(recorder, "client")
    assert await worker.stop()
    assert (await stage.recorded(bus))[recorder.session].stream(TARGET_IN) == sent


async def test_a_bus_that_is_away_costs_disk_and_not_memory(stage, bus):
    blocked = BrokenBus(bus)
    worker = await stage.worker(blocked, file_bytes=100_000)
    worker._shipper._keep_bytes = 50_000
    recorder, wire = await open_on(worker)
    sent = b""
    for n in range(40):
        chunk = os.urandom(20_000 if n % 2 else 300)
        sent += chunk
        recorder.data(TARGET_IN, chunk)
        recorder.forward(wire.write, chunk)
        await asyncio.sleep(0.005)
    assert wire.data == sent
    assert worker._shipper._kept <= 50_000
    assert worker.health().state == "bus-failing"
    assert worker.health().unshipped_bytes > 300_000
    assert blocked.refused > 1
    blocked.broken = False
    await worker.close_session(recorder, "client")
    assert await worker.stop()
    assert (await stage.recorded(bus))[recorder.session].stream(TARGET_IN) == sent


async def test_what_the_bus_did_not_take_is_shipped_by_the_next_start(stage, bus):
    worker = await stage.worker(BrokenBus(bus))
    recorder, _ = await open_on(worker)
    recorder.data(CLIENT_IN, b"later")
    await worker.close_session(recorder, "client")
    assert not await worker.stop(timeout_s=0.05)
    assert await stage.recorded(bus) == {}
    again = await stage.worker(bus)
    await until(lambda: len(list((stage.root / "spool").glob("node-1-*"))) == 1)
    await again.stop()
    told = (await stage.recorded(bus))[recorder.session]
    assert told.stream(CLIENT_IN) == b"later"
    assert list(told.closes) == [0]


@pytest.mark.parametrize("level", ["spooled", "durable", "acked"])
async def test_after_a_crash_a_recovery_epoch_holds_what_was_in_no_frame(stage, bus, level):
    worker = await stage.worker(bus)
    terms = Terms(retention=CLASS, level=level)
    recorder, wire = await open_on(worker, terms)
    closed, _ = await open_on(worker, terms)
    idle, _ = await open_on(worker, terms)
    recorder.data(CLIENT_IN, b"framed")
    recorder.fact(COMMAND, CLIENT_IN, 0, 6)
    recorder.cut()
    recorder.data(CLIENT_IN, b", not framed")
    recorder.fact(COMMAND, CLIENT_IN, 8, 10)
    recorder.forward(wire.write, b"x")
    await worker.close_session(closed, "client")
    await until(lambda: wire.data == b"x")
    await stage.crash(worker)
    again = await stage.worker(bus)
    await until(lambda: len(list((stage.root / "spool").glob("node-1-*"))) == 1)
    await again.stop()
    sessions = await stage.recorded(bus)
    told = sessions[recorder.session]
    assert told.stream(CLIENT_IN) == b"framed, not framed"
    assert [fact.n for fact in told.facts] == [0, 1]
    assert told.openings[1].continues.size == len(told.frames[0])
    assert (told.openings[1].number, told.openings[1].boot) == (1, told.openings[0].boot)
    assert told.closes[1].reason == "aborted"
    assert told.closes[1].totals[0] == 18
    assert told.closes[1].commands == 2
    attested = told.closes[1].attested
    if len(told.frames[0]) > 2:
        assert (attested.epoch, attested.start, attested.stop) == (0, 2, len(told.frames[0]))
    assert told.checkpoints[1][-1].size == len(told.frames[1])
    assert list(sessions[closed.session].closes) == [0]
    assert sessions[idle.session].kinds[-3:] == [Kind.OPEN, Kind.IDENT, Kind.CLOSE]
    journals = [s for s in sessions.values() if s.openings[0].type == "journal"]
    assert sorted(len(journal.openings) for journal in journals) == [1, 2]
    adopted = [f for j in journals for f in j.facts if f.status == "spool-adopted"]
    assert adopted[0].attributes["numbers"] == "3"
    assert adopted[0].attributes["recovered"] == "3"


async def test_a_crash_during_recovery_makes_no_second_epoch(stage, bus):
    worker = await stage.worker(bus)
    recorder, _ = await open_on(worker)
    recorder.data(CLIENT_IN, b"once")
    await asyncio.sleep(0.01)
    await stage.crash(worker)
    for _ in range(3):
        half = await stage.worker(BrokenBus(bus))
        await stage.crash(half)
        for orphan in half._orphans:
            orphan.release()
    last = await stage.worker(bus)
    await until(lambda: len(list((stage.root / "spool").glob("node-1-*"))) == 1)
    await last.stop()
    told = (await stage.recorded(bus))[recorder.session]
    assert sorted(told.openings) == [0, 1]
    assert told.stream(CLIENT_IN) == b"once"


async def test_rotation_keeps_what_sessions_still_need(tmp_path):
    stage = Stage(tmp_path, frame_ms=10_000)
    bus = stage.bus()
    worker = await stage.worker(bus, file_bytes=20_000)
    quiet, _ = await open_on(worker)
    quiet.data(CLIENT_IN, b"a long time ago")
    busy, _ = await open_on(worker)
    for _ in range(40):
        busy.data(TARGET_IN, os.urandom(10_000))
        await asyncio.sleep(0.005)
    await until(lambda: len(list(worker._spool.folder.glob("*.spool"))) <= 3)
    files = sorted(path.name for path in worker._spool.folder.glob("*.spool"))
    assert files[0] > "spooled-00000005"
    await stage.crash(worker)
    again = await stage.worker(bus)
    await until(lambda: len(list((stage.root / "spool").glob("node-1-*"))) == 1)
    await again.stop()
    told = (await stage.recorded(bus))[quiet.session]
    assert told.stream(CLIENT_IN) == b"a long time ago"
    assert told.closes[1].reason == "aborted"
    await bus.close()


async def test_another_spool_key_leaves_the_orphan_alone(stage, bus, caplog):
    worker = await stage.worker(bus)
    recorder, _ = await open_on(worker)
    recorder.data(CLIENT_IN, b"sealed away")
    await asyncio.sleep(0.01)
    await stage.crash(worker)
    other = stage.spool(os.urandom(16))
    other.key = bytes(32)
    orphan = other.claim_orphans()[0]
    assert orphan.worker == 0
    from sealtape.capture.spool.adopt import read_orphan
    from sealtape.schemas.errors import KeyUnavailable

    with pytest.raises(KeyUnavailable):
        read_orphan(orphan, bytes(32))
    orphan.release()
    other.close(remove=True)
    for path in (stage.root / "spool").glob("node-1-*/*.spool"):
        assert b"sealed away" not in path.read_bytes()
        assert b'"user"' not in path.read_bytes()  # of IDENT; long enough not to occur by chance
    assert bytes(32) != SPOOL_KEY


async def test_sessions_are_numbered_in_order_and_durably(stage, bus):
    worker = await stage.worker(bus)
    opened = await asyncio.gather(*(open_on(worker) for _ in range(8)))
    assert sorted(recorder.number for recorder, _ in opened) == list(range(1, 9))
    from sealtape.capture.spool.folder import _Counter

    assert _Counter.read(worker._spool.folder) == (8, True)
    await worker.stop()


async def test_a_draining_worker_closes_its_sessions_and_opens_none(stage, bus):
    worker = await stage.worker(bus)
    recorder, _ = await open_on(worker)
    stopping = asyncio.create_task(worker.stop())
    await asyncio.sleep(0)
    with pytest.raises(StoreBusy):
        await open_on(worker)
    assert await stopping
    told = (await stage.recorded(bus))[recorder.session]
    assert told.closes[0].reason == "shutdown"


async def test_a_transport_that_raises_does_not_stop_the_others(stage, bus):
    worker = await stage.worker(bus)
    recorder, wire = await open_on(worker)
    problems = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))

    def broken(_):
        raise RuntimeError("closed")

    recorder.data(CLIENT_IN, b"ab")
    recorder.forward(broken, b"a")
    recorder.forward(wire.write, b"b")
    await until(lambda: wire.data == b"b")
    assert len(problems) == 1
    await worker.stop()


VICTIM = """
import asyncio, os, sys
from tests.capture.stage import Stage, open_on
from sealtape.capture.epoch import Terms
from sealtape.schemas.slices import CLIENT_IN, TARGET_IN
from tests.capture.stage import CLASS

async def main(root, seed, level):
    stage = Stage(root, seed=bytes.fromhex(seed), frame_ms=10)
    bus = stage.bus()
    worker = await stage.worker(bus, file_bytes=100_000)
    terms = Terms(retention=CLASS, level=level)
    recorders = [(await open_on(worker, terms))[0] for _ in range(3)]
    n = 0
    while True:
        for index, recorder in enumerate(recorders):
            chunk = (b"%d:" % n) + b"x" * (n * 37 % (30_000 if n % 50 == 0 else 300)) + b";"
            recorder.data(CLIENT_IN, chunk)
            def forward(data, recorder=recorder):
                head = recorder.session + len(data).to_bytes(4, "big")
                os.write(1, head + data)
            recorder.forward(forward, chunk)
            n += 1
        await asyncio.sleep(0)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("level", ["spooled", "durable"])
async def test_kill_nine_loses_nothing_that_was_forwarded(tmp_path, level):
    seed = os.urandom(32)
    stage = Stage(tmp_path, seed=seed)
    forwarded = {}
    for round_ in range(3):
        command = [sys.executable, "-c", VICTIM, str(tmp_path), seed.hex(), level]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        data = b""
        while len(data) < 60_000 * (round_ + 1):
            data += await asyncio.to_thread(process.stdout.read1, 1 << 20)
        process.send_signal(signal.SIGKILL)
        data += process.communicate()[0]
        at = 0
        while at + 20 <= len(data):
            session, length = data[at : at + 16], int.from_bytes(data[at + 16 : at + 20], "big")
            body = data[at + 20 : at + 20 + length]
            forwarded[session] = forwarded.get(session, b"") + body
            at += 20 + length
    bus = stage.bus()
    worker = await stage.worker(bus)
    await until(lambda: len(list((tmp_path / "spool").glob("node-1-*"))) == 1, 20)
    await worker.stop()
    sessions = await stage.recorded(bus)
    assert len(forwarded) == 9
    for session, data in forwarded.items():
        told = sessions[session]
        assert told.stream(CLIENT_IN).startswith(data)
        assert told.closes[max(told.closes)].reason == "aborted"
        assert told.closes[max(told.closes)].totals[0] == len(told.stream(CLIENT_IN))
    await bus.close()


async def test_a_session_can_be_closed_while_the_bus_is_away_at_any_level(stage, bus):
    blocked = BrokenBus(bus)
    worker = await stage.worker(blocked)
    recorder, wire = await open_on(worker, Terms(retention=CLASS, level="acked"))
    recorder.data(CLIENT_IN, b"waits for the bus")
    recorder.forward(wire.write, b"waits for the bus")
    async with asyncio.timeout(2):
        await worker.close_session(recorder, "client")
    assert wire.data == b""
    blocked.broken = False
    await until(lambda: wire.data == b"waits for the bus")
    assert await worker.stop()


async def test_a_bus_that_stays_away_ends_sessions_that_wait_for_it(tmp_path):
    """At `acked`, after the grace time; others go on, and the recording holds what was not sent."""
    stage = Stage(tmp_path, grace_s=0.3)
    blocked = BrokenBus(stage.bus())
    worker = await stage.worker(blocked)
    strict = Terms(retention=CLASS, level="acked")
    waiting, wire = await open_on(worker, strict)
    _resting, other = await open_on(worker, strict)
    plain, spooled = await open_on(worker)
    waiting.data(CLIENT_IN, b"drop table orders")
    waiting.forward(wire.write, b"drop table orders")
    await until(lambda: wire.ended == ["spool"])
    assert (wire.data, other.ended, spooled.ended) == (b"", [], [])
    with pytest.raises(StoreBusy, match="not acknowledged"):
        await open_on(worker, strict)
    await open_on(worker)
    await worker.close_session(waiting, "spool")
    plain.data(CLIENT_IN, b"goes on")
    plain.forward(spooled.write, b"goes on")
    await until(lambda: spooled.data == b"goes on")
    blocked.broken = False
    await until(lambda: worker._shipper.oldest_s == 0)
    await open_on(worker, strict)
    assert wire.ended == ["spool"]
    assert await worker.stop()
    told = (await stage.recorded(blocked.bus))[waiting.session]
    assert told.stream(CLIENT_IN) == b"drop table orders"
    assert told.closes[0].reason == "spool"


@pytest.mark.parametrize("fails", [False, True])
async def test_a_session_not_opened_in_time_has_no_beginning_without_an_end(
    stage, bus, failing_files, fails
):
    """The disk hangs for longer than the grace time, and then takes what it was given, or not."""
    disk = failing_files()
    worker = await stage.worker(bus, create=disk.create)
    durable = Terms(retention=CLASS, level="durable")
    recorder, _ = await open_on(worker, durable)
    disk.goes.clear()
    with pytest.raises(StoreBusy, match="in time"):
        await open_on(worker, durable)
    disk.fail_sync = fails
    disk.goes.set()
    if fails:
        await until(lambda: worker.health().state == "failing")
        disk.fail_sync = False
    await until(lambda: worker.health().state == "ok")
    await worker.close_session(recorder, "client")
    assert await worker.stop()
    told = await stage.recorded(bus)
    ends = sorted(session.closes[0].reason for session in told.values())
    assert ends == ["client", "error", "shutdown"]
    events = [fact.status for session in told.values() for fact in session.facts]
    assert "session-not-opened" in events


async def test_heartbeats_list_no_session_that_may_never_be_written(tmp_path, failing_files):
    """It would be one whose frames somebody took away."""
    stage = Stage(tmp_path, grace_s=0.6, heartbeat_s=0.05)
    bus, disk = stage.bus(), failing_files()
    worker = await stage.worker(bus, create=disk.create)
    durable = Terms(retention=CLASS, level="durable")
    recorder, _ = await open_on(worker, durable)
    disk.fail_sync = True
    with pytest.raises(StoreBusy, match="in time"):
        await open_on(worker, durable)
    disk.fail_sync = False
    await until(lambda: worker.health().state == "ok")
    await worker.close_session(recorder, "client")
    assert await worker.stop()
    told = await stage.recorded(bus)
    facts = [fact for session in told.values() for fact in session.facts]
    listed = {live.session for fact in facts if fact.kind == HEARTBEAT for live in fact.live}
    assert listed == {recorder.session}
    await bus.close()
