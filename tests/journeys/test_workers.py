"""Several workers on one address: cancels reach the right one, and one that dies is replaced."""

import asyncio

import asyncpg
import psutil
import pytest

from tests.journeys.lab import Lab

WORKERS = 2


async def cancelled(connection):
    """Cancel what runs, over a connection of its own, which may reach any worker."""
    with pytest.raises((TimeoutError, asyncpg.QueryCanceledError)):
        await connection.execute("select pg_sleep(60)", timeout=0.2)
    assert await connection.fetchval("select 1") == 1


async def test_workers_share_an_address(tmp_path, postgres_server):
    async with Lab(tmp_path, postgres_server.port, capture=f"workers = {WORKERS}") as lab:
        node = await lab.capture()
        ingest, index = lab.ingest(), lab.index()
        workers = psutil.Process(node.pid).children()
        assert len(workers) == WORKERS
        connections = [await lab.connect() for _ in range(12)]
        await asyncio.gather(*map(cancelled, connections))
        await asyncio.gather(*map(cancelled, connections))

        # one dies: its sessions break, the others' go on
        workers[0].kill()
        broken = 0
        for connection in connections:
            try:
                await connection.execute("select 1 as after_the_crash")
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                broken += 1
        assert 0 < broken < len(connections)
        for connection in connections:
            await connection.close(timeout=10)

        async def over():
            return [each.close_reason for each in await lab.sessions() if each.state == "sealed"]

        reasons = await lab.until(over, lambda found: len(found) == len(connections))
        assert sorted(reasons) == ["aborted"] * broken + ["client"] * (len(connections) - broken)

        async def replaced():
            return len(psutil.Process(node.pid).children())

        await lab.until(replaced, lambda count: count == WORKERS)
        after = [await lab.connect() for _ in range(6)]
        await asyncio.gather(*map(cancelled, after))
        for connection in after:
            await connection.close(timeout=10)
        await lab.sealed(len(connections) + len(after))
        assert await node.stop() == 0
        journals = WORKERS + 1

        async def closed():
            found = await lab.sessions("protocol:journal")
            return sorted(each.close_reason for each in found if each.state == "sealed")

        found = await lab.until(closed, lambda found: len(found) == journals)
        assert found == ["aborted", "shutdown", "shutdown"]
        assert await ingest.stop() == 0
        assert await index.stop() == 0
        report = await lab.verify()
        assert (report["verdict"], report["findings"]) == ("verified", [])
        assert report["sessions"] == len(connections) + len(after) + journals
