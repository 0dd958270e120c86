"""Wrapped keys: label keys sealed to readers' public keys by HPKE (RFC 9180, base mode).

A wrap names session, epoch, label and recipient; all but the recipient's name go into HPKE's
`info`, the recipient's key into its key schedule, so a wrap opens as nothing but what it says.
Whoever holds no private half (capture, ingest) can wrap and cannot read.

Keys in files are one line of text::

    sealtape-public-key-1 x25519-sha256-aes256gcm auditor-0123456789abcdef <base64>

All values here are immutable and safe in any thread.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hashlib import sha256, shake_256
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from sealtape.schemas.canonical import base64_bytes, base64_text
from sealtape.schemas.errors import FormatError, KeyUnavailable
from sealtape.schemas.frames import MAX_EPOCH, SESSION_SIZE
from sealtape.schemas.keys import KEY_SIZE, LABELS

if TYPE_CHECKING:
    from collections.abc import Callable

X25519: Final = "x25519-sha256-aes256gcm"
HYBRID: Final = "mlkem768x25519-sha256-aes256gcm"
PURPOSES: Final = ("auditor", "indexer")
PUBLIC_TAG: Final = "sealtape-public-key-1"
PRIVATE_TAG: Final = "sealtape-private-key-1"

_MLKEM_SEED_SIZE: Final = 64
_SEED_SIZE: Final = 32
_MLKEM_PUBLIC_SIZE: Final = 1184
_X25519_SIZE: Final = 32
_KEY_ID: Final = re.compile(rf"(?:{'|'.join(PURPOSES)})-[0-9a-f]{{16}}", re.ASCII)


@dataclass(frozen=True, slots=True)
class WrapSuite:
    """One way to wrap: the HPKE suite, the sizes of raw keys and of a sealed 32-byte key."""

    name: str
    suite: hpke.Suite
    public_size: int
    private_size: int
    sealed_size: int


def _suite(name: str, kem: hpke.KEM, public_size: int, private_size: int, enc: int) -> WrapSuite:
    suite = hpke.Suite(kem, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
    return WrapSuite(name, suite, public_size, private_size, enc + KEY_SIZE + 16)


SUITES: Final = {
    X25519: _suite(X25519, hpke.KEM.X25519, _X25519_SIZE, _X25519_SIZE, 32),
    HYBRID: _suite(
        HYBRID,
        hpke.KEM.MLKEM768_X25519,
        _MLKEM_PUBLIC_SIZE + _X25519_SIZE,
        _SEED_SIZE,
        1088 + 32,
    ),
}


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A reader's public key; `id` names its purpose and the beginning of its SHA-256."""

    id: str
    suite: str
    raw: bytes

    def __post_init__(self) -> None:
        """Refuse an unknown suite, a wrong length, or an id of another key."""
        if len(self.raw) != suite_of(self.suite).public_size:
            raise FormatError(f"public key {self.id} has the wrong length for {self.suite}")
        if not _KEY_ID.fullmatch(self.id) or not self.id.endswith(key_fingerprint(self.raw)):
            raise FormatError(f"public key has the id {self.id!r}, which is not its own")

    def text(self) -> str:
        """The line for its file."""
        return f"{PUBLIC_TAG} {self.suite} {self.id} {base64_text(self.raw)}\n"

    @classmethod
    def from_text(cls, text: str) -> PublicKey:
        """Read the line of a public key file."""
        return cls(*_read_line(text, PUBLIC_TAG))


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A reader's private key; `id` is the public half's. The key itself is not in the repr."""

    id: str
    suite: str
    raw: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse an unknown suite, a wrong length, or an id of another key."""
        if len(self.raw) != suite_of(self.suite).private_size:
            raise FormatError(f"private key {self.id} has the wrong length for {self.suite}")
        _ = self.public

    @property
    def public(self) -> PublicKey:
        """The public half."""
        return PublicKey(self.id, self.suite, _public_raw(self.suite, self.raw))

    def text(self) -> str:
        """The line for a file only its owner can read."""
        return f"{PRIVATE_TAG} {self.suite} {self.id} {base64_text(self.raw)}\n"

    @classmethod
    def from_text(cls, text: str) -> PrivateKey:
        """Read the line of a private key file."""
        return cls(*_read_line(text, PRIVATE_TAG))


@dataclass(frozen=True, slots=True)
class Wrap:
    """One label key of one (session, epoch), sealed to one recipient."""

    session: bytes
    epoch: int
    label: str
    recipient: str
    suite: str
    sealed: bytes

    def __post_init__(self) -> None:
        """Refuse fields no writer makes, so a reader of any store gets a FormatError early."""
        _info(self.session, self.epoch, self.label)
        if not _KEY_ID.fullmatch(self.recipient):
            raise FormatError(f"wrap has recipient {self.recipient!r}, which is not a key id")
        if len(self.sealed) != suite_of(self.suite).sealed_size:
            raise FormatError(f"wrap for {self.recipient} has the wrong length for {self.suite}")


