"""The body of a DATA frame: slices of the four legs, in the order they were recorded.

Capture writes `slice_head` and the data side by side into one list and joins it once per frame
(`encode_data`). `leg_stream` rebuilds what crossed a leg, the implied legs too. Rules:
docs/spec/data-and-facts.md.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sealtape.schemas.errors import FormatError
from sealtape.schemas.frames import MAX_BODY
from sealtape.schemas.wire import (
    PREFIX_SIZE,
    encode_long,
    end,
    prefix,
    read_array,
    read_bytes,
    read_within,
)

__all__ = [
    "CLIENT_IN",
    "CLIENT_OUT",
    "LEGS",
    "LEG_NAMES",
    "MAX_REPLACES",
    "TARGET_IN",
    "TARGET_OUT",
    "Hole",
    "Slice",
    "advance",
    "decode_data",
    "encode_data",
    "encode_slice",
    "leg_stream",
    "slice_head",
]

CLIENT_IN, TARGET_OUT, TARGET_IN, CLIENT_OUT = LEGS = range(4)
LEG_NAMES = ("client_in", "target_out", "target_in", "client_out")
MAX_REPLACES = 256 << 10
"""How many bytes of the in leg one out slice can stand for; a larger change is several slices."""

_MAX_LONG = (1 << 63) - 1
_MAX_SLICES = MAX_BODY // 5
_PAIR = {TARGET_OUT: CLIENT_IN, CLIENT_OUT: TARGET_IN}
_DATA = prefix("data.v1")
_LEG_BYTES = tuple(encode_long(leg) for leg in LEGS)


@dataclass(frozen=True, slots=True)
class Slice:
    """Bytes of one leg. `ts_ns` is absolute; `offset` is where `data` begins in the leg's stream.

    `replaces` is 0 on the in legs; on an out leg it says how many bytes of the paired in leg,
    ending at the last one recorded, `data` was sent instead of (0: inserted).
    """

    leg: int
    ts_ns: int
    offset: int
    data: bytes
    replaces: int = 0


@dataclass(frozen=True, slots=True)
class Hole:
    """A stretch of a leg that a GAP frame says was not recorded; a length of -1 is unknown."""

    leg: int
    offset: int
    length: int


# -- encoding --------------------------------------------------------------------------------------


def slice_head(leg: int, at_ns: int, offset: int, length: int, replaces: int = 0) -> bytes:
    """Encode a slice up to its data; `at_ns` counts from the frame's ts_ns and is not negative."""
    return b"".join(
        (
            _LEG_BYTES[leg],
            encode_long(at_ns),
            encode_long(offset),
            encode_long(replaces) if replaces else b"\x00",
            encode_long(length),
        )
    )


def encode_slice(leg: int, at_ns: int, offset: int, data: bytes, replaces: int = 0) -> bytes:
    """Encode a slice, data included."""
    return slice_head(leg, at_ns, offset, len(data), replaces) + data


def encode_data(pieces: Sequence[bytes], count: int) -> bytes:
    """Encode the body of a DATA frame of `count` slices (one or more), given their bytes."""
    return b"".join((_DATA, encode_long(count), *pieces, b"\x00"))


# -- decoding --------------------------------------------------------------------------------------


def decode_data(body: bytes, ts_ns: int) -> list[Slice]:
    """Decode the body of a DATA frame whose time is `ts_ns`. Raises FormatError."""
    if not body.startswith(_DATA) or len(body) > MAX_BODY:
        raise FormatError("This is not the body of a DATA frame.", size=len(body))

    def item(data: bytes, position: int) -> tuple[Slice, int]:
        leg, position = read_within(data, position, CLIENT_IN, CLIENT_OUT)
        at_ns, position = read_within(data, position, 0, _MAX_LONG)
        offset, position = read_within(data, position, 0, _MAX_LONG)
        replaces, position = read_within(data, position, 0, MAX_REPLACES if leg in _PAIR else 0)
        chunk, position = read_bytes(data, position, MAX_BODY)
        return Slice(leg, ts_ns + at_ns, offset, chunk, replaces), position

    slices, position = read_array(body, PREFIX_SIZE, _MAX_SLICES, item)
    end(body, position)
    if not slices:
        raise FormatError("A DATA frame holds no slice.")
    return slices


