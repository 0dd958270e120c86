"""Child processes, and what they cost: CPU and memory of a whole process tree."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

HERE = Path(__file__).resolve().parent
MIB = 1 << 20


class Child:
    """A process that runs until `stop`; `first` is the line it printed, unless it is `silent`."""

    def __init__(self, name, command, *, log, stdin=None, silent=False):
        self.name = name
        self.log = log
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                stdin=stdin, stdout=subprocess.PIPE, stderr=errors, text=True,
                cwd=log.parent, start_new_session=True,
            )  # fmt: skip
        self.first = "" if silent else self.process.stdout.readline()
        if not self.first and not silent:
            self.stop()
            raise RuntimeError(f"{name} did not start: {log.read_text()[-2000:]}")

    @property
    def pid(self):
        return self.process.pid

    def stop(self, timeout_s=30):
        """Ask it to end, and make it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait(10)
        self.process.stdout.close()
        if self.process.stdin is not None:
            with suppress(OSError):
                self.process.stdin.close()


def python(script, *words):
    """Return the command line of a script of this folder."""
    return [sys.executable, str(HERE / script), *map(str, words)]


def module(name, *words):
    """Return the command line of a module of the distribution."""
    return [sys.executable, "-P", "-m", name, *map(str, words)]


def _tree(pids):
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            top = psutil.Process(pid)
            yield top
            yield from top.children(recursive=True)


def cpu_s(pids):
    """CPU seconds, user and system, of processes and what they started."""
    total = 0.0
    for process in _tree(pids):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def rss_mib(pids):
    """Resident memory now."""
    total = 0
    for process in _tree(pids):
        with suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total / MIB


def reset_peak(pids):
    """Begin a new measurement of `peak_rss_mib` (Linux)."""
    for process in _tree(pids):
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")


def peak_rss_mib(pids):
    """The most resident memory since `reset_peak`, each process at its own moment."""
    total = 0
    for process in _tree(pids):
        status = Path(f"/proc/{process.pid}/status").read_text()
        line = next(row for row in status.splitlines() if row.startswith("VmHWM"))
        total += int(line.split()[1])
    return total / 1024


def settle(pids, *, quiet=0.02, limit_s=60.0):
    """Wait until processes have no more work: under `quiet` of a core for half a second."""
    deadline = time.monotonic() + limit_s
    before = cpu_s(pids)
    while time.monotonic() < deadline:
        time.sleep(0.5)
        now = cpu_s(pids)
        if now - before <= 0.5 * quiet:
            return
        before = now


def load(route, *words, stdin=None, log):
    """Start the load generator against a route."""
    command = python("load.py", f"127.0.0.1:{route.port}", route.database, "--user", route.user)
    if route.password:
        command += ["--password", route.password]
    if route.tls:
        command.append("--tls")
    return Child("load", [*command, *words], log=log, stdin=stdin)


def progress(child):
    """Yield (seconds, count) as the load generator prints them; raises when it failed."""
    line = child.first
    try:
        while line:
            said = json.loads(line)
            yield said["t"], said["n"]
            line = child.process.stdout.readline()
        if child.process.wait(30):
            raise RuntimeError(f"load failed: {child.log.read_text()[-2000:]}")
    finally:
        child.stop()
