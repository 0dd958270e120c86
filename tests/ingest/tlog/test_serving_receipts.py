"""A capture node, ingest, the log and its server together: a session's way to its receipt."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from sealtape.capture.bus import open_bus
from sealtape.capture.epoch import Terms
from sealtape.capture.node import start_capture
from sealtape.ingest.ledger import open_ledger
from sealtape.ingest.tlog.serving import LogServer
from sealtape.schemas.bodies import Ident, RetentionClass, parse_open
from sealtape.schemas.slices import CLIENT_IN
from tests.factories.deployments import make_site, sealing
from tests.factories.logs import read_log, writing

IDENT = Ident(user="ada", target="shop", protocol="postgres", node="dev-1")
KEPT = Terms(retention=RetentionClass("standard", 7_776_000, 34_560_000), on_seal="receipt")


@pytest.fixture
def site(tmp_path):
    return make_site(tmp_path / "lab")


@pytest.fixture
async def server(site):
    """Answers all the time, also before there is a log."""
    async with writing(site) as (stores, _):
        server = LogServer(stores.ledger, stores.vault)
        await server.open("127.0.0.1:0")
        yield server
        await server.close()


@asynccontextmanager
async def node(site, url, *, receipt_s=600.0):
    settings = site.settings
    listener = replace(settings.capture.postgres, listen="127.0.0.1:0")
    capture = replace(settings.capture, postgres=listener, log=url, receipt_s=receipt_s)
    bus = open_bus(settings.stores.bus, site.folder)
    running = await start_capture(replace(settings, capture=capture), bus=bus)
    running.worker.desk._look_s = (0.1, 0.1)
    try:
        yield running.worker
    finally:
        await running.stop()
        await bus.close()


async def session(worker):
    recorder = await worker.open_session(
        IDENT, KEPT, on_stall=lambda _: None, on_end=lambda _: None
    )
    recorder.data(CLIENT_IN, b"select 1")
    await worker.close_session(recorder, "client")
    return recorder


async def until(condition, timeout_s=60):
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.05)


def spools(site):
    return sorted(path.name for path in (site.folder / "spool").rglob("*-receipt-*.spool"))


async def test_a_closed_session_is_sealed_witnessed_and_let_go(site, server):
    async with sealing(site), node(site, server.url) as worker:
        first = await session(worker)
        assert [item.ended.root for item in worker.desk.owed] == [first.root()]
        await until(lambda: worker.desk.received == 1)
        assert worker.desk.owed == []
        second = await session(worker)
        await until(lambda: worker.desk.received == 2)
    assert spools(site) == []
    ledger = await open_ledger(site.settings.stores.ledger, site.folder, read_only=True)
    heads = await ledger.heads([(second.session, 0)])
    await ledger.close()
    opening, _ = parse_open(heads[second.session, 0].opening, None)
    assert opening.beacon.origin == f"{site.settings.deployment.log}/1"
    assert opening.beacon.size > 1


async def test_what_is_sent_again_while_it_waits_is_dropped_as_a_duplicate(site, server):
    async with node(site, server.url, receipt_s=0.3) as worker:
        recorder = await session(worker)
        await until(lambda: worker.desk.overdue == 1)  # there is no ingest yet
        assert spools(site) != []
        async with sealing(site):
            await until(lambda: worker.desk.received == 1)
            await worker._shipper.send_again(
                list((site.folder / "spool").rglob("*-receipt-*.spool")), [recorder.session]
            )
            await asyncio.sleep(1.0)
    ledger = await open_ledger(site.settings.stores.ledger, site.folder, read_only=True)
    assert await ledger.incidents() == []
    await ledger.close()
    entries, _ = await read_log(site)
    assert entries


async def test_a_node_that_stops_too_soon_has_its_receipt_with_the_next(site, server):
    async with node(site, server.url) as worker:
        recorder = await session(worker)
    assert spools(site) != []
    async with sealing(site), node(site, server.url) as worker:
        await until(lambda: worker.desk.owed or worker.desk.received)
        await until(lambda: worker.desk.received == 1)
        await until(lambda: spools(site) == [])
    assert recorder.closed
