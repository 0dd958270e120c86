"""Avro's binary primitives, strict, and its single-object header.

A value has one byte string: the encoders write the shortest varint and one array block, and the
decoders refuse everything else Avro would let pass (overlong varints, several blocks, blocks with a
byte size, unsorted or repeated map keys, text that is not UTF-8, trailing bytes). Rules:
docs/spec/messages.md.

Decoders take `bytes` and a position, and return the value and the position after it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeVar

from sealtape.schemas.avro import FINGERPRINTS
from sealtape.schemas.errors import FormatError

__all__ = [
    "MARKER",
    "PREFIX_SIZE",
    "clip",
    "encode_array",
    "encode_bytes",
    "encode_long",
    "encode_map",
    "encode_string",
    "end",
    "fingerprint",
    "parsing_canonical_form",
    "prefix",
    "read_array",
    "read_bytes",
    "read_fixed",
    "read_long",
    "read_map",
    "read_string",
    "read_within",
]

MARKER = b"\xc3\x01"
PREFIX_SIZE = 10

_LONG_SHIFT = 63
# Varints are put together from pairs of 7-bit groups that are looked up: pairs that end one, and
# pairs that go on. Making the bytes anew each time is what the encoders' time would go into.
_PAIR = 0x4000
_LAST = tuple(bytes((z,) if z < 0x80 else (z & 0x7F | 0x80, z >> 7)) for z in range(_PAIR))
_MORE = tuple(bytes((z & 0x7F | 0x80, z >> 7 | 0x80)) for z in range(_PAIR))

T = TypeVar("T")


# -- schemas ---------------------------------------------------------------------------------------


def prefix(name: str) -> bytes:
    """Return what stands before a datum of a schema: `C3 01` and its fingerprint, little-endian."""
    return MARKER + FINGERPRINTS[name].to_bytes(8, "little")


def parsing_canonical_form(schema: Any) -> str:
    """Return Avro's parsing canonical form of a schema given as parsed JSON."""
    return _canonical(schema, "")


_PRIMITIVES = frozenset(("null", "boolean", "int", "long", "float", "double", "bytes", "string"))


def _canonical(schema: Any, namespace: str) -> str:
    if isinstance(schema, list):
        return "[" + ",".join(_canonical(branch, namespace) for branch in schema) + "]"
    if isinstance(schema, str):
        if schema in _PRIMITIVES or "." in schema or not namespace:
            return json.dumps(schema)
        return json.dumps(f"{namespace}.{schema}")
    kind = schema["type"]
    if kind in _PRIMITIVES:
        return json.dumps(kind)
    if kind == "array":
        return '{"type":"array","items":' + _canonical(schema["items"], namespace) + "}"
    if kind == "map":
        return '{"type":"map","values":' + _canonical(schema["values"], namespace) + "}"
    return _canonical_named(schema, schema.get("namespace", namespace))


def _canonical_named(schema: Mapping[str, Any], namespace: str) -> str:
    name = schema["name"]
    if "." not in name and namespace:
        name = f"{namespace}.{name}"
    inner = name.rpartition(".")[0]
    head = '{"name":' + json.dumps(name) + ',"type":' + json.dumps(schema["type"])
    if schema["type"] == "fixed":
        return head + f',"size":{int(schema["size"])}}}'
    if schema["type"] == "enum":
        return head + ',"symbols":' + json.dumps(schema["symbols"], separators=(",", ":")) + "}"
    fields = ",".join(
        '{"name":' + json.dumps(field["name"]) + ',"type":' + _canonical(field["type"], inner) + "}"
        for field in schema["fields"]
    )
    return head + ',"fields":[' + fields + "]}"


_EMPTY = 0xC15D213AA4D7A795


def _crc_row(value: int) -> int:
    for _ in range(8):
        value = (value >> 1) ^ (_EMPTY if value & 1 else 0)
    return value


def fingerprint(schema: str) -> int:
    """Return the CRC-64-AVRO fingerprint of a schema given as JSON text."""
    table = [_crc_row(index) for index in range(256)]
    value = _EMPTY
    for byte in parsing_canonical_form(json.loads(schema)).encode():
        value = (value >> 8) ^ table[(value ^ byte) & 0xFF]
    return value


# -- encoding --------------------------------------------------------------------------------------


def encode_long(value: int) -> bytes:
    """Encode an Avro int or long: zigzag, then the shortest varint. It must fit in 64 bits."""
    z = value << 1 if value >= 0 else ~(value << 1)
    if z < _PAIR:
        return _LAST[z]
    if z < 0x1000_0000:
        return _MORE[z & 0x3FFF] + _LAST[z >> 14]
    if z < 0x400_0000_0000:
        return _MORE[z & 0x3FFF] + _MORE[z >> 14 & 0x3FFF] + _LAST[z >> 28]
    if z >> 64:
        raise FormatError("A number does not fit in 64 bits.")
    return b"".join(
        (_MORE[z & 0x3FFF], _MORE[z >> 14 & 0x3FFF], _MORE[z >> 28 & 0x3FFF], _rest(z >> 42))
    )


