"""What the log's writer remembers between two lives: its cursor, and a summary of the entries.

The cursor says how far the ledger's rows are in the log, and is stored with each entry in one
transaction. The summary would be too long for that: it lies in the vault, at
`log/v1/N/state/SIZE`, as it was at some size; the cursor names it by its hash, and the entries
behind it are added again. Both are only memory: what the log says stands in its entries.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final

from sealtape.ingest.ledger import Ledger
from sealtape.ingest.ledger.rows import LogState
from sealtape.ingest.tlog.store import LogStore
from sealtape.ingest.tlog.summary import LogSummary
from sealtape.ingest.vault import Vault
from sealtape.schemas import canonical
from sealtape.schemas.errors import FormatError, StoreCorrupt, StoreError

__all__ = ["Cursor", "keep", "recall"]

PAGE: Final = 1000
_MAX_I64: Final = 2**63 - 1
_DIGEST: Final = 32

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Cursor:
    """The ids of the last segment and incident in the log; where a summary lies, and its hash."""

    segment: int = 0
    incident: int = 0
    number: int = 0
    size: int = 0
    sha256: bytes = b""

    def to_json(self) -> bytes:
        """As the ledger stores it."""
        return canonical.encode(
            {
                "v": 1,
                "segment": str(self.segment),
                "incident": str(self.incident),
                "number": self.number,
                "size": str(self.size),
                "sha256": self.sha256.hex(),
            }
        )

    @classmethod
    def from_json(cls, data: bytes) -> Cursor:
        """Read it; an empty one is at the beginning. Raises StoreCorrupt."""
        if not data:
            return cls()
        try:
            fields = canonical.fields(data, "log's cursor")
            fields.version(1)
            found = cls(
                fields.decimal("segment", 0, _MAX_I64),
                fields.decimal("incident", 0, _MAX_I64),
                fields.integer("number"),
                fields.decimal("size", 0, _MAX_I64),
                fields.hex("sha256"),
            )
            fields.end()
        except FormatError as error:
            raise StoreCorrupt(f"The log's cursor in the ledger: {error.message}.") from error
        return found


def state_name(size: int) -> str:
    """Where a summary lies below its shard's prefix."""
    return f"state/{size:020d}"


async def keep(vault: Vault, summary: LogSummary, cursor: Cursor) -> Cursor:
    """Write a summary; returns the cursor that names it, to be stored with the next entries.

    The one before is left where it is: the ledger may still name it.
    """
    data = summary.to_json()
    store = LogStore(vault, summary.number)
    digest = sha256(data).digest()
    if sha256(await store.create(state_name(summary.size), data)).digest() != digest:
        return cursor  # another process was here, with another clock: go on without
    return replace(cursor, number=summary.number, size=summary.size, sha256=digest)


async def forget(vault: Vault, cursor: Cursor) -> None:
    """Remove a summary that no cursor names any more; where nothing may be removed it stays."""
    if not cursor.sha256:
        return
    try:
        await LogStore(vault, cursor.number).drop(state_name(cursor.size))
    except StoreError as error:
        log.debug("an old summary of the log stays: %s", error)


async def recall(ledger: Ledger, vault: Vault, state: LogState) -> tuple[LogSummary, Cursor]:
    """The summary of the whole log as the ledger has it, and the cursor. Raises StoreError."""
    cursor = Cursor.from_json(state.cursor)
    summary = await _kept(vault, cursor)
    try:
        number = summary.number or 1
        while number <= state.number:
            first = summary.size if number == summary.number else 0
            while entries := await ledger.log_entries(number, first, PAGE):
                for item in entries:
                    summary.take(item.entry)
                first += len(entries)
            number += 1
    except FormatError as error:
        raise StoreCorrupt(f"The log's entries in the ledger: {error.message}.") from error
    if (summary.number, summary.size) != (state.number, state.size):
        raise StoreCorrupt(
            f"The ledger has other entries of the log than the {state.size} that it counts.",
            hint="`sealtape ledger rebuild` makes it anew.",
        )
    return summary, cursor


async def _kept(vault: Vault, cursor: Cursor) -> LogSummary:
    """The summary that a cursor names, or an empty one: then all entries are added again."""
    if not cursor.sha256:
        return LogSummary()
    data = await LogStore(vault, cursor.number).get(state_name(cursor.size))
    if sha256(data).digest() == cursor.sha256:
        try:
            return LogSummary.from_json(data)
        except FormatError as error:
            log.warning("a summary of the log is not understood: %s", error)
    log.warning("the summary of the log at %d is gone; all entries are read", cursor.size)
    return LogSummary()
