"""The plugin, in test runs of its own."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]

_CONFTEST = """\
import pytest
from tests.servers import availability, cache
from tests.servers.sleeper import Sleeper

pytest_plugins = ["tests.servers.plugin"]
cache.register(cache.Recipe("anvil", "9", lambda folder: None))


class Anvil(Sleeper):
    KIND, PARTS = "anvil", ("anvil",)


@pytest.fixture(scope="session")
def anvil():
    availability.need(Anvil)


@pytest.fixture(scope="session")
def sleeper():
    availability.need(Sleeper)
    return Sleeper.shared()
"""
_WANTS_TWO = "def test_one(anvil): pass\ndef test_two(anvil): pass\ndef test_free(): pass\n"
_SAYS_PID = (
    "def test_pid(sleeper, request):\n"
    "    (request.config.rootpath / f'{request.path.stem}.pid').write_text(str(sleeper.pid))\n"
)


@pytest.fixture
def run(tmp_path):
    """Runs pytest on test files given by name; returns status and output."""
    (tmp_path / "conftest.py").write_text(_CONFTEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")

    def run(*options, mode=None, wait=True, **files):
        for name, text in files.items():
            (tmp_path / f"test_{name}.py").write_text(text)
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SEALTAPE_", "PYTEST_"))
        }
        environment = {**clean, "PYTHONPATH": str(ROOT), "SEALTAPE_CACHE": str(tmp_path / "none")}
        if mode is not None:
            environment["SEALTAPE_SERVERS"] = mode
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options], cwd=tmp_path,
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        if not wait:
            return process
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    return run


def _gone(pid):
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(15)
    return not psutil.pid_exists(pid)


def test_what_the_cache_lacks_is_skipped_with_one_loud_line(run):
    status, output = run(wants=_WANTS_TWO)
    assert status == 0, output
    assert "1 passed, 2 skipped" in output
    assert output.count("NOT TESTED ON REAL SERVERS") == 1
    loud = "2 tests were skipped for want of a server (anvil 9 is not in the cache)."
    assert f"{loud} `make servers`" in output


def test_local_fails_what_cannot_be_had(run):
    status, output = run(wants=_WANTS_TWO, mode="local")
    assert status == 1, output
    assert "1 passed, 2 errors" in output
    assert "anvil 9 is not in the cache. Run `make fetch-servers`" in output


def test_off_skips_what_is_there_too(run):
    status, output = run(wants=_SAYS_PID, mode="off")
    assert status == 0, output
    assert "1 tests were skipped for want of a server (sleeper, and SEALTAPE_SERVERS=off)" in output


def test_a_run_without_skips_says_nothing(run):
    status, output = run(wants=_SAYS_PID)
    assert status == 0, output
    assert "NOT TESTED" not in output


def test_an_unknown_mode_is_refused(run):
    status, output = run(wants=_WANTS_TWO, mode="docker")
    assert status == 4, output
    assert "SEALTAPE_SERVERS=docker: it is local, containers, off or unset" in output


def test_the_workers_of_a_run_count_together_and_share_one_server(run, tmp_path):
    files = {"a": _SAYS_PID, "b": _SAYS_PID, "c": _WANTS_TWO}
    status, output = run("-n", "2", "--dist", "loadfile", **files)
    assert status == 0, output
    assert "2 tests were skipped for want of a server" in output
    pids = {(tmp_path / f"test_{name}.pid").read_text() for name in "ab"}
    assert len(pids) == 1
    assert not psutil.pid_exists(int(pids.pop()))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_killed_leaves_nothing_running(run, tmp_path, how):
    text = _SAYS_PID + "def test_long():\n    import time; time.sleep(60)\n"
    process = run("-n", "2", wait=False, long=text)
    pid = tmp_path / "test_long.pid"
    deadline = time.monotonic() + 30
    while not (pid.exists() and pid.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(how)
    process.communicate(timeout=60)
    assert _gone(int(pid.read_text()))


def test_a_whole_set_from_a_terminal(tmp_path, s3_server, toxiproxy):
    """Of S3 alone, which is quick: it runs until Ctrl-C."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.servers", "up", "s3"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        while "runs as" not in (said := process.stderr.readline()):
            assert said, process.communicate()
        pid = int(re.search(r"runs as (\d+)", said).group(1))
        said = ""
        while "Ctrl-C stops them" not in said:
            said = process.stdout.readline()
        assert psutil.pid_exists(pid)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 0
    assert _gone(pid)
