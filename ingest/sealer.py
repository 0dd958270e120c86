"""Messages of one partition in, cuts out: what is sealed, held back, quarantined or dropped.

The sealer verifies every message against what it knows of its (session, epoch): form, sequence,
digest of IDENT, the node's signature on OPEN, the session key's signatures on checkpoints, roots.
It is a pure state machine: the consumer hands it messages, ledger heads and the time, and publishes
what `cut` returns; `commit` then makes that the new state. After any failure a consumer throws the
sealer away and starts another from the ledger: all that is not published is on the bus.
`docs/ingest.md` says what happens to gaps, conflicts and late messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sealtape.ingest.cut import Cut, make_cut
from sealtape.ingest.findings import QUARANTINE_REASONS, REASONS, Findings
from sealtape.ingest.ledger.rows import Head
from sealtape.ingest.notices import TermsSeen, key_event
from sealtape.ingest.parquet import Row, row_of
from sealtape.ingest.track import Track
from sealtape.schemas import messages
from sealtape.schemas.bodies import Opening, parse_open
from sealtape.schemas.errors import FormatError, SignatureError
from sealtape.schemas.frames import MAX_SEQ, Frame, Kind
from sealtape.schemas.messages import CheckpointMessage, KeyMessage
from sealtape.schemas.notes import Verifier, open_checkpoint

__all__ = ["Doubt", "Limits", "Sealer", "Taken", "decode_all"]

Name: TypeAlias = tuple[bytes, int]
SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """When to cut, and how long to wait for what is missing."""

    segment_bytes: int = 64 << 20
    segment_ns: int = 20 * SECOND_NS
    # A frame waits this long for a signature, a frame past a hole for what it misses.
    hold_ns: int = 60 * SECOND_NS
    # A session that is closed and signed waits this long at most.
    idle_ns: int = SECOND_NS
    # Frames past a hole that are held, per epoch.
    early_frames: int = 4096
    # Payload of those, and of other frames that come for a seq that is taken, over all epochs:
    # twice what a node sends between two signatures.
    aside_bytes: int = 32 << 20
    # Epochs kept in memory when nothing of them waits.
    tracks: int = 20_000


@dataclass(frozen=True, slots=True)
class Taken:
    """A decoded message with its place on the bus; `message` is the error when it is malformed."""

    offset: int
    value: bytes
    message: Row | CheckpointMessage | KeyMessage | FormatError

    @property
    def name(self) -> Name | None:
        """The (session, epoch) it belongs to, as far as it says so."""
        message = self.message
        return None if isinstance(message, FormatError) else (message.session, message.epoch)


@dataclass(frozen=True, slots=True)
class Doubt:
    """A frame below its head: its sealed leaf is looked up to tell a copy from a conflict."""

    row: Row
    offset: int


def decode_all(
    records: Iterable[tuple[int, bytes, bytes]],
    belongs: Callable[[bytes], bool],
    keys_only: bool = False,  # noqa: FBT001, FBT002  (called by position through a thread)
) -> list[Taken]:
    """Decode and hash (offset, key, value) records; needs no state, so any thread can do it.

    `belongs` says whether a session's messages go to the partition the records were read from,
    `keys_only` whether nothing but keys may come there.
    """
    taken = []
    for offset, key, value in records:
        message: Row | CheckpointMessage | KeyMessage | FormatError
        try:
            decoded = messages.decode(value)
            message = row_of(decoded) if isinstance(decoded, Frame) else decoded
            if message.session != key or not belongs(key):
                message = FormatError(
                    "The message stands under another session's bus key, or in its partition.",
                    reason="key_mismatch",
                )
            elif keys_only and not isinstance(message, KeyMessage):
                message = FormatError(QUARANTINE_REASONS["misplaced"], reason="misplaced")
        except FormatError as error:
            message = error
        taken.append(Taken(offset, value, message))
    return taken


class Sealer:
    """State of one partition between its position and the end of what was read."""

    def __init__(
        self,
        *,
        topic: str,
        partition: int,
        position: int,
        verifiers: Sequence[Verifier] | None,
        limits: Limits,
        quarantined: Iterable[tuple[int, bytes]] = (),
        anew: int = MAX_SEQ,
    ) -> None:
        """Begin at a lease's `next_offset`. `verifiers` None trusts any node ("trust: self").

        `quarantined` are offsets from there on, and the SHA-256 of the messages, that were put into
        quarantine before. From the offset `anew` on, the bus may have had other messages before.
        """
        self.first = position
        self.read_to = position
        self.doubts: list[Doubt] = []
        self.findings = Findings(topic, partition, quarantined)
        self.duplicates = 0
        self._verifiers = verifiers
        self._limits = limits
        self._anew = anew
        self._tracks: dict[Name, Track] = {}
        self._terms = TermsSeen()
        self._waiting_bytes = 0
        self._aside_bytes = 0
        self._cut_ns = 0

    # -- messages in -------------------------------------------------------------------------------

    def unknown(self, taken: Iterable[Taken]) -> set[Name]:
        """Names whose heads have to be loaded before these messages can be taken."""
        names = {item.name for item in taken if not isinstance(item.message, KeyMessage)}
        names |= {(name[0], name[1] - 1) for name in names if name is not None and name[1]}
        return {name for name in names if name is not None and name not in self._tracks}

    def load(self, names: Iterable[Name], heads: Mapping[Name, Head]) -> None:
        """Take what the ledger holds of names that `unknown` returned."""
        for name in names:
            head = heads.get(name)
            track = Track(*name, head)
            if head is not None:
                opening = parse_open(head.opening, None)[0]
                track.open(opening, head.opening, Verifier.from_vkey(opening.key))
            self._tracks[name] = track

    def take(self, taken: Iterable[Taken], next_offset: int, now_ns: int) -> list[Taken]:
        """Take messages in bus order; returns the key messages, which the keyring must hold first.

        `next_offset` is where reading goes on after them.
        """
        self._cut_ns = self._cut_ns or now_ns
        keys = []
        for item in taken:
            message = item.message
            if isinstance(message, Row):
                track = self._tracks[message.session, message.epoch]
                if message.seq == track.next_seq and track.opening is not None:
                    self._go_on(track, message, item.offset, now_ns)
                else:
                    self._misplaced(track, message, item, now_ns)
            elif isinstance(message, CheckpointMessage):
                self._checkpoint(message, item, now_ns)
            elif isinstance(message, KeyMessage):
                keys.append(item)
            else:
                self.malformed(item, message, now_ns)
        self.read_to = next_offset
        return keys

    def resolve(self, doubt: Doubt, leaf: bytes | None, now_ns: int) -> None:
        """Settle a doubt with the sealed leaf at its seq; None when the seq was sealed as a gap."""
        row = doubt.row
        if leaf == row.leaf:
            self.duplicates += 1
        elif leaf is None:
            self.findings.quarantine_row("late_frame", row, offset=doubt.offset, now_ns=now_ns)
        else:
            self.findings.quarantine_row("conflict", row, offset=doubt.offset, now_ns=now_ns)
        self.doubts.remove(doubt)

    def unread(self, doubt: Doubt, now_ns: int) -> None:
        """Settle a doubt whose sealed leaf cannot be read: the frame is kept, whatever it is."""
        self.findings.quarantine_row(
            "seal_unreadable", doubt.row, offset=doubt.offset, now_ns=now_ns
        )
        self.doubts.remove(doubt)

    def lost(self, first: int, now_ns: int) -> None:
        """State that the bus begins at `first`, past what should be read next."""
        self.findings.incident(
            "bus_lost",
            f"Offsets {self.read_to} to {first - 1} were deleted before they were read.",
            offset=self.read_to,
            now_ns=now_ns,
        )
        self.read_to = first

    # -- frames ------------------------------------------------------------------------------------

    def _go_on(self, track: Track, row: Row, offset: int, now_ns: int) -> None:
        """Take the frame that is next; then those that waited for it."""
        if row.seq == 1:
            assert track.opening is not None
            if row.payload_sha256 != track.opening.ident_sha256:
                self.findings.quarantine_row("ident_mismatch", row, offset=offset, now_ns=now_ns)
                return
        track.append(row, offset, now_ns)
        self._waiting_bytes += row.payload_len
        if track.early:
            self._take_early(track, now_ns)
        if track.ahead:
            self._take_ahead(track, now_ns)

    def _misplaced(self, track: Track, row: Row, item: Taken, now_ns: int) -> None:
        if track.opening is None:
            self._first(track, row, item, now_ns)
        elif row.seq < track.next_seq:
            self._again(track, row, item.offset, now_ns)
        elif row.seq in track.early:
            if track.early[row.seq][0].leaf != row.leaf:
                self.findings.quarantine_row("conflict", row, offset=item.offset, now_ns=now_ns)
        else:
            self._early(track, row, item, now_ns)

    def _early(self, track: Track, row: Row, item: Taken, now_ns: int) -> None:
        """Hold a frame past a hole, as long as there is room."""
        proven = max(track.ahead, default=0)
        if track.early and min(track.early) < proven and not self._has_place(track, row):
            # What is signed and not here by now does not come: nothing is gained by waiting.
            self._declare_gaps(track, proven, now_ns)
            if row.seq == track.next_seq:
                self._go_on(track, row, item.offset, now_ns)
                return
            if row.seq < track.next_seq:
                self._again(track, row, item.offset, now_ns)
                return
        if self._has_place(track, row):
            track.early[row.seq] = (row, item.offset, now_ns)
            self._aside_bytes += row.payload_len
        else:
            self.findings.quarantine_row("early_frame", row, offset=item.offset, now_ns=now_ns)

    def _has_place(self, track: Track, row: Row) -> bool:
        return len(track.early) < self._limits.early_frames and self._has_room(row)

    def _has_room(self, row: Row) -> bool:
        return self._aside_bytes + row.payload_len <= self._limits.aside_bytes

    def _first(self, track: Track, row: Row, item: Taken, now_ns: int) -> None:
        """Take OPEN, or a frame of an epoch without one."""
        if row.seq != 0 or row.kind != Kind.OPEN:
            self.findings.quarantine_row("no_open", row, offset=item.offset, now_ns=now_ns)
            return
        try:
            opening, _ = parse_open(row.payload, self._verifiers)
            verifier = Verifier.from_vkey(opening.key)
            if (opening.session, opening.epoch) != (row.session, row.epoch):
                raise FormatError("An OPEN must name its own session and epoch.")
            before = self._tracks.get((row.session, row.epoch - 1))
            if before is not None and before.opening is not None:
                opening.check_follows(before.opening)
        except SignatureError:
            self.findings.quarantine_row("open_untrusted", row, offset=item.offset, now_ns=now_ns)
            return
        except FormatError:
            self.findings.quarantine_row("open_bad", row, offset=item.offset, now_ns=now_ns)
            return
        track.open(opening, row.payload, verifier)
        self._continue(track, item.offset, now_ns)
        self._go_on(track, row, item.offset, now_ns)

    def _continue(self, track: Track, offset: int, now_ns: int) -> None:
        """Compare the end of the epoch before with what the recovery epoch says about it."""
        continues = track.opening.continues if track.opening is not None else None
        if continues is None:
            return
        before = self._tracks.get((track.session, continues.epoch))
        if before is None or before.opening is None:
            self._incident("continuation", track, 0, offset, now_ns)
            return
        self._declare_gaps(before, continues.size, now_ns)
        size, root = continues.size, before.root_at(continues.size)
        same = root in (continues.root, None) or self._swapped(before, size, continues.root)
        if before.next_seq != size or not same:
            self._incident("continuation", track, 0, offset, now_ns)
        # The node signed this end; nothing more comes, so waiting for the epoch's key is over.
        for piece in before.pieces:
            piece.since_ns = min(piece.since_ns, now_ns - self._limits.hold_ns)

    def _again(self, track: Track, row: Row, offset: int, now_ns: int) -> None:
        """Take a frame whose seq is taken: a copy, or a conflict."""
        waiting = track.waiting_row(row.seq)
        if waiting is None:
            head = track.head
            if head is not None and row.seq < head.hi and self._dealt_with(head, offset):
                return  # read again
            self.doubts.append(Doubt(row, offset))
            return
        piece, held = waiting
        if held.leaf == row.leaf:
            self.duplicates += 1
        elif row.seq in piece.rivals or row.seq < 2 or not self._has_room(row):
            self.findings.quarantine_row("conflict", row, offset=offset, now_ns=now_ns)
        else:
            piece.rivals[row.seq] = (row, offset)
            self._aside_bytes += row.payload_len

    def _dealt_with(self, head: Head, offset: int) -> bool:
        """Whether what stands at an offset is the very message that went into the head."""
        return offset <= head.offset and offset < self._anew

    def _take_early(self, track: Track, now_ns: int) -> None:
        while (held := track.early.pop(track.next_seq, None)) is not None:
            row, offset, _ = held
            track.append(row, offset, now_ns)
            self._waiting_bytes += row.payload_len
            self._aside_bytes -= row.payload_len

    # -- checkpoints -------------------------------------------------------------------------------

    def _checkpoint(self, message: CheckpointMessage, item: Taken, now_ns: int) -> None:
        track = self._tracks[message.session, message.epoch]
        if track.opening is None or track.verifier is None:
            self._quarantine_checkpoint("no_open", message, item, now_ns)
            return
        try:
            checkpoint = open_checkpoint(message.note, track.verifier)
            if checkpoint.size != message.size:
                raise FormatError("The note is for another size.")
        except FormatError:
            self._quarantine_checkpoint("checkpoint_bad", message, item, now_ns)
            return
        if message.size > track.next_seq:
            track.ahead.setdefault(message.size, (message.note, item.offset, now_ns))
        else:
            self._covered(track, message, item, checkpoint.root, now_ns)

    def _covered(
        self, track: Track, message: CheckpointMessage, item: Taken, signed: bytes, now_ns: int
    ) -> None:
        """Take a verified checkpoint of frames that are here."""
        root = track.root_at(message.size)
        if root not in (None, signed) and not self._swapped(track, message.size, signed):
            self._quarantine_checkpoint("checkpoint_root", message, item, now_ns)
        elif message.size > track.base.hi:
            track.sign(message.size, message.note, attested=root is not None)
        elif track.head is not None and not self._dealt_with(track.head, item.offset):
            if message.size > track.head.attested and not track.head.lost:
                self._quarantine_checkpoint("checkpoint_late", message, item, now_ns)
            else:
                self.duplicates += 1

    def _swapped(self, track: Track, size: int, signed: bytes) -> bool:
        """Whether rivals of waiting frames have the signed root; then they are what is sealed."""
        if size <= track.base.hi:
            return False
        rows = track.pieces[0].rows
        if not track.swap_rivals(size, signed):
            return False
        grown = sum(row.payload_len for row in track.pieces[0].rows)
        grown -= sum(row.payload_len for row in rows)
        self._waiting_bytes += grown
        self._aside_bytes -= grown
        return True

    def _take_ahead(self, track: Track, now_ns: int) -> None:
        for size in sorted(size for size in track.ahead if size <= track.next_seq):
            note, offset, _ = track.ahead.pop(size)
            message = CheckpointMessage(track.session, track.epoch, size, note)
            item = Taken(offset, messages.encode(message), message)
            self._checkpoint(message, item, now_ns)

    # -- time --------------------------------------------------------------------------------------

    def expire(self, now_ns: int, end: int = MAX_SEQ) -> None:
        """Give up on what has been missing for `hold_ns`: state gaps, let go of the rest.

        What came at the offset `end` or later waits no longer: it does not come again.
        """
        limit = now_ns - self._limits.hold_ns
        for track in self._tracks.values():
            if track.early:
                old = [
                    seq
                    for seq, (_, offset, since) in track.early.items()
                    if since <= limit or offset >= end
                ]
                proven = max(track.ahead, default=0)
                if old and min(old) < proven:
                    self._declare_gaps(track, proven, now_ns)
                for seq in [seq for seq in old if seq in track.early and seq >= proven]:
                    row, offset, _ = track.early.pop(seq)
                    self._aside_bytes -= row.payload_len
                    self.findings.quarantine_row("early_frame", row, offset=offset, now_ns=now_ns)
            for size in [
                size
                for size, (_, offset, since) in track.ahead.items()
                if since <= limit or offset >= end
            ]:
                if any(seq < size for seq in track.early):
                    continue  # it is the proof that those belong to the session
                note, offset, _ = track.ahead.pop(size)
                message = CheckpointMessage(track.session, track.epoch, size, note)
                item = Taken(offset, messages.encode(message), message)
                self._quarantine_checkpoint("checkpoint_ahead", message, item, now_ns)

    def _declare_gaps(self, track: Track, proven: int, now_ns: int) -> None:
        """Jump over every hole below `proven` that has frames behind it."""
        while behind := [seq for seq in track.early if track.next_seq < seq < proven]:
            self.findings.incident(
                "gap",
                f"Frames {track.next_seq} to {min(behind) - 1} never came.",
                # Each at its own frame: of one place and reason an incident is kept once.
                offset=track.early[min(behind)][1],
                now_ns=now_ns,
                session=track.session,
                epoch=track.epoch,
                seq=track.next_seq,
            )
            track.jump(min(behind), now_ns)
            self._take_early(track, now_ns)
        if track.ahead:
            self._take_ahead(track, now_ns)

    def due(self, now_ns: int) -> bool:
        """Whether it is time to cut."""
        limits = self._limits
        if self.findings or self._waiting_bytes >= limits.segment_bytes:
            return True
        quiet = True
        for track in self._tracks.values():
            quiet = quiet and not track.waiting
            if track.overdue(now_ns - limits.hold_ns):
                return True
            for piece in track.pieces:
                age = now_ns - piece.since_ns
                signed = piece.signed > piece.run.lo
                patience = limits.segment_ns if signed else limits.hold_ns
                if track.ended and piece.signed == piece.run.hi:
                    patience = min(patience, limits.idle_ns)
                if age >= patience:
                    return True
        return quiet and self.read_to != self.first and now_ns - self._cut_ns >= limits.segment_ns

    def cut(self, now_ns: int, *, everything: bool = False, end: int = MAX_SEQ) -> Cut | None:
        """What can be sealed now; None when there is nothing to publish.

        `everything` seals what waits for a signature too. For `end` see `expire`. There must be no
        doubts left.
        """
        assert not self.doubts
        self._cut_ns = now_ns
        self.expire(now_ns, end)
        over = self._waiting_bytes >= 2 * self._limits.segment_bytes
        cut = make_cut(
            self._tracks.values(),
            first=self.first,
            read_to=self.read_to,
            aged_ns=now_ns if everything or over else now_ns - self._limits.hold_ns,
            findings=self.findings,
            now_ns=now_ns,
        )
        cut.events.extend(self._terms.news(self._begun(cut), now_ns))
        return None if cut.empty else cut

    def commit(self, cut: Cut) -> None:
        """Make a published cut the state to go on from."""
        self.first = cut.next_offset
        self.findings.clear()
        self._terms.learn(self._begun(cut))
        for change in cut.changes:
            track = self._tracks[change.head.session, change.head.epoch]
            self._aside_bytes -= track.rival_bytes
            change.apply(track)
            self._aside_bytes += track.rival_bytes
            self._waiting_bytes -= change.change.bytes
        if len(self._tracks) > self._limits.tracks:
            self._forget()

    def _begun(self, cut: Cut) -> list[Opening]:
        """The openings whose first frames are in a cut."""
        tracks = [
            self._tracks[change.head.session, change.head.epoch]
            for change in cut.changes
            if change.before is None
        ]
        return [track.opening for track in tracks if track.opening is not None]

    def _forget(self) -> None:
        """Let go of epochs of which nothing waits; they are loaded again when needed."""
        for name in [name for name, track in self._tracks.items() if not track.waiting]:
            del self._tracks[name]

    # -- findings ----------------------------------------------------------------------------------

    def malformed(self, item: Taken, error: FormatError, now_ns: int) -> None:
        """Quarantine a message that cannot be what it claims to be."""
        reason = str(error.context.get("reason", "malformed"))
        try:
            session = messages.peek_session(item.value)
        except FormatError:
            session = b""
        self.findings.quarantine(
            reason,
            error.message,
            offset=item.offset,
            data=item.value,
            now_ns=now_ns,
            session=session,
        )

    def key_kept(self, item: Taken, now_ns: int) -> None:
        """Let an event say that the keyring has a wrap."""
        assert isinstance(item.message, KeyMessage)
        self.findings.events.append(key_event(item.message, now_ns))

    def key_conflict(self, item: Taken, now_ns: int) -> None:
        """State that a second wrap came under one name; the keyring keeps both."""
        self._key_incident("key_conflict", item, now_ns)

    def misplaced_key(self, item: Taken, now_ns: int) -> None:
        """State that a key came among the frames, where none is expected."""
        self._key_incident("key_misplaced", item, now_ns)

    def _key_incident(self, reason: str, item: Taken, now_ns: int) -> None:
        name = item.name
        assert name is not None
        self.findings.incident(
            reason,
            REASONS[reason],
            offset=item.offset,
            now_ns=now_ns,
            session=name[0],
            epoch=name[1],
        )

    def _incident(self, reason: str, track: Track, seq: int, offset: int, now_ns: int) -> None:
        self.findings.incident(
            reason,
            REASONS[reason],
            offset=offset,
            now_ns=now_ns,
            session=track.session,
            epoch=track.epoch,
            seq=seq,
        )

    def _quarantine_checkpoint(
        self, reason: str, message: CheckpointMessage, item: Taken, now_ns: int
    ) -> None:
        self.findings.quarantine(
            reason,
            QUARANTINE_REASONS[reason],
            offset=item.offset,
            data=item.value,
            now_ns=now_ns,
            session=message.session,
            epoch=message.epoch,
            seq=message.size - 1,
        )
