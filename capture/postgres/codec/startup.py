"""What a client may send before its session: the first packets, read and judged.

A first packet has no kind byte: a length, a code, a body. PostgreSQL takes at most 10,000 bytes of
it, and so do we. `read_first` says what it is; `admit` says which of a StartupMessage's parameters
go on to the target. Nothing is forwarded that is not on a list: a setting can change what a
statement means (`search_path`, CVE-2025-12819) or what the session is (`replication`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from struct import Struct

from sealtape.capture.postgres.codec.messages import (
    PROTOCOL_3_2,
    ProtocolViolation,
    negotiate_protocol_version,
)

MAX_FIRST = 10_000
"""Bytes of a first packet with its length; PostgreSQL's own limit."""
MAX_KEY = 256
TLS_HANDSHAKE = 0x16
"""First byte of a client that starts with TLS at once (`sslnegotiation=direct`)."""
TLS_ALPN = "postgresql"
"""What such a client has to offer by ALPN."""

_CANCEL, _SSL, _GSSENC = 80877102, 80877103, 80877104
_two = Struct(">II").unpack_from
_one = Struct(">I").unpack_from


class UnsupportedProtocol(ProtocolViolation):
    """A client asked for a protocol other than 3; it is told so with SQLSTATE 0A000."""

    code = "postgres-version"


class ParameterRefused(ProtocolViolation):
    """A startup parameter is not allowed for this target; SQLSTATE 0A000."""

    code = "postgres-parameter"


@dataclass(frozen=True, slots=True)
class SSLRequest:
    """The client asks for TLS: answer `S` or `N`, once."""


@dataclass(frozen=True, slots=True)
class GSSENCRequest:
    """The client asks for GSSAPI encryption: answer `N`, never an error."""


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """Cancel what the session with this key runs; nothing is answered."""

    process: int
    key: bytes


@dataclass(frozen=True, slots=True)
class Startup:
    """A StartupMessage: version (major << 16 | minor), parameters, protocol options."""

    version: int
    parameters: Mapping[str, str]
    options: tuple[str, ...]
    """Names of `_pq_.` protocol extensions; we know none."""

    @property
    def key_bytes(self) -> int:
        """How long a cancel key this client can take."""
        return 32 if self.version >= PROTOCOL_3_2 else 4

    @property
    def negotiation(self) -> bytes:
        """The NegotiateProtocolVersion this client has to be sent, `b""` if none."""
        if self.version <= PROTOCOL_3_2 and not self.options:
            return b""
        return negotiate_protocol_version(min(self.version, PROTOCOL_3_2), self.options)


First = SSLRequest | GSSENCRequest | CancelRequest | Startup


def first_length(header: bytes) -> int:
    """Bytes that follow the first four of a first packet. Raises on what no client sends."""
    if len(header) != 4:
        raise ProtocolViolation(f"A first packet starts with 4 bytes of length, not {len(header)}.")
    (size,) = _one(header)
    if not 8 <= size <= MAX_FIRST:
        raise ProtocolViolation(f"A first packet claims a length of {size}.")
    return int(size) - 4


def read_first(body: bytes) -> First:
    """Read a first packet (what follows its length)."""
    if len(body) < 4:
        raise ProtocolViolation("A first packet is shorter than its code.")
    (code,) = _one(body)
    if code in (_SSL, _GSSENC):
        if len(body) != 4:
            raise ProtocolViolation("An encryption request has bytes after its code.")
        return SSLRequest() if code == _SSL else GSSENCRequest()
    if code == _CANCEL:
        if not 12 <= len(body) <= 8 + MAX_KEY:
            raise ProtocolViolation(f"A CancelRequest of {len(body)} bytes.")
        return CancelRequest(int(_two(body)[1]), body[8:])
    if code >> 16 != 3:
        raise UnsupportedProtocol(
            f"Protocol {code >> 16}.{code & 0xFFFF} is not spoken here; 3.0 to 3.2 are."
        )
    return _read_startup(int(code), body)


def _read_startup(version: int, body: bytes) -> Startup:
    found: dict[str, str] = {}
    options = []
    start = 4
    while body[start : start + 1] not in (b"", b"\0"):
        stop = body.find(b"\0", start)
        after = body.find(b"\0", stop + 1)
        if stop < 0 or after < 0:
            raise ProtocolViolation("A startup parameter does not end within its packet.")
        name = body[start:stop].decode("utf-8", "replace")
        value = body[stop + 1 : after].decode("utf-8", "replace")
        if name.startswith("_pq_."):
            options.append(name)
        elif name in found:
            raise ProtocolViolation(f"Startup parameter {name!r} is given twice.")
        else:
            found[name] = value
        start = after + 1
    if start != len(body) - 1:
        raise ProtocolViolation("A StartupMessage does not end where it should.")
    return Startup(version, found, tuple(options))


