"""Sessions that wait for a receipt: their spool stays until it is there, also over a crash."""

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from sealtape.capture.epoch import Terms
from sealtape.capture.receipts.desk import Desk
from sealtape.capture.worker import Worker
from sealtape.schemas.errors import SettingsError, StoreCorrupt
from sealtape.schemas.facts import NODE
from sealtape.schemas.slices import CLIENT_IN
from tests.capture.stage import CLASS, TERMS, Stage, open_on, until
from tests.conformance.bus import read_all
from tests.factories.log_host import ended_on, log_host

KEPT = Terms(retention=CLASS, on_seal="receipt")
SMALL = 1 << 14


@pytest.fixture
def stage(tmp_path):
    return Stage(tmp_path, frame_ms=40, grace_s=0.6)


@pytest.fixture
async def bus(stage):
    bus = stage.bus()
    yield bus
    await bus.close()


@pytest.fixture
async def host():
    async with log_host() as host:
        yield host


@pytest.fixture
async def node(stage, bus, host, monkeypatch):
    """Makes workers that look at the log all the time; what a test leaves is stopped."""
    monkeypatch.setattr("sealtape.capture.receipts.desk.LOOK_S", (0.02, 0.02))
    monkeypatch.setattr(Desk.__init__, "__kwdefaults__",
                        Desk.__init__.__kwdefaults__ | {"look_s": (0.02, 0.02)})  # fmt: skip
    made = []

    async def start(**options):
        boot = os.urandom(16)
        worker = Worker(
            bus=bus,
            spool=stage.spool(boot, **({"file_bytes": SMALL} | options)),
            identity=stage.identity(boot),
            journal_terms=TERMS,
            pace=stage.pace,
        )
        worker.watch(host.view())
        await worker.start()
        made.append(worker)
        return worker

    yield start
    for worker in made:
        if not worker._executor._shutdown:
            await worker.stop(timeout_s=5)


async def session(worker, data=b"select 1", terms=KEPT):
    recorder, _ = await open_on(worker, terms)
    recorder.data(CLIENT_IN, data)
    await worker.close_session(recorder, "client")
    return recorder


def kept(stage):
    return sorted(path.name for path in (stage.root / "spool").rglob("*-receipt-*.spool"))


def node_events(told):
    return [(f.status, f.attributes) for each in told.values() for f in each.facts
            if f.kind == NODE]  # fmt: skip


async def shipped(worker):
    """Wait until all that was recorded is on the bus."""
    for recorder in worker.recorders():
        recorder.cut()
    await asyncio.sleep(0.05)
    await until(lambda: worker._shipper.unshipped_bytes == 0)


async def large(worker, recorder):
    """Record more than a spool file takes, so that the next write begins another."""
    recorder.data(CLIENT_IN, os.urandom(SMALL + 4096))
    await shipped(worker)


async def test_a_spool_file_goes_when_the_receipt_is_there(stage, bus, host, node):
    worker = await node()
    recorder, _ = await open_on(worker, KEPT)
    await large(worker, recorder)
    await worker.close_session(recorder, "client")
    await shipped(worker)
    before = kept(stage)
    assert len(before) == 2
    await asyncio.sleep(0.2)
    assert kept(stage) == before  # acked long ago, and owed
    (ended,) = await host.seal_all(bus, only=[recorder.session])
    assert (ended.size, ended.root) == (recorder.size, recorder.root())
    await until(lambda: not worker.desk.owed)
    await until(lambda: kept(stage) == before[1:])  # that is written to
    assert await worker.stop()
    assert list((stage.root / "spool").glob("node-1-*")) == []


async def test_without_a_receipt_a_stopped_node_leaves_its_spool_to_the_next(
    stage, bus, host, node
):
    worker = await node()
    recorder = await session(worker)
    assert await worker.stop()
    assert kept(stage) == ["spooled-receipt-00000001.spool"]
    worker = await node()
    await until(lambda: [item.ended.session for item in worker.desk.owed] == [recorder.session])
    (ended,) = [item.ended for item in worker.desk.owed]
    assert (ended.size, ended.root) == (recorder.size, recorder.root())
    assert kept(stage) != []
    await host.seal_all(bus)
    await until(lambda: kept(stage) == [])
    assert worker.desk.received == 1


