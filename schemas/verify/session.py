"""Verification of one session: its epochs, their trees, signatures and ends.

Feed `fragment`, then that fragment's frames in order, for all fragments in (epoch, lo) order; then
`finish`. Nothing here needs a key: what is hashed is the stored payload.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from sealtape.schemas.bodies import Close, Opening, parse_open
from sealtape.schemas.errors import FormatError, SignatureError
from sealtape.schemas.frames import EXTENSION_KINDS, KIND_NAMES, Kind, Suite
from sealtape.schemas.notes import Verifier, open_note, parse_checkpoint, session_origin
from sealtape.schemas.segments import FragmentRecord
from sealtape.schemas.tree import CompactRange
from sealtape.schemas.verify.base import StoredRow
from sealtape.schemas.verify.findings import Report
from sealtape.schemas.verify.fragment import Run

# A journal is open as long as its node runs; it signs a heartbeat at least this often.
JOURNAL_SILENCE_NS: Final = 60 * 1_000_000_000


@dataclass(slots=True)
class Epoch:
    """What is known of one epoch while its frames come in."""

    number: int
    tree: CompactRange = field(default_factory=CompactRange)
    opening: Opening | None = None
    verifier: Verifier | None = None
    close: Close | None = None
    signed: int = 0
    last_ts_ns: int = -(2**63)
    broken: bool = False
    pending: dict[int, str] = field(default_factory=dict)


class SessionVerifier:
    """One session's evidence, checked as it is fed."""

    def __init__(
        self,
        session: bytes,
        *,
        log: str | None,
        trust: Sequence[Verifier] | None,
        now_ns: int,
        report: Report,
    ) -> None:
        """Begin.

        Args:
            session: the 16-byte id.
            log: the log origin that checkpoints must name; None takes the one that OPEN states.
            trust: the node keys that count; None only checks that signatures belong together.
            now_ns: the time of verification, for saying whether a journal is still alive.
            report: where findings go.
        """
        self.session = session
        self._log = log
        self._trust = trust
        self._now_ns = now_ns
        self._report = report
        self._epochs: dict[int, Epoch] = {}
        self._object = ""

    @property
    def sizes(self) -> dict[int, int]:
        """How many frames were fed, by epoch."""
        return {number: epoch.tree.hi for number, epoch in self._epochs.items()}

    def opening(self, number: int) -> Opening | None:
        """Return what an epoch's OPEN says, once it was fed."""
        epoch = self._epochs.get(number)
        return None if epoch is None else epoch.opening

    def root(self, number: int) -> bytes | None:
        """Return an epoch's root over the frames fed, None when it cannot be computed."""
        epoch = self._epochs.get(number)
        return None if epoch is None or epoch.broken else epoch.tree.root()

    def fragment(self, record: FragmentRecord, thing: str) -> None:
        """Announce the frames that come next: `record` says which, `thing` names their object."""
        self._object = thing
        epoch = self._epochs.setdefault(record.epoch, Epoch(record.epoch))
        for gap in record.gaps:
            epoch.broken = True
            reason = f"frames {gap.lo} to {gap.hi - 1} were lost: {gap.reason}"
            self._incomplete("session", reason, epoch, gap.lo)
            if gap.lo == epoch.tree.hi:
                epoch.tree = CompactRange(gap.hi)
        if record.lo != epoch.tree.hi:
            self._hole(epoch, record.lo)
        if record.checkpoint is not None:
            epoch.pending[record.checkpoint.size] = record.checkpoint.note

    def frame(self, frame: StoredRow, leaf: bytes) -> None:
        """Take the next frame; `leaf` is computed from its stored bytes, not read from a column."""
        epoch = self._epochs[frame.epoch]
        if frame.seq != epoch.tree.hi:
            self._tampered(
                "tree", f"frame {frame.seq} stands where {epoch.tree.hi} belongs", epoch, frame.seq
            )
            epoch.broken = True
        if epoch.close is not None:
            self._tampered("session", "a frame follows CLOSE", epoch, frame.seq)
        if frame.ts_ns < epoch.last_ts_ns:
            self._tampered("frame", "its time lies before the frame before it", epoch, frame.seq)
        epoch.last_ts_ns = frame.ts_ns
        epoch.tree.append(leaf)
        self._look(epoch, frame)
        if not epoch.broken and epoch.tree.hi in epoch.pending:
            self._checkpoint(epoch, epoch.tree.hi)

    def run(self, run: Run) -> None:
        """Take frames that need no look, instead of each by `frame`."""
        epoch = self._epochs[run.epoch]
        if epoch.close is not None:
            self._tampered("session", "a frame follows CLOSE", epoch, run.covered.lo)
        if run.first_ts_ns < epoch.last_ts_ns:
            self._tampered(
                "frame", "its time lies before the frame before it", epoch, run.covered.lo
            )
        epoch.last_ts_ns = run.last_ts_ns
        epoch.tree.extend(run.covered)
        if not epoch.broken and epoch.tree.hi in epoch.pending:
            self._checkpoint(epoch, epoch.tree.hi)

    def absent(self, record: FragmentRecord, thing: str) -> None:
        """Take a fragment whose rows cannot be had; its record's hashes stand in for them.

        So the rest of the session still verifies; that the rows are gone is the caller's to say.
        """
        self.fragment(record, thing)
        epoch = self._epochs[record.epoch]
        if record.lo == 0:
            epoch.broken = True  # without OPEN no signature can be checked
        if not epoch.broken:
            epoch.tree.extend(CompactRange(record.lo, record.hi, record.nodes))
            epoch.last_ts_ns = record.last_ts_ns
            if record.hi in epoch.pending:
                self._checkpoint(epoch, record.hi)
            epoch.pending = {size: note for size, note in epoch.pending.items() if size > record.hi}
        else:
            epoch.tree = CompactRange(record.hi)

    def finish(self) -> None:
        """Judge the whole: epochs in order, each linked to the next, signed to its end, closed."""
        numbers = sorted(self._epochs)
        if numbers != list(range(len(numbers))):
            absent = sorted(set(range(numbers[-1] + 1)) - set(numbers))
            self._report.tampered(
                "session",
                self._object,
                f"epochs {absent} are missing",
                session=self.session,
                epoch=absent[0],
            )
        for number in numbers:
            self._finish_epoch(self._epochs[number], self._epochs.get(number + 1))

    # -- frames ---------------------------------------------------------------------------------

    def _look(self, epoch: Epoch, frame: StoredRow) -> None:
        if frame.kind not in KIND_NAMES and frame.kind < EXTENSION_KINDS:
            self._incomplete(
                "frame", f"kind {frame.kind} is unknown to this version", epoch, frame.seq
            )
        if frame.suite not in (Suite.PUBLIC, Suite.SALTED, Suite.AES256GCM):
            self._incomplete(
                "frame", f"suite {frame.suite} is unknown to this version", epoch, frame.seq
            )
        if frame.flags:
            self._incomplete(
                "frame", f"flags {frame.flags:#06x} are unknown to this version", epoch, frame.seq
            )
        if (frame.seq == 0) != (frame.kind == Kind.OPEN) or (frame.seq == 1) != (
            frame.kind == Kind.IDENT
        ):
            self._tampered(
                "session",
                "an epoch must begin with OPEN and IDENT, and have each once",
                epoch,
                frame.seq,
            )
        if frame.kind == Kind.OPEN and frame.seq == 0:
            self._open(epoch, frame)
        elif frame.kind == Kind.IDENT and epoch.opening is not None:
            self._ident(epoch, frame)
        elif frame.kind == Kind.CLOSE:
            self._close(epoch, frame)
        elif frame.kind == Kind.GAP:
            self._incomplete(
                "session", "the node states that it did not record here", epoch, frame.seq
            )

    def _open(self, epoch: Epoch, frame: StoredRow) -> None:
        try:
            opening, _ = parse_open(frame.payload, self._trust)
            epoch.verifier = Verifier.from_vkey(opening.key)
        except SignatureError as exc:
            self._tampered(
                "certificate", f"OPEN is not signed by a trusted node: {exc.message}", epoch, 0
            )
            return
        except FormatError as exc:
            self._tampered("certificate", f"OPEN cannot be read: {exc.message}", epoch, 0)
            return
        epoch.opening = opening
        if self._trust is None:
            self._report.note("trust: self. Without a trust file no node signature was checked")
        if (opening.session, opening.epoch) != (self.session, epoch.number):
            self._tampered("certificate", "OPEN belongs to another session or epoch", epoch, 0)
        if self._log is not None and opening.log != self._log:
            self._tampered(
                "certificate", f"OPEN names the log {opening.log}, not {self._log}", epoch, 0
            )

    def _ident(self, epoch: Epoch, frame: StoredRow) -> None:
        digest = frame.payload_sha256
        if epoch.opening is not None and digest != epoch.opening.ident_sha256:
            self._tampered("certificate", "IDENT is not the one that OPEN names", epoch, frame.seq)

    def _close(self, epoch: Epoch, frame: StoredRow) -> None:
        try:
            epoch.close = Close.from_json(frame.payload)
        except FormatError as exc:
            self._tampered("session", f"CLOSE cannot be read: {exc.message}", epoch, frame.seq)

    # -- trees and signatures ---------------------------------------------------------------------

    def _hole(self, epoch: Epoch, lo: int) -> None:
        have = epoch.tree.hi
        if lo < have:
            self._tampered("session", f"frames {lo} to {have - 1} are sealed twice", epoch, lo)
        else:
            self._tampered(
                "session",
                f"frames {have} to {lo - 1} are missing and no gap is stated",
                epoch,
                have,
            )
        epoch.broken = True
        epoch.tree = CompactRange(lo)

    def _checkpoint(self, epoch: Epoch, size: int) -> None:
        note = epoch.pending.pop(size)
        if epoch.opening is None or epoch.verifier is None:
            return  # the reason is a finding already
        try:
            text = open_note(note.encode(), [epoch.verifier]).text
            checkpoint = parse_checkpoint(text)
        except (FormatError, SignatureError) as exc:
            self._tampered(
                "checkpoint",
                f"the checkpoint at size {size} is not valid: {exc.message}",
                epoch,
                size - 1,
            )
            return
        origin = session_origin(epoch.opening.log, self.session, epoch.number)
        if checkpoint.origin != origin or checkpoint.size != size:
            self._tampered(
                "checkpoint", f"the checkpoint at size {size} is of another tree", epoch, size - 1
            )
        elif checkpoint.root != epoch.tree.root():
            self._tampered(
                "checkpoint",
                f"the frames up to {size - 1} do not have the root that was signed",
                epoch,
                size - 1,
            )
        else:
            epoch.signed = size

    def _finish_epoch(self, epoch: Epoch, following: Epoch | None) -> None:
        size = epoch.tree.hi
        if epoch.broken or epoch.opening is None:
            return  # the reason is a finding already
        for unmet in sorted(epoch.pending):
            self._tampered(
                "checkpoint", f"{unmet} frames were signed, {size} are there", epoch, size
            )
        if following is not None:
            self._link(epoch, following)
        elif epoch.close is None:
            self._unfinished(epoch)
        elif epoch.signed < size:
            self._incomplete(
                "checkpoint",
                f"frames {epoch.signed} to {size - 1} are not signed",
                epoch,
                epoch.signed,
            )

    def _link(self, epoch: Epoch, following: Epoch) -> None:
        """An epoch that a later one continues ends where that one says, signed by the node."""
        continues = None if following.opening is None else following.opening.continues
        if continues is None:
            return  # the following OPEN cannot be read, which is a finding already
        if epoch.close is not None:
            # Whoever has the node's key can write on; nothing that was closed is taken up again.
            self._incomplete("session", "it goes on after it was closed", following, 0)
        if _identity(epoch) != _identity(following):
            reason = "it is of another tenant, node or number than the epoch before"
            self._tampered("session", reason, following, 0)
        size = epoch.tree.hi
        if continues.size != size or continues.root != epoch.tree.root():
            self._tampered(
                "session",
                f"epoch {following.number} continues {continues.size} frames, not these {size}",
                epoch,
            )
        elif epoch.signed < size:
            self._report.note(
                f"session {self.session.hex()}: frames {epoch.signed} to {size - 1} "
                f"of epoch {epoch.number} are attested by the node's key "
                "after a crash, not by the session's own"
            )

    def _unfinished(self, epoch: Epoch) -> None:
        opening = epoch.opening
        if opening is not None and opening.type == "journal":
            silence = self._now_ns - epoch.last_ts_ns
            if silence <= JOURNAL_SILENCE_NS:
                self._report.note(f"journal {self.session.hex()} is open, as a running node's is")
                return
            self._incomplete(
                "session", "the node's journal fell silent without being closed", epoch
            )
        else:
            self._incomplete(
                "session", "not closed: it is live, or its node has not come back", epoch
            )

    def _tampered(self, layer: str, reason: str, epoch: Epoch, seq: int | None = None) -> None:
        self._report.tampered(
            layer, self._object, reason, session=self.session, epoch=epoch.number, seq=seq
        )

    def _incomplete(self, layer: str, reason: str, epoch: Epoch, seq: int | None = None) -> None:
        self._report.incomplete(
            layer, self._object, reason, session=self.session, epoch=epoch.number, seq=seq
        )


def _identity(epoch: Epoch) -> Sequence[object]:
    """What all epochs of a session have alike."""
    names = ("type", "tenant", "node", "boot", "worker", "number")
    return [getattr(epoch.opening, name) for name in names]
