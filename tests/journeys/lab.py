"""A whole deployment in a temporary folder, its rooms as processes, before a real PostgreSQL.

    async with Lab(tmp_path, server.port) as lab:
        await lab.dev()
        async with lab.asyncpg() as connection: ...
        await lab.sealed(1)
        lab.verify()

Rooms are real processes (`sealtape dev`, or `capture`, `ingest` and `index` apart), and what a test
concludes comes from the command line. Waiting asks the index in this process, as that is cheap.
"""

import asyncio
import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sealtape.capture.bus import open_bus
from sealtape.indexer.cli.deployment import create
from sealtape.indexer.cli.log_files import LAB_WITNESSES
from sealtape.indexer.cli.setup import STORES
from sealtape.indexer.cli.stores import auditor_key
from sealtape.indexer.cli.token import mint
from sealtape.indexer.index import Page, open_index
from sealtape.indexer.node import indexer_key
from sealtape.indexer.query import parse
from sealtape.indexer.reading import Keys, Recording
from sealtape.ingest.keyring import open_keyring
from sealtape.ingest.ledger import open_ledger
from sealtape.ingest.tlog.signer_file import read_key
from sealtape.ingest.vault import open_vault
from sealtape.ingest.witness.server import open_witness
from sealtape.schemas import messages
from sealtape.schemas.bodies import Gap
from sealtape.schemas.errors import Missing, StoreBusy, StoreError
from sealtape.schemas.frames import Frame, Kind
from sealtape.schemas.settings import load_settings
from sealtape.schemas.slices import Hole, decode_data, leg_stream
from sealtape.schemas.tlog.policy import parse_policy
from sealtape.schemas.trust import format_node_key, format_trust, parse_node_key, parse_trust
from tests.journeys.taps import Tap
from tests.servers.postgres import client_environment, program
from tests.servers.process import LOOPBACK, free_port

SEALTAPE = (sys.executable, "-P", "-m", "sealtape.indexer.cli.main")
START_S = 60.0
STOP_S = 60.0
TARGET_PASSWORD = "scram-secret"
ANY_PORT = f"{LOOPBACK}:0"


