"""What the benchmarks run against: one PostgreSQL, and the routes to it."""

import json
import re
import shutil
import socket
import tempfile
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from sealtape.indexer.cli.deployment import create, put_target
from sealtape.indexer.cli.token import mint
from sealtape.schemas.settings import load_settings
from tests.bench.processes import Child, module, python
from tests.servers.postgres import PostgresServer, client_environment, free_port
from tests.servers.tls import write_certificate

SCALE = 4
ACCOUNTS = 100_000 * SCALE
CONNECTIONS = 1200
ROW = 384
COPY_BYTES = 200_000_000
LARGEST_VALUE = 1_073_741_800

DIRECT, RELAY, RELAY_TLS = "direct", "bare relay", "bare relay (TLS)"
SEALTAPE, SEALTAPE_TLS = "Sealtape", "Sealtape (TLS)"
HAPROXY, PGBOUNCER = "haproxy", "pgbouncer"


@dataclass(frozen=True, kw_only=True)
class Route:
    """A way to the database: where to connect, as whom, and the processes that stand between."""

    name: str
    port: int
    user: str = "postgres"
    database: str = "bench"
    password: str = ""
    pids: tuple[int, ...] = ()
    tls: bool = False

    def environment(self):
        """For libpq programs."""
        return client_environment(
            PGHOST="127.0.0.1", PGPORT=str(self.port), PGUSER=self.user, PGDATABASE=self.database,
            PGPASSWORD=self.password, PGSSLMODE="disable",
        )  # fmt: skip


class Deployment:
    """A Sealtape deployment in a folder, each room a process of its own."""

    def __init__(self, folder, server, log):
        create(folder, development=True)
        put_target(folder, f"bench={server.url(database='bench')}")
        self.folder = folder
        self.config = folder / "sealtape.toml"
        text = self.config.read_text().replace("[capture]\n", _CAPTURE)
        self.config.write_text(text)
        self.log = log
        self.token = mint(
            load_settings(text, base=str(folder)), user="bench", groups=["dba"], ttl_s=86400.0
        )
        self.rooms = {}

    def start(self, room):
        """Start a room as its own process and return it."""
        if room == "capture":
            command = module("sealtape.capture", "-c", self.config, "--json")
        else:
            command = module("sealtape.indexer.cli.main", room, "-c", self.config)
        child = Child(room, command, log=self.log, silent=room != "capture")
        self.rooms[room] = child
        return child

    def stop(self, room):
        """Let a room drain and end."""
        self.rooms.pop(room).stop()

    def close(self):
        """End all rooms."""
        for room in list(self.rooms):
            self.stop(room)


