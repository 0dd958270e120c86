"""Where a store's PostgreSQL is and how to log in: the URL, its options, one connection.

    postgresql://user@host:5432,host2:5432/database?schema=…&password_file=…&tls=…&ca=…

Several hosts are tried in turn, and the one that is the primary is taken.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sealtape.capture.access import password, tls_context
from sealtape.ingest.postgresql.errors import foreign, load_client, translated
from sealtape.schemas.errors import SettingsError
from sealtape.schemas.urls import SECRET_OPTIONS, TLS_OPTIONS, StoreUrl, parse_store_url

__all__ = ["Server", "server_of"]

_OPTIONS = (
    "schema",
    "connections",
    "connect_timeout",
    "statement_timeout",
    "lock_timeout",
    "patience",
    *TLS_OPTIONS,
    *SECRET_OPTIONS,
)
# A role's name is the schema's and a word; PostgreSQL cuts names at 63 bytes.
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,47}")
_PORT = 5432
# A client that was stopped within a transaction must not hold its locks (a lease's row) longer.
_IDLE_S = 10.0
# How long after the server's own limit the client stops to wait for an answer.
_GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class Server:
    """A database server as a store's URL names it; times are in seconds.

    Attributes:
        schema: the schema that holds the store.
        connections: how many connections one open store uses at most.
        patience_s: how long a call goes on trying while the server is away.
    """

    url: StoreUrl
    base: Path
    schema: str
    connections: int
    connect_s: float
    statement_s: float
    lock_s: float
    patience_s: float

    @property
    def place(self) -> str:
        """What to call it in messages; holds no secret."""
        return f"PostgreSQL at {','.join(self.url.hosts)}/{self.url.path}"

    async def connect(
        self, *, read_only: bool = False, snapshot: bool = False, unlimited: bool = False
    ) -> Any:
        """Open one connection (`asyncpg.Connection`). Raises `SettingsError` and `StoreError`.

        Secrets are read anew each time. A `snapshot` may stay in its transaction for as long as it
        likes; `unlimited` statements (migrations) take the time they take.
        """
        asyncpg = load_client()
        arguments = self._arguments() | {
            "timeout": self.connect_s,
            "command_timeout": None if unlimited else self.statement_s + _GRACE_S,
            "server_settings": self._settings(
                read_only=read_only, snapshot=snapshot, unlimited=unlimited
            ),
        }
        connection = None
        try:
            connection = await asyncpg.connect(**arguments)
            if not read_only:
                await _be_durable(connection)
        except BaseException as error:
            if connection is not None:
                connection.terminate()
            if foreign(error):
                raise translated(error, self.place) from error
            raise
        return connection

    def _arguments(self) -> dict[str, Any]:
        hosts, ports = zip(*map(_host_and_port, self.url.hosts), strict=True)
        return {
            "host": list(hosts),
            "port": list(ports),
            "user": self.url.user,
            "database": self.url.path,
            "password": password(self.url, self.base),
            "ssl": tls_context(self.url, self.base) or False,
            "target_session_attrs": "primary",
        }

    def _settings(self, *, read_only: bool, snapshot: bool, unlimited: bool) -> dict[str, str]:
        return {
            "application_name": f"sealtape {self.schema}",
            "search_path": self.schema,
            "timezone": "UTC",
            "default_transaction_read_only": "on" if read_only else "off",
            "statement_timeout": "0" if unlimited else _milliseconds(self.statement_s),
            "lock_timeout": _milliseconds(self.lock_s),
            "idle_in_transaction_session_timeout": "0" if snapshot else _milliseconds(_IDLE_S),
        }


async def _be_durable(connection: Any) -> None:
    """Commits survive a crash of the host, also where the server's default is that they may not."""
    await connection.execute(
        "SELECT set_config('synchronous_commit', 'on', false)"
        " WHERE current_setting('synchronous_commit') = 'off'"
    )


def server_of(url: str, base: Path, schema: str) -> Server:
    """The server that a store's URL names; `schema` is the default. Raises `SettingsError`."""
    parts = parse_store_url(url, options=_OPTIONS)
    if not parts.hosts or not parts.path or "/" in parts.path or not parts.user:
        raise SettingsError(
            f"{parts.text_form!r} must name a user, a host and a database.",
            hint="Write it as postgresql://user@host:5432/database.",
        )
    name = parts.text("schema", schema)
    if not _SCHEMA.fullmatch(name):
        raise SettingsError(
            f"{parts.text_form!r}: `schema` must be a lower-case name of at most 48 letters,"
            " digits and '_'."
        )
    # What is wrong with these is wrong at once, not at the first connection.
    tls_context(parts, base)
    return Server(
        url=parts,
        base=base,
        schema=name,
        connections=parts.whole("connections", 8, 1, 100),
        connect_s=parts.duration("connect_timeout", 10.0),
        statement_s=parts.duration("statement_timeout", 30.0),
        lock_s=parts.duration("lock_timeout", 10.0),
        patience_s=parts.duration("patience", 10.0),
    )


def _host_and_port(host: str) -> tuple[str, int]:
    name, separator, port = host.rpartition(":")
    if not separator or port.endswith("]"):
        return host.strip("[]"), _PORT
    return name.strip("[]"), int(port)


def _milliseconds(seconds: float) -> str:
    return str(int(seconds * 1000))
