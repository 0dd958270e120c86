"""What one publication made of heads and sessions, out of its segments. Pure.

The same arithmetic as a cut's (`sealtape.ingest.cut`), from fragment records instead of frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sealtape.ingest.findings import REASONS
from sealtape.ingest.ledger.rows import Head, HeadChange, SessionChange
from sealtape.ingest.track import NEVER
from sealtape.schemas.bodies import Close, parse_open
from sealtape.schemas.errors import FormatError
from sealtape.schemas.frames import Kind
from sealtape.schemas.segments import FragmentRecord
from sealtape.schemas.tlog.records import UNREADABLE
from sealtape.schemas.tree import CompactRange

__all__ = ["Name", "Pace", "Remark", "Seen", "breaks_off", "closing", "derive", "remarks_of"]

Name = tuple[bytes, int]


@dataclass(frozen=True, slots=True)
class Seen:
    """A fragment, and what its rows say: OPEN's payload (at lo 0) and the reason of a CLOSE."""

    record: FragmentRecord
    opening: bytes
    closed: str

    @property
    def name(self) -> Name:
        """Its (session, epoch)."""
        return self.record.session, self.record.epoch


@dataclass(frozen=True, slots=True)
class Remark:
    """An incident that sealed frames show by themselves, at the frame with this seq."""

    reason: str
    detail: str
    session: bytes
    epoch: int
    seq: int
    at_seq: int
    """The frame at whose place on the bus ingest noticed it."""
    at_ns: int


def closing(payloads: Iterable[tuple[int, bytes]]) -> str:
    """CLOSE's reason among (kind, payload) of a fragment's frames; empty when there is none."""
    reason = ""
    for kind, payload in payloads:
        if kind == Kind.CLOSE:
            try:
                reason = Close.from_json(payload).reason
            except FormatError:
                reason = UNREADABLE
    return reason


def derive(
    fragments: Sequence[Seen], heads: Mapping[Name, Head], offset: int
) -> tuple[list[HeadChange], list[SessionChange]]:
    """The changes of one publication whose fragments are given in order.

    `heads` are those before it. `offset` is a bus offset that none of its frames lies below; what
    the bus still holds tells the true one later. Raises `FormatError` where fragments do not go on
    from the heads.
    """
    by_name: dict[Name, list[Seen]] = {}
    for seen in fragments:
        by_name.setdefault(seen.name, []).append(seen)
    changes, sessions = [], []
    for name, parts in by_name.items():
        before = heads.get(name)
        after = _head(name, parts, before, offset)
        changes.append(HeadChange(None if before is None else before.digest(), after))
        sessions.append(_session(parts, after))
    return changes, sessions


def _head(name: Name, parts: Sequence[Seen], before: Head | None, offset: int) -> Head:
    base = CompactRange() if before is None else CompactRange(before.lo, before.hi, before.nodes)
    attested, lost, closed, opening = 0, 0, "", b""
    if before is not None:
        attested, lost = before.attested, before.lost
        closed, opening = before.closed, before.opening
    for seen in parts:
        record = seen.record
        gaps = _lost(record)
        if gaps:
            base = record.range
        elif record.lo == base.hi:
            base.extend(record.range)
        else:
            raise FormatError(
                f"Frames {base.hi} to {record.lo - 1} of session {name[0].hex()} are in no segment."
            )
        lost += gaps
        if base.lo == 0 and not gaps and record.checkpoint is not None:
            attested = record.checkpoint.size
        closed = seen.closed or closed
        opening = opening or seen.opening
    last = max(seen.record.last_ts_ns for seen in parts)
    return Head(
        session=name[0],
        epoch=name[1],
        lo=base.lo,
        hi=base.hi,
        nodes=base.nodes,
        last_ts_ns=last if before is None else max(before.last_ts_ns, last),
        offset=offset if before is None else max(before.offset, offset),
        attested=attested,
        lost=lost,
        closed=closed,
        opening=opening,
    )


def _session(parts: Sequence[Seen], head: Head) -> SessionChange:
    records = [seen.record for seen in parts]
    return SessionChange(
        session=head.session,
        tenant=records[0].tenant,
        class_name=records[0].class_name,
        epoch=head.epoch,
        frames=sum(record.hi - record.lo for record in records),
        bytes=sum(record.bytes for record in records),
        first_ts_ns=min(record.first_ts_ns for record in records),
        last_ts_ns=max(record.last_ts_ns for record in records),
        lost=sum(map(_lost, records)),
        closed=head.closed,
        complete=head.complete,
    )


def _lost(record: FragmentRecord) -> int:
    return sum(gap.hi - gap.lo for gap in record.gaps)


@dataclass(slots=True)
class Pace:
    """Where the frames of one epoch have come to, in time."""

    ended: bool = False
    last_ts_ns: int = NEVER

    @classmethod
    def at(cls, head: Head | None) -> Pace:
        """After what is sealed already."""
        return cls() if head is None else cls(bool(head.closed), head.last_ts_ns)


def remarks_of(
    record: FragmentRecord, rows: Iterable[tuple[int, int]], pace: Pace, at_ns: int
) -> list[Remark]:
    """What (kind, ts_ns) of a fragment's frames show: gaps, frames after CLOSE, time backwards.

    Moves `pace` on.
    """
    found = [
        _remark("gap", record, gap.lo, record.lo, at_ns, _gap_detail(gap.lo, gap.hi))
        for gap in record.gaps
    ]
    for seq, (kind, ts_ns) in enumerate(rows, record.lo):
        if pace.ended:
            found.append(_remark("after_close", record, seq, seq, at_ns))
        if ts_ns < pace.last_ts_ns:
            found.append(_remark("time_backwards", record, seq, seq, at_ns))
        pace.ended = pace.ended or kind == Kind.CLOSE
        pace.last_ts_ns = max(pace.last_ts_ns, ts_ns)
    return found


def _gap_detail(lo: int, hi: int) -> str:
    return f"Frames {lo} to {hi - 1} never came."


def _remark(
    reason: str, record: FragmentRecord, seq: int, at_seq: int, at_ns: int, detail: str = ""
) -> Remark:
    return Remark(
        reason, detail or REASONS[reason], record.session, record.epoch, seq, at_seq, at_ns
    )


def breaks_off(epochs: Mapping[int, Head], head: Head, at_ns: int) -> list[Remark]:
    """Whether a recovery epoch does not go on where the epoch before it ends, as its OPEN says."""
    continues = parse_open(head.opening, None)[0].continues
    if continues is None:
        return []
    before = epochs.get(continues.epoch)
    if before is not None and before.hi == continues.size:
        root = CompactRange(before.lo, before.hi, before.nodes).root() if before.lo == 0 else None
        if root in {continues.root, None}:
            return []
    reason = "continuation"
    return [Remark(reason, REASONS[reason], head.session, head.epoch, 0, 0, at_ns)]
