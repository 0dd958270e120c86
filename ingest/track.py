"""One (session, epoch) on its way into segments: what is sealed of it, and what waits.

Frames wait until a checkpoint signed by the session's own key covers them, so a fragment ends at a
signed size wherever one comes in time, and a frame that somebody slipped into the bus is told from
the true one before anything is sealed. Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations

from sealtape.ingest.ledger.rows import Head
from sealtape.ingest.parquet import Row
from sealtape.schemas.bodies import Close, Opening
from sealtape.schemas.errors import FormatError
from sealtape.schemas.frames import Kind
from sealtape.schemas.notes import Verifier
from sealtape.schemas.segments import FragmentGap
from sealtape.schemas.tlog.records import UNREADABLE
from sealtape.schemas.tree import CompactRange

__all__ = ["Piece", "Stretch", "Track", "close_reason"]

NEVER = -(2**63)
MAX_TRIED = 6
"""Rivals of which every choice is tried; of more than that only all together."""


@dataclass(slots=True)
class Piece:
    """Waiting frames without a hole between them, from `run.lo` on."""

    run: CompactRange
    gap: FragmentGap | None = None
    rows: list[Row] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    rivals: dict[int, tuple[Row, int]] = field(default_factory=dict)
    """Other frames with the same seq as a waiting one, with their bus offsets."""
    signed_run: CompactRange | None = None
    note: str = ""
    attested: bool = False
    since_ns: int = 0
    tried: dict[tuple[int, bytes], frozenset[int]] = field(default_factory=dict)
    """The rivals that were tried in vain for a size and its root."""

    @property
    def signed(self) -> int:
        """Frames below this seq are under a signature; `run.lo` when none are."""
        return self.run.lo if self.signed_run is None else self.signed_run.hi

    def range_at(self, size: int) -> CompactRange:
        """The compact range [run.lo, size)."""
        if size == self.run.hi:
            return self.run.copy()
        part = CompactRange(self.run.lo)
        for row in self.rows[: size - self.run.lo]:
            part.append(row.leaf)
        return part


@dataclass(frozen=True, slots=True)
class Stretch:
    """Frames of one epoch that go into one fragment."""

    opening: Opening
    run: CompactRange
    rows: list[Row]
    checkpoint: tuple[int, str] | None
    gap: FragmentGap | None


class Track:
    """State of one (session, epoch). `head` is what the ledger holds, None if nothing."""

    __slots__ = (
        "ahead",
        "base",
        "early",
        "ended",
        "epoch",
        "head",
        "opening",
        "opening_payload",
        "pieces",
        "session",
        "verifier",
    )

    def __init__(self, session: bytes, epoch: int, head: Head | None) -> None:
        """Begin at what the ledger holds."""
        self.session = session
        self.epoch = epoch
        self.head = head
        self.opening: Opening | None = None
        self.opening_payload = b""
        self.verifier: Verifier | None = None
        self.base = CompactRange()
        self.pieces: list[Piece] = []
        self.early: dict[int, tuple[Row, int, int]] = {}
        """Frames past a hole: (row, offset, time they came)."""
        self.ahead: dict[int, tuple[bytes, int, int]] = {}
        """Verified checkpoints past the last frame: (note, offset, time they came)."""
        self.ended = False
        if head is not None:
            self.base = CompactRange(head.lo, head.hi, head.nodes)
            self.ended = bool(head.closed)

    @property
    def next_seq(self) -> int:
        """The seq that goes on without a hole."""
        return self.pieces[-1].run.hi if self.pieces else self.base.hi

    @property
    def waiting(self) -> bool:
        """Whether anything is held that the ledger does not have."""
        return bool(self.pieces or self.early or self.ahead)

    @property
    def rival_bytes(self) -> int:
        """Payload of the frames that came for a seq that is taken."""
        return sum(row.payload_len for piece in self.pieces for row, _ in piece.rivals.values())

    def overdue(self, limit_ns: int) -> bool:
        """Whether something came before `limit_ns` that still waits for what is missing."""
        # A signature that waits is judged with the frames it is the proof of.
        held = self.early or self.ahead
        return any(since_ns <= limit_ns for _, _, since_ns in held.values())

    def open(self, opening: Opening, payload: bytes, verifier: Verifier) -> None:
        """Take what OPEN says; the frame itself is added by `append`."""
        self.opening = opening
        self.opening_payload = payload
        self.verifier = verifier

    def append(self, row: Row, offset: int, now_ns: int) -> None:
        """Add the frame that goes on without a hole."""
        if not self.pieces:
            self.pieces.append(Piece(CompactRange(self.base.hi), since_ns=now_ns))
        piece = self.pieces[-1]
        if not piece.rows:
            piece.since_ns = now_ns
        piece.rows.append(row)
        piece.offsets.append(offset)
        piece.run.append(row.leaf)
        if row.kind == Kind.CLOSE:
            self.ended = True

    def jump(self, seq: int, now_ns: int) -> None:
        """Give up on the frames before `seq` and go on there."""
        gap = FragmentGap(self.next_seq, seq, "lost")
        self.pieces.append(Piece(CompactRange(seq), gap, since_ns=now_ns))

    def waiting_row(self, seq: int) -> tuple[Piece, Row] | None:
        """The waiting frame with this seq."""
        for piece in self.pieces:
            if piece.run.lo <= seq < piece.run.hi:
                return piece, piece.rows[seq - piece.run.lo]
        return None

    def root_at(self, size: int) -> bytes | None:
        """The root of the first `size` frames; None where it cannot be known any more."""
        if self.base.lo != 0:
            return None
        if size == self.base.hi:
            return self.base.root()
        if not self.pieces or self.pieces[0].gap is not None:
            return None
        piece = self.pieces[0]
        if not piece.run.lo < size <= piece.run.hi:
            return None
        whole = self.base.copy()
        whole.extend(piece.range_at(size))
        return whole.root()

    def swap_rivals(self, size: int, root: bytes) -> bool:
        """Try rivals below `size` instead; keep those with which the root is the signed one.

        Frames that an earlier root was right for stay.
        """
        piece = self.pieces[0]
        proven = piece.signed if piece.attested else piece.run.lo
        rivals = {seq: rival for seq, rival in piece.rivals.items() if proven <= seq < size}
        if piece.tried.get((size, root)) == rivals.keys():
            return False
        piece.tried[size, root] = frozenset(rivals)
        for chosen in _choices(sorted(rivals)):
            rows = [rivals[row.seq][0] if row.seq in chosen else row for row in piece.rows]
            whole = self.base.copy()
            for row in rows[: size - piece.run.lo]:
                whole.append(row.leaf)
            if whole.root() == root:
                self._swap(piece, rows, chosen)
                return True
        return False

    def _swap(self, piece: Piece, rows: list[Row], chosen: frozenset[int]) -> None:
        """Let the rivals at these places be what waits, and what waited their rivals."""
        for seq in chosen:
            index = seq - piece.run.lo
            _, offset = piece.rivals[seq]
            piece.rivals[seq] = (piece.rows[index], piece.offsets[index])
            piece.offsets[index] = offset
        piece.rows = rows
        piece.run = CompactRange(piece.run.lo)
        for row in rows:
            piece.run.append(row.leaf)
        closed = self.head is not None and bool(self.head.closed)
        self.ended = closed or any(row.kind == Kind.CLOSE for row in rows)

    def sign(self, size: int, note: bytes, *, attested: bool) -> None:
        """Note that a verified checkpoint covers the waiting frames below `size`."""
        for piece in self.pieces:
            if piece.run.lo < size <= piece.run.hi and size > piece.signed:
                piece.signed_run = piece.range_at(size)
                piece.note = note.decode()
                piece.attested = attested

    def held_offsets(self) -> Iterator[int]:
        """The bus offsets of what is held beside the pieces."""
        yield from (offset for _, offset, _ in self.early.values())
        yield from (offset for _, offset, _ in self.ahead.values())


def _choices(seqs: list[int]) -> Iterator[frozenset[int]]:
    """Which rivals to try: all of them, then fewer."""
    least = 1 if len(seqs) <= MAX_TRIED else len(seqs)
    for count in range(len(seqs), least - 1, -1):
        yield from map(frozenset, combinations(seqs, count))


def close_reason(rows: list[Row]) -> str | None:
    """The reason of the CLOSE among the last rows, None when there is none."""
    for row in reversed(rows):
        if row.kind == Kind.CLOSE:
            try:
                return Close.from_json(row.payload).reason
            except FormatError:
                return UNREADABLE
    return None
