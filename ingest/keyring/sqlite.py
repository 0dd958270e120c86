"""`sqlite:`, a keyring in one SQLite file.

`secure_delete` alone does not keep the promise of `destroy`: when SQLite balances its B-tree it
copies cells between pages, and stale copies stay in the slack of pages (a few in a thousand, seen
by scanning files). So rows are only ever appended, which never moves a cell, and destroying
overwrites the key bytes in place with zeros of the same length. A checkpoint then carries the
zeros into the file and truncates the write-ahead log.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from sealtape.capture.checkup import Check
from sealtape.ingest.keyring.base import wrap_of
from sealtape.ingest.sqlite import Database, Migration, check_database, sqlite_path
from sealtape.schemas.errors import Exists, StoreBusy
from sealtape.schemas.messages import KeyMessage
from sealtape.schemas.wraps import Wrap

__all__ = ["SqliteKeyring", "check_file", "prepare_file"]

# No foreign index holds key bytes: `wrap` is a rowid table, and the index covers names only.
_LAYOUT: list[Migration] = [
    (
        1,
        """
        CREATE TABLE wrap (
          id INTEGER PRIMARY KEY,
          session BLOB NOT NULL, epoch INTEGER NOT NULL, label TEXT NOT NULL,
          recipient TEXT NOT NULL, suite TEXT NOT NULL, sealed BLOB NOT NULL,
          tenant TEXT NOT NULL, retention TEXT NOT NULL,
          disputed INTEGER NOT NULL, destroyed INTEGER NOT NULL DEFAULT 0
        );
        CREATE INDEX wrap_name ON wrap (session, epoch, label, recipient);
        CREATE TABLE destroyed (session BLOB PRIMARY KEY) WITHOUT ROWID;
        """,
    )
]
_CHECKPOINT_ATTEMPTS = 50
_CHECKPOINT_PAUSE_S = 0.1
_PAGE = 1000


async def prepare_file(url: str, base: Path) -> list[str]:
    """Make the file, or bring it up to date; says what it did. Raises `StoreError`."""
    path = sqlite_path(url, base)
    before = await asyncio.to_thread(path.exists)
    await (await SqliteKeyring.open(url, base)).close()
    return [] if before else [f"made {path.name}"]


async def check_file(url: str, base: Path) -> list[Check]:
    """Findings about the file; see `check_keyring`."""
    return await check_database("keyring", sqlite_path(url, base), _LAYOUT)


class SqliteKeyring:
    """See `Keyring` for the contract. Open with `await SqliteKeyring.open(url, base)`."""

    def __init__(self, database: Database) -> None:
        """Only `open` calls this."""
        self._database = database

    @classmethod
    async def open(cls, url: str, base: Path, *, read_only: bool = False) -> SqliteKeyring:
        """Open `sqlite:FILE`; the file is made (mode 0600) unless `read_only`."""
        path = sqlite_path(url, base)
        return cls(await Database.open(path, _LAYOUT, read_only=read_only))

    async def put(self, message: KeyMessage) -> bool:
        """Keep a wrap; see `Keyring.put`."""
        wrap_of(message)
        return await self._database.write(lambda connection: _put(connection, message))

    async def dispute(self, message: KeyMessage) -> None:
        """Keep a refused wrap aside; see `Keyring.dispute`."""
        wrap_of(message)
        await self._database.write(lambda connection: _dispute(connection, message))

    async def get(
        self, session: bytes, epoch: int | None, label: str, recipient: str | None = None
    ) -> list[Wrap]:
        """The wraps of one label; see `Keyring.get`."""
        sql = (
            "SELECT session, epoch, label, recipient, suite, sealed FROM wrap"
            " WHERE session=? AND label=? AND NOT disputed AND NOT destroyed"
        )
        values: list[object] = [session, label]
        if epoch is not None:
            sql += " AND epoch=?"
            values.append(epoch)
        if recipient is not None:
            sql += " AND recipient=?"
            values.append(recipient)
        return await self._wraps(sql + " ORDER BY epoch, recipient", values)

    async def disputed(self, session: bytes) -> list[Wrap]:
        """The wraps kept aside; see `Keyring.disputed`."""
        sql = (
            "SELECT session, epoch, label, recipient, suite, sealed FROM wrap"
            " WHERE session=? AND disputed AND NOT destroyed ORDER BY id"
        )
        return await self._wraps(sql, [session])

    async def destroy(self, session: bytes) -> int:
        """Destroy a session's wraps; see `Keyring.destroy`."""
        return await self.destroy_many([session])

    async def destroy_many(self, sessions: Sequence[bytes]) -> int:
        """Destroy the wraps of many sessions; see `Keyring.destroy_many`."""
        count = await self._database.write(
            lambda connection: sum(_destroy(connection, session) for session in sessions)
        )
        await self._empty_log()
        return count

    async def destroyed(self, session: bytes) -> bool:
        """Whether the session was destroyed; see `Keyring.destroyed`."""
        return await self._database.read(lambda connection: _is_destroyed(connection, session))

    async def sessions(self, after: bytes = b"") -> AsyncIterator[bytes]:
        """Sessions with wraps; see `Keyring.sessions`."""
        sql = (
            "SELECT DISTINCT session FROM wrap WHERE session>? AND NOT destroyed"
            " ORDER BY session LIMIT ?"
        )
        while True:
            start = after
            rows = await self._database.read(
                lambda connection, start=start: connection.execute(sql, (start, _PAGE)).fetchall()  # type: ignore[misc]
            )
            for (session,) in rows:
                yield session
            if len(rows) < _PAGE:
                return
            after = rows[-1][0]

    async def close(self) -> None:
        """Close the file."""
        await self._database.close()

    async def _wraps(self, sql: str, values: list[object]) -> list[Wrap]:
        def work(connection: sqlite3.Connection) -> list[Wrap]:
            return [Wrap(*row) for row in connection.execute(sql, values)]

        return await self._database.read(work)

    async def _empty_log(self) -> None:
        """Carry all pages into the file and cut the write-ahead log to nothing.

        A reader in another process can hold this up; readers here are short, so waiting is enough.
        """
        for _ in range(_CHECKPOINT_ATTEMPTS):
            busy = await self._database.direct(
                lambda connection: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            )
            if not busy[0]:
                return
            await asyncio.sleep(_CHECKPOINT_PAUSE_S)
        raise StoreBusy(
            "The keys are destroyed, but a reader keeps old pages in the keyring's log.",
            retry_after_s=1.0,
            hint="Call destroy again.",
        )


