"""What the SQLite ledger keeps of the log: its entries, its state, the inbox, what has no seal."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from sealtape.ingest.ledger.rows import Lease, LogEntry, LogState, Submitted, Unsealed
from sealtape.ingest.ledger.steps import (
    check_appended,
    check_submitted,
    fenced,
    head_of,
    name_taken,
    sealed_epochs,
)
from sealtape.ingest.sqlite import Database

__all__ = ["SqliteLog", "append_all"]


class SqliteLog:
    """The methods of `Ledger` that are about the log; `SqliteLedger` is made with them."""

    _database: Database
    _clock_ns: Callable[[], int]

    async def log_state(self) -> LogState:
        """How far the log is; see `Ledger`."""
        return await self._database.read(_state)

    async def log_append(
        self, lease: Lease, number: int, first: int, entries: Sequence[LogEntry], cursor: bytes
    ) -> None:
        """Add entries at the end; see `Ledger`."""
        await self._database.write(
            lambda connection: append_all(connection, lease, number, first, entries, cursor)
        )

    async def log_noted(self, lease: Lease, number: int, note: bytes, witnessed: bytes) -> None:
        """Store the last notes; see `Ledger`."""

        def work(connection: sqlite3.Connection) -> None:
            _check_term(connection, lease)
            changed = connection.execute(
                "UPDATE log_state SET note=CASE WHEN ?1=x'' THEN note ELSE ?1 END,"
                " witnessed=CASE WHEN ?2=x'' THEN witnessed ELSE ?2 END WHERE number=?3",
                (note, witnessed, number),
            ).rowcount
            if changed != 1:
                fenced(lease, f"the log is not in shard {number}")

        await self._database.write(work)

    async def log_entries(self, number: int, first: int = 0, limit: int = 1000) -> list[LogEntry]:
        """Entries of a shard, in order; see `Ledger`."""
        rows = await self._database.read(
            lambda connection: connection.execute(
                "SELECT idx, name, entry FROM log_entry WHERE number=? AND idx>=?"
                " ORDER BY idx LIMIT ?",
                (number, first, limit),
            ).fetchall()
        )
        return [LogEntry(*row) for row in rows]

    async def log_find(self, names: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Where entries are; see `Ledger`."""

        def work(connection: sqlite3.Connection) -> dict[str, tuple[int, int]]:
            found = {}
            for name in names:
                row = connection.execute(
                    "SELECT number, idx FROM log_entry WHERE name=? AND name<>''", (name,)
                ).fetchone()
                if row is not None:
                    found[name] = (row[0], row[1])
            return found

        return await self._database.read(work)

    async def log_seals(self, number: int, first: int, end: int) -> tuple[int, LogEntry | None]:
        """How many seals there are, and the first; see `Ledger`."""
        [(count, *row)] = await self._database.read(
            lambda connection: connection.execute(_SEALS, (number, first, end)).fetchall()
        )
        return count, LogEntry(*row) if count else None

    async def log_statements(
        self, number: int, first: int = 0, limit: int = 1000
    ) -> list[LogEntry]:
        """What somebody signed, in order; see `Ledger`."""
        rows = await self._database.read(
            lambda connection: connection.execute(_STATEMENTS, (number, first, limit)).fetchall()
        )
        return [LogEntry(*row) for row in rows]

    async def unsealed(
        self, after: tuple[bytes, int] | None = None, limit: int = 500
    ) -> list[Unsealed]:
        """Epochs that may be final and have no seal; see `Ledger`."""
        values = (*(after or (b"", -1)), limit)
        rows = await self._database.read(
            lambda connection: connection.execute(_UNSEALED, values).fetchall()
        )
        return [
            Unsealed(head_of(row), state, bool(followed), changed_ns)
            for *row, state, followed, changed_ns in rows
        ]

    async def submit(self, kind: str, payload: bytes) -> int:
        """Put something into the inbox; see `Ledger`."""
        check_submitted(payload)
        now = self._clock_ns()

        def work(connection: sqlite3.Connection) -> int:
            number = connection.execute(
                "INSERT INTO inbox (kind, payload, at_ns) VALUES (?,?,?)", (kind, payload, now)
            ).lastrowid
            return int(number or 0)

        return await self._database.write(work)

    async def inbox(self, after: int = 0, limit: int = 100) -> list[Submitted]:
        """What waits in the inbox; see `Ledger`."""
        rows = await self._database.read(
            lambda connection: connection.execute(
                "SELECT id, kind, payload, at_ns FROM inbox WHERE id>? ORDER BY id LIMIT ?",
                (after, limit),
            ).fetchall()
        )
        return [Submitted(*row) for row in rows]

    async def taken(self, ids: Sequence[int]) -> None:
        """Let go of what was dealt with; see `Ledger`."""

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany("DELETE FROM inbox WHERE id=?", [(number,) for number in ids])

        await self._database.write(work)