# -- legs ------------------------------------------------------------------------------------------


def advance(totals: list[int], leg: int, length: int, replaces: int = 0) -> int:
    """Count a slice into the running totals of the legs; return the slice's offset.

    What is read on an in leg counts for the paired out leg too, which it implies; an out slice
    takes the place of `replaces` bytes of that.
    """
    if leg in _PAIR:
        offset = totals[leg] - replaces
        totals[leg] = offset + length
        return offset
    offset = totals[leg]
    totals[leg] = offset + length
    totals[leg + 1] += length
    return offset


def leg_stream(slices: Iterable[Slice | Hole], leg: int) -> Iterator[bytes]:
    """Yield the bytes that crossed `leg`, from slices of all legs in recorded order.

    An out leg is the paired in leg with the explicit out slices put in place. The first slice or
    hole of a leg says where its stream starts; after that every offset must follow on, else
    FormatError. A hole yields nothing and moves the offset on.
    """
    if leg in _PAIR:
        return _out_stream(slices, leg)
    return _in_stream(slices, leg)


class _Position:
    """The running offset of a leg, -1 while unknown; refuses a piece that does not start there."""

    __slots__ = ("at", "leg")

    def __init__(self, leg: int) -> None:
        self.leg = leg
        self.at = -1

    def skip(self, length: int) -> None:
        if self.at >= 0:
            self.at += length

    def take(self, piece: Slice | Hole) -> None:
        if piece.offset != self.at >= 0:
            raise FormatError(
                f"Leg {LEG_NAMES[self.leg]} goes on at byte {self.at}, not at {piece.offset}.",
                leg=self.leg,
                offset=piece.offset,
            )
        length = piece.length if isinstance(piece, Hole) else len(piece.data)
        self.at = piece.offset + length if length >= 0 else -1


def _in_stream(slices: Iterable[Slice | Hole], leg: int) -> Iterator[bytes]:
    position = _Position(leg)
    for piece in slices:
        if piece.leg == leg:
            position.take(piece)
            if isinstance(piece, Slice):
                yield piece.data


def _out_stream(slices: Iterable[Slice | Hole], leg: int) -> Iterator[bytes]:
    pair = _PAIR[leg]
    incoming, outgoing, held = _Position(pair), _Position(leg), _Held()
    for piece in slices:
        if piece.leg not in (pair, leg):
            continue
        if piece.leg == pair and isinstance(piece, Slice):
            incoming.take(piece)
            passed = held.add(piece.data)
        else:
            passed = held.flush(0 if isinstance(piece, Hole) else piece.replaces)
        for chunk in passed:
            outgoing.skip(len(chunk))
            yield chunk
        if piece.leg == leg:
            outgoing.take(piece)
            if isinstance(piece, Slice):
                yield piece.data
        elif isinstance(piece, Hole):
            incoming.take(piece)
    yield from held.flush(0)


class _Held:
    """The last bytes of an in leg, which an out slice may still replace."""

    __slots__ = ("chunks", "size")

    def __init__(self) -> None:
        self.chunks: deque[bytes] = deque()
        self.size = 0

    def add(self, data: bytes) -> list[bytes]:
        """Hold `data`; return what is now too far back to be replaced."""
        self.chunks.append(data)
        self.size += len(data)
        passed = []
        while self.size - len(self.chunks[0]) >= MAX_REPLACES:
            passed.append(self.chunks.popleft())
            self.size -= len(passed[-1])
        return passed

    def flush(self, replaced: int) -> list[bytes]:
        """Return what is held but for its last `replaced` bytes, and hold nothing."""
        keep = self.size - replaced
        if keep < 0:
            raise FormatError(f"An out slice replaces {replaced} bytes; {self.size} are there.")
        passed = b"".join(self.chunks)[:keep]
        self.chunks.clear()
        self.size = 0
        return [passed] if passed else []
