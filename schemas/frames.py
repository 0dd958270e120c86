"""Frames: the unit of evidence, one leaf of a session's tree and one row of a segment.

What is hashed is neither the bus envelope nor the Parquet row but a fixed header of 84 bytes,
big-endian, which anybody can rebuild from the columns::

    offset  size  field
         0     8  magic "SEALFRM1"
         8    16  session
        24     4  epoch           u32
        28     8  seq             u64, below 2**63
        36     8  ts_ns           i64, nanoseconds since the Unix epoch
        44     1  kind            u8
        45     1  suite           u8
        46     2  flags           u16, none defined yet
        48     4  payload_len     u32, at most 1 MiB
        52    32  SHA-256 of the stored payload

The leaf is SHA-256(0x00 || header), the first 52 bytes are the associated data of the encryption.
`docs/spec/frame.md` has the rules. This module has no state and is safe in any thread.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from hashlib import sha256
from itertools import repeat
from typing import TYPE_CHECKING, Final

from sealtape.schemas.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Sequence

MAGIC: Final = b"SEALFRM1"
HEADER_SIZE: Final = 84
AAD_SIZE: Final = 52
SESSION_SIZE: Final = 16
DIGEST_SIZE: Final = 32
MAX_PAYLOAD: Final = 1 << 20
MAX_BODY: Final = 256 << 10
MAX_EPOCH: Final = 2**32 - 1
MAX_SEQ: Final = 2**63 - 1
DEFINED_FLAGS: Final = 0
EXTENSION_KINDS: Final = 128  # an unknown kind from here on does not make a session incomplete

HEADER: Final = struct.Struct(">8s16sIQqBBHI32s")
AAD: Final = struct.Struct(">8s16sIQqBBHI")
_LEAF: Final = struct.Struct(">B8s16sIQqBBHI32s")  # what a leaf hashes: 0x00, then the header


class Kind:
    """What a frame holds. Plain integers: an unknown kind is kept and verified like any other."""

    OPEN: Final = 1
    IDENT: Final = 2
    DATA: Final = 3
    FACTS: Final = 4
    GAP: Final = 5
    STATE: Final = 6
    CLOCK: Final = 7
    CLOSE: Final = 8


KIND_NAMES: Final = {value: name for name, value in vars(Kind).items() if not name.startswith("_")}


class Suite:
    """How a frame's payload is stored."""

    PUBLIC: Final = 0  # the body as it is; never personal data
    SALTED: Final = 1  # 32 random bytes, then the packed body
    AES256GCM: Final = 2  # 32 bytes commitment to the key, then the sealed packed body


PUBLIC_KINDS: Final = frozenset({Kind.OPEN, Kind.GAP, Kind.CLOCK, Kind.CLOSE})


@dataclass(frozen=True, slots=True)
class Header:
    """The 84 bytes, parsed. `payload_sha256` is the digest of the payload as stored."""

    session: bytes
    epoch: int
    seq: int
    ts_ns: int
    kind: int
    suite: int
    flags: int
    payload_len: int
    payload_sha256: bytes

    def encode(self) -> bytes:
        """The 84 bytes this header was parsed from."""
        return header(
            self.session,
            self.epoch,
            self.seq,
            self.ts_ns,
            self.kind,
            self.suite,
            self.flags,
            self.payload_len,
            self.payload_sha256,
        )


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame with its stored payload.

    `kind`, `suite` and `flags` may be values this version does not know: such a frame is hashed
    and kept like any other, only its payload is not read.
    """

    session: bytes
    epoch: int
    seq: int
    ts_ns: int
    kind: int
    suite: int
    flags: int
    payload: bytes

    def header(self) -> bytes:
        """The 84 bytes that stand for this frame in the tree; hashes the payload."""
        return header(
            self.session,
            self.epoch,
            self.seq,
            self.ts_ns,
            self.kind,
            self.suite,
            self.flags,
            len(self.payload),
            sha256(self.payload).digest(),
        )

    def aad(self) -> bytes:
        """The associated data of the encryption: the header's first 52 bytes."""
        return aad(
            self.session,
            self.epoch,
            self.seq,
            self.ts_ns,
            self.kind,
            self.suite,
            self.flags,
            len(self.payload),
        )

    def leaf(self) -> bytes:
        """The RFC 6962 leaf hash of this frame; hashes the payload."""
        return leaf_hash(self.header())


