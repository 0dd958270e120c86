"""Three brokers of which one, then two are killed under load: the spool keeps what none takes."""

import asyncio
import time

import pytest

from tests.journeys.loaded import loaded
from tests.journeys.traffic import make_noise
from tests.servers.stores import StoreSet

BELOW_S = 15.0  # more than capture.grace_s
ROUNDS = 10
BEHIND_S = 5.0


@pytest.fixture
def replicated(tmp_path, kafka_cluster, s3_server, postgres_stores, opensearch_server):
    """Stores with three replicas of each topic, two of which must have what is acknowledged."""
    kafka_cluster.heal()  # a test that failed may have left it with dead brokers
    return StoreSet.new(
        tmp_path, kafka=kafka_cluster, s3=s3_server, postgres=postgres_stores,
        opensearch=opensearch_server, replicas=3, min_isr=2,
    )  # fmt: skip


async def shipped(lab, watch):
    """Wait until Kafka has all but the newest."""

    async def waiting():
        told = (await watch.metrics())["capture"]
        failing = told["sealtape_capture_bus_failing"]
        return failing, told["sealtape_capture_oldest_unacked_seconds"]

    await lab.until(
        waiting, lambda now: now[0] == 0 and now[1] < BEHIND_S, seconds=120, what="a leader"
    )


async def lose_two(lab, watch, cluster):
    """Kill a leader, then the one that took its place, then bring both back."""
    topic = lab.settings.stores.bus.partition("?")[0].rpartition("/")[2]
    first = await asyncio.to_thread(cluster.leader, topic)
    await asyncio.to_thread(first.kill)
    await asyncio.sleep(1)
    await shipped(lab, watch)  # two are enough
    second = await asyncio.to_thread(cluster.leader, topic)
    assert second is not first
    await asyncio.to_thread(second.kill)
    ends = time.monotonic() + BELOW_S
    await asyncio.sleep(0.6 * BELOW_S)
    seen = await watch.look()
    assert seen.told("capture", "oldest_unacked_seconds") > 0.3 * BELOW_S
    assert seen.status["capture"]["unshipped_bytes"] > 0
    assert seen.ready("capture")
    await asyncio.sleep(max(0.0, ends - time.monotonic()))
    spooled = (await watch.metrics())["capture"]["sealtape_capture_unshipped_bytes"]
    assert spooled > seen.told("capture", "unshipped_bytes")  # clients go on
    await asyncio.to_thread(cluster.heal)
    await shipped(lab, watch)


@pytest.mark.timeout(600)
async def test_below_min_isr_and_back(tmp_path, postgres_server, kafka_cluster, replicated):
    make_noise(postgres_server, 64)
    async with loaded(tmp_path, postgres_server, replicated) as (lab, watch):
        await lose_two(lab, watch, kafka_cluster)


@pytest.mark.soak
async def test_again_and_again(tmp_path, postgres_server, kafka_cluster, replicated):
    make_noise(postgres_server, 64)
    async with loaded(tmp_path, postgres_server, replicated) as (lab, watch):
        for _ in range(ROUNDS):
            await lose_two(lab, watch, kafka_cluster)
