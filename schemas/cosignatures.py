"""Cosignatures on checkpoints, as C2SP tlog-cosignature has them: Ed25519 and ML-DSA-44.

A cosignature says when: it covers a POSIX time beside the checkpoint. The log itself adds an
ML-DSA-44 line of the same form under its own name, so that its checkpoints still hold when
Ed25519 no longer does (FIPS 204).

Values here are immutable and safe in any thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

from sealtape.schemas import notes
from sealtape.schemas.canonical import base64_text
from sealtape.schemas.errors import FormatError, SignatureError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

ED25519: Final = b"\x04"
ML_DSA_44: Final = b"\x06"
ML_DSA_44_KEY_SIZE: Final = 1312
ML_DSA_44_SIGNATURE_SIZE: Final = 2420

_TIME_SIZE: Final = 8
_MAX_TIME: Final = 2**63 - 1
_LABEL: Final = b"subtree/v1\n\0"


class Cosigner:
    """An Ed25519 key whose signatures carry a time (type 0x04): a witness's."""

    __slots__ = ("_key", "key_id", "name", "public")

    algorithm: Final = ED25519

    def __init__(self, name: str, public: bytes) -> None:
        """Take the raw 32 bytes; FormatError for a bad name, SignatureError for a weak key."""
        notes.check_key_name(name)
        notes.check_point(public, "public key")
        self.name = name
        self.public = public
        self.key_id = notes.key_id(name, public, ED25519)
        self._key = Ed25519PublicKey.from_public_bytes(public)

    @property
    def vkey(self) -> str:
        """The public key as text, to be named in a policy."""
        return _vkey(self)

    def verify(self, message: bytes, signature: bytes) -> None:
        """Raise SignatureError unless `signature` is this key's over a checkpoint's text."""
        seconds, value = _split(self.name, signature)
        notes.check_signature(value)
        try:
            self._key.verify(value, _ed25519_message(message, seconds))
        except InvalidSignature as exc:
            raise SignatureError(f"cosignature by {self.name} does not verify") from exc


class MlDsaCosigner:
    """An ML-DSA-44 key whose signatures carry a time and its name (type 0x06)."""

    __slots__ = ("_key", "key_id", "name", "public")

    algorithm: Final = ML_DSA_44

    def __init__(self, name: str, public: bytes) -> None:
        """Take the 1,312 bytes of FIPS 204; FormatError for a bad name or another length."""
        _check_short(name)
        if len(public) != ML_DSA_44_KEY_SIZE:
            raise FormatError(
                f"an ML-DSA-44 public key has {ML_DSA_44_KEY_SIZE} bytes, not {len(public)}"
            )
        self.name = name
        self.public = public
        self.key_id = notes.key_id(name, public, ML_DSA_44)
        self._key = MLDSA44PublicKey.from_public_bytes(public)

    @property
    def vkey(self) -> str:
        """The public key as text, to be named in a policy."""
        return _vkey(self)

    def verify(self, message: bytes, signature: bytes) -> None:
        """Raise SignatureError unless `signature` is this key's over a checkpoint's text."""
        seconds, value = _split(self.name, signature)
        if len(value) != ML_DSA_44_SIGNATURE_SIZE:
            raise SignatureError(
                f"an ML-DSA-44 signature has {ML_DSA_44_SIGNATURE_SIZE} bytes, not {len(value)}"
            )
        try:
            self._key.verify(value, _ml_dsa_message(self.name, message, seconds))
        except InvalidSignature as exc:
            raise SignatureError(f"cosignature by {self.name} does not verify") from exc


AnyVerifier = notes.Verifier | Cosigner | MlDsaCosigner


def verifier_of(vkey: str) -> AnyVerifier:
    """The key that `name+id+key` is, of any type we know; FormatError for others."""
    name, ident, raw = notes.split_vkey(vkey)
    algorithm, public = raw[:1], raw[1:]
    found: AnyVerifier
    if algorithm == notes.ALGORITHM:
        return notes.Verifier.from_vkey(vkey)
    if algorithm == ED25519:
        found = Cosigner(name, public)
    elif algorithm == ML_DSA_44:
        found = MlDsaCosigner(name, public)
    else:
        raise FormatError(f"verifier key of {name} has a signature type that is not known here")
    if ident != found.key_id:
        raise FormatError(f"verifier key id {ident.hex()} does not belong to this name and key")
    return found


def cosigned_at(signature: notes.Signature) -> int:
    """The POSIX time, in seconds, that a cosignature states; check the signature before."""
    return _split(signature.name, signature.value)[0]


def cosign(
    name: str, private: Ed25519PrivateKey | MLDSA44PrivateKey, text: str, seconds: int
) -> str:
    """The signature line of `name` on a checkpoint's text, at a POSIX time in seconds."""
    notes.parse_checkpoint(text)
    if not 0 <= seconds <= _MAX_TIME:
        raise FormatError(f"a cosignature's time is 0 to 2**63 - 1 seconds, not {seconds}")
    public = private.public_key().public_bytes_raw()
    message = text.encode()
    verifier: Cosigner | MlDsaCosigner
    if len(public) == notes.KEY_SIZE:
        verifier = Cosigner(name, public)
        signed = private.sign(_ed25519_message(message, seconds))
    else:
        verifier = MlDsaCosigner(name, public)
        signed = private.sign(_ml_dsa_message(name, message, seconds))
    stamped = seconds.to_bytes(_TIME_SIZE, "big") + signed
    return notes.signature_line(name, verifier.key_id + stamped)


def _vkey(verifier: Cosigner | MlDsaCosigner) -> str:
    key = base64_text(verifier.algorithm + verifier.public)
    return f"{verifier.name}+{verifier.key_id.hex()}+{key}"


def _split(name: str, signature: bytes) -> tuple[int, bytes]:
    """Time and signature of a `timestamped_signature`."""
    if len(signature) <= _TIME_SIZE:
        raise SignatureError(f"cosignature by {name} is too short")
    seconds = int.from_bytes(signature[:_TIME_SIZE], "big")
    if seconds > _MAX_TIME:
        raise SignatureError(f"cosignature by {name} has a time beyond 2**63 - 1 seconds")
    return seconds, signature[_TIME_SIZE:]


def _ed25519_message(text: bytes, seconds: int) -> bytes:
    return b"cosignature/v1\ntime %d\n" % seconds + text


def _ml_dsa_message(name: str, text: bytes, seconds: int) -> bytes:
    try:
        checkpoint = notes.parse_checkpoint(text.decode())
    except (FormatError, UnicodeDecodeError) as exc:
        # It signs a tree's size and root: over another text it says nothing.
        raise SignatureError(f"cosignature by {name} is not on a checkpoint: {exc}") from exc
    return b"".join(
        [
            _LABEL,
            _short(name),
            seconds.to_bytes(8, "big"),
            _short(checkpoint.origin),
            (0).to_bytes(8, "big"),
            checkpoint.size.to_bytes(8, "big"),
            checkpoint.root,
        ]
    )


def _short(text: str) -> bytes:
    raw = _check_short(text)
    return bytes([len(raw)]) + raw


def _check_short(text: str) -> bytes:
    notes.check_key_name(text)
    raw = text.encode()
    if len(raw) > 255:
        raise FormatError(f"{text[:64]!r} is longer than the 255 bytes that an ML-DSA name has")
    return raw
