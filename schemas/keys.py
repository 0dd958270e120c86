"""Keys of frames: how they are derived, and how a body becomes a stored payload and back.

Every (session, epoch) has a random secret of 32 bytes and a salt. From them come two label keys,
`data` and `facts`, and from a label key one key per frame::

    PRK     = HKDF-Extract(salt, secret)
    K_label = HKDF-Expand(PRK, "sealtape/1 " || label || 0x00 || session || epoch, 32)
    K_seq   = HMAC-SHA256(K_label, seq)
    payload = SHA-256("sealtape/1 commit" || K_seq) || AES-256-GCM(K_seq, nonce 0, packed, aad)

Why no key ever encrypts two frames, although the nonce is always 0:

1. K_seq differs for every (secret, session, epoch, label, seq); each of them goes into it.
2. The secret is drawn in `draw_label_keys`, used once and dropped. It is stored nowhere, so after
   a crash nobody can derive the keys again for sealing; a new epoch draws a new secret and salt.
   What is wrapped for readers are label keys, and only readers unwrap them.
3. A `LabelKeys` gives itself to one `FrameSealer` and cannot be copied.
4. A `FrameSealer` begins at seq 0, counts on before it encrypts, and refuses any other seq. The
   two first frames may be made together, IDENT before OPEN; then both are spent at once.

A `Packer` and a `FrameSealer` belong to one thread at a time: they hold compressor state.
Functions of this module are safe in any thread.
"""

from __future__ import annotations

import hmac
import struct
from hashlib import sha256
from typing import TYPE_CHECKING, Final, NoReturn

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sealtape.schemas.errors import FormatError, KeyCommitmentError, KeyUnavailable, SealtapeError
from sealtape.schemas.frames import (
    DEFINED_FLAGS,
    KIND_NAMES,
    MAX_BODY,
    MAX_EPOCH,
    PUBLIC_KINDS,
    SESSION_SIZE,
    Frame,
    Kind,
    Suite,
    aad,
    leaf_hash,
)

if TYPE_CHECKING:
    from collections.abc import Callable

KEY_SIZE: Final = 32
SALT_SIZE: Final = 32
COMMIT_SIZE: Final = 32
TAG_SIZE: Final = 16
LABEL_DATA: Final = "data"
LABEL_FACTS: Final = "facts"
LABELS: Final = (LABEL_DATA, LABEL_FACTS)

CODEC_RAW: Final = b"\0"
CODEC_ZSTD: Final = b"\1"
ZSTD_LEVEL: Final = 1
MIN_COMPRESS: Final = 64  # below this zstd saves little and costs more than the bytes are worth

_NONCE: Final = bytes(12)
_COMMIT: Final = b"sealtape/1 commit"
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_SEQ: Final = struct.Struct(">Q")
_LABEL_OF: Final = {
    Kind.IDENT: LABEL_FACTS,
    Kind.FACTS: LABEL_FACTS,
    Kind.DATA: LABEL_DATA,
    Kind.STATE: LABEL_DATA,
}


def label_of(kind: int) -> str | None:
    """Which label key a kind is sealed under; None for kinds that are public or unknown."""
    return _LABEL_OF.get(kind)


