"""Nodes and readers restarted one by one under load: clients reconnect, nothing is lost."""

import asyncio
import signal

import pytest

from tests.journeys.aftermath import check_recorded, check_taps, documents
from tests.journeys.lab import tapped_lab
from tests.journeys.taps import Balancer
from tests.journeys.traffic import Persisted, persist

CLIENTS = 4
BETWEEN_S = 1.5
SILENT_S = 15.0
CODES = {
    *("57P01", "57P03", "08003"),
    *("ConnectionResetError", "InternalClientError", "InterfaceError"),
}
"""How a client may be told: shut down, about to be; asyncpg's own for a connection that is over."""


async def restart_nodes(lab, outer, configs, nodes):
    for number, config in enumerate(configs):
        assert await nodes[number].stop(signal.SIGTERM) == 0
        nodes[number] = await lab.capture(config)
        outer.targets[number] = nodes[number].port
        await asyncio.sleep(BETWEEN_S)


async def restart_readers(start, readers):
    for worker in readers:
        assert await readers[worker].stop(signal.SIGTERM) == 0
        readers[worker] = start(worker)
        await asyncio.sleep(BETWEEN_S)


@pytest.mark.timeout(600)
async def test_everything_is_restarted_and_nothing_is_lost(tmp_path, postgres_server, real_stores):
    settings = {
        "capture": "grace_s = 2", "ingest": "segment_s = 0.5\nlease_s = 3", "index": "lease_s = 3",
        "stores": real_stores,
    }  # fmt: skip
    async with (
        tapped_lab(tmp_path, postgres_server, **settings) as (lab, inner),
        Balancer() as outer,
    ):
        configs = [lab.config, lab.node("dev-2")]
        nodes = [await lab.capture(config) for config in configs]
        outer.targets = [node.port for node in nodes]
        starts = {"ingest": lab.ingest, "index": lab.index}
        readers = {room: {w: start(w) for w in ("one", "two")} for room, start in starts.items()}
        quiet, found = asyncio.Event(), Persisted()
        load = asyncio.gather(
            *(persist(lab, quiet, outer.port, found, 0.02) for _ in range(CLIENTS))
        )
        try:
            await lab.until(lab.sessions, seconds=180, what="the first session")
            await restart_nodes(lab, outer, configs, nodes)
            for room, start in starts.items():
                await restart_readers(start, readers[room])
        finally:
            quiet.set()
            await load
        for tap in (outer, inner):
            await tap.quiet()
        for node in nodes:
            assert await node.stop(signal.SIGTERM) == 0
        leaves = await lab.all_sealed(seconds=180)
        for room in (*readers["ingest"].values(), *readers["index"].values()):
            assert await room.stop(signal.SIGTERM) == 0

        assert set(found.told) <= CODES, found
        assert found.longest_s < SILENT_S, found
        await check_recorded(lab, leaves)
        commands = (await documents(lab))["commands"]
        assert sum(each.effect == "read" for each in commands) >= found.statements
        reasons = await check_taps(lab, outer.sessions(), inner.sessions())
        assert set(reasons) <= {"client", "shutdown"}
        journals = await lab.sessions("protocol:journal")
        assert [each.close_reason for each in journals] == ["shutdown"] * 4
