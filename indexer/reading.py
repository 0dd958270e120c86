"""Reading the frames of a session, sealed and live, and the keys to open them with.

What is sealed comes from the ledger's fragments and the vault's segments, the rest from the bus.
One row group of one segment is in memory. Frames come in the order of (epoch, seq), each once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from sealtape.capture.bus import Bus
from sealtape.ingest.keyring import Keyring
from sealtape.ingest.ledger import Ledger
from sealtape.ingest.ledger.rows import FragmentRow
from sealtape.ingest.segment_file import SegmentFile
from sealtape.ingest.vault import Vault
from sealtape.schemas import messages
from sealtape.schemas.errors import FormatError, KeyUnavailable, Missing, NotFound
from sealtape.schemas.frames import Frame, Kind, Suite
from sealtape.schemas.keys import Packer, commits, frame_key, label_of, open_payload
from sealtape.schemas.messages import KeyMessage
from sealtape.schemas.wraps import PrivateKey, Wrap, unwrap

__all__ = ["BEGIN", "Keys", "Place", "Recording", "Segments", "unwrapped", "wraps_of"]

READ_BYTES = 4 << 20
MAX_KEYS = 65_536
"""Keys kept unwrapped; the oldest go first and come back from the keyring."""

MAX_RIVALS = 8
"""Keys kept under one name; all of them but one are forged."""

Name = tuple[bytes, int, str]

Place = tuple[int, int]
"""An (epoch, seq)."""

BEGIN: Place = (0, 0)


class Keys:
    """Label keys of sessions, unwrapped with one private key and remembered.

    Anybody can wrap a key of his own to a public one and send it, before the true one comes too. So
    there may be several under one name; which is true says the frame, which commits to its key.
    """

    def __init__(self, keyring: Keyring, private: PrivateKey | None) -> None:
        """Take the keyring; without a private key only unencrypted frames open."""
        self._keyring = keyring
        self._private = private
        self._packer = Packer()
        self._known: dict[Name, list[bytes]] = {}

    def learn(self, message: KeyMessage) -> None:
        """Take a key from the bus, before the keyring has it. Another reader's is left alone."""
        name = (message.session, message.epoch, message.label)
        if self._private is not None and message.recipient == self._private.id:
            wrap = Wrap(*name, message.recipient, message.suite, message.sealed)
            key = unwrap(self._private, wrap)
            known = self._known.get(name, [])
            if key not in known and len(known) < MAX_RIVALS:
                self._keep(name, [*known, key])

    async def open(self, frame: Frame) -> bytes:
        """The body of a frame.

        Raises KeyUnavailable where there is no key of it for us, FormatError where it is damaged.
        """
        label = label_of(frame.kind)
        key = None
        if label is not None and frame.suite == Suite.AES256GCM:
            key = await self._key(frame, label)
        return open_payload(frame, key, self._packer)

    async def of_frame(self, frame: Frame) -> bytes:
        """The key of one encrypted frame, which opens no other. Raises KeyUnavailable."""
        label = label_of(frame.kind)
        if label is None:
            raise KeyUnavailable(f"Frames of kind {frame.kind} are under no key of ours.")
        return frame_key(await self._key(frame, label), frame.seq)

    async def _key(self, frame: Frame, label: str) -> bytes:
        """The label's key that the frame was sealed under; where it is none of ours, any."""
        name = (frame.session, frame.epoch, label)
        known = self._known.get(name)
        if known is None:
            known = self._keep(name, await self._unwrapped(*name))
        if commits(frame, known[0]):
            return known[0]
        others = [*known[1:], *await self._rivals(name)]
        true = next((key for key in others if commits(frame, key)), None)
        if true is None:
            return known[0]
        self._keep(name, [true, *(key for key in known if key != true)][:MAX_RIVALS])
        return true

    def _keep(self, name: Name, keys: list[bytes]) -> list[bytes]:
        if name not in self._known and len(self._known) >= MAX_KEYS:
            del self._known[next(iter(self._known))]
        self._known[name] = keys
        return keys

    async def _rivals(self, name: Name) -> list[bytes]:
        """Every key that the keyring has under a name, kept aside or not."""
        assert self._private is not None
        wraps = await wraps_of(self._keyring, *name, self._private.id)
        return list(unwrapped(self._private, wraps))

    async def _unwrapped(self, session: bytes, epoch: int, label: str) -> list[bytes]:
        told = {"session": session.hex(), "epoch": epoch, "label": label}
        what = f"The {label} key of session {session.hex()}"
        if self._private is None:
            raise KeyUnavailable(
                f"{what} is wrapped, and no private key was given.",
                hint="Run this where the key file is, or name it in [keys].",
                **told,
            )
        wraps = await self._keyring.get(session, epoch, label)
        for wrap in wraps:
            if wrap.recipient == self._private.id:
                found = [*unwrapped(self._private, [wrap])]
                found = found or await self._rivals((session, epoch, label))
                return found or [unwrap(self._private, wrap)]
        if await self._keyring.destroyed(session):
            raise KeyUnavailable(
                f"{what} was destroyed: its recording was deleted.",
                hint="It can still be verified, but never be read again.",
                **told,
            )
        readers = ", ".join(wrap.recipient for wrap in wraps) or "nobody"
        raise KeyUnavailable(
            f"{what} is wrapped for {readers}, not for {self._private.id}.",
            hint="Use the private key that belongs to one of them.",
            **told,
        )


