"""`sealtape-capture` as a process."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import threading

import psutil
import psycopg
import pytest

from sealtape.capture.__main__ import build_parser, loop_factory, main
from sealtape.schemas.errors import SettingsError
from tests.capture.node_lab import NodeLab
from tests.capture.postgres.gateway_world import psql
from tests.servers.postgres import shared_server


@contextlib.asynccontextmanager
async def node(lab, *arguments):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sealtape.capture", "-c", str(lab.path), "--json", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "SHOP_PASSWORD": "scram-secret"},
    )  # fmt: skip
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 30)
        if not line:
            pytest.fail((await process.stderr.read()).decode())
        yield process, json.loads(line)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        async with asyncio.timeout(30):
            await process.stderr.read()
            await process.wait()


async def test_one_worker(tmp_path):
    lab = NodeLab(tmp_path, shared_server())
    async with node(lab) as (process, ready):
        assert ready["ready"] is True
        assert ready["config"] == str(lab.path)
        assert ready["targets"] == ["shop"]
        code, out, err = await psql(lab.dsn(ready["listeners"]["postgres"]), "-c", "select 1")
        assert (code, out) == (0, "1\n"), err
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0


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


def test_errors_name_themselves_and_give_the_exit_code(tmp_path, capsys):
    assert main(["-c", str(tmp_path / "none.toml")]) == 64
    assert "There is no settings file" in capsys.readouterr().err
    (tmp_path / "sealtape.toml").write_bytes(b"\xff")
    assert main(["-c", str(tmp_path), "--json"]) == 64
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "settings"


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "docs/connect.md" in text
    assert "exit codes" in text
    assert "--worker" not in text
    assert build_parser().prog == "sealtape-capture"


def test_the_loop_is_a_setting(monkeypatch):
    import uvloop

    assert loop_factory("auto") is uvloop.new_event_loop
    assert loop_factory("asyncio") is asyncio.new_event_loop
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert loop_factory("auto") is asyncio.new_event_loop
    with pytest.raises(SettingsError):
        loop_factory("uvloop")
