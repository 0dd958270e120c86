"""The bytes of spool files (`docs/spec/spool.md`). Pure.

A file is a header and records. What is personal is encrypted under a key of the file alone;
finished frames are stored as the bus gets them. A record that is not whole ends its file.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sealtape.schemas.errors import FormatError, KeyUnavailable

FILE_MAGIC = b"SEALSPL1"
RECORD_MAGIC = b"SSR1"
SALT_SIZE = 32
SPOOL_KEY_SIZE = 32

SESSION, SLICES, FRAMES = 1, 2, 3
ENCRYPTED = frozenset((SESSION, SLICES))

CLEARS = 1
"""Flag of a cut: the session's slices and facts spooled before it are in its frames."""
CLOSES = 2
"""Flag of a cut: its last frame is the session's CLOSE."""

_FILE = struct.Struct(">8s32s8sI")
_RECORD = struct.Struct(">4sIIQB")
_PIECES = struct.Struct(">QqIIII")
_CUT = struct.Struct(">QBI4QQQQ")
_LENGTH = struct.Struct(">I")
_ORDINALS = struct.Struct(">QQ")
FILE_HEADER = _FILE.size
RECORD_HEADER = _RECORD.size
RECORD_OVERHEAD = RECORD_HEADER + 16  # and the tag of one that is encrypted
_CRC_FROM = 12
SECTOR = 512


class FileKey:
    """The key of one spool file, from the node's spool key and the file's random salt."""

    __slots__ = ("_aead", "check", "salt")

    def __init__(self, spool_key: bytes, salt: bytes) -> None:
        """Derive; the check value tells a wrong spool key from a damaged file."""
        if len(spool_key) != SPOOL_KEY_SIZE:
            raise KeyUnavailable("The spool key must be 32 bytes.", hint="See keys.spool.")
        derived = HKDF(SHA256(), 40, salt, b"sealtape/1 spool file").derive(spool_key)
        self.salt = salt
        self.check = derived[32:]
        self._aead = AESGCM(derived[:32])

    def header(self) -> bytes:
        """Return the bytes a file under this key starts with."""
        head = _FILE.pack(FILE_MAGIC, self.salt, self.check, 0)[:-4]
        return head + zlib.crc32(head).to_bytes(4, "big")

    def seal(self, counter: int, kind: int, body: bytes) -> bytes:
        """Encrypt a record's body; no counter may be used twice in a file."""
        return self._aead.encrypt(counter.to_bytes(12, "big"), body, bytes((kind,)))

    def open(self, counter: int, kind: int, sealed: bytes) -> bytes:
        """Decrypt a record's body."""
        try:
            return self._aead.decrypt(counter.to_bytes(12, "big"), sealed, bytes((kind,)))
        except InvalidTag as exc:
            raise FormatError("A spool record does not decrypt under the file's key.") from exc


def parse_file_header(data: bytes, spool_key: bytes) -> FileKey:
    """Read a file header; `KeyUnavailable` when the file was written under another spool key."""
    if len(data) < FILE_HEADER:
        raise FormatError("A spool file is shorter than its header.")
    magic, salt, check, crc = _FILE.unpack_from(data)
    if magic != FILE_MAGIC or crc != zlib.crc32(data[: FILE_HEADER - 4]):
        raise FormatError("A spool file does not start with an intact header.")
    key = FileKey(spool_key, salt)
    if key.check != check:
        raise KeyUnavailable(
            "A spool file was written under another spool key.", hint="Restore keys.spool."
        )
    return key


def encode_record(counter: int, kind: int, pieces: Sequence[bytes]) -> list[bytes]:
    """Return the buffers of a record whose stored body is `pieces`."""
    length = RECORD_HEADER + sum(map(len, pieces))
    rest = _RECORD.pack(RECORD_MAGIC, length, 0, counter, kind)
    crc = zlib.crc32(rest[_CRC_FROM:])
    for piece in pieces:
        crc = zlib.crc32(piece, crc)
    return [_RECORD.pack(RECORD_MAGIC, length, crc, counter, kind), *pieces]