def suite_of(name: str) -> WrapSuite:
    """The suite of this name; FormatError when it is unknown."""
    try:
        return SUITES[name]
    except KeyError as exc:
        raise FormatError(f"unknown wrap suite {name!r}") from exc


def key_fingerprint(public_raw: bytes) -> str:
    """The first eight bytes of the public key's SHA-256, in hex."""
    return sha256(public_raw).digest()[:8].hex()


def private_key(purpose: str, suite: str, raw: bytes) -> PrivateKey:
    """The private key of these raw bytes, with the id its public half gives it."""
    if purpose not in PURPOSES:
        raise FormatError(f"{purpose!r} is not a key purpose ({', '.join(PURPOSES)})")
    if len(raw) != suite_of(suite).private_size:
        raise FormatError(f"private key has the wrong length for {suite}")
    return PrivateKey(f"{purpose}-{key_fingerprint(_public_raw(suite, raw))}", suite, raw)


def generate(
    purpose: str, suite: str, random: Callable[[int], bytes]
) -> tuple[PrivateKey, PublicKey]:
    """A new key pair; `random` gives that many bytes."""
    private = private_key(purpose, suite, random(suite_of(suite).private_size))
    return private, private.public


def wrap(public: PublicKey, key: bytes, session: bytes, epoch: int, label: str) -> Wrap:
    """Seal a label key to a reader."""
    if len(key) != KEY_SIZE:
        raise FormatError(f"a wrapped key must be 32 bytes, not {len(key)}")
    info = _info(session, epoch, label)
    try:
        sealed = suite_of(public.suite).suite.encrypt(key, _public_object(public), info)
    except ValueError as exc:
        raise FormatError(f"public key {public.id} is not a key of {public.suite}") from exc
    return Wrap(session, epoch, label, public.id, public.suite, sealed)


def unwrap(private: PrivateKey, wrapped: Wrap) -> bytes:
    """The label key; KeyUnavailable when it is another's wrap, FormatError when it was changed."""
    if wrapped.recipient != private.id:
        raise KeyUnavailable(f"key is wrapped for {wrapped.recipient}, not for {private.id}")
    if wrapped.suite != private.suite:
        raise FormatError(f"wrap for {private.id} has suite {wrapped.suite}, not {private.suite}")
    info = _info(wrapped.session, wrapped.epoch, wrapped.label)
    try:
        return suite_of(private.suite).suite.decrypt(wrapped.sealed, _private_object(private), info)
    except (InvalidTag, ValueError) as exc:
        raise FormatError(f"wrap for {private.id} has been changed or mixed up") from exc


def _info(session: bytes, epoch: int, label: str) -> bytes:
    if len(session) != SESSION_SIZE or not 0 <= epoch <= MAX_EPOCH:
        raise FormatError("wrap needs a session of 16 bytes and an epoch below 2**32")
    if label not in LABELS:
        raise FormatError(f"wrap has unknown label {label!r}")
    return b"sealtape/1 wrap\0" + label.encode() + b"\0" + session + epoch.to_bytes(4, "big")


def _public_raw(suite: str, private_raw: bytes) -> bytes:
    if suite == X25519:
        return X25519PrivateKey.from_private_bytes(private_raw).public_key().public_bytes_raw()
    mlkem, x25519 = _hybrid_private(private_raw)
    return mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()


def _read_line(text: str, tag: str) -> tuple[str, str, bytes]:
    parts = text.removesuffix("\n").split(" ")
    if len(parts) != 4 or parts[0] != tag:  # tag, suite, id, key
        raise FormatError(f"key file is not one line that begins with {tag}")
    _, suite, ident, encoded = parts
    return ident, suite, base64_bytes(encoded, "key")


def _public_object(public: PublicKey) -> X25519PublicKey | hpke.MLKEM768X25519PublicKey:
    if public.suite == X25519:
        return X25519PublicKey.from_public_bytes(public.raw)
    return hpke.MLKEM768X25519PublicKey(
        MLKEM768PublicKey.from_public_bytes(public.raw[:_MLKEM_PUBLIC_SIZE]),
        X25519PublicKey.from_public_bytes(public.raw[_MLKEM_PUBLIC_SIZE:]),
    )


def _private_object(private: PrivateKey) -> X25519PrivateKey | hpke.MLKEM768X25519PrivateKey:
    if private.suite == X25519:
        return X25519PrivateKey.from_private_bytes(private.raw)
    return hpke.MLKEM768X25519PrivateKey(*_hybrid_private(private.raw))


def _hybrid_private(raw: bytes) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
    # The private key is X-Wing's 32-byte seed, so that other implementations can take it.
    expanded = shake_256(raw).digest(_MLKEM_SEED_SIZE + _X25519_SIZE)
    mlkem = MLKEM768PrivateKey.from_seed_bytes(expanded[:_MLKEM_SEED_SIZE])
    return mlkem, X25519PrivateKey.from_private_bytes(expanded[_MLKEM_SEED_SIZE:])
