"""An incremental splitter of one direction of a PostgreSQL session into messages.

A message is one kind byte, a big-endian u32 length that counts itself, and a body. The scanner
never needs a whole message: of one that is longer than its window it keeps a bounded prefix, and
of one nobody asked for it keeps nothing but the number of bytes left. A 1 GiB row streams through.

Kinds without a handler are only counted (`counts`, `sizes`), a run of one kind in a tight loop:
that is what makes bulk cheap. Kinds with a handler get
`handler(buffer, start, stop, offset, length)`: the body's first bytes are `buffer[start:stop]`,
`offset` is where the message starts in the direction's stream, `length` its whole length with
header. `stop - start < length - 5` says that the body was longer than the handler's limit.

Handlers, counts and their order depend on the stream only, never on how it was cut into chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from struct import Struct
from typing import TYPE_CHECKING, Any

from sealtape.capture.postgres.codec.messages import MAX_MESSAGE, ProtocolViolation

if TYPE_CHECKING:
    from hashlib import _Hash

Handler = Callable[[bytes | bytearray, int, int, int, int], None]
"""`(buffer, start, stop, offset, length)`, see above."""

WINDOW = 8192
"""Bytes. Longer messages take the slow path, where the prefix is bounded."""

_head = Struct(">BI").unpack_from


class TextDigest:
    """SHA-256 over `salt` and one NUL-terminated string inside a body that comes in pieces.

    `skip` strings come before it (a Parse names its statement first). `length` is the string's
    length in bytes without the NUL.
    """

    __slots__ = ("_hash", "_skip", "length")

    def __init__(self, salt: bytes, skip: int) -> None:
        """Start before the first byte of the body."""
        self._hash: _Hash = sha256(salt)
        self._skip = skip
        self.length = 0

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next piece of the body; what follows the string's NUL is ignored."""
        data = bytes(data)
        start = 0
        while self._skip > 0:
            start = data.find(b"\0", start) + 1
            if start == 0:
                return
            self._skip -= 1
        if self._skip < 0:
            return
        stop = data.find(b"\0", start)
        if stop < 0:
            stop = len(data)
        else:
            self._skip = -1
        self._hash.update(data[start:stop])
        self.length += stop - start

    def digest(self) -> bytes:
        """The 32 bytes over what was taken so far."""
        return self._hash.digest()