# -- the target's name ----------------------------------------------------------------------------

_TARGET = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def target_of(parameters: Mapping[str, str]) -> tuple[str, str | None]:
    """Target and other database a client names: `orders`, or `orders/otherdb`.

    As with PostgreSQL, a client that names no database means one called like its user. Raises
    `ProtocolViolation` where the name cannot be a target's.
    """
    named = parameters.get("database") or parameters.get("user", "")
    target, slash, other = named.partition("/")
    if not _TARGET.fullmatch(target) or bool(slash) != bool(other) or len(other.encode()) > 63:
        raise ProtocolViolation("The database names no target; it is TARGET or TARGET/DATABASE.")
    return target, other or None


# -- startup parameters ---------------------------------------------------------------------------

SAFE_PARAMETERS = frozenset(
    (
        "application_name",
        "client_encoding",
        "client_min_messages",
        "datestyle",
        "extra_float_digits",
        "idle_in_transaction_session_timeout",
        "intervalstyle",
        "lock_timeout",
        "statement_timeout",
        "timezone",
        "transaction_timeout",
    )
)
"""What every target takes, in lower case: how values look, and how long the client waits."""
RUN = "sealtape.run"
MAX_RUN = 128
_RUN = re.compile(r"(?:^|[\s;,])sealtape\.run=([\x21-\x2b\x2d-\x3a\x3c-\x7e]+)")
_NEVER = frozenset(("user", "database", "replication", "options"))
_FALSE = frozenset(("false", "off", "no", "0", ""))


@dataclass(frozen=True, slots=True)
class Admission:
    """What of a StartupMessage goes on, and what it says of the client."""

    forward: Mapping[str, str]
    """Parameters for the target's StartupMessage; user and database are the target's own."""
    application: str
    """The client's `application_name`, `""` if none."""
    run: str
    """The run id an agent states, `""` if none."""
    replication: str
    """`""`, or the value of a `replication` the target allows."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """`name=value` of all that the target is given of what the client asked for, in order."""
        asked = dict(self.forward)
        if self.replication:
            asked["replication"] = self.replication
        return tuple(f"{name}={value}" for name, value in asked.items())


def admit(
    startup: Startup, *, allowed: Collection[str] = (), replication: bool = False
) -> Admission:
    """Judge the parameters; `allowed` are the names (any case) the target takes beyond the safe.

    Raises `ParameterRefused` for what is not allowed: to leave it out silently could change what
    the client's statements mean.
    """
    wanted = {key: value for key, value in startup.parameters.items() if key not in _NEVER}
    settings = dict(options_of(startup.parameters.get("options", "")))
    run = settings.pop(RUN, "") or wanted.pop(RUN, "")
    wanted.update(settings)
    known = SAFE_PARAMETERS.union(name.lower() for name in allowed) - _NEVER
    for name in wanted:
        if name.lower() not in known:
            raise ParameterRefused(f"Startup parameter {_shown(name)} is not allowed here.")
    streaming = startup.parameters.get("replication", "")
    if streaming.lower() in _FALSE:
        streaming = ""
    elif not replication:
        raise ParameterRefused("Replication connections are not allowed here.")
    application = wanted.get("application_name", "")
    if not run and (stated := _RUN.search(application)) is not None:
        run = stated[1]
    return Admission(wanted, application, run[:MAX_RUN], streaming)


def _shown(name: str) -> str:
    return repr(name[:63])


def options_of(options: str) -> list[tuple[str, str]]:
    """Settings of the `options` parameter: `-c name=value`, `-cname=value` or `--name=value`.

    Words are separated by white space, a backslash takes the next character as it is. Any other
    switch of the server's command line raises `ParameterRefused`.
    """
    words = iter(_words(options))
    found = []
    for word in words:
        if word.startswith("--"):
            setting = word[2:]
        elif word.startswith("-c"):
            setting = word[2:] or next(words, "")
        else:
            raise ParameterRefused(f"Only settings are taken in options, not {_shown(word)}.")
        name, equals, value = setting.partition("=")
        if not name or not equals:
            raise ParameterRefused(f"An option is NAME=VALUE, not {_shown(setting)}.")
        found.append((name if name == RUN else name.replace("-", "_"), value))
    return found


def _words(options: str) -> list[str]:
    words = re.findall(r"(?:\\.|[^\s\\])+", options, re.DOTALL)
    return [re.sub(r"\\(.)", r"\1", word, flags=re.DOTALL) for word in words]
