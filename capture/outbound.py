"""Requests to services of other parties: HTTP/1.1 with bounds on time and size, no redirects.

Witnesses, time-stamp authorities and the log are asked with these. A server may be slow, endless,
or lie: whatever it does, a request ends in time, and no more of an answer is read than was asked
for.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.message
import email.parser
import errno
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from sealtape.schemas.errors import SettingsError
from sealtape.schemas.settings.values import can_be_host
from sealtape.schemas.urls import shown_url

__all__ = ["Answer", "Destination", "OutboundError", "destination", "get", "post"]

MAX_HEAD: Final = 1 << 14
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\r\n")
_LENGTH: Final = re.compile(r"[0-9]{1,15}", re.ASCII)
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r\n")
_BODILESS: Final = {204, 304}


class OutboundError(Exception):
    """No answer that could be used; the text says why, and holds nothing that was sent or got."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered, whatever its status. `kind` is the media type, in lower case."""

    status: int
    kind: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Destination:
    """A server's URL, taken apart and found sound; `tls` is None for plain HTTP."""

    url: str
    host: str
    port: int
    path: str
    tls: ssl.SSLContext | None

    def below(self, name: str) -> str:
        """The path of `name` below the URL's own."""
        return f"{self.path.rstrip('/')}/{name}"

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


def destination(url: str, ca: Path | None = None, *, what: str) -> Destination:
    """Take a URL apart. `ca` is a PEM file of roots; None trusts the system's.

    `what` names the setting in errors. Raises `SettingsError` for what is no http(s) URL of a
    server, and for a `ca` that cannot be read.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise SettingsError(f"{what}: {shown_url(url)!r} is not a URL.") from error
    plain = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme not in {"http", "https"} or not can_be_host(parts.hostname or "") or not plain:
        raise SettingsError(
            f"{what}: {shown_url(url)!r} is not an address of a server.",
            hint="Write http://HOST:PORT/PATH or https://HOST/PATH.",
        )
    if parts.username is not None or parts.fragment:
        raise SettingsError(
            f"{what}: {shown_url(url)!r} has a user name or a fragment, which is not sent."
        )
    tls = _trust(ca, what) if parts.scheme == "https" else None
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Destination(url, parts.hostname or "", port or (443 if tls else 80), path, tls)


async def post(
    server: Destination,
    body: bytes,
    *,
    kind: str,
    timeout_s: float,
    max_answer: int,
    path: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Post `body`, whose media type is `kind`, and return the answer, also when it is an error.

    The answer is whole within `timeout_s` seconds and has at most `max_answer` bytes, or
    `OutboundError` is raised. `path` takes the place of the URL's own; `headers` are sent
    besides. A redirect is an answer like any other. The connection is closed before this returns,
    raises, or is cancelled.
    """
    head = f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    return await _ask(server, f"POST {path or server.path}", head, body, timeout_s, max_answer)


async def get(server: Destination, path: str, *, timeout_s: float, max_answer: int) -> Answer:
    """Return what is at `path`, also when that is an error; bounds and failures as for `post`."""
    return await _ask(server, f"GET {path}", "", b"", timeout_s, max_answer)


async def _ask(
    server: Destination, what: str, told: str, body: bytes, timeout_s: float, max_answer: int
) -> Answer:
    head = (
        f"{what} HTTP/1.1\r\nHost: {server.authority}\r\n{told}Accept-Encoding: identity\r\n"
        "User-Agent: sealtape\r\nConnection: close\r\n\r\n"
    )
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(
                server.host, server.port, ssl=server.tls, limit=MAX_HEAD
            )
            try:
                writer.write(head.encode("ascii") + body)
                with contextlib.suppress(ConnectionError):  # it may answer before it has read all
                    await writer.drain()
                return await _answer(reader, max_answer)
            finally:
                writer.transport.abort()
    except (OSError, asyncio.IncompleteReadError) as error:
        raise OutboundError(_reason(error)) from error


async def _answer(reader: asyncio.StreamReader, max_answer: int) -> Answer:
    while True:
        head = await _until(reader, b"\r\n\r\n")
        status_line, _, fields = head.partition(b"\r\n")
        match = _STATUS.fullmatch(status_line + b"\r\n")
        if match is None:
            raise OutboundError("an answer that is not HTTP")
        status = int(match[1])
        if status >= 200:
            break
    headers = email.parser.BytesHeaderParser().parsebytes(fields)
    body = b"" if status in _BODILESS else await _body(reader, headers, max_answer)
    return Answer(status, headers.get_content_type(), body)


async def _body(
    reader: asyncio.StreamReader, headers: email.message.Message, max_answer: int
) -> bytes:
    coding = str(headers.get("transfer-encoding", "")).strip().lower()
    lengths = {str(one).strip() for one in headers.get_all("content-length", [])}
    if coding == "chunked":
        return await _chunks(reader, max_answer)
    if coding or len(lengths) > 1 or not all(map(_LENGTH.fullmatch, lengths)):
        raise OutboundError("an answer that is not HTTP")
    if lengths:
        length = int(lengths.pop())
        _check_size(length, max_answer)
        return await reader.readexactly(length)
    found = b""
    while more := await reader.read(max_answer + 1 - len(found)):
        found += more
        _check_size(len(found), max_answer)
    return found


async def _chunks(reader: asyncio.StreamReader, max_answer: int) -> bytes:
    found = b""
    while True:
        match = _CHUNK.fullmatch(await _until(reader, b"\r\n"))
        if match is None:
            raise OutboundError("an answer that is not HTTP")
        size = int(match[1], 16)
        _check_size(len(found) + size, max_answer)
        if size == 0:
            return found  # trailers say nothing that is used here
        found += await reader.readexactly(size)
        if await reader.readexactly(2) != b"\r\n":
            raise OutboundError("an answer that is not HTTP")


async def _until(reader: asyncio.StreamReader, end: bytes) -> bytes:
    try:
        return await reader.readuntil(end)
    except asyncio.LimitOverrunError as error:
        raise OutboundError("an answer that is not HTTP") from error


def _check_size(size: int, max_answer: int) -> None:
    if size > max_answer:
        raise OutboundError(f"an answer of more than {max_answer} bytes")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "its certificate is not trusted"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, asyncio.IncompleteReadError):
        return "the connection ended inside the answer"
    if isinstance(error, OSError) and error.errno is not None and error.errno in errno.errorcode:
        return os.strerror(error.errno).lower()
    return "the connection failed"


def _trust(ca: Path | None, what: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"{what}: the CA certificates {ca} cannot be read.", hint="Name a PEM file."
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
