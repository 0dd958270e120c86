"""Requests of other parties: HTTP/1.1 with bounds on size, time and number.

Metrics, witnesses and the log are served with this. What is taken from anybody is kept small: a
head of at most 8 KiB, a body only where one is wanted and only as long as it may be, a few
connections at the same time, and a few seconds for a request and its answer. A connection is for
one request; where that is allowed it stays for more, as long as there is room for others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from sealtape.schemas.errors import SealtapeError, TargetError
from sealtape.schemas.settings.values import split_address

__all__ = ["TEXT", "Asked", "Inbound", "Reply", "plain"]

MAX_HEAD: Final = 8 << 10
MAX_CONNECTIONS: Final = 16
MAX_KEPT: Final = 100
"""Requests of one connection."""
TIMEOUT_S: Final = 10.0
TEXT: Final = "text/plain; charset=utf-8"
_REQUEST = re.compile(rb"([A-Z]{1,16}) (/[!-~]{0,1024}) HTTP/1\.([01])\r\n")
_FIELD = re.compile(
    rb"\r\n(content-length|transfer-encoding|expect):[ \t]*([^\r\n]*)", re.IGNORECASE
)
_CLOSE = re.compile(rb"\r\nconnection:[ \t]*[^\r\n]*\bclose\b", re.IGNORECASE)
_LENGTH = re.compile(rb"[0-9]{1,15}")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: `path` is without its query, `body` empty where none came.

    `last` says that who asked sends no other on this connection.
    """

    method: str
    path: str
    body: bytes = b""
    last: bool = True


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; `kind` is the media type of its body."""

    status: HTTPStatus
    kind: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class _Unwanted(Exception):
    """A request that is answered without being read further."""

    def __init__(self, status: HTTPStatus) -> None:
        self.status = status


def plain(status: HTTPStatus, **headers: str) -> Reply:
    """Return an answer that says its own status and nothing else."""
    return Reply(status, TEXT, f"{status.phrase}\n".encode(), headers)


class Inbound:
    """Listens, and answers one request of each connection, or more where `keep_s` allows it.

    Args:
        answer: what is asked. A `SealtapeError` of its becomes a 503, any other error a 500; the
            text of neither is told to who asked.
        max_body: of a request, in bytes; at 0 one with a body is refused.
        connections: at the same time; more are cut off.
        keep_s: how long a connection may be idle before its next request, in seconds; 0: none is
            kept. While half of the connections are in use, none is either.
    """

    def __init__(
        self,
        answer: Callable[[Asked], Awaitable[Reply]],
        *,
        max_body: int = 0,
        connections: int = MAX_CONNECTIONS,
        keep_s: float = 0.0,
    ) -> None:
        self.address = ""
        """Where it answers; empty while it does not."""
        self._answer = answer
        self._max_body = max_body
        self._most = connections
        self._keep_s = keep_s
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def connections(self) -> int:
        """How many are being answered."""
        return len(self._open)

    async def open(
        self, address: str, *, what: str, hint: str, tls: ssl.SSLContext | None = None
    ) -> None:
        """Listen on `host:port`; port 0 takes a free one. `what` listens, `hint` says what to do.

        Raises:
            TargetError: the address cannot be had.
        """
        host, port = split_address(address)
        try:
            self._server = await asyncio.start_server(
                self._connected, host, port, limit=MAX_HEAD, backlog=self._most, ssl=tls
            )
        except OSError as exc:
            raise TargetError(
                f"Cannot listen for {what} on {address}: {exc.strerror or exc}.", hint=hint
            ) from exc
        shown = f"[{host}]" if ":" in host else host
        self.address = f"{shown}:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Stop listening, and cut off who is being answered."""
        self._closed = True
        if self._server is None:
            return
        self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        self._server = None

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closed or len(self._open) >= self._most:  # accepted while it closed
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.transport.set_write_buffer_limits(0)  # drain then waits for the last byte
            begun, number = b"", 1
            while True:
                async with asyncio.timeout(TIMEOUT_S):
                    kept = await self._one(reader, writer, begun, last=number == MAX_KEPT)
                begun, number = await self._begun(reader) if kept else b"", number + 1
                if not begun:
                    break
            if writer.can_write_eof():
                writer.write_eof()
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            writer.transport.abort()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _one(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        begun: bytes,
        *,
        last: bool,
    ) -> bool:
        """Answer the next request; whether the connection stays for another."""
        head = kept = False
        try:
            asked = await self._read(reader, writer, begun)
            head = asked.method == "HEAD"
            reply = await self._reply(asked)
            room = 2 * len(self._open) <= self._most
            kept = self._keep_s > 0 and room and not (last or asked.last)
        except _Unwanted as exc:
            reply = plain(exc.status)
        writer.write(_message(reply, head=head, kept=kept))
        await writer.drain()
        return kept

    async def _begun(self, reader: asyncio.StreamReader) -> bytes:
        """The first byte of another request; empty when none comes in time."""
        try:
            async with asyncio.timeout(self._keep_s):
                return await reader.read(1)
        except TimeoutError:
            return b""

    async def _read(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, begun: bytes
    ) -> Asked:
        try:
            head = begun + await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError as exc:
            raise _Unwanted(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE) from exc
        match = _REQUEST.match(head)
        if match is None:
            raise _Unwanted(HTTPStatus.BAD_REQUEST)
        told = [(name.lower(), value.strip().lower()) for name, value in _FIELD.findall(head)]
        length = self._length(told)
        if length and (b"expect", b"100-continue") in told:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(length)
        # Those of HTTP/1.0 would have to ask for what is kept, and wait for its end without.
        last = match[3] == b"0" or _CLOSE.search(head) is not None
        return Asked(match[1].decode(), match[2].partition(b"?")[0].decode(), body, last)

    def _length(self, told: list[tuple[bytes, bytes]]) -> int:
        lengths = {value for name, value in told if name == b"content-length"}
        if any(name == b"transfer-encoding" for name, _ in told):
            wanted = HTTPStatus.LENGTH_REQUIRED if self._max_body else HTTPStatus.BAD_REQUEST
            raise _Unwanted(wanted)
        if len(lengths) > 1 or not all(map(_LENGTH.fullmatch, lengths)):
            raise _Unwanted(HTTPStatus.BAD_REQUEST)
        length = int(lengths.pop()) if lengths else 0
        if length > self._max_body:
            too_large = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            raise _Unwanted(too_large if self._max_body else HTTPStatus.BAD_REQUEST)
        return length

    async def _reply(self, asked: Asked) -> Reply:
        try:
            return await self._answer(asked)
        except SealtapeError as exc:
            log.warning("cannot answer %s %s: %s", asked.method, asked.path, exc)
            return plain(HTTPStatus.SERVICE_UNAVAILABLE)
        except Exception:
            log.exception("an error that nobody foresaw, answering %s %s", asked.method, asked.path)
            return plain(HTTPStatus.INTERNAL_SERVER_ERROR)


def _message(reply: Reply, *, head: bool, kept: bool) -> bytes:
    lines = [
        f"HTTP/1.1 {reply.status.value} {reply.status.phrase}",
        f"Content-Type: {reply.kind}",
        f"Content-Length: {len(reply.body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        f"Connection: {'keep-alive' if kept else 'close'}",
        *(f"{name}: {value}" for name, value in reply.headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + (b"" if head else reply.body)