class Scanner:
    """Finds the messages of one direction and hands the wanted ones to their handlers."""

    __slots__ = (
        "_begun",
        "_digest_skips",
        "_handlers",
        "_kind",
        "_left",
        "_length",
        "_limits",
        "_prefix",
        "_salt",
        "_stub",
        "_want",
        "counts",
        "digest",
        "offset",
        "sizes",
    )

    def __init__(
        self,
        *,
        kinds: bytes,
        handlers: Mapping[int, Handler],
        limits: Mapping[int, int] | None = None,
        digests: Mapping[int, int] | None = None,
        salt: bytes = b"",
        offset: int = 0,
    ) -> None:
        """Know which `kinds` may come; any other kind byte raises `ProtocolViolation`.

        `limits` gives the longest prefix (bytes) kept for a kind, at least and by default `WINDOW`.
        `digests` names the kinds for which an overlong body is hashed (`digest` is set while
        their handler runs) and how many strings come before the hashed one.
        `offset` is the position of the first byte fed.
        """
        self._handlers: list[Handler | None] = [_refuse] * 256
        for kind in kinds:
            self._handlers[kind] = handlers.get(kind)
        self._limits = dict(limits or {})
        self._digest_skips = dict(digests or {})
        self._salt = salt
        self.offset = offset
        self.counts = [0] * 256
        self.sizes = [0] * 256
        self.digest: TextDigest | None = None
        self._stub = b""
        self._left = 0  # body bytes still to come of the message begun
        self._kind = 0
        self._length = 0
        self._begun = 0
        self._want = 0
        self._prefix: bytearray | None = None

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the stream; handlers run before this returns.

        Raises `ProtocolViolation` where the bytes cannot be PostgreSQL's; the scanner is of no
        use after that.
        """
        total = len(chunk)
        position = 0
        if self._left or self._stub:
            position = self._resume(chunk)
        base = self.offset
        last = total - 5
        handlers, counts, sizes = self._handlers, self.counts, self.sizes
        while position <= last:
            kind, size = _head(chunk, position)
            end = position + size + 1
            if end > total or size > WINDOW or size < 4:
                position = self._begin(chunk, position, kind, size)
                continue
            handler = handlers[kind]
            if handler is not None:
                handler(chunk, position + 5, end, base + position, size + 1)
                position = end
            elif end < total and chunk[end] == kind:
                position = self._run(chunk, position, kind)
            else:
                counts[kind] += 1
                sizes[kind] += size + 1
                position = end
        self.offset = base + total
        if position < total:
            self._stub = chunk[position:]

    def _run(self, chunk: bytes, position: int, kind: int) -> int:
        """Count a run of small whole messages of one kind; return the position after it."""
        head = _head
        start = position
        total = len(chunk)
        last = total - 5
        rows = 0
        while position <= last:
            found, size = head(chunk, position)
            end = position + size + 1
            if found != kind or end > total or not 4 <= size <= WINDOW:
                break
            position = end
            rows += 1
        self.counts[kind] += rows
        self.sizes[kind] += position - start
        return position

    def _begin(self, chunk: bytes, position: int, kind: int, size: int) -> int:
        """Start a message that is long or not all here; return the position after its bytes."""
        if size < 4 or size > MAX_MESSAGE:
            raise ProtocolViolation(f"A message of kind {kind:#04x} claims a length of {size}.")
        handler = self._handlers[kind]
        if handler is _refuse:
            _refuse(chunk, position, position, self.offset + position, size + 1)
        self._kind = kind
        self._length = size + 1
        self._begun = self.offset + position
        self._left = size - 4
        self._prefix = None
        if handler is not None:
            self._want = max(WINDOW, self._limits.get(kind, WINDOW))
            self._prefix = bytearray()
            skip = self._digest_skips.get(kind)
            if skip is not None and self._left > self._want:
                self.digest = TextDigest(self._salt, skip)
        return self._take(chunk, position + 5)

    def _take(self, chunk: bytes, position: int) -> int:
        """Use up what `chunk` has of the message begun; end it when that was the last of it."""
        stop = min(len(chunk), position + self._left)
        if stop > position and self._prefix is not None:
            room = self._want - len(self._prefix)
            if room > 0:
                self._prefix += chunk[position : min(stop, position + room)]
            if self.digest is not None:
                self.digest.update(memoryview(chunk)[position:stop])
        self._left -= stop - position
        if not self._left:
            self._end()
        return stop

    def _end(self) -> None:
        """The message begun is all here: count it or hand it on."""
        prefix = self._prefix
        handler = self._handlers[self._kind]
        if prefix is None or handler is None:
            self.counts[self._kind] += 1
            self.sizes[self._kind] += self._length
            return
        self._prefix = None
        handler(prefix, 0, len(prefix), self._begun, self._length)
        self.digest = None

    def _resume(self, chunk: bytes) -> int:
        """Go on with what the last chunk left behind; return the first position not used."""
        if not self._stub:
            return self._take(chunk, 0)
        need = 5 - len(self._stub)
        head = self._stub + chunk[:need]
        if len(head) < 5:
            self._stub = head
            return len(chunk)
        kind, size = _head(head)
        self._stub = b""
        return self._begin(chunk, need - 5, kind, size)

    @property
    def at_rest(self) -> bool:
        """Whether `state` is all there is to know: no wanted message is half here."""
        return self._prefix is None

    def state(self) -> list[Any]:
        """What a scanner needs to go on from here, as JSON values; only when `at_rest`."""
        counted = [
            [kind, count, self.sizes[kind]] for kind, count in enumerate(self.counts) if count
        ]
        sizes = [self._left, self._kind, self._length, self._begun]
        return [self.offset, list(self._stub), sizes, counted]

    def resume(self, state: list[Any]) -> None:
        """Go on from a `state`; the rest of a half-read message is only counted."""
        offset, stub, sizes, counted = state
        self.offset = int(offset)
        self._stub = bytes(stub)
        self._left, self._kind, self._length, self._begun = map(int, sizes)
        for kind, count, size in counted:
            self.counts[kind], self.sizes[kind] = int(count), int(size)

    @property
    def at_boundary(self) -> bool:
        """Whether the stream so far ends exactly at the end of a message."""
        return not self._left and not self._stub


def _refuse(_buffer: bytes | bytearray, _start: int, _stop: int, offset: int, length: int) -> None:
    """Handle a kind byte that cannot come in this direction."""
    raise ProtocolViolation(
        f"A message of {length} bytes at offset {offset} has a kind this direction cannot have."
    )
