"""litewitness, a C2SP witness that nobody here wrote, with its key in an ssh-agent of its own.

    litewitness_server.follow(origin, vkey)       from now on it cosigns that log
    litewitness_server.url, .vkey                 what a policy names
    litewitness_server.seen(origin)               the size it has seen

`litewitness_alone` is the same for one test file: .stop() .start() .kill() .pause() .resume();
what it has seen is still there when it starts again.
"""

import contextlib
import hashlib
import secrets
import sqlite3

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sealtape.schemas.cosignatures import Cosigner
from tests.servers import availability, cache
from tests.servers.process import LOOPBACK, Server, Spec, answers, free_port

_PACKAGE = "filippo.io/torchwood/cmd/litewitness"
_EMPTY = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
# Its own; the program that fills them is not part of the package that can be compiled alone.
_TABLES = """
CREATE TABLE IF NOT EXISTS log (
    origin TEXT PRIMARY KEY, tree_size INTEGER NOT NULL, tree_hash TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS key (
    origin TEXT NOT NULL, key TEXT NOT NULL, FOREIGN KEY(origin) REFERENCES log(origin));
"""


def _build(folder):
    cache.go_program(_PACKAGE, cache.VERSIONS["litewitness"], folder)


cache.register(
    cache.Recipe("litewitness", cache.VERSIONS["litewitness"], _build, needs=("go", "ssh-agent"))
)


class LitewitnessServer(Server):
    """One litewitness; `name` is what it cosigns under."""

    KIND, PARTS = "litewitness", ("litewitness",)

    @classmethod
    def plan(cls, place):
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        (place / "key.pem").touch(mode=0o600)
        (place / "key.pem").write_bytes(pem)
        public = key.public_key().public_bytes_raw()
        witness = f"litewitness.example/{secrets.token_hex(4)}"
        with contextlib.closing(sqlite3.connect(place / "litewitness.db")) as database:
            database.executescript(_TABLES)
        return {
            "port": free_port(),
            "vkey": Cosigner(witness, public).vkey,
            "witness": witness,
            "fingerprint": hashlib.sha256(public).hexdigest(),
        }

    def spec(self):
        # The agent runs the program, and ends with it.
        program = (
            "ssh-add -q key.pem && exec "
            f"{self.at('litewitness', 'litewitness')} -name={self.facts['witness']} "
            f"-key={self.facts['fingerprint']} -listen={self.address} -ssh-agent=$SSH_AUTH_SOCK"
        )
        return Spec(["ssh-agent", "sh", "-c", program], cwd=self.place, stop="SIGINT")

    def healthy(self):
        return answers(self.facts["port"])

    @property
    def address(self) -> str:
        """ "host:port", for toxiproxy."""
        return f"{LOOPBACK}:{self.facts['port']}"

    @property
    def url(self) -> str:
        """Below which `add-checkpoint` is."""
        return f"http://{self.address}"

    @property
    def vkey(self) -> str:
        """Its public key, as a policy names it."""
        return self.facts["vkey"]

    def follow(self, origin, vkey) -> None:
        """Have it cosign for a log that signs with this key; a second key of a log is added."""
        with self._database() as database:
            database.execute("INSERT OR IGNORE INTO log VALUES (?, 0, ?)", (origin, _EMPTY))
            database.execute("INSERT INTO key VALUES (?, ?)", (origin, vkey))

    def seen(self, origin) -> int:
        """The size it has seen of a log."""
        with self._database() as database:
            query = "SELECT tree_size FROM log WHERE origin = ?"
            return database.execute(query, (origin,)).fetchone()[0]

    @contextlib.contextmanager
    def _database(self):
        path = self.place / "litewitness.db"
        with contextlib.closing(sqlite3.connect(path, timeout=20)) as database, database:
            yield database


@pytest.fixture(scope="session")
def litewitness_server():
    """The litewitness that all tests of the run share; have it `follow` a log of your own."""
    availability.need(LitewitnessServer)
    return LitewitnessServer.shared()


@pytest.fixture(scope="module")
def litewitness_alone():
    """A litewitness for this test file alone, to stop, kill and pause."""
    availability.need(LitewitnessServer)
    with LitewitnessServer.own() as server:
        yield server
