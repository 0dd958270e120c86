"""Foreign servers as child processes of a run's keeper: started, probed, stopped, killed, paused.

A server is a class of its own module:

    class ThingServer(Server):
        KIND, PARTS = "thing", ("thing",)       # its name, and the recipes in the cache

        @classmethod
        def plan(cls, place, **options):        # once: files, ports, passwords; JSON to remember
            return {"port": free_port()}

        def spec(self):                         # how it is run, each time
            return Spec([self.at("thing", "bin/thing"), self.facts["port"]])

        def healthy(self):                      # True when it answers
            return http_status(f"http://127.0.0.1:{self.facts['port']}/health") == 200

All workers of a test run share what `shared` starts; what `own` starts is the caller's, and only
such a server can be stopped, killed and paused. Everything blocks: in a test on an event loop that
others need, call `await asyncio.to_thread(server.stop)`.
"""

import contextlib
import fcntl
import json
import os
import pwd
import random
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.servers import cache, containers, jvm

RUN = "SEALTAPE_SERVERS_RUN"  # "FOLDER:PID": where this run's servers live, and whose run it is
LOOPBACK = "127.0.0.1"
# Below the ports that the system lends to clients: a stopped server finds its port free again.
_PORTS = (15_000, 32_000)
_TAKEN = re.compile(r"address already in use|BindException|port is already", re.IGNORECASE)
_ATTEMPTS = 3


class ServerError(RuntimeError):
    """A server did not do what it was told; the message has the end of its log."""


@dataclass(frozen=True, slots=True)
class Spec:
    """How a server is run. `env` is added to a small clean environment."""

    argv: list
    env: dict = field(default_factory=dict)
    cwd: Path | None = None
    stop: str = "SIGTERM"


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that is free now and that no client will get by chance."""
    while True:
        port = random.randrange(*_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((LOOPBACK, port))
            return port


def answers(port: int) -> bool:
    """Whether something accepts connections on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((LOOPBACK, port)) == 0


def http_status(url: str, timeout: float = 2.0, **options) -> int:
    """The status of a GET; 0 when nothing answers."""
    try:
        with urllib.request.urlopen(url, timeout=timeout, **options) as response:
            return response.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return 0


def identity() -> tuple[int, int] | None:
    """(uid, gid) that foreign servers run as, None for the caller's: never root."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(KeyError):
        entry = pwd.getpwnam("nobody")
        return entry.pw_uid, entry.pw_gid
    raise ServerError("foreign servers are not run as root, and there is no user nobody")


class Home:
    """The folder of one run and its keeper; any process of the run can open it."""

    def __init__(self, folder: Path, watched: int) -> None:
        self.folder = folder
        self.watched = watched

    @classmethod
    def current(cls) -> "Home":
        """The home of this test run."""
        folder, _, watched = os.environ[RUN].rpartition(":")
        return cls(Path(folder), int(watched))

    @staticmethod
    def is_named() -> bool:
        """Whether this process belongs to a run already."""
        return RUN in os.environ

    @staticmethod
    def name_run() -> None:
        """Give this process, and those it starts, a run of its own. Nothing is created."""
        name = f"sealtape-run-{os.getpid()}-{secrets.token_hex(4)}"
        os.environ[RUN] = f"{Path(tempfile.gettempdir()) / name}:{os.getpid()}"

    @contextlib.contextmanager
    def locked(self, name: str):
        """Only one process of the run is in here at a time, for each name."""
        self.folder.mkdir(mode=0o711, exist_ok=True)
        with (self.folder / f".{name}.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def ask(self, what: str, **request) -> dict:
        """Send the keeper one request; it is started when there is none."""
        if what != "end":
            self._keeper()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(str(self.folder / "keeper.sock"))
            connection.sendall(json.dumps({"do": what, **request}).encode() + b"\n")
            with connection.makefile() as answers_:
                answer = json.loads(answers_.readline())
        if "error" in answer:
            raise ServerError(answer["error"])
        return answer

    def _keeper(self) -> None:
        if (self.folder / "keeper.sock").exists():
            return
        with self.locked("keeper"):
            if not (self.folder / "keeper.sock").exists():
                program = Path(__file__).with_name("keeper.py")
                subprocess.run(
                    [sys.executable, "-I", program, self.folder, str(self.watched)],
                    check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                )  # fmt: skip

    def end(self, timeout: float = 15.0) -> None:
        """Stop all servers of the run and wait until they are gone."""
        try:
            self.ask("end")
        except (OSError, ValueError):
            timeout = 0  # there is no keeper, or it has just gone
        deadline = time.monotonic() + timeout
        while (self.folder / "keeper.sock").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        shutil.rmtree(self.folder, ignore_errors=True)

    def part(self, name: str) -> Path:
        """A thing of the cache where the servers' user can read it; never to be written to."""
        tree = cache.folder(name)
        if identity() is None or all(one.stat().st_mode & 0o001 for one in tree.parents):
            return tree
        place = self.folder / "parts" / name
        with self.locked(f"part-{name}"):
            if not place.exists():
                place.parent.mkdir(mode=0o711, exist_ok=True)
                partial = place.with_name(f"{name}.partial")
                shutil.copytree(tree, partial, symlinks=True, copy_function=_link)
                partial.rename(place)
        return place


