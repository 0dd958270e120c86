"""What commands print: tables for people, JSON lines for programs, progress on long work."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, TextIO

from sealtape.schemas.verify.findings import Finding

_PROGRESS_EVERY_S = 0.2


def prepare() -> None:
    """Let standard output take any text, also where it is closed or of another encoding."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - for good
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def flush() -> None:
    """Write what waits, while an error of it can still be told. Raises OSError."""
    sys.stdout.flush()


def discard() -> None:
    """Write what can be, and nothing more: what waits would fail again when Python ends."""
    with suppress(OSError):
        flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with suppress(io.UnsupportedOperation):  # standard output of somebody who collects it
        os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


@contextmanager
def verdict() -> Iterator[None]:
    """Around what tells a verdict: it stands in the exit code too, which a pipe cannot close."""
    try:
        yield
        flush()
    except BrokenPipeError:
        discard()


def takes_unicode() -> bool:
    """Whether standard output can be given any character as it is."""
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def json_line(value: Any) -> None:
    """Print one JSON value on one line, in ASCII where not all of Unicode can be written.

    What is not printable in it stands there as an escape.
    """
    text = json.dumps(value, ensure_ascii=not takes_unicode(), separators=(", ", ": "))
    if not text.isprintable():
        text = "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)
        text = text.replace("\x7f", "\\u007f")
    print(text, flush=True)


def printable(text: str) -> str:
    """Return text with control characters shown, so that a recording cannot steer the terminal."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text
    )


def line(text: str) -> str:
    """Return text as one line: what is said in it cannot look like a line of ours."""
    return printable(text).replace("\n", "⏎ ")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table whose last column is cut to the terminal's width."""
    cells = [[line(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(header), *cells]) for i in range(len(header))]
    room = shutil.get_terminal_size((120, 24)).columns if sys.stdout.isatty() else 0
    for row in [list(header), *cells]:
        out = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        print(out[: room - 1] + "…" if room and len(out) > room else out)


def finding(found: Finding, note: str = "") -> None:
    """Print what verification found, on two lines; `note` comes behind the reason."""
    session = f"session {found.session[:12]}" if found.session else ""
    frame = "" if found.seq is None else f"frame {found.seq}"
    where = " ".join(part for part in (found.object, session, frame) if part)
    print(f"{found.verdict.upper():10} {found.layer:11} {line(where)}")
    print(f"{'':22} {line(found.reason)}{note}")


def iso(ns: int | None) -> str | None:
    """Return an ISO 8601 UTC time of nanoseconds since the epoch, with microseconds."""
    if ns is None:
        return None
    moment = datetime.fromtimestamp(ns // 1_000_000_000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ns % 1_000_000_000 // 1000:06d}Z"


def accuracy(ns: int) -> str:
    """How far off the time of a time-stamp may be, as its authority states it."""
    return f"accurate to {ns / 1e9:.15g} s" if ns else "of no stated accuracy"


def size(count: int) -> str:
    """Return a byte count for people."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError(value)  # pragma: no cover - the loop always returns


class Progress:
    """A line on standard error that says how far long work has come; silent where nobody looks."""

    def __init__(
        self,
        what: str,
        total: int | None = None,
        *,
        stream: TextIO | None = None,
        quiet: bool = False,
    ) -> None:
        """Show `what`; `total` gives a share. Shown only on a terminal and unless `quiet`."""
        self._what, self._total = what, total
        self._stream = stream or sys.stderr
        self._shown = self._stream.isatty() and not quiet
        self._last = 0.0

    def at(self, done: int, note: str = "") -> None:
        """Say that `done` units are done; cheap enough to call often."""
        now = time.monotonic()
        if not self._shown or now - self._last < _PROGRESS_EVERY_S:
            return
        self._last = now
        share = f"{done}/{self._total}" if self._total else str(done)
        self._stream.write(f"\r\x1b[K{self._what} {share} {note}")
        self._stream.flush()

    def done(self) -> None:
        """Remove the line."""
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def shown(value: Any) -> str:
    """A value of a status, for people."""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {each}" for key, each in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None else str(value)
