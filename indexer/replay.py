"""Replay: what a recorded session did, out of its recorded bytes.

The decoder is the capture codec, fed with the slices of the DATA frames in the order they were
recorded. Frames are read, opened and let go one by one, so a session of any length needs the memory
of one segment. Rendering is in `indexer.rendering`.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sealtape.capture.postgres.codec import snapshot
from sealtape.capture.postgres.codec.rows import MAX_ROWS, Replay, Step
from sealtape.capture.postgres.codec.startup import SAFE_PARAMETERS
from sealtape.indexer.reading import BEGIN, Keys, Place, Recording
from sealtape.schemas.bodies import Gap, Ident, StateBody
from sealtape.schemas.errors import KeyUnavailable, NotFound, UsageError
from sealtape.schemas.facts import COMMAND, decode_facts
from sealtape.schemas.frames import Frame, Kind
from sealtape.schemas.slices import CLIENT_IN, TARGET_IN, Hole, Slice, decode_data, leg_stream

__all__ = ["Note", "Statement", "identity", "raw", "statements"]

CHUNK_BYTES = 1 << 20
_MARKS = 4096


@dataclass(frozen=True, slots=True)
class Statement:
    """One command as it went, and the DATA frame its first byte is in."""

    epoch: int
    seq: int
    step: Step


@dataclass(frozen=True, slots=True)
class Note:
    """Something about the recording that a viewer must know, at this frame."""

    epoch: int
    seq: int
    text: str


async def identity(recording: Recording, keys: Keys) -> Ident | None:
    """Who the session is; None where the key for that is gone or not ours."""
    async for frame in recording.frames():
        if frame.kind == Kind.IDENT:
            try:
                return Ident.from_json(await keys.open(frame))
            except KeyUnavailable:
                return None
        if frame.seq > 1:
            break
    return None


async def statements(
    recording: Recording, keys: Keys, *, at: Place | None = None, max_rows: int = MAX_ROWS
) -> AsyncIterator[Statement | Note]:
    """The statements of a session in the order they ended; those still running come last.

    `at` names a frame, such as that of a search hit: decoding starts at the nearest STATE before
    it, and the statements of that frame and after are given. At most `max_rows` rows of a result.
    Raises NotFound (no such session or frame), KeyUnavailable, FormatError (damaged), and
    UsageError for a session of another protocol.
    """
    ident = await identity(recording, keys)
    if ident is not None and ident.protocol != "postgres":
        raise UsageError(
            f"Session {recording.session.hex()} is of protocol {ident.protocol!r}.",
            hint="Only sessions of databases can be replayed; search finds what is in a journal.",
        )
    begin, state, window = BEGIN, None, _Window()
    if at is not None:
        window = await _window(recording, keys, at)
        begin, state = await _state_before(recording, keys, at, window)
    if ident is not None and at is None and (told := _meant(ident.parameters)):
        yield Note(0, 1, f"the client connected with {', '.join(told)}")
    decoder = _Decoder(keys, state, max_rows=max_rows)
    async for frame in recording.frames(begin):
        for shown in await decoder.take(frame):
            if isinstance(shown, Note) or window.shows(shown):
                yield shown
    for shown in decoder.finish():
        if window.shows(shown):
            yield shown


def _meant(parameters: Sequence[str]) -> list[str]:
    """Those settings that can change what a statement means."""
    return [each for each in parameters if each.partition("=")[0].lower() not in SAFE_PARAMETERS]


async def raw(recording: Recording, keys: Keys, leg: int) -> AsyncIterator[bytes]:
    """Exactly the bytes that crossed a leg, in chunks: what was recorded, with what was changed.

    Raises as `statements` does. Where the node could not record (a GAP) bytes are missing; `verify`
    reports that.
    """
    loop = asyncio.get_running_loop()
    source = _pieces(recording, keys)

    def pull() -> Iterator[Slice | Hole]:
        # `leg_stream` is pure and asks for the next piece when it wants one, so it runs in a thread
        # that waits for this loop; neither side ever holds more than a frame and a chunk.
        while batch := asyncio.run_coroutine_threadsafe(_next(source), loop).result():
            yield from batch

    stream = leg_stream(pull(), leg)
    with ThreadPoolExecutor(1, thread_name_prefix="leg") as thread:
        while chunk := await loop.run_in_executor(thread, _chunk, stream):
            yield chunk


# -- decoding --------------------------------------------------------------------------------------


class _Decoder:
    """The codec, fed with frames; starts again at a STATE after a hole in the recording."""

    def __init__(self, keys: Keys, state: StateBody | None, *, max_rows: int) -> None:
        self._keys = keys
        self._max_rows = max_rows
        self._parts: list[StateBody] = []
        self._marks: list[tuple[int, Place]] = []
        self._skip = (0, 0, 0, 0) if state is None else state.offsets
        self._codec: Replay | None = Replay(
            state=None if state is None else state.data, max_rows=max_rows
        )
        self._place: Place = BEGIN

    async def take(self, frame: Frame) -> list[Statement | Note]:
        """Feed a frame; return what it ended, or notes."""
        self._place = (frame.epoch, frame.seq)
        if frame.kind == Kind.GAP:
            return self._gap(Gap.from_json(frame.payload))
        if frame.kind == Kind.STATE and self._codec is None:
            self._resume(StateBody.from_json(await self._keys.open(frame)))
        elif frame.kind == Kind.DATA and self._codec is not None:
            return self._data(self._codec, await self._keys.open(frame), frame.ts_ns)
        return []

    def finish(self) -> list[Statement]:
        """The statements that have not ended."""
        return [] if self._codec is None else self._shown(self._codec.running())

    def _data(self, codec: Replay, body: bytes, ts_ns: int) -> list[Statement | Note]:
        steps: list[Step] = []
        for piece in decode_data(body, ts_ns):
            if piece.leg not in (CLIENT_IN, TARGET_IN):
                continue
            if piece.offset + len(piece.data) <= self._skip[piece.leg]:
                continue  # the decoder's state knows it already
            if piece.leg == CLIENT_IN:
                self._mark(codec, piece.offset)
            steps += codec.feed(piece)
        shown: list[Statement | Note] = [*self._shown(steps)]
        if codec.lost:
            self._codec = None
            shown.append(self._note("From here on the bytes are not PostgreSQL's protocol."))
        return shown

    def _gap(self, gap: Gap) -> list[Statement | Note]:
        if self._codec is None or not any(
            hole.leg in (CLIENT_IN, TARGET_IN) and hole.length for hole in gap.legs
        ):
            return []
        shown: list[Statement | Note] = [*self.finish()]
        self._codec = None
        shown.append(self._note(f"Bytes are missing here ({gap.reason}): they were not recorded."))
        return shown

    def _resume(self, part: StateBody) -> None:
        if part.part == 0:
            self._parts = []
        self._parts.append(part)
        if _whole(self._parts):
            self._skip = part.offsets
            self._marks = []
            self._codec = Replay(state=_joined(self._parts), max_rows=self._max_rows)

    def _mark(self, codec: Replay, offset: int) -> None:
        """Remember which frame this part of client_in is in, for statements that may still end."""
        self._marks.append((offset, self._place))
        if len(self._marks) >= _MARKS:
            oldest = min((step.offset for step in codec.running()), default=offset)
            keep = max(0, bisect_right(self._marks, oldest, key=lambda mark: mark[0]) - 1)
            # A statement may have begun without its end being here, so some are always kept.
            del self._marks[: min(keep, len(self._marks) - _MARKS // 2)]

    def _shown(self, steps: list[Step]) -> list[Statement]:
        return [Statement(*self._place_of(step.offset), step) for step in steps]

    def _place_of(self, offset: int) -> Place:
        at = bisect_right(self._marks, offset, key=lambda mark: mark[0]) - 1
        return self._marks[at][1] if at >= 0 else self._place

    def _note(self, text: str) -> Note:
        return Note(*self._place, text)


def _whole(parts: list[StateBody]) -> bool:
    """Whether these are all parts of one STATE of our codec, in order."""
    return (
        [part.part for part in parts] == list(range(parts[0].parts))
        and parts[0].codec == snapshot.CODEC
        and len({part.offsets for part in parts}) == 1
    )


def _joined(parts: list[StateBody]) -> bytes:
    return b"".join(part.data for part in parts)


# -- where to begin --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Window:
    """What is shown: statements that begin at `offset` of client_in, or end at `ts_ns` or later."""

    offset: int = -1
    ts_ns: int = -1

    def shows(self, statement: Statement) -> bool:
        step = statement.step
        if self.offset >= 0:
            return step.offset >= self.offset
        return step.duration_ns < 0 or step.ts_ns + step.duration_ns >= self.ts_ns


async def _window(recording: Recording, keys: Keys, at: Place) -> _Window:
    """The first statement of a frame: by the facts or bytes in it, else by its time."""
    async for frame in recording.frames(at):
        if (frame.epoch, frame.seq) != at:
            break
        try:
            if frame.kind == Kind.FACTS:
                facts = decode_facts(await keys.open(frame), frame.ts_ns).facts
                offsets = [fact.offset for fact in facts if fact.kind == COMMAND]
            elif frame.kind == Kind.DATA:
                pieces = decode_data(await keys.open(frame), frame.ts_ns)
                offsets = [piece.offset for piece in pieces if piece.leg == CLIENT_IN]
            else:
                offsets = []
        except KeyUnavailable:
            offsets = []
        return _Window(offset=min(offsets)) if offsets else _Window(ts_ns=frame.ts_ns)
    raise NotFound(
        f"Session {recording.session.hex()} has no frame {at[1]} in epoch {at[0]}.",
        hint="`sealtape show` lists the frames of its statements.",
    )


async def _state_before(
    recording: Recording, keys: Keys, at: Place, window: _Window
) -> tuple[Place, StateBody | None]:
    """The nearest place at or before a frame where a decoder can start."""
    parts: list[StateBody] = []
    async for frame in recording.latest(Kind.STATE, at):
        part = StateBody.from_json(await keys.open(frame))
        parts = [part, *(parts if part.part + 1 < part.parts else [])]
        if part.part == 0 and _whole(parts):
            if window.offset < 0 or part.offsets[CLIENT_IN] <= window.offset:
                state = StateBody(part.codec, part.offsets, _joined(parts))
                return (frame.epoch, frame.seq + 1), state
            parts = []
    return BEGIN, None


# -- legs ------------------------------------------------------------------------------------------


async def _pieces(recording: Recording, keys: Keys) -> AsyncIterator[list[Slice | Hole]]:
    async for frame in recording.frames():
        if frame.kind == Kind.DATA:
            yield [*decode_data(await keys.open(frame), frame.ts_ns)]
        elif frame.kind == Kind.GAP:
            legs = Gap.from_json(frame.payload).legs
            if legs:
                yield [*legs]


async def _next(source: AsyncIterator[list[Slice | Hole]]) -> list[Slice | Hole]:
    return await anext(source, [])


def _chunk(stream: Iterator[bytes]) -> bytes:
    """The next part of the stream, of about CHUNK_BYTES; empty at its end."""
    parts, size = [], 0
    for part in stream:
        parts.append(part)
        size += len(part)
        if size >= CHUNK_BYTES:
            break
    return b"".join(parts)