class LabelKeys:
    """The two label keys of one (session, epoch): for wrapping, and for one sealer."""

    __slots__ = ("_taken", "data", "epoch", "facts", "session")

    def __init__(self, session: bytes, epoch: int, data: bytes, facts: bytes) -> None:
        """Hold the keys of this session and epoch; `derive_label_keys` makes them."""
        self.session = session
        self.epoch = epoch
        self.data = data
        self.facts = facts
        self._taken = False

    def __repr__(self) -> str:
        """Show what they are for, never the keys."""
        return f"LabelKeys(session={self.session.hex()}, epoch={self.epoch})"

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled: a copy could go to a second sealer."""
        raise SealtapeError("label keys cannot be copied")

    def of(self, label: str) -> bytes:
        """The key of `label`."""
        if label not in LABELS:
            raise FormatError(f"{label!r} is not a key label")
        return self.data if label == LABEL_DATA else self.facts

    def take(self, session: bytes, epoch: int) -> None:
        """Give the keys to the one sealer of this session and epoch; a second time is refused."""
        if (session, epoch) != (self.session, self.epoch):
            raise SealtapeError("label keys belong to another session or epoch")
        if self._taken:
            raise SealtapeError("label keys already have a sealer")
        self._taken = True


def derive_label_keys(secret: bytes, salt: bytes, session: bytes, epoch: int) -> LabelKeys:
    """HKDF-SHA256 from the epoch's secret and salt, bound to session, epoch and label."""
    if len(secret) != KEY_SIZE or len(salt) != SALT_SIZE:
        raise FormatError("an epoch's secret and salt must be 32 bytes each")
    if len(session) != SESSION_SIZE or not 0 <= epoch <= MAX_EPOCH:
        raise FormatError("keys need a session of 16 bytes and an epoch below 2**32")
    prk = hmac.digest(salt, secret, "sha256")
    suffix = b"\0" + session + epoch.to_bytes(4, "big") + b"\1"  # HKDF's counter of one block
    return LabelKeys(
        session,
        epoch,
        data=hmac.digest(prk, b"sealtape/1 data" + suffix, "sha256"),
        facts=hmac.digest(prk, b"sealtape/1 facts" + suffix, "sha256"),
    )


def draw_label_keys(
    session: bytes, epoch: int, random: Callable[[int], bytes]
) -> tuple[bytes, LabelKeys]:
    """A fresh salt for OPEN and the keys of a new epoch; the secret is drawn here and dropped."""
    salt = random(SALT_SIZE)
    return salt, derive_label_keys(random(KEY_SIZE), salt, session, epoch)


def frame_key(label_key: bytes, seq: int) -> bytes:
    """K_seq: the key of one frame; it can be disclosed alone."""
    return hmac.digest(label_key, _SEQ.pack(seq), "sha256")


def commitment(key: bytes) -> bytes:
    """What a payload begins with: it opens under no other key, whatever its tag says."""
    return sha256(_COMMIT + key).digest()


def commits(frame: Frame, label_key: bytes) -> bool:
    """Whether an encrypted frame was sealed under a label's key."""
    own = commitment(frame_key(label_key, frame.seq))
    return hmac.compare_digest(frame.payload[:COMMIT_SIZE], own)


class Packer:
    """Compresses and inflates bodies with contexts that are reused; one thread at a time.

    A context takes about half a megabyte: share one Packer between the sealers of a thread.
    """

    __slots__ = ("_compress", "_decompress")

    def __init__(self, level: int = ZSTD_LEVEL) -> None:
        """Make the contexts; `level` is zstd's."""
        self._compress = zstandard.ZstdCompressor(level=level, write_content_size=True).compress
        self._decompress = zstandard.ZstdDecompressor().decompress

    def pack(self, body: bytes) -> bytes:
        """A codec byte, then the body: as it is, or as one zstd frame where that is smaller."""
        _check_body(body)
        if len(body) >= MIN_COMPRESS:
            packed = self._compress(body)
            if len(packed) < len(body):
                return CODEC_ZSTD + packed
        return CODEC_RAW + body

    def unpack(self, packed: bytes, limit: int = MAX_BODY) -> bytes:
        """The body; its declared size is checked against `limit` before anything is inflated."""
        codec, content = packed[:1], packed[1:]
        if codec == CODEC_RAW:
            if len(content) > limit:
                raise FormatError(f"body is longer than {limit} bytes")
            return content
        if codec != CODEC_ZSTD:
            raise FormatError(f"unknown codec byte {codec.hex() or '(none)'}")
        if content[:4] != _ZSTD_MAGIC:
            raise FormatError("packed body is not a zstd frame")
        try:
            size = zstandard.frame_content_size(content)  # huge or negative where it is not said
            # Zero too: nothing is never compressed, and zstandard would not look at the rest.
            if not 0 < size <= limit:
                raise FormatError(f"packed body does not declare a size up to {limit} bytes")
            return self._decompress(content, max_output_size=size, allow_extra_data=False)
        except zstandard.ZstdError as exc:
            raise FormatError(f"packed body is damaged: {exc}") from exc


