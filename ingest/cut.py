"""A cut: what of the waiting frames goes into segments now, and what that makes of the ledger."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from sealtape.ingest.findings import REASONS, Findings
from sealtape.ingest.ledger.rows import Event, Head, Incident, Quarantined, SessionChange
from sealtape.ingest.parquet import Row
from sealtape.ingest.track import NEVER, Piece, Stretch, Track, close_reason
from sealtape.schemas import canonical
from sealtape.schemas.bodies import RetentionClass
from sealtape.schemas.frames import Kind
from sealtape.schemas.segments import MAX_FRAGMENTS
from sealtape.schemas.tree import CompactRange

__all__ = ["Cut", "Group", "TrackChange", "incident_event", "make_cut"]

NO_OFFSET = -1


@dataclass(slots=True)
class Group:
    """Stretches for one segment, sorted by (session, epoch, lo)."""

    tenant: str
    retention: RetentionClass
    stretches: list[Stretch]


@dataclass(slots=True)
class TrackChange:
    """One epoch's new head, and what is left waiting of it."""

    before: Head | None
    head: Head
    base: CompactRange
    rest: list[Piece]
    change: SessionChange

    def apply(self, track: Track) -> None:
        """Make it the track's state."""
        track.head = self.head
        track.base = self.base
        track.pieces = self.rest


