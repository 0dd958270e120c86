"""Puts what the tracker finds into facts: statements classified, results counted, all bounded.

The tracker knows what happened; the teller knows how it is told. It keeps the counters that say
what is new since the last command ended: rows, bytes towards the client, COPY bytes from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sealtape.capture.postgres.codec.memory import Prepared
from sealtape.capture.postgres.codec.messages import MAX_NOTE
from sealtape.capture.postgres.codec.scanner import TextDigest
from sealtape.capture.postgres.codec.statements import (
    Classifier,
    Statement,
    redact,
    redact_message,
    unread,
)
from sealtape.schemas.facts import (
    COMMAND,
    MAX_STATUS,
    NO_STATEMENT,
    NO_TEXT,
    NODE,
    RESULT,
    encode_tail,
    encode_text,
    text_digest,
)
from sealtape.schemas.slices import CLIENT_IN, TARGET_IN
from sealtape.schemas.wire import encode_long, encode_string

DATA_ROW, COPY_DATA = b"Dd"
_CANCELLED = "57014"
_STATUSES = 256


class Emit(Protocol):
    """Takes a fact in parts that `schemas.facts` encoded; a recorder's `fact` is one."""

    def __call__(
        self,
        kind: int,
        leg: int,
        offset: int,
        length: int,
        ref: int,
        text: bytes,
        statement: bytes,
        tail: bytes,
        *,
        error: bool = False,
    ) -> int:
        """Return the number of the fact; `error` is true for the RESULT of what failed."""


