"""The body of a FACTS frame: what the recorded bytes meant.

A fact is written as `head + text + statement + tail`. The middle two depend on the statement alone,
so capture encodes them once per statement (`encode_text`, `encode_statement`) and joins them in.
Fields, limits and the meaning of each kind: docs/spec/data-and-facts.md.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeAlias

from sealtape.schemas.errors import FormatError
from sealtape.schemas.frames import MAX_BODY, MAX_EPOCH
from sealtape.schemas.wire import (
    PREFIX_SIZE,
    clip,
    encode_array,
    encode_bytes,
    encode_long,
    encode_map,
    encode_string,
    end,
    prefix,
    read_array,
    read_bytes,
    read_fixed,
    read_long,
    read_map,
    read_string,
    read_within,
)

__all__ = [
    "ACCESS",
    "COMMAND",
    "DECISION",
    "HEARTBEAT",
    "KIND_NAMES",
    "MASK",
    "NODE",
    "NO_LEG",
    "NO_STATEMENT",
    "NO_TAIL",
    "NO_TEXT",
    "REFUSAL",
    "RESULT",
    "Fact",
    "FactsBody",
    "Head",
    "Live",
    "decode_facts",
    "decode_parts",
    "encode_fact",
    "encode_facts",
    "encode_head",
    "encode_statement",
    "encode_tail",
    "encode_text",
    "text_digest",
    "text_salt",
]

COMMAND, RESULT, DECISION, MASK, ACCESS, REFUSAL, HEARTBEAT, NODE = range(1, 9)
KIND_NAMES = {
    COMMAND: "COMMAND",
    RESULT: "RESULT",
    DECISION: "DECISION",
    MASK: "MASK",
    ACCESS: "ACCESS",
    REFUSAL: "REFUSAL",
    HEARTBEAT: "HEARTBEAT",
    NODE: "NODE",
}
NO_LEG = -1

MAX_TEXT = 4 << 10
MAX_FINGERPRINT = 128
MAX_EFFECT = 32
MAX_OBJECTS = 64
MAX_OBJECT = 256
MAX_PARAMETERS = 64
MAX_PARAMETER = 1 << 10
MAX_STATUS = 128
MAX_CODE = 64
MAX_MESSAGE = 1 << 10
MAX_ATTRIBUTES = 32
MAX_ATTRIBUTE = 64
MAX_VALUE = 512
MAX_LIVE = 256

_MAX_INT = (1 << 31) - 1
_MAX_LONG = (1 << 63) - 1
_MAX_FACTS = MAX_BODY // 20
_LEGS = 4
_LONG_SHIFT = 63
_DIGEST = 32
_FACTS = prefix("facts.v1")
_FOUR = encode_long(_LEGS)


@dataclass(frozen=True, slots=True)
class Live:
    """A live session in a HEARTBEAT: its number on node, boot and worker, and its tree so far."""

    session: bytes
    epoch: int
    number: int
    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact, decoded. `ts_ns` is absolute; `n` numbers the facts of a session from 0."""

    n: int
    kind: int
    ts_ns: int
    leg: int = NO_LEG
    offset: int = 0
    length: int = 0
    ref: int = -1
    text: str = ""
    text_length: int = 0
    text_sha256: bytes = b""
    normalized: str = ""
    fingerprint: str = ""
    effect: str = ""
    objects: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    status: str = ""
    rows: int = -1
    bytes_out: int = 0
    duration_ns: int = 0
    code: str = ""
    message: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    live: tuple[Live, ...] = ()


@dataclass(frozen=True, slots=True)
class FactsBody:
    """A FACTS body: running byte totals of the four legs when it was cut, and the facts."""

    totals: tuple[int, int, int, int]
    facts: tuple[Fact, ...]


# -- the salted digest of a statement --------------------------------------------------------------


def text_salt(data_key: bytes | None, session: bytes, epoch: int) -> bytes:
    """Return the salt of an epoch's `text_sha256`; `data_key` is K_data, None if unencrypted.

    It hangs on the *data* key: who holds the facts key alone cannot try guesses against a digest.
    """
    name = b"sealtape/1 text" + session + epoch.to_bytes(4, "big")
    if data_key is None:
        return hashlib.sha256(name).digest()
    return hmac.digest(data_key, name, "sha256")