class Room:
    """One process of a deployment."""

    def __init__(self, words, log, *, program=SEALTAPE):
        self.log = log
        self._errors = log.open("ab")
        self.process = subprocess.Popen(
            [*program, *map(str, words)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=self._errors, env=client_environment(PYTHONFAULTHANDLER="1"),
        )  # fmt: skip
        self.ready = {}

    @property
    def pid(self):
        return self.process.pid

    @property
    def port(self):
        return int(self.ready["listeners"]["postgres"].rpartition(":")[2])

    async def started(self):
        """Wait for the line that says it is ready."""
        line = await asyncio.wait_for(asyncio.to_thread(self.process.stdout.readline), START_S)
        if not line:
            raise AssertionError(f"it did not start:\n{self.log.read_text()}")
        self.ready = json.loads(line)
        return self

    async def heeding(self, number=signal.SIGTERM):
        """Wait until it has a handler for a signal: while Python starts, there is none."""
        for _ in range(round(START_S / 0.05)):
            status = Path(f"/proc/{self.pid}/status").read_text()
            if int(re.search(r"SigCgt:\s*(\w+)", status)[1], 16) >> number - 1 & 1:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"it does not heed {number!r}:\n{self.log.read_text()[-4000:]}")

    async def kill(self):
        """End it as a crash does."""
        self.process.kill()
        await self._ended()

    async def stop(self, number=signal.SIGINT):
        """Let it drain; return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return await self._ended()

    async def _ended(self):
        try:
            code = await asyncio.to_thread(self.process.wait, STOP_S)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)
            self.process.wait()
            raise AssertionError(f"it did not end:\n{self.log.read_text()[-4000:]}") from None
        finally:
            self.process.stdout.close()
            self._errors.close()
        return code


class Lab:
    """A deployment with the target `shop`; `target` are lines added to its settings.

    `stores` (a `tests.servers.stores.StoreSet`) puts it on real servers. With `metrics`, each room
    answers at its `addresses`, so only one process of each can run.
    """

    def __init__(
        self,
        folder,
        port,
        *,
        spool="spool",
        capture="",
        ingest="segment_s = 0.5",
        index="",
        target="",
        more="",
        user="scram",
        stores=None,
        metrics=False,
    ):
        self.outer = Path(folder)
        self.folder = self.outer / "lab"
        self.config = self.folder / "sealtape.toml"
        self.rooms = []
        self._given = port, spool, target, more, user
        self._tables = {"capture": capture, "ingest": ingest, "indexer": index}
        self.addresses = {room: f"{LOOPBACK}:{free_port()}" for room in self._tables if metrics}
        for room, address in self.addresses.items():
            self._tables[room] += f'\nmetrics = "{address}"\n'
        self._stores = stores
        self._witnesses = []

    async def __aenter__(self):
        create(self.folder, development=True)
        await self._open_witnesses()
        port, spool, target, more, user = self._given
        tables = self._tables
        (self.folder / "secrets").mkdir(mode=0o700)
        (self.folder / "secrets/shop.password").write_text(TARGET_PASSWORD + "\n")
        text = self.config.read_text()
        text = replaced(text, 'spool = "spool"\n', f'spool = "{spool}"\n{tables["capture"]}\n')
        text = replaced(text, "segment_s = 2 ", f"{tables['ingest']}\n#")
        text += target_text("shop", port, user=user, more=target) + more
        text += f"\n[indexer]\n{tables['indexer']}\n" if tables["indexer"] else ""
        if self._stores is not None:
            text += "\n" + self._stores.text()
        self.config.write_text(text)
        if self._stores is not None:
            for name, prepare in STORES:
                await prepare(getattr(self.settings.stores, name), self.folder)
        return self

    async def __aexit__(self, *error):
        for room in self.rooms:
            if room.process.poll() is None:
                room.process.kill()
            await room._ended()
        for witness in self._witnesses:
            await witness.close()

    @property
    def settings(self):
        return load_settings(self.config.read_text(), base=str(self.folder))

    async def _open_witnesses(self):
        """Answer for the lab's witnesses, as other parties do; the log's policy names where.

        They sign what goes on from what they signed before, and read none of it.
        """
        path = self.folder / "log.policy"
        self._policy = text = path.read_text()
        logs = [log.verifier for log in parse_policy(text.encode()).logs]
        for name, key in LAB_WITNESSES.items():
            state, keys = self.outer / f"witness-{name}", [read_key(self.folder / key)]
            witness = await open_witness(state=state, listen=ANY_PORT, keys=keys, logs=logs)
            self._witnesses.append(witness)
            vkey = keys[0].vkey
            text = replaced(text, f" {name} {vkey}\n", f" {name} {vkey} {witness.url}\n")
        path.write_text(text)

    # -- rooms -------------------------------------------------------------------------------------

    def room(self, *words):
        room = Room(words, self.outer / f"{words[0]}.log")
        self.rooms.append(room)
        return room

    async def dev(self, *words):
        """Run all rooms in one process, which has witnesses of its own."""
        (self.folder / "log.policy").write_text(self._policy)
        self.front = await self.room("dev", self.folder, *words, "--json").started()
        return self.front

    async def capture(self, config=None):
        """Run a capture node, and connect to it from now on."""
        self.front = await self.room("capture", "-c", config or self.config, "--json").started()
        return self.front

    def ingest(self, worker="dev-1"):
        return self.room("ingest", "-c", self.config, "--worker", worker)

    def index(self, worker="dev-1"):
        return self.room("index", "-c", self.config, "--worker", worker)

    def node(self, name):
        """Make another capture node, with keys and a spool of its own; return its settings file."""
        private = Ed25519PrivateKey.generate()
        key = self.folder / f"keys/{name}.key"
        key.write_text(format_node_key(f"sealtape/{name}", private))
        key.chmod(0o600)
        trust = self.folder / "trust.toml"
        known = [node.vkey for node in parse_trust(trust.read_text()).nodes]
        trust.write_text(format_trust([*known, parse_node_key(key.read_text()).vkey]))
        text = replaced(self.config.read_text(), 'node = "dev-1"', f'node = "{name}"')
        text = replaced(text, '\nspool = "spool"\n', f'\nspool = "spool-{name}"\n')
        config = self.folder / f"{name}.toml"
        config.write_text(f'{text}\n[keys]\nnode = "keys/{name}.key"\n')
        return config

    @property
    def port(self):
        return self.front.port

    def logs(self):
        return "".join(path.read_text() for path in self.outer.glob("*.log"))

    # -- clients -----------------------------------------------------------------------------------

    def token(self, user="ada", groups=("dba",), *, ttl_s=600.0, **claims):
        return mint(self.settings, user=user, groups=list(groups), ttl_s=ttl_s, **claims)

    def dsn(self, database="shop", *, port=None, token=None, user="ada", sslmode="disable", **more):
        pairs = {
            "host": "127.0.0.1", "port": port or self.port, "dbname": database, "user": user,
            "password": self.token() if token is None else token, "sslmode": sslmode, **more,
        }  # fmt: skip
        return " ".join(f"{key}='{value}'" for key, value in pairs.items())

    async def connect(self, database="shop", *, port=None, token=None, ssl=False, **more):
        """Return an asyncpg connection."""
        return await asyncpg.connect(
            host="127.0.0.1", port=port or self.port, user="ada", database=database, ssl=ssl,
            password=self.token() if token is None else token, timeout=30, **more,
        )  # fmt: skip

    @contextlib.asynccontextmanager
    async def asyncpg(self, database="shop", **more):
        """An asyncpg connection, to be used with `async with`."""
        connection = await self.connect(database, **more)
        try:
            yield connection
        finally:
            await connection.close(timeout=30)

    async def psql(self, dsn, *words, stdin=None):
        """Run psql to its end: exit code, output, errors."""
        return await run(program("psql"), dsn, "-XAtq", *words, stdin=stdin)

    # -- the command line --------------------------------------------------------------------------

    async def cli(self, *words, expect=0, config=None, binary=False):
        """Run a command and return what it printed; `expect` is its exit code, None for any."""
        command = [words[0], "-c", str(config or self.config), *words[1:]]
        process = await asyncio.create_subprocess_exec(
            *SEALTAPE, *command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env=client_environment(),
        )  # fmt: skip
        try:
            out, err = await process.communicate()
        finally:
            await ended(process)
        told = f"sealtape {' '.join(words)}: exit {process.returncode}, expected {expect}\n"
        told += out.decode("utf-8", "replace") + err.decode()
        assert expect in {process.returncode, None}, told
        return out if binary else out.decode()

    async def lines(self, *words, **more):
        return [
            json.loads(line) for line in (await self.cli(*words, "--json", **more)).splitlines()
        ]

    async def verify(self, *words, expect=0, **more):
        """Verify, everything and deep unless told; return the report."""
        words = words or ("--all", "--deep")
        return json.loads(await self.cli("verify", *words, "--json", expect=expect, **more))

    async def raw(self, session, side):
        return await self.cli("replay", session, "--raw", side, binary=True)

    # -- waiting -----------------------------------------------------------------------------------

    async def sessions(self, query=""):
        """Session documents that match now, oldest first."""
        return await self._search("search_sessions", query)

    async def commands(self, query):
        """Command documents that match now, oldest first."""
        return await self._search("search_commands", query)

    async def _search(self, what, query):
        found, cursor = [], ""
        with contextlib.suppress(Missing, StoreBusy):
            # Opened anew each time: what is opened after a crash is a copy, and stays as it is.
            async with self.index_opened() as index:
                while True:
                    page = Page(limit=500, after=cursor, oldest_first=True)
                    hits = await getattr(index, what)(parse(query, now_ns=time.time_ns()), page)
                    found += hits.documents
                    cursor = hits.next
                    if not cursor:
                        break
        return found

    @contextlib.asynccontextmanager
    async def index_opened(self):
        """The index, read-only; Missing while the indexer has not made it."""
        try:
            index = await open_index(self.settings.stores.index, self.folder, read_only=True)
        except StoreError as exc:
            raise Missing("There is no index yet.") from exc
        try:
            yield index
        finally:
            await index.close()

    async def until(self, question, good=bool, *, seconds=120.0, what="it"):
        """Ask until the answer is good, and return it."""
        deadline = time.monotonic() + seconds
        while True:
            answer = await question()
            if good(answer):
                return answer
            if time.monotonic() > deadline:
                told = str(answer)[-2000:]
                raise AssertionError(f"{what}: not in {seconds} s: {told}\n{self.logs()[-4000:]}")
            await asyncio.sleep(0.05)

    async def sealed(self, count, query="", *, seconds=60.0):
        """Wait until so many sessions match and all are sealed; return them, oldest first."""

        def good(found):
            return len(found) >= count and all(each.state == "sealed" for each in found)

        found = await self.until(
            lambda: self.sessions(query), good, seconds=seconds, what=f"{count} sealed sessions"
        )
        assert len(found) == count, found
        return found

    async def adopted(self, workers=1, *, seconds=120.0):
        """Wait until the spools of dead workers are shipped: their folders are gone then."""

        async def folders():
            return len([path for path in (self.folder / "spool").iterdir() if path.is_dir()])

        await self.until(folders, lambda count: count == workers, seconds=seconds, what="adopting")

    async def all_sealed(self, *, seconds=120.0):
        """Wait until all that is on the bus is sealed and indexed; return the leaves there."""
        async with self.stores() as stores:
            leaves = await on_the_bus(stores.bus)
        expected = {session.hex() for session, _ in leaves}

        async def unsealed():
            """What the index and the ledger say of those that are not sealed."""
            found = [*await self.sessions(), *await self.sessions("protocol:journal")]
            left = expected - {each.session.hex() for each in found if each.state == "sealed"}
            said = {each.session.hex(): (each.state, each.frames) for each in found}
            async with self.stores() as stores:
                return {
                    name: (
                        said.get(name),
                        [
                            (head.epoch, head.hi, head.attested, head.lost, head.closed)
                            for head in await stores.ledger.epochs(bytes.fromhex(name))
                        ],
                    )
                    for name in left
                }

        await self.until(unsealed, lambda left: not left, seconds=seconds, what="sealing it all")
        return leaves

    # -- what is recorded --------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def stores(self, *, indexer=False):
        """The stores, read-only, and the keys of the auditors or of the indexer."""
        settings = self.settings
        async with contextlib.AsyncExitStack() as stack:
            ledger = await open_ledger(settings.stores.ledger, self.folder, read_only=True)
            stack.push_async_callback(ledger.close)
            keyring = await open_keyring(settings.stores.keyring, self.folder, read_only=True)
            stack.push_async_callback(keyring.close)
            vault = await open_vault(settings.stores.vault, self.folder)
            stack.push_async_callback(vault.close)
            bus = open_bus(settings.stores.bus, self.folder)
            stack.push_async_callback(bus.close)
            await bus.start()
            private = indexer_key(settings) if indexer else auditor_key(settings, None)
            yield Stores(ledger, vault, bus, Keys(keyring, private))

    async def legs(self, session):
        """Read a session's recording: the bytes of its four legs."""
        async with self.stores() as stores:
            return await stores.legs(session)


