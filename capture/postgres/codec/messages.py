"""PostgreSQL's messages: their tables, the ones the gateway itself sends, and small parsers.

Source: "Frontend/Backend Protocol" of the PostgreSQL 18 manual. Integers are big-endian, strings
end in NUL. Everything here is bytes in, bytes out; malformed input raises `ProtocolViolation`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from struct import Struct, error

from sealtape.schemas.errors import FormatError

PROTOCOL_3_0 = 3 << 16
PROTOCOL_3_2 = 3 << 16 | 2
MAX_MESSAGE = 0x4000_0000
"""Bytes; the largest length field PostgreSQL itself accepts or sends is just below 1 GiB."""
MAX_NOTE = 4 << 10
"""Characters of an error message that are looked at before it is bounded to 1 KiB."""
MAX_ERROR = 32 << 10
"""Bytes of an ErrorResponse or NoticeResponse that are looked at."""

CLIENT_KINDS = b"BCDEFHPQSXcdfp"
SERVER_KINDS = b"123ACDEGHIKNRSTVWZcdnstv"

_length = Struct(">I").pack
_u32 = Struct(">I").unpack_from
_i16 = Struct(">h").unpack_from


class ProtocolViolation(FormatError):
    """A peer sent bytes that are not PostgreSQL's protocol; the connection cannot go on."""

    code = "postgres-protocol"


def message(kind: bytes, body: bytes = b"") -> bytes:
    """One message of a kind (one byte) with its length."""
    return kind + _length(len(body) + 4) + body


def cstring(text: str | bytes) -> bytes:
    """A NUL-terminated string; a NUL inside raises `ProtocolViolation`."""
    raw = text.encode() if isinstance(text, str) else text
    if b"\0" in raw:
        raise ProtocolViolation("A string with a NUL byte cannot be sent in a PostgreSQL message.")
    return raw + b"\0"


# -- towards the client -------------------------------------------------------------------------


def error_response(
    sqlstate: str, text: str, *, severity: str = "FATAL", hint: str = "", detail: str = ""
) -> bytes:
    """An ErrorResponse. `sqlstate` is five characters, `text` the primary message."""
    return message(b"E", _fields(severity, sqlstate, text, hint, detail))


def notice_response(text: str, *, sqlstate: str = "00000", hint: str = "") -> bytes:
    """A NoticeResponse of severity NOTICE; libpq prints it to stderr."""
    return message(b"N", _fields("NOTICE", sqlstate, text, hint, ""))


def _fields(severity: str, sqlstate: str, text: str, hint: str, detail: str) -> bytes:
    parts = [("S", severity), ("V", severity), ("C", sqlstate), ("M", text), ("D", detail)]
    parts.append(("H", hint))
    body = b"".join(
        key.encode() + cstring(value.replace("\0", "")) for key, value in parts if value
    )
    return body + b"\0"


AUTHENTICATION_OK = message(b"R", _length(0))
AUTHENTICATION_CLEARTEXT = message(b"R", _length(3))


def parameter_status(name: str, value: str) -> bytes:
    """A ParameterStatus."""
    return message(b"S", cstring(name) + cstring(value))


def backend_key_data(process: int, key: bytes) -> bytes:
    """A BackendKeyData; a 3.0 client takes 4 bytes of key, a 3.2 client up to 256."""
    if not 4 <= len(key) <= 256:
        raise ProtocolViolation(f"A cancel key has 4 to 256 bytes, not {len(key)}.")
    return message(b"K", _length(process & 0xFFFF_FFFF) + key)


def negotiate_protocol_version(version: int, unsupported: Sequence[str]) -> bytes:
    """A NegotiateProtocolVersion: the newest version we speak and the options we do not know."""
    body = _length(version) + _length(len(unsupported))
    return message(b"v", body + b"".join(cstring(name) for name in unsupported))


def ready_for_query(status: bytes = b"I") -> bytes:
    """A ReadyForQuery; `status` is I (idle), T (in a transaction) or E (in a failed one)."""
    return message(b"Z", status)


# -- towards the target -------------------------------------------------------------------------

SSL_REQUEST = _length(8) + _length(80877103)
TERMINATE = message(b"X")


def startup(parameters: Mapping[str, str], version: int = PROTOCOL_3_0) -> bytes:
    """A StartupMessage with the parameters in their order."""
    pairs = b"".join(cstring(key) + cstring(value) for key, value in parameters.items())
    body = _length(version) + pairs + b"\0"
    return _length(len(body) + 4) + body


def cancel_request(process: int, key: bytes) -> bytes:
    """A CancelRequest."""
    body = _length(80877102) + _length(process) + key
    return _length(len(body) + 4) + body


def password_message(secret: str | bytes) -> bytes:
    """A PasswordMessage: cleartext, or what `scram.md5_password` computed."""
    return message(b"p", cstring(secret))


def sasl_initial_response(mechanism: str, data: bytes) -> bytes:
    """A SASLInitialResponse."""
    return message(b"p", cstring(mechanism) + _length(len(data)) + data)


def sasl_response(data: bytes) -> bytes:
    """A SASLResponse."""
    return message(b"p", data)


# -- parsers ------------------------------------------------------------------------------------


