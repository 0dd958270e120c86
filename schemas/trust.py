"""Which node keys are trusted.

`trust.toml` is the verifier's own file: it names the capture nodes whose OPEN frames count. It
never comes from the system being verified; the one that `sealtape init` writes is a beginning to
be copied to wherever verification runs.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass

from sealtape.schemas.errors import FormatError
from sealtape.schemas.notes import Verifier


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