def _is_destroyed(connection: sqlite3.Connection, session: bytes) -> bool:
    row = connection.execute("SELECT 1 FROM destroyed WHERE session=?", (session,)).fetchone()
    return row is not None


def _kept(connection: sqlite3.Connection, message: KeyMessage) -> list[tuple[str, bytes, int]]:
    return connection.execute(
        "SELECT suite, sealed, disputed FROM wrap"
        " WHERE session=? AND epoch=? AND label=? AND recipient=?",
        (message.session, message.epoch, message.label, message.recipient),
    ).fetchall()


def _insert(connection: sqlite3.Connection, message: KeyMessage, *, disputed: bool) -> None:
    connection.execute(
        "INSERT INTO wrap (session, epoch, label, recipient, suite, sealed, tenant, retention,"
        " disputed) VALUES (?,?,?,?,?,?,?,?,?)",
        (
            message.session,
            message.epoch,
            message.label,
            message.recipient,
            message.suite,
            message.sealed,
            message.tenant,
            message.retention,
            disputed,
        ),
    )


def _put(connection: sqlite3.Connection, message: KeyMessage) -> bool:
    if _is_destroyed(connection, message.session):
        return False
    first = [row for row in _kept(connection, message) if not row[2]]
    if not first:
        _insert(connection, message, disputed=False)
    elif first[0][:2] != (message.suite, message.sealed):
        raise Exists(
            "The keyring holds another wrap under this name; the first one stays.",
            session=message.session.hex(),
            epoch=message.epoch,
            label=message.label,
            recipient=message.recipient,
        )
    return True


def _dispute(connection: sqlite3.Connection, message: KeyMessage) -> None:
    if _is_destroyed(connection, message.session):
        return
    if all(row[:2] != (message.suite, message.sealed) for row in _kept(connection, message)):
        _insert(connection, message, disputed=True)


def _destroy(connection: sqlite3.Connection, session: bytes) -> int:
    connection.execute("INSERT OR IGNORE INTO destroyed VALUES (?)", (session,))
    # 0 and 1 have the same encoded size, and so have a blob and its zeros: the cell stays in place.
    return connection.execute(
        "UPDATE wrap SET sealed=zeroblob(length(sealed)), destroyed=1"
        " WHERE session=? AND NOT destroyed",
        (session,),
    ).rowcount
