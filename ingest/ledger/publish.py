"""The publish transaction of the SQLite ledger, step by step. Blocking; runs in its thread."""

from __future__ import annotations

import sqlite3

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
    seal_name,
)
from sealtape.schemas.segments import FIRST_PREV

__all__ = ["publish_all"]


def publish_all(connection: sqlite3.Connection, publication: Publish, now_ns: int) -> None:
    """Run inside a write transaction; `Fenced` means it must be rolled back."""
    swap_position(connection, publication)
    for key in (*(segment.key for segment in publication.segments), *publication.objects):
        take_staged(connection, key)
    extend_shard(connection, publication.shard, publication.segments)
    for segment in publication.segments:
        _add_segment(connection, segment)
    for change in publication.heads:
        swap_head(connection, change, now_ns)
    for session in publication.sessions:
        _add_to_session(connection, session)
    _keep_quarantined(connection, publication)
    _keep_incidents(connection, publication)
    for name in publication.silent:
        _mark_silent(connection, name, now_ns)
    connection.executemany(
        "INSERT INTO outbox (kind, key, payload, at_ns) VALUES (?,?,?,?)",
        [(event.kind, event.key, event.payload, event.at_ns) for event in publication.events],
    )


def swap_position(connection: sqlite3.Connection, publication: Publish) -> None:
    """Compare-and-set of term and position: what a newer holder did is never overwritten."""
    lease = publication.lease
    changed = connection.execute(
        "UPDATE lease SET next_offset=? WHERE topic=? AND part=? AND term=? AND next_offset=?",
        (publication.next_offset, lease.topic, lease.partition, lease.term, publication.first),
    ).rowcount
    if changed != 1:
        fenced(lease, "its term or position is not current")


def take_staged(connection: sqlite3.Connection, key: str) -> None:
    """Compare-and-set of an object's state: what the collector abandoned is never published."""
    changed = connection.execute(
        "UPDATE object SET state='published' WHERE key=? AND state='staged'", (key,)
    ).rowcount
    if changed != 1:
        abandoned(key)


def extend_shard(
    connection: sqlite3.Connection, shard: str, segments: tuple[SealedSegment, ...]
) -> None:
    """Compare-and-set of the chain's end, one record after the other."""
    row = connection.execute("SELECT n, hash FROM shard WHERE shard=?", (shard,)).fetchone()
    end = continued(shard, ShardHead(*row) if row else ShardHead(0, FIRST_PREV), segments)
    if segments:
        connection.execute("INSERT OR REPLACE INTO shard VALUES (?,?,?)", (shard, end.n, end.hash))


def swap_head(connection: sqlite3.Connection, change: HeadChange, now_ns: int) -> None:
    """Compare-and-set of one (session, epoch): no frame is ever sealed twice."""
    head = change.after
    row = connection.execute(
        "SELECT digest FROM head WHERE session=? AND epoch=?", (head.session, head.epoch)
    ).fetchone()
    if (row[0] if row else None) != change.before:
        moved(head)
    connection.execute(
        _PUT_HEAD,
        (
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
            now_ns,
            seal_name(head.session, head.epoch),
        ),
    )


_PUT_HEAD = """
INSERT INTO head SELECT ?,?,?,?,?,?,?,?,?,?,?,?,?,
  EXISTS (SELECT 1 FROM log_entry WHERE name=? AND name<>'') WHERE true
ON CONFLICT (session, epoch) DO UPDATE SET digest=excluded.digest, lo=excluded.lo, hi=excluded.hi,
  nodes=excluded.nodes, last_ts_ns=excluded.last_ts_ns, bus_offset=excluded.bus_offset,
  attested=excluded.attested, lost=excluded.lost, closed=excluded.closed,
  opening=excluded.opening, changed_ns=excluded.changed_ns
"""


def _mark_silent(connection: sqlite3.Connection, session: bytes, now_ns: int) -> None:
    changed = connection.execute(
        "UPDATE session SET state='incomplete', revision=revision+1"
        " WHERE session=? AND state='live'",
        (session,),
    ).rowcount
    if changed:
        connection.execute(
            "UPDATE head SET changed_ns=? WHERE session=? AND in_log=0", (now_ns, session)
        )


def _add_segment(connection: sqlite3.Connection, segment: SealedSegment) -> None:
    record = segment.record
    segment_id = connection.execute(
        "INSERT INTO segment (key, shard, n, record) VALUES (?,?,?,?)",
        (segment.key, record.shard, record.n, record.to_json()),
    ).lastrowid
    connection.executemany(
        "INSERT INTO fragment VALUES (?,?,?,?,?,?,?)",
        [
            (
                segment_id,
                index,
                fragment.session,
                fragment.epoch,
                fragment.lo,
                fragment.hi,
                fragment.to_json(),
            )
            for index, fragment in enumerate(segment.fragments)
        ],
    )


def _add_to_session(connection: sqlite3.Connection, change: SessionChange) -> None:
    """Add the counts; the state follows the last epoch, so an older epoch's end changes nothing."""
    values = {
        "session": change.session,
        "tenant": change.tenant,
        "class": change.class_name,
        "epoch": change.epoch,
        "frames": change.frames,
        "bytes": change.bytes,
        "first": change.first_ts_ns,
        "last": change.last_ts_ns,
        "lost": change.lost,
        "state": first_state(change),
        "closed": change.closed,
    }
    connection.execute(
        """
        INSERT INTO session SELECT :session, :tenant, :class, :state, :epoch, :frames, :bytes,
          :first, :last, :closed, :lost, count(*), 1 + count(*) FROM incident
          WHERE session = :session
        ON CONFLICT (session) DO UPDATE SET
          state = CASE WHEN :epoch >= epoch THEN :state ELSE state END,
          close_reason = CASE WHEN :epoch >= epoch THEN :closed ELSE close_reason END,
          epoch = max(epoch, :epoch),
          frames = frames + :frames, bytes = bytes + :bytes,
          first_ts_ns = min(first_ts_ns, :first), last_ts_ns = max(last_ts_ns, :last),
          lost = lost + :lost, revision = revision + 1
        """,
        values,
    )
    connection.execute(
        "UPDATE session SET state='closed' WHERE session=? AND state='sealed' AND lost > 0",
        (change.session,),
    )


def _keep_quarantined(connection: sqlite3.Connection, publication: Publish) -> None:
    connection.executemany(
        "INSERT OR IGNORE INTO quarantine VALUES (?,?,?,?,?,?,?,?,?,?)",
        [
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
        ],
    )


def _keep_incidents(connection: sqlite3.Connection, publication: Publish) -> None:
    for item in publication.incidents:
        added = connection.execute(
            "INSERT OR IGNORE INTO incident (topic, part, bus_offset, reason, detail, session,"
            " epoch, seq, at_ns) VALUES (?,?,?,?,?,?,?,?,?)",
            (
                item.topic,
                item.partition,
                item.offset,
                item.reason,
                item.detail,
                item.session,
                item.epoch,
                item.seq,
                item.at_ns,
            ),
        ).rowcount
        if added:
            connection.execute(
                "UPDATE session SET incidents=incidents+1, revision=revision+1 WHERE session=?",
                (item.session,),
            )