def text_digest(salt: bytes, text: bytes) -> bytes:
    """Return `text_sha256` of a whole statement, as the bytes the client sent."""
    return hashlib.sha256(salt + text).digest()


# -- encoding --------------------------------------------------------------------------------------


def encode_head(
    n: int,
    kind: int,
    at_ns: int,
    leg: int = NO_LEG,
    offset: int = 0,
    length: int = 0,
    ref: int = -1,
) -> bytes:
    """Encode a fact up to `ref`; `at_ns` counts from the frame's ts_ns and is not negative."""
    return b"".join(
        (
            encode_long(n),
            encode_long(kind),
            encode_long(at_ns),
            encode_long(leg),
            encode_long(offset),
            encode_long(length),
            encode_long(ref),
        )
    )


def encode_text(text: str, length: int, sha256: bytes) -> bytes:
    """Encode the text fields: a prefix (`""` unless opted in), length and digest of the whole."""
    if len(sha256) not in (0, _DIGEST):
        raise FormatError("text_sha256 has 32 bytes or none.")
    return encode_string(clip(text, MAX_TEXT)) + encode_long(length) + encode_bytes(sha256)


def encode_statement(
    normalized: str = "", fingerprint: str = "", effect: str = "", objects: Sequence[str] = ()
) -> bytes:
    """Encode what is the same for every run of a statement. What is too long is cut."""
    return b"".join(
        (
            encode_string(clip(normalized, MAX_TEXT)),
            encode_string(clip(fingerprint, MAX_FINGERPRINT)),
            encode_string(clip(effect, MAX_EFFECT)),
            _encode_strings(objects, MAX_OBJECTS, MAX_OBJECT),
        )
    )


def encode_tail(
    *,
    parameters: Sequence[str] = (),
    status: str = "",
    rows: int = -1,
    bytes_out: int = 0,
    duration_ns: int = 0,
    code: str = "",
    message: str = "",
    attributes: Mapping[str, str] | None = None,
    live: Sequence[Live] = (),
) -> bytes:
    """Encode a fact from `parameters` on. What is too long is cut; too many attributes refused."""
    return b"".join(
        (
            _encode_strings(parameters, MAX_PARAMETERS, MAX_PARAMETER) if parameters else b"\x00",
            encode_string(clip(status, MAX_STATUS)),
            encode_long(rows),
            encode_long(bytes_out),
            encode_long(duration_ns),
            encode_string(clip(code, MAX_CODE)) if code else b"\x00",
            encode_string(clip(message, MAX_MESSAGE)) if message else b"\x00",
            _encode_attributes(attributes) if attributes else b"\x00",
            _encode_live(live) if live else b"\x00",
        )
    )


def _encode_strings(values: Sequence[str], count: int, limit: int) -> bytes:
    return encode_array([encode_string(clip(value, limit)) for value in values[:count]])


def _encode_attributes(values: Mapping[str, str]) -> bytes:
    if len(values) > MAX_ATTRIBUTES or any(len(key.encode()) > MAX_ATTRIBUTE for key in values):
        raise FormatError(f"A fact has at most {MAX_ATTRIBUTES} attributes with short names.")
    return encode_map({key: clip(value, MAX_VALUE) for key, value in values.items()})


def _encode_live(sessions: Sequence[Live]) -> bytes:
    if len(sessions) > MAX_LIVE:
        raise FormatError(f"A fact lists at most {MAX_LIVE} sessions; split the heartbeat.")
    return encode_array(
        [
            live.session
            + encode_long(live.epoch)
            + encode_long(live.number)
            + encode_long(live.size)
            + live.root
            for live in sessions
        ]
    )


NO_TEXT = encode_text("", 0, b"")
NO_STATEMENT = encode_statement()
NO_TAIL = encode_tail()
_BLANK = NO_TEXT + NO_STATEMENT


