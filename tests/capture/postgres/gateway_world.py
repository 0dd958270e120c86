"""A gateway in front of the tests' PostgreSQL, with byte taps on both sides.

The collector is a worker in memory: it keeps what it is given, and forwards after the loop's tick
as the real one does. Tests of what ends up in the spool use the real one.
"""

import asyncio
import contextlib
import json
import time
from collections import Counter
from types import SimpleNamespace

from sealtape.capture.identity import DevelopmentIssuer
from sealtape.capture.postgres.gateway import Gateway
from sealtape.schemas.errors import StoreError
from sealtape.schemas.settings import load_settings
from sealtape.schemas.slices import CLIENT_IN, TARGET_IN, Slice, leg_stream
from tests.servers.postgres import client_environment, program
from tests.servers.tls import write_certificate

ISSUER = "https://issuer.test"


class Collected:
    """A recorder in memory."""

    def __init__(self, worker, ident, terms, on_stall, on_end, snapshot):
        self.worker = worker
        self.ident, self.terms = ident, terms
        self.on_stall, self.on_end, self.snapshot = on_stall, on_end, snapshot
        self.text_salt = bytes(32)
        self.offsets = [0, 0, 0, 0]
        self.slices = []
        self.facts = []
        self.keep = True
        self.reason = None
        self.closed = asyncio.Event()

    def data(self, leg, data, replaces=0):
        self.data_ns = time.monotonic_ns()
        offset = self.offsets[leg] - replaces
        if self.keep:
            self.slices.append(Slice(leg, 0, offset, bytes(data), replaces))
        self.offsets[leg] = offset + len(data)
        if leg in (CLIENT_IN, TARGET_IN):
            self.offsets[leg + 1] += len(data)

    def fact(
        self,
        kind,
        leg=0,
        offset=0,
        length=0,
        ref=-1,
        text=b"",
        statement=b"",
        tail=b"",
        *,
        error=False,
    ):
        self.facts.append((kind, leg, offset, length, ref, tail, error))
        return len(self.facts) - 1

    def forward(self, write, data):
        self.worker.forward(write, data)

    def state_if_due(self):
        pass

    def leg(self, leg):
        return b"".join(leg_stream(self.slices, leg))


class CollectingWorker:
    """A worker in memory; `broken`: it refuses sessions, `stuck`: it forwards nothing."""

    def __init__(self):
        self.sessions = []
        self.refusals = []
        self.counts = Counter()
        self.journal = SimpleNamespace(refusal=self._refusal, count=self._count, event=print)
        self.broken = False
        self.stuck = False
        self.kept = []
        self._queue = []

    def _refusal(self, reason, **fields):
        self.refusals.append((reason, fields))

    def _count(self, name):
        self.counts[name] += 1

    async def open_session(self, ident, terms, *, on_stall, on_end, snapshot=None):
        if self.broken:
            raise StoreError("The spool is broken.")
        recorder = Collected(self, ident, terms, on_stall, on_end, snapshot)
        self.sessions.append(recorder)
        return recorder

    async def close_session(self, recorder, reason, detail=""):
        recorder.reason = reason
        recorder.closed.set()

    def forward(self, write, data):
        if self.stuck:
            self.kept.append((write, data))
            return
        if not self._queue:
            asyncio.get_running_loop().call_soon(self._flush)
        self._queue.append((write, data))

    def _flush(self):
        queue, self._queue = self._queue, []
        for write, data in queue:
            write(data)


class Tap:
    """A plain TCP relay that keeps every byte of both directions of each connection."""

    def __init__(self, host, port):
        self._target = (host, port)
        self.connections = []
        self._tasks = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader, writer):
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader, writer):
        there, back = bytearray(), bytearray()
        self.connections.append((there, back))
        inner_reader, inner_writer = await asyncio.open_connection(*self._target)
        try:
            await asyncio.gather(
                self._pass(reader, inner_writer, there), self._pass(inner_reader, writer, back)
            )
        finally:
            for each in (writer, inner_writer):
                each.close()

    async def _pass(self, reader, writer, kept):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                kept += data
                writer.write(data)
                await writer.drain()
        with contextlib.suppress(OSError, RuntimeError):
            writer.write_eof()


class GatewayWorld:
    """A running gateway; `port` is its listener, `token` mints for it."""

    def __init__(self, gateway, worker, issuer, certificate):
        self.gateway, self.worker, self.issuer = gateway, worker, issuer
        self.certificate = certificate
        self.port = int(gateway.listener.address.rpartition(":")[2])

    def token(self, user="ada", groups=("dba",), *, ttl_s=600.0, **claims):
        return self.issuer.mint(
            issuer=ISSUER, audience="sealtape", user=user, groups=list(groups), ttl_s=ttl_s,
            now_s=time.time(), **claims,
        )  # fmt: skip

    def dsn(self, target="shop", *, port=None, token=None, user="ada", **options):
        options = {"sslmode": "disable", **options}
        pairs = {
            "host": "127.0.0.1", "port": str(port or self.port), "dbname": target, "user": user,
            "password": token if token is not None else self.token(), **options,
        }  # fmt: skip
        return " ".join(f"{key}='{value}'" for key, value in pairs.items())

    async def last_session(self):
        recorder = self.worker.sessions[-1]
        await asyncio.wait_for(recorder.closed.wait(), 60)
        return recorder


def settings_text(
    server, *, port=None, target="", target_tls="disable", listener="", capture="", user="scram",
    node="node-1",
):  # fmt: skip
    """Return a settings file for a gateway in front of `server`."""
    return f"""
[deployment]
mode = "dev"
node = "{node}"
[capture]
grace_s = 1
auth_timeout_s = 10
{capture}
[capture.postgres]
listen = "127.0.0.1:0"
tls_certificate = "tls.crt"
tls_key = "tls.key"
{listener or 'plaintext = "loopback"'}
[identity]
issuer = "{ISSUER}"
audience = "sealtape"
jwks = "file:jwks.json"
[targets.shop]
address = "127.0.0.1:{port or server.port}"
database = "postgres"
databases = ["template1"]
user = "{user}"
password = {{ file = "password" }}
tls = "{target_tls}"
groups = ["dba"]
{target}
"""


@contextlib.asynccontextmanager
async def gateway_world(folder, server, *, worker=None, extra="", **settings):
    """Run a gateway from settings made by `settings_text`."""
    issuer = DevelopmentIssuer.generate()
    (folder / "jwks.json").write_text(json.dumps(issuer.jwks()))
    (folder / "password").write_text("scram-secret\n")
    chain, _ = write_certificate(folder)
    text = settings_text(server, **settings) + extra
    (folder / "settings").write_text(text)
    loaded = load_settings(text, base=str(folder))
    worker = worker or CollectingWorker()
    gateway = Gateway(settings=loaded, worker=worker)
    gateway.open()
    try:
        yield GatewayWorld(gateway, worker, issuer, chain)
    finally:
        await gateway.close()


async def run(*command, stdin=None):
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, env=client_environment(),
    )  # fmt: skip
    out, err = await process.communicate(stdin)
    return process.returncode, out.decode(), err.decode()


async def psql(dsn, *arguments, stdin=None):
    return await run(program("psql"), dsn, "-XAt", *arguments, stdin=stdin)
