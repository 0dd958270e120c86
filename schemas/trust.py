"""Which node keys are trusted, and the file of a node's private key.

`trust.toml` is the verifier's own file: it names the capture nodes whose OPEN frames count. It
never comes from the system being verified; the one that `sealtape init` writes is a beginning to
be copied to wherever verification runs.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sealtape.schemas.canonical import base64_bytes, base64_text
from sealtape.schemas.errors import FormatError
from sealtape.schemas.notes import Signer, Verifier, key_id

_PRIVATE: Final = "PRIVATE+KEY+"
_ED25519: Final = b"\x01"


@dataclass(frozen=True, slots=True)
class Trust:
    """The trusted node keys, as C2SP verifier keys."""

    nodes: tuple[Verifier, ...]


def parse_trust(text: str) -> Trust:
    """Return the trust that a `trust.toml` states.

    Raises:
        FormatError: it is not TOML, a node has no `vkey`, or a key is malformed.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        msg = f"The trust file is not valid TOML: {exc}."
        raise FormatError(msg, hint="Restore it from where you keep the trusted keys.") from exc
    nodes = document.get("node", [])
    unknown = sorted(set(document) - {"node"})
    if unknown or not isinstance(nodes, list):
        msg = f"The trust file has an unknown entry: {', '.join(unknown) or 'node'}."
        raise FormatError(
            msg, hint='Each trusted node is a [[node]] table with one key, `vkey = "…"`.'
        )
    return Trust(tuple(_verifier(entry) for entry in nodes))


def _verifier(entry: object) -> Verifier:
    if not isinstance(entry, dict) or set(entry) != {"vkey"} or not isinstance(entry["vkey"], str):
        msg = "A [[node]] of the trust file must have exactly one key, `vkey`."
        raise FormatError(
            msg,
            hint="`sealtape init` prints a node's vkey; it is also in the node's own trust.toml.",
        )
    return Verifier.from_vkey(entry["vkey"])


def format_trust(vkeys: list[str]) -> str:
    """Return the text of a `trust.toml` that trusts some node keys."""
    head = "# The capture nodes whose recordings count. Keep a copy where verification runs.\n"
    return head + "".join(f'\n[[node]]\nvkey = "{vkey}"\n' for vkey in vkeys)


def format_node_key(name: str, private: Ed25519PrivateKey) -> str:
    """Return the text of a node's private key file: the form of Go's sumdb/note."""
    ident = key_id(name, private.public_key().public_bytes_raw())
    return f"{_PRIVATE}{name}+{ident.hex()}+{base64_text(_ED25519 + private.private_bytes_raw())}\n"


def parse_node_key(text: str) -> Signer:
    """Return the signer of a node's private key file.

    Raises:
        FormatError: it is not such a file; the message never shows its content.
    """
    hint = "Restore the file, or make a new key, trust it, and keep trusting the old one."
    line = text.removesuffix("\n")
    parts = line.removeprefix(_PRIVATE).split("+", 2)
    if not line.startswith(_PRIVATE) or len(parts) != 3:
        msg = "This is not a node key file."
        raise FormatError(msg, hint=hint)
    raw = base64_bytes(parts[2], "node key")
    if raw[:1] != _ED25519 or len(raw) != 33:
        msg = "The node key file does not hold an Ed25519 key."
        raise FormatError(msg, hint=hint)
    signer = Signer(parts[0], Ed25519PrivateKey.from_private_bytes(raw[1:]))
    if parts[1] != signer.vkey.split("+")[1]:
        msg = "The node key file's id does not belong to its name and key."
        raise FormatError(msg, hint=hint)
    return signer
