"""A proxy in front of a real HTTP/1.1 server that misbehaves on command.

It passes requests on as they are and answers too, so signatures stay valid. A rule makes the next
requests that match it go wrong: an answer of the test's own, an answer that is lost after the
server has acted, a connection that is reset while the body is sent, a delay, silence.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked."""

    method: str
    target: str
    headers: dict[str, str]

    @property
    def path(self):
        return unquote(urlsplit(self.target).path)

    @property
    def query(self):
        return parse_qs(urlsplit(self.target).query, keep_blank_values=True)


@dataclass(slots=True)
class Rule:
    """What goes wrong, with which requests, and how often."""

    matches: Callable[[Request], bool]
    act: Callable[..., object]
    times: int
    skip: int = 0
    done: int = 0


@dataclass(slots=True)
class FaultProxy:
    """The proxy; `url` is where it listens."""

    upstream: str
    port: int = 0
    scheme: str = "http"
    seen: list[Request] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    tasks: set[asyncio.Task] = field(default_factory=set)

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def answer(self, matches, status, body=b"", *, times=1, skip=0, headers=()):
        """Answer without asking the server."""

        async def act(proxy, request, body_in, reader, writer):
            lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
            writer.write("\r\n".join(lines).encode() + body)
            await writer.drain()
            return True

        self.rules.append(Rule(matches, act, times, skip))

    def lose_answer(self, matches, *, times=1, skip=0):
        """Let the server act, then reset the connection instead of answering."""

        async def act(proxy, request, body, reader, writer):
            await proxy.ask(request, body)
            reset(writer)
            return False

        self.rules.append(Rule(matches, act, times, skip))

    def cut_answer(self, matches, *, keep, times=1, skip=0):
        """Send only the first bytes of the answer's body, then reset the connection."""

        async def act(proxy, request, body, reader, writer):
            head, answer = await proxy.ask(request, body)
            writer.write(head + answer[:keep])
            await writer.drain()
            await asyncio.sleep(0.05)
            reset(writer)
            return False

        self.rules.append(Rule(matches, act, times, skip))

    def delay(self, matches, seconds, *, times=1, skip=0):
        """Pass on late."""

        async def act(proxy, request, body, reader, writer):
            await asyncio.sleep(seconds)
            head, answer = await proxy.ask(request, body)
            writer.write(head + answer)
            await writer.drain()
            return True

        self.rules.append(Rule(matches, act, times, skip))

    def reset(self, matches, *, times=1, skip=0):
        """Reset the connection without asking the server."""

        async def act(proxy, request, body, reader, writer):
            reset(writer)
            return False

        self.rules.append(Rule(matches, act, times, skip))

    def silence(self, matches, *, times=1, skip=0):
        """Take the request and never answer."""

        async def act(proxy, request, body, reader, writer):
            await asyncio.sleep(3600)
            return False

        self.rules.append(Rule(matches, act, times, skip))

    async def ask(self, request, body):
        """Ask the server; returns the head and the body of its answer."""
        host, port = self.upstream.rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            headers = {**request.headers, "connection": "close"}
            head = [f"{request.method} {request.target} HTTP/1.1"]
            head += [f"{name}: {value}" for name, value in headers.items()]
            writer.write("\r\n".join([*head, "", ""]).encode("latin-1") + body)
            # A server may answer before it has read the body.
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            answer = await reader.read(-1)
        finally:
            writer.close()
        head, _, rest = answer.partition(b"\r\n\r\n")
        kept = [
            line
            for line in head.split(b"\r\n")
            if line.split(b":")[0].lower() not in {b"connection", b"transfer-encoding"}
        ]
        if b"transfer-encoding: chunked" in head.lower():
            rest = _unchunked(rest)
            kept.append(b"Content-Length: %d" % len(rest))
        return b"\r\n".join(kept) + b"\r\n\r\n", rest

    async def serve(self, reader, writer):
        self.tasks.add(asyncio.current_task())
        try:
            while (request := await _request(reader)) is not None:
                if request.headers.pop("expect", "") == "100-continue":
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                    await writer.drain()
                body = await reader.readexactly(int(request.headers.get("content-length", 0)))
                self.seen.append(request)
                act = self._rule(request)
                if act is not None:
                    if not await act(self, request, body, reader, writer):
                        return
                    continue
                head, answer = await self.ask(request, body)
                writer.write(head + answer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # asyncio reports a handler that ends otherwise
        finally:
            self.tasks.discard(asyncio.current_task())
            writer.close()

    def _rule(self, request):
        for rule in self.rules:
            if rule.times and rule.matches(request):
                if rule.done < rule.skip:
                    rule.done += 1
                    continue
                rule.times -= 1
                return rule.act
        return None


def reset(writer):
    """Close a connection so that its peer gets a reset."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@asynccontextmanager
async def fault_proxy(endpoint, *, tls=None):
    """Start a proxy to `http://host:port`, with TLS in front if told; it ends with the block."""
    proxy = FaultProxy(endpoint.removeprefix("http://"), scheme="https" if tls else "http")
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, ssl=tls)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        tasks = list(proxy.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _request(reader):
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head[:-4].split("\r\n")
    method, target, _ = first.split(" ")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return Request(method, target, headers)


def _unchunked(data):
    parts = []
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size.split(b";")[0], 16)
        if not length:
            break
        parts.append(data[:length])
        data = data[length + 2 :]
    return b"".join(parts)
