r"""Values as people read them: PostgreSQL's text format, and its binary format of common types.

A binary value of another type, or one that does not fit its type, is shown as `\x` and hex.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from ipaddress import ip_address
from struct import Struct, error
from uuid import UUID

_EPOCH = datetime(2000, 1, 1)  # noqa: DTZ001 - PostgreSQL's timestamps without time zone
_EPOCH_UTC = _EPOCH.replace(tzinfo=UTC)
_EPOCH_DATE = _EPOCH.date()
_INFINITE = {(1 << 63) - 1: "infinity", -(1 << 63): "-infinity"}
_INFINITE_DATE = {(1 << 31) - 1: "infinity", -(1 << 31): "-infinity"}


def _number(layout: str) -> Callable[[bytes], str]:
    unpack = Struct(layout).unpack

    def decode(value: bytes) -> str:
        return str(unpack(value)[0])

    return decode


def _float(layout: str, digits: str) -> Callable[[bytes], str]:
    unpack = Struct(layout).unpack

    def decode(value: bytes) -> str:
        (found,) = unpack(value)
        return format(found, digits) if digits else repr(found)

    return decode


_i32 = Struct(">i").unpack
_i64 = Struct(">q").unpack
_HEAD = Struct(">HhHH")
_SPECIAL = {0xC000: "NaN", 0xD000: "Infinity", 0xF000: "-Infinity"}


def _bool(value: bytes) -> str:
    return {b"\0": "f", b"\1": "t"}[value]


def _text(value: bytes) -> str:
    return value.decode()


def _jsonb(value: bytes) -> str:
    if value[0] != 1:
        raise ValueError(value[0])
    return value[1:].decode()


def _bytea(value: bytes) -> str:
    return "\\x" + value.hex()


def _uuid(value: bytes) -> str:
    return str(UUID(bytes=value))


def _date(value: bytes) -> str:
    (days,) = _i32(value)
    return _INFINITE_DATE.get(days) or str(_EPOCH_DATE + timedelta(days=days))


def _time(value: bytes) -> str:
    (microseconds,) = _i64(value)
    return str((_EPOCH + timedelta(microseconds=microseconds)).time())


def _timestamp(value: bytes) -> str:
    (microseconds,) = _i64(value)
    return _INFINITE.get(microseconds) or str(_EPOCH + timedelta(microseconds=microseconds))


def _timestamptz(value: bytes) -> str:
    (microseconds,) = _i64(value)
    return _INFINITE.get(microseconds) or str(_EPOCH_UTC + timedelta(microseconds=microseconds))


def _interval(value: bytes) -> str:
    microseconds, days, months = _i64(value[:8])[0], *Struct(">ii").unpack(value[8:])
    parts = [f"{months} mons"] if months else []
    parts += [f"{days} days"] if days else []
    seconds = Decimal(microseconds) / 1_000_000
    parts += [f"{seconds} s"] if microseconds or not parts else []
    return " ".join(parts)


def _numeric(value: bytes) -> str:
    count, weight, sign, scale = _HEAD.unpack(value[:8])
    if sign in _SPECIAL:
        return _SPECIAL[sign]
    digits = Struct(f">{count}H").unpack(value[8:])
    if sign not in (0, 0x4000) or any(digit > 9999 for digit in digits):
        raise ValueError(sign)
    text = "".join(f"{digit:04d}" for digit in digits)
    point = (weight + 1) * 4
    text = text.ljust(point, "0") if point > 0 else "0" * -point + text
    whole, part = (text[:point], text[point:]) if point > 0 else ("", text)
    part = part.ljust(scale, "0")[:scale]
    shown = (whole.lstrip("0") or "0") + ("." + part if scale else "")
    return "-" + shown if sign else shown


def _inet(value: bytes) -> str:
    family, bits, cidr, size = value[:4]
    address = ip_address(value[4:])
    if family not in (2, 3) or size != len(value) - 4:
        raise ValueError(family)
    return str(address) if not cidr and bits == size * 8 else f"{address}/{bits}"


_TYPES: dict[int, Callable[[bytes], str]] = {
    16: _bool,
    17: _bytea,
    18: _text,
    19: _text,
    20: _number(">q"),
    21: _number(">h"),
    23: _number(">i"),
    25: _text,
    26: _number(">I"),
    114: _text,
    142: _text,
    650: _inet,
    700: _float(">f", ".9g"),
    701: _float(">d", ""),
    705: _text,
    869: _inet,
    1042: _text,
    1043: _text,
    1082: _date,
    1083: _time,
    1114: _timestamp,
    1184: _timestamptz,
    1186: _interval,
    1700: _numeric,
    2950: _uuid,
    3802: _jsonb,
}
TYPE_NAMES: dict[int, str] = {
    16: "bool", 17: "bytea", 18: "char", 19: "name", 20: "int8", 21: "int2", 23: "int4",
    25: "text", 26: "oid", 114: "json", 142: "xml", 650: "cidr", 700: "float4", 701: "float8",
    705: "unknown", 869: "inet", 1042: "bpchar", 1043: "varchar", 1082: "date", 1083: "time",
    1114: "timestamp", 1184: "timestamptz", 1186: "interval", 1700: "numeric", 2950: "uuid",
    3802: "jsonb",
}  # fmt: skip


def show(value: bytes | None, oid: int, code: int) -> str | None:
    """One value: `oid` is its type (0 unknown), `code` 0 for text or 1 for binary format."""
    if value is None:
        return None
    if code == 0:
        return value.decode("utf-8", "replace")
    decode = _TYPES.get(oid)
    if decode is not None:
        try:
            return decode(value)
        except (error, ValueError, OverflowError, KeyError, IndexError):
            pass
    return _bytea(value)


def show_all(
    values: Sequence[bytes | None], oids: Sequence[int], codes: Sequence[int]
) -> list[str | None]:
    """A row or a list of parameters; `codes` is one per value, one for all, or none (text)."""
    if len(codes) <= 1:
        codes = [codes[0] if codes else 0] * len(values)
    padded = [*oids, *[0] * len(values)]
    codes = [*codes, *[0] * len(values)]
    return [show(value, oid, code) for value, oid, code in zip(values, padded, codes, strict=False)]


def literal(value: str | None) -> str:
    """A parameter's spelling in a fact: NULL, or a JSON string."""
    return "NULL" if value is None else json.dumps(value, ensure_ascii=False)