def encode_fact(
    head: bytes, text: bytes = NO_TEXT, statement: bytes = NO_STATEMENT, tail: bytes = NO_TAIL
) -> bytes:
    """Put a fact together from its four parts."""
    return b"".join((head, text, statement, tail))


def encode_facts(totals: Sequence[int], facts: Sequence[bytes]) -> bytes:
    """Encode the body of a FACTS frame: the running totals of the legs and one or more facts."""
    return b"".join(
        (
            _FACTS,
            _FOUR,
            *map(encode_long, totals),
            b"\x00",
            encode_long(len(facts)),
            *facts,
            b"\x00",
        )
    )


# -- decoding --------------------------------------------------------------------------------------


_Statement: TypeAlias = tuple[str, int, bytes, str, str, str, tuple[str, ...]]
Head: TypeAlias = tuple[int, int, int, int, int, int, int]
"""n, kind, ts_ns (absolute), leg, offset, length and ref of a fact."""
_Same: TypeAlias = tuple[str, str, str, tuple[str, ...]]
_Tail: TypeAlias = tuple[
    tuple[str, ...], str, int, int, int, str, str, dict[str, str], tuple[Live, ...]
]


_NO_MORE = b"\x00\x00\x00\x00"  # no code, message, attributes and live sessions
_NOTHING: tuple[bytes, _Same] = (b"", ("", "", "", ()))

# The statements read last, by their normalized text: the bytes that were read, and what they mean.
# A program runs few statements many times. What is found here was read in full once.
_known: dict[bytes, tuple[bytes, _Same]] = {}
_MAX_KNOWN = 4096
_MAX_KNOWN_SIZE = 2048


def decode_facts(body: bytes, ts_ns: int) -> FactsBody:
    """Decode the body of a FACTS frame whose time is `ts_ns`. Raises FormatError."""
    if not body.startswith(_FACTS) or len(body) > MAX_BODY:
        raise FormatError("This is not the body of a FACTS frame.", size=len(body))
    totals, position = read_array(body, PREFIX_SIZE, _LEGS, _read_count)
    if len(totals) != _LEGS:
        raise FormatError("A FACTS frame has four totals.")

    def item(data: bytes, position: int) -> tuple[Fact, int]:
        return _read_fact(data, position, ts_ns)

    facts, position = read_array(body, position, _MAX_FACTS, item)
    end(body, position)
    if not facts:
        raise FormatError("A FACTS frame holds no fact.")
    if any(after.n != before.n + 1 for before, after in pairwise(facts)):
        raise FormatError("The facts of a frame are not numbered one by one.")
    return FactsBody((totals[0], totals[1], totals[2], totals[3]), tuple(facts))


def decode_parts(head: Head, text: bytes, statement: bytes, tail: bytes) -> Fact:
    """Decode a fact whose head was never encoded. Raises FormatError."""
    middle = text + statement
    same, position = _read_statement(middle, 0)
    end(middle, position)
    last, position = _read_tail(tail, 0)
    end(tail, position)
    return Fact(*(head + same + last))


def _read_count(data: bytes, position: int) -> tuple[int, int]:
    return read_within(data, position, 0, _MAX_LONG)


def _read_fact(data: bytes, position: int, ts_ns: int) -> tuple[Fact, int]:
    (n, kind, at_ns, leg, offset, length, ref), position = _read_longs(data, position, 7)
    if (
        min(n, at_ns, offset, length) < 0
        or not 0 <= kind <= _MAX_INT
        or not NO_LEG <= leg < _LEGS
        or not -1 <= ref <= n
    ):
        raise FormatError("A number at the head of a fact is out of its range.", position=position)
    statement, position = _read_statement(data, position)
    tail, position = _read_tail(data, position)
    return Fact(n, kind, ts_ns + at_ns, leg, offset, length, ref, *(statement + tail)), position