async def test_other_sessions_wait_for_nothing(stage, bus, host, node):
    worker = await node()
    await session(worker, terms=TERMS)
    assert worker.desk.owed == []
    assert await worker.stop()
    assert list((stage.root / "spool").glob("node-1-*")) == []


async def test_an_overdue_receipt_is_in_the_journal_and_all_is_sent_again(stage, bus, host, node):
    stage.pace = type(stage.pace)(frame_ms=40, grace_s=0.6, receipt_s=0.3)
    worker = await node()
    host.away = True
    recorder = await session(worker)
    await until(lambda: worker.desk.overdue == 1)
    values = [r.value for r in await read_all(bus) if r.key == recorder.session]

    async def sent_again():
        found = [r.value for r in await read_all(bus) if r.key == recorder.session]
        return len(found) >= 2 * len(set(values))

    async with asyncio.timeout(60):
        while not await sent_again():
            await asyncio.sleep(0.02)
    host.away = False
    await host.seal_all(bus)
    await until(lambda: not worker.desk.owed)
    await worker.stop()
    told = await stage.recorded(bus)  # what came twice is the same
    _, attributes = next(e for e in node_events(told) if e[0] == "receipts-overdue")
    assert attributes["session"] == recorder.session.hex()


async def test_a_seal_of_something_else_keeps_the_spool_and_is_in_the_journal(
    stage, bus, host, node
):
    worker = await node()
    recorder = await session(worker)
    await until(lambda: worker._shipper.unshipped_bytes == 0)
    (ended,) = [e for e in await ended_on(bus) if e.session == recorder.session]
    host.log.seal(ended, root=b"\x13" * 32)
    await until(lambda: worker.desk.contradicting == 1)
    await worker.stop()
    assert kept(stage) == ["spooled-receipt-00000001.spool"]
    told = await stage.recorded(bus)
    statuses = [status for status, _ in node_events(told)]
    assert statuses.count("receipt-contradicts") == 1


async def test_a_crash_before_the_receipt_changes_nothing(stage, bus, host, node):
    worker = await node()
    closed = await session(worker)
    open_, _ = await open_on(worker, KEPT)
    open_.data(CLIENT_IN, b"unfinished")
    await until(lambda: worker._shipper.unshipped_bytes == 0)
    await stage.crash(worker)
    worker = await node()
    await until(lambda: len(worker.desk.owed) == 3)
    owed = {(i.ended.session, i.ended.epoch): i.ended for i in worker.desk.owed}
    assert set(owed) == {(closed.session, 0), (open_.session, 0), (open_.session, 1)}
    assert owed[closed.session, 0].root == closed.root()
    assert not owed[open_.session, 0].closed
    assert owed[open_.session, 1].closed
    await host.seal_all(bus)
    await until(lambda: not worker.desk.owed)
    await until(lambda: kept(stage) == [])
    told = await stage.recorded(bus)
    continues = told[open_.session].openings[1].continues
    assert continues.root == owed[open_.session, 0].root


async def test_an_adopter_that_dies_too_is_followed_by_another(stage, bus, host, node):
    worker = await node()
    open_, _ = await open_on(worker, KEPT)
    open_.data(CLIENT_IN, b"unfinished")
    await until(lambda: worker._shipper.unshipped_bytes == 0)
    await stage.crash(worker)
    second = await node()
    await until(lambda: len(second.desk.owed) == 2)
    wanted = {(i.ended.session, i.ended.epoch, i.ended.root) for i in second.desk.owed}
    for orphan in second._orphans:
        os.close(orphan._lock)
        orphan._lock = -1
    await stage.crash(second)
    third = await node()
    await until(lambda: len(third.desk.owed) == 2)
    assert {(i.ended.session, i.ended.epoch, i.ended.root) for i in third.desk.owed} == wanted
    await host.seal_all(bus)
    await until(lambda: not third.desk.owed)
    await until(lambda: kept(stage) == [])


async def test_what_was_settled_is_not_taken_up_after_a_crash(stage, bus, host, node):
    """Its last file is gone, and its first is kept for another session."""
    worker = await node()
    waits, _ = await open_on(worker, KEPT)
    done, _ = await open_on(worker, KEPT)
    await large(worker, done)
    await large(worker, done)
    await worker.close_session(done, "client")
    await shipped(worker)
    first, second, *_ = kept(stage)
    await host.seal_all(bus, only=[done.session])
    await until(lambda: second not in kept(stage))
    assert first in kept(stage)
    await stage.crash(worker)
    worker = await node()
    await until(lambda: len(worker.desk.owed) == 2)
    assert {item.ended.session for item in worker.desk.owed} == {waits.session}
    told = await stage.recorded(bus)
    assert set(told[done.session].frames) == {0}


