"""The bus port: the log that capture appends to and that ingest and the indexer read.

An adapter MUST keep these rules; `tests/conformance/bus.py` checks them on every adapter.

1. `append` MUST return only when the messages are durable ("acked"): no crash of this process, and
   none the store is built to survive, loses them afterwards.
2. Messages of one `append` MUST be read in their order, and before those of any later `append` to
   the same partition by the same caller. Appends of several processes may interleave.
3. An offset MUST name the same message for ever, and offsets MUST grow. They need not be dense:
   only `Record.next_offset`, `Batch.next_offset` and what `append` and `bounds` return may be read
   from.
4. A failed `append` may have put down some of its messages; the caller repeats all of them, and
   readers MUST be ready to see a message twice.
5. `read` MUST be free of effects and MUST NOT hand out a message a crash could still take back.
6. `trim` MUST NOT delete a message that one of the named consumers has not passed.
7. `read` MUST raise `Missing` for an offset that is not kept: below the first or above the end. It
   MUST NOT go on from anywhere else by itself.
8. `topic` MUST name the log and not its name only: a log that was deleted and made anew under the
   same name has another `topic`, since its offsets name other messages. An adapter MUST notice when
   this happens while it runs, and refuse from then on.
9. Before `start` has succeeded once, `topic` is not known; everything else may be called and starts
   the bus by itself. `StoreBusy` from any method means: not now, the same call may work later.
10. Nothing but `sealtape.schemas.errors.StoreError` and its kinds may leave an adapter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

MAX_MESSAGE = 4 << 20
"""Longest value an adapter must take, in bytes."""


@dataclass(frozen=True, slots=True)
class Record:
    """One message: where it stands, when the bus took it (ms since the epoch), key and value."""

    offset: int
    next_offset: int
    ts_ms: int
    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive messages, and the offset to read on from (also when there were none)."""

    records: list[Record]
    next_offset: int


class Bus(Protocol):
    """See the module docstring for the rules."""

    @property
    def topic(self) -> str:
        """Name of the log, part of what ingest calls a position; see rules 8 and 9."""

    @property
    def partitions(self) -> int:
        """Number of partitions; it never changes."""

    @property
    def retention_s(self) -> float | None:
        """How long a message is kept at most, in seconds; None when only `trim` deletes.

        It may change while the bus is open, as somebody changes it behind our back.
        """

    def partition_of(self, session: bytes) -> int:
        """Return the partition all messages of a session go to."""

    async def start(self) -> None:
        """Connect and compare the log with what the URL says of it; does nothing once it has.

        Raises `StoreBusy` when the store cannot be reached, `StoreError` when it refuses or is not
        what the URL says.
        """

    async def append(self, partition: int, messages: Sequence[tuple[bytes, bytes]]) -> int:
        """Append (key, value) pairs and return the offset after the last one, when durable.

        Raises `StoreFull` when there is no room, `StoreBusy` under back-pressure, or `StoreError`.
        """

    async def read(self, partition: int, offset: int, *, max_bytes: int, wait_s: float) -> Batch:
        """Return the messages from `offset` on: at least one, up to `max_bytes` of keys and values.

        Waits up to `wait_s` seconds for the first and returns an empty batch when none came.
        Raises `Missing` when `offset` is below the first message or above the end, `StoreCorrupt`
        when the bytes are damaged.
        """

    async def bounds(self, partition: int) -> tuple[int, int]:
        """Return the first offset that is kept and the offset after the last message."""

    async def mark(self, consumer: str, partition: int, offset: int) -> None:
        """Remember durably that `consumer` needs nothing below `offset` any more."""

    async def marks(self, partition: int) -> dict[str, int]:
        """Return what `mark` remembered for a partition."""

    async def trim(self, partition: int, consumers: Sequence[str]) -> None:
        """Delete what every one of `consumers` has passed; nothing if one has no mark."""

    async def close(self) -> None:
        """Finish what was started and let go of all files and connections."""


def partition_of(session: bytes, partitions: int) -> int:
    """Return the partition of a session: the same with every adapter, so a bus can be moved."""
    return int.from_bytes(session[:8], "big") % partitions
