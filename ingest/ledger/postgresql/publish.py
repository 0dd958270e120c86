"""The publish transaction of the PostgreSQL ledger, step by step.

Each step is one statement for all rows of a publication, however many; `Prepared` has made them
ready before the transaction begins. What is compared is locked by the comparison itself (READ
COMMITTED looks at the newest row once it has the lock), and ids are given out last, under the row
of `counter`: publications become visible in the order of their ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sealtape.ingest.ledger.rows import (
    HeadChange,
    Publish,
    SealedSegment,
    SessionChange,
    ShardHead,
)
from sealtape.ingest.ledger.steps import (
    abandoned,
    continued,
    fenced,
    first_state,
    moved,
    rounds,
)
from sealtape.schemas.errors import Fenced
from sealtape.schemas.segments import FIRST_PREV

__all__ = ["HeadRound", "Prepared", "publish_all"]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A publication, and what takes long to make of it: as no statement needs to wait for that."""

    publication: Publish
    heads: list[HeadRound]
    sessions: list[list[list[object]]]
    fragments: list[tuple[object, ...]]
    records: list[bytes]

    @classmethod
    def of(cls, publication: Publish) -> Prepared:
        """Make it; large ones in a thread of their own."""
        heads = rounds(publication.heads, lambda c: (c.after.session, c.after.epoch))
        sessions = rounds(publication.sessions, lambda c: c.session)
        return cls(
            publication=publication,
            heads=[HeadRound.of(changes) for changes in heads],
            sessions=[_columns(map(_session_row, changes), 11) for changes in sessions],
            fragments=[
                (segment.record.n, index, f.session, f.epoch, f.lo, f.hi, f.to_json())
                for segment in publication.segments
                for index, f in enumerate(segment.fragments)
            ],
            records=[segment.record.to_json() for segment in publication.segments],
        )


@dataclass(frozen=True, slots=True)
class HeadRound:
    """Changes of different heads: columns of those that are new, and of those that are not."""

    changes: list[HeadChange]
    new: list[list[object]]
    known: list[list[object]]
    before: list[bytes]

    @classmethod
    def of(cls, changes: list[HeadChange]) -> HeadRound:
        """Sort them by whether there was one before."""
        new = [change for change in changes if change.before is None]
        known = [change for change in changes if change.before is not None]
        return cls(
            changes=changes,
            new=_columns(map(_head_row, new), 12),
            known=_columns(map(_head_row, known), 12),
            before=[change.before for change in known if change.before is not None],
        )


async def publish_all(connection: Any, prepared: Prepared) -> None:
    """Run inside a transaction; `Fenced` means it must be rolled back."""
    publication = prepared.publication
    await swap_position(connection, publication)
    keys = [*(segment.key for segment in publication.segments), *publication.objects]
    await take_staged(connection, keys)
    shard = await extend_shard(connection, publication.shard, publication.segments)
    for changes in prepared.heads:
        await swap_heads(connection, changes)
    begun: list[bytes] = []
    for sessions in prepared.sessions:
        # The state follows the last epoch, so an older epoch's end changes nothing.
        rows = await connection.fetch(_SESSIONS, *sessions)
        begun += [session for session, revision in rows if revision == 1]
    if prepared.fragments:
        await connection.execute(_FRAGMENTS, shard, *_columns(prepared.fragments, 7))
    await _keep_quarantined(connection, publication)
    if publication.silent:
        await connection.execute(_SILENT, list(publication.silent))
    if begun or publication.segments or publication.incidents or publication.events:
        await _number(connection, shard, prepared)
    if begun:
        # Another partition may have found something under its name before; none adds to that now.
        await connection.execute(_COUNT_BEFORE, begun)


# No COPY: a server waits for the client that is in the middle of one beyond all its limits, so one
# that was stopped there would hold the lease's row until it goes on.
_FRAGMENTS = """
INSERT INTO fragment (shard, n, idx, session, epoch, lo, hi, record)
SELECT $1::integer, c.* FROM unnest($2::bigint[], $3::integer[], $4::bytea[], $5::bigint[],
  $6::bigint[], $7::bigint[], $8::bytea[]) AS c
"""


# -- comparisons -----------------------------------------------------------------------------------


async def swap_position(connection: Any, publication: Publish) -> None:
    """Compare-and-set of term and position: what a newer holder did is never overwritten."""
    lease = publication.lease
    changed = await connection.fetchval(
        "UPDATE lease SET next_offset = $5"
        " WHERE topic = $1 AND part = $2 AND term = $3 AND next_offset = $4 RETURNING 1",
        lease.topic,
        lease.partition,
        lease.term,
        publication.first,
        publication.next_offset,
    )
    if changed is None:
        fenced(lease, "its term or position is not current")