def pack(body: bytes) -> bytes:
    """`Packer.pack` with contexts of its own; where many bodies are packed, keep a Packer."""
    return Packer().pack(body)


def unpack(packed: bytes, limit: int = MAX_BODY) -> bytes:
    """`Packer.unpack` with contexts of its own; where many are unpacked, keep a Packer."""
    return Packer().unpack(packed, limit)


class FrameSealer:
    """Makes the frames of one (session, epoch), from seq 0 on, each seq once.

    One thread at a time. With `keys` None the class of retention has encryption off and payloads
    are salted: `salts` gives 32 random bytes per call, so that a digest that outlives its deleted
    body cannot be guessed at.
    """

    __slots__ = ("_epoch", "_keys", "_packer", "_salts", "_session", "_ts_ns", "next_seq")

    def __init__(
        self,
        session: bytes,
        epoch: int,
        keys: LabelKeys | None,
        salts: Callable[[], bytes],
        packer: Packer | None = None,
    ) -> None:
        """Take the epoch's keys for good; `packer` may be shared within the thread."""
        aad(session, epoch, 0, 0, Kind.OPEN, Suite.PUBLIC, 0, 0)  # refuses bad session and epoch
        if keys is not None:
            keys.take(session, epoch)
        self._session = session
        self._epoch = epoch
        self._keys = keys
        self._salts = salts
        self._packer = packer or Packer()
        self._ts_ns = -(2**63)
        self.next_seq = 0

    def seal(self, seq: int, ts_ns: int, kind: int, body: bytes) -> Frame:
        """The frame of `body`; `seq` must be the next one, `ts_ns` not before the last one."""
        return self.seal_with_leaf(seq, ts_ns, kind, body)[0]

    def seal_with_leaf(self, seq: int, ts_ns: int, kind: int, body: bytes) -> tuple[Frame, bytes]:
        """The frame and its leaf hash; the header is built and the payload hashed only once."""
        if seq != self.next_seq:
            raise SealtapeError(f"frame {seq} cannot be sealed, {self.next_seq} is next")
        if ts_ns < self._ts_ns:
            raise SealtapeError(f"frame {seq} is older than the frame before it")
        if kind not in KIND_NAMES:
            raise SealtapeError(f"kind {kind} cannot be sealed by this version")
        _check_body(body)
        session, epoch, keys = self._session, self._epoch, self._keys
        if kind in PUBLIC_KINDS:
            suite, payload = Suite.PUBLIC, body
            prefix = aad(session, epoch, seq, ts_ns, kind, suite, 0, len(payload))
            self.next_seq, self._ts_ns = seq + 1, ts_ns
        elif keys is None:
            suite, payload = Suite.SALTED, self._salt() + self._packer.pack(body)
            prefix = aad(session, epoch, seq, ts_ns, kind, suite, 0, len(payload))
            self.next_seq, self._ts_ns = seq + 1, ts_ns
        else:
            suite, packed = Suite.AES256GCM, self._packer.pack(body)
            length = COMMIT_SIZE + len(packed) + TAG_SIZE
            prefix = aad(session, epoch, seq, ts_ns, kind, suite, 0, length)
            # Count on first: should anything below fail, this key is spent and never used again.
            self.next_seq, self._ts_ns = seq + 1, ts_ns
            key = frame_key(keys.of(_LABEL_OF[kind]), seq)
            payload = commitment(key) + AESGCM(key).encrypt(_NONCE, packed, prefix)
        frame = Frame(session, epoch, seq, ts_ns, kind, suite, 0, payload)
        return frame, leaf_hash(prefix + sha256(payload).digest())

    def seal_opening(
        self, ts_ns: int, ident: bytes, opening: Callable[[bytes], bytes]
    ) -> list[tuple[Frame, bytes]]:
        """The first two frames and their leaves: OPEN, then IDENT with the body `ident`.

        OPEN states the digest of IDENT's stored payload, so IDENT is sealed first; `opening` makes
        OPEN's body from that digest. OPEN is public: no key is used for it.
        """
        if self.next_seq != 0:
            raise SealtapeError("a session epoch is opened by its first two frames only")
        self.next_seq = 1
        sealed = self.seal_with_leaf(1, ts_ns, Kind.IDENT, ident)
        body = opening(sha256(sealed[0].payload).digest())
        _check_body(body)
        frame = Frame(self._session, self._epoch, 0, ts_ns, Kind.OPEN, Suite.PUBLIC, 0, body)
        return [(frame, frame.leaf()), sealed]

    def _salt(self) -> bytes:
        salt = self._salts()
        if len(salt) != SALT_SIZE:
            raise SealtapeError(f"a payload's salt must be 32 bytes, not {len(salt)}")
        return salt


