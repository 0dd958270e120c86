"""Names of the log's entries: under which the ledger finds one, and takes none a second time.

::

    log/1                          entry 0 of shard 1
    open/SESSION/EPOCH             session-open
    seal/SESSION/EPOCH             session-seal
    segment/SHA256                 a segment record, by its hash
    incident/TOPIC/PARTITION/OFFSET/REASON/SESSION/EPOCH/SEQ
    heartbeat/1/41                 the heartbeat at index 41 of shard 1
    statement/ID                   whatever was signed

Two entries of one name would say the same thing twice: a second seal, a repeated statement. Pure.
"""

from __future__ import annotations

from typing import Final

from sealtape.schemas.segments import SegmentRecord, record_hash
from sealtape.schemas.tlog.records import (
    Entry,
    Heartbeat,
    LogIncident,
    LogStart,
    SessionOpen,
    SessionSeal,
)

__all__ = [
    "NO_OFFSET",
    "name_of",
    "open_name",
    "seal_name",
    "segment_name",
    "statement_name",
]

NO_OFFSET: Final = -1
"""The offset of an incident that was not found on the bus."""


def name_of(entry: Entry, index: int, number: int) -> str:
    """The name of an entry at `index` of the log's shard `number`."""
    match entry:
        case LogStart():
            return f"log/{entry.number}"
        case SessionOpen():
            return open_name(entry.session, entry.epoch)
        case SessionSeal():
            return seal_name(entry.session, entry.epoch)
        case SegmentRecord():
            return segment_name(record_hash(entry))
        case LogIncident():
            return _incident(entry)
        case Heartbeat():
            return f"heartbeat/{number}/{index}"
        case _:
            return statement_name(entry.body.heading.id)


def open_name(session: bytes, epoch: int) -> str:
    """The name of the entry that says that an epoch began."""
    return f"open/{session.hex()}/{epoch}"


def seal_name(session: bytes, epoch: int) -> str:
    """The name of the entry that seals an epoch."""
    return f"seal/{session.hex()}/{epoch}"


def segment_name(record: bytes) -> str:
    """The name of a segment record's entry, by the record's hash."""
    return f"segment/{record.hex()}"


def statement_name(ident: bytes) -> str:
    """The name of a statement's entry, by the statement's id."""
    return f"statement/{ident.hex()}"


def _incident(entry: LogIncident) -> str:
    """One for each place on the bus, reason and frame: offsets may come a second time."""
    bus = entry.bus
    name = f"incident/{bus.topic}/{bus.partition}/{bus.offset}/{entry.reason}"
    epoch = NO_OFFSET if entry.epoch is None else entry.epoch
    seq = NO_OFFSET if entry.seq is None else entry.seq
    return f"{name}/{entry.session.hex()}/{epoch}/{seq}"
