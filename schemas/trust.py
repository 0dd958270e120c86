"""Which node keys are trusted, and the text form of a node's signing key.

`trust.toml` is the verifier's own file: it names the capture nodes whose OPEN frames count. It
never comes from the system being verified; the one that `sealtape init` writes is a beginning to
be copied to wherever verification runs.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sealtape.schemas.canonical import decode_base64, encode_base64
from sealtape.schemas.errors import FormatError
from sealtape.schemas.notes import Signer, Verifier

_KEY_MAGIC: Final = "sealtape-node-key-1"
_SEED_SIZE: Final = 32


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
    """Return the text of a node's private key file."""
    seed = private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    return f"{_KEY_MAGIC} {name} {encode_base64(seed)}\n"


def parse_node_key(text: str) -> Signer:
    """Return the signer of a node's private key file.

    Raises:
        FormatError: it is not such a file; the message never shows its content.
    """
    parts = text.split()
    if len(parts) != 3 or parts[0] != _KEY_MAGIC:
        msg = "This is not a node key file."
        raise FormatError(msg, hint=f'It must be one line: "{_KEY_MAGIC} NAME BASE64".')
    seed = decode_base64(parts[2], "node key")
    if len(seed) != _SEED_SIZE:
        msg = "The node key file holds a key of the wrong length."
        raise FormatError(msg, hint="Restore the file, or make a new node key and trust it.")
    return Signer(parts[1], Ed25519PrivateKey.from_private_bytes(seed))
