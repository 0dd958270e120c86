"""Each server down, slow, throttled, reset and half-open under load: nothing lost, nothing twice.

Clients go on working all the time: capture spools. Ingest and the indexer wait and catch up.
"""

import asyncio
import time
from dataclasses import dataclass

import psutil
import pytest

from tests.journeys.lab import tapped_lab
from tests.journeys.traffic import check_roots, documents, work
from tests.servers.kafka import KafkaServer
from tests.servers.process import LOOPBACK, free_port
from tests.servers.stores import StoreSet

DOWN_S = 15.0  # more than capture.grace_s
ILL_S = 5.0
HALF_OPEN_S = 8.0
CLIENTS = 2
MEMORY = 400 << 20
SERVERS = ("kafka", "s3", "postgres", "opensearch")


@dataclass
class Front:
    """A proxy before each server, and the stores behind them."""

    proxies: dict
    stores: StoreSet


@pytest.fixture
def front(tmp_path, toxiproxy, s3_server, postgres_stores, opensearch_server):
    behind = f"{LOOPBACK}:{free_port()}"
    with KafkaServer.own(behind=behind) as kafka:
        proxies = {
            "kafka": toxiproxy.proxy(kafka.inner, listen=behind),
            "s3": toxiproxy.proxy(s3_server.address),
            "postgres": toxiproxy.proxy(postgres_stores.address),
            "opensearch": toxiproxy.proxy(opensearch_server.address),
        }
        stores = StoreSet.new(
            tmp_path, kafka=kafka, s3=s3_server, postgres=postgres_stores,
            opensearch=opensearch_server,
            through={name: proxy.address for name, proxy in proxies.items()},
        )  # fmt: skip
        yield Front(proxies, stores)
        for proxy in proxies.values():
            proxy.close()


async def blow(proxy):
    """One fault after the other, with a little health between."""
    await asyncio.to_thread(proxy.cut)
    await asyncio.sleep(DOWN_S)
    await asyncio.to_thread(proxy.heal)
    await asyncio.sleep(2)
    for fault, seconds in (
        (lambda: proxy.slow(2000), ILL_S),
        (lambda: proxy.throttled(10), ILL_S),
        (proxy.resetting, ILL_S),
        (proxy.half_open, HALF_OPEN_S),
    ):
        context = fault()
        await asyncio.to_thread(context.__enter__)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(context.__exit__, None, None, None)
        await asyncio.sleep(2)


@pytest.mark.timeout(280)
@pytest.mark.parametrize("server", SERVERS)
async def test_a_server_is_away_and_everything_is_recorded_once(
    tmp_path, postgres_server, front, server
):
    settings = "segment_s = 0.5\nlease_s = 5"
    async with tapped_lab(tmp_path, postgres_server, ingest=settings, stores=front.stores) as (
        lab,
        inner,
    ):
        node, ingest, index = await lab.capture(), lab.ingest(), lab.index()
        quiet = asyncio.Event()
        clients = [asyncio.create_task(work(lab, quiet, 0.05)) for _ in range(CLIENTS)]
        await lab.until(lab.sessions, what="the first session in the index")
        await blow(front.proxies[server])
        memory = {
            room.log.stem: psutil.Process(room.pid).memory_info().rss
            for room in (node, ingest, index)
        }
        quiet.set()
        statements = sum(await asyncio.gather(*clients))
        started = time.monotonic()
        assert await node.stop() == 0
        leaves = await lab.all_sealed()
        assert await ingest.stop() == 0
        assert await index.stop() == 0
        caught_up = time.monotonic() - started
        assert all(held < MEMORY for held in memory.values()), memory
        assert caught_up < 60
        await check_roots(lab, leaves)
        report = await lab.verify()
        assert (report["verdict"], report["findings"]) == ("verified", [])
        found = await documents(lab)
        assert sum(each.effect == "read" for each in found["commands"]) == statements
        await compare(lab, inner)


async def compare(lab, inner):
    """What the target's side of the wire had is what was recorded, byte for byte."""
    recorded = {}
    async with lab.stores() as stores:
        for session in await lab.sessions():
            _, target_out, target_in, _ = await stores.legs(session.session)
            recorded[target_in] = target_out
    tapped = [each for each in inner.sessions() if each.client_bytes()]
    assert len(tapped) == len(recorded)
    for each in tapped:
        assert recorded[each.server_bytes()] == each.client_bytes()
