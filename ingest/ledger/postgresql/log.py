"""What the PostgreSQL ledger keeps of the log: its entries, its state, the inbox, what has no seal.

An append holds the row of `log_state` until it is committed, so two of them never meet; it reads
the lease's row under a lock, so whoever claims next sees what was appended.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sealtape.ingest.ledger.rows import Lease, LogEntry, LogState, Submitted, Unsealed
from sealtape.ingest.ledger.steps import (
    check_appended,
    check_submitted,
    fenced,
    head_of,
    name_taken,
    sealed_epochs,
)
from sealtape.ingest.postgresql.database import Database

__all__ = ["PostgresLog"]

_STATE = "SELECT number, size, cursor, note, witnessed FROM log_state"


class PostgresLog:
    """The methods of `Ledger` that are about the log; `PostgresLedger` is made with them."""

    _database: Database

    async def log_state(self) -> LogState:
        """How far the log is; see `Ledger`."""
        rows = await self._database.fetch(_STATE)
        return LogState(*rows[0])

    async def log_append(
        self, lease: Lease, number: int, first: int, entries: Sequence[LogEntry], cursor: bytes
    ) -> None:
        """Add entries at the end; see `Ledger`."""

        async def work(connection: Any) -> None:
            await _check_term(connection, lease)
            state = await connection.fetchrow(
                "SELECT number, size FROM log_state FOR NO KEY UPDATE"
            )
            begins = check_appended((state[0], state[1]), number, first, entries)
            await _add(connection, number, entries)
            await connection.execute(_MOVE, number, first + len(entries), cursor, begins)
            sealed = sealed_epochs(entries)
            if sealed:
                await connection.execute(_SEALED, *map(list, zip(*sealed, strict=True)))

        await self._database.write(work)

    async def log_noted(self, lease: Lease, number: int, note: bytes, witnessed: bytes) -> None:
        """Store the last notes; see `Ledger`."""

        async def work(connection: Any) -> None:
            await _check_term(connection, lease)
            changed = await connection.fetchval(
                "UPDATE log_state SET note = CASE WHEN $1 = ''::bytea THEN note ELSE $1 END,"
                " witnessed = CASE WHEN $2 = ''::bytea THEN witnessed ELSE $2 END"
                " WHERE number = $3 RETURNING 1",
                note,
                witnessed,
                number,
            )
            if changed is None:
                fenced(lease, f"the log is not in shard {number}")

        await self._database.write(work)

    async def log_entries(self, number: int, first: int = 0, limit: int = 1000) -> list[LogEntry]:
        """Entries of a shard, in order; see `Ledger`."""
        rows = await self._database.fetch(
            "SELECT idx, name, entry FROM log_entry WHERE number = $1 AND idx >= $2"
            " ORDER BY idx LIMIT $3",
            number,
            first,
            limit,
        )
        return [LogEntry(*row) for row in rows]

    async def log_find(self, names: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Where entries are; see `Ledger`."""
        rows = await self._database.fetch(
            "SELECT name, number, idx FROM log_entry WHERE name = ANY($1::text[]) AND name <> ''",
            list(names),
        )
        return {row[0]: (row[1], row[2]) for row in rows}

    async def log_seals(self, number: int, first: int, end: int) -> tuple[int, LogEntry | None]:
        """How many seals there are, and the first; see `Ledger`."""
        [(count, *row)] = await self._database.fetch(_SEALS, number, first, end)
        return count, LogEntry(*row) if count else None

    async def log_statements(
        self, number: int, first: int = 0, limit: int = 1000
    ) -> list[LogEntry]:
        """What somebody signed, in order; see `Ledger`."""
        rows = await self._database.fetch(_STATEMENTS, number, first, limit)
        return [LogEntry(*row) for row in rows]

    async def unsealed(
        self, after: tuple[bytes, int] | None = None, limit: int = 500
    ) -> list[Unsealed]:
        """Epochs that may be final and have no seal; see `Ledger`."""
        rows = await self._database.fetch(_UNSEALED, *(after or (b"", -1)), limit)
        return [Unsealed(head_of(row), *tuple(row)[11:]) for row in rows]

    async def submit(self, kind: str, payload: bytes) -> int:
        """Put something into the inbox; see `Ledger`."""
        check_submitted(payload)

        async def work(connection: Any) -> int:
            # Ids are given out in the order of the commits: nobody else takes one before ours.
            await connection.execute("SELECT pg_advisory_xact_lock('inbox'::regclass::oid::bigint)")
            number: int = await connection.fetchval(_SUBMIT, kind, payload)
            return number

        return await self._database.write(work)

    async def inbox(self, after: int = 0, limit: int = 100) -> list[Submitted]:
        """What waits in the inbox; see `Ledger`."""
        rows = await self._database.fetch(
            "SELECT id, kind, payload, at_ns FROM inbox WHERE id > $1 ORDER BY id LIMIT $2",
            after,
            limit,
        )
        return [Submitted(*row) for row in rows]

    async def taken(self, ids: Sequence[int]) -> None:
        """Let go of what was dealt with; see `Ledger`."""
        await self._database.change("DELETE FROM inbox WHERE id = ANY($1::bigint[])", list(ids))


