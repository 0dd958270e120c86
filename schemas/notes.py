"""Signed notes and checkpoints, as C2SP signed-note and tlog-checkpoint have them.

A note is a text, an empty line, and one line per signature::

    example.org/log/session/…/0
    2
    47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=

    — example.org/log/session/…/0 Az3grl…

Signatures are Ed25519 and are checked more strictly than most libraries do: S below the group
order, no public key or R of small order or in a second encoding. Base64 has one form only. Notes
are verified and kept as the bytes they came in; nothing is written anew.

All values here are immutable and safe in any thread.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sealtape.schemas.canonical import base64_bytes, base64_text, decimal_int, hex_bytes
from sealtape.schemas.errors import FormatError, SignatureError
from sealtape.schemas.tree import EMPTY_ROOT, HASH_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

ALGORITHM: Final = b"\x01"  # Ed25519 in C2SP signed-note
KEY_SIZE: Final = 32
SIGNATURE_SIZE: Final = 64
KEY_ID_SIZE: Final = 4
MAX_NOTE: Final = 1 << 20
MAX_SIGNATURES: Final = 100
MAX_NAME: Final = 255
MAX_TREE_SIZE: Final = 2**63 - 1

_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")
_DASH: Final = "\N{EM DASH} "
_FIELD: Final = 2**255 - 19
_ORDER: Final = 2**252 + 27742317777372353535851937790883648493
# The y of the eight points of small order; the sign of x does not matter, all eight are refused.
_Y_ORDER_8: Final = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL_ORDER_Y: Final = frozenset({0, 1, _FIELD - 1, _Y_ORDER_8, _FIELD - _Y_ORDER_8})


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line: who claims to have signed, with which key, and the signature's bytes."""

    name: str
    key_id: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """A note. `verified` were checked against a known key, `unverified` by nobody."""

    text: str
    verified: tuple[Signature, ...]
    unverified: tuple[Signature, ...]

    @property
    def signers(self) -> tuple[str, ...]:
        """The names whose signatures were verified."""
        return tuple(signature.name for signature in self.verified)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a tree's owner states: its origin, its size in leaves and its root."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The three lines that are signed; FormatError when they could not be read back."""
        text = f"{self.origin}\n{self.size}\n{base64_text(self.root)}\n"
        parse_checkpoint(text)
        return text


class NoteVerifier(Protocol):
    """A public key of any signature type, with its name."""

    @property
    def name(self) -> str:
        """Who signs with it."""

    @property
    def key_id(self) -> bytes:
        """The four bytes that its signatures begin with."""

    def verify(self, message: bytes, signature: bytes) -> None:
        """Raise SignatureError unless `signature` is this key's over a note's text `message`."""


class Verifier:
    """An Ed25519 public key with its name."""

    __slots__ = ("_key", "key_id", "name", "public")

    def __init__(self, name: str, public: bytes) -> None:
        """Take the raw 32 bytes; FormatError for a bad name, SignatureError for a weak key."""
        check_key_name(name)
        check_point(public, "public key")
        self.name = name
        self.public = public
        self.key_id = key_id(name, public)
        self._key = Ed25519PublicKey.from_public_bytes(public)

    @classmethod
    def from_vkey(cls, vkey: str) -> Verifier:
        """Read `name+id+key` as C2SP writes it; the id must be the one of this name and key."""
        name, ident, raw = split_vkey(vkey)
        if raw[:1] != ALGORITHM or len(raw) != 1 + KEY_SIZE:
            raise FormatError("verifier key is not an Ed25519 key of 32 bytes")
        verifier = cls(name, raw[1:])
        if ident != verifier.key_id:
            raise FormatError(f"verifier key id {ident.hex()} does not belong to this name and key")
        return verifier

    @property
    def vkey(self) -> str:
        """The public key as text, to be pinned in a trust file."""
        return f"{self.name}+{self.key_id.hex()}+{base64_text(ALGORITHM + self.public)}"

    def verify(self, message: bytes, signature: bytes) -> None:
        """Raise SignatureError unless `signature` is this key's over `message`."""
        check_signature(signature)
        try:
            self._key.verify(signature, message)
        except InvalidSignature as exc:
            raise SignatureError(f"signature by {self.name} does not verify") from exc


class Signer:
    """A private key with its name; it never shows the private half in a repr or an error."""

    __slots__ = ("_private", "verifier")

    def __init__(self, name: str, private: Ed25519PrivateKey) -> None:
        """Sign as `name`."""
        self._private = private
        self.verifier = Verifier(name, private.public_key().public_bytes_raw())

    @property
    def name(self) -> str:
        """The key's name."""
        return self.verifier.name

    @property
    def vkey(self) -> str:
        """The public half as text."""
        return self.verifier.vkey

    def sign(self, text: str) -> bytes:
        """A note over `text` with this signature alone."""
        return sign_note(text, [self])

    def line(self, message: bytes) -> str:
        """The signature line over the text's bytes."""
        return signature_line(self.name, self.verifier.key_id + self._private.sign(message))


def split_vkey(vkey: str) -> tuple[str, bytes, bytes]:
    """The name, the key id and the bytes (algorithm, then public key) of `name+id+key`."""
    name, _, rest = vkey.partition("+")
    ident, _, encoded = rest.partition("+")
    raw = base64_bytes(encoded, "verifier key")
    return name, hex_bytes(ident, "verifier key id", KEY_ID_SIZE), raw


def key_id(name: str, public: bytes, algorithm: bytes = ALGORITHM) -> bytes:
    """The first four bytes of SHA-256(name || newline || algorithm || public key)."""
    return sha256(name.encode() + b"\n" + algorithm + public).digest()[:KEY_ID_SIZE]


