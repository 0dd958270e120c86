"""What every adapter's publish transaction compares and computes alike. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NoReturn, TypeVar

from sealtape.ingest.ledger.rows import (
    Head,
    Lease,
    LogEntry,
    SealedSegment,
    SessionChange,
    ShardHead,
)
from sealtape.schemas.errors import Fenced, StoreError
from sealtape.schemas.segments import record_hash

__all__ = [
    "abandoned",
    "check_appended",
    "check_submitted",
    "continued",
    "fenced",
    "first_state",
    "head_of",
    "moved",
    "name_taken",
    "rounds",
    "seal_name",
    "sealed_epochs",
]

T = TypeVar("T")

_HASH = 32
_LARGEST_ENTRY = 65_535
_SEAL = re.compile(r"seal/([0-9a-f]{32})/(0|[1-9][0-9]{0,9})")


def fenced(lease: Lease, what: str) -> NoReturn:
    """Say why nothing was published."""
    raise Fenced(
        f"Term {lease.term} of {lease.topic}/{lease.partition} lost: {what}.",
        hint="Claim the partition again and read on from its position.",
    )


def abandoned(key: str) -> NoReturn:
    """Say which object is not staged any more."""
    raise Fenced(f"{key} was abandoned before it was published.", key=key)


def moved(head: Head) -> NoReturn:
    """Say which head is not the one that was read."""
    raise Fenced(
        f"Session {head.session.hex()} epoch {head.epoch} was sealed further by another.",
        session=head.session.hex(),
        epoch=head.epoch,
    )


def continued(shard: str, end: ShardHead, segments: Iterable[SealedSegment]) -> ShardHead:
    """The end of a chain after `segments`; `Fenced` when one does not continue it."""
    for segment in segments:
        record = segment.record
        if (record.shard, record.n, record.prev) != (shard, end.n, end.hash):
            raise Fenced(
                f"{segment.key} does not continue shard {shard} at {end.n}.", key=segment.key
            )
        end = ShardHead(end.n + 1, record_hash(record))
    return end


def check_appended(
    at: tuple[int, int], number: int, first: int, entries: Sequence[LogEntry]
) -> bool:
    """Whether `entries` begin shard `number`; `Fenced` when they do not go on from where it is."""
    begins = first == 0 and number == at[0] + 1
    if number < 1 or not (begins or at == (number, first)):
        raise Fenced(
            f"Shard {number} of the log is not at {first}: the log is at {at[1]} of shard {at[0]}.",
            hint="Read the log's state and go on from there.",
        )
    if [entry.index for entry in entries] != list(range(first, first + len(entries))):
        raise Fenced(f"Entries at {first} of shard {number} are not numbered one after the other.")
    names: set[str] = set()
    for entry in entries:
        if entry.name in names:
            name_taken(entry.name)
        if entry.name:
            names.add(entry.name)
    return begins


def name_taken(name: str) -> NoReturn:
    """Say which entry the log has already."""
    raise Fenced(f"The log has an entry {name} already.", name=name)


def seal_name(session: bytes, epoch: int) -> str:
    """The name under which the log has the seal of an epoch."""
    return f"seal/{session.hex()}/{epoch}"


def sealed_epochs(entries: Iterable[LogEntry]) -> list[tuple[bytes, int]]:
    """The (session, epoch) that these entries seal, in order, as the names say."""
    found = (_SEAL.fullmatch(entry.name) for entry in entries)
    return sorted((bytes.fromhex(match[1]), int(match[2])) for match in found if match)


def check_submitted(payload: bytes) -> None:
    """Refuse what no entry of the log can hold."""
    if len(payload) > _LARGEST_ENTRY:
        raise StoreError(
            f"An entry of the log has at most {_LARGEST_ENTRY} bytes, this has {len(payload)}."
        )


def first_state(change: SessionChange) -> str:
    """The state this change leaves a session in when nothing is known of it yet."""
    if not change.closed:
        return "live"
    return "sealed" if change.complete else "closed"


def rounds(items: Iterable[T], name: Callable[[T], Hashable]) -> list[list[T]]:
    """`items` in rounds with each name once at most; the order within a name is kept."""
    seen: dict[Hashable, int] = {}
    found: list[list[T]] = []
    for item in items:
        number = seen.get(name(item), 0)
        seen[name(item)] = number + 1
        if number == len(found):
            found.append([])
        found[number].append(item)
    return found


def head_of(row: Sequence[Any]) -> Head:
    """The head in a row's columns, in the order of `Head`'s fields."""
    nodes = row[4]
    return Head(
        session=row[0],
        epoch=row[1],
        lo=row[2],
        hi=row[3],
        nodes=tuple(nodes[i : i + _HASH] for i in range(0, len(nodes), _HASH)),
        last_ts_ns=row[5],
        offset=row[6],
        attested=row[7],
        lost=row[8],
        closed=row[9],
        opening=row[10],
    )
