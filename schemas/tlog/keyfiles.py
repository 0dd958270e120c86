"""Files of private keys that sign checkpoints and statements: one line, as Go's sumdb/note has it.

    PRIVATE+KEY+sealtape.example/log/1+721c3fc2+AY…

The byte before the key is the signature type: 0x01 signs as a log, a node or an administrator, 0x04
cosigns as a witness, 0x06 does either with ML-DSA-44 (the 32 bytes of its seed). The public half of
the same line is the verifier key that a policy names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from sealtape.schemas import notes
from sealtape.schemas.canonical import base64_text
from sealtape.schemas.cosignatures import ED25519, ML_DSA_44, Cosigner, MlDsaCosigner
from sealtape.schemas.errors import FormatError

__all__ = ["PrivateHalf", "format_key", "parse_key"]

_PRIVATE: Final = "PRIVATE+KEY+"
_SEED: Final = 32
_TYPES: Final = (notes.ALGORITHM, ED25519, ML_DSA_44)


@dataclass(frozen=True, slots=True)
class PrivateHalf:
    """A private key, under which name and for which signature type; never shown in a repr."""

    name: str
    algorithm: bytes
    private: Ed25519PrivateKey | MLDSA44PrivateKey = field(repr=False)

    @property
    def verifier(self) -> notes.Verifier | Cosigner | MlDsaCosigner:
        """The public half."""
        public = self.private.public_key().public_bytes_raw()
        if self.algorithm == notes.ALGORITHM:
            return notes.Verifier(self.name, public)
        if self.algorithm == ED25519:
            return Cosigner(self.name, public)
        return MlDsaCosigner(self.name, public)

    @property
    def vkey(self) -> str:
        """The public half as a policy names it."""
        return self.verifier.vkey

    def signer(self) -> notes.Signer:
        """To sign notes with; FormatError for a key of another type than 0x01."""
        if self.algorithm == notes.ALGORITHM and isinstance(self.private, Ed25519PrivateKey):
            return notes.Signer(self.name, self.private)
        raise FormatError(f"the key of {self.name} is not one that signs notes (type 1)")


def format_key(name: str, algorithm: bytes, seed: bytes) -> str:
    """The text of a key file; `seed` is 32 random bytes."""
    half = _half(name, algorithm, seed)
    ident = half.verifier.key_id.hex()
    return f"{_PRIVATE}{name}+{ident}+{base64_text(algorithm + seed)}\n"


def parse_key(text: str) -> PrivateHalf:
    """Read a key file; FormatError, which never shows its content, when it is none."""
    hint = "Restore the file from your copy of it."
    try:
        line = text.removesuffix("\n")
        if not line.startswith(_PRIVATE):
            raise FormatError("it does not begin like one")
        name, ident, raw = notes.split_vkey(line.removeprefix(_PRIVATE))
        half = _half(name, raw[:1], raw[1:])
        if ident != half.verifier.key_id:
            raise FormatError("its id does not belong to its name and key")
    except FormatError as exc:
        # What was read may be half a key: only our own words are passed on.
        raise FormatError("This is not a file of a private key.", hint=hint) from exc
    return half


def _half(name: str, algorithm: bytes, seed: bytes) -> PrivateHalf:
    notes.check_key_name(name)
    if algorithm not in _TYPES or len(seed) != _SEED:
        raise FormatError(f"a private key has a type of 1, 4 or 6 and {_SEED} bytes")
    if algorithm == ML_DSA_44:
        return PrivateHalf(name, algorithm, MLDSA44PrivateKey.from_seed_bytes(seed))
    return PrivateHalf(name, algorithm, Ed25519PrivateKey.from_private_bytes(seed))