async def wraps_of(
    keyring: Keyring, session: bytes, epoch: int, label: str, recipient: str
) -> list[Wrap]:
    """All wraps of a key for a reader, also those that came second and were kept aside."""
    name = (epoch, label, recipient)
    aside = await keyring.disputed(session)
    return [
        *await keyring.get(session, epoch, label, recipient),
        *(wrap for wrap in aside if (wrap.epoch, wrap.label, wrap.recipient) == name),
    ]


def unwrapped(private: PrivateKey, wraps: Sequence[Wrap]) -> Iterator[bytes]:
    """The keys in those wraps that open."""
    for wrap in wraps:
        with suppress(FormatError, KeyUnavailable):  # forged, or damaged: another may be true
            yield unwrap(private, wrap)


class Segments:
    """Frames out of segments. The last segment read stays open, as neighbours often lie in it."""

    def __init__(self, vault: Vault) -> None:
        """Take the vault."""
        self._vault = vault
        self._file = SegmentFile(vault, "")

    async def frames(self, fragment: FragmentRow, lo: int, hi: int) -> AsyncIterator[Frame]:
        """The frames of a fragment with seq in [lo, hi).

        Raises Missing (the object is gone) or FormatError (it is no longer what was sealed).
        """
        record = fragment.record
        lo, hi = max(lo, record.lo), min(hi, record.hi)
        if lo >= hi:
            return
        first = record.rows[0] - record.lo
        expected = lo
        async for _, row in self._opened(fragment).rows(first + lo, first + hi):
            if (row.session, row.epoch, row.seq) != (record.session, record.epoch, expected):
                raise FormatError(
                    f"{fragment.segment_key} does not hold frame {expected} where it should.",
                    hint="Run `sealtape verify`.",
                )
            expected += 1
            yield row.frame()
        if expected != hi:
            raise FormatError(
                f"{fragment.segment_key} ends before frame {expected}.",
                hint="Run `sealtape verify`.",
            )

    async def leaves(self, fragment: FragmentRow, lo: int, hi: int) -> list[bytes]:
        """The leaves of a fragment's frames with seq in [lo, hi), as they are kept beside them.

        Raises as `frames` does.
        """
        record = fragment.record
        lo, hi = max(lo, record.lo), min(hi, record.hi)
        first = record.rows[0] - record.lo
        return await self._opened(fragment).column("leaf", first + lo, first + hi)

    async def latest(self, fragment: FragmentRow, hi: int, kind: int) -> AsyncIterator[Frame]:
        """The frames of a fragment of one kind and with seq below `hi`, the last one first.

        Raises as `frames` does. Only the row groups that hold such a frame are fetched.
        """
        record = fragment.record
        first, end = record.rows[0], record.rows[0] + min(hi, record.hi) - record.lo
        if end <= first:
            return
        kinds = await self._opened(fragment).column("kind", first, end)
        for place in reversed([place for place, found in enumerate(kinds) if found == kind]):
            seq = record.lo + place
            async for frame in self.frames(fragment, seq, seq + 1):
                yield frame

    def _opened(self, fragment: FragmentRow) -> SegmentFile:
        if fragment.segment_key != self._file.key:
            self._file = SegmentFile(self._vault, fragment.segment_key)
        return self._file


class _Trimmed(Exception):
    """The bus deleted what was to be read next."""


