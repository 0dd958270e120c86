"""Opening payloads during verification: commitments, tags, and facts against the data they cite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from sealtape.indexer.reading import unwrapped, wraps_of
from sealtape.ingest.keyring import Keyring
from sealtape.schemas.errors import FormatError
from sealtape.schemas.frames import DEFINED_FLAGS, Frame, Suite
from sealtape.schemas.keys import LABEL_DATA, LABELS, Packer, commits, label_of, open_payload
from sealtape.schemas.verify import Report
from sealtape.schemas.verify.base import StoredRow
from sealtape.schemas.wraps import PrivateKey

_SUITES = (Suite.PUBLIC, Suite.SALTED, Suite.AES256GCM)


class DeepCheck(Protocol):
    """Compares the facts of one session with what its DATA says; see `indexer.deep`."""

    def body(self, frame: Frame, body: bytes) -> None:
        """Take the next opened body of the session."""
        ...

    def finish(self) -> Sequence[tuple[int, int | None, str]]:
        """Return the differences: epoch, seq and what is wrong."""
        ...


class ContentChecker:
    """Opens every payload that the given private key can open."""

    def __init__(
        self,
        keyring: Keyring,
        private: PrivateKey,
        *,
        deep: Callable[[bytes, bytes | None], DeepCheck] | None = None,
    ) -> None:
        """Take the keyring, the reader's private key, and a maker of deep checks by session."""
        self._keyring = keyring
        self._private = private
        self._make_deep = deep
        self._packer = Packer()
        self._keys: dict[tuple[bytes, int, str], Sequence[bytes]] = {}
        self._deep: dict[bytes, DeepCheck] = {}
        self._unreadable: dict[bytes, int] = {}

    async def prepare(self, session: bytes, epoch: int, report: Report) -> None:
        """Unwrap an epoch's keys before its frames come; an absent wrap is no finding."""
        for label in LABELS:
            name = (session, epoch, label)
            if name not in self._keys:
                self._keys[name] = await self._unwrapped(session, epoch, label, report)

    async def _unwrapped(
        self, session: bytes, epoch: int, label: str, report: Report
    ) -> Sequence[bytes]:
        """The keys that came under one name: several where somebody sent one of his own."""
        try:
            wraps = await wraps_of(self._keyring, session, epoch, label, self._private.id)
            damaged = False
        except FormatError:  # a row of the keyring that is no wrap
            wraps, damaged = [], True
        keys = tuple(unwrapped(self._private, wraps))
        if (wraps or damaged) and not keys:
            report.incomplete(
                "payload",
                "keyring",
                f"the {label} key that is wrapped for {self._private.id} does not open",
                session=session,
                epoch=epoch,
            )
        return keys

    def frame(self, row: StoredRow, thing: str, report: Report) -> None:
        """Open one frame's payload; a wrong commitment, tag or packing is a finding.

        A flag or suite of a later version is the session verifier's to say, not a damage.
        """
        if row.flags & ~DEFINED_FLAGS or row.suite not in _SUITES:
            return
        label = label_of(row.kind)
        frame = Frame(
            row.session, row.epoch, row.seq, row.ts_ns, row.kind, row.suite, row.flags, row.payload
        )
        keys = () if label is None else self._keys.get((row.session, row.epoch, label), ())
        if label is not None and row.suite == Suite.AES256GCM and not keys:
            self._unreadable[row.session] = self._unreadable.get(row.session, 0) + 1
            return
        # What the frame commits to says which of several keys is true.
        key = next((key for key in keys if commits(frame, key)), keys[0] if keys else None)
        try:
            body = open_payload(frame, key, self._packer)
        except FormatError as exc:
            report.tampered(
                "payload", thing, exc.message, session=row.session, epoch=row.epoch, seq=row.seq
            )
            return
        if self._make_deep is not None:
            if row.session not in self._deep:
                data_keys = self._keys.get((row.session, 0, LABEL_DATA), ())
                data_key = data_keys[0] if data_keys else None
                self._deep[row.session] = self._make_deep(row.session, data_key)
            self._deep[row.session].body(frame, body)

    async def finish(self, session: bytes, report: Report) -> None:
        """Say what could not be read, and what the deep check found."""
        unreadable = self._unreadable.pop(session, 0)
        if unreadable:
            gone = await self._keyring.destroyed(session)
            why = (
                "its keys were destroyed"
                if gone
                else f"no key of it is wrapped for {self._private.id}"
            )
            report.note(f"session {session.hex()}: {unreadable} payloads cannot be read, {why}")
        deep = self._deep.pop(session, None)
        if deep is None or unreadable:
            return
        for epoch, seq, reason in deep.finish():
            report.tampered("facts", "facts", reason, session=session, epoch=epoch, seq=seq)
