import asyncio
import contextlib
import json
import os
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from sealtape.capture.epoch import Terms
from sealtape.capture.metrics.room import MEASURES, CaptureVitals
from sealtape.capture.metrics.vitals import written
from sealtape.capture.node import start_capture
from sealtape.capture.postgres.limits import Limits
from sealtape.capture.worker import Worker
from sealtape.schemas.errors import StoreError
from sealtape.schemas.slices import CLIENT_IN, TARGET_IN
from tests.capture.metrics.http import get, samples
from tests.capture.node_lab import NodeLab
from tests.capture.postgres.gateway_world import psql
from tests.capture.stage import CLASS, Stage, open_on, until
from tests.factories.log_host import log_host
from tests.servers.postgres import shared_server
from tests.servers.process import free_port

SHOP = [("protocol", "postgres"), ("target", "shop")]


@pytest.fixture
def lab(tmp_path, monkeypatch):
    monkeypatch.setenv("SHOP_PASSWORD", "scram-secret")
    return NodeLab(tmp_path, shared_server(), capture='metrics = "127.0.0.1:0"')


def value(found, name, *labels):
    return found.get((f"sealtape_capture_{name}", *sorted([*labels, ("worker", "0")])))


async def scrape(vitals):
    return samples(written(await vitals.families()).decode())


async def test_a_node_tells_what_it_did(lab):
    running = await start_capture(lab.settings)
    try:
        await tell(lab, running)
        assert await running.stop()
    except BaseException:
        await running.stop()
        raise
    with pytest.raises(OSError):
        await get(running.listeners["metrics"], "/healthz")


async def tell(lab, running):
    address, metrics = running.listeners["postgres"], running.listeners["metrics"]
    code, _, err = await psql(lab.dsn(address), "-c", "select 6*7")
    assert code == 0, err
    await psql(lab.dsn(address, dbname="made-up"), "-c", "")
    reader, writer = await asyncio.open_connection(*address.split(":"))
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    with contextlib.suppress(ConnectionResetError):
        await reader.read()
    writer.close()
    await until(lambda: running.worker.counts.ended)
    answer = await get(metrics, "/metrics")
    found = answer.samples()
    assert value(found, "worker_up") == 1
    assert value(found, "sessions_live", *SHOP) == 0
    assert value(found, "sessions_opened_total", *SHOP) == 1
    assert value(found, "sessions_ended_total", *SHOP, ("reason", "client")) == 1
    refusal = [("protocol", "postgres"), ("target", ""), ("reason", "no-target")]
    assert value(found, "refused_total", *refusal) == 1
    assert value(found, "strangers_total", ("kind", "garbage")) == 1
    for leg in ("client_in", "target_out", "target_in", "client_out"):
        assert value(found, "bytes_total", ("leg", leg)) > 20
    assert value(found, "frames_total") >= 4
    assert value(found, "commands_total") == 1
    assert value(found, "connections_limit") == 2000
    assert value(found, "certificate_expiry_timestamp_seconds") > time.time()
    assert value(found, "spool_limit_bytes") == 1 << 30
    assert "made-up" not in answer.body.decode()
    assert "ada" not in answer.body.decode()
    ready = json.loads((await get(metrics, "/readyz")).body)
    names = ("listening", "spool", "bus", "identity")
    assert ready == {"ready": True, "checks": dict.fromkeys(names, "ok")}


async def test_the_endpoint_is_there_before_the_worker_and_goes_with_a_failed_start(lab):
    (lab.folder / "spool").write_text("not a folder")
    with pytest.raises(StoreError):
        await start_capture(lab.settings)
    vitals = CaptureVitals(node="n1")
    assert not (await vitals.readiness()).ready
    found = await scrape(vitals)
    assert value(found, "worker_up") == 1
    assert value(found, "spool_bytes") is None


async def test_a_node_that_waits_for_room_says_so_before_it_has_started(lab):
    """Its disk has none, so the worker waits with its journal; the endpoint is asked meanwhile."""
    metrics = f"127.0.0.1:{free_port()}"
    capture = replace(lab.settings.capture, spool_limit=100, metrics=metrics)
    starting = asyncio.create_task(start_capture(replace(lab.settings, capture=capture)))
    await asyncio.sleep(1)
    assert not starting.done()
    ready = json.loads((await get(metrics, "/readyz")).body)
    assert not ready["ready"]
    assert ready["checks"]["listening"] == "starting"
    assert ready["checks"]["spool"] == "failing: store-full"
    assert value((await get(metrics, "/metrics")).samples(), "spool_failing") == 1
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting


@pytest.fixture
async def stage(tmp_path):
    stage = Stage(tmp_path, frame_ms=40, grace_s=30, checkpoint_s=0.2)
    stage.the_bus = stage.bus()
    yield stage
    await stage.the_bus.close()


def gateway():
    return SimpleNamespace(
        limits=Limits(connections=9, unauthenticated=5, per_address=5),
        settings=SimpleNamespace(max_connections=9),
        keys=SimpleNamespace(error=""),
        closing=False,
    )


async def told(stage, bus=None, **options):
    worker = await stage.worker(bus or stage.the_bus, **options)
    vitals = CaptureVitals(node="node-1")
    vitals.attach(worker, gateway(), expires_s=5.0)
    return worker, vitals


