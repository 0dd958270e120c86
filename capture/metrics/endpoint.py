"""The HTTP endpoint of a room: `/metrics`, `/healthz` and `/readyz`, and nothing else.

It serves machines of the operator's own network and keeps what it takes from anybody small: GET and
HEAD, a request of at most 8 KiB without a body, one per connection, a few at the same time, and a
few seconds for all of it. Nothing it says holds a secret or names a person.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from http import HTTPStatus
from typing import Final

from sealtape.capture.metrics.vitals import CONTENT_TYPE, Vitals, written
from sealtape.schemas.errors import SealtapeError, TargetError
from sealtape.schemas.settings.values import split_address

__all__ = ["Endpoint", "open_endpoint"]

MAX_REQUEST: Final = 8 << 10
MAX_CONNECTIONS: Final = 16
TIMEOUT_S: Final = 10.0
_REQUEST = re.compile(rb"([A-Z]{1,16}) (/[!-~]{0,1024}) HTTP/1\.[01]\r\n")
_BODY = re.compile(rb"\r\n(?:content-length:[ \t]*0*[1-9]|transfer-encoding:)", re.IGNORECASE)
_TEXT: Final = "text/plain; charset=utf-8"

log = logging.getLogger(__name__)

Answer = tuple[HTTPStatus, str, bytes]


async def open_endpoint(address: str, vitals: Vitals) -> Endpoint:
    """Return an endpoint that answers on `address`; one that does not where that is empty.

    Raises `TargetError`: the address cannot be had.
    """
    endpoint = Endpoint(vitals)
    if address:
        await endpoint.open(address)
    return endpoint


class Endpoint:
    """Answers for one room.

    Args:
        vitals: asked at each request.
    """

    def __init__(self, vitals: Vitals) -> None:
        self.address = ""
        """Where it answers; empty while it does not."""
        self._vitals = vitals
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def open(self, address: str) -> None:
        """Listen on `host:port`; port 0 takes a free one.

        Raises:
            TargetError: the address cannot be had.
        """
        host, port = split_address(address)
        try:
            self._server = await asyncio.start_server(
                self._connected, host, port, limit=MAX_REQUEST, backlog=MAX_CONNECTIONS
            )
        except OSError as exc:
            raise TargetError(
                f"Cannot listen for metrics on {address}: {exc.strerror or exc}.",
                hint="Change `metrics` in the room's table, or stop what uses that address.",
            ) from exc
        shown = f"[{host}]" if ":" in host else host
        self.address = f"{shown}:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Stop listening, and cut off who is being answered."""
        if self._server is None:
            return
        self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        self._server = None

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                try:
                    request = await reader.readuntil(b"\r\n\r\n")
                except asyncio.LimitOverrunError:
                    answer, head = _plain(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE), False
                else:
                    answer, head = await self._answer(request), request.startswith(b"HEAD ")
                writer.transport.set_write_buffer_limits(0)  # drain then waits for the last byte
                writer.write(_message(answer, head=head))
                await writer.drain()
                writer.write_eof()
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            writer.transport.abort()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, request: bytes) -> Answer:
        match = _REQUEST.match(request)
        if match is None or _BODY.search(request):
            return _plain(HTTPStatus.BAD_REQUEST)
        if match[1] not in {b"GET", b"HEAD"}:
            return _plain(HTTPStatus.METHOD_NOT_ALLOWED)
        try:
            return await self._page(match[2].partition(b"?")[0])
        except SealtapeError as exc:
            log.warning("cannot say how this room is: %s", exc)
            return _plain(HTTPStatus.SERVICE_UNAVAILABLE)
        except Exception:
            log.exception("an error that nobody foresaw, while saying how this room is")
            return _plain(HTTPStatus.INTERNAL_SERVER_ERROR)

    async def _page(self, path: bytes) -> Answer:
        if path == b"/metrics":
            return HTTPStatus.OK, CONTENT_TYPE, written(await self._vitals.families())
        if path == b"/healthz":  # that it answers at all is the answer
            return HTTPStatus.OK, _TEXT, b"ok\n"
        if path == b"/readyz":
            readiness = await self._vitals.readiness()
            status = HTTPStatus.OK if readiness.ready else HTTPStatus.SERVICE_UNAVAILABLE
            return status, "application/json", readiness.to_json()
        return _plain(HTTPStatus.NOT_FOUND)


def _plain(status: HTTPStatus) -> Answer:
    return status, _TEXT, f"{status.phrase}\n".encode()


def _message(answer: Answer, *, head: bool) -> bytes:
    status, kind, body = answer
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
    ]
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        lines.append("Allow: GET, HEAD")
    return "\r\n".join([*lines, "", "" if head else body.decode()]).encode()