async def _check_term(connection: Any, lease: Lease) -> None:
    current = await connection.fetchval(
        "SELECT 1 FROM lease WHERE topic = $1 AND part = $2 AND term = $3 FOR SHARE",
        lease.topic,
        lease.partition,
        lease.term,
    )
    if current is None:
        fenced(lease, "a newer term was claimed")


async def _add(connection: Any, number: int, entries: Sequence[LogEntry]) -> None:
    if not entries:
        return
    rows = await connection.fetch(
        "INSERT INTO log_entry SELECT $1, * FROM unnest($2::bigint[], $3::text[], $4::bytea[])"
        " ON CONFLICT DO NOTHING RETURNING idx",
        number,
        [entry.index for entry in entries],
        [entry.name for entry in entries],
        [entry.entry for entry in entries],
    )
    added = {row[0] for row in rows}
    for entry in entries:
        if entry.index not in added:
            name_taken(entry.name)


_MOVE = """
UPDATE log_state SET number = $1, size = $2, cursor = $3,
  note = CASE WHEN $4 THEN '' ELSE note END, witnessed = CASE WHEN $4 THEN '' ELSE witnessed END
"""
_SEALED = """
UPDATE head SET in_log = true FROM unnest($1::bytea[], $2::bigint[]) AS name (session, epoch)
WHERE head.session = name.session AND head.epoch = name.epoch
"""
_SUBMIT = """
INSERT INTO inbox (kind, payload, at_ns)
VALUES ($1, $2, (extract(epoch FROM clock_timestamp()) * 1000000000)::bigint) RETURNING id
"""
# "0" is the character behind "/": these are the names that begin with `statement/`.
_SEALS = """
WITH found AS (
  SELECT count(*) AS n, min(idx) AS first FROM log_entry
  WHERE number = $1 AND idx >= $2 AND idx < $3 AND name > 'seal/' AND name < 'seal0'
)
SELECT n, idx, name, entry FROM found LEFT JOIN log_entry ON number = $1 AND idx = first
"""
_STATEMENTS = """
SELECT idx, name, entry FROM log_entry
WHERE name > 'statement/' AND name < 'statement0' AND name <> '' AND number = $1 AND idx >= $2
ORDER BY idx LIMIT $3
"""
_UNSEALED = """
SELECT h.session, h.epoch, h.lo, h.hi, h.nodes, h.last_ts_ns, h.bus_offset, h.attested, h.lost,
  h.closed, h.opening, coalesce(s.state, 'live'), f.followed,
  (extract(epoch FROM h.changed_at) * 1000000000)::bigint
FROM head AS h LEFT JOIN session AS s ON s.session = h.session
CROSS JOIN LATERAL (SELECT EXISTS (SELECT 1 FROM head AS n
  WHERE n.session = h.session AND n.epoch > h.epoch) AS followed) AS f
WHERE NOT h.in_log AND (h.session, h.epoch) > ($1::bytea, $2::bigint)
  AND (h.closed <> '' OR f.followed OR s.state <> 'live')
ORDER BY h.session, h.epoch LIMIT $3
"""
