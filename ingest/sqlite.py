"""A SQLite file behind one thread of its own: the embedded keyring and ledger stand on this.

Every statement runs on the store's single worker thread, so the event loop never waits for a disk
and two transactions of one process never meet. Other processes may hold the same file: `write`
takes the lock up front (`BEGIN IMMEDIATE`), and what SQLite reports leaves as a `StoreError`.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import shutil
import sqlite3
import struct
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import quote

from sealtape.capture.checkup import Check
from sealtape.schemas.errors import SettingsError, StoreBusy, StoreCorrupt, StoreError, StoreFull
from sealtape.schemas.urls import shown_url

__all__ = [
    "Database",
    "Migration",
    "check_database",
    "load_migrations",
    "sqlite_path",
    "translated",
]

T = TypeVar("T")
Migration = tuple[int, str]
"""Its number (1, 2, ...) and its SQL script."""

BUSY_TIMEOUT_S = 10.0
_LOOKS = 50
_LOOK_AGAIN_S = 0.05
_MIGRATION_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")


def sqlite_path(url: str, base: Path) -> Path:
    """The file a `sqlite:PATH` URL names, relative to `base`. Raises `SettingsError`."""
    scheme, separator, path = url.partition(":")
    if scheme != "sqlite" or not separator or not path or "?" in path:
        raise SettingsError(
            f"{shown_url(url)!r} does not name a SQLite store.", hint="Write it as sqlite:FILE."
        )
    return base / path


def load_migrations(folder: Path) -> list[Migration]:
    """The numbered scripts of `folder`, in order. Raises `StoreError` on a hole in the numbers."""
    found = []
    for file in sorted(folder.glob("*.sql")):
        match = _MIGRATION_NAME.fullmatch(file.name)
        if match is None:
            raise StoreError(f"{file.name} is not named like 0001_what_it_does.sql.")
        found.append((int(match[1]), file.read_text(encoding="utf-8")))
    if [number for number, _ in found] != list(range(1, len(found) + 1)):
        raise StoreError(f"The migrations in {folder.name} are not numbered 0001, 0002, ...")
    return found


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn what SQLite and the file system raise into our words."""
    try:
        yield
    except sqlite3.Error as error:
        raise _translate(error, path) from error
    except OSError as error:
        raise StoreError(
            f"{path.name} cannot be used: {error.strerror}.", path=str(path)
        ) from error


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 for what the Python module itself raises."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def _translate(error: sqlite3.Error, path: Path) -> StoreError:
    code = _code(error)
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return StoreBusy(
            f"{path.name} is locked by another process.", retry_after_s=1.0, path=str(path)
        )
    exactly = getattr(error, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_FULL or exactly == sqlite3.SQLITE_IOERR_SHMSIZE:
        return StoreFull(f"No room to write {path.name}.", hint="Free disk space.", path=str(path))
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return StoreCorrupt(f"{path.name} is damaged: {error}.", path=str(path))
    return StoreError(f"{path.name}: {error}.", path=str(path))


class Database:
    """One SQLite file, its thread and its migrations. Open with `await Database.open(...)`."""

    def __init__(self, path: Path, *, read_only: bool, snapshot: bool) -> None:
        """Only `open` calls this."""
        self.path = path
        self.read_only = read_only
        self._snapshot = snapshot
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"sqlite-{path.stem}")
        self._connection: sqlite3.Connection | None = None
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self._layout = 0

    @classmethod
    async def open(
        cls,
        path: Path,
        migrations: Sequence[Migration],
        *,
        read_only: bool = False,
        snapshot: bool = False,
    ) -> Database:
        """Open, and create or bring up to date unless `read_only`. Raises `StoreError`.

        A `snapshot` is read-only too, and stays as it was at the first read until it is closed.
        """
        database = cls(path, read_only=read_only or snapshot, snapshot=snapshot)
        try:
            await database._call(lambda: database._connect(migrations))
        except BaseException:
            await database.close()
            raise
        return database

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in the thread, in one read transaction (one consistent view)."""
        return await self._call(lambda: self._within("BEGIN", work))

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in one transaction that is durable on return; any exception undoes all of it.

        If the awaiting task is cancelled the transaction still ends one way or the other: its
        outcome is then unknown to the caller, as after a crash.
        """
        return await self._call(lambda: self._within("BEGIN IMMEDIATE", work))

    async def direct(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` outside any transaction (checkpoints, pragmas)."""
        return await self._call(lambda: work(self._open_connection()))

    async def close(self) -> None:
        """Close the file, after what is queued has run. Closing twice is fine."""
        loop = asyncio.get_running_loop()
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await loop.run_in_executor(self._thread, connection.close)
        # All queued work has run, so joining the thread takes no time worth an executor.
        self._thread.shutdown(wait=True)
        self._forget_copy()

    def _forget_copy(self) -> None:
        if self._copy is not None:
            self._copy.cleanup()
            self._copy = None

    async def _call(self, work: Callable[[], T]) -> T:
        def guarded() -> T:
            with translated(self.path):
                return work()

        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, guarded)
        except RuntimeError as error:  # the executor refuses after shutdown
            raise StoreError(f"{self.path.name} is closed.", path=str(self.path)) from error

    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError(f"{self.path.name} is closed.", path=str(self.path))
        return self._connection

    def _within(self, begin: str, work: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._open_connection()
        if self._snapshot:
            if not connection.in_transaction:
                connection.execute("BEGIN")
            return work(connection)
        connection.execute(begin)
        try:
            # Another process, of a newer version, may have changed it since it was opened.
            self._check_version(self._layout)
            result = work(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return result

    def _connect(self, migrations: Sequence[Migration]) -> None:
        if self.read_only:
            self._connection = self._connect_read_only()
        else:
            self._connection = self._connect_writing()
            for number, script in migrations:
                self._migrate(number, script)
        self._layout = len(migrations)
        self._check_version(self._layout)

    def _connect_writing(self) -> sqlite3.Connection:
        if not self.path.exists():
            self.path.touch(mode=0o600)
        connection = sqlite3.connect(
            self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        try:
            _write_ahead(connection)
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA secure_delete=ON")
            connection.execute("PRAGMA foreign_keys=ON")
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect_read_only(self) -> sqlite3.Connection:
        """Open without creating or changing a file, whatever state the writer left.

        Beside a live writer SQLite reads through the writer's shared memory. Without a write-ahead
        log the file is whole by itself. A log that nobody has open (left by a crash) can only be
        read by writing into shared memory, so that is done on a copy. A writer that comes or goes
        meanwhile makes or removes these files: then they are looked at again.
        """
        if not self.path.exists():
            raise StoreError(f"There is no {self.path.name}.", path=str(self.path))
        for _ in range(_LOOKS):
            try:
                if (connection := self._look()) is not None:
                    return connection
            except FileNotFoundError:
                pass
            except sqlite3.OperationalError as error:
                if _code(error) != sqlite3.SQLITE_CANTOPEN:
                    raise
            self._forget_copy()
            time.sleep(_LOOK_AGAIN_S)
        raise StoreBusy(
            f"{self.path.name} is opened and closed all the time.",
            retry_after_s=1.0,
            path=str(self.path),
        )

    def _look(self) -> sqlite3.Connection | None:
        """Open what is there now; None when it was not the same from beginning to end."""
        path, options = self.path, "mode=ro"
        log, memory = (path.with_name(path.name + end) for end in ("-wal", "-shm"))
        if not log.exists():
            options = "immutable=1"
        elif not _in_use(memory):
            self._copy = tempfile.TemporaryDirectory(prefix="sealtape-")
            for file in (path, log):
                shutil.copyfile(file, Path(self._copy.name) / file.name)
            path = Path(self._copy.name) / path.name
            if _in_use(memory) or not log.exists():
                return None
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?{options}",
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            _version(connection)  # only now are the files opened
        except BaseException:
            connection.close()
            raise
        # SQLite has its files open and reads on. A copy with a name would outlive a process that
        # is killed, and with it keys that are destroyed later.
        self._forget_copy()
        return connection

    def _migrate(self, number: int, script: str) -> None:
        connection = self._open_connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Looked at under the lock: another process may have migrated a moment ago.
            if _version(connection) < number:
                for statement in _statements(script):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version={number}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _check_version(self, expected: int) -> None:
        version = _version(self._open_connection())
        if version != expected:
            raise StoreError(
                f"{self.path.name} has layout {version}, this version knows layout {expected}.",
                hint="Use the version of Sealtape that wrote it."
                if version > expected
                else "Start ingest once; it brings the file up to date.",
                path=str(self.path),
            )


async def check_database(name: str, path: Path, migrations: Sequence[Migration]) -> list[Check]:
    """Look at a store's file without changing it: layout, mode, disk. Never raises `StoreError`."""
    if not await asyncio.to_thread(path.exists):
        hint = "`sealtape setup` makes it."
        return [Check(f"{name}: file", "warning", f"{path} does not exist yet.", hint)]
    try:
        await (await Database.open(path, migrations, read_only=True)).close()
    except StoreError as error:
        return [Check(f"{name}: file", "error", error.message, error.hint)]
    message, hint, room, low = await asyncio.to_thread(_look_at, path)
    level: Literal["ok", "warning"] = "warning" if message else "ok"
    advice = "Make room: ingest stops when it is full." if low else ""
    return [
        Check(f"{name}: file", level, message or f"{path}, layout {len(migrations)}", hint),
        Check(f"{name}: disk", "warning" if low else "ok", room, advice),
    ]


def _look_at(path: Path) -> tuple[str, str, str, bool]:
    """What is wrong with a file and what to do; the room on its disk, and whether that is low."""
    mode = path.stat().st_mode & 0o777
    wrong = hint = ""
    if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
        wrong = f"{path} or its folder may not be written."
    elif mode & 0o077:
        wrong, hint = f"{path} has mode {mode:o}: others may read it.", f"chmod 600 {path}"
    disk = shutil.disk_usage(path.parent)
    room = f"{disk.free >> 20} MiB of {disk.total >> 20} MiB of the disk are free."
    return wrong, hint, room, disk.free < disk.total / 10


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Have a write-ahead log. Where two ask for a new one at once, SQLite lets neither wait."""
    latest = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > latest:
                raise
            time.sleep(_LOOK_AGAIN_S)
        else:
            return


def _in_use(memory: Path) -> bool:
    """Whether a connection, of whatever process, has this shared-memory file open.

    Each holds a lock on byte 128 (SQLite's UNIX_SHM_DMS). Where the platform cannot be asked about
    the locks of others, an existing file is taken to be in use.
    """
    try:
        with memory.open("rb") as file:
            ask = getattr(fcntl, "F_OFD_GETLK", None)
            if ask is None:
                return True
            question = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 128, 1, 0)
            answer = fcntl.fcntl(file, ask, question)
    except FileNotFoundError:
        return False
    return bool(struct.unpack_from("h", answer)[0] != fcntl.F_UNLCK)


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _statements(script: str) -> Iterator[str]:
    """The statements of a script one by one, so that they can share one transaction."""
    pending = ""
    for piece in re.split(r"(?<=;)", script):
        pending += piece
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
    if pending.strip():
        raise StoreError("A migration ends in the middle of a statement.")
