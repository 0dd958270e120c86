"""What every adapter's publish transaction compares and computes alike. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NoReturn, TypeVar

from sealtape.ingest.ledger.rows import Head, Lease, SealedSegment, SessionChange, ShardHead
from sealtape.schemas.errors import Fenced
from sealtape.schemas.segments import record_hash

__all__ = ["abandoned", "continued", "fenced", "first_state", "head_of", "moved", "rounds"]

T = TypeVar("T")

_HASH = 32


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
