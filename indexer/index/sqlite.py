"""`sqlite:`, an index in one SQLite file with FTS5.

Removing rows is not enough for `drop`: SQLite leaves stale copies of moved cells in the slack of
pages even with `secure_delete`, and FTS5 keeps the words of deleted rows until segments merge. So a
drop ends with `optimize` (one FTS5 segment, without deleted words), VACUUM (every page written
anew) and a checkpoint that empties the write-ahead log. FTS5's own `secure-delete` is not used: it
is not in every SQLite we run on, and leaves `optimize` nothing to merge. All of it takes time
linear in the file; drops come in batches. A flag in the file brings an interrupted cleaning back.
"""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

from sealtape.capture.checkup import Check
from sealtape.indexer import tokens
from sealtape.indexer.index import fts5
from sealtape.indexer.index.base import Hits, Page, Update, stored
from sealtape.indexer.query import Query
from sealtape.ingest.sqlite import (
    Database,
    Migration,
    check_database,
    load_migrations,
    sqlite_path,
)
from sealtape.schemas.documents import CommandDocument, SessionDocument
from sealtape.schemas.errors import (
    Ambiguous,
    NotFound,
    StoreBusy,
    StoreError,
    UsageError,
)

__all__ = ["SqliteIndex", "check_file", "prepare_file"]

Document = TypeVar("Document", SessionDocument, CommandDocument)

_FOREVER = (1 << 63) - 1
_PREFIX = re.compile(r"[0-9a-f]{1,32}")
_CURSOR = re.compile(r"(-?[0-9]{1,19})\.([0-9]{1,19})\.([0-9]{1,19})")
_CHECKPOINT_ATTEMPTS = 50
_CHECKPOINT_PAUSE_S = 0.1
_TABLES = ("sessions", "commands", "words", "progress", "positions", "dropped")

_NAMES = ("user", "groups", "target", "agent", "run", "protocol", "source")
_SESSION_COLUMNS = ("session", "revision", "started_ns", "ended_ns", *_NAMES, "body")
_COMMAND_COLUMNS = (
    *("name", "session", "version", "time_ns", "n", *_NAMES),
    *("effect", "error", "failed", "tables", "body"),
)
_WORD_COLUMNS = ("text", "tables", "message")
_APART = " \u00b6 "
"""Between names stands a token that is no word, so that no phrase reaches from one to the next."""
_SHORT = 512
"""Characters of a text whose words may be remembered."""
_STRETCH = 128
"""Commands written by one statement. It runs without the interpreter's lock, which each statement
has to win back: from a busy event loop that takes far longer than the insert."""


@cache
def _insert(table: str, columns: tuple[str, ...], rows: int = 1) -> str:
    places = ", ".join([f"({', '.join('?' * len(columns))})"] * rows)
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {places}"  # noqa: S608  (names of ours)


def _changes(columns: tuple[str, ...], form: str) -> str:
    return ", ".join(form.format(column) for column in columns)


_PUT_SESSION = (
    f"{_insert('sessions', _SESSION_COLUMNS)} ON CONFLICT (session) "
    f"DO UPDATE SET {_changes(_SESSION_COLUMNS, '{0} = excluded.{0}')} "
    "WHERE excluded.revision >= sessions.revision"
)
_PUT_PROGRESS = """
INSERT OR REPLACE INTO progress SELECT ?, ? WHERE NOT EXISTS
  (SELECT 1 FROM sessions WHERE session = ? AND revision >= ?)
"""
_CHANGE_COMMAND = f"UPDATE commands SET {_changes(_COMMAND_COLUMNS, '{} = ?')} WHERE id = ?"  # noqa: S608  (names of ours)
_KEPT = """
SELECT name, id, version FROM commands WHERE name IN (SELECT value FROM json_each(?))
"""
_SESSIONS = """
SELECT s.body, s.started_ns, 0, s.id FROM sessions AS s
WHERE ({where}) AND (s.started_ns, 0, s.id) {sign} (?, ?, ?)
ORDER BY s.started_ns {order}, s.id {order} LIMIT ?
"""
_COMMANDS = """
SELECT c.body, c.time_ns, c.n, c.id FROM commands AS c
WHERE ({where}) AND (c.time_ns, c.n, c.id) {sign} (?, ?, ?)
ORDER BY c.time_ns {order}, c.n {order}, c.id {order} LIMIT ?
"""


async def prepare_file(url: str, base: Path) -> list[str]:
    """Make the file, or bring it up to date; says what it did. Raises `StoreError`."""
    path = sqlite_path(url, base)
    before = await asyncio.to_thread(path.exists)
    await (await SqliteIndex.open(url, base)).close()
    return [] if before else [f"made {path.name}"]


