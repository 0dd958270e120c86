"""Values of the settings file that TOML has no type for: sizes, durations, names, secrets.

Each parser takes what TOML gave and returns the typed value, or raises `ValueError` with the
expectation in words; the loader adds which key it was.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sealtape.schemas.layout import is_name

_SIZE_UNITS: Final = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_DURATION_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SIZE = re.compile(r"(\d+)\s*([KMGT]iB|B|)")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+):(\d{1,5})")

LONGEST_S: Final = 1000 * 366 * 86400
"""The longest duration, a thousand years: what is longer is a slip, or `inf`."""

Parser = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Secret:
    """Where a secret is to be read from; the settings never carry the secret of a file or variable.

    Attributes:
        source: `file`, `env`, `provider` or `inline`.
        reference: the path, variable name or provider reference; for `inline` the secret itself.
    """

    source: str
    reference: str

    def __repr__(self) -> str:
        """Never print an inline secret."""
        shown = "…" if self.source == "inline" else self.reference
        return f"Secret({self.source}: {shown})"


def parse_size(value: Any) -> int:
    """Return bytes of `65536`, `"64KiB"`, `"1GiB"`."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        msg = 'a size such as 65536, "64KiB" or "1GiB"'
        raise ValueError(msg)
    return int(match[1]) * _SIZE_UNITS[match[2]]


def parse_duration(value: Any) -> float:
    """Return seconds of `5`, `0.5`, `"200ms"`, `"8h"`, `"90d"`."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is not None:
        value = float(match[1]) * _DURATION_UNITS[match[2]]
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or not 0 <= value <= LONGEST_S:
        msg = 'a duration such as 5, "200ms", "8h" or "90d", at most 1000 years'
        raise ValueError(msg)
    return float(value)


def period(minimum_s: float) -> Parser:
    """Return a parser of durations that are waited for again and again, or that must not be over.

    Without a pause between them, what is done at each never leaves room for anything else.
    """

    def parse(value: Any) -> float:
        seconds = parse_duration(value)
        if seconds < minimum_s:
            msg = f"a duration of at least {minimum_s:g} s"
            raise ValueError(msg)
        return seconds

    return parse


def size_from(minimum: int) -> Parser:
    """Return a parser of sizes with a least one, in bytes."""

    def parse(value: Any) -> int:
        size = parse_size(value)
        if size < minimum:
            msg = f"a size of at least {minimum} bytes"
            raise ValueError(msg)
        return size

    return parse


def text(value: Any) -> str:
    """Return a non-empty string."""
    if not isinstance(value, str) or not value:
        msg = "a non-empty string"
        raise ValueError(msg)
    return value


def name(value: Any) -> str:
    """Return a name that may stand in object keys: lower-case letters, digits, `_`, `-`."""
    if not isinstance(value, str) or not is_name(value):
        msg = "a name of lower-case letters, digits, '-' and '_', at most 63 characters"
        raise ValueError(msg)
    return value


def texts(value: Any) -> tuple[str, ...]:
    """Return a list of strings as a tuple."""
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        msg = "a list of strings"
        raise ValueError(msg)
    return tuple(value)


def boolean(value: Any) -> bool:
    """Return `true` or `false`, nothing that merely looks like it."""
    if not isinstance(value, bool):
        msg = "true or false"
        raise ValueError(msg)  # noqa: TRY004 - one exception type for the loader
    return value


def whole(minimum: int, maximum: int) -> Parser:
    """Return a parser of whole numbers within bounds, both included."""

    def parse(value: Any) -> int:
        good = isinstance(value, int) and not isinstance(value, bool)
        if not good or not minimum <= value <= maximum:
            msg = f"a whole number from {minimum} to {maximum}"
            raise ValueError(msg)
        return int(value)

    return parse


def one_of(*choices: str) -> Parser:
    """Return a parser of one of some words."""

    def parse(value: Any) -> str:
        if value not in choices:
            msg = "one of " + ", ".join(f'"{choice}"' for choice in choices)
            raise ValueError(msg)
        return str(value)

    return parse


def optional(parse: Parser) -> Parser:
    """Return a parser of the same, or of the empty string for "none"."""

    def either(value: Any) -> Any:
        return "" if value == "" else parse(value)

    return either


def can_be_host(name: str) -> bool:
    """Whether a name can be asked for: Python's resolver raises no OSError for one that cannot."""
    try:
        return bool(name) and bool(name.encode("idna"))
    except UnicodeError:  # two dots in a row, or more than 63 characters between them
        return False


def address(value: Any) -> str:
    """Return `host:port`; an IPv6 host stands in brackets."""
    match = _HOST_PORT.fullmatch(value) if isinstance(value, str) else None
    if match is None or int(match[2]) > 65535 or not can_be_host(match[1].strip("[]")):
        msg = 'an address "host:port" (an IPv6 host in brackets)'
        raise ValueError(msg)
    return str(value)


def split_address(value: str) -> tuple[str, int]:
    """Return host (without brackets) and port of a checked address."""
    host, _, port = value.rpartition(":")
    return host.strip("[]"), int(port)


def secret(value: Any) -> Secret:
    """Return where to read a secret: `{file=…}`, `{env=…}`, `{provider=…}`, or a string."""
    if isinstance(value, str) and value:
        return Secret("inline", value)
    if isinstance(value, dict) and len(value) == 1:
        ((source, reference),) = value.items()
        if source in {"file", "env", "provider"} and isinstance(reference, str) and reference:
            return Secret(source, reference)
    msg = 'a secret reference: { file = "…" }, { env = "…" } or { provider = "…" }'
    raise ValueError(msg)


def store_url(value: Any) -> str:
    """Return a store URL `scheme:rest`."""
    if not isinstance(value, str) or not re.fullmatch(r"[a-z][a-z0-9+]*:.+", value):
        msg = 'a store URL such as "dir:bus" or "sqlite:ledger.db"'
        raise ValueError(msg)
    return value


def http_url(value: Any) -> str:
    """Return the `http://` or `https://` address of a server."""
    if not isinstance(value, str) or not re.fullmatch(r"https?://[!-~]+", value):
        msg = 'a server\'s address such as "https://HOST:PORT"'
        raise ValueError(msg)
    return value


def key_source(value: Any) -> str:
    """Return `file:PATH` or an `https://` address of a JWKS document."""
    if not isinstance(value, str) or not value.startswith(("file:", "https://")):
        msg = 'where the key set is: "file:PATH" or "https://…"'
        raise ValueError(msg)
    return value
