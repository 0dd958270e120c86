"""Checkpoints of the log: tiles into the vault, the log's signature, then the witnesses'.

A checkpoint is *pending* once the log has signed it, and *witnessed* once the policy's quorum has
cosigned it. The order of the steps is what makes every crash harmless:

1. the tiles of all that is to be signed are in the vault;
2. the signer keeps what it signs before anybody sees it;
3. the ledger has the note before `checkpoint.pending` shows it;
4. a witnessed one is kept for ever, at `checkpoints/SIZE`, before `checkpoint` shows it.
"""

from __future__ import annotations

import math
from typing import Final

from sealtape.ingest.ledger.rows import Lease, LogState
from sealtape.ingest.tlog.parts import LogParts
from sealtape.ingest.tlog.store import CHECKPOINT, PENDING, LogStore, fork, noted_key
from sealtape.schemas import notes
from sealtape.schemas.errors import (
    FormatError,
    Missing,
    SignatureError,
    StoreBusy,
    StoreCorrupt,
)
from sealtape.schemas.notes import Checkpoint
from sealtape.schemas.tlog.tiles import WIDTH, Growth

__all__ = ["Publisher", "checkpoint_of"]

PAGE: Final = 16 * WIDTH
"""Entries that are made into tiles at once."""
_UNKNOWN_S: Final = 10.0
"""Until a process that does not know the log's shard tries again; others may be faster."""


def checkpoint_of(note: bytes) -> Checkpoint | None:
    """What a stored note states; None when there is none. Nobody's signature is checked."""
    return notes.parse_checkpoint(notes.parse_note(note).text) if note else None