async def take_staged(connection: Any, keys: Sequence[str]) -> None:
    """Compare-and-set of the objects' state: what the collector abandoned is never published."""
    if not keys:
        return
    rows = await connection.fetch(
        "UPDATE object SET state = 'published' WHERE key = ANY($1::text[]) AND state = 'staged'"
        " RETURNING key",
        keys,
    )
    taken = {row[0] for row in rows}
    for key in keys:
        if key not in taken:
            abandoned(key)
        taken.remove(key)


async def extend_shard(
    connection: Any, shard: str, segments: tuple[SealedSegment, ...]
) -> int | None:
    """Compare-and-set of the chain's end; returns the shard's number, None without segments."""
    if not segments:
        return None
    row = await connection.fetchrow("SELECT n, hash FROM shard WHERE shard = $1 FOR UPDATE", shard)
    before = ShardHead(row[0], row[1]) if row else ShardHead(0, FIRST_PREV)
    after = continued(shard, before, segments)
    number: int | None = await connection.fetchval(
        "INSERT INTO shard (shard, n, hash) VALUES ($1, $2, $3)"
        " ON CONFLICT (shard) DO UPDATE SET n = excluded.n, hash = excluded.hash"
        " WHERE shard.n = $4 AND shard.hash = $5 RETURNING id",
        shard,
        after.n,
        after.hash,
        before.n,
        before.hash,
    )
    if number is None:  # another made the shard since we looked
        raise Fenced(f"Shard {shard} was continued by another.")
    return number


async def swap_heads(connection: Any, changes: HeadRound) -> None:
    """Compare-and-set of one (session, epoch) each: no frame is ever sealed twice."""
    done: set[tuple[bytes, int]] = set()
    if changes.new[0]:
        rows = await connection.fetch(_NEW_HEADS, *changes.new)
        done |= {(row[0], row[1]) for row in rows}
    if changes.known[0]:
        rows = await connection.fetch(_SWAP_HEADS, *changes.known, changes.before)
        done |= {(row[0], row[1]) for row in rows}
    for change in changes.changes:
        if (change.after.session, change.after.epoch) not in done:
            moved(change.after)


_NEW_HEADS = """
INSERT INTO head SELECT c.*, clock_timestamp(), EXISTS (SELECT 1 FROM log_entry AS e
  WHERE e.name = 'seal/' || encode(c.session, 'hex') || '/' || c.epoch AND e.name <> '')
FROM unnest($1::bytea[], $2::bigint[], $3::bytea[], $4::bigint[], $5::bigint[], $6::bytea[],
  $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::text[], $12::bytea[]) AS c (session,
  epoch, digest, lo, hi, nodes, last_ts_ns, bus_offset, attested, lost, closed, opening)
ON CONFLICT DO NOTHING RETURNING session, epoch
"""
_SWAP_HEADS = """
UPDATE head AS h SET digest = c.digest, lo = c.lo, hi = c.hi, nodes = c.nodes,
  last_ts_ns = c.last_ts_ns, bus_offset = c.bus_offset, attested = c.attested, lost = c.lost,
  closed = c.closed, opening = c.opening, changed_at = clock_timestamp()
FROM unnest($1::bytea[], $2::bigint[], $3::bytea[], $4::bigint[], $5::bigint[], $6::bytea[],
  $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::text[], $12::bytea[],
  $13::bytea[]) AS c (session, epoch, digest, lo, hi, nodes, last_ts_ns, bus_offset, attested, lost,
  closed, opening, before)
WHERE h.session = c.session AND h.epoch = c.epoch AND h.digest = c.before
RETURNING h.session, h.epoch
"""


def _head_row(change: HeadChange) -> tuple[object, ...]:
    head = change.after
    return (
        head.session,
        head.epoch,
        head.digest(),
        head.lo,
        head.hi,
        b"".join(head.nodes),
        head.last_ts_ns,
        head.offset,
        head.attested,
        head.lost,
        head.closed,
        head.opening,
    )


# -- what is added ---------------------------------------------------------------------------------


