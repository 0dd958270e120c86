"""A room runs until a signal; the first one drains, a second one ends it at once."""

import signal
import subprocess
import sys

import pytest

from sealtape.indexer.cli.running import WORKER, worker_name
from sealtape.schemas.errors import SettingsError, UsageError

ROOM = """
import asyncio, sys
from sealtape.indexer.cli.running import run_until_signal
from sealtape.schemas.settings import load_settings

async def serve(stop):
    print(type(asyncio.get_running_loop()).__module__.split(".")[0], flush=True)
    if sys.argv[2] == "fails":
        raise OSError("no room")
    await stop.wait()
    print("draining", flush=True)
    if sys.argv[2] == "hangs":
        await asyncio.sleep(60)
    print("drained", flush=True)

settings = load_settings("", base=".")
run_until_signal(serve, settings, room="ingest", loop=sys.argv[1])
"""


@pytest.fixture
def room():
    started = []

    def start(loop="asyncio", how="drains"):
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", ROOM, loop, how],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline().strip() in ("asyncio", "uvloop")
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("loop", ["asyncio", "auto"])
def test_a_signal_drains(room, number, loop):
    process = room(loop)
    process.send_signal(number)
    out = process.stdout.read()
    process.wait(30)
    assert out.split() == ["draining", "drained"]
    assert process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_it_at_once(room, number):
    process = room(how="hangs")
    process.send_signal(number)
    assert process.stdout.readline() == "draining\n"
    process.send_signal(number)
    assert process.stdout.read() == ""
    process.wait(30)
    assert process.returncode != 0


def test_what_ends_it_is_raised(room):
    process = room(how="fails")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "no room" in err


def test_a_worker_is_named_by_the_nearest(monkeypatch):
    monkeypatch.delenv(WORKER, raising=False)
    assert worker_name(None, "", "node-1") == "node-1"
    assert worker_name(None, "ingest-2", "node-1") == "ingest-2"
    monkeypatch.setenv(WORKER, "pod-3")
    assert worker_name(None, "ingest-2", "node-1") == "pod-3"
    assert worker_name("mine", "ingest-2", "node-1") == "mine"


def test_a_worker_has_a_name_that_may_stand_in_records(monkeypatch):
    with pytest.raises(UsageError, match="--worker must be a name"):
        worker_name("No Name", "", "node-1")
    monkeypatch.setenv(WORKER, "{pod}")
    with pytest.raises(SettingsError, match=f"{WORKER} must be a name"):
        worker_name(None, "", "node-1")
