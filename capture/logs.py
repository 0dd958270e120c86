"""What a room logs: lines on standard error, for people or as JSON, without any secret.

* Nobody who reads slowly holds a room up: lines wait in a bounded queue for a thread that writes
  them, and those that find it full are counted, which the next line says.
* A line belongs to the session that its task serves (`SESSION`), or to one that is named by
  `extra={"session": …}`. Whatever else stands in `extra` becomes a field of its own.
* Secrets never go into a message; that is for each caller to see to. Should one get there by way of
  another library's error, what looks like one is taken out here.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import queue
import re
import sys
import threading
import time
from contextvars import ContextVar
from typing import Any, Final, TextIO

from sealtape.schemas.errors import SealtapeError

__all__ = ["SESSION", "JsonFormat", "LogWriter", "TextFormat", "configure", "without_secrets"]

SESSION: ContextVar[str] = ContextVar("session", default="")
"""The session that the running task serves, in hexadecimal digits."""

QUEUE_LINES: Final = 10_000
FLUSH_S: Final = 2.0
_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_QUIET: Final = ("aiokafka", "opensearch", "urllib3", "asyncio")
"""Libraries that say more than they have to say below WARNING."""

_SECRETS: Final = (
    (re.compile(r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*-----|\Z)"), ""),
    (re.compile(r"PRIVATE\+KEY\+[^\s\"']+"), ""),
    (re.compile(r"(sealtape-private-key-\d+ [\w-]+ [\w-]+ )[^\s\"']+"), r"\1"),
    (re.compile(r"\beyJ[\w-]{4,}\.[\w-]+(?:\.[\w-]*)*"), ""),
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s/:@]*:)[^\s@]+(?=@)", re.IGNORECASE), r"\1"),
    (
        re.compile(
            r"(\b(?:authorization|cookie|x-vault-token|x-amz-security-token)[\"']?\s*[:=]\s*)"
            r"[^\r\n]+",
            re.IGNORECASE,
        ),
        r"\1",
    ),
    # S3 repeats a session token that it does not take.
    (re.compile(r"(<Token[\w-]*>)[^<]+"), r"\1"),
    (re.compile(r"(\b(?:bearer|basic)\s+)[\w.~+/=-]{6,}", re.IGNORECASE), r"\1"),
    (
        re.compile(
            r"([\"']?\b\w*(?:password|passwd|secret|api_?key|access_?key|token)\b[\"']?"
            r"(?:=|[\"']:)\s*)(\"[^\"]*\"|'[^']*'|[^\s,;&)}\]]+)",
            re.IGNORECASE,
        ),
        r"\1",
    ),
)
_GONE: Final = "[secret]"
_LONGEST: Final = 32 << 10  # characters of a message or a stack
_CONTROL: Final = {n: f"\\x{n:02x}" for n in (*range(32), *range(127, 160))}
_IN_STACKS: Final = {n: text for n, text in _CONTROL.items() if n != 10}


def without_secrets(text: str) -> str:
    """Return a text with `[secret]` for whatever in it looks like a key, a token or a password.

    A text that is very long loses its end.
    """
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}… ({len(text)} characters)"
    for pattern, kept in _SECRETS:
        text = pattern.sub(kept + _GONE, text)
    return text


def configure(form: str, *, room: str, node: str, worker: str = "") -> LogWriter:
    """Send all logs of this process to standard error, from INFO on.

    Args:
        form: `text` or `json`.
        room, node, worker: stand in each JSON line; `worker` only where there is one.
    """
    names = {"room": room, "node": node, "worker": worker}
    writer = LogWriter(sys.stderr)
    if form == "json":
        writer.setFormatter(JsonFormat({name: text for name, text in names.items() if text}))
    else:
        writer.setFormatter(TextFormat())
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, LogWriter):
            root.removeHandler(handler)
            handler.close()
    root.addHandler(writer)
    root.setLevel(logging.INFO)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    atexit.register(writer.close)
    return writer


class JsonFormat(logging.Formatter):
    """One JSON object a line: `ts level event logger`, who we are, `session`, fields, `error`."""

    def __init__(self, names: dict[str, str]) -> None:
        """Put `names` into each line."""
        super().__init__()
        self._names = names

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "ts": _time(record),
            "level": record.levelname.lower(),
            "event": without_secrets(record.getMessage()),
            "logger": record.name.removeprefix("sealtape."),
            **self._names,
        }
        if session := _session(record):
            line["session"] = session
        line |= {name: _plain(value) for name, value in _fields(record).items()}
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = _error(record.exc_info[1])
            line["stack"] = without_secrets(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


class TextFormat(logging.Formatter):
    """A line for people; only the stack of an exception takes more than one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        name = record.name.removeprefix("sealtape.")
        fields = _fields(record)
        if session := _session(record):
            fields = {"session": session, **fields}
        message = without_secrets(record.getMessage()).translate(_CONTROL)
        told = "".join(f" {key}={_plain(value)}" for key, value in fields.items())
        told = without_secrets(told).translate(_CONTROL)
        line = f"{_time(record)} {record.levelname} {name}: {message}{told}"
        if record.exc_info and record.exc_info[1] is not None:
            stack = without_secrets(self.formatException(record.exc_info))
            line += "\n" + stack.translate(_IN_STACKS)
        return line


def _time(record: logging.LogRecord) -> str:
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{moment}.{int(record.msecs):03d}Z"


def _session(record: logging.LogRecord) -> str:
    return str(getattr(record, "session", "")) or SESSION.get()


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What the caller gave in `extra`, the session apart."""
    return {k: v for k, v in vars(record).items() if k not in _OWN and k != "session"}


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    return without_secrets(str(value))


def _error(error: BaseException) -> dict[str, str]:
    told = {"class": type(error).__name__, "message": without_secrets(str(error))}
    return told | {"code": error.code} if isinstance(error, SealtapeError) else told


class LogWriter(logging.Handler):
    """Writes lines by a thread of its own.

    Args:
        stream: where to.
        limit: most lines that wait; the others are dropped and counted.
    """

    def __init__(self, stream: TextIO, limit: int = QUEUE_LINES) -> None:
        super().__init__()
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(limit)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="logs", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line; never waits."""
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self._dropped += 1
        except Exception:  # noqa: BLE001 - what cannot be formatted must not stop who logs it
            self.handleError(record)

    def close(self) -> None:
        """Write what waits, unless nobody takes it within a short time."""
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=FLUSH_S)
        self._thread.join(FLUSH_S)
        super().close()

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            dropped, self._dropped = self._dropped, 0
            if dropped:
                line += f"\n{dropped} lines were not logged here: nobody took them in time"
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except BlockingIOError:  # a pipe that somebody made non-blocking, and that is full
                self._dropped += 1
            except (OSError, ValueError):  # nobody reads any more, or it was closed
                return
