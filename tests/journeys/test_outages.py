"""Each server away, slow, throttled, reset and half-open under load: nothing lost, nothing twice.

Clients go on working all the time: capture spools. Ingest and the indexer wait and catch up. What
is wrong shows in `sealtape status` and in the rooms' metrics, and no room's memory grows without
bound. In `make soak` each fault lasts a minute, and a server that is away stays so for ten.
"""

import asyncio
import contextlib
import time

import pytest

from tests.journeys.faults import AWAY, PROXIED, SERVERS, STOPPED, Site, fault
from tests.journeys.loaded import loaded
from tests.journeys.traffic import make_noise
from tests.servers.kafka import KafkaServer
from tests.servers.process import LOOPBACK, free_port
from tests.servers.stores import StoreSet

DOWN_S = 15.0  # more than capture.grace_s
ILL_S = 8.0
SHOWN_S = 30.0
MINUTE_S, LONG_S = 60.0, 600.0
NOISE_KIB = 64
LATE_S = 2.0

PAIRS = [("kafka", "opensearch"), ("s3", "postgres")]
WAYS = {"kafka": "stopped", "s3": "killed", "postgres": "stopped", "opensearch": "killed"}


@pytest.fixture
def proxied(tmp_path, toxiproxy, s3_server, postgres_stores, opensearch_server):
    """Sites by the server that has a proxy before it; they share the servers, and nothing else."""
    behind = f"{LOOPBACK}:{free_port()}"
    with KafkaServer.own(behind=behind) as kafka, contextlib.ExitStack() as stack:
        servers = {
            "kafka": kafka,
            "s3": s3_server,
            "postgres": postgres_stores,
            "opensearch": opensearch_server,
        }
        proxies = {
            name: toxiproxy.proxy(server.inner, listen=behind)
            if name == "kafka"
            else toxiproxy.proxy(server.address)
            for name, server in servers.items()
        }
        sites = {}
        for name, proxy in proxies.items():
            stack.callback(proxy.close)
            folder = tmp_path / name
            folder.mkdir()
            stores = StoreSet.new(folder, **servers, through={name: proxy.address})
            sites[name] = Site(stores, proxies={name: proxy})
        yield sites


@pytest.fixture
def own(tmp_path, kafka_alone, s3_alone, postgres_stores_alone, opensearch_alone):
    """A site whose servers can be stopped."""
    servers = {
        "kafka": kafka_alone,
        "s3": s3_alone,
        "postgres": postgres_stores_alone,
        "opensearch": opensearch_alone,
    }
    return Site(StoreSet.new(tmp_path, **servers), servers=servers)


async def suffer(watch, site, server, kind, seconds):
    """A fault for at least so long, and until all were asked how they are; then all is well."""
    async with fault(site, server, kind):
        ends = time.monotonic() + seconds
        await asyncio.sleep(0.6 * seconds)
        await shown(watch, server, kind)
        await asyncio.sleep(max(0.0, ends - time.monotonic()))
    await watch.well(what=f"every room ready after {server} was {kind}")


async def shown(watch, server, kind):
    """Look until what is wrong can be seen: on a busy machine it is not at once."""
    latest = time.monotonic() + SHOWN_S
    while True:
        seen = await watch.look()
        print(f"{server} {kind}: status took {seen.status_s:.1f} s, {peaks(watch)}")
        try:
            check_shown(server, kind, seen)
        except AssertionError:
            if time.monotonic() > latest:
                raise
        else:
            return


def peaks(watch):
    return {room: f"{peak >> 20} MiB" for room, peak in watch.peak.items()}


def check_shown(server, kind, seen):
    """What is wrong can be seen; in none of these cases does capture turn clients away."""
    assert seen.ready("capture")
    if kind not in AWAY:
        return  # it answers, only late
    rooms, check = NOT_READY[server]
    for room in ("ingest", "indexer"):
        assert seen.ready(room) == (room not in rooms)
    for room in rooms:
        assert seen.checks(room)[check] != "ok"
    assert seen.told(*LATE[server]) > LATE_S
    if server == "s3":
        assert (seen.status["ingest"]["behind"] or 0) > 0
    else:
        assert "error" in seen.status[IN_STATUS[server]]


NOT_READY = {
    "kafka": (("ingest", "indexer"), "bus"),
    "s3": (("ingest",), "vault"),
    "postgres": (("ingest", "indexer"), "ledger"),
    "opensearch": (("indexer",), "index"),
}
LATE = {
    "kafka": ("capture", "oldest_unacked_seconds"),
    "s3": ("ingest", "oldest_unsealed_seconds"),
    "postgres": ("ingest", "heartbeat_age_seconds"),
    "opensearch": ("indexer", "oldest_unindexed_seconds"),
}
IN_STATUS = {"kafka": "bus", "postgres": "stores", "opensearch": "indexer"}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
async def test_each_server_is_ill_in_every_way(tmp_path, postgres_server, proxied, pair):
    make_noise(postgres_server, NOISE_KIB)
    preparing = asyncio.Lock()  # schemas of one PostgreSQL share its roles

    async def ill(server):
        site, folder = proxied[server], tmp_path / server
        given = folder, postgres_server, site.stores
        async with loaded(*given, preparing=preparing) as (_, watch):
            for kind in PROXIED:
                await suffer(watch, site, server, kind, DOWN_S if kind == "cut" else ILL_S)

    async with asyncio.TaskGroup() as group:
        for server in pair:
            group.create_task(ill(server))


@pytest.mark.timeout(600)
async def test_each_server_is_stopped_and_started(tmp_path, postgres_server, own):
    make_noise(postgres_server, NOISE_KIB)
    async with loaded(tmp_path, postgres_server, own.stores) as (_, watch):
        for server, kind in WAYS.items():
            await suffer(watch, own, server, kind, DOWN_S)


@pytest.mark.soak
@pytest.mark.parametrize("server", SERVERS)
async def test_a_server_is_ill_for_long(tmp_path, postgres_server, proxied, server):
    make_noise(postgres_server, NOISE_KIB)
    site, folder = proxied[server], tmp_path / server
    async with loaded(folder, postgres_server, site.stores, caught_up_s=LONG_S) as (_, watch):
        for kind in PROXIED:
            await suffer(watch, site, server, kind, MINUTE_S)
        await suffer(watch, site, server, "cut", LONG_S)


@pytest.mark.soak
@pytest.mark.parametrize("server", SERVERS)
async def test_a_server_is_stopped_for_long(tmp_path, postgres_server, own, server):
    make_noise(postgres_server, NOISE_KIB)
    async with loaded(tmp_path, postgres_server, own.stores, caught_up_s=LONG_S) as (_, watch):
        for kind in STOPPED:
            await suffer(watch, own, server, kind, MINUTE_S)
        await suffer(watch, own, server, "stopped", LONG_S)
