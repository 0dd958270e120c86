"""Thrift's compact protocol, as far as a Parquet footer needs it: reading only.

A struct comes as a dict of its fields by number; of what the fields mean nothing is known here.
Integers are zigzag varints, a field's number is a step from the one before it. Bytes are foreign:
whatever is no struct is a `FormatError`, and no length is believed beyond the bytes that are there.
"""

from __future__ import annotations

from typing import Any, Final

from sealtape.schemas.errors import FormatError

__all__ = ["read_struct"]

_STOP, _TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(
    13
)
_INTEGERS: Final = (_I16, _I32, _I64)
_LONGEST_INT: Final = 10
_DEEPEST: Final = 16
_LONG_LIST: Final = 15


def read_struct(data: bytes) -> dict[int, Any]:
    """Read the struct that the bytes begin with. Raises `FormatError`."""
    try:
        return _struct(data, 0, 0)[0]
    except IndexError as error:
        raise FormatError("A Thrift struct goes beyond its bytes.") from error


def _struct(data: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    if depth > _DEEPEST:
        raise FormatError("A Thrift struct is nested too deep.")
    found: dict[int, Any] = {}
    number = 0
    while (byte := data[at]) != _STOP:
        at += 1
        if step := byte >> 4:
            number += step
        else:
            number, at = _integer(data, at)
        if number in found:
            raise FormatError(f"A Thrift struct has field {number} twice.")
        kind = byte & 15
        if kind in (_TRUE, _FALSE):
            found[number] = kind == _TRUE
        else:
            found[number], at = _value(data, at, kind, depth)
    return found, at + 1


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in _INTEGERS:
        return _integer(data, at)
    if kind == _STRUCT:
        return _struct(data, at, depth + 1)
    if kind in (_LIST, _SET):
        return _list(data, at, depth + 1)
    if kind == _BINARY:
        size, at = _varint(data, at)
        return _bytes(data, at, size)
    if kind == _DOUBLE:
        return _bytes(data, at, 8)
    if kind in (_TRUE, _FALSE, _BYTE):  # in a list a truth is a byte too
        return data[at], at + 1
    raise FormatError(f"A Thrift struct has a value of type {kind}.")


def _list(data: bytes, at: int, depth: int) -> tuple[list[Any], int]:
    size, kind = data[at] >> 4, data[at] & 15
    at += 1
    if size == _LONG_LIST:
        size, at = _varint(data, at)
    if size > len(data) - at:  # a value takes a byte at least
        raise FormatError("A Thrift list is longer than its bytes.")
    if depth > _DEEPEST:
        raise FormatError("A Thrift list is nested too deep.")
    values = []
    for _ in range(size):
        value, at = _value(data, at, kind, depth)
        values.append(value)
    return values, at


def _bytes(data: bytes, at: int, size: int) -> tuple[bytes, int]:
    if size > len(data) - at:
        raise FormatError("A Thrift value is longer than its bytes.")
    return data[at : at + size], at + size


def _integer(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(_LONGEST_INT):
        byte = data[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise FormatError("A Thrift integer is too long.")
