"""DER, read strictly: one value, one sequence of bytes.

What ASN.1's distinguished encoding forbids is refused: indefinite and padded lengths, padded
integers, booleans other than 0 and 255. Tags are those of one byte. Every failure is a
`FormatError`.

    fields = Der(data, "time-stamp").inside(SEQUENCE)
    version = fields.integer()
    fields.end()
"""

from __future__ import annotations

from typing import Final

from sealtape.schemas.errors import FormatError

BOOLEAN: Final = 0x01
INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
OCTET_STRING: Final = 0x04
NULL: Final = 0x05
OID: Final = 0x06
GENERALIZED_TIME: Final = 0x18
SEQUENCE: Final = 0x30
SET: Final = 0x31
CONTEXT: Final = 0x80  # | number, for a primitive value; | CONSTRUCTED for others
CONSTRUCTED: Final = 0x20


class Der:
    """Elements that follow each other, taken from left to right.

    Attributes:
        what: names them in errors.
        start, stop: where they begin and end within the bytes that were given first.
    """

    __slots__ = ("_at", "_data", "start", "stop", "what")

    def __init__(self, data: bytes, what: str) -> None:
        """Read all of `data`."""
        self._data = data
        self._at = self.start = 0
        self.stop = len(data)
        self.what = what

    @property
    def tag(self) -> int:
        """The next element's tag; -1 at the end."""
        return self._data[self._at] if self._at < self.stop else -1

    @property
    def content(self) -> bytes:
        """All bytes, read or not."""
        return self._data[self.start : self.stop]

    def inside(self, tag: int) -> Der:
        """The elements inside the next one, which must have this tag."""
        begin = self._head(tag)
        inner = Der(self._data, self.what)
        inner.start = inner._at = begin
        inner.stop = self._at
        return inner

    def optional(self, tag: int) -> Der | None:
        """The elements inside the next one if it has this tag; else it stays."""
        return self.inside(tag) if self.tag == tag else None

    def value(self, tag: int) -> bytes:
        """The content of the next element, which must have this tag."""
        begin = self._head(tag)
        return self._data[begin : self._at]

    def whole(self, tag: int) -> bytes:
        """The next element with its tag and length."""
        begin = self._at
        self._head(tag)
        return self._data[begin : self._at]

    def integer(self, tag: int = INTEGER) -> int:
        """A whole number of any size."""
        raw = self.value(tag)
        if not raw or (len(raw) > 1 and raw[0] in (0, 255) and (raw[0] ^ raw[1]) < 128):
            raise FormatError(f"{self.what} has a number that is not DER")
        return int.from_bytes(raw, "big", signed=True)

    def boolean(self) -> bool:
        """True or false."""
        raw = self.value(BOOLEAN)
        if raw not in (b"\0", b"\xff"):
            raise FormatError(f"{self.what} has a boolean that is not DER")
        return raw == b"\xff"

    def oid(self) -> str:
        """An object identifier, as numbers with dots."""
        numbers: list[int] = []
        number = 0
        raw = self.value(OID)
        for byte in raw:
            if number == 0 and byte == 0x80:
                raise FormatError(f"{self.what} has an object identifier that is not DER")
            number = number << 7 | byte & 0x7F
            if byte < 0x80:
                numbers.append(number)
                number = 0
        if not raw or raw[-1] >= 0x80:
            raise FormatError(f"{self.what} has an object identifier that is not DER")
        first = min(numbers[0] // 40, 2)
        return ".".join(map(str, [first, numbers[0] - 40 * first, *numbers[1:]]))

    def end(self) -> None:
        """Refuse elements that are left."""
        if self._at != self.stop:
            raise FormatError(f"{self.what} has {self.stop - self._at} bytes too many")

    def _head(self, tag: int) -> int:
        """Step behind the next element and return where its content begins."""
        if self.tag != tag:
            found = "its end" if self.tag == -1 else f"tag {self.tag:#04x}"
            raise FormatError(f"{self.what} has {found} where tag {tag:#04x} belongs")
        begin = self._at + 2
        length = self._data[self._at + 1] if begin <= self.stop else 0x80
        if length >= 0x80:
            count = length - 0x80
            raw = self._data[begin : begin + count]
            length = int.from_bytes(raw, "big")
            # The shortest form, and no more than a file could have: four bytes of length.
            if not 0 < count <= 4 or len(raw) < count or raw[0] == 0 or length < 0x80:
                raise FormatError(f"{self.what} has a length that is not DER")
            begin += count
        if begin + length > self.stop:
            raise FormatError(f"{self.what} ends inside an element")
        self._at = begin + length
        return begin


def element(tag: int, *contents: bytes) -> bytes:
    """An element with these contents."""
    content = b"".join(contents)
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    raw = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(raw)]) + raw + content


def integer(number: int) -> bytes:
    """A whole number that is not negative."""
    return element(INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "big"))