def aad(
    session: bytes,
    epoch: int,
    seq: int,
    ts_ns: int,
    kind: int,
    suite: int,
    flags: int,
    payload_len: int,
) -> bytes:
    """The first 52 bytes of a header; FormatError when a field is out of its range."""
    _check(session, seq, payload_len)
    try:
        return AAD.pack(MAGIC, session, epoch, seq, ts_ns, kind, suite, flags, payload_len)
    except struct.error as exc:
        raise FormatError(f"frame header field out of range: {exc}") from exc


def header(
    session: bytes,
    epoch: int,
    seq: int,
    ts_ns: int,
    kind: int,
    suite: int,
    flags: int,
    payload_len: int,
    payload_sha256: bytes,
) -> bytes:
    """The 84 bytes; FormatError when a field is out of its range."""
    if len(payload_sha256) != DIGEST_SIZE:
        raise FormatError(f"payload_sha256 must be 32 bytes, not {len(payload_sha256)}")
    return aad(session, epoch, seq, ts_ns, kind, suite, flags, payload_len) + payload_sha256


def parse_header(data: bytes) -> Header:
    """Read the 84 bytes: length, magic and ranges. Kind, suite and flags may be unknown ones."""
    if len(data) != HEADER_SIZE:
        raise FormatError(f"frame header must be 84 bytes, not {len(data)}")
    magic, session, epoch, seq, ts_ns, kind, suite, flags, payload_len, digest = HEADER.unpack(data)
    if magic != MAGIC:
        raise FormatError(f"frame header starts with {magic!r}, not with {MAGIC!r}")
    _check(session, seq, payload_len)
    return Header(session, epoch, seq, ts_ns, kind, suite, flags, payload_len, digest)


def leaf_hash(header: bytes) -> bytes:
    """SHA-256(0x00 || header): the frame's leaf in the session's tree."""
    return sha256(b"\0" + header).digest()


def leaf_hashes(
    session: bytes,
    epoch: int,
    seqs: Sequence[int],
    times: Sequence[int],
    kinds: Sequence[int],
    suites: Sequence[int],
    flags: Sequence[int],
    sizes: Sequence[int],
    digests: Sequence[bytes],
) -> list[bytes]:
    """The leaves of many frames of one epoch; FormatError when a field is out of its range."""
    if not digests:
        return []
    _check(session, max(seqs), max(sizes))
    if set(map(len, digests)) != {DIGEST_SIZE}:
        raise FormatError("payload_sha256 must be 32 bytes")
    same = repeat(0), repeat(MAGIC), repeat(session), repeat(epoch)
    try:
        headers = map(_LEAF.pack, *same, seqs, times, kinds, suites, flags, sizes, digests)
        return [sha256(header).digest() for header in headers]
    except struct.error as exc:
        raise FormatError(f"frame header field out of range: {exc}") from exc


def _check(session: bytes, seq: int, payload_len: int) -> None:
    # struct would pad a short session and cut a long one; the other ranges are narrower than it.
    if len(session) != SESSION_SIZE:
        raise FormatError(f"session must be 16 bytes, not {len(session)}")
    if seq > MAX_SEQ:
        raise FormatError(f"seq must be below 2**63, not {seq}")
    if payload_len > MAX_PAYLOAD:
        raise FormatError(f"payload must be at most {MAX_PAYLOAD} bytes, not {payload_len}")
