"""A PostgreSQL as a store: it syncs what it commits, and speaks TLS.

    database = postgres_stores.database()           a new one
    database.url("schema=sealtape_ledger")           TLS, the owner, a password file
    database.sql("select 1")                         as the superuser, over TLS: rows

`postgres_stores_alone` is the same for one test file: .stop() .start() .kill() .pause() .resume()
The users of `tests/servers/postgres.py` are targets of recorded sessions; this one is a store.
"""

import platform
import secrets
import tarfile
import zipfile

import psycopg
import pytest

from tests.servers import availability, cache
from tests.servers.process import LOOPBACK, Server, Spec, answers, free_port, give, run_tool
from tests.servers.tls import Authority

SUPERUSER = "admin"
_ARTIFACT = "io.zonky.test.postgres:embedded-postgres-binaries"
_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64v8", "arm64": "arm64v8"}
# Whoever is in this role needs no password but a certificate with its name.
BY_CERTIFICATE = "by_certificate"
_HBA = f"""\
hostssl all +{BY_CERTIFICATE} all cert
host    all all               all scram-sha-256
"""
_CONFIG = """\
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
max_connections = 200
shared_buffers = 64MB
ssl = on
ssl_cert_file = '{place}/tls/server.crt'
ssl_key_file = '{place}/tls/server.key'
ssl_ca_file = '{place}/tls/ca.crt'
password_encryption = 'scram-sha-256'
log_lock_waits = on
"""


def _build(folder):
    system = platform.system().lower()
    kind = f"{system}-{_ARCHITECTURES[platform.machine().lower()]}"
    jar = cache.maven_file(f"{_ARTIFACT}-{kind}:{cache.VERSIONS['postgres']}", folder)
    with zipfile.ZipFile(jar) as outer:
        (archive,) = [name for name in outer.namelist() if name.endswith(".txz")]
        with outer.open(archive) as inner, tarfile.open(fileobj=inner, mode="r:xz") as tree:
            tree.extractall(folder, filter="tar")
    jar.unlink()


cache.register(cache.Recipe("postgres", cache.VERSIONS["postgres"], _build, needs=("mvn",)))


class Database:
    """A database of a `PostgresStores`."""

    def __init__(self, server, name):
        self.server = server
        self.name = name

    def url(self, *options, user=SUPERUSER, password_file=None):
        """The URL of a store in it, over TLS, checked against the test authority."""
        server = self.server
        settings = [f"password_file={password_file or server.password_file}", f"ca={server.ca}"]
        query = "&".join([*options, *settings])
        return f"postgresql://{user}@{server.address}/{self.name}?{query}"

    def sql(self, text, *parameters):
        """Run statements as the superuser and return the rows of the last one."""
        return self.server.sql(text, *parameters, database=self.name)


class PostgresStores(Server):
    """One PostgreSQL with TLS; `SUPERUSER` and its password own everything."""

    KIND, PARTS = "postgres-stores", ("postgres",)

    @classmethod
    def plan(cls, place):
        port, password = free_port(), secrets.token_urlsafe(18)
        (place / "tls").mkdir()
        authority = Authority(place / "tls")
        authority.server()
        for name in ("admin", "ingest", "indexer", "stranger"):
            authority.client(name)
        (place / "password").write_text(password)
        give(place)
        argv = ["bin/initdb", "-D", place / "data", "-U", SUPERUSER, "--pwfile", place / "password",
                "-A", "scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions",
                "--no-sync"]  # fmt: skip
        run_tool(place, "postgres", argv)
        data = place / "data"
        (data / "pg_hba.conf").write_text(_HBA)
        with (data / "postgresql.conf").open("a") as config:
            config.write(_CONFIG.format(port=port, place=place))
        return {"port": port, "password": password}

    def spec(self):
        program = self.at("postgres", "bin/postgres")
        return Spec([program, "-D", self.place / "data"], stop="SIGINT")

    def healthy(self):
        if not answers(self.facts["port"]):
            return False
        try:
            return self.sql("select 1") == [(1,)]
        except psycopg.OperationalError as error:
            raise ConnectionError(error) from error

    def settle(self):
        self.sql(f"create role {BY_CERTIFICATE}")

    @property
    def ca(self):
        """The file of the authority to trust."""
        return self.place / "tls/ca.crt"

    @property
    def password_file(self):
        """The file with the superuser's password."""
        return self.place / "password"

    def certificate(self, name):
        """Paths of chain and key for a user: admin, ingest, indexer or stranger."""
        return self.place / f"tls/{name}.crt", self.place / f"tls/{name}.key"

    def database(self) -> Database:
        """Make a database."""
        name = f"d{secrets.token_hex(6)}"
        self.sql(f"create database {name}")
        return Database(self, name)

    def sql(self, text, *parameters, database="postgres"):
        """Run statements as the superuser and return the rows of the last one."""
        connection = psycopg.connect(
            host=LOOPBACK, port=self.facts["port"], user=SUPERUSER, dbname=database,
            password=self.facts["password"], sslmode="verify-full", sslrootcert=str(self.ca),
            sslcert=str(self.place / "no.crt"), connect_timeout=10, autocommit=True,
        )  # fmt: skip
        with connection:
            cursor = connection.execute(text, parameters or None)
            return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="session")
def postgres_stores():
    """The PostgreSQL for stores that all tests of the run share; ask it for a `database()`."""
    availability.need(PostgresStores)
    return PostgresStores.shared()


@pytest.fixture(scope="module")
def postgres_stores_alone():
    """A PostgreSQL for stores for this test file alone, to stop, kill and pause."""
    availability.need(PostgresStores)
    with PostgresStores.own() as server:
        yield server
