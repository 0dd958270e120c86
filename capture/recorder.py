"""The recorder of one session: what the relay calls with each read, and what makes frames of it.

The relay hands over bytes (`data`) and what they meant (`fact`); the recorder keeps them encoded,
ready for the spool, and cuts them into frames by size or when the worker says that time is up.
Big reads become frames at once and are never kept as slices. Nothing here waits for anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealtape.capture.epoch import Epoch, Subject, close
from sealtape.capture.spool.records import (
    CLEARS,
    CLOSES,
    Cut,
    Pieces,
    SessionState,
    encode_pieces,
    encode_session,
)
from sealtape.schemas.bodies import MAX_STATE_PART, Clock, Close, Gap, StateBody
from sealtape.schemas.facts import (
    COMMAND,
    NO_LEG,
    NO_STATEMENT,
    NO_TAIL,
    NO_TEXT,
    encode_facts,
    encode_head,
)
from sealtape.schemas.frames import Kind
from sealtape.schemas.slices import CLIENT_IN, TARGET_IN, Hole, advance, encode_data, slice_head

if TYPE_CHECKING:
    from sealtape.capture.outlet import Outlet

FACTS_BYTES = 96 << 10
"""Facts are cut before they exceed this; one alone stays below it (docs/spec/data-and-facts.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often what is done; the settings of `[capture]` with the same names."""

    frame_bytes: int = 64 << 10
    frame_ms: int = 200
    checkpoint_frames: int = 256
    checkpoint_s: float = 5.0
    state_every: int = 64 << 20
    grace_s: float = 10.0
    heartbeat_s: float = 10.0
    receipt_s: float = 600.0


Snapshot = Callable[[], tuple[str, bytes]]
"""Gives the codec's name and version ("postgres/1") and what it needs to start decoding here."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a recorder asks of its relay: not to read, to end the session, a snapshot."""

    on_stall: Callable[[bool], None]
    on_end: Callable[[str], None]
    snapshot: Snapshot | None = None


class SessionRecorder:
    """Records one session; `open_session` of the worker makes it. One event loop only.

    `offsets` are the running totals of the four legs, in bytes, including all that `data` was
    given; `data_ns` is the time it gave the last of them, by which durations are measured: nobody
    who decodes the recording has another. `text_salt` is for `facts.text_digest`. `unrecorded` is
    true while bytes cannot be recorded and the session's terms let it go on. `opened`: its
    beginning is put down.
    """

    __slots__ = (
        "_anchor",
        "_at_cut",
        "_base",
        "_epoch",
        "_fact_bytes",
        "_facts",
        "_facts_spooled",
        "_frame_bytes",
        "_fresh_bytes",
        "_gap_from",
        "_last_root",
        "_last_size",
        "_mute",
        "_on_stall",
        "_size",
        "_slices",
        "_slices_spooled",
        "_snapshot",
        "_spooled_size",
        "_stalls",
        "_state_at",
        "_state_every",
        "about",
        "commands",
        "data_ns",
        "dirty",
        "ending",
        "errors",
        "fact_count",
        "last_ns",
        "number",
        "offsets",
        "on_end",
        "opened",
        "outlet",
        "queued_bytes",
        "queued_checkpoint",
        "queued_cut",
        "session",
        "subject",
        "text_salt",
        "unrecorded",
    )

    def __init__(
        self,
        epoch: Epoch,
        subject: Subject,
        *,
        about: bytes,
        anchor_ns: int,
        opened_ns: int,
        outlet: Outlet,
        pace: Pace,
        hooks: Hooks,
    ) -> None:
        """Start behind the epoch's opening frames."""
        self.session = subject.session
        self.number = subject.number
        self.subject = subject
        self.about = about
        self.text_salt = epoch.salt
        self.offsets = [0, 0, 0, 0]
        self.fact_count = self.commands = self.errors = 0
        self.last_ns = self.data_ns = opened_ns
        self.on_end = hooks.on_end
        self.dirty = self.ending = self.queued_cut = self.queued_checkpoint = False
        self.opened = False
        self.queued_bytes = 0
        self._stalls: set[str] = set()
        self._epoch: Epoch | None = epoch
        self.outlet = outlet
        self._anchor = anchor_ns
        self._frame_bytes = pace.frame_bytes
        self._on_stall = hooks.on_stall
        self._snapshot = hooks.snapshot
        self._state_every = self._state_at = pace.state_every
        self._mute = self.unrecorded = False
        self._gap_from: list[int] = [0, 0, 0, 0]
        self._base = self._size = self._fact_bytes = self._last_size = 0
        self._last_root = b""
        self._slices_spooled = self._facts_spooled = self._spooled_size = 0
        self._slices: list[bytes] = []
        self._facts: list[bytes] = []
        self._at_cut = (self._totals(), 0, 0, 0)

    # -- the hot path ------------------------------------------------------------------------------

    def data(self, leg: int, data: bytes, replaces: int = 0) -> None:
        """Record bytes read from (or, where the gateway changed them, written to) a leg."""
        length = len(data)
        outlet = self.outlet
        now = (outlet.now or outlet.begin()) + self._anchor
        if now < self.last_ns:  # noqa: PLR1730 - max() costs a call
            now = self.last_ns
        self.data_ns = now
        if self._size + length > self._frame_bytes and not self._mute:
            self._large(leg, now, data, replaces)
            return
        offsets = self.offsets  # what follows is slices.advance, without the call
        offset = offsets[leg]
        if leg & 1:  # an out leg: these bytes take the place of some that its in leg implied
            offset -= replaces
        else:
            offsets[leg + 1] += length
        offsets[leg] = offset + length
        if self._mute:
            return
        if not self._base:
            self._start(now)
        piece = slice_head(leg, now - self._base, offset, length, replaces) + data
        self._slices.append(piece)
        self._size += len(piece)
        if not self.dirty:
            self.dirty = True
            outlet.dirty.append(self)

    def forward(self, write: Callable[[bytes], object], data: bytes) -> None:
        """Call `write(data)` as soon as all that was recorded before this may go on."""
        if self.unrecorded:
            write(data)
        else:
            self.outlet.forward(self, write, data)

    def fact(
        self,
        kind: int,
        leg: int = NO_LEG,
        offset: int = 0,
        length: int = 0,
        ref: int = -1,
        text: bytes = NO_TEXT,
        statement: bytes = NO_STATEMENT,
        tail: bytes = NO_TAIL,
        *,
        error: bool = False,
    ) -> int:
        """Record a fact, given its encoded parts (`schemas/facts.py`); return its number."""
        size = len(text) + len(statement) + len(tail)
        if self._fact_bytes + size > FACTS_BYTES:
            self.cut()
        n = self.fact_count
        self.fact_count = n + 1
        if kind == COMMAND:
            self.commands += 1
        if error:
            self.errors += 1
        outlet = self.outlet
        now = (outlet.now or outlet.begin()) + self._anchor
        if now < self.last_ns:  # noqa: PLR1730 - max() costs a call
            now = self.last_ns
        if self._mute:
            return n
        if not self._base:
            self._start(now)
        head = encode_head(n, kind, now - self._base, leg, offset, length, ref)
        self._facts.append(b"".join((head, text, statement, tail)))
        self._fact_bytes += size + len(head)
        if not self.dirty:
            self.dirty = True
            outlet.dirty.append(self)
        return n

    def _start(self, now: int) -> None:
        self._base = self.last_ns = now
        if not self.queued_cut:
            self.queued_cut = True
            self.outlet.cuts.append((now - self._anchor, self))

    def _large(self, leg: int, now: int, data: bytes, replaces: int) -> None:
        """Cut what is there; what does not fit a frame is cut into frames of its own."""
        self.cut()
        at, length = 0, len(data)
        while length - at >= self._frame_bytes:
            chunk = data[at : at + self._frame_bytes]
            offset = advance(self.offsets, leg, len(chunk), replaces)
            head = slice_head(leg, 0, offset, len(chunk), replaces)
            self.last_ns = now
            found = [self._seal(Kind.DATA, now, encode_data((head, chunk), 1))]
            self._reset()
            self._emit(found, CLEARS)
            at, replaces = at + len(chunk), 0
        if at < length:
            self._start(now)
            rest = data[at:] if at else data
            offset = advance(self.offsets, leg, len(rest), replaces)
            head = slice_head(leg, 0, offset, len(rest), replaces)
            self._slices.append(head + rest)
            self._size += len(head) + len(rest)
        if not self.dirty:
            self.dirty = True
            self.outlet.dirty.append(self)

    # -- cutting -----------------------------------------------------------------------------------

    @property
    def base_mono(self) -> int:
        """Monotonic time of the oldest thing that is in no frame; 0 when there is none."""
        return self._base - self._anchor if self._base else 0

    @property
    def unsigned(self) -> int:
        """Frames that no checkpoint covers."""
        epoch = self._epoch
        return 0 if epoch is None else epoch.size - epoch.signed

    @property
    def closed(self) -> bool:
        """True after CLOSE."""
        return self._epoch is None

    @property
    def size(self) -> int:
        """Frames so far, CLOSE among them after the end."""
        return self._last_size if self._epoch is None else self._epoch.size

    @property
    def stalled(self) -> bool:
        """Whether the relay was asked not to read."""
        return bool(self._stalls)

    @property
    def epoch(self) -> int:
        """Number of the epoch."""
        return 0 if self._epoch is None else self._epoch.epoch

    def root(self) -> bytes:
        """Root of the tree over all frames so far, CLOSE among them after the end."""
        return self._last_root if self._epoch is None else self._epoch.tree.root()

    def cut(self) -> None:
        """Make frames of everything that is in none."""
        if not self._base:
            return
        found: list[bytes] = []
        base, slices, facts = self._base, self._slices, self._facts
        if slices:
            found.append(self._seal(Kind.DATA, base, encode_data(slices, len(slices))))
        if facts:
            found.append(self._seal(Kind.FACTS, base, encode_facts(self.offsets, facts)))
        self._reset()
        self._emit(found, CLEARS)

    def state_if_due(self) -> None:
        """Let a decoder start here, once per `state_every` bytes.

        The relay calls it when the codec is at rest, after recording what the codec has seen.
        """
        total = self.offsets[CLIENT_IN] + self.offsets[TARGET_IN]
        if total < self._state_at or self._snapshot is None or self._mute:
            return
        self._state_at = total + self._state_every
        codec, data = self._snapshot()
        self.cut()
        offsets = self._totals()
        now = self._now()
        parts = [data[at : at + MAX_STATE_PART] for at in range(0, len(data), MAX_STATE_PART)]
        parts = parts or [b""]
        found = [
            StateBody(codec, offsets, part, number, len(parts)).to_json()
            for number, part in enumerate(parts)
        ]
        self._emit([self._seal(Kind.STATE, now, body) for body in found], 0)

    def checkpoint(self) -> None:
        """Sign the tree if a frame is not covered yet."""
        if self._epoch is not None and self.unsigned:
            self.outlet.emit(self._cut_of([self._epoch.checkpoint()], 0))

    def clock(self, step_ns: int) -> None:
        """Say that the wall clock was stepped."""
        if self._mute:
            return
        self.cut()
        now = self._now()
        body = Clock(now, now + step_ns).to_json()
        self._emit([self._seal(Kind.CLOCK, now, body)], 0)

    # -- failure and end ---------------------------------------------------------------------------

    def stall(self, reason: str) -> None:
        """Ask the relay not to read, for one more reason."""
        if reason not in self._stalls:
            self.outlet.stalls[reason] += 1
        if not self._stalls:
            self._stalls.add(reason)
            self._on_stall(True)
        self._stalls.add(reason)

    def unstall(self, reason: str) -> None:
        """Let the relay read again when no other reason is left."""
        if reason in self._stalls:
            self._stalls.remove(reason)
            if not self._stalls:
                self._on_stall(False)

    def begin_gap(self) -> None:
        """From here on only count: the spool fails and the terms say `continue`."""
        if not self._mute:
            self._mute = self.unrecorded = True
            self._gap_from = list(self.offsets)

    def end_gap(self) -> None:
        """State what was not recorded, and record again."""
        if not self.unrecorded:
            return
        self._mute = self.unrecorded = False
        self.cut()
        self._reset()
        holes = tuple(
            Hole(leg, start, end - start)
            for leg, (start, end) in enumerate(zip(self._gap_from, self.offsets, strict=True))
            if end > start
        )
        now = self._now()
        self._emit([self._seal(Kind.GAP, now, Gap("spool", holes).to_json())], 0)
        self._state_at = min(self._state_at, self.offsets[CLIENT_IN] + self.offsets[TARGET_IN])

    def finish(self, reason: str, detail: str) -> None:
        """Seal the end; the keys are forgotten, so nothing can be added."""
        epoch = self._epoch
        if epoch is None:
            return
        self.end_gap()
        self.cut()
        ending = Close(reason, self._totals(), self.commands, self.errors, detail)
        messages = close(epoch, self._now(), ending)
        closing = self._cut_of(messages, CLEARS | CLOSES)
        self._last_size, self._last_root = epoch.size, epoch.tree.root()
        self._epoch, self._mute = None, True
        self.outlet.emit(closing)

    # -- for the spool -----------------------------------------------------------------------------

    def take_pieces(self, direct_bytes: int) -> bytes:
        """Return this tick's entry for a SLICES record, and count it as taken.

        When there are `direct_bytes` or more of new slices, they become frames instead.
        """
        slices, facts = self._slices, self._facts
        if self._slices_spooled:
            slices = slices[self._slices_spooled :]
        if self._facts_spooled:
            facts = facts[self._facts_spooled :]
        if not slices and not facts:
            return b""
        if self._size - self._spooled_size >= direct_bytes:
            self.cut()
            return b""
        self._slices_spooled += len(slices)
        self._facts_spooled += len(facts)
        self._spooled_size = self._size
        return encode_pieces(self.number, self._base, slices, facts)

    def announcement(self) -> bytes:
        """Return the session's first SESSION record, which stands before its OPEN."""
        return self._state(0, (), 0)

    def snapshot(self) -> bytes:
        """Return the body of a SESSION record for this moment; all pieces count as taken."""
        self._slices_spooled = len(self._slices)
        self._facts_spooled = len(self._facts)
        self._spooled_size = self._size
        epoch = self._epoch
        assert epoch is not None
        return self._state(epoch.size, epoch.tree.nodes, epoch.signed)

    def _state(self, size: int, nodes: tuple[bytes, ...], signed: int) -> bytes:
        slices, facts = self._slices, self._facts
        pieces = Pieces(
            self.number, self._base, len(slices), b"".join(slices), len(facts), b"".join(facts)
        )
        totals, facts_before, commands, errors = self._at_cut
        return encode_session(
            SessionState(
                number=self.number,
                about=self.about,
                epoch=self.epoch,
                size=size,
                nodes=nodes,
                offsets=totals,
                facts=facts_before,
                commands=commands,
                errors=errors,
                last_ns=self.last_ns,
                signed=signed,
                pieces=pieces,
            )
        )

    # -- inside ------------------------------------------------------------------------------------

    def _reset(self) -> None:
        self._base = self._size = self._fact_bytes = 0
        self._slices_spooled = self._facts_spooled = self._spooled_size = 0
        self._slices, self._facts = [], []
        self._at_cut = (self._totals(), self.fact_count, self.commands, self.errors)

    def _seal(self, kind: int, ts_ns: int, body: bytes) -> bytes:
        assert self._epoch is not None
        return self._epoch.seal(kind, ts_ns, body)

    def _emit(self, messages: list[bytes], flags: int) -> None:
        epoch = self._epoch
        assert epoch is not None
        outlet = self.outlet
        if epoch.size - epoch.signed >= outlet.checkpoint_frames:
            messages.append(epoch.checkpoint())
        elif not self.queued_checkpoint:
            self.queued_checkpoint = True
            outlet.checkpoints.append((outlet.mono_ns(), self))
        outlet.emit(self._cut_of(messages, flags))

    def _cut_of(self, messages: list[bytes], flags: int) -> Cut:
        return Cut(self.number, flags, *self._at_cut, messages)

    def _totals(self) -> tuple[int, int, int, int]:
        first, second, third, fourth = self.offsets
        return first, second, third, fourth

    def _now(self) -> int:
        self.last_ns = max(self.last_ns, self.outlet.mono_ns() + self._anchor)
        return self.last_ns