def _check_body(body: bytes) -> None:
    if len(body) > MAX_BODY:
        raise FormatError(f"a frame's body must be at most {MAX_BODY} bytes, not {len(body)}")


def check_suite(kind: int, suite: int, flags: int = 0) -> None:
    """Raise FormatError where a known kind is stored in a form it must not have, or an unknown."""
    if flags & ~DEFINED_FLAGS:
        raise FormatError(f"frame has undefined flags {flags:#06x}")
    if suite not in (Suite.PUBLIC, Suite.SALTED, Suite.AES256GCM):
        raise FormatError(f"frame has unknown suite {suite}")
    if kind in KIND_NAMES and (kind in PUBLIC_KINDS) != (suite == Suite.PUBLIC):
        raise FormatError(f"{KIND_NAMES[kind]} frame must not have suite {suite}")


def open_payload(frame: Frame, label_key: bytes | None, packer: Packer | None = None) -> bytes:
    """The frame's body. `label_key` is the key of `label_of(kind)`; other suites need none."""
    check_suite(frame.kind, frame.suite, frame.flags)
    if frame.suite == Suite.PUBLIC:
        return frame.payload
    if frame.suite == Suite.SALTED:
        if len(frame.payload) < SALT_SIZE:
            raise FormatError(f"payload of frame {frame.seq} is shorter than its salt")
        return (packer or Packer()).unpack(frame.payload[SALT_SIZE:])
    if label_key is None:
        raise KeyUnavailable(
            f"frame {frame.seq} is encrypted and no key was given",
            hint="Its keys were deleted or are wrapped for somebody else.",
        )
    return _decrypt(frame, frame_key(label_key, frame.seq), packer)


def open_frame_with_key(frame: Frame, key: bytes, packer: Packer | None = None) -> bytes:
    """The body of an encrypted frame under its own disclosed key K_seq."""
    check_suite(frame.kind, frame.suite, frame.flags)
    if frame.suite != Suite.AES256GCM:
        raise FormatError(f"frame {frame.seq} is not encrypted (suite {frame.suite})")
    return _decrypt(frame, key, packer)


def _decrypt(frame: Frame, key: bytes, packer: Packer | None) -> bytes:
    if len(frame.payload) < COMMIT_SIZE + TAG_SIZE:
        raise FormatError(f"payload of frame {frame.seq} is shorter than commitment and tag")
    if not hmac.compare_digest(frame.payload[:COMMIT_SIZE], commitment(key)):
        raise KeyCommitmentError(f"frame {frame.seq} was not sealed under this key")
    try:
        packed = AESGCM(key).decrypt(_NONCE, frame.payload[COMMIT_SIZE:], frame.aad())
    except InvalidTag as exc:
        raise FormatError(f"frame {frame.seq} has been changed after it was encrypted") from exc
    return (packer or Packer()).unpack(packed)