async def test_live_sessions_count_before_they_end_and_not_twice_after(stage):
    worker, vitals = await told(stage)
    recorder, _ = await open_on(worker)
    for ended in (False, True):
        if ended:
            await worker.close_session(recorder, "client")
            await worker.close_session(recorder, "client")
        else:
            recorder.data(CLIENT_IN, b"12345")
            recorder.data(TARGET_IN, b"123")
        found = await scrape(vitals)
        assert value(found, "sessions_live", *SHOP) == (not ended)
        assert value(found, "bytes_total", ("leg", "client_in")) == 5
        assert value(found, "bytes_total", ("leg", "client_out")) == 3
        assert value(found, "frames_total") == (4 if ended else 2)
    assert value(found, "sessions_ended_total", *SHOP, ("reason", "client")) == 1
    await worker.stop()


class AwayBus:
    """In front of a bus, to be away."""

    def __init__(self, bus):
        self.bus = bus
        self.away = True
        self.partitions = bus.partitions
        self.partition_of = bus.partition_of

    async def append(self, partition, messages):
        if self.away:
            raise StoreError("the broker at 10.0.0.7 is away")
        return await self.bus.append(partition, messages)


async def test_a_bus_that_is_away_shows_and_the_node_stays_ready(stage):
    bus = AwayBus(stage.the_bus)
    worker, vitals = await told(stage, bus)
    await open_on(worker)
    await until(lambda: worker.bus_failing)
    await asyncio.sleep(0.3)
    found = await scrape(vitals)
    assert value(found, "bus_failing") == 1
    assert value(found, "bus_errors_total", ("code", "store")) >= 1
    assert value(found, "unshipped_bytes") > 100
    assert 0.3 <= value(found, "oldest_unacked_seconds") < 60
    readiness = await vitals.readiness()
    assert readiness.ready
    assert readiness.checks["bus"] == "failing: store"
    bus.away = False
    await until(lambda: not worker.bus_failing)
    for recorder in worker.recorders():
        await worker.close_session(recorder, "client")
    assert await worker.stop()
    found = await scrape(vitals)
    assert value(found, "oldest_unacked_seconds") == value(found, "unshipped_bytes") == 0
    assert value(found, "draining") == 1
    assert not (await vitals.readiness()).ready


async def test_a_full_spool_stalls_and_is_not_ready(stage):
    worker, vitals = await told(stage, AwayBus(stage.the_bus), limit=1 << 16)
    recorder, _ = await open_on(worker)
    gap, _ = await open_on(worker, terms=stage_terms())
    for _ in range(40):
        recorder.data(CLIENT_IN, b"x" * 4000)
        gap.data(CLIENT_IN, b"x")
        await asyncio.sleep(0.01)
    found = await scrape(vitals)
    assert value(found, "spool_failing") == 1
    assert value(found, "sessions_stalled") == 1
    # A smaller write may have fitted in between.
    assert value(found, "stalls_total", ("reason", "spool")) >= 1
    assert value(found, "sessions_unrecorded") == 1
    assert value(found, "gaps_total") >= 1
    readiness = await vitals.readiness()
    assert not readiness.ready
    assert readiness.checks["spool"] == "failing: store-full"
    await stage.crash(worker)


def stage_terms():
    return Terms(retention=CLASS, on_failure="continue")


async def test_what_waited_for_its_signature_is_measured(stage):
    worker, vitals = await told(stage)
    recorder, _ = await open_on(worker)
    recorder.data(CLIENT_IN, b"x")
    await until(lambda: sum(worker.counts.signed.counts))
    found = await scrape(vitals)
    assert value(found, "checkpoint_seconds_count") >= 1
    assert value(found, "checkpoint_seconds_bucket", ("le", "10.0")) >= 1
    for each in worker.recorders():
        await worker.close_session(each, "client")
    await worker.stop()


async def test_orphans_are_counted_until_they_are_shipped(stage):
    bus = AwayBus(stage.the_bus)
    worker, _ = await told(stage, bus)
    await open_on(worker)
    await stage.crash(worker)
    worker, vitals = await told(stage, bus)
    assert value(await scrape(vitals), "orphans") == 1
    bus.away = False
    await until(lambda: not worker.counts.orphans)
    assert value(await scrape(vitals), "orphans") == 0
    await worker.stop()


async def test_receipts_that_the_log_owes_are_counted(stage):
    worker, vitals = await told(stage)
    assert "receipts_waiting" not in str(await scrape(vitals))  # no log is named
    await worker.stop()
    async with log_host() as host:
        host.away = True
        boot = os.urandom(16)
        worker = Worker(
            bus=stage.the_bus,
            spool=stage.spool(boot),
            identity=stage.identity(boot),
            journal_terms=Terms(retention=CLASS),
        )
        worker.watch(host.view())
        await worker.start()
        vitals.attach(worker, gateway(), expires_s=5.0)
        recorder, _ = await open_on(worker, Terms(retention=CLASS, on_seal="receipt"))
        await worker.close_session(recorder, "client")
        worker.desk.owed[0].overdue = True
        found = await scrape(vitals)
        names = ("waiting", "overdue", "contradicting")
        assert [value(found, f"receipts_{name}") for name in names] == [1, 1, 0]
        assert value(found, "receipts_total") == 0
        assert value(found, "log_failing") == 1
        await worker.stop()


async def test_every_metric_says_what_it_is():
    assert len({each.name for each in MEASURES}) == len(MEASURES)
    for each in MEASURES:
        assert each.doc.endswith(".")
        assert "worker" not in each.labels
        assert (each.kind == "counter") == each.name.endswith("_total")