class Lab:
    """Starts what a benchmark asks for, once, and ends all of it."""

    def __init__(self, only=()):
        self.folder = Path(tempfile.mkdtemp(prefix="sealtape-bench-"))
        self.log = self.folder / "log"
        self._only = only
        self._children = []
        self._deployments = 0
        self._server = None

    def close(self):
        """End everything."""
        if "deployment" in self.__dict__:
            self.deployment.close()
        for child in self._children:
            child.stop(5)
        if self._server is not None:
            self._server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def wants(self, *names):
        """Return those of the routes that this run asks for and that are there."""
        found = [self.route(name) for name in names if not self._only or name in self._only]
        return [route for route in found if route is not None]

    # -- the database ----------------------------------------------------------------------------

    @cached_property
    def server(self):
        """PostgreSQL with the data of all benchmarks."""
        server = self._server = PostgresServer().start()
        server.sql(f"alter system set max_connections = {CONNECTIONS}")
        server.halt()
        server.resume()
        server.sql("create database bench")
        server.sql(_ACCOUNTS, "bench")
        return server

    @cached_property
    def copies(self):
        """Return the COPY statements: name to text. Each gives `COPY_BYTES`."""
        rows = COPY_BYTES // (ROW + 1)
        self.server.sql(_COPIES.format(rows=rows, words=ROW // 32), "bench")
        return {
            "repetitive": "copy repetitive to stdout",
            "hex": "copy hex to stdout",
        }

    # -- routes ----------------------------------------------------------------------------------

    def route(self, name):
        """Return a route, its processes running; None when its program is not installed."""
        return getattr(self, "_" + re.sub(r"\W+", "_", name).strip("_").lower())

    @cached_property
    def _direct(self):
        return Route(name=DIRECT, port=self.server.port)

    @cached_property
    def _bare_relay(self):
        return self._relay(RELAY)

    @cached_property
    def _bare_relay_tls(self):
        chain, key = write_certificate(self.folder)
        route = self._relay(RELAY_TLS, "--certificate", chain, "--key", key)
        return replace(route, tls=True)

    def _relay(self, name, *words):
        address = f"127.0.0.1:{self.server.port}"
        child = self._child(name, python("relay.py", address, *words))
        return Route(name=name, port=int(child.first), pids=(child.pid,))

    @cached_property
    def _sealtape(self):
        return self.gateway(self.deployment)

    @cached_property
    def _sealtape_tls(self):
        return replace(self._sealtape, name=SEALTAPE_TLS, tls=True)

    @cached_property
    def deployment(self):
        """The deployment that the routes through Sealtape share."""
        return self.new_deployment()

    def new_deployment(self):
        """Make a deployment of its own; whoever asks closes it."""
        self._deployments += 1
        return Deployment(self.folder / f"deployment{self._deployments}", self.server, self.log)

    def gateway(self, deployment):
        """Start the capture room of a deployment and return the route through it."""
        ready = json.loads(deployment.start("capture").first)
        port = int(ready["listeners"]["postgres"].rpartition(":")[2])
        return Route(
            name=SEALTAPE, port=port, user="bench", password=deployment.token,
            pids=(deployment.rooms["capture"].pid,),
        )  # fmt: skip

    @cached_property
    def _haproxy(self):
        found = shutil.which("haproxy")
        if found is None:
            return None
        port, config = free_port(), self.folder / "haproxy.cfg"
        config.write_text(_HAPROXY.format(port=port, target=self.server.port))
        return self._foreign(HAPROXY, [found, "-db", "-f", str(config)], port)

    @cached_property
    def _pgbouncer(self):
        found = shutil.which("pgbouncer")
        if found is None:
            return None
        port, config = free_port(), self.folder / "pgbouncer.ini"
        config.write_text(_PGBOUNCER.format(port=port, target=self.server.port))
        self.folder.chmod(0o755)
        return self._foreign(PGBOUNCER, [found, "-u", "nobody", str(config)], port)

    def _foreign(self, name, command, port):
        """A program that prints nothing when it is ready."""
        child = self._child(name, command, silent=True)
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return Route(name=name, port=port, pids=(child.pid,))
            except OSError:
                time.sleep(0.1)
        raise RuntimeError(f"{name} does not listen: {self.log.read_text()[-2000:]}")

    def _child(self, name, command, *, silent=False):
        child = Child(name, command, log=self.log, silent=silent)
        self._children.append(child)
        return child


_CAPTURE = """\
[capture]
max_unauthenticated = 2000
max_per_address = 2000
spool_limit = "4GiB"
"""
_ACCOUNTS = f"""\
create unlogged table pgbench_accounts
  (aid int primary key, bid int, abalance int, filler char(84));
insert into pgbench_accounts select i, i / 100000 + 1, 0, '' from generate_series(1, {ACCOUNTS}) i;
create unlogged table pgbench_branches (bid int primary key, bbalance int, filler char(88));
insert into pgbench_branches select i, 0, '' from generate_series(1, {SCALE}) i;
vacuum analyze;
"""
_COPIES = """\
create unlogged table repetitive (line text storage plain);
insert into repetitive
  select rpad('2026-11-22 customer ' || i % 1000 || ' ordered item ' || i % 77, 384, ' status=open')
  from generate_series(1, {rows}) i;
create unlogged table hex (line text storage plain);
insert into hex
  select string_agg(md5(i::text || '.' || j::text), '')
  from generate_series(1, {rows}) i, generate_series(1, {words}) j group by i;
vacuum analyze;
"""
_HAPROXY = """\
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen postgres
  bind 127.0.0.1:{port}
  server target 127.0.0.1:{target}
"""
_PGBOUNCER = """\
[databases]
bench = host=127.0.0.1 port={target} dbname=bench user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = session
default_pool_size = 100
max_client_conn = 2000
"""