def _link(source, target):
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def writable_copy(tree: Path, place: Path) -> Path:
    """Copy a tree of the cache for a server that writes into its own folders."""
    shutil.copytree(tree, place, symlinks=True)
    give(place)
    return place


def give(path: Path) -> None:
    """Make a file or a whole tree the servers' user's."""
    if (owner := identity()) is None:
        return
    os.chown(path, *owner, follow_symlinks=False)
    for base, folders, files in os.walk(path):
        for one in folders + files:
            os.chown(os.path.join(base, one), *owner, follow_symlinks=False)


def at(place: Path, part: str, relative: str) -> Path:
    """Where a server in the folder `place` finds a file of a part: in the cache, or its image."""
    if containers.chosen():
        return Path(containers.inside(part, relative))
    return Home(place.parent, os.getpid()).part(part) / relative


def run_tool(place: Path, part: str, argv: list, timeout: float = 120) -> str:
    """Run a program of a part to its end, as the servers' user, in the folder of a server.

    `argv[0]` is a path below the part, or `java`. Returns the output; ServerError when it failed.
    """
    home = Home(place.parent, os.getpid())
    argv = [str(one) for one in argv]
    if containers.chosen():
        argv[0] = argv[0] if argv[0] == "java" else containers.inside(part, argv[0])
        name = f"{home.folder.name}-tool-{secrets.token_hex(3)}"
        code, output = containers.run(_contained(home, part, argv, {}, str(place), name))
    else:
        recipe = cache.RECIPES[part]
        program = jvm.find(recipe.java, recipe.java_below) if argv[0] == "java" else argv[0]
        as_user = dict(zip(("user", "group"), identity() or (), strict=False))
        done = subprocess.run(
            [home.part(part) / program, *argv[1:]], cwd=place, check=False, timeout=timeout,
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"}, text=True, errors="replace",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            **(as_user | {"extra_groups": []} if as_user else {}),
        )  # fmt: skip
        code, output = done.returncode, done.stdout
    if code:
        raise ServerError(f"{argv[0]} failed: {output}")
    return output


def _contained(home, part, argv, env, cwd, name):
    uid, _ = identity() or (os.geteuid(), 0)
    # Group 0 may write where an image lets any user write.
    return containers.Container(name, containers.IMAGES[part].name, argv, {"HOME": cwd, **env},
                                cwd, str(home.folder), f"{uid}:0")  # fmt: skip