def holds_record(tail: bytes) -> bool:
    """Say whether a whole record stands anywhere in bytes that do not begin with one.

    A crash cuts the last write short and leaves none behind; if there is one, what stands before
    it was damaged later.
    """
    at = tail.find(RECORD_MAGIC)
    while at >= 0:
        read = partial(_slice, tail)
        if next(read_records(read, at), None) is not None:
            return True
        at = tail.find(RECORD_MAGIC, at + 1)
    return False


def is_cut_short(tail: bytes, at: int) -> bool:
    """Say whether these last bytes of a file, from `at` on, are what a crash left of a record.

    A killed process leaves its beginning, a host that lost power zeros for whole sectors of it.
    Anything else was a record, and was damaged later.
    """
    written = len(tail.rstrip(b"\0"))
    begun = tail[: written + -(at + written) % SECTOR]
    if not any(begun):
        return True
    if begun[:4] != RECORD_MAGIC[: len(begun)]:
        return False
    if len(begun) < RECORD_HEADER:
        return True
    _, length, crc, _, _ = _RECORD.unpack_from(begun)
    return int(length) > len(begun) and crc != zlib.crc32(begun[_CRC_FROM:])


@dataclass(frozen=True, slots=True)
class Stored:
    """A whole record as it stands in a file at `start`; the body may be encrypted."""

    start: int
    length: int
    counter: int
    kind: int
    body: bytes


def read_records(read: Callable[[int, int], bytes], start: int = FILE_HEADER) -> Iterator[Stored]:
    """Yield the whole records from `start` on; `read(at, length)` returns at most that much."""
    while True:
        head = read(start, RECORD_HEADER)
        if len(head) < RECORD_HEADER:
            return
        magic, length, crc, counter, kind = _RECORD.unpack(head)
        if magic != RECORD_MAGIC or length < RECORD_HEADER:
            return
        body = read(start + RECORD_HEADER, length - RECORD_HEADER)
        if len(body) < length - RECORD_HEADER:
            return
        if zlib.crc32(body, zlib.crc32(head[_CRC_FROM:])) != crc:
            return
        yield Stored(start, length, counter, kind, body)
        start += length


# -- SLICES ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pieces:
    """Encoded slices and facts of one session, all relative to the time `base_ns`."""

    number: int
    base_ns: int
    slice_count: int
    slices: bytes
    fact_count: int
    facts: bytes


def encode_pieces(number: int, base_ns: int, slices: Sequence[bytes], facts: list[bytes]) -> bytes:
    """Return the entry of one session in a SLICES record; one item per slice and per fact."""
    data, meant = b"".join(slices), b"".join(facts)
    head = _PIECES.pack(number, base_ns, len(slices), len(data), len(facts), len(meant))
    return head + data + meant


def parse_slices(body: bytes) -> list[Pieces]:
    """Read the body of a SLICES record."""
    entries: list[Pieces] = []
    at = 0
    while at < len(body):
        entry, at = _parse_pieces(body, at)
        entries.append(entry)
    return entries


def _parse_pieces(body: bytes, at: int) -> tuple[Pieces, int]:
    head = _take(body, at, _PIECES.size)
    number, base_ns, slice_count, data_size, fact_count, fact_size = _PIECES.unpack(head)
    at += _PIECES.size
    data = _take(body, at, data_size)
    facts = _take(body, at + data_size, fact_size)
    return Pieces(number, base_ns, slice_count, data, fact_count, facts), at + data_size + fact_size


# -- FRAMES ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Cut:
    """Finished bus messages of one session, and how far the session's frames reach with them.

    Slices and facts that are in no frame are not counted: they stand in records of their own.
    """

    number: int
    flags: int
    offsets: tuple[int, int, int, int]
    facts: int
    commands: int
    errors: int
    messages: list[bytes] = field(default_factory=list)


def encode_frames(first: int, acked: int, cuts: Iterable[Cut]) -> list[bytes]:
    """Return the body of a FRAMES record in pieces.

    `first` is the ordinal of its first message among all of the lane, `acked` the ordinal below
    which the bus has acknowledged all messages.
    """
    pieces = [_ORDINALS.pack(first, acked)]
    for cut in cuts:
        pieces.append(
            _CUT.pack(
                cut.number,
                cut.flags,
                len(cut.messages),
                *cut.offsets,
                cut.facts,
                cut.commands,
                cut.errors,
            )
        )
        for message in cut.messages:
            pieces.append(_LENGTH.pack(len(message)))
            pieces.append(message)
    return pieces