def append_all(
    connection: sqlite3.Connection,
    lease: Lease,
    number: int,
    first: int,
    entries: Sequence[LogEntry],
    cursor: bytes,
) -> None:
    """Run inside a write transaction; `Fenced` means it must be rolled back."""
    _check_term(connection, lease)
    state = _state(connection)
    begins = check_appended((state.number, state.size), number, first, entries)
    for entry in entries:
        added = connection.execute(
            "INSERT OR IGNORE INTO log_entry VALUES (?,?,?,?)",
            (number, entry.index, entry.name, entry.entry),
        ).rowcount
        if not added:
            name_taken(entry.name)
    connection.execute(
        "UPDATE log_state SET number=?, size=?, cursor=?", (number, first + len(entries), cursor)
    )
    if begins:
        connection.execute("UPDATE log_state SET note=x'', witnessed=x''")
    _mark_sealed(connection, entries)


def _mark_sealed(connection: sqlite3.Connection, entries: Sequence[LogEntry]) -> None:
    """Take the epochs that these entries seal off what is unsealed."""
    connection.executemany(
        "UPDATE head SET in_log=1 WHERE session=? AND epoch=?", sealed_epochs(entries)
    )


def _check_term(connection: sqlite3.Connection, lease: Lease) -> None:
    current = connection.execute(
        "SELECT 1 FROM lease WHERE topic=? AND part=? AND term=?",
        (lease.topic, lease.partition, lease.term),
    ).fetchone()
    if current is None:
        fenced(lease, "a newer term was claimed")


def _state(connection: sqlite3.Connection) -> LogState:
    row = connection.execute(
        "SELECT number, size, cursor, note, witnessed FROM log_state"
    ).fetchone()
    return LogState(*row)


# "0" is the character behind "/": these are the names that begin with `statement/`.
_SEALS = """
WITH found AS (
  SELECT count(*) AS n, min(idx) AS first FROM log_entry
  WHERE number=?1 AND idx>=?2 AND idx<?3 AND name > 'seal/' AND name < 'seal0'
)
SELECT n, idx, name, entry FROM found LEFT JOIN log_entry ON number=?1 AND idx=first
"""
_STATEMENTS = """
SELECT idx, name, entry FROM log_entry INDEXED BY log_entry_name
WHERE name > 'statement/' AND name < 'statement0' AND name <> '' AND number=? AND idx>=?
ORDER BY idx LIMIT ?
"""
_UNSEALED = """
SELECT h.session, h.epoch, h.lo, h.hi, h.nodes, h.last_ts_ns, h.bus_offset, h.attested, h.lost,
  h.closed, h.opening, coalesce(s.state, 'live') AS state,
  EXISTS (SELECT 1 FROM head n WHERE n.session=h.session AND n.epoch>h.epoch) AS followed,
  h.changed_ns
FROM head h INDEXED BY head_unsealed LEFT JOIN session s ON s.session=h.session
WHERE h.in_log=0 AND (h.session, h.epoch) > (?, ?)
  AND (h.closed<>'' OR followed OR state<>'live')
ORDER BY h.session, h.epoch LIMIT ?
"""
