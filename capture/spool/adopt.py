"""What a dead worker's spool says about its sessions: read once, at the start of another worker."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sealtape.capture.spool.files import StoredFile, keeps, lane_of
from sealtape.capture.spool.folder import RECOVERY, Orphan
from sealtape.capture.spool.records import (
    CLEARS,
    CLOSES,
    FRAMES,
    SESSION,
    SLICES,
    Cut,
    Pieces,
    SessionState,
    parse_frames,
    parse_session,
    parse_slices,
)
from sealtape.capture.spool.settled import read_settled
from sealtape.schemas import messages
from sealtape.schemas.errors import FormatError
from sealtape.schemas.frames import Frame, Kind
from sealtape.schemas.tlog.receipts import Ended
from sealtape.schemas.tree import CompactRange


@dataclass(slots=True)
class Found:
    """The sessions that were not closed, by number; up to where the bus has each lane; damage.

    Those that are `settled` are passed over: files of theirs may be gone.
    """

    settled: frozenset[int] = frozenset()

    states: dict[int, SessionState] = field(default_factory=dict)
    acked: dict[str, int] = field(default_factory=dict)
    damage: list[str] = field(default_factory=list)
    _trees: dict[int, CompactRange] = field(default_factory=dict)

    def session(self, state: SessionState) -> None:
        """Take a snapshot; it stands for everything before it."""
        if state.number in self.settled:
            return
        self.states[state.number] = state
        self._trees[state.number] = CompactRange(0, state.size, state.nodes)

    def pieces(self, more: Pieces) -> None:
        """Add slices and facts that were spooled and not framed yet."""
        state = self.states.get(more.number)
        if state is None:
            return
        have = state.pieces
        base_ns = have.base_ns if have.slice_count or have.fact_count else more.base_ns
        if base_ns != more.base_ns:
            raise FormatError("Spooled slices of one session do not belong together.")
        state.pieces = Pieces(
            more.number,
            base_ns,
            have.slice_count + more.slice_count,
            have.slices + more.slices,
            have.fact_count + more.fact_count,
            have.facts + more.facts,
        )

    def cut(self, cut: Cut) -> None:
        """Follow finished frames; frames seen before (a write that was repeated) change nothing."""
        state = self.states.get(cut.number)
        if state is None or not self._follow(state, cut):
            return
        state.offsets, state.facts = cut.offsets, cut.facts
        state.commands, state.errors = cut.commands, cut.errors
        if cut.flags & CLEARS:
            state.pieces = Pieces(cut.number, 0, 0, b"", 0, b"")
        if cut.flags & CLOSES:
            del self.states[cut.number], self._trees[cut.number]

    def _follow(self, state: SessionState, cut: Cut) -> bool:
        tree = self._trees[cut.number]
        new = False
        for data in cut.messages:
            message = messages.decode(data)
            if isinstance(message, Frame):
                if message.seq > state.size:
                    raise FormatError("Frames are missing in a spool.", seq=message.seq)
                if message.seq == state.size:
                    tree.append(message.leaf())
                    state.size, state.last_ns, new = state.size + 1, message.ts_ns, True
            elif isinstance(message, messages.CheckpointMessage):
                new = new or message.size > state.signed
                state.signed = max(state.signed, message.size)
        state.nodes = tree.nodes
        return new


def read_orphan(orphan: Orphan, key: bytes) -> Found:
    """Read all files of a dead worker.

    Raises `KeyUnavailable` when they were written under another spool key, `StoreCorrupt` when it
    is not to be told which sessions are settled. Damage (not a record cut short at the end of a
    file: that is what a crash leaves) is listed, the rest is still used.
    """
    found = Found(settled=read_settled(orphan.folder))
    for path in orphan.files():
        try:
            _read_file(path, key, found)
        except FormatError as exc:
            found.damage.append(f"{path.name}: {exc.message}")
    if orphan.recovered:
        found.states.clear()
    return found


def _read_file(path: Path, key: bytes, found: Found) -> None:
    lane = lane_of(path)
    with StoredFile(path, key) as file:
        for stored in file.records():
            if stored.kind == SESSION:
                found.session(parse_session(stored.body))
            elif stored.kind == SLICES:
                for entry in parse_slices(stored.body):
                    found.pieces(entry)
            elif stored.kind == FRAMES:
                _, acked, cuts = parse_frames(stored.body)
                found.acked[lane] = max(found.acked.get(lane, 0), acked)
                for cut in cuts:
                    found.cut(cut)


def read_owed(orphan: Orphan, key: bytes) -> list[Ended]:
    """The epochs of a dead worker for which receipts are waited for: after its recovery.

    Files of a session without a receipt are all there, so its trees are made from their beginning.
    """
    settled = read_settled(orphan.folder)
    trees: dict[tuple[bytes, int], CompactRange] = {}
    closed: set[tuple[bytes, int]] = set()
    numbers: set[int] = set()
    for path in orphan.files():
        if path.name != RECOVERY and not keeps(lane_of(path)):
            continue
        for cut in _cuts(path, key):
            if path.name != RECOVERY:
                numbers.add(cut.number)
            if cut.number not in settled and cut.number in numbers:
                _grow(cut, trees, closed)
    return [
        Ended(session, epoch, tree.hi, tree.root(), closed=(session, epoch) in closed)
        for (session, epoch), tree in trees.items()
    ]


def _grow(
    cut: Cut, trees: dict[tuple[bytes, int], CompactRange], closed: set[tuple[bytes, int]]
) -> None:
    for data in cut.messages:
        message = messages.decode(data)
        if isinstance(message, Frame):
            name = (message.session, message.epoch)
            tree = trees.setdefault(name, CompactRange())
            if message.seq == tree.hi:  # else it was written twice
                tree.append(message.leaf())
            if message.kind == Kind.CLOSE:
                closed.add(name)


def _cuts(path: Path, key: bytes) -> Iterator[Cut]:
    """The cuts of a file, as far as it is whole: also of one that is being written."""
    with StoredFile(path, key) as file:
        try:
            for stored in file.records():
                if stored.kind == FRAMES:
                    yield from parse_frames(stored.body)[2]
        except FormatError:
            return


def read_sessions(
    paths: Sequence[Path], key: bytes, sessions: Collection[bytes]
) -> Iterator[list[bytes]]:
    """Yield all finished messages of some sessions, in order."""
    for path in paths:
        for cut in _cuts(path, key):
            found = [item for item in cut.messages if messages.peek_session(item) in sessions]
            if found:
                yield found


def read_messages(orphan: Orphan, key: bytes, acked: dict[str, int]) -> Iterator[list[bytes]]:
    """Yield the finished messages the bus may not have yet, record by record, in order."""
    for path in orphan.files():
        below = acked.get(lane_of(path), 0)
        with StoredFile(path, key) as file:
            records = file.records()
            while True:
                try:
                    stored = next(records, None)
                    if stored is None:
                        break
                    if stored.kind != FRAMES:
                        continue
                    first, _, cuts = parse_frames(stored.body)
                except FormatError:
                    break
                found = [message for cut in cuts for message in cut.messages]
                yield found[max(below - first, 0) :]