async def test_a_list_of_settled_sessions_that_rots_leaves_the_folder_alone(
    stage, bus, host, node, caplog
):
    worker = await node()
    await session(worker)
    await stage.crash(worker)
    (folder,) = (stage.root / "spool").glob("node-1-*")
    (folder / "spooled-receipt.settled").write_bytes(b"rot")
    await node()
    assert "cannot be adopted" in caplog.text
    assert StoreCorrupt.code
    assert kept(stage) == ["spooled-receipt-00000001.spool"]


async def test_open_has_the_beacon_of_its_time(stage, bus, host, node):
    worker = await node()
    first = await session(worker, terms=TERMS)
    await shipped(worker)
    await host.seal_all(bus)
    await until(lambda: worker._log.beacon.size > 1)
    second = await session(worker, terms=TERMS)
    await worker.stop()
    told = await stage.recorded(bus)
    assert told[first.session].openings[0].beacon.size == 1
    assert told[second.session].openings[0].beacon == worker._log.beacon
    journal = next(t for t in told.values() if t.openings[0].type == "journal")
    assert journal.openings[0].beacon == told[first.session].openings[0].beacon


async def test_a_log_that_is_away_stops_nobody(stage, bus, host, node):
    host.away = True
    worker = await node()
    recorder = await session(worker, terms=TERMS)
    await worker.stop()
    told = await stage.recorded(bus)
    assert told[recorder.session].openings[0].beacon is None


async def test_without_a_log_no_session_may_wait_for_a_receipt(stage, bus):
    worker = await stage.worker(bus)
    with pytest.raises(SettingsError, match="receipts"):
        await open_on(worker, KEPT)
    await worker.stop()


async def test_a_spool_that_waits_for_receipts_stays_when_no_log_is_named(
    stage, bus, host, node, caplog
):
    worker = await node()
    await session(worker)
    await worker.stop()
    worker = await stage.worker(bus)
    await until(lambda: "no log is named" in caplog.text)
    await worker.stop()
    assert kept(stage) == ["spooled-receipt-00000001.spool"]


CLOSES = """
import asyncio, sys
from tests.capture.test_worker_receipts import KEPT, Stage, open_on
from sealtape.schemas.slices import CLIENT_IN
from sealtape.capture.outbound import destination
from sealtape.capture.receipts.view import LogView
from sealtape.schemas.tlog.policy import parse_policy
import os

async def main(root, url, policy):
    stage = Stage(root, seed=bytes(range(32)), frame_ms=40)
    from sealtape.capture.worker import Worker
    from tests.capture.stage import TERMS
    boot = os.urandom(16)
    worker = Worker(bus=stage.bus(), spool=stage.spool(boot), identity=stage.identity(boot),
                    journal_terms=TERMS, pace=stage.pace)
    place = destination(url, what="log")
    worker.watch(LogView(place, parse_policy(policy.encode()), "sealtape.test/log"))
    await worker.start()
    recorder, _ = await open_on(worker, KEPT)
    recorder.data(CLIENT_IN, b"the last words")
    await worker.close_session(recorder, "client")
    print(recorder.session.hex(), recorder.size, recorder.root().hex(), flush=True)
    await asyncio.sleep(60)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_kill_9_between_close_and_receipt(tmp_path, host, node, bus, stage):
    stage.__init__(tmp_path, seed=bytes(range(32)), frame_ms=40)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-c", CLOSES, str(tmp_path), host.url, host.log.policy,
        stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    line = await asyncio.wait_for(process.stdout.readline(), 60)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    session_, size, root = line.decode().split()
    worker = await node()
    await until(lambda: worker.desk.owed)
    (ended,) = [item.ended for item in worker.desk.owed]
    assert (ended.session.hex(), ended.size, ended.root.hex()) == (session_, int(size), root)
    assert ended.closed
    await until(lambda: worker.counts.orphans == 0)
    await host.seal_all(bus)
    await until(lambda: not worker.desk.owed)
    await until(lambda: kept(stage) == [])
