"""What a dead worker's spool says about its sessions: read once, at the start of another worker."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

from sealtape.capture.spool.files import StoredFile, keeps, lane_of
from sealtape.capture.spool.folder import RECOVERY, Orphan
from sealtape.capture.spool.records import (
    CLEARS,
    CLOSES,
    FILE_HEADER,
    FRAMES,
    SESSION,
    SLICES,
    Cut,
    Pieces,
    SessionState,
    Stored,
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


class _Order:
    """The ordinals of a lane's messages, file by file: none is missing, none comes late.

    Only what a failed write left at the end of a file is there again in the next one.
    """

    def __init__(self) -> None:
        self.end: int | None = None
        self.last = self._name = ""
        self._before: set[int] = set()
        self._here: set[int] = set()

    def file(self, name: str) -> None:
        """Another file begins."""
        self._before, self._here = self._here, set()
        self.last, self._name = self._name, name

    def take(self, first: int, count: int) -> str:
        """Follow a record; say which messages are missing before it."""
        end = first if self.end is None else self.end
        again = not self._here and first in self._before
        if first < end and not again:
            raise FormatError(f"Message {first} stands behind message {end - 1}.")
        self._here.add(first)
        self.end = first + count
        return (
            f"Messages {end} to {first - 1} are missing behind {self.last}" if first > end else ""
        )


@dataclass(slots=True)
class Found:
    """The sessions that were not closed, by number; up to where the bus has each lane; damage.

    Those that are `settled` are passed over: files of theirs may be gone.
    """

    settled: frozenset[int] = frozenset()
    owner: tuple[str, int] | None = None
    """Boot and worker whose sessions these are."""

    states: dict[int, SessionState] = field(default_factory=dict)
    acked: dict[str, int] = field(default_factory=dict)
    damage: list[str] = field(default_factory=list)
    _order: dict[str, _Order] = field(default_factory=dict)
    _sessions: dict[int, bytes] = field(default_factory=dict)
    _trees: dict[int, CompactRange] = field(default_factory=dict)

    def file(self, path: Path) -> None:
        """Another file of a lane begins."""
        self._order.setdefault(lane_of(path), _Order()).file(path.name)

    def behind(self, path: Path) -> str:
        """The name of the lane's file before this one."""
        return self._order[lane_of(path)].last

    def follow(self, path: Path, first: int, count: int) -> str:
        """Follow the ordinals of a FRAMES record; say which messages are missing before it."""
        return self._order[lane_of(path)].take(first, count)

    def session(self, state: SessionState) -> int:
        """Take a snapshot, which stands for everything before it; say how many frames it skips."""
        if state.number in self.settled:
            return 0
        self._sessions[state.number] = self._owned(state)
        have = self.states.get(state.number)
        if have is not None and have.size > state.size:  # of a batch that was repeated, or old
            return 0
        self.states[state.number] = state
        self._trees[state.number] = CompactRange(0, state.size, state.nodes)
        return 0 if have is None else max(state.size - have.size, 0)

    def _owned(self, state: SessionState) -> bytes:
        """The id of a snapshot's session, which has to be of this folder's worker."""
        try:
            about = json.loads(state.about)
            owner, session = (about["boot"], about["worker"]), bytes.fromhex(about["session"])
        except (ValueError, KeyError, TypeError) as exc:
            raise FormatError("A SESSION record of the spool is not understood.") from exc
        if self.owner is not None and owner != self.owner:
            raise FormatError("It is of another worker, or of another boot.")
        return session

    def is_strange(self, cut: Cut) -> bool:
        """Whether these messages are of another session than the one of their number."""
        session = self._sessions.get(cut.number)
        return session is not None and any(
            messages.peek_session(item) != session for item in cut.messages
        )

    def lose(self, number: int) -> None:
        """Frames of a session are missing; without its next snapshot it cannot be continued."""
        self.states.pop(number, None)
        self._trees.pop(number, None)

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
    found = Found(read_settled(orphan.folder), (orphan.boot.hex(), orphan.worker))
    heads: dict[bytes, str] = {}
    files = orphan.files()
    for path, following in zip_longest(files, files[1:]):
        try:
            holds = _read_file(path, key, found, heads)
        except FormatError as exc:
            found.damage.append(f"{path.name}: {exc.message}")
            continue
        if not holds and following is not None and lane_of(following) == lane_of(path):
            found.damage.append(f"{path.name}: It holds no record from byte 0 on.")
    if files and not orphan.counted:
        found.damage.append("counter: It does not hold what was written to it.")
    if orphan.recovered:
        _check_recovery(orphan.folder / RECOVERY, key, found)
        found.states.clear()
    return found


def _check_recovery(path: Path, key: bytes, found: Found) -> None:
    """Recovery epochs are put down all at once: a session without one was there before."""
    ended = {cut.number for cut in _cuts(path, key) if cut.flags & CLOSES}
    for number, state in found.states.items():
        if state.size and number not in ended:
            text = f"{path.name}: The end of session number {number} is missing, here or before."
            found.damage.append(text)


def _read_file(path: Path, key: bytes, found: Found, heads: dict[bytes, str]) -> bool:
    """Read a file; say whether it holds anything."""
    with StoredFile(path, key) as file:
        head = file.read(0, FILE_HEADER)
        if head in heads:
            raise FormatError(f"It is a copy of {heads[head]}.")
        found.file(path)
        for stored in file.records():
            heads[head] = path.name
            try:
                _read_record(path, stored, found)
            except FormatError as exc:
                raise FormatError(f"Damaged at byte {stored.start}: {exc.message}") from exc
    return head in heads


def _read_record(path: Path, stored: Stored, found: Found) -> None:
    if stored.kind == SESSION:
        state = parse_session(stored.body)
        missing = found.session(state)
        if missing and not keeps(lane_of(path)):
            text = f"{path.name}: {missing} frames of session number {state.number} are missing"
            found.damage.append(f"{text} behind {found.behind(path)}, before byte {stored.start}.")
    elif stored.kind == SLICES:
        for entry in parse_slices(stored.body):
            found.pieces(entry)
    elif stored.kind == FRAMES:
        _read_frames(path, stored, found)


def _read_frames(path: Path, stored: Stored, found: Found) -> None:
    lane = lane_of(path)
    first, acked, cuts = parse_frames(stored.body)
    if any(map(found.is_strange, cuts)):
        raise FormatError("It is of another worker, or of another boot.")
    if path.name != RECOVERY:
        missing = found.follow(path, first, sum(len(cut.messages) for cut in cuts))
        if missing and not keeps(lane):  # files of those lanes do not go in their order
            found.damage.append(f"{path.name}: {missing}, before byte {stored.start}.")
    found.acked[lane] = max(found.acked.get(lane, 0), acked)
    for cut in cuts:
        try:
            found.cut(cut)
        except FormatError as exc:
            found.lose(cut.number)
            text = f"{path.name}: Session number {cut.number}, behind {found.behind(path)}"
            found.damage.append(f"{text}, before byte {stored.start}: {exc.message}")


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
