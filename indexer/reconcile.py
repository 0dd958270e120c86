"""The ledger's rows against what was verified: a ledger is a cache, and whoever edits it is found.

Everything the rows say follows from the segments' fragments and from the frames themselves, so it
is computed again and compared. The ledger may grow meanwhile: a difference counts only when it is
still there, and the same, after reading again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sealtape.ingest.ledger.base import Ledger
from sealtape.ingest.ledger.rows import FragmentRow, Head, SessionRow
from sealtape.schemas.errors import FormatError
from sealtape.schemas.segments import FragmentRecord
from sealtape.schemas.tree import CompactRange

__all__ = ["MALFORMED", "Ending", "differences"]

# SQLite keeps any type in any column: an edited row can hold text or a number where bytes belong.
MALFORMED = (FormatError, AttributeError, TypeError, ValueError)
_PATIENCE = 8

Problem = tuple[int | None, str]
"""Epoch, if it is about one, and what is wrong."""


@dataclass(frozen=True, slots=True)
class Ending:
    """What the verified frames of one epoch say about its head.

    Attributes:
        opening: the OPEN payload; None when it could not be had.
        closed: the reason that CLOSE gives, empty without one; None when that is not known.
    """

    opening: bytes | None
    closed: str | None


@dataclass(frozen=True, slots=True)
class _Told:
    """What the ledger says of a session at one time, and the number of its incidents."""

    heads: tuple[Head, ...]
    row: SessionRow | None
    incidents: int
    fragments: tuple[FragmentRow, ...]


async def differences(
    ledger: Ledger,
    session: bytes,
    *,
    sealed: Sequence[FragmentRecord],
    endings: dict[int, Ending],
    last: int,
) -> list[Problem]:
    """Return where the ledger's rows of a session differ from what was verified.

    Args:
        ledger: the ledger.
        session: whose rows.
        sealed: the session's fragments as the manifests have them.
        endings: what its verified frames say, by epoch.
        last: the id of the last segment that was verified; what lies beyond came later.
    """
    before: tuple[_Told | None, list[Problem]] = None, []
    for _ in range(_PATIENCE):
        try:
            told = await _ask(ledger, session)
            problems = _compare(told, sealed, endings, last)
        except MALFORMED as exc:
            told, problems = None, [(None, f"its rows in the ledger cannot be read: {exc}")]
        if not problems or before == (told, problems):
            return problems
        before = told, problems
    return []  # it grew at each look, and nothing stayed wrong


async def _ask(ledger: Ledger, session: bytes) -> _Told:
    row = await ledger.session(session)
    heads = await ledger.epochs(session)
    incidents = await ledger.incidents(session=session)
    fragments = await ledger.fragments(session)
    return _Told(tuple(heads), row, len(incidents), tuple(fragments))


def _compare(
    told: _Told, sealed: Sequence[FragmentRecord], endings: dict[int, Ending], last: int
) -> list[Problem]:
    problems: list[Problem] = []
    rows = [row.record for row in told.fragments if row.segment_id <= last]
    if sorted(rows, key=_place) != sorted(sealed, key=_place):
        problems.append((None, "the ledger's fragments of the session are not those sealed"))
    newer = [row.record for row in told.fragments if row.segment_id > last]
    expected = _heads([*sealed, *newer])
    heads = {head.epoch: head for head in told.heads}
    for epoch, (base, records) in expected.items():
        head = heads.pop(epoch, None)
        if head is None:
            there = f"no head of it, {base.hi} frames are sealed"
            problems.append((epoch, f"the ledger has {there}"))
            continue
        fresh = any(record.epoch == epoch for record in newer)
        problems += _head(head, base, records, None if fresh else endings.get(epoch))
    for epoch in heads:
        problems.append((epoch, "the ledger has an epoch of which no frame is sealed"))
    if told.row is None:
        problems.append((None, "the ledger has lost the session's row"))
    else:
        problems += _row(told, told.row, [*sealed, *newer])
    return problems


def _place(record: FragmentRecord) -> tuple[int, int, int]:
    return record.epoch, record.lo, record.hi


def _heads(
    records: Sequence[FragmentRecord],
) -> dict[int, tuple[CompactRange, list[FragmentRecord]]]:
    """Where each epoch's fragments lead: the range since the last gap, as a head keeps it."""
    found: dict[int, tuple[CompactRange, list[FragmentRecord]]] = {}
    for record in sorted(records, key=_place):
        base, own = found.setdefault(record.epoch, (CompactRange(), []))
        own.append(record)
        if record.gaps or record.lo != base.hi:
            found[record.epoch] = (record.range, own)
        else:
            base.extend(record.range)
    return found


def _head(
    head: Head, base: CompactRange, records: Sequence[FragmentRecord], ending: Ending | None
) -> list[Problem]:
    """One head against its epoch's fragments and, unless it has grown since, its frames."""
    if head.hi != base.hi:
        return [(head.epoch, f"the ledger says {head.hi} frames, {base.hi} are sealed")]
    checks = {
        "nodes": (head.lo, head.nodes) == (base.lo, base.nodes),
        "time": head.last_ts_ns == max(record.last_ts_ns for record in records),
        "gaps": head.lost == sum(gap.hi - gap.lo for record in records for gap in record.gaps),
    }
    if not head.lost:
        signed = max((r.checkpoint.size for r in records if r.checkpoint is not None), default=0)
        checks["signature"] = head.attested == signed
    if ending is not None and ending.opening is not None:
        checks["OPEN"] = head.opening == ending.opening
    if ending is not None and ending.closed is not None:
        checks["CLOSE"] = head.closed == ending.closed
    return [
        (head.epoch, f"the {name} of the ledger's head is not that of the sealed frames")
        for name, right in checks.items()
        if not right
    ]


_SEALED_STATE = {"incomplete": "live"}
"""What a state is as far as sealed frames say: that a node fell silent is in none of them."""


def _row(told: _Told, row: SessionRow, records: Sequence[FragmentRecord]) -> list[Problem]:
    """The session's row against its fragments and, for its end, the last head."""
    if not records or not told.heads:
        return []
    end = max(told.heads, key=lambda head: head.epoch)
    lost = sum(gap.hi - gap.lo for record in records for gap in record.gaps)
    state = ("sealed" if end.complete and not lost else "closed") if end.closed else "live"
    expected = {
        "tenant": (row.tenant, records[0].tenant),
        "class": (row.class_name, records[0].class_name),
        "epoch": (row.epoch, end.epoch),
        "frames": (row.frames, sum(record.hi - record.lo for record in records)),
        "bytes": (row.bytes, sum(record.bytes for record in records)),
        "first time": (row.first_ts_ns, min(record.first_ts_ns for record in records)),
        "last time": (row.last_ts_ns, max(record.last_ts_ns for record in records)),
        "gaps": (row.lost, lost),
        "end": (row.close_reason, end.closed),
        "state": (_SEALED_STATE.get(row.state, row.state), state),
    }
    problems: list[Problem] = [
        (None, f"the ledger's row says {name} {said}, what is sealed says {is_}")
        for name, (said, is_) in expected.items()
        if said != is_
    ]
    if row.incidents > told.incidents:
        problems.append((None, f"{row.incidents} incidents were kept, {told.incidents} are there"))
    return problems
