"""Entries out of the ledger's rows: what was opened, sealed, found wrong. Pure.

An entry says no more than its rows: it names sessions, segments and nodes, and no person. When an
epoch gets its seal, `Patience` decides:

* at once when it is closed and complete, or when a later epoch goes on where it ends;
* when it is closed with frames missing or unsigned, or its node fell silent: after nothing has
  changed for a while.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final, TypeAlias

from sealtape.ingest.ledger.rows import FragmentRow, Head, Incident, Unsealed
from sealtape.schemas.bodies import parse_open
from sealtape.schemas.errors import FormatError
from sealtape.schemas.tlog.records import (
    BusPlace,
    Listed,
    LogIncident,
    SessionOpen,
    SessionSeal,
)
from sealtape.schemas.tree import CompactRange

__all__ = ["Patience", "continued_at", "incident_entry", "open_entry", "place_after", "seal_entry"]

Name: TypeAlias = tuple[bytes, int]

INCOMPLETE: Final = "incomplete"
NONE: Final = bytes(32)


def open_entry(head: Head, now_ns: int) -> SessionOpen:
    """What the OPEN of an epoch says, for everybody. Its signature was verified when it came."""
    opening, _ = parse_open(head.opening, None)
    return SessionOpen(
        at_ns=now_ns,
        of=opening.type,
        tenant=opening.tenant,
        session=opening.session,
        epoch=opening.epoch,
        node=opening.node,
        boot=opening.boot,
        worker=opening.worker,
        number=opening.number,
        retention=opening.retention,
        anchor_ns=opening.anchor_ns,
        continues=opening.continues,
        opening_sha256=sha256(head.opening).digest(),
    )


def seal_entry(head: Head, rows: Sequence[FragmentRow], now_ns: int) -> SessionSeal:
    """What is sealed of an epoch; `rows` are its fragments in order.

    Raises FormatError when they are not all that the head counts.
    """
    opening, _ = parse_open(head.opening, None)
    records = [row.record for row in rows]
    _check_cover(head, rows)
    notes = [record.checkpoint for record in records if record.checkpoint is not None]
    last = max(notes, key=lambda note: note.size, default=None)
    return SessionSeal(
        at_ns=now_ns,
        tenant=opening.tenant,
        session=head.session,
        epoch=head.epoch,
        retention=opening.retention,
        frames=head.hi,
        root=b"" if head.lost else CompactRange(head.lo, head.hi, head.nodes).root(),
        lost=head.lost,
        attested=0 if last is None else last.size,
        closed=head.closed,
        first_ts_ns=min(record.first_ts_ns for record in records),
        last_ts_ns=max(record.last_ts_ns for record in records),
        opening_sha256=sha256(head.opening).digest(),
        checkpoint_sha256=NONE if last is None else sha256(last.note.encode()).digest(),
        fragments=Listed.of(record.to_json() for record in records),
    )


def _check_cover(head: Head, rows: Sequence[FragmentRow]) -> None:
    """Refuse fragments that do not extend each other, over stated gaps, to the head."""
    ends = [0, *(row.record.hi for row in rows)]
    begins = [*(row.record.lo for row in rows), head.hi]
    missing = sum(lo - hi for hi, lo in zip(ends, begins, strict=True))
    stated = sum(gap.hi - gap.lo for row in rows for gap in row.record.gaps)
    ordered = all(hi <= lo for hi, lo in zip(ends, begins, strict=True))
    if not rows or not ordered or missing != head.lost or stated != head.lost:
        raise FormatError(
            f"the fragments of session {head.session.hex()} epoch {head.epoch}"
            f" are not the {head.hi} frames, {head.lost} of them lost, that its head counts"
        )
    if not head.lost and head.lo:
        raise FormatError(f"the head of session {head.session.hex()} begins at {head.lo}")


def incident_entry(row: Incident) -> LogIncident:
    """An incident without its sentence."""
    return LogIncident(
        at_ns=row.at_ns,
        reason=row.reason,
        bus=BusPlace(row.topic, row.partition, row.offset),
        session=row.session,
        epoch=None if row.epoch < 0 else row.epoch,
        seq=None if row.seq < 0 else row.seq,
    )


def continued_at(heads: Sequence[Head], epoch: int) -> int | None:
    """Where a later epoch says that this one ends; None when none follows it."""
    for head in heads:
        if head.epoch > epoch:
            continues = parse_open(head.opening, None)[0].continues
            if continues is not None and continues.epoch == epoch:
                return continues.size
    return None


def place_after(position: int, now_ns: int) -> int:
    """The offset of an incident that was not found on the bus: when it was found, once.

    It grows with the time, not one by one, so a ledger that was made anew gives none out again.
    """
    return max(position, now_ns)


class Patience:
    """Whether nothing more is to be waited for, of epochs that may be final.

    Time is counted by whoever asks, from when a state was first seen: no clock of a node or a store
    can make an epoch final too soon.
    """

    def __init__(self, final_s: float) -> None:
        """Wait `final_s` seconds for what may still come."""
        self._final_s = final_s
        self._since: dict[Name, tuple[int, str, float]] = {}

    def look(self, items: Sequence[Unsealed], now: float) -> list[Unsealed]:
        """Those of all unsealed epochs for which nothing changed for so long; others are forgotten.

        `now` is seconds by a clock that never goes back.
        """
        kept: dict[Name, tuple[int, str, float]] = {}
        quiet = []
        for item in items:
            name = (item.head.session, item.head.epoch)
            changed, state, since = self._since.get(name, (item.changed_ns, item.state, now))
            if (changed, state) != (item.changed_ns, item.state):
                since = now
            kept[name] = (item.changed_ns, item.state, since)
            ended = item.head.closed or item.followed or item.state == INCOMPLETE
            if ended and now - since >= self._final_s:
                quiet.append(item)
        self._since = kept
        return quiet