@dataclass(slots=True)
class Cut:
    """Everything a publication needs but the objects' bytes."""

    first: int
    next_offset: int
    now_ns: int
    groups: list[Group] = field(default_factory=list)
    changes: list[TrackChange] = field(default_factory=list)
    incidents: list[Incident] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether it would change nothing."""
        return self.first == self.next_offset and not (
            self.groups or self.incidents or self.quarantined
        )


def make_cut(
    tracks: Iterable[Track],
    *,
    first: int,
    read_to: int,
    aged_ns: int,
    findings: Findings,
    now_ns: int,
) -> Cut:
    """Take what is signed, and what has waited since `aged_ns` or longer. Changes no track.

    The next position is the lowest offset of anything that still waits.
    """
    cut = Cut(first, read_to, now_ns)
    grouped: dict[tuple[str, RetentionClass], list[Stretch]] = {}
    for track in tracks:
        if not track.waiting:
            continue
        taken, rest = _split(track, aged_ns, now_ns)
        if taken:
            stretches = [stretch for stretch, _ in taken]
            opening = stretches[0].opening
            grouped.setdefault((opening.tenant, opening.retention), []).extend(stretches)
            change = _change(track, taken, rest)
            cut.changes.append(change)
            cut.events.extend(_events(change, now_ns))
            _quarantine_rivals(track, change, findings, now_ns)
            _judge_order(track, taken, findings, now_ns)
        cut.next_offset = min(cut.next_offset, _lowest_offset(track, rest))
    for (tenant, retention), stretches in sorted(grouped.items(), key=_group_order):
        stretches.sort(key=lambda s: (s.opening.session, s.opening.epoch, s.run.lo))
        for start in range(0, len(stretches), MAX_FRAGMENTS):
            part = stretches[start : start + MAX_FRAGMENTS]
            cut.groups.append(Group(tenant, retention, part))
    cut.incidents = list(findings.incidents)
    cut.quarantined = list(findings.quarantined)
    cut.events.extend(incident_event(incident) for incident in cut.incidents)
    cut.events.extend(findings.events)
    return cut


def _group_order(
    item: tuple[tuple[str, RetentionClass], list[Stretch]],
) -> tuple[str, str, int, int]:
    (tenant, retention), _ = item
    return tenant, retention.name, retention.retain_for_s, retention.delete_after_s


def _lowest_offset(track: Track, rest: list[Piece]) -> int:
    lowest = min(track.held_offsets(), default=2**63 - 1)
    for piece in rest:
        lowest = min(lowest, *piece.offsets, *(offset for _, offset in piece.rivals.values()))
    return lowest


def _split(
    track: Track, aged_ns: int, now_ns: int
) -> tuple[list[tuple[Stretch, Piece]], list[Piece]]:
    """The stretches to seal, each with its piece, and the pieces that stay."""
    assert track.opening is not None
    taken: list[tuple[Stretch, Piece]] = []
    for index, piece in enumerate(track.pieces):
        lo, hi = piece.run.lo, piece.run.hi
        last = index == len(track.pieces) - 1
        size = piece.signed if last and piece.since_ns > aged_ns else hi
        if size == lo:
            return taken, track.pieces[index:]
        run = piece.run if size == hi else piece.range_at(size)
        checkpoint = (piece.signed, piece.note) if piece.signed > lo else None
        taken.append(
            (Stretch(track.opening, run, piece.rows[: size - lo], checkpoint, piece.gap), piece)
        )
        if size < hi:
            return taken, [_remainder(piece, size, now_ns)]
    return taken, []


def _remainder(piece: Piece, size: int, now_ns: int) -> Piece:
    count = size - piece.run.lo
    rest = Piece(CompactRange(size), rows=piece.rows[count:], offsets=piece.offsets[count:])
    for row in rest.rows:
        rest.run.append(row.leaf)
    rest.rivals = {seq: rival for seq, rival in piece.rivals.items() if seq >= size}
    rest.since_ns = now_ns
    return rest


def _change(track: Track, taken: list[tuple[Stretch, Piece]], rest: list[Piece]) -> TrackChange:
    before = track.head
    base = track.base.copy()
    attested = before.attested if before is not None else 0
    lost = 0
    offset = before.offset if before is not None else NO_OFFSET
    closed = before.closed if before is not None else ""
    rows: list[Row] = []
    for stretch, piece in taken:
        if stretch.gap is None:
            base.extend(stretch.run)
        else:
            base = stretch.run.copy()
            lost += stretch.gap.hi - stretch.gap.lo
        if piece.attested and stretch.checkpoint is not None:
            attested = stretch.checkpoint[0]
        offset = max(offset, *piece.offsets[: len(stretch.rows)])
        closed = close_reason(stretch.rows) or closed
        rows += stretch.rows
    head = Head(
        session=track.session,
        epoch=track.epoch,
        lo=base.lo,
        hi=base.hi,
        nodes=base.nodes,
        last_ts_ns=max(row.ts_ns for row in rows)
        if before is None
        else max(before.last_ts_ns, *(row.ts_ns for row in rows)),
        offset=offset,
        attested=attested,
        lost=lost + (before.lost if before is not None else 0),
        closed=closed,
        opening=track.opening_payload,
    )
    return TrackChange(before, head, base, rest, _session_change(track, head, rows, lost))


def _session_change(track: Track, head: Head, rows: list[Row], lost: int) -> SessionChange:
    opening = track.opening
    assert opening is not None
    return SessionChange(
        session=track.session,
        tenant=opening.tenant,
        class_name=opening.retention.name,
        epoch=track.epoch,
        frames=len(rows),
        bytes=sum(row.payload_len for row in rows),
        first_ts_ns=min(row.ts_ns for row in rows),
        last_ts_ns=max(row.ts_ns for row in rows),
        lost=lost,
        closed=head.closed,
        complete=head.complete,
    )


def _quarantine_rivals(track: Track, change: TrackChange, findings: Findings, now_ns: int) -> None:
    for piece in track.pieces:
        for seq, (row, offset) in piece.rivals.items():
            if seq < change.head.hi:
                findings.quarantine_row("conflict", row, offset=offset, now_ns=now_ns)


def _judge_order(
    track: Track, taken: list[tuple[Stretch, Piece]], findings: Findings, now_ns: int
) -> None:
    """Say which of the frames that are sealed stand behind CLOSE, or are older than one before.

    Not said when they come: a frame that somebody slipped in and that is not sealed says nothing
    about those behind it.
    """
    ended, last_ts_ns = False, NEVER
    if track.head is not None:
        ended, last_ts_ns = bool(track.head.closed), track.head.last_ts_ns
    for stretch, piece in taken:
        for row, offset in zip(stretch.rows, piece.offsets, strict=False):
            wrong = ["after_close"] * ended + ["time_backwards"] * (row.ts_ns < last_ts_ns)
            for reason in wrong:
                findings.incident(
                    reason,
                    REASONS[reason],
                    offset=offset,
                    now_ns=now_ns,
                    session=row.session,
                    epoch=row.epoch,
                    seq=row.seq,
                )
            ended = ended or row.kind == Kind.CLOSE
            last_ts_ns = max(last_ts_ns, row.ts_ns)


def _events(change: TrackChange, now_ns: int) -> Iterable[Event]:
    """What happened to a session, without names or statements."""
    head, before = change.head, change.before
    common: dict[str, canonical.Json] = {
        "v": 1,
        "session": head.session.hex(),
        "epoch": head.epoch,
        "tenant": change.change.tenant,
        "class": change.change.class_name,
        "frames": str(head.hi),
    }
    key = head.session.hex()
    if before is None:
        yield _event("session-open", key, common, now_ns)
    if head.closed and (before is None or not before.closed):
        kind = "session-sealed" if head.complete else "session-closed"
        yield _event(kind, key, common | {"reason": head.closed}, now_ns)


def incident_event(incident: Incident) -> Event:
    """What leaves about an incident."""
    body: dict[str, canonical.Json] = {
        "v": 1,
        "reason": incident.reason,
        "detail": incident.detail,
        "topic": incident.topic,
        "partition": incident.partition,
        "offset": str(incident.offset),
        "session": incident.session.hex(),
        "epoch": incident.epoch,
        "seq": str(incident.seq),
    }
    kind = "gap" if incident.reason == "gap" else "incident"
    return _event(kind, incident.session.hex(), body, incident.at_ns)


def _event(kind: str, key: str, body: dict[str, canonical.Json], now_ns: int) -> Event:
    return Event(kind, key, canonical.encode({"kind": kind, **body}), now_ns)
