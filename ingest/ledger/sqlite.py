"""`sqlite:`, a ledger in one SQLite file (WAL, synchronous=FULL, secure_delete)."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from sealtape.capture.checkup import Check
from sealtape.ingest.ledger.log import SqliteLog
from sealtape.ingest.ledger.publish import publish_all
from sealtape.ingest.ledger.rows import (
    Event,
    FragmentRow,
    Head,
    Incident,
    Lease,
    LeaseRow,
    Publish,
    Quarantined,
    SegmentRow,
    SessionRow,
    ShardHead,
    StagedObject,
    Totals,
)
from sealtape.ingest.ledger.steps import fenced, head_of
from sealtape.ingest.sqlite import Database, check_database, load_migrations, sqlite_path
from sealtape.schemas.errors import Exists
from sealtape.schemas.segments import FIRST_PREV, FragmentRecord, SegmentRecord

__all__ = ["SqliteLedger", "check_file", "prepare_file"]

_MIGRATIONS = load_migrations(Path(__file__).with_name("sql"))
_SECOND_NS = 1_000_000_000
_PAGE = 500
_OPEN = ("live", "incomplete")
_IN_STATE = " AND state=?"


async def prepare_file(url: str, base: Path) -> list[str]:
    """Make the file, or bring it up to date; says what it did. Raises `StoreError`."""
    path = sqlite_path(url, base)
    before = await asyncio.to_thread(path.exists)
    await (await SqliteLedger.open(url, base)).close()
    return [] if before else [f"made {path.name}"]


async def check_file(url: str, base: Path) -> list[Check]:
    """Findings about the file; see `check_ledger`."""
    return await check_database("ledger", sqlite_path(url, base), _MIGRATIONS)


class SqliteLedger(SqliteLog):
    """See `Ledger` for the contract. Open with `await SqliteLedger.open(url, base)`."""

    def __init__(self, database: Database, *, clock_ns: Callable[[], int] = time.time_ns) -> None:
        """Only `open` and tests call this; `clock_ns` is the store's own time."""
        self._database = database
        self._clock_ns = clock_ns

    @classmethod
    async def open(
        cls, url: str, base: Path, *, read_only: bool = False, snapshot: bool = False
    ) -> SqliteLedger:
        """Open `sqlite:FILE`; the file is made (mode 0600) unless `read_only`."""
        path = sqlite_path(url, base)
        return cls(await Database.open(path, _MIGRATIONS, read_only=read_only, snapshot=snapshot))

    # -- leases and positions ----------------------------------------------------------------------

    async def claim(self, topic: str, partition: int, owner: str, ttl_s: float) -> Lease | None:
        now = self._clock_ns()
        until = now + int(ttl_s * _SECOND_NS)

        def work(connection: sqlite3.Connection) -> Lease | None:
            connection.execute(
                "INSERT OR IGNORE INTO lease VALUES (?,?,0,'',0,0)", (topic, partition)
            )
            row = connection.execute(
                "UPDATE lease SET term=term+1, owner=?, expires_ns=?"
                " WHERE topic=? AND part=? AND (owner=? OR expires_ns<=?)"
                " RETURNING term, next_offset",
                (owner, until, topic, partition, owner, now),
            ).fetchone()
            return None if row is None else Lease(topic, partition, row[0], owner, row[1])

        return await self._database.write(work)

    async def renew(self, lease: Lease, ttl_s: float) -> None:
        until = self._clock_ns() + int(ttl_s * _SECOND_NS)

        def work(connection: sqlite3.Connection) -> None:
            changed = connection.execute(
                "UPDATE lease SET expires_ns=? WHERE topic=? AND part=? AND term=?",
                (until, lease.topic, lease.partition, lease.term),
            ).rowcount
            if changed != 1:
                fenced(lease, "a newer term was claimed")

        await self._database.write(work)

    async def release(self, lease: Lease) -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE lease SET expires_ns=0, owner='' WHERE topic=? AND part=? AND term=?",
                (lease.topic, lease.partition, lease.term),
            )

        await self._database.write(work)

    async def position(self, topic: str, partition: int) -> int:
        rows = await self._rows(
            "SELECT next_offset FROM lease WHERE topic=? AND part=?", (topic, partition)
        )
        return int(rows[0][0]) if rows else 0

    async def positions(self) -> dict[tuple[str, int], int]:
        rows = await self._rows("SELECT topic, part, next_offset FROM lease", ())
        return {(row[0], row[1]): row[2] for row in rows}

    async def leases(self) -> list[LeaseRow]:
        now = self._clock_ns()
        rows = await self._rows(
            "SELECT topic, part, owner, term, next_offset, expires_ns FROM lease"
            " ORDER BY topic, part",
            (),
        )
        return [
            LeaseRow(topic, part, owner, term, position, max(0, until - now) / _SECOND_NS)
            for topic, part, owner, term, position, until in rows
        ]

    # -- workers -----------------------------------------------------------------------------------

    async def beat(self, role: str, worker: str, ttl_s: float) -> list[str]:
        now = self._clock_ns()
        until = now + int(ttl_s * _SECOND_NS)

        def work(connection: sqlite3.Connection) -> list[str]:
            connection.execute("DELETE FROM worker WHERE role=? AND expires_ns<=?", (role, now))
            connection.execute(
                "INSERT OR REPLACE INTO worker VALUES (?,?,?)", (role, worker, until)
            )
            rows = connection.execute(
                "SELECT worker FROM worker WHERE role=? ORDER BY worker", (role,)
            )
            return [row[0] for row in rows]

        return await self._database.write(work)

    async def leave(self, role: str, worker: str) -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM worker WHERE role=? AND worker=?", (role, worker))

        await self._database.write(work)

    # -- publication -------------------------------------------------------------------------------

    async def stage(self, lease: Lease, keys: Sequence[str]) -> None:
        now = self._clock_ns()

        def work(connection: sqlite3.Connection) -> None:
            current = connection.execute(
                "SELECT 1 FROM lease WHERE topic=? AND part=? AND term=?",
                (lease.topic, lease.partition, lease.term),
            ).fetchone()
            if current is None:
                fenced(lease, "a newer term was claimed")
            for key in keys:
                added = connection.execute(
                    "INSERT OR IGNORE INTO object VALUES (?,'staged',?,?,?,?)",
                    (key, lease.topic, lease.partition, lease.term, now),
                ).rowcount
                if not added:
                    raise Exists(f"{key} was staged before.", key=key)

        await self._database.write(work)

    async def publish(self, publication: Publish) -> None:
        now = self._clock_ns()
        await self._database.write(lambda connection: publish_all(connection, publication, now))

    async def staged(self, older_than_s: float) -> list[StagedObject]:
        limit = self._clock_ns() - int(older_than_s * _SECOND_NS)
        rows = await self._rows(
            "SELECT key, topic, part, term, staged_at_ns FROM object"
            " WHERE state='staged' AND staged_at_ns<=? ORDER BY staged_at_ns, key",
            (limit,),
        )
        return [StagedObject(*row) for row in rows]

    async def abandon(self, key: str) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            changed = connection.execute(
                "UPDATE object SET state='abandoned' WHERE key=? AND state IN"
                " ('staged', 'abandoned')",
                (key,),
            ).rowcount
            return changed == 1

        return await self._database.write(work)

    async def abandoned(self, older_than_s: float) -> list[str]:
        limit = self._clock_ns() - int(older_than_s * _SECOND_NS)
        rows = await self._rows(
            "SELECT key FROM object WHERE state='abandoned' AND staged_at_ns<=? ORDER BY key",
            (limit,),
        )
        return [row[0] for row in rows]

    async def forget(self, key: str) -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE object SET state='erased' WHERE key=? AND state='abandoned'", (key,)
            )

        await self._database.write(work)

    # -- what is sealed ----------------------------------------------------------------------------

    async def heads(self, names: Sequence[tuple[bytes, int]]) -> dict[tuple[bytes, int], Head]:
        def work(connection: sqlite3.Connection) -> dict[tuple[bytes, int], Head]:
            found = {}
            for name in names:
                row = connection.execute(_HEAD + " WHERE session=? AND epoch=?", name).fetchone()
                if row is not None:
                    found[name] = head_of(row)
            return found

        return await self._database.read(work)

    async def epochs(self, session: bytes) -> list[Head]:
        rows = await self._rows(_HEAD + " WHERE session=? ORDER BY epoch", (session,))
        return [head_of(row) for row in rows]

    async def shards(self) -> dict[str, ShardHead]:
        rows = await self._rows("SELECT shard, n, hash FROM shard ORDER BY shard", ())
        return {row[0]: ShardHead(row[1], row[2]) for row in rows}

    async def shard_head(self, shard: str) -> ShardHead:
        rows = await self._rows("SELECT n, hash FROM shard WHERE shard=?", (shard,))
        return ShardHead(*rows[0]) if rows else ShardHead(0, FIRST_PREV)

    async def segments(self, after: int = 0) -> AsyncIterator[SegmentRow]:
        while True:
            rows = await self._rows(
                "SELECT id, key, CAST(record AS BLOB) FROM segment WHERE id>? ORDER BY id LIMIT ?",
                (after, _PAGE),
            )
            for row in rows:
                yield SegmentRow(row[0], row[1], SegmentRecord.from_json(row[2]))
            if len(rows) < _PAGE:
                return
            after = rows[-1][0]

    async def chain(self, shard: str, first: int = 0) -> AsyncIterator[SegmentRow]:
        while True:
            rows = await self._rows(
                "SELECT id, key, CAST(record AS BLOB) FROM segment WHERE shard=? AND n>=?"
                " ORDER BY n LIMIT ?",
                (shard, first, _PAGE),
            )
            for row in rows:
                yield SegmentRow(row[0], row[1], SegmentRecord.from_json(row[2]))
            if len(rows) < _PAGE:
                return
            first += _PAGE

    async def segment(self, key: str) -> SegmentRow | None:
        rows = await self._rows(
            "SELECT id, key, CAST(record AS BLOB) FROM segment WHERE key=?", (key,)
        )
        return (
            SegmentRow(rows[0][0], rows[0][1], SegmentRecord.from_json(rows[0][2]))
            if rows
            else None
        )

    async def fragments(self, session: bytes) -> list[FragmentRow]:
        return await self._fragments("f.session=? ORDER BY f.epoch, f.lo, f.hi, s.id", session)

    async def fragments_of(self, segment_id: int) -> list[FragmentRow]:
        return await self._fragments("f.segment_id=? ORDER BY f.idx", segment_id)

    async def session(self, session: bytes) -> SessionRow | None:
        rows = await self._rows("SELECT * FROM session WHERE session=?", (session,))
        return SessionRow(*rows[0]) if rows else None

    async def sessions(self, after: bytes = b"", *, state: str = "") -> AsyncIterator[SessionRow]:
        # The words of the partial index, which its planner compares as text.
        only = " AND state=? AND state IN ('live', 'incomplete')" if state in _OPEN else _IN_STATE
        while True:
            rows = await self._rows(
                f"{_SESSIONS}{only if state else ''} ORDER BY session LIMIT ?",
                (after, *([state] if state else []), _PAGE),
            )
            for row in rows:
                yield SessionRow(*row)
            if len(rows) < _PAGE:
                return
            after = rows[-1][0]

    async def totals(self) -> Totals:
        states = await self._rows("SELECT state, count(*) FROM session GROUP BY state", ())
        segments = await self._rows(
            "SELECT count(*), coalesce(sum(CAST(json_extract(CAST(record AS TEXT), '$.bytes')"
            " AS INTEGER)), 0) FROM segment",
            (),
        )
        reasons = await self._rows("SELECT reason, count(*) FROM incident GROUP BY reason", ())
        last = await self._rows("SELECT reason FROM incident ORDER BY id DESC LIMIT 1", ())
        return Totals(
            sessions=dict(states),
            segments=segments[0][0],
            bytes=segments[0][1],
            incidents=dict(reasons),
            last_incident=last[0][0] if last else "",
        )

    # -- what went wrong, and what is to be told ---------------------------------------------------

    async def incidents(
        self, after: int = 0, session: bytes | None = None, reason: str | None = None
    ) -> list[Incident]:
        rows = await self._rows(
            "SELECT topic, part, bus_offset, reason, detail, session, epoch, seq, at_ns, id"
            " FROM incident WHERE id>?1 AND (?2 IS NULL OR session=?2)"
            " AND (?3 IS NULL OR reason=?3) ORDER BY id",
            (after, session, reason),
        )
        return [Incident(*row) for row in rows]

    async def quarantined(
        self, topic: str, partition: int, from_offset: int = 0
    ) -> list[Quarantined]:
        rows = await self._rows(
            "SELECT topic, part, bus_offset, reason, session, sha256, size, data, key, at_ns"
            " FROM quarantine WHERE topic=? AND part=? AND bus_offset>=?"
            " ORDER BY bus_offset, at_ns, sha256",
            (topic, partition, from_offset),
        )
        return [Quarantined(*row) for row in rows]

    async def outbox(self, after: int = 0, limit: int = 1000) -> list[Event]:
        rows = await self._rows(
            "SELECT kind, key, payload, at_ns, id FROM outbox WHERE id>? ORDER BY id LIMIT ?",
            (after, limit),
        )
        return [Event(*row) for row in rows]

    async def sent(self, ids: Sequence[int]) -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.executemany("DELETE FROM outbox WHERE id=?", [(number,) for number in ids])

        await self._database.write(work)

    async def close(self) -> None:
        """Close the file."""
        await self._database.close()

    async def _rows(self, sql: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        return await self._database.read(
            lambda connection: connection.execute(sql, values).fetchall()
        )

    async def _fragments(self, condition: str, value: object) -> list[FragmentRow]:
        rows = await self._rows(
            _FRAGMENT + condition,
            (value,),
        )
        return [
            FragmentRow(row[0], row[1], row[2], FragmentRecord.from_json(row[3])) for row in rows
        ]


_FRAGMENT = (
    "SELECT s.id, s.key, f.idx, CAST(f.record AS BLOB)"
    " FROM fragment f JOIN segment s ON s.id=f.segment_id WHERE "
)
_SESSIONS = "SELECT * FROM session WHERE session>?"
_HEAD = (
    "SELECT session, epoch, lo, hi, nodes, last_ts_ns, bus_offset, attested, lost, closed, opening"
    " FROM head"
)