class Teller:
    """Emits the facts of one session. `now` is the time of the chunk being read."""

    __slots__ = (
        "_classifier",
        "_counts",
        "_emit",
        "_full_text",
        "_salt",
        "_sizes",
        "_statuses",
        "copied",
        "mark",
        "now",
        "odd",
        "rows",
    )

    def __init__(
        self,
        *,
        emit: Emit,
        classifier: Classifier,
        salt: bytes,
        full_text: bool,
        server_counts: Sequence[int],
        client_sizes: Sequence[int],
        mark: int,
    ) -> None:
        """Read rows off `server_counts` and COPY bytes off `client_sizes`, the scanners' own."""
        self._emit = emit
        self._classifier = classifier
        self._salt = salt
        self._full_text = full_text
        self._counts = server_counts
        self._sizes = client_sizes
        self._statuses: dict[bytes, bytes] = {}
        self.now = 0
        self.odd = False  # literals may read otherwise than the parser thinks
        self.mark = mark  # end of the last command in the server's stream
        self.rows = 0  # DataRows counted before the command at the head
        self.copied = 0  # CopyData bytes of the client before it

    def state(self) -> list[int]:
        """The counters, for a snapshot."""
        return [self.mark, self.rows, self.copied, int(self.odd)]

    def resume(self, state: Sequence[int]) -> None:
        """Take over a `state`."""
        self.mark, self.rows, self.copied = map(int, state[:3])
        self.odd = bool(state[3])

    # -- statements -----------------------------------------------------------------------------

    def classify(self, text: bytes) -> tuple[Statement, bytes]:
        """Classify a whole text; and the text part of its COMMAND."""
        if self.odd and (b"\\" in text or not text.isascii()):
            statement = unread(text, len(text))
        else:
            statement = self._classifier.statement(text)
        digest = text_digest(self._salt, text)
        if not self._full_text:
            return statement, b"\x00" + encode_long(len(text)) + b"\x40" + digest
        return statement, encode_text(redact(text), len(text), digest)

    def overlong(self, prefix: bytes, digest: TextDigest) -> tuple[Statement, bytes]:
        """Describe a text of which only a prefix is here."""
        text = redact(prefix) if self._full_text else ""
        part = encode_text(text, digest.length, digest.digest())
        return unread(prefix, digest.length), part

    # -- facts ----------------------------------------------------------------------------------

    def command(self, offset: int, length: int, encoded: bytes, text: bytes, tail: bytes) -> int:
        """Emit the COMMAND of a message of the client."""
        return self._emit(COMMAND, CLIENT_IN, offset, length, -1, text, encoded, tail)

    def failed_parse(self, prepared: Prepared, offset: int, length: int) -> int:
        """Emit the COMMAND of a Parse that failed before anything executed it."""
        tail = encode_tail(attributes={"stage": "parse", **prepared.attributes()})
        return self.command(offset, length, prepared.statement.encoded, prepared.part, tail)

    def result(
        self, n: int, started: int, tag: bytes, rows: int, offset: int, length: int, parts: int = 1
    ) -> None:
        """Emit the RESULT of a command that worked; `parts` is how many statements it had."""
        status = self._statuses.get(tag)
        if status is None:
            status = self._status(tag)
        size = offset + length - self.mark
        copied = self._sizes[COPY_DATA] - self.copied
        duration = self.now - started if self.now > started else 0
        if copied or parts > 1:
            tail = self._long_tail(tag, rows, size, duration, copied, parts)
        else:
            tail = b"".join(
                (
                    b"\x00",
                    status,
                    encode_long(rows),
                    encode_long(size),
                    encode_long(duration),
                    b"\x00\x00\x00\x00",
                )
            )
        self.mark = offset + length
        self._emit(RESULT, TARGET_IN, offset, length, n, NO_TEXT, NO_STATEMENT, tail)

    def _status(self, tag: bytes) -> bytes:
        if len(self._statuses) >= _STATUSES:
            self._statuses.clear()
        found = encode_string(tag[:MAX_STATUS].decode("ascii", "ignore"))
        self._statuses[tag] = found
        return found

    def _long_tail(
        self, tag: bytes, rows: int, size: int, duration: int, copied: int, parts: int
    ) -> bytes:
        attributes = {}
        if copied:
            attributes["copy_in_bytes"] = str(copied)
            self.copied += copied
        if parts > 1:
            attributes["statements"] = str(parts)
        return encode_tail(
            status=tag[:MAX_STATUS].decode("ascii", "ignore"),
            rows=rows,
            bytes_out=size,
            duration_ns=duration,
            attributes=attributes,
        )

    def fail(
        self,
        n: int,
        started: int,
        found: dict[str, str],
        total: int,
        cite: tuple[int, int],
        end: int,
    ) -> None:
        """Emit the RESULT of a command that failed, or of nothing in particular (`n` is -1).

        `found` are the ErrorResponse's fields, `cite` its offset and length, `total` the rows of
        the command's statements before the one that failed.
        """
        code = found.get("C", "")[:5]
        rows = self._counts[DATA_ROW]
        tail = encode_tail(
            status="cancelled" if code == _CANCELLED else "error",
            rows=total + rows - self.rows,
            bytes_out=end - self.mark,
            duration_ns=max(0, self.now - started),
            code=code,
            message=redact_message(code, found.get("M", "")[:MAX_NOTE], full_text=self._full_text),
            attributes={"severity": severity(found)},
        )
        self.mark = end
        self.rows = rows
        self.copied = self._sizes[COPY_DATA]
        self._emit(RESULT, TARGET_IN, *cite, n, NO_TEXT, NO_STATEMENT, tail, error=True)

    def skipped(self, n: int, started: int) -> None:
        """Emit the RESULT of a command the server ignored because one before it had failed."""
        tail = encode_tail(status="skipped", rows=0, duration_ns=max(0, self.now - started))
        self._emit(RESULT, TARGET_IN, self.mark, 0, n, NO_TEXT, NO_STATEMENT, tail)

    def lost(self, leg: int, offset: int, length: int, message: str) -> None:
        """Emit the NODE fact of a direction that is not PostgreSQL's any more."""
        tail = encode_tail(status="lost sync", message=message)
        self._emit(NODE, leg, offset, length, -1, NO_TEXT, NO_STATEMENT, tail)

    def since(self) -> int:
        """Count the DataRows since the last call, or since the last command ended."""
        rows = self._counts[DATA_ROW]
        found = rows - self.rows
        self.rows = rows
        return found

    def ready(self, end: int) -> None:
        """Start counting anew: a ReadyForQuery ended at `end`."""
        self.mark = end
        self.rows = self._counts[DATA_ROW]


def severity(found: dict[str, str]) -> str:
    """An error's severity, untranslated where the server tells it."""
    return found.get("V", found.get("S", ""))[:16]