def parse_length(header: bytes, *, limit: int = MAX_MESSAGE) -> int:
    """Length of the body that follows a five-byte header; refuses what is over `limit` bytes."""
    if len(header) != 5:
        raise ProtocolViolation(f"A message header has 5 bytes, not {len(header)}.")
    (size,) = _u32(header, 1)
    if not 4 <= size <= limit:
        raise ProtocolViolation(f"A message of kind {header[0]:#04x} claims a length of {size}.")
    return int(size) - 4


def strings(body: bytes, start: int = 0) -> tuple[list[str], int]:
    """NUL-terminated strings from `start` to the empty one or the end; and where they end."""
    found: list[str] = []
    while start < len(body):
        stop = body.find(b"\0", start)
        if stop < 0:
            raise ProtocolViolation("A string does not end within its message.")
        if stop == start:
            return found, stop + 1
        found.append(body[start:stop].decode("utf-8", "replace"))
        start = stop + 1
    return found, start


def fields(body: bytes) -> dict[str, str]:
    """Fields of an ErrorResponse or NoticeResponse by their one-letter key.

    Never raises: a body without its end (a truncated prefix) gives the fields that are whole and
    what there is of the last one. The first of two fields with one key wins.
    """
    found: dict[str, str] = {}
    start = 0
    while start < len(body) and body[start]:
        stop = body.find(b"\0", start + 1)
        if stop < 0:
            stop = len(body)
        key = chr(body[start])
        found.setdefault(key, body[start + 1 : stop].decode("utf-8", "replace"))
        start = stop + 1
    return found


def authentication(body: bytes) -> tuple[int, bytes]:
    """Code of an Authentication message and what comes after it."""
    if len(body) < 4:
        raise ProtocolViolation("An Authentication message is shorter than its code.")
    return int(_u32(body)[0]), body[4:]


def key_data(body: bytes) -> tuple[int, bytes]:
    """Process number and key of a BackendKeyData."""
    if not 8 <= len(body) <= 260:
        raise ProtocolViolation(f"A BackendKeyData of {len(body)} bytes.")
    return int(_u32(body)[0]), body[4:]


def parameter(body: bytes) -> tuple[str, str]:
    """Name and value of a ParameterStatus."""
    parts = body.split(b"\0")
    if len(parts) != 3 or parts[2]:
        raise ProtocolViolation("A ParameterStatus does not hold two strings.")
    return parts[0].decode("utf-8", "replace"), parts[1].decode("utf-8", "replace")


def negotiated(body: bytes) -> tuple[int, list[str]]:
    """Newest version and unknown options of a NegotiateProtocolVersion."""
    if len(body) < 8:
        raise ProtocolViolation("A NegotiateProtocolVersion is too short.")
    (version,), (count,) = _u32(body), _u32(body, 4)
    names = body[8:].split(b"\0")[:-1]
    if len(names) != count:
        raise ProtocolViolation("A NegotiateProtocolVersion miscounts its options.")
    return int(version), [name.decode("utf-8", "replace") for name in names]


def row_description(body: bytes) -> list[tuple[str, int, int]]:
    """Columns of a RowDescription: name, type OID, format (0 text, 1 binary)."""
    try:
        (count,) = _i16(body)
        found = []
        start = 2
        for _ in range(count):
            stop = body.index(b"\0", start)
            name = body[start:stop].decode("utf-8", "replace")
            found.append((name, int(_u32(body, stop + 7)[0]), int(_i16(body, stop + 17)[0])))
            start = stop + 19
    except (error, ValueError) as cause:
        raise ProtocolViolation("A RowDescription is malformed.") from cause
    return found


def data_row(body: bytes | bytearray) -> list[bytes | None]:
    """Values of a DataRow (None for NULL)."""
    values, _ = _values(body, 0)
    return values


def _values(body: bytes | bytearray, start: int) -> tuple[list[bytes | None], int]:
    try:
        (count,) = _i16(body, start)
        found: list[bytes | None] = []
        start += 2
        for _ in range(count):
            (size,) = _u32(body, start)
            start += 4
            if size == 0xFFFF_FFFF:
                found.append(None)
                continue
            value = bytes(body[start : start + size])
            if len(value) != size:
                raise ProtocolViolation("A value is longer than its message.")
            found.append(value)
            start += size
    except error as cause:
        raise ProtocolViolation("A list of values is malformed.") from cause
    return found, start


def bind(
    body: bytes | bytearray,
) -> tuple[str, str, list[int], list[bytes | None], list[int]]:
    """Portal, statement, parameter formats, parameters and result formats of a Bind."""
    raw = bytes(body)
    try:
        stop = raw.index(b"\0")
        after = raw.index(b"\0", stop + 1)
        portal, name = raw[:stop].decode("utf-8", "replace"), raw[stop + 1 : after]
        formats, start = _codes(raw, after + 1)
        values, start = _values(raw, start)
        results, _ = _codes(raw, start)
    except (error, ValueError) as cause:
        raise ProtocolViolation("A Bind is malformed.") from cause
    return portal, name.decode("utf-8", "replace"), formats, values, results


def _codes(body: bytes, start: int) -> tuple[list[int], int]:
    (count,) = _i16(body, start)
    codes: Iterable[tuple[int, ...]] = (_i16(body, start + 2 + 2 * i) for i in range(count))
    return [int(code) for (code,) in codes], start + 2 + 2 * max(count, 0)
