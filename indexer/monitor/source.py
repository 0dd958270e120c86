"""A log as its vault has it, for somebody who only reads: entries, manifests, checkpoints.

Nothing here is believed: entries are compared with a signed root by whoever reads them, manifests
with the hash in an entry, and checkpoints are verified by the reader's own policy.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from sealtape.ingest.tlog.store import CHECKPOINT, PENDING, LogStore, noted_key
from sealtape.ingest.vault import Vault
from sealtape.schemas.errors import FormatError, Missing
from sealtape.schemas.layout import manifest_key
from sealtape.schemas.notes import Checkpoint
from sealtape.schemas.segments import SegmentRecord
from sealtape.schemas.tlog.policy import LogPolicy
from sealtape.schemas.tlog.records import LogStart, parse_entry
from sealtape.schemas.tlog.tiles import WIDTH

__all__ = ["PAGE", "LogSource", "Noted"]

PAGE: Final = 4 * WIDTH
"""Entries that are read at once."""

_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Noted:
    """A checkpoint, and when it was witnessed, in nanoseconds since the Unix epoch."""

    checkpoint: Checkpoint
    at_ns: int


class LogSource:
    """The shards of the log `log` in a vault, judged by `policy`."""

    def __init__(self, vault: Vault, log: str, policy: LogPolicy) -> None:
        """The vault stays the caller's to close."""
        self.log = log
        self.policy = policy
        self._vault = vault
        self._stores: dict[int, LogStore] = {}

    def origin(self, number: int) -> str:
        """The origin of a shard's checkpoints."""
        return f"{self.log}/{number}"

    def number(self, origin: str) -> int:
        """The shard of an origin; FormatError for that of another log."""
        log, _, number = origin.rpartition("/")
        if log != self.log or not number.isdecimal() or self.origin(int(number)) != origin:
            raise FormatError(f"{origin} is no shard of the log {self.log}")
        return int(number)

    # -- entries -----------------------------------------------------------------------------------

    async def pages(self, number: int, first: int, size: int) -> AsyncIterator[list[bytes]]:
        """The entries [first, size) of a tree of `size`, page by page. Raises StoreError."""
        store = self._store(number)
        while first < size:
            last = min(size, (first // PAGE + 1) * PAGE)  # so a full bundle is read once
            yield await store.entries(first, last)
            first = last

    async def entry(self, number: int, index: int, size: int) -> bytes:
        """One entry of a tree of `size`."""
        end = min(size, (index // WIDTH + 1) * WIDTH)
        return (await self._store(number).entries(index, end))[0]

    async def before(self, number: int, size: int) -> Noted | None:
        """The checkpoint that a shard of `size` begins with, signed by the shard before it.

        None if there is none: the log does not say how it goes on. Its time is 0 without a quorum.
        """
        if not size:
            return None
        try:
            start = parse_entry(await self.entry(number, 0, size))
            if not isinstance(start, LogStart):
                return None
            note = start.before.encode()
            found = self.signed(note)
        except FormatError:
            return None
        if found.origin != self.origin(number - 1):
            return None
        return self._noted(number - 1, note) or Noted(found, 0)

    async def manifest(self, record: SegmentRecord) -> bytes | None:
        """The bytes of a segment's manifest; None when it is not there."""
        try:
            return await self._vault.get(manifest_key(record.object))
        except Missing:
            return None

    # -- checkpoints -------------------------------------------------------------------------------

    def signed(self, note: bytes) -> Checkpoint:
        """A checkpoint that a key of its log signed, as the policy has it. Raises FormatError."""
        return self.policy.open(note).checkpoint

    async def largest(self, number: int) -> Checkpoint | None:
        """The largest checkpoint of a shard that its log has signed; None when there is none."""
        found: Checkpoint | None = None
        for name in (CHECKPOINT, PENDING):
            note = await self._store(number).get(name)
            if note:
                checkpoint = self.signed(note)
                if checkpoint.origin == self.origin(number) and (
                    found is None or checkpoint.size > found.size
                ):
                    found = checkpoint
        return found

    async def noted(self, number: int, after: int, size: int) -> list[Noted]:
        """The checkpoints of sizes above `after` and up to `size` that a quorum has cosigned.

        What the policy does not take is left out: it says nothing about any time.
        """
        store = self._store(number)
        found = []
        start = store.prefix + noted_key(after)
        async for key in self._vault.keys(store.prefix + "checkpoints/", start):
            if key > store.prefix + noted_key(size):
                break
            noted = self._noted(number, await self._vault.get(key))
            if noted is not None and store.prefix + noted_key(noted.checkpoint.size) == key:
                found.append(noted)
        return found

    def _noted(self, number: int, note: bytes) -> Noted | None:
        """When the quorum was complete: the earliest time by which enough had cosigned."""
        try:
            opened = self.policy.open(note)
        except FormatError:
            return None
        if opened.checkpoint.origin != self.origin(number):
            return None
        enough: list[str] = []
        for name, seconds in sorted(opened.times.items(), key=lambda item: (item[1], item[0])):
            enough.append(name)
            if self.policy.enough(enough):
                return Noted(opened.checkpoint, seconds * _NS)
        return None

    def _store(self, number: int) -> LogStore:
        return self._stores.setdefault(number, LogStore(self._vault, number))
