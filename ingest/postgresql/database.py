"""Connections to one store on PostgreSQL, and what may be done with them again.

A failover or a restart drops connections and nothing else. So a call goes on trying for a while
(`patience`) where it is known that nothing has happened: everything before a COMMIT was sent, and
whatever may happen twice. A COMMIT without an answer is neither done nor undone to us, and is said
to be so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NoReturn, TypeVar

from sealtape.ingest.postgresql.access import Server
from sealtape.ingest.postgresql.errors import (
    away,
    foreign,
    load_client,
    settled,
    translated,
    unknown_outcome,
)
from sealtape.schemas.errors import SealtapeError, SettingsError, StoreBusy, StoreError

__all__ = ["Database", "close_quietly"]

T = TypeVar("T")

_BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
_SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_CLOSE_S = 5.0
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0


class _TryAgain(Exception):
    """Nothing has happened, and another connection may do better."""

    def __init__(self, reason: StoreError) -> None:
        super().__init__(reason.message)
        self.reason = reason


class Database:
    """A few connections to one server. Open with `await Database.open(server)`."""

    def __init__(self, server: Server, *, read_only: bool) -> None:
        """Only `open` calls this."""
        self.server = server
        self.read_only = read_only
        self._slots = asyncio.Semaphore(server.connections)
        self._idle: list[Any] = []
        self._held: Any = None
        self._closed = False

    @classmethod
    async def open(
        cls, server: Server, *, read_only: bool = False, snapshot: bool = False
    ) -> Database:
        """Connect. A `snapshot` is read-only, and answers as of now until it is closed."""
        database = cls(server, read_only=read_only or snapshot)
        if not snapshot:
            database._idle.append(await server.connect(read_only=read_only))
            return database
        connection = await server.connect(read_only=True, snapshot=True)
        database._slots = asyncio.Semaphore(1)
        database._held = connection
        try:
            await connection.execute(_SNAPSHOT)
            # The snapshot is taken by the first query, not by BEGIN.
            await connection.fetchval("SELECT 1")
        except Exception as error:
            await database.close()
            raise translated(error, server.place) from error
        return database

    async def fetch(self, sql: str, *values: object) -> list[Any]:
        """The rows of one query."""

        async def attempt() -> list[Any]:
            async with self._connection() as connection:
                try:
                    rows: list[Any] = await connection.fetch(sql, *values)
                except Exception as error:  # noqa: BLE001 - always raised, in our words
                    self._fail(error)
                return rows

        return await self._patiently(attempt)

    async def change(self, sql: str, *values: object) -> list[Any]:
        """The rows of one statement that changes something and may run twice."""
        self._may_write()
        return await self.fetch(sql, *values)

    async def once(self, sql: str, *values: object) -> list[Any]:
        """The rows of one statement that is a transaction of its own and is never run twice."""
        return await self.write(lambda connection: connection.fetch(sql, *values))

    async def write(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Run `work` in one transaction that is durable on return; any exception undoes all of it.

        `work` runs again when the connection went away before COMMIT was sent. When it went away
        after that, or the awaiting task was cancelled, the outcome is unknown.
        """
        self._may_write()

        async def attempt() -> T:
            async with self._connection() as connection:
                try:
                    await connection.execute(_BEGIN)
                    result = await work(connection)
                except Exception as error:  # noqa: BLE001 - always raised, in our words
                    await _roll_back(connection)
                    self._fail(error)
                await self._commit(connection)
                return result

        return await self._patiently(attempt)

    async def rehearse(self, sql: str) -> None:
        """Run one statement and undo it. Raises what running it would."""
        self._may_write()

        async def attempt() -> None:
            async with self._connection() as connection:
                try:
                    await connection.execute(_BEGIN)
                    await connection.execute(sql)
                except Exception as error:  # noqa: BLE001 - always raised, in our words
                    await _roll_back(connection)
                    self._fail(error)
                await _roll_back(connection)

        await self._patiently(attempt)

    async def close(self) -> None:
        """Close all connections that are idle; those in use close when they come back."""
        self._closed = True
        held, self._held = self._held, None
        idle, self._idle = self._idle, []
        for connection in [*idle, *([] if held is None else [held])]:
            await close_quietly(connection)

    # -- connections -------------------------------------------------------------------------------

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        """One connection for the caller alone. Whatever leaves it in doubt ends it."""
        async with self._slots:
            if self._closed:
                raise StoreError(f"{self.server.place} is closed here.")
            connection = self._held or await self._take()
            try:
                if connection.is_closed():
                    raise StoreError(
                        f"A snapshot of {self.server.place} ended with its connection."
                    )
                yield connection
            except Exception as error:
                if self._held is not None or not isinstance(error, SealtapeError):
                    connection.terminate()
                await self._give_back(connection)
                raise
            except BaseException:  # cancelled in the middle of something
                connection.terminate()
                raise
            await self._give_back(connection)

    async def _take(self) -> Any:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        try:
            return await self.server.connect(read_only=self.read_only)
        except StoreBusy as error:
            raise _TryAgain(error) from error
        except SettingsError as error:  # a secret's file that was there when the store was opened
            raise StoreError(error.message, hint=error.hint) from error

    async def _give_back(self, connection: Any) -> None:
        if connection is self._held or connection.is_closed():
            return
        if self._closed:
            await close_quietly(connection)
        else:
            self._idle.append(connection)

    async def _commit(self, connection: Any) -> None:
        try:
            said = await connection.execute("COMMIT")
        except Exception as error:
            connection.terminate()
            if not foreign(error) or settled(error):
                self._fail(error)
            raise unknown_outcome(self.server.place) from error
        if said != "COMMIT":
            raise StoreError(f"{self.server.place} has undone a transaction: {said}.")

    # -- failures ----------------------------------------------------------------------------------

    def _may_write(self) -> None:
        if self.read_only:
            raise StoreError(f"{self.server.place} is open for reading only.")

    def _fail(self, error: Exception) -> NoReturn:
        """Raise what a failure means before which nothing has happened."""
        if not foreign(error):
            raise error
        reason = translated(error, self.server.place)
        if away(error) and self._held is None:
            raise _TryAgain(reason) from error
        raise reason from error

    async def _patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        deadline = time.monotonic() + self.server.patience_s
        pause = _FIRST_PAUSE_S
        while True:
            try:
                return await attempt()
            except _TryAgain as again:
                if time.monotonic() + pause > deadline:
                    raise again.reason from again.__cause__
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)


async def _roll_back(connection: Any) -> None:
    """End the transaction; a connection that cannot do that is ended with it."""
    if connection.is_closed() or not connection.is_in_transaction():
        return
    try:
        await connection.execute("ROLLBACK")
    except Exception:  # noqa: BLE001 - what is raised is why it had to be rolled back
        connection.terminate()


async def close_quietly(connection: Any) -> None:
    """Say goodbye to the server; if that does not work, leave without."""
    try:
        await connection.close(timeout=_CLOSE_S)
    except (OSError, load_client().PostgresError, load_client().InterfaceError):
        connection.terminate()