def _read_longs(data: bytes, position: int, count: int) -> tuple[list[int], int]:
    """Read longs in a row, without a call each."""
    values: list[int] = []
    try:
        for _ in range(count):
            z = data[position]
            start = position
            position += 1
            if z > 0x7F:
                z &= 0x7F
                byte, shift = 0x80, 7
                while byte > 0x7F and shift < _LONG_SHIFT:
                    byte = data[position]
                    z |= (byte & 0x7F) << shift
                    shift += 7
                    position += 1
                if byte == 0 or byte > 0x7F:  # overlong, or of ten bytes: looked at closely
                    value, position = read_long(data, start)
                    values.append(value)
                    continue
            values.append((z >> 1) ^ -(z & 1))
    except IndexError:
        raise FormatError("The data ends inside a number.", position=position) from None
    return values, position


def _read_statement(data: bytes, position: int) -> tuple[_Statement, int]:
    if data.startswith(_BLANK, position):
        return ("", 0, b"", "", "", "", ()), position + len(_BLANK)
    text, position = read_string(data, position, MAX_TEXT)
    text_length, position = read_within(data, position, 0, _MAX_LONG)
    text_sha256, position = read_bytes(data, position, _DIGEST)
    if len(text_sha256) not in (0, _DIGEST):
        raise FormatError("text_sha256 has 32 bytes or none.", position=position)
    same, position = _read_same(data, position)
    return (text, text_length, text_sha256, *same), position


def _read_same(data: bytes, position: int) -> tuple[_Same, int]:
    """Read what is the same for every run of a statement; what was just read is looked up."""
    size, start = read_within(data, position, 0, MAX_TEXT)
    key = data[start : start + size]
    coded, same = _known.get(key, _NOTHING)
    if coded and data.startswith(coded, position):
        return same, position + len(coded)
    normalized, stop = read_string(data, position, MAX_TEXT)
    fingerprint, stop = read_string(data, stop, MAX_FINGERPRINT)
    effect, stop = read_string(data, stop, MAX_EFFECT)
    objects, stop = read_array(data, stop, MAX_OBJECTS, _read_object)
    same = (normalized, fingerprint, effect, tuple(objects))
    if stop - position <= _MAX_KNOWN_SIZE:
        if len(_known) >= _MAX_KNOWN:
            _known.clear()
        _known[key] = (data[position:stop], same)
    return same, stop


def _read_tail(data: bytes, position: int) -> tuple[_Tail, int]:
    if data.startswith(NO_TAIL, position):
        return ((), "", -1, 0, 0, "", "", {}, ()), position + len(NO_TAIL)
    parameters, position = read_array(data, position, MAX_PARAMETERS, _read_parameter)
    status, position = read_string(data, position, MAX_STATUS)
    (rows, bytes_out, duration_ns), position = _read_longs(data, position, 3)
    if rows < -1 or bytes_out < 0 or duration_ns < 0:
        raise FormatError("A count of a fact is out of its range.", position=position)
    if data.startswith(_NO_MORE, position):
        return (
            (tuple(parameters), status, rows, bytes_out, duration_ns, "", "", {}, ()),
            position + len(_NO_MORE),
        )
    code, position = read_string(data, position, MAX_CODE)
    message, position = read_string(data, position, MAX_MESSAGE)
    attributes, position = read_map(data, position, MAX_ATTRIBUTES, MAX_ATTRIBUTE, MAX_VALUE)
    live, position = read_array(data, position, MAX_LIVE, _read_live)
    return (
        tuple(parameters),
        status,
        rows,
        bytes_out,
        duration_ns,
        code,
        message,
        attributes,
        tuple(live),
    ), position


def _read_object(data: bytes, position: int) -> tuple[str, int]:
    return read_string(data, position, MAX_OBJECT)


def _read_parameter(data: bytes, position: int) -> tuple[str, int]:
    return read_string(data, position, MAX_PARAMETER)


def _read_live(data: bytes, position: int) -> tuple[Live, int]:
    session, position = read_fixed(data, position, 16)
    epoch, position = read_within(data, position, 0, MAX_EPOCH)
    number, position = read_within(data, position, 0, _MAX_LONG)
    size, position = read_within(data, position, 0, _MAX_LONG)
    root, position = read_fixed(data, position, _DIGEST)
    return Live(session, epoch, number, size, root), position