def _follows(frame: Frame, place: Place) -> bool:
    """Whether a frame is the one expected at `place`, or opens the next epoch."""
    opens = (frame.epoch, frame.seq, frame.kind) == (place[0] + 1, 0, Kind.OPEN)
    return (frame.epoch, frame.seq) == place or opens


@dataclass(frozen=True, slots=True)
class Recording:
    """One session, to be read from anywhere. Without a bus only what is sealed is read."""

    session: bytes
    ledger: Ledger
    vault: Vault
    bus: Bus | None = None
    keys: Keys | None = None

    async def frames(self, start: Place = BEGIN) -> AsyncIterator[Frame]:
        """All frames from `start` on that exist now, sealed ones first, then the bus's.

        Of the bus's those that go on without a hole: what is behind one may be forged, and whether
        what it lacks was lost, ingest says.

        Raises NotFound when there is no frame of the session anywhere.
        """
        place, found = start, False
        while True:
            # Asked before the fragments: what is below this position is sealed in one of them.
            position = await self._position() if self.bus is not None else 0
            fragments = await self.ledger.fragments(self.session)
            found = found or bool(fragments)
            async for frame in self._sealed(fragments, place):
                place = (frame.epoch, frame.seq + 1)
                yield frame
            try:
                async for frame in self._live(position):
                    found = True
                    if _follows(frame, place):
                        place = (frame.epoch, frame.seq + 1)
                        yield frame
            except _Trimmed:
                continue  # sealed meanwhile, all of it
            break
        if not found:
            raise NotFound(
                f"There is no frame of session {self.session.hex()}.",
                hint="List sessions with `sealtape sessions`.",
            )

    async def latest(self, kind: int, place: Place) -> AsyncIterator[Frame]:
        """Frames of `kind` up to `place`, the last one first.

        Nothing older is read than the caller asks for.
        """
        while True:
            position = await self._position() if self.bus is not None else 0
            fragments = await self.ledger.fragments(self.session)
            last = fragments[-1].record if fragments else None
            sealed = (last.epoch, last.hi) if last else BEGIN
            try:
                live = await self._live_of(kind, position, sealed, place)
            except _Trimmed:
                continue
            break
        for frame in live:
            yield frame
        segments = Segments(self.vault)
        for fragment in reversed(fragments):
            record = fragment.record
            if (record.epoch, record.lo) <= place:
                end = place[1] + 1 if record.epoch == place[0] else record.hi
                async for frame in segments.latest(fragment, end, kind):
                    yield frame

    async def _live_of(self, kind: int, position: int, first: Place, last: Place) -> list[Frame]:
        if last < first:
            return []
        found = {
            (frame.epoch, frame.seq): frame
            async for frame in self._live(position)
            if frame.kind == kind and first <= (frame.epoch, frame.seq) <= last
        }
        return [found[place] for place in sorted(found, reverse=True)]

    async def _sealed(self, fragments: Sequence[FragmentRow], start: Place) -> AsyncIterator[Frame]:
        segments = Segments(self.vault)
        for fragment in fragments:
            record = fragment.record
            if (record.epoch, record.hi) > start:
                lo = start[1] if record.epoch == start[0] else 0
                async for frame in segments.frames(fragment, lo, record.hi):
                    yield frame

    async def _position(self) -> int:
        assert self.bus is not None
        partition = self.bus.partition_of(self.session)
        first, _ = await self.bus.bounds(partition)
        return max(first, await self.ledger.position(self.bus.topic, partition))

    async def _live(self, position: int) -> AsyncIterator[Frame]:
        if self.bus is None:
            return
        partition = self.bus.partition_of(self.session)
        _, end = await self.bus.bounds(partition)
        while position < end:
            try:
                batch = await self.bus.read(partition, position, max_bytes=READ_BYTES, wait_s=0)
            except Missing:
                raise _Trimmed from None
            for record in batch.records:
                frame = self._frame(record.value) if record.key == self.session else None
                if frame is not None:
                    yield frame
            if batch.next_offset == position:
                return
            position = batch.next_offset

    def _frame(self, value: bytes) -> Frame | None:
        """The frame in a message, if it holds one; keys are learned on the way."""
        try:
            message = messages.decode(value)
            if isinstance(message, KeyMessage) and self.keys is not None:
                self.keys.learn(message)
        except FormatError:
            return None
        return message if isinstance(message, Frame) else None
