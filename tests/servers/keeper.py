"""Keeps the servers of one test run: their parent, and the one who ends them.

    python keeper.py FOLDER PID     returns when the keeper, by then on its own, listens

The keeper ends every server, removes FOLDER and ends itself when the process PID is gone, however
it went, or when asked to. When the keeper itself is killed the kernel kills its children (Linux).
It answers one JSON line on each connection to FOLDER/keeper.sock:

    {"do": "spawn", "name": N, "argv": [], "cwd": "", "env": {}, "log": "", "identity": [uid, gid],
     "stop": "SIGTERM"}
    {"do": "signal", "name": N, "which": "SIGKILL"}      to its process group
    {"do": "state", "name": N}                           {"pid": …, "code": null while it runs}
    {"do": "end"}

It imports nothing but the standard library, and nothing of this repository.
"""

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

GRACE_S = 4.0
TICK_S = 0.5
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def _prctl(option, value):
    with contextlib.suppress(Exception):  # not Linux: the keeper alone ends the servers
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _die_with_parent():
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Keeper:
    """The servers by name, each in a session and process group of its own."""

    def __init__(self, folder, watched):
        self._folder = folder
        self._watched = watched
        self._children = {}
        self._stop = {}
        self._over = False
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / "keeper.sock"))
        self._listener.listen(64)

    def run(self):
        """Serve until the watched process is gone or somebody says `end`."""
        watch = self._watch()
        try:
            while not self._over and self._alive():
                wanted = [self._listener] + ([watch] if watch is not None else [])
                ready, _, _ = select.select(wanted, [], [], TICK_S)
                if watch in ready:
                    break
                if self._listener in ready:
                    self._answer(self._listener.accept()[0])
                for child in self._children.values():
                    child.poll()
        finally:
            self.end()

    def _watch(self):
        """A descriptor that is readable when the watched process is gone, where there is such."""
        try:
            return os.pidfd_open(self._watched)
        except (AttributeError, OSError):
            return None

    def _alive(self):
        try:
            os.kill(self._watched, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True

    def _answer(self, connection):
        with connection:
            connection.settimeout(5)
            try:
                request = json.loads(connection.makefile().readline())
                answer = getattr(self, f"do_{request.pop('do')}")(**request)
            except Exception as error:
                traceback.print_exc()
                answer = {"error": f"{type(error).__name__}: {error}"}
            with contextlib.suppress(OSError):
                connection.sendall(json.dumps(answer).encode() + b"\n")

    def do_spawn(self, name, argv, cwd, env, log, identity=None, stop="SIGTERM"):
        old = self._children.get(name)
        if old is not None and old.poll() is None:
            raise RuntimeError(f"{name} runs already, as {old.pid}")
        user = {"user": identity[0], "group": identity[1], "extra_groups": []} if identity else {}
        with open(log, "ab") as output:
            child = subprocess.Popen(
                argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True, **user,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - one system call, no threads
            )  # fmt: skip
        self._children[name], self._stop[name] = child, getattr(signal, stop)
        return self.do_state(name)

    def do_signal(self, name, which):
        self._send(self._children[name], getattr(signal, which))
        return self.do_state(name)

    def do_state(self, name):
        child = self._children.get(name)
        if child is None:
            return {"pid": None, "code": -1}
        return {"pid": child.pid, "code": child.poll()}

    def do_end(self):
        self._over = True
        return {}

    def _send(self, child, number):
        if child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, number)

    def end(self):
        """Stop everything, in a few seconds at most, and remove the folder."""
        for name, child in self._children.items():
            self._send(child, self._stop[name])
            self._send(child, signal.SIGCONT)
        deadline = time.monotonic() + GRACE_S
        while time.monotonic() < deadline and any(
            child.poll() is None for child in self._children.values()
        ):
            time.sleep(0.02)
        for child in self._children.values():
            self._send(child, signal.SIGKILL)
            child.wait()
        self._end_orphans()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _end_orphans(self):
        """Kill what the servers left behind: as a subreaper the keeper is its parent now."""
        listing = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
        for _ in range(50):
            try:
                orphans = [int(one) for one in listing.read_text().split()]
            except OSError:
                return
            if not orphans:
                return
            for pid in orphans:
                with contextlib.suppress(ProcessLookupError, ChildProcessError):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)


def main(folder, watched):
    """Go into the background and serve; the caller's process returns when the socket is there."""
    os.chdir(folder)
    keeper = Keeper(Path(folder), int(watched))
    if os.fork():
        os._exit(0)
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: keeper.do_end())
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    with open("keeper.log", "ab", buffering=0) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    keeper.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