class Publisher:
    """Publishes one shard while `lease` is current. Open with `await Publisher.open(…)`."""

    def __init__(self, parts: LogParts, lease: Lease, number: int) -> None:
        """Only `open` calls this."""
        self.note = b""
        """The last note that the log signed; empty before the first of the shard."""
        self.witnessed = b""
        """The last one with the policy's quorum."""
        self.signed_at = -math.inf
        self.witnessed_at: float | None = None
        """When, by the parts' `monotonic`, this publisher last had a checkpoint witnessed."""
        self.store = LogStore(parts.vault, number)
        self._parts = parts
        self._ledger = parts.ledger
        self._lease = lease
        self._origin = f"{parts.log}/{number}"
        self._number = number
        self._growth = Growth(0, {})
        self._shown = {CHECKPOINT: b"", PENDING: b""}

    @classmethod
    async def open(cls, parts: LogParts, lease: Lease, state: LogState) -> Publisher:
        """Go on from what the ledger says was signed.

        Raises `StoreCorrupt` when the vault or the signer is ahead of the ledger: then the ledger
        is an old copy, and going on would make a second history.
        """
        found = cls(parts, lease, state.number)
        await found._resume(state)
        return found

    @property
    def size(self) -> int:
        """The size of the last tree that the log signed."""
        found = checkpoint_of(self.note)
        return 0 if found is None else found.size

    @property
    def witnessed_size(self) -> int:
        """The size of the last tree with the policy's quorum."""
        found = checkpoint_of(self.witnessed)
        return 0 if found is None else found.size

    # -- signing -----------------------------------------------------------------------------------

    async def sign(self, size: int) -> bool:
        """Sign the tree of the first `size` entries, which the ledger has; False: it is signed.

        Raises `StoreCorrupt` when that would fork the log.
        """
        if size <= self.size:
            return False
        await self._grow(size)
        text = Checkpoint(self._origin, size, self._growth.root()).text()
        old = await self._parts.signer.signed(self._origin)
        if old is None:
            raise Missing(f"The log's signer has no key of {self._origin}.")
        if old > size:
            raise fork(f"the signer has signed {old} entries of {self._origin}, here are {size}")
        try:
            note = await self._parts.signer.sign(old, await self.store.prove(old, size), text)
        except SignatureError as error:
            raise fork(error.message) from error
        self._check(note, size)
        await self._ledger.log_noted(self._lease, self._number, note, b"")
        self.note, self.signed_at = note, self._parts.monotonic()
        await self._show(PENDING, note)
        return True

    async def _grow(self, size: int) -> None:
        """Write the tiles of all entries below `size`."""
        while (first := self._growth.size) < size:
            limit = min(size, (first // PAGE + 1) * PAGE) - first
            entries = await self._ledger.log_entries(self._number, first, limit)
            if len(entries) != limit:
                raise StoreCorrupt(f"The ledger lacks entries of the log from {first} on.")
            await self.store.put(self._growth.append(item.entry for item in entries))

    def _check(self, note: bytes, size: int) -> None:
        """Refuse what our own policy would not take, before anybody else sees it."""
        try:
            found = self._parts.policy.open(note)
        except FormatError as error:
            raise StoreCorrupt(
                f"The log's signer signs with a key that log.policy does not name: {error.message}."
            ) from error
        if (found.checkpoint.origin, found.checkpoint.size) != (self._origin, size):
            raise StoreCorrupt("The log's signer signed another checkpoint than it was asked to.")

    # -- witnessing --------------------------------------------------------------------------------

    async def witness(self, note: bytes) -> bool:
        """Have a signed note cosigned; whether the policy's quorum did. Raises StoreError."""
        lines: list[str] = []
        if self._parts.cosigners is not None:
            lines = await self._parts.cosigners.cosign(note, self.store.prove)
        whole = note + "".join(lines).encode()
        opened = self._parts.policy.open(whole)
        if not opened.quorum:
            return False
        size = opened.checkpoint.size
        kept = await self.store.create(noted_key(size), whole)
        if kept != whole:
            whole = self._same(kept, opened.checkpoint)
        await self._show(CHECKPOINT, whole)
        await self._ledger.log_noted(self._lease, self._number, b"", whole)
        self.witnessed, self.witnessed_at = whole, self._parts.monotonic()
        return True

    def _same(self, kept: bytes, checkpoint: Checkpoint) -> bytes:
        """Another writer had the same tree witnessed first: its note is as good."""
        try:
            found = self._parts.policy.open(kept)
        except FormatError as error:
            raise fork(f"{noted_key(checkpoint.size)} is not a checkpoint of ours") from error
        if found.checkpoint != checkpoint or not found.quorum:
            raise fork(f"{noted_key(checkpoint.size)} is of another tree")
        return kept

    # -- going on ----------------------------------------------------------------------------------

    async def _resume(self, state: LogState) -> None:
        if not any(key.verifier.name == self._origin for key in self._parts.policy.logs):
            raise StoreBusy(
                f"log.policy names no key of {self._origin}, the shard that the log is in.",
                retry_after_s=_UNKNOWN_S,
                hint="Another process began it: name its keys (docs/log.md, A new shard), then"
                " start this one again.",
            )
        for name in self._shown:
            self._shown[name] = await self.store.get(name)
        noted = self._opened(state.note, "The ledger's last checkpoint")
        pending = self._opened(self._shown[PENDING], "`checkpoint.pending`")
        shown = self._opened(self._shown[CHECKPOINT], "`checkpoint`")
        size = 0 if noted is None else noted.size
        for ahead in (pending, shown):
            if ahead is not None and ahead.size > max(size, 0):
                raise fork(f"the vault has a checkpoint of {ahead.size} entries, the ledger {size}")
        if size > state.size:
            raise fork(f"{size} entries were signed, and the ledger has {state.size}")
        signed = await self._parts.signer.signed(self._origin)
        if signed is not None and signed > state.size:
            raise fork(f"the signer has signed {signed} entries, and the ledger has {state.size}")
        self._growth = await self.store.growth(size)
        if noted is not None and self._growth.root() != noted.root:
            raise fork(f"the vault's tiles are not those of the {size} entries that were signed")
        self.note, self.witnessed = state.note, state.witnessed
        if shown is not None and shown.size > self.witnessed_size:
            # Shown, and the process died before the ledger knew.
            self.witnessed = self._shown[CHECKPOINT]
            await self._ledger.log_noted(self._lease, self._number, b"", self.witnessed)
        if self.note and self._shown[PENDING] != self.note:
            await self._show(PENDING, self.note)

    def _opened(self, note: bytes, what: str) -> Checkpoint | None:
        if not note:
            return None
        try:
            found = self._parts.policy.open(note).checkpoint
        except FormatError as error:
            raise StoreCorrupt(f"{what} is not signed by the log: {error.message}.") from error
        if found.origin != self._origin:
            raise StoreCorrupt(f"{what} is of {found.origin}, not of {self._origin}.")
        return found

    async def _show(self, name: str, note: bytes) -> None:
        """Replace one of the two objects that change; another's newer one is never overwritten."""
        if self._shown[name] != note:
            await self.store.swap(name, note, self._shown[name])
            self._shown[name] = note
