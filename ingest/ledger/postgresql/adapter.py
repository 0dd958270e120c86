"""The ledger's methods on PostgreSQL. Each is one statement, but `stage` and `publish`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from sealtape.ingest.ledger.postgresql.log import PostgresLog
from sealtape.ingest.ledger.postgresql.publish import Prepared, publish_all
from sealtape.ingest.ledger.postgresql.schema import LAYOUT, ledger_server
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
from sealtape.ingest.postgresql.database import Database
from sealtape.ingest.postgresql.layout import check_layout
from sealtape.schemas.errors import Exists
from sealtape.schemas.segments import FIRST_PREV, FragmentRecord, SegmentRecord

__all__ = ["PostgresLedger"]

_PAGE = 500
_OPEN = ("live", "incomplete")


class PostgresLedger(PostgresLog):
    """See `Ledger` for the contract. Open with `await PostgresLedger.open(url, base)`."""

    def __init__(self, database: Database) -> None:
        """Only `open` calls this."""
        self._database = database

    @classmethod
    async def open(
        cls, url: str, base: Path, *, read_only: bool = False, snapshot: bool = False
    ) -> PostgresLedger:
        """Connect, and compare the layout; it is made by `prepare_ledger`, never here."""
        database = await Database.open(
            ledger_server(url, base), read_only=read_only, snapshot=snapshot
        )
        try:
            await check_layout(database, LAYOUT)
        except BaseException:
            await database.close()
            raise
        return cls(database)

    # -- leases and positions ----------------------------------------------------------------------

    async def claim(self, topic: str, partition: int, owner: str, ttl_s: float) -> Lease | None:
        # Run twice it only costs a term.
        rows = await self._database.change(
            "INSERT INTO lease AS l VALUES ($1, $2, 1, $3, clock_timestamp() + $4::interval, 0)"
            " ON CONFLICT (topic, part) DO UPDATE"
            " SET term = l.term + 1, owner = excluded.owner, expires_at = excluded.expires_at"
            " WHERE l.owner = excluded.owner OR l.expires_at <= clock_timestamp()"
            " RETURNING term, next_offset",
            topic,
            partition,
            owner,
            timedelta(seconds=ttl_s),
        )
        return Lease(topic, partition, rows[0][0], owner, rows[0][1]) if rows else None

    async def renew(self, lease: Lease, ttl_s: float) -> None:
        rows = await self._database.change(
            "UPDATE lease SET expires_at = clock_timestamp() + $4::interval"
            " WHERE topic = $1 AND part = $2 AND term = $3 RETURNING 1",
            lease.topic,
            lease.partition,
            lease.term,
            timedelta(seconds=ttl_s),
        )
        if not rows:
            fenced(lease, "a newer term was claimed")

    async def release(self, lease: Lease) -> None:
        await self._database.change(
            "UPDATE lease SET expires_at = '-infinity', owner = ''"
            " WHERE topic = $1 AND part = $2 AND term = $3",
            lease.topic,
            lease.partition,
            lease.term,
        )

    async def position(self, topic: str, partition: int) -> int:
        rows = await self._database.fetch(
            "SELECT next_offset FROM lease WHERE topic = $1 AND part = $2", topic, partition
        )
        return rows[0][0] if rows else 0

    async def positions(self) -> dict[tuple[str, int], int]:
        rows = await self._database.fetch("SELECT topic, part, next_offset FROM lease")
        return {(row[0], row[1]): row[2] for row in rows}

    async def leases(self) -> list[LeaseRow]:
        rows = await self._database.fetch(
            "SELECT topic, part, owner, term, next_offset, greatest(0, CASE WHEN"
            " isfinite(expires_at) THEN extract(epoch FROM expires_at - clock_timestamp())"
            " ELSE 0 END)::float8 FROM lease ORDER BY topic, part"
        )
        return [LeaseRow(*row) for row in rows]

    # -- workers -----------------------------------------------------------------------------------

    async def beat(self, role: str, worker: str, ttl_s: float) -> list[str]:
        rows = await self._database.change(
            """
            WITH over AS (
              DELETE FROM worker
              WHERE role = $1 AND worker <> $2 AND expires_at <= clock_timestamp()),
            here AS (
              INSERT INTO worker VALUES ($1, $2, clock_timestamp() + $3::interval)
              ON CONFLICT (role, worker) DO UPDATE SET expires_at = excluded.expires_at
              RETURNING worker)
            SELECT worker FROM worker
            WHERE role = $1 AND worker <> $2 AND expires_at > clock_timestamp()
            UNION ALL SELECT worker FROM here ORDER BY worker
            """,
            role,
            worker,
            timedelta(seconds=ttl_s),
        )
        return [row[0] for row in rows]

    async def leave(self, role: str, worker: str) -> None:
        await self._database.change(
            "DELETE FROM worker WHERE role = $1 AND worker = $2", role, worker
        )

    # -- publication -------------------------------------------------------------------------------

    async def stage(self, lease: Lease, keys: Sequence[str]) -> None:
        async def work(connection: Any) -> None:
            # Held until we are done: whoever claims next sees what we staged.
            current = await connection.fetchval(
                "SELECT 1 FROM lease WHERE topic = $1 AND part = $2 AND term = $3 FOR SHARE",
                lease.topic,
                lease.partition,
                lease.term,
            )
            if current is None:
                fenced(lease, "a newer term was claimed")
            rows = await connection.fetch(
                "INSERT INTO object SELECT key, 'staged', $2, $3, $4, clock_timestamp()"
                " FROM unnest($1::text[]) AS key ON CONFLICT DO NOTHING RETURNING key",
                keys,
                lease.topic,
                lease.partition,
                lease.term,
            )
            added = {row[0] for row in rows}
            for key in keys:
                if key not in added:
                    raise Exists(f"{key} was staged before.", key=key)
                added.remove(key)

        await self._database.write(work)

    async def publish(self, publication: Publish) -> None:
        prepared = await asyncio.to_thread(Prepared.of, publication)
        await self._database.write(lambda connection: publish_all(connection, prepared))

    async def staged(self, older_than_s: float) -> list[StagedObject]:
        rows = await self._database.fetch(
            "SELECT key, topic, part, term, (extract(epoch FROM staged_at) * 1000000000)::bigint"
            " FROM object WHERE state = 'staged' AND staged_at <= clock_timestamp() - $1::interval"
            " ORDER BY staged_at, key",
            timedelta(seconds=older_than_s),
        )
        return [StagedObject(*row) for row in rows]

    async def abandon(self, key: str) -> bool:
        rows = await self._database.change(
            "UPDATE object SET state = 'abandoned' WHERE key = $1"
            " AND state IN ('staged', 'abandoned') RETURNING 1",
            key,
        )
        return bool(rows)

    async def abandoned(self, older_than_s: float) -> list[str]:
        rows = await self._database.fetch(
            "SELECT key FROM object WHERE state = 'abandoned'"
            " AND staged_at <= clock_timestamp() - $1::interval ORDER BY key",
            timedelta(seconds=older_than_s),
        )
        return [row[0] for row in rows]

    async def forget(self, key: str) -> None:
        await self._database.change(
            "UPDATE object SET state = 'erased' WHERE key = $1 AND state = 'abandoned'", key
        )

    # -- what is sealed ----------------------------------------------------------------------------

    async def heads(self, names: Sequence[tuple[bytes, int]]) -> dict[tuple[bytes, int], Head]:
        rows = await self._database.fetch(
            _HEAD + " JOIN unnest($1::bytea[], $2::bigint[]) AS name (session, epoch)"
            " USING (session, epoch)",
            [session for session, _ in names],
            [epoch for _, epoch in names],
        )
        return {(row[0], row[1]): head_of(row) for row in rows}

    async def epochs(self, session: bytes) -> list[Head]:
        rows = await self._database.fetch(_HEAD + " WHERE session = $1 ORDER BY epoch", session)
        return [head_of(row) for row in rows]

    async def shards(self) -> dict[str, ShardHead]:
        rows = await self._database.fetch("SELECT shard, n, hash FROM shard ORDER BY shard")
        return {row[0]: ShardHead(row[1], row[2]) for row in rows}

    async def shard_head(self, shard: str) -> ShardHead:
        rows = await self._database.fetch("SELECT n, hash FROM shard WHERE shard = $1", shard)
        return ShardHead(*rows[0]) if rows else ShardHead(0, FIRST_PREV)

    async def segments(self, after: int = 0) -> AsyncIterator[SegmentRow]:
        while True:
            rows = await self._database.fetch(
                "SELECT id, key, record FROM segment WHERE id > $1 ORDER BY id LIMIT $2",
                after,
                _PAGE,
            )
            for row in rows:
                yield _segment(row)
            if len(rows) < _PAGE:
                return
            after = rows[-1][0]

    async def chain(self, shard: str, first: int = 0) -> AsyncIterator[SegmentRow]:
        while True:
            rows = await self._database.fetch(
                "SELECT g.id, g.key, g.record FROM segment g JOIN shard s ON s.id = g.shard"
                " WHERE s.shard = $1 AND g.n >= $2 ORDER BY g.n LIMIT $3",
                shard,
                first,
                _PAGE,
            )
            for row in rows:
                yield _segment(row)
            if len(rows) < _PAGE:
                return
            first += _PAGE

    async def segment(self, key: str) -> SegmentRow | None:
        rows = await self._database.fetch("SELECT id, key, record FROM segment WHERE key = $1", key)
        return _segment(rows[0]) if rows else None

    async def fragments(self, session: bytes) -> list[FragmentRow]:
        rows = await self._database.fetch(
            _FRAGMENT + " WHERE f.session = $1 ORDER BY f.epoch, f.lo, f.hi, g.id", session
        )
        return [_fragment(row) for row in rows]

    async def fragments_of(self, segment_id: int) -> list[FragmentRow]:
        rows = await self._database.fetch(_FRAGMENT + " WHERE g.id = $1 ORDER BY f.idx", segment_id)
        return [_fragment(row) for row in rows]

    async def session(self, session: bytes) -> SessionRow | None:
        rows = await self._database.fetch(_SESSION + " WHERE session = $1", session)
        return SessionRow(*rows[0]) if rows else None

    async def sessions(self, after: bytes = b"", *, state: str = "") -> AsyncIterator[SessionRow]:
        # The state as text: with a parameter the planner cannot know that the partial index holds.
        only = f" AND state = '{state}'" if state in _OPEN else " AND state = $3"
        more = [state] if state and state not in _OPEN else []
        while True:
            rows = await self._database.fetch(
                f"{_SESSION} WHERE session > $1{only if state else ''} ORDER BY session LIMIT $2",
                after,
                _PAGE,
                *more,
            )
            for row in rows:
                yield SessionRow(*row)
            if len(rows) < _PAGE:
                return
            after = rows[-1][0]

    async def totals(self) -> Totals:
        fetch = self._database.fetch
        states = await fetch("SELECT state, count(*) FROM session GROUP BY state")
        segments = await fetch(
            "SELECT count(*), coalesce(sum((convert_from(record, 'UTF8')::json->>'bytes')::bigint),"
            " 0)::bigint FROM segment"
        )
        reasons = await fetch("SELECT reason, count(*) FROM incident GROUP BY reason")
        last = await fetch("SELECT reason FROM incident ORDER BY id DESC LIMIT 1")
        return Totals(
            sessions={row[0]: row[1] for row in states},
            segments=segments[0][0],
            bytes=segments[0][1],
            incidents={row[0]: row[1] for row in reasons},
            last_incident=last[0][0] if last else "",
        )

    # -- what went wrong, and what is to be told ---------------------------------------------------

    async def incidents(
        self, after: int = 0, session: bytes | None = None, reason: str | None = None
    ) -> list[Incident]:
        rows = await self._database.fetch(
            "SELECT topic, part, bus_offset, reason, detail, session, epoch, seq, at_ns, id"
            " FROM incident WHERE id > $1 AND ($2::bytea IS NULL OR session = $2)"
            " AND ($3::text IS NULL OR reason = $3) ORDER BY id",
            after,
            session,
            reason,
        )
        return [Incident(*row) for row in rows]

    async def quarantined(
        self, topic: str, partition: int, from_offset: int = 0
    ) -> list[Quarantined]:
        rows = await self._database.fetch(
            "SELECT topic, part, bus_offset, reason, session, sha256, size, data, key, at_ns"
            " FROM quarantine WHERE topic = $1 AND part = $2 AND bus_offset >= $3"
            " ORDER BY bus_offset, at_ns, sha256",
            topic,
            partition,
            from_offset,
        )
        return [Quarantined(*row) for row in rows]

    async def outbox(self, after: int = 0, limit: int = 1000) -> list[Event]:
        rows = await self._database.fetch(
            "SELECT kind, key, payload, at_ns, id FROM outbox WHERE id > $1 ORDER BY id LIMIT $2",
            after,
            limit,
        )
        return [Event(*row) for row in rows]

    async def sent(self, ids: Sequence[int]) -> None:
        await self._database.change("DELETE FROM outbox WHERE id = ANY($1::bigint[])", list(ids))

    async def close(self) -> None:
        """Close the connections."""
        await self._database.close()


_FRAGMENT = (
    "SELECT g.id, g.key, f.idx, f.record FROM fragment f"
    " JOIN segment g ON g.shard = f.shard AND g.n = f.n"
)
_HEAD = (
    "SELECT session, epoch, lo, hi, nodes, last_ts_ns, bus_offset, attested, lost, closed, opening"
    " FROM head"
)
_SESSION = (
    "SELECT session, tenant, class, state, epoch, frames, bytes, first_ts_ns, last_ts_ns,"
    " close_reason, lost, incidents, revision FROM session"
)


def _segment(row: Any) -> SegmentRow:
    return SegmentRow(row[0], row[1], SegmentRecord.from_json(row[2]))


def _fragment(row: Any) -> FragmentRow:
    return FragmentRow(row[0], row[1], row[2], FragmentRecord.from_json(row[3]))
