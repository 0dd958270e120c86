"""Canonical JSON (RFC 8785): one value, one sequence of bytes, and strict reading of both.

A reader takes only bytes that a writer of this module would have produced: keys sorted and
unique, no white space, whole numbers below 2**53 only. 64-bit integers travel as decimal strings,
bytes as standard base64, digests as lowercase hex. `Fields` reads the members of one object by
type and names the member it does not like; a member nobody asked for is refused unless its name
begins with `x-`, the mark of members a reader may ignore.

Every failure is a `FormatError`.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import TYPE_CHECKING, NoReturn, TypeAlias

import rfc8785

from sealtape.schemas.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Json: TypeAlias = "bool | int | str | Sequence[Json] | Mapping[str, Json] | None"

MAX_SAFE_INTEGER = 2**53 - 1
MAX_U64 = 2**64 - 1
MAX_I64 = 2**63 - 1
MIN_I64 = -(2**63)
EXTENSION_PREFIX = "x-"

# For ASCII text this writes what RFC 8785 asks for (3.2.2: the same escapes, no spaces; 3.2.3: code
# points sort like UTF-16 units), and does it in C; whole numbers are bounded before they come here.
_ASCII = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, sort_keys=True, separators=(",", ":")
)

_MANY_DIGITS = re.compile(r"[\[:,]-?[0-9]{16}")


def encode(value: Json) -> bytes:
    """Write `value` as RFC 8785 bytes; floats and whole numbers beyond 2**53 - 1 are refused."""
    plain = _is_plain(value)
    try:
        if plain and (text := _ASCII.encode(value)).isascii():
            return text.encode()
        return rfc8785.dumps(value)
    except (ValueError, RecursionError) as exc:
        raise FormatError(f"value cannot be written as canonical JSON: {exc}") from exc


def decode(data: bytes, what: str) -> dict[str, Json]:
    """Read one canonical JSON object; `what` names it in errors ("opening", "segment record")."""
    if (quick := _quick(data)) is not None:
        return quick
    try:
        text = data.decode("utf-8")
        value = _READER.decode(text)
        # What is right in the quick form is right; anything else is for the library to judge.
        same = (text.isascii() and _ASCII.encode(value) == text) or rfc8785.dumps(value) == data
    except (ValueError, RecursionError) as exc:
        raise FormatError(f"{what} is not JSON of our kind: {exc}") from exc
    if not same:
        raise FormatError(f"{what} is not in canonical form (RFC 8785)")
    if not isinstance(value, dict):
        raise FormatError(f"{what} must be a JSON object")
    return value


def fields(data: bytes, what: str) -> Fields:
    """Read one canonical JSON object and hand out its members by type."""
    return Fields(decode(data, what), what)


def base64_bytes(text: str, what: str) -> bytes:
    """Read standard base64, refusing white space, missing padding and stray trailing bits."""
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except (ValueError, binascii.Error) as exc:
        raise FormatError(f"{what} is not standard base64") from exc
    # b64decode takes non-zero bits behind the last byte; only the writer's own form is accepted.
    if base64.b64encode(raw).decode("ascii") != text:
        raise FormatError(f"{what} is not standard base64 in its only form")
    return raw


def base64_text(data: bytes) -> str:
    """Write bytes as standard base64 with padding."""
    return base64.b64encode(data).decode("ascii")


def hex_bytes(text: str, what: str, size: int | None = None) -> bytes:
    """Read lowercase hex, of exactly `size` bytes when given."""
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if raw.hex() != text:  # there were spaces, upper case, or half a byte
        raise FormatError(f"{what} is not lowercase hex")
    if size is not None and len(raw) != size:
        raise FormatError(f"{what} must be {size} bytes, not {len(raw)}")
    return raw


def decimal_int(text: str, what: str, low: int = 0, high: int = MAX_U64) -> int:
    """Read a decimal string without leading zeros, plus sign or white space, within [low, high]."""
    try:
        number = int(text)
    except ValueError:
        number = None
    if number is None or str(number) != text:  # white space, a sign, a zero, other digits
        raise FormatError(f"{what} is not a decimal number")
    if not low <= number <= high:
        raise FormatError(f"{what} must be within {low} and {high}, not {number}")
    return number


class Fields:
    """The members of one JSON object, read once each by name and type.

    Call `end()` last: it refuses members that were not read, so nothing unknown is skipped.
    """

    __slots__ = ("_left", "_members", "what")

    def __init__(self, members: Mapping[str, Json], what: str) -> None:
        """Read from `members`; `what` names the object in errors."""
        self.what = what
        self._members = members
        self._left = dict(members)

    def text(self, name: str, *, max_bytes: int = 65_536, choices: tuple[str, ...] = ()) -> str:
        """A string of at most `max_bytes` of UTF-8, one of `choices` when given."""
        value = self._take(name)
        if not isinstance(value, str):
            self.refuse(name, "must be a string")
        if len(value) > max_bytes or (not value.isascii() and len(value.encode()) > max_bytes):
            self.refuse(name, f"must be at most {max_bytes} bytes")
        if choices and value not in choices:
            self.refuse(name, f"must be one of {', '.join(choices)}")
        return value

    def texts(self, name: str, *, max_items: int = 1024, max_bytes: int = 4096) -> tuple[str, ...]:
        """A list of strings, each at most `max_bytes` of UTF-8."""
        out: list[str] = []
        for item in self._list(name, max_items):
            if not isinstance(item, str) or len(item.encode()) > max_bytes:
                self.refuse(name, f"must hold strings of at most {max_bytes} bytes")
            out.append(item)
        return tuple(out)

    def integer(self, name: str, low: int = 0, high: int = 2**32 - 1) -> int:
        """A JSON number, whole, within [low, high] (a u32 unless said otherwise)."""
        value = self._take(name)
        if not isinstance(value, int) or isinstance(value, bool):
            self.refuse(name, "must be a whole number")
        if not low <= value <= high:
            self.refuse(name, f"must be within {low} and {high}")
        return value

    def version(self, expected: int = 1) -> None:
        """The member `v`: the version of the object's format, which must be `expected`."""
        if (found := self.integer("v")) != expected:
            raise FormatError(
                f"{self.what} has version {found}, this program reads {expected}",
                hint="Use a newer Sealtape to read it.",
            )

    def boolean(self, name: str) -> bool:
        """A JSON true or false."""
        value = self._take(name)
        if not isinstance(value, bool):
            self.refuse(name, "must be true or false")
        return value

    def decimal(self, name: str, low: int = 0, high: int = MAX_U64) -> int:
        """A 64-bit integer written as a decimal string, a u64 unless said otherwise."""
        text = self.text(name, max_bytes=20)
        # The path is spelt out for errors only: a log has millions of these.
        try:
            return decimal_int(text, name, low, high)
        except FormatError as exc:
            raise FormatError(f"{self.what}.{exc.message}") from exc

    def time_ns(self, name: str) -> int:
        """Nanoseconds since the Unix epoch: an i64 written as a decimal string."""
        return self.decimal(name, MIN_I64, MAX_I64)

    def decimals(
        self, name: str, *, max_items: int = 1024, count: int = -1, high: int = MAX_U64
    ) -> tuple[int, ...]:
        """A list of decimal strings within [0, high], exactly `count` of them when given."""
        items = self.texts(name, max_items=max_items, max_bytes=20)
        if count not in (-1, len(items)):
            self.refuse(name, f"must hold {count} numbers")
        return tuple(decimal_int(item, self._path(name), 0, high) for item in items)

    def hex(self, name: str, size: int | None = None) -> bytes:
        """Bytes written as lowercase hex, exactly `size` of them when given."""
        text = self.text(name)
        try:
            return hex_bytes(text, name, size)
        except FormatError as exc:
            raise FormatError(f"{self.what}.{exc.message}") from exc

    def hexes(self, name: str, size: int, *, max_items: int = 1024) -> tuple[bytes, ...]:
        """A list of byte strings of `size` bytes, in lowercase hex."""
        items = self.texts(name, max_items=max_items)
        return tuple(hex_bytes(item, self._path(name), size) for item in items)

    def base64(self, name: str, *, sizes: tuple[int, ...] = (), max_bytes: int = 1 << 20) -> bytes:
        """Bytes written as base64; the length is one of `sizes` when given."""
        raw = base64_bytes(self.text(name, max_bytes=max_bytes * 4 // 3 + 4), self._path(name))
        if sizes and len(raw) not in sizes:
            self.refuse(name, f"must be {' or '.join(map(str, sizes))} bytes, not {len(raw)}")
        return raw

    def object(self, name: str) -> Fields:
        """A nested object; call `end()` on it too."""
        value = self._take(name)
        if not isinstance(value, dict):
            self.refuse(name, "must be an object")
        return Fields(value, self._path(name))

    def optional_object(self, name: str) -> Fields | None:
        """A nested object, or None where the member is null."""
        return None if self.null(name) else self.object(name)

    def objects(self, name: str, *, max_items: int = 65_536) -> tuple[Fields, ...]:
        """A list of nested objects; call `end()` on each."""
        out: list[Fields] = []
        for index, item in enumerate(self._list(name, max_items)):
            path = f"{self._path(name)}[{index}]"
            if not isinstance(item, dict):
                raise FormatError(f"{path} must be an object")
            out.append(Fields(item, path))
        return tuple(out)

    def null(self, name: str) -> bool:
        """Whether the member is there and null; null counts as read, anything else does not."""
        if name in self._members and self._members[name] is None:
            self._left.pop(name, None)
            return True
        return False

    def has(self, name: str) -> bool:
        """Whether the member is there at all, for members that a version made optional."""
        return name in self._members

    def refuse(self, name: str, reason: str) -> NoReturn:
        """Raise a FormatError that names the member."""
        raise FormatError(f"{self._path(name)} {reason}")

    def end(self) -> None:
        """Refuse members that were not read, except those marked as ignorable."""
        if not self._left:
            return
        unknown = sorted(name for name in self._left if not name.startswith(EXTENSION_PREFIX))
        if unknown:
            raise FormatError(f"{self.what} has unknown member {unknown[0]!r}")

    def _path(self, name: str) -> str:
        return f"{self.what}.{name}"

    def _take(self, name: str) -> Json:
        if name in self._left:
            return self._left.pop(name)
        try:
            return self._members[name]
        except KeyError as exc:
            raise FormatError(f"{self._path(name)} is missing") from exc

    def _list(self, name: str, max_items: int) -> list[Json]:
        value = self._take(name)
        if not isinstance(value, list):
            self.refuse(name, "must be a list")
        if len(value) > max_items:
            self.refuse(name, f"must hold at most {max_items} items")
        return value


def _is_plain(value: Json) -> bool:
    """Whether the quick form may write `value`, unless its text is not ASCII; refuses floats."""
    plain = True
    stack: list[object] = [value]
    while stack:
        item = stack.pop()
        if item is None or isinstance(item, (str, bool)):
            continue
        if isinstance(item, float):
            raise FormatError(f"value cannot be written as canonical JSON: {item} is no integer")
        if isinstance(item, dict):
            stack.extend(item.values())
            plain = plain and all(isinstance(key, str) for key in item)
        elif isinstance(item, (list, tuple)):
            stack.extend(item)
        elif not isinstance(item, int) or abs(item) > MAX_SAFE_INTEGER:
            plain = False
    return plain


def _quick(data: bytes) -> dict[str, Json] | None:
    """The object, if it is plainly right: None leaves the judgement, and the reason, to others.

    Nothing of ours is called for each member or number. A member that is there twice is missing
    when the object is written again, and a number that may be too large has as many digits.
    """
    try:
        text = data.decode("ascii")
        value = _PLAIN.decode(text)
        same = _ASCII.encode(value) == text and not _MANY_DIGITS.search(text)
    except (ValueError, RecursionError):
        return None
    return value if same and isinstance(value, dict) else None


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("an object has the same key twice")
    return members


def _whole(text: str) -> int:
    number = int(text)
    if not -MAX_SAFE_INTEGER <= number <= MAX_SAFE_INTEGER:
        raise ValueError(f"{text} is beyond 2**53 - 1")
    return number


def _no_float(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a whole number")


_READER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_whole, parse_float=_no_float, parse_constant=_no_float
)
_PLAIN = json.JSONDecoder(parse_float=_no_float, parse_constant=_no_float)
