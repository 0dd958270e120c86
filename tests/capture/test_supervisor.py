"""Several workers on one address."""

import asyncio
import signal
import sys
import threading

import psutil
import psycopg
import pytest

from sealtape.capture.supervisor import _exit_code
from tests.capture.node_lab import NodeLab, node
from tests.capture.postgres.gateway_world import psql
from tests.servers.postgres import shared_server


async def test_several_workers_share_an_address_pass_cancels_on_and_are_started_again(tmp_path):
    lab = NodeLab(tmp_path, shared_server(), capture="workers = 3")
    async with node(lab) as (process, ready):
        address = ready["listeners"]["postgres"]

        def cancel_often():
            for _ in range(6):  # whichever worker the session and the request reach
                with psycopg.connect(lab.dsn(address), autocommit=True) as connection:
                    timer = threading.Timer(0.1, connection.cancel_safe)
                    timer.start()
                    with pytest.raises(psycopg.errors.QueryCanceled):
                        connection.execute("select pg_sleep(20)")
                    timer.join()

        await asyncio.to_thread(cancel_often)
        workers = psutil.Process(process.pid).children()
        assert len(workers) == 3
        workers[0].kill()
        async with asyncio.timeout(30):
            while len(alive := psutil.Process(process.pid).children()) < 3 or workers[0] in alive:
                await asyncio.sleep(0.1)
        for _ in range(5):
            code, _, err = await psql(lab.dsn(address, connect_timeout=20), "-c", "select 1")
            assert code == 0, err
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 30) == 0


async def test_workers_that_cannot_start_end_the_node(tmp_path):
    lab = NodeLab(tmp_path, shared_server(), capture="workers = 2")
    (tmp_path / "keys/spool.key").unlink()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sealtape.capture", "-c", str(lab.path),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 77
    assert b"spool.key" in err


def test_what_the_end_of_a_worker_means():
    assert _exit_code(0) == 0
    assert _exit_code(75) == 75
    assert _exit_code(-signal.SIGTERM) == 0
    assert _exit_code(-signal.SIGKILL) == 74