def parse_frames(body: bytes) -> tuple[int, int, list[Cut]]:
    """Read the body of a FRAMES record: first ordinal, acknowledged ordinal, cuts."""
    first, acked = _ORDINALS.unpack(_take(body, 0, _ORDINALS.size))
    at = _ORDINALS.size
    cuts: list[Cut] = []
    while at < len(body):
        number, flags, count, *rest = _CUT.unpack(_take(body, at, _CUT.size))
        at += _CUT.size
        offsets = (rest[0], rest[1], rest[2], rest[3])
        cut = Cut(number, flags, offsets, rest[4], rest[5], rest[6])
        for _ in range(count):
            (length,) = _LENGTH.unpack(_take(body, at, _LENGTH.size))
            cut.messages.append(_take(body, at + _LENGTH.size, length))
            at += _LENGTH.size + length
        cuts.append(cut)
    return first, acked, cuts


# -- SESSION ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class SessionState:
    """All that is needed to go on with a session in a recovery epoch.

    `about` never changes (who, where, which terms); `nodes` is the compact range of the tree of
    `size` finished frames; `pieces` are slices and facts that are in no frame yet.
    """

    number: int
    about: bytes
    epoch: int
    size: int
    nodes: tuple[bytes, ...]
    offsets: tuple[int, int, int, int]
    facts: int
    commands: int
    errors: int
    last_ns: int
    signed: int
    pieces: Pieces


def encode_session(state: SessionState) -> bytes:
    """Return the body of a SESSION record."""
    rest = {
        "epoch": state.epoch,
        "size": state.size,
        "nodes": [node.hex() for node in state.nodes],
        "offsets": list(state.offsets),
        "facts": state.facts,
        "commands": state.commands,
        "errors": state.errors,
        "last_ns": state.last_ns,
        "signed": state.signed,
    }
    text = json.dumps(rest, separators=(",", ":")).encode()
    pieces = state.pieces
    head = _PIECES.pack(
        state.number,
        pieces.base_ns,
        pieces.slice_count,
        len(pieces.slices),
        pieces.fact_count,
        len(pieces.facts),
    )
    lengths = _LENGTH.pack(len(state.about)) + _LENGTH.pack(len(text))
    return b"".join((lengths, state.about, text, head, pieces.slices, pieces.facts))


def parse_session(body: bytes) -> SessionState:
    """Read the body of a SESSION record."""
    (about_size,) = _LENGTH.unpack(_take(body, 0, 4))
    (text_size,) = _LENGTH.unpack(_take(body, 4, 4))
    about = _take(body, 8, about_size)
    text = _take(body, 8 + about_size, text_size)
    pieces, end = _parse_pieces(body, 8 + about_size + text_size)
    if end != len(body):
        raise FormatError("A SESSION record of the spool is longer than it says.")
    try:
        return _state(pieces, about, json.loads(text))
    except (ValueError, KeyError, TypeError) as exc:
        raise FormatError("A SESSION record of the spool is not understood.") from exc


def _state(pieces: Pieces, about: bytes, rest: dict[str, Any]) -> SessionState:
    offsets = rest["offsets"]
    return SessionState(
        number=pieces.number,
        about=about,
        epoch=int(rest["epoch"]),
        size=int(rest["size"]),
        nodes=tuple(bytes.fromhex(node) for node in rest["nodes"]),
        offsets=(int(offsets[0]), int(offsets[1]), int(offsets[2]), int(offsets[3])),
        facts=int(rest["facts"]),
        commands=int(rest["commands"]),
        errors=int(rest["errors"]),
        last_ns=int(rest["last_ns"]),
        signed=int(rest["signed"]),
        pieces=pieces,
    )


def _slice(data: bytes, at: int, length: int) -> bytes:
    return data[at : at + length]


def _take(data: bytes, at: int, length: int) -> bytes:
    taken = data[at : at + length]
    if len(taken) < length:
        raise FormatError("A spool record ends in the middle of a field.")
    return taken