def _rest(z: int) -> bytes:
    """The groups of a varint from the seventh on."""
    return _LAST[z] if z < _PAIR else _MORE[z & 0x3FFF] + _LAST[z >> 14]


def encode_bytes(value: bytes) -> bytes:
    """Encode Avro bytes: the length as a long, then the bytes."""
    return encode_long(len(value)) + value


def encode_string(value: str) -> bytes:
    """Encode an Avro string. A lone surrogate, which UTF-8 has no bytes for, becomes `?`."""
    if value.isascii():
        return encode_long(len(value)) + value.encode("ascii")
    return encode_bytes(value.encode("utf-8", "replace"))


def clip(value: str, limit: int) -> str:
    """Return the longest beginning of `value` whose UTF-8 form has at most `limit` bytes."""
    if len(value) * 4 <= limit or (value.isascii() and len(value) <= limit):
        return value
    raw = value.encode("utf-8", "replace")
    return raw[:limit].decode("utf-8", "ignore")


def encode_array(items: Sequence[bytes]) -> bytes:
    """Encode an Avro array of already encoded items: one block, then the end."""
    if not items:
        return b"\x00"
    return b"".join((encode_long(len(items)), *items, b"\x00"))


def encode_map(values: Mapping[str, str]) -> bytes:
    """Encode an Avro map of strings, keys in the order of their UTF-8 bytes."""
    if not values:
        return b"\x00"
    return encode_array(
        [encode_string(key) + encode_string(values[key]) for key in sorted(values, key=str.encode)]
    )


# -- decoding --------------------------------------------------------------------------------------


def read_long(data: bytes, position: int) -> tuple[int, int]:
    """Read an Avro long. Refuses overlong forms and numbers beyond 64 bits."""
    try:
        byte = data[position]
        if byte < 0x80:  # most numbers are small
            return (byte >> 1) ^ -(byte & 1), position + 1
        z = shift = 0
        while byte > 0x7F:
            z |= (byte & 0x7F) << shift
            shift += 7
            position += 1
            if shift > _LONG_SHIFT:
                raise FormatError("A number is longer than 64 bits.", position=position)
            byte = data[position]
    except IndexError:
        raise FormatError("The data ends inside a number.", position=position) from None
    z |= byte << shift
    if byte == 0 or z >> 64:
        raise FormatError("A number is not in its shortest 64-bit form.", position=position)
    return (z >> 1) ^ -(z & 1), position + 1


def read_within(data: bytes, position: int, low: int, high: int) -> tuple[int, int]:
    """Read an Avro long from `low` to `high`, both included."""
    value, position = read_long(data, position)
    if not low <= value <= high:
        raise FormatError(f"A number is {value}; it must be {low} to {high}.", position=position)
    return value, position


def read_fixed(data: bytes, position: int, size: int) -> tuple[bytes, int]:
    """Read `size` bytes."""
    stop = position + size
    if stop > len(data):
        raise FormatError("The data ends inside a field.", position=position)
    return data[position:stop], stop


def read_bytes(data: bytes, position: int, limit: int) -> tuple[bytes, int]:
    """Read Avro bytes of at most `limit` bytes."""
    size, position = read_within(data, position, 0, limit)
    return read_fixed(data, position, size)


def read_string(data: bytes, position: int, limit: int) -> tuple[str, int]:
    """Read an Avro string of at most `limit` bytes."""
    raw, position = read_bytes(data, position, limit)
    try:
        return raw.decode(), position
    except UnicodeDecodeError:
        raise FormatError("A text is not UTF-8.", position=position) from None


def read_array(
    data: bytes, position: int, limit: int, item: Callable[[bytes, int], tuple[T, int]]
) -> tuple[list[T], int]:
    """Read an Avro array of at most `limit` items, written as one block."""
    count, position = read_within(data, position, 0, limit)
    items: list[T] = []
    if not count:
        return items, position
    for _ in range(count):
        value, position = item(data, position)
        items.append(value)
    return items, end_of_blocks(data, position)


def end_of_blocks(data: bytes, position: int) -> int:
    """Read the zero after an array's or map's only block."""
    if data[position : position + 1] != b"\x00":
        raise FormatError("An array has more than one block.", position=position)
    return position + 1


def read_map(
    data: bytes, position: int, limit: int, key_limit: int, value_limit: int
) -> tuple[dict[str, str], int]:
    """Read an Avro map of strings, keys in ascending order of their UTF-8 bytes."""

    def pair(data: bytes, position: int) -> tuple[tuple[str, str], int]:
        key, position = read_string(data, position, key_limit)
        value, position = read_string(data, position, value_limit)
        return (key, value), position

    pairs, position = read_array(data, position, limit, pair)
    keys = [key.encode() for key, _ in pairs]
    if any(later <= earlier for earlier, later in pairwise(keys)):
        raise FormatError("A map's keys are not in ascending order.", position=position)
    return dict(pairs), position


def end(data: bytes, position: int) -> None:
    """Refuse bytes after a datum."""
    if position != len(data):
        raise FormatError("There are bytes after the end.", position=position, size=len(data))