_SESSIONS = """
INSERT INTO session AS s (session, tenant, class, state, epoch, frames, bytes, first_ts_ns,
  last_ts_ns, close_reason, lost, incidents, revision)
SELECT c.*, 0, 1 FROM unnest($1::bytea[], $2::text[], $3::text[], $4::text[], $5::bigint[],
  $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::text[], $11::bigint[]) AS c
ON CONFLICT (session) DO UPDATE SET
  state = CASE
    WHEN excluded.epoch < s.epoch AND (s.state <> 'sealed' OR s.lost + excluded.lost = 0)
      THEN s.state
    WHEN excluded.epoch < s.epoch THEN 'closed'
    WHEN excluded.state = 'sealed' AND s.lost + excluded.lost > 0 THEN 'closed'
    ELSE excluded.state END,
  close_reason = CASE WHEN excluded.epoch >= s.epoch THEN excluded.close_reason
    ELSE s.close_reason END,
  epoch = greatest(s.epoch, excluded.epoch),
  frames = s.frames + excluded.frames, bytes = s.bytes + excluded.bytes,
  first_ts_ns = least(s.first_ts_ns, excluded.first_ts_ns),
  last_ts_ns = greatest(s.last_ts_ns, excluded.last_ts_ns),
  lost = s.lost + excluded.lost, revision = s.revision + 1
RETURNING session, revision
"""
_SILENT = """
WITH silent AS (
  UPDATE session SET state = 'incomplete', revision = revision + 1
  WHERE session = ANY($1::bytea[]) AND state = 'live' RETURNING session)
UPDATE head SET changed_at = clock_timestamp() FROM silent
WHERE head.session = silent.session AND NOT head.in_log
"""
_COUNT_BEFORE = """
UPDATE session AS s SET incidents = c.found, revision = s.revision + c.found - s.incidents
FROM (SELECT session, count(*) AS found FROM incident WHERE session = ANY($1::bytea[])
  GROUP BY session) AS c
WHERE s.session = c.session AND s.incidents <> c.found
"""


def _session_row(change: SessionChange) -> tuple[object, ...]:
    state = first_state(change)
    return (
        change.session,
        change.tenant,
        change.class_name,
        "closed" if state == "sealed" and change.lost else state,
        change.epoch,
        change.frames,
        change.bytes,
        change.first_ts_ns,
        change.last_ts_ns,
        change.closed,
        change.lost,
    )


async def _keep_quarantined(connection: Any, publication: Publish) -> None:
    rows = [
        (
            item.topic,
            item.partition,
            item.offset,
            item.reason,
            item.session,
            item.sha256,
            item.size,
            item.data,
            item.key,
            item.at_ns,
        )
        for item in publication.quarantined
    ]
    if rows:
        await connection.execute(
            "INSERT INTO quarantine SELECT * FROM unnest($1::text[], $2::integer[], $3::bigint[],"
            " $4::text[], $5::bytea[], $6::bytea[], $7::bigint[], $8::bytea[], $9::text[],"
            " $10::bigint[]) ON CONFLICT DO NOTHING",
            *_columns(rows, 10),
        )


# -- what gets an id -------------------------------------------------------------------------------


async def _number(connection: Any, shard: int | None, prepared: Prepared) -> None:
    """Add what has an id. From the first statement on, other publications wait for our commit."""
    publication = prepared.publication
    segments, incidents, events = (
        publication.segments,
        publication.incidents,
        publication.events,
    )
    last = await connection.fetchrow(
        "UPDATE counter SET segment = segment + $1, incident = incident + $2, event = event + $3"
        " RETURNING segment, incident, event",
        len(segments),
        len(incidents),
        len(events),
    )
    if segments:
        rows = [
            (number, segment.key, shard, segment.record.n, record)
            for number, (segment, record) in enumerate(
                zip(segments, prepared.records, strict=True), last[0] - len(segments) + 1
            )
        ]
        await connection.execute(
            "INSERT INTO segment SELECT * FROM unnest($1::bigint[], $2::text[], $3::integer[],"
            " $4::bigint[], $5::bytea[])",
            *_columns(rows, 5),
        )
    if incidents:
        await _keep_incidents(connection, publication, last[1] - len(incidents) + 1)
    if events:
        told = [
            (number, event.kind, event.key, event.payload, event.at_ns)
            for number, event in enumerate(events, last[2] - len(events) + 1)
        ]
        await connection.execute(
            "INSERT INTO outbox SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[],"
            " $4::bytea[], $5::bigint[])",
            *_columns(told, 5),
        )


async def _keep_incidents(connection: Any, publication: Publish, first: int) -> None:
    """Add those that are not known, and count them at their sessions."""
    rows = [
        (
            number,
            item.topic,
            item.partition,
            item.offset,
            item.reason,
            item.detail,
            item.session,
            item.epoch,
            item.seq,
            item.at_ns,
        )
        for number, item in enumerate(publication.incidents, first)
    ]
    await connection.execute(
        """
        WITH added AS (
          INSERT INTO incident SELECT * FROM unnest($1::bigint[], $2::text[], $3::integer[],
            $4::bigint[], $5::text[], $6::text[], $7::bytea[], $8::bigint[], $9::bigint[],
            $10::bigint[])
          ON CONFLICT DO NOTHING RETURNING session),
        counted AS (SELECT session, count(*) AS new FROM added GROUP BY session)
        UPDATE session AS s SET incidents = s.incidents + c.new, revision = s.revision + c.new
        FROM counted AS c WHERE s.session = c.session
        """,
        *_columns(rows, 10),
    )


def _columns(rows: Any, width: int) -> list[list[object]]:
    """Rows as one array per column, which is how one statement takes all of them."""
    columns: list[list[object]] = [[] for _ in range(width)]
    for row in rows:
        for column, value in zip(columns, row, strict=True):
            column.append(value)
    return columns