class Stores:
    """Open stores of a deployment."""

    def __init__(self, ledger, vault, bus, keys):
        self.ledger, self.vault, self.bus, self.keys = ledger, vault, bus, keys

    def recording(self, session):
        return Recording(session, self.ledger, self.vault, self.bus, self.keys)

    async def legs(self, session):
        pieces = []
        async for frame in self.recording(session).frames():
            if frame.kind == Kind.DATA:
                pieces += decode_data(await self.keys.open(frame), frame.ts_ns)
            elif frame.kind == Kind.GAP:
                pieces += Gap.from_json(frame.payload).legs
        assert all(not isinstance(each, Hole) for each in pieces)
        return [b"".join(leg_stream(pieces, leg)) for leg in range(4)]


async def on_the_bus(bus):
    """The leaves of every (session, epoch) whose frames are on the bus, by their seq."""
    found = {}
    for partition in range(bus.partitions):
        position, end = await bus.bounds(partition)
        while position < end:
            batch = await bus.read(partition, position, max_bytes=4 << 20, wait_s=0)
            for record in batch.records:
                message = messages.decode(record.value)
                if isinstance(message, Frame):
                    leaves = found.setdefault((message.session, message.epoch), {})
                    assert leaves.setdefault(message.seq, message.leaf()) == message.leaf()
            position = batch.next_offset
    return found


def replaced(text, old, new):
    assert text.count(old) == 1, old
    return text.replace(old, new)


def target_text(name, port, *, user="scram", more="", groups='["dba", "agents"]'):
    """The settings of a target; `more` may override nothing, only add."""
    return f"""
[targets.{name}]
address = "127.0.0.1:{port}"
database = "postgres"
databases = ["*"]
user = "{user}"
password = {{ file = "secrets/shop.password" }}
tls = "disable"
groups = {groups}
{more}
"""


async def run(*command, stdin=None, **environment):
    """Run a client to its end: exit code, output, errors."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=client_environment(**environment),
    )  # fmt: skip
    try:
        out, err = await asyncio.wait_for(process.communicate(stdin), 120)
    finally:
        await ended(process)
    return process.returncode, out.decode(), err.decode()


async def ended(process):
    """End a process that is still there: whoever waited for it was cancelled."""
    if process.returncode is None:
        process.kill()
        await process.communicate()


@contextlib.asynccontextmanager
async def tapped_lab(folder, server, **more):
    """A lab whose gateway reaches the target through a tap: (lab, that tap)."""
    async with Tap(server.port) as inner, Lab(folder, inner.port, **more) as lab:
        yield lab, inner
