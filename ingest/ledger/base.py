"""The port to the transactional store that says what is sealed.

Ledger rows are a cache of what bus, vault and log prove; they can be rebuilt. While they exist they
are the one place where a publication happens or does not. `docs/spec/ledger.md` has the tables,
the publish transaction and the crash matrix.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Protocol

from sealtape.capture.checkup import Check
from sealtape.ingest.ledger.rows import (
    Event,
    FragmentRow,
    Head,
    Incident,
    Lease,
    LeaseRow,
    LogEntry,
    LogState,
    Publish,
    Quarantined,
    SegmentRow,
    SessionRow,
    ShardHead,
    StagedObject,
    Submitted,
    Totals,
    Unsealed,
)
from sealtape.schemas.errors import SettingsError
from sealtape.schemas.urls import shown_url

__all__ = ["Ledger", "check_ledger", "open_ledger", "prepare_ledger"]


class Ledger(Protocol):
    """Positions, heads, segments, sessions, incidents, quarantine, outbox, and the log's entries.

    * Errors MUST be of the `StoreError` tree; a lost compare-and-set is `Fenced`.
    * A write MUST survive a crash of the host once its method has returned. When a method raised
      anything but `Fenced`, or was cancelled, its outcome is unknown: claim again and look.
    * Time is the store's own, never the caller's, wherever a lease or an age is judged.
    * Any number of processes MAY use one ledger at the same time.
    """

    async def claim(self, topic: str, partition: int, owner: str, ttl_s: float) -> Lease | None:
        """Take the lease of a partition for `ttl_s` seconds; None while somebody else holds it.

        MUST raise the term by one on every success, also when `owner` held it already, so that
        whatever an earlier holder still has in hand is fenced off from then on.
        """
        ...

    async def renew(self, lease: Lease, ttl_s: float) -> None:
        """Hold on for another `ttl_s` seconds. Raises `Fenced` when the term is not current."""
        ...

    async def release(self, lease: Lease) -> None:
        """Let the next owner claim at once. MUST do nothing when the term is not current."""
        ...

    async def position(self, topic: str, partition: int) -> int:
        """The next offset to read of a partition; 0 when it was never claimed."""
        ...

    async def positions(self) -> dict[tuple[str, int], int]:
        """The positions of all (topic, partition) that were ever claimed."""
        ...

    async def leases(self) -> list[LeaseRow]:
        """All leases, held or not, in order of (topic, partition)."""
        ...

    async def beat(self, role: str, worker: str, ttl_s: float) -> list[str]:
        """Say that `worker` is at work for the next `ttl_s` seconds.

        Returns all live workers of the role in ascending order, this one among them.
        """
        ...

    async def leave(self, role: str, worker: str) -> None:
        """Say that `worker` is at work no more. Idempotent."""
        ...

    async def stage(self, lease: Lease, keys: Sequence[str]) -> None:
        """Announce objects before they are put into the vault, so that orphans can be found.

        Raises `Fenced` when the term is not current, `Exists` when a key was ever staged before.
        """
        ...

    async def publish(self, publication: Publish) -> None:
        """Do all of `publication`, or nothing and raise `Fenced`.

        In one transaction it MUST require that

        * the lease's term is current and the position is `first`;
        * every segment key and every key of `objects` is staged and not abandoned;
        * the shard's head is what the first segment record continues, and each next one continues
          the one before it;
        * each head's digest is the one named in its change;

        and MUST then mark the objects published, add segments and fragments, replace the heads,
        add to the sessions, keep incidents (one per place on the bus, reason and frame) and
        quarantined messages (one per place and SHA-256) that are not there yet, make `silent`
        sessions that are live `incomplete` (`revision` grows by one), append events and set the
        position.
        """
        ...

    async def staged(self, older_than_s: float) -> list[StagedObject]:
        """Objects staged at least that long ago that were neither published nor abandoned."""
        ...

    async def abandon(self, key: str) -> bool:
        """Take a staged object out of play; True when the caller may erase it from the vault.

        MUST be a compare-and-set on `staged`: False for a published object, whatever its age.
        MUST be True again for one that was abandoned before.
        """
        ...

    async def abandoned(self, older_than_s: float) -> list[str]:
        """Abandoned keys that were staged at least that long ago and not yet forgotten."""
        ...

    async def forget(self, key: str) -> None:
        """Stop listing an abandoned object. Idempotent."""
        ...

    async def heads(self, names: Sequence[tuple[bytes, int]]) -> dict[tuple[bytes, int], Head]:
        """The heads of those (session, epoch) that have one."""
        ...

    async def epochs(self, session: bytes) -> list[Head]:
        """All heads of a session, in order of their epochs."""
        ...

    async def shards(self) -> dict[str, ShardHead]:
        """The heads of all shards."""
        ...

    async def shard_head(self, shard: str) -> ShardHead:
        """The head of a shard; (0, 32 zero bytes) for one without records."""
        ...

    def segments(self, after: int = 0) -> AsyncIterator[SegmentRow]:
        """Published segments with an id greater than `after`, in ascending order.

        MUST never let a segment appear later below an id that was handed out.
        """
        ...

    def chain(self, shard: str, first: int = 0) -> AsyncIterator[SegmentRow]:
        """Published segments of one shard whose record's `n` is at least `first`, in order of `n`.

        What one partition brought, without reading what the others did.
        """
        ...

    async def segment(self, key: str) -> SegmentRow | None:
        """A published segment by its object key."""
        ...

    async def fragments(self, session: bytes) -> list[FragmentRow]:
        """A session's fragments, in order of (epoch, lo)."""
        ...

    async def fragments_of(self, segment_id: int) -> list[FragmentRow]:
        """A segment's fragments, in the order of its manifest."""
        ...

    async def session(self, session: bytes) -> SessionRow | None:
        """One session's row."""
        ...

    def sessions(self, after: bytes = b"", *, state: str = "") -> AsyncIterator[SessionRow]:
        """All session rows in ascending order of the session id, greater than `after`.

        With `state`, those in it; the work for `live` and `incomplete` MUST grow with their number,
        not with that of all sessions.
        """
        ...

    async def totals(self) -> Totals:
        """How many sessions, segments and incidents there are; no row of them is handed out."""
        ...

    async def incidents(
        self, after: int = 0, session: bytes | None = None, reason: str | None = None
    ) -> list[Incident]:
        """Incidents with an id greater than `after`, in ascending order.

        Those of one session and for one reason, or of all; `b""` is the session of no session.
        """
        ...

    async def quarantined(
        self, topic: str, partition: int, from_offset: int = 0
    ) -> list[Quarantined]:
        """Quarantined messages of a partition from an offset on, in order of offset.

        There may be several at one: on a bus that was cut off, offsets begin anew.
        """
        ...

    async def outbox(self, after: int = 0, limit: int = 1000) -> list[Event]:
        """Events with an id greater than `after` that were not confirmed, in ascending order.

        MUST never let an event appear later below an id that was handed out.
        """
        ...

    async def sent(self, ids: Sequence[int]) -> None:
        """Confirm that events were relayed; they leave the outbox."""
        ...

    async def log_state(self) -> LogState:
        """How far the log is."""
        ...

    async def log_append(
        self,
        lease: Lease,
        number: int,
        first: int,
        entries: Sequence[LogEntry],
        cursor: bytes,
    ) -> None:
        """Add `entries` to shard `number` of the log at `first`, or nothing and raise `Fenced`.

        In one transaction it MUST require that

        * the lease's term is current;
        * the log is at (`number`, `first`), or at any size of shard `number` - 1 and `first` is 0:
          then shard `number` begins, and `note` and `witnessed` are empty again;
        * the entries' indexes are `first`, `first` + 1, ...;
        * no name of theirs is taken, by an entry of any shard or another of these; an empty name
          never is.

        and MUST then add the entries and set size and cursor. An entry named
        `seal/SESSION/EPOCH` (the session in hex) takes that epoch off `unsealed`. Without entries
        only the cursor is set. Entries of earlier shards stay as they are.
        """
        ...

    async def log_noted(self, lease: Lease, number: int, note: bytes, witnessed: bytes) -> None:
        """Store the last notes over shard `number`; an empty one leaves the stored one as it is.

        Raises `Fenced` when the lease's term is not current or the log is in another shard.
        """
        ...

    async def log_entries(self, number: int, first: int = 0, limit: int = 1000) -> list[LogEntry]:
        """At most `limit` entries of a shard from index `first` on, in order."""
        ...

    async def log_find(self, names: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Where entries of these names are: (shard number, index). The empty name is nowhere."""
        ...

    async def log_seals(self, number: int, first: int, end: int) -> tuple[int, LogEntry | None]:
        """How many entries of a shard in [first, end) are named `seal/…`, and the first of them.

        MUST hand out no other entry: there may be many millions.
        """
        ...

    async def log_statements(
        self, number: int, first: int = 0, limit: int = 1000
    ) -> list[LogEntry]:
        """At most `limit` of a shard's entries named `statement/…` from index `first` on, in order.

        The work MUST grow with the statements of the log, not with its entries.
        """
        ...

    async def unsealed(
        self, after: tuple[bytes, int] | None = None, limit: int = 500
    ) -> list[Unsealed]:
        """Epochs that may be final and have no entry `seal/SESSION/EPOCH` in the log.

        These are the closed ones, those that a later epoch follows, and those of sessions that are
        not `live`: at most `limit`, in order of (session, epoch), greater than `after`. The work
        MUST grow with the epochs that are not sealed, not with all there are. All segments that
        hold frames up to a head were published before it was listed.
        """
        ...

    async def submit(self, kind: str, payload: bytes) -> int:
        """Put something into the inbox, to become an entry of the log; returns its id.

        After an error it is there or not: who submits again may have it there twice. Raises
        `StoreError` for more than 65,535 bytes, which no entry can have.
        """
        ...

    async def inbox(self, after: int = 0, limit: int = 100) -> list[Submitted]:
        """What was submitted under an id greater than `after` and not taken, in ascending order.

        MUST never let something appear later below an id that was handed out.
        """
        ...

    async def taken(self, ids: Sequence[int]) -> None:
        """Say that these were dealt with; they leave the inbox. Idempotent."""
        ...

    async def close(self) -> None:
        """Release what the adapter holds. Closing twice is fine."""
        ...


async def open_ledger(
    url: str, base: Path, *, read_only: bool = False, snapshot: bool = False
) -> Ledger:
    """Open the ledger a URL names: `sqlite:FILE`, relative to `base`, or `postgresql://…`.

    `read_only` never creates or changes a file. A `snapshot` is read-only too, and every method
    answers as of one moment until it is closed, whatever is published meanwhile.
    Raises `SettingsError` and `StoreError`.
    """
    if _scheme(url) == "sqlite":
        from sealtape.ingest.ledger.sqlite import SqliteLedger

        return await SqliteLedger.open(url, base, read_only=read_only, snapshot=snapshot)
    from sealtape.ingest.ledger.postgresql.adapter import PostgresLedger

    return await PostgresLedger.open(url, base, read_only=read_only, snapshot=snapshot)


async def prepare_ledger(url: str, base: Path) -> list[str]:
    """Create what the ledger needs and does not have yet; returns what was done, in words.

    For `postgresql:` the URL's user becomes the owner of schema and tables. Raises the errors of
    `open_ledger`.
    """
    if _scheme(url) == "sqlite":
        from sealtape.ingest.ledger.sqlite import prepare_file

        return await prepare_file(url, base)
    from sealtape.ingest.ledger.postgresql.schema import prepare_schema

    return await prepare_schema(url, base)


async def check_ledger(url: str, base: Path, room: str = "") -> list[Check]:
    """Try what the adapter needs, and say what was found; a failure is an `error`, never raised.

    `room` is the one that uses the URL; without it any of the rights that one may have will do.
    """
    try:
        if _scheme(url) == "sqlite":
            from sealtape.ingest.ledger.sqlite import check_file

            return await check_file(url, base)
        from sealtape.ingest.ledger.postgresql.schema import check_schema

        return await check_schema(url, base, room)
    except SettingsError as error:
        return [Check("ledger: settings", "error", error.message, error.hint)]


def _scheme(url: str) -> str:
    scheme, _, rest = url.partition(":")
    if scheme == "sqlite" or (scheme == "postgresql" and rest.startswith("//")):
        return scheme
    raise SettingsError(
        f"{shown_url(url)!r} does not name a ledger.",
        hint="Write sqlite:FILE or postgresql://USER@HOST:PORT/DATABASE.",
        url=shown_url(url),
    )
