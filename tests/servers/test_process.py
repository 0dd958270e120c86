import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from tests.servers.process import Home, ServerError, free_port, identity
from tests.servers.sleeper import Sleeper


@pytest.fixture
def watched():
    """The process whose run it is."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def open_folder():
    """A folder that the servers' user can write to; those of pytest are closed to it."""
    with tempfile.TemporaryDirectory(prefix="sealtape-test-") as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@pytest.fixture
def home(watched, open_folder):
    home = Home(open_folder / "run", watched.pid)
    yield home
    home.end()


def _gone(pid):
    deadline = time.monotonic() + 15
    try:
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
    except psutil.NoSuchProcess:
        pass
    return True


def test_a_server_is_started_stopped_and_started_again(home):
    with Sleeper.own(home) as server:
        first = server.pid
        assert psutil.pid_exists(first)
        server.stop()
        assert not server.running
        assert _gone(first)
        server.start()
        assert server.running
        assert server.pid != first
    assert not server.running
    assert not server.place.exists()


def test_a_killed_server_is_gone_when_the_call_returns(home):
    with Sleeper.own(home) as server:
        pid = server.pid
        server.kill()
        assert not server.running
        assert _gone(pid)


def test_a_paused_server_stands_still_and_goes_on(home):
    with Sleeper.own(home) as server:
        server.pause()
        assert psutil.Process(server.pid).status() == psutil.STATUS_STOPPED
        server.resume()
        assert psutil.Process(server.pid).status() != psutil.STATUS_STOPPED


def test_a_server_that_does_not_stop_is_killed(home):
    script = "touch ready; trap '' TERM; while :; do sleep 0.1; done"
    with Sleeper.own(home, script=script) as server:
        server.stop()
        assert not server.running


def test_a_server_that_ends_at_once_says_why(home):
    script = "echo no such table >&2; exit 3"
    with (
        pytest.raises(ServerError, match=r"(?s)ended while it started.*no such table"),
        Sleeper.own(home, script=script),
    ):
        pass


def test_a_server_that_never_answers_is_not_waited_for_for_ever(home, monkeypatch):
    monkeypatch.setattr(Sleeper, "START_S", 0.3)
    with (
        pytest.raises(ServerError, match=r"(?s)did not answer within.*still busy"),
        Sleeper.own(home, script="echo still busy"),
    ):
        pass


def test_a_taken_port_is_answered_with_another_one(home, open_folder):
    seen = open_folder / "seen"
    script = f"test -e {seen} || {{ touch {seen}; echo Address already in use; exit 1; }};"
    with Sleeper.own(home, script=script + " touch ready") as server:
        assert server.running


def test_it_runs_with_a_clean_environment_and_never_as_root(home, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-person's-own")
    with Sleeper.own(home, script="env > seen; id -u >> seen; touch ready") as server:
        seen = (server.place / "seen").read_text()
    assert "GIVEN=1" in seen
    assert "a-person's-own" not in seen
    assert int(seen.splitlines()[-1]) == (identity() or [os.geteuid()])[0] != 0


def test_a_shared_server_is_started_once_for_all_processes(home):
    first = Sleeper.shared(home)
    assert Sleeper.shared(home).pid == first.pid
    code = (
        "import sys; from pathlib import Path; from tests.servers.process import Home;"
        "from tests.servers.sleeper import Sleeper;"
        "print(Sleeper.shared(Home(Path(sys.argv[1]), int(sys.argv[2]))).pid)"
    )
    other = subprocess.run(
        [sys.executable, "-c", code, home.folder, str(home.watched)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(other.stdout) == first.pid


@pytest.mark.parametrize("deed", ["stop", "start", "kill", "pause", "resume"])
def test_a_shared_server_is_nobody_s_to_stop(home, deed):
    server = Sleeper.shared(home)
    with pytest.raises(ServerError, match="sleeper_alone"):
        getattr(server, deed)()
    assert server.running


def test_a_shared_server_that_died_is_not_handed_out(home):
    server = Sleeper.shared(home)
    os.kill(server.pid, signal.SIGKILL)
    _gone(server.pid or 0)
    with pytest.raises(ServerError, match="ended"):
        Sleeper.shared(home)


# -- the keeper ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_everything_ends_with_the_run_however_it_ends(home, watched, how):
    script = "sleep 601 & echo $! > child; touch ready"  # it leaves a child of its own behind
    server = Sleeper.shared(home, script=script)
    paused = Sleeper.planned(home, "paused")
    paused.start()
    paused.pause()
    keeper = psutil.Process(server.pid).ppid()
    child = int((server.place / "child").read_text())
    pids = [server.pid, paused.pid, child, keeper]
    watched.send_signal(how)
    assert [pid for pid in pids if not _gone(pid)] == []
    assert not home.folder.exists()


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="only Linux ends children so")
def test_a_killed_keeper_takes_its_servers_along(home):
    server = Sleeper.shared(home)
    pid = server.pid
    os.kill(psutil.Process(pid).ppid(), signal.SIGKILL)
    assert _gone(pid)


def test_a_request_that_fails_is_answered_and_harms_nobody(home):
    server = Sleeper.shared(home)
    with pytest.raises(ServerError, match="runs already"):
        server.spawn()
    with pytest.raises(ServerError, match="KeyError"):
        home.ask("signal", name="nobody", which="SIGTERM")
    assert server.running


def test_free_ports_are_not_those_lent_to_clients():
    assert all(15_000 <= free_port() < 32_000 for _ in range(20))