async def check_file(url: str, base: Path) -> list[Check]:
    """Findings about the file; see `check_index`."""
    return await check_database("index", sqlite_path(url, base), _layout())


def _layout() -> Sequence[Migration]:
    return load_migrations(Path(__file__).parent / "sql")


class SqliteIndex:
    """See `Index` for the contract. Open with `await SqliteIndex.open(url, base)`."""

    def __init__(self, database: Database) -> None:
        """Only `open` calls this."""
        self._database = database

    @classmethod
    async def open(cls, url: str, base: Path, *, read_only: bool = False) -> SqliteIndex:
        """Open `sqlite:FILE`; the file is made (mode 0600) unless `read_only`."""
        path = sqlite_path(url, base)
        index = cls(await Database.open(path, _layout(), read_only=read_only))
        try:
            await index._check(read_only=read_only)
        except BaseException:
            await index.close()
            raise
        return index

    async def put(self, update: Update) -> None:
        """Write an update; see `Index.put`."""
        await self._database.write(lambda connection: _put(connection, update))

    async def search_sessions(self, query: Query, page: Page) -> Hits[SessionDocument]:
        """Search sessions; see `Index.search_sessions`."""
        condition = fts5.sessions(query)
        return await self._search(_SESSIONS, condition, page, SessionDocument.from_json)

    async def search_commands(self, query: Query, page: Page) -> Hits[CommandDocument]:
        """Search commands; see `Index.search_commands`."""
        condition = fts5.commands(query)
        return await self._search(_COMMANDS, condition, page, CommandDocument.from_json)

    async def session(self, prefix: str) -> SessionDocument:
        """Find a session by its id or the beginning of it; see `Index.session`."""
        wanted = prefix.lower()
        if not _PREFIX.fullmatch(wanted):
            raise UsageError(
                f"{prefix!r} is not a session id.",
                hint="Session ids are 32 hexadecimal digits; the first few are enough.",
            )
        sql = "SELECT body, session FROM sessions WHERE session >= ? AND session < ? LIMIT 2"
        rows = await self._rows(sql, (wanted, wanted + "g"))
        if not rows:
            raise NotFound(
                f"There is no session {wanted}.", hint="List them with `sealtape sessions`."
            )
        if len(rows) > 1:
            raise Ambiguous(
                f"Several sessions begin with {wanted}, {rows[0][1]} and {rows[1][1]} among them.",
                hint="Give more digits.",
            )
        return SessionDocument.from_json(rows[0][0].encode())

    async def command(self, name: str) -> CommandDocument | None:
        """Fetch a command; see `Index.command`."""
        rows = await self._rows("SELECT body FROM commands WHERE name = ?", (name,))
        return CommandDocument.from_json(rows[0][0].encode()) if rows else None

    async def progress(self, session: str) -> bytes | None:
        """Fetch what was put; see `Index.progress`."""
        rows = await self._rows("SELECT value FROM progress WHERE session = ?", (session,))
        return bytes(rows[0][0]) if rows else None

    async def positions(self) -> dict[str, int]:
        """Fetch all positions; see `Index.positions`."""
        return dict(await self._rows("SELECT name, value FROM positions", ()))

    async def withdraw(self, session: str, again: int) -> None:
        """Remove commands of a session that is indexed anew; see `Index.withdraw`."""
        older = (session, stored(again, 0))

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "DELETE FROM words WHERE rowid IN"
                " (SELECT id FROM commands WHERE session = ? AND version < ?)",
                older,
            )
            connection.execute("DELETE FROM commands WHERE session = ? AND version < ?", older)

        await self._database.write(work)

    async def drop(self, *sessions: str) -> None:
        """Remove sessions without a trace; see `Index.drop`."""
        await self._database.write(lambda connection: _drop(connection, sessions))
        await self._clean()

    async def clear(self) -> None:
        """Remove everything without a trace; see `Index.clear`."""

        def work(connection: sqlite3.Connection) -> None:
            for table in _TABLES:
                connection.execute(f"DELETE FROM {table}")  # noqa: S608  (names of ours)
            _set_meta(connection, "unclean", 1)
            _set_meta(connection, "words", tokens.VERSION)

        await self._database.write(work)
        await self._clean()

    async def close(self) -> None:
        """Close the file."""
        await self._database.close()

    async def _check(self, *, read_only: bool) -> None:
        meta = dict(await self._rows("SELECT name, value FROM meta", ()))
        if not meta and not read_only:
            await self._database.write(
                lambda connection: _set_meta(connection, "words", tokens.VERSION)
            )
        elif meta.get("words", tokens.VERSION) != tokens.VERSION:
            raise StoreError(
                f"{self._database.path.name} was built by another rule for words.",
                hint="Delete the file; the indexer builds it again from the ledger and the vault.",
            )
        if meta.get("unclean") and not read_only:
            await self._clean()

    async def _rows(self, sql: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        return await self._database.read(
            lambda connection: connection.execute(sql, values).fetchall()
        )

    async def _search(
        self,
        sql: str,
        condition: fts5.Condition,
        page: Page,
        read: Callable[[bytes], Document],
    ) -> Hits[Document]:
        if page.limit < 1:
            raise UsageError(
                f"A page of {page.limit} hits has no sense.", hint="Ask for 1 or more."
            )
        sign, order = (">", "ASC") if page.oldest_first else ("<", "DESC")
        statement = sql.format(where=condition.sql, sign=sign, order=order)
        values = (*condition.parameters, *_cursor(page), min(page.limit + 1, _FOREVER))

        def work(connection: sqlite3.Connection) -> Hits[Document]:
            rows = connection.execute(statement, values).fetchall()
            last = rows[page.limit - 1][1:] if len(rows) > page.limit else ()
            found = tuple(read(row[0].encode()) for row in rows[: page.limit])
            return Hits(found, ".".join(map(str, last)))

        return await self._database.read(work)

    async def _clean(self) -> None:
        """Leave no byte of removed text in the file or its log."""
        await self._database.direct(_rewrite)
        for _ in range(_CHECKPOINT_ATTEMPTS):
            busy = await self._database.direct(
                lambda connection: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            )
            if not busy[0]:
                await self._database.write(lambda connection: _set_meta(connection, "unclean", 0))
                return
            await asyncio.sleep(_CHECKPOINT_PAUSE_S)
        raise StoreBusy(
            "The sessions are removed, but a reader keeps old pages in the index's log.",
            retry_after_s=1.0,
            hint="Call it again.",
        )


def _put(connection: sqlite3.Connection, update: Update) -> None:
    named = {document.id for document in update.sessions} | set(update.progress)
    named |= {session.hex() for session in {document.session for document in update.commands}}
    gone = {session for session in named if _is_dropped(connection, session)}
    sessions = [
        _session_row(document, update.stored(document.id, document.revision))
        for document in update.sessions
        if document.id not in gone
    ]
    connection.executemany(_PUT_SESSION, sessions)
    _put_commands(connection, update, {bytes.fromhex(session) for session in gone})
    for session, value in update.progress.items():
        if session in gone or value is None:
            connection.execute("DELETE FROM progress WHERE session = ?", (session,))
        else:
            above = stored(update.again.get(session, 0) + 1, 0)
            connection.execute(_PUT_PROGRESS, (session, value, session, above))
    for name, position in update.positions.items():
        connection.execute("INSERT OR REPLACE INTO positions VALUES (?, ?)", (name, position))


def _session_row(document: SessionDocument, revision: int) -> tuple[object, ...]:
    return (
        document.id,
        revision,
        document.started_ns,
        _FOREVER if document.ended_ns is None else document.ended_ns,
        *_names(document),
        document.to_json().decode(),
    )


def _names(document: SessionDocument | CommandDocument) -> tuple[object, ...]:
    return _folded_names(
        document.user,
        document.groups,
        document.target,
        document.agent,
        document.run,
        document.protocol,
        document.source,
    )


@lru_cache(maxsize=1024)
def _folded_names(
    user: str,
    groups: tuple[str, ...],
    target: str,
    agent: str,
    run: str,
    protocol: str,
    source: str,
) -> tuple[object, ...]:
    return (
        tokens.fold(user),
        _folded(groups),
        tokens.fold(target),
        tokens.fold(agent),
        tokens.fold(run),
        tokens.fold(protocol),
        fts5.packed_address(source),
    )


def _put_commands(connection: sqlite3.Connection, update: Update, gone: set[bytes]) -> None:
    newest: dict[str, CommandDocument] = {}
    for document in update.commands:
        name = document.id
        if document.session not in gone and (
            name not in newest or document.version >= newest[name].version
        ):
            newest[name] = document
    (last,) = connection.execute("SELECT coalesce(max(id), 0) FROM commands").fetchone()
    named = iter(newest.items())
    while stretch := dict(islice(named, _STRETCH)):
        last = _put_stretch(connection, stretch, last, update.again)


def _put_stretch(
    connection: sqlite3.Connection,
    stretch: dict[str, CommandDocument],
    last: int,
    again: Mapping[str, int],
) -> int:
    """Write commands by their names; new ones get ids after `last`. Returns the last id."""
    kept = connection.execute(_KEPT, (json.dumps(list(stretch)),)).fetchall()
    for name, rowid, version in kept:
        document = stretch.pop(name)
        if _version(document, again) >= version:
            _change_command(connection, rowid, name, document, again)
    rows, words = [], []
    for rowid, (name, document) in enumerate(stretch.items(), last + 1):
        rows.append((rowid, *_command_row(name, document, again)))
        words.append((rowid, *_words(document)))
    _insert_rows(connection, "commands", ("id", *_COMMAND_COLUMNS), rows)
    _insert_rows(connection, "words", ("rowid", *_WORD_COLUMNS), words)
    return last + len(rows)


def _insert_rows(
    connection: sqlite3.Connection,
    table: str,
    columns: tuple[str, ...],
    rows: Sequence[tuple[object, ...]],
) -> None:
    if len(rows) == _STRETCH:
        connection.execute(_insert(table, columns, _STRETCH), tuple(chain.from_iterable(rows)))
    else:
        connection.executemany(_insert(table, columns), rows)


def _change_command(
    connection: sqlite3.Connection,
    rowid: int,
    name: str,
    document: CommandDocument,
    again: Mapping[str, int],
) -> None:
    connection.execute(_CHANGE_COMMAND, (*_command_row(name, document, again), rowid))
    words = _words(document)
    sql = "SELECT text, tables, message FROM words WHERE rowid = ?"
    # The result of a command rarely changes its words, and an FTS5 update costs a second insert.
    if connection.execute(sql, (rowid,)).fetchone() != words:
        connection.execute("DELETE FROM words WHERE rowid = ?", (rowid,))
        _insert_rows(connection, "words", ("rowid", *_WORD_COLUMNS), [(rowid, *words)])


def _version(document: CommandDocument, again: Mapping[str, int]) -> int:
    # Nearly always there is none, and this is done for every command.
    times = again.get(document.session.hex(), 0) if again else 0
    return stored(times, document.version)


def _command_row(
    name: str, document: CommandDocument, again: Mapping[str, int]
) -> tuple[object, ...]:
    return (
        name,
        document.session.hex(),
        _version(document, again),
        document.time_ns,
        document.n,
        *_names(document),
        tokens.fold(document.effect),
        tokens.fold(document.error),
        int(document.status == "error"),
        _folded(document.tables),
        document.to_json().decode(),
    )


def _words(document: CommandDocument) -> tuple[str, str, str]:
    return (
        _cut(document.text),
        _APART.join(_cut(name) for name in document.tables),
        _cut(document.message),
    )


@lru_cache(maxsize=1024)
def _short_cut(text: str) -> str:
    return " ".join(tokens.words(text))


def _cut(text: str) -> str:
    """The words of a text, joined. Few texts make up most of a load; long ones are not kept."""
    return _short_cut(text) if len(text) <= _SHORT else " ".join(tokens.words(text))


@lru_cache(maxsize=1024)
def _folded(names: tuple[str, ...]) -> str:
    return json.dumps([tokens.fold(name) for name in names], ensure_ascii=False)


def _is_dropped(connection: sqlite3.Connection, session: str) -> bool:
    sql = "SELECT 1 FROM dropped WHERE session = ?"
    return connection.execute(sql, (session,)).fetchone() is not None


def _drop(connection: sqlite3.Connection, sessions: tuple[str, ...]) -> None:
    for session in sessions:
        connection.execute(
            "DELETE FROM words WHERE rowid IN (SELECT id FROM commands WHERE session = ?)",
            (session,),
        )
        for table in ("commands", "sessions", "progress"):
            connection.execute(
                f"DELETE FROM {table} WHERE session = ?",  # noqa: S608  (names of ours)
                (session,),
            )
        connection.execute("INSERT OR IGNORE INTO dropped VALUES (?)", (session,))
    _set_meta(connection, "unclean", 1)


def _rewrite(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO words (words) VALUES ('optimize')")
    connection.execute("VACUUM")


def _set_meta(connection: sqlite3.Connection, name: str, value: int) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))


def _cursor(page: Page) -> tuple[int, int, int]:
    if not page.after:
        start = -_FOREVER if page.oldest_first else _FOREVER
        return (start, start, start)
    found = _CURSOR.fullmatch(page.after)
    time_ns, n, rowid = (int(part) for part in found.groups()) if found else (0, 0, -1)
    if rowid < 0 or max(abs(time_ns), n, rowid) > _FOREVER:
        raise UsageError(
            f"{page.after!r} is not a cursor of a search.", hint="Start again without it."
        )
    return (time_ns, n, rowid)