def signature_line(name: str, signature: bytes) -> str:
    """The line that says who signed; `signature` begins with the key id."""
    return f"{_DASH}{name} {base64_text(signature)}\n"


def sign_note(text: str, signers: Sequence[Signer]) -> bytes:
    """Write a note; FormatError unless `text` ends with a newline and has no control characters."""
    message = _encode_text(text)
    if not signers:
        raise FormatError("a note needs at least one signature")
    note = message + b"\n" + "".join(signer.line(message) for signer in signers).encode()
    parse_note(note)
    return note


def parse_note(note: bytes) -> Note:
    """Take a note apart without any trust: all signatures end up in `unverified`."""
    if len(note) > MAX_NOTE:
        raise FormatError(f"note is longer than {MAX_NOTE} bytes")
    try:
        whole = note.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise FormatError("note is not UTF-8") from exc
    text, gap, block = whole.rpartition("\n\n")
    if not gap or not block.endswith("\n"):
        raise FormatError("note has no signatures behind an empty line")
    text += "\n"
    _encode_text(text)
    lines = block[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise FormatError(f"note has more than {MAX_SIGNATURES} signatures")
    signatures = tuple(_parse_line(line) for line in lines)
    if len({(item.name, item.key_id) for item in signatures}) != len(signatures):
        raise FormatError("note has two signatures by the same key")
    return Note(text, (), signatures)


def open_note(note: bytes, verifiers: Sequence[NoteVerifier]) -> Note:
    """Parse a note and verify it: at least one of `verifiers` signed, and none of theirs is bad.

    Signatures by other keys are ignored, as the format demands, and stay in `unverified`.
    """
    parsed = parse_note(note)
    known = {(verifier.name, verifier.key_id): verifier for verifier in verifiers}
    message = parsed.text.encode()
    verified: list[Signature] = []
    unverified: list[Signature] = []
    for signature in parsed.unverified:
        verifier = known.get((signature.name, signature.key_id))
        if verifier is None:
            unverified.append(signature)
        else:
            verifier.verify(message, signature.value)
            verified.append(signature)
    if not verified:
        names = ", ".join(sorted({verifier.name for verifier in verifiers})) or "nobody"
        raise SignatureError(f"note has no signature by a trusted key (trusted: {names})")
    return Note(parsed.text, tuple(verified), tuple(unverified))


def parse_checkpoint(text: str) -> Checkpoint:
    """Read exactly three lines: origin, size, root. Extension lines are refused."""
    lines = text.split("\n")
    if len(lines) != 4 or lines[3]:  # three lines, each ended by a newline
        raise FormatError("checkpoint must have exactly three lines")
    origin, size_text, root_text, _ = lines
    check_key_name(origin)
    size = decimal_int(size_text, "checkpoint size", 0, MAX_TREE_SIZE)
    root = base64_bytes(root_text, "checkpoint root")
    if len(root) != HASH_SIZE:
        raise FormatError(f"checkpoint root must be 32 bytes, not {len(root)}")
    if size == 0 and root != EMPTY_ROOT:
        raise FormatError("checkpoint of an empty tree has another root than the empty one")
    return Checkpoint(origin, size, root)


def open_checkpoint(note: bytes, verifier: Verifier) -> Checkpoint:
    """Verify a checkpoint signed by the key that has the tree's origin as its name."""
    checkpoint = parse_checkpoint(open_note(note, [verifier]).text)
    if checkpoint.origin != verifier.name:
        raise FormatError(f"checkpoint is of {checkpoint.origin}, not of {verifier.name}")
    return checkpoint


def session_origin(log_origin: str, session: bytes, epoch: int) -> str:
    """The origin of a session epoch's tree, and the name of the key that signs it."""
    return f"{log_origin}/session/{session.hex()}/{epoch}"


def _parse_line(line: str) -> Signature:
    if not line.startswith(_DASH):
        raise FormatError("note has a signature line without its dash")
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    check_key_name(name)
    raw = base64_bytes(encoded, "note signature")
    if len(raw) <= KEY_ID_SIZE:
        raise FormatError("note signature is too short")
    return Signature(name, raw[:KEY_ID_SIZE], raw[KEY_ID_SIZE:])


def _encode_text(text: str) -> bytes:
    if not text.endswith("\n"):
        raise FormatError("a note's text must end with a newline")
    if _CONTROL.search(text) is not None:
        raise FormatError("a note's text must not have control characters")
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise FormatError("a note's text must be valid Unicode") from exc


def check_key_name(name: str) -> None:
    """Raise FormatError unless it can name a key or a tree."""
    if not 0 < len(name) <= MAX_NAME or "+" in name or not name.isprintable() or " " in name:
        raise FormatError(f"{name[:MAX_NAME]!r} is not a key name or origin")


def check_signature(signature: bytes) -> None:
    """Raise SignatureError for what no strict Ed25519 signer makes, before any arithmetic."""
    if len(signature) != SIGNATURE_SIZE:
        raise SignatureError(f"Ed25519 signature must be 64 bytes, not {len(signature)}")
    check_point(signature[:KEY_SIZE], "signature's R")
    if int.from_bytes(signature[KEY_SIZE:], "little") >= _ORDER:
        raise SignatureError("Ed25519 signature's S is not below the group order")


def check_point(encoded: bytes, what: str) -> None:
    """Raise unless these are 32 bytes, in their only encoding, of a point of large order."""
    if len(encoded) != KEY_SIZE:
        raise FormatError(f"{what} must be 32 bytes, not {len(encoded)}")
    y = int.from_bytes(encoded, "little") & (2**255 - 1)
    if y >= _FIELD:
        raise SignatureError(f"Ed25519 {what} is not in its only encoding")
    if y in _SMALL_ORDER_Y:
        raise SignatureError(f"Ed25519 {what} is of small order")