def copied(place: Path, part: str, relative: str, target: Path) -> None:
    """Copy a file or folder of a part to somewhere below the folder of a server."""
    if containers.chosen():
        name = f"{place.parent.name}-copy-{secrets.token_hex(3)}"
        argv = ["cp", "-rL", containers.inside(part, relative), str(target)]
        give(place)
        home = Home(place.parent, os.getpid())
        code, output = containers.run(_contained(home, part, argv, {}, str(place), name))
        if code:
            raise ServerError(f"{' '.join(argv)}: {output}")
    elif (source := cache.folder(part) / relative).is_dir():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy2(source, target)


class Server(ABC):
    """One server process with data of its own under the run's folder."""

    KIND = ""
    PARTS: tuple[str, ...] = ()
    START_S = 120.0
    STOP_S = 30.0

    def __init__(self, home: Home, name: str, facts: dict, *, is_shared: bool) -> None:
        self.home = home
        self.name = name
        self.facts = facts
        self.is_shared = is_shared
        self._last_probe: OSError | None = None
        self.place = home.folder / name
        self.log = home.folder / f"{name}.log"

    # -- what a server is ------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def plan(cls, place: Path, **options) -> dict:
        """Fill the empty folder `place`, choose ports and passwords; what is returned is kept."""

    @abstractmethod
    def spec(self) -> Spec:
        """How it is run."""

    @abstractmethod
    def healthy(self) -> bool:
        """Whether it answers; OSError counts as no."""

    @property
    def address(self) -> str:
        """ "host:port" for clients and for toxiproxy."""
        return f"{LOOPBACK}:{self.facts['port']}"

    def settle(self) -> None:  # noqa: B027 - most have nothing to settle
        """Do what is done once, when it answered for the first time (users, realms …)."""

    # -- where it comes from ---------------------------------------------------------------------

    @classmethod
    def shared(cls, home: Home | None = None, **options):
        """The one server of this kind in the run; the first who asks starts it."""
        home = home or Home.current()
        with home.locked(cls.KIND):
            remembered = home.folder / f"{cls.KIND}.json"
            if remembered.exists():
                facts = json.loads(remembered.read_text())
                server = cls(home, cls.KIND, facts, is_shared=True)
                if not server.running:
                    raise ServerError(f"{cls.KIND}, shared by this run, ended:\n{server.tail()}")
                return server
            server = cls._launch(home, cls.KIND, options, is_shared=True)
            remembered.touch(mode=0o600)
            remembered.write_text(json.dumps(server.facts))
            return server

    @classmethod
    @contextlib.contextmanager
    def own(cls, home: Home | None = None, **options):
        """A server for the caller alone, removed afterwards."""
        home = home or Home.current()
        name = f"{cls.KIND}-{secrets.token_hex(3)}"
        server = cls._launch(home, name, options, is_shared=False)
        try:
            yield server
        finally:
            server.remove()

    @classmethod
    def planned(cls, home, name, **options):
        """A server of the caller's own, ready to be run for the first time."""
        server = cls(home, name, {}, is_shared=False)
        server._plan(options)
        return server

    def _plan(self, options):
        with self.home.locked("folder"):
            self.place.mkdir(mode=0o711)
        self.facts = self.plan(self.place, **options)
        give(self.place)

    @classmethod
    def _launch(cls, home, name, options, *, is_shared):
        for attempt in range(1, _ATTEMPTS + 1):
            server = cls(home, name, {}, is_shared=is_shared)
            try:
                server._plan(options)
                server._start()
                server.settle()
            except BaseException as error:
                taken = server.log.exists() and _TAKEN.search(server.tail())
                server.remove()
                if not isinstance(error, ServerError) or not taken or attempt == _ATTEMPTS:
                    raise
                continue
            return server
        raise AssertionError

    # -- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it again with the same data and ports; returns when it answers."""
        self._mine("start")
        self._start()

    def stop(self) -> None:
        """Stop it as an administrator does, and wait."""
        self._mine("stop")
        self._stop()

    def kill(self) -> None:
        """kill -9, and wait until the process is gone."""
        self._mine("kill")
        self._signal("SIGKILL")
        self._gone(10)

    def pause(self) -> None:
        """Stop the process where it stands: connections stay open and nothing answers."""
        self._mine("pause")
        self._signal("SIGSTOP")
        while not (containers.chosen() or self._stands_still()):
            time.sleep(0.01)

    def resume(self) -> None:
        """Let a paused process go on."""
        self._mine("resume")
        self._signal("SIGCONT")

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        state = self.home.ask("state", name=self.name)
        return state["pid"] if state["code"] is None else None

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self.pid is not None

    def tail(self, lines: int = 25) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def remove(self) -> None:
        """Kill it and remove its data; its log stays until the run ends."""
        if self.running:
            self._signal(self.spec().stop)
            self._signal("SIGCONT")
            if not self._gone(2, must=False):
                self._signal("SIGKILL")
                self._gone(10)
        shutil.rmtree(self.place, ignore_errors=True)

    def part(self, name: str) -> Path:
        """A thing of the cache, to read."""
        return self.home.part(name)

    def at(self, part: str, relative: str) -> Path:
        """Where the running server finds a file of a part: in the cache, or in its image."""
        return at(self.place, part, relative)

    def java(self, minimum: int, below: int = 0) -> Path:
        """The Java to run it with; an image brings its own."""
        return Path("java") if containers.chosen() else jvm.find(minimum, below)

    # -- inside ----------------------------------------------------------------------------------

    def _mine(self, what):
        if self.is_shared:
            raise ServerError(
                f"{self.KIND} is shared by all tests of this run: no `{what}`. Ask for the fixture"
                f" `{self.KIND.replace('-', '_')}_alone`, or put toxiproxy in front of it."
            )

    def _start(self):
        self.spawn()
        self.ready()

    def spawn(self) -> None:
        """Run the process and do not wait until it answers; `ready` does."""
        spec = self.spec()
        base = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8",
                "HOME": str(self.place), "TMPDIR": str(self._scratch())}  # fmt: skip
        argv = [str(one) for one in spec.argv]
        cwd = str(spec.cwd or self.place)
        env = {name: str(value) for name, value in spec.env.items()}
        user, stop = identity(), spec.stop
        if containers.chosen():
            argv = _contained(self.home, self.PARTS[0], argv, env, cwd, self._container).owner()
            cwd, base, env = str(containers.ROOT), containers.owner_environment(), {}
            user, stop = None, "SIGTERM"
        self.home.ask("spawn", name=self.name, argv=argv, cwd=cwd, env=base | env,
                      log=str(self.log), identity=user, stop=stop)  # fmt: skip

    def ready(self) -> None:
        """Wait until it answers; ServerError when it ended or took too long."""
        deadline = time.monotonic() + self.START_S
        while not self._probe():
            if not self.running:
                raise ServerError(f"{self.name} ended while it started:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise ServerError(
                    f"{self.name} did not answer within {self.START_S:.0f} s; last:"
                    f" {self._last_probe!r}\n{self.tail()}"
                )
            time.sleep(0.05)

    def _scratch(self):
        scratch = self.place / "tmp"
        if not scratch.exists():
            scratch.mkdir()
            give(scratch)
        return scratch

    def _probe(self):
        try:
            return self.healthy() and self.running
        except OSError as error:
            self._last_probe = error
            return False

    def _stop(self):
        self._signal(self.spec().stop)
        if not self._gone(self.STOP_S, must=False):
            self._signal("SIGKILL")
            self._gone(10)

    def _stands_still(self):
        pid = self.pid
        return pid is None or psutil.Process(pid).status() == psutil.STATUS_STOPPED

    def _signal(self, name):
        if containers.chosen():
            containers.send(self._container, name)
        else:
            self.home.ask("signal", name=self.name, which=name)

    @property
    def _container(self):
        return f"{self.home.folder.name}-{self.name}"

    def _gone(self, seconds, *, must=True):
        deadline = time.monotonic() + seconds
        while self.running:
            if time.monotonic() > deadline:
                if must:
                    raise ServerError(f"{self.name} does not end")
                return False
            time.sleep(0.02)
        return True
