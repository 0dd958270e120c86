"""From an accepted socket to a client that has said what it wants.

Before TLS everything is read from the raw socket in exact lengths, so a byte that follows an
SSLRequest in clear reaches the TLS engine (which refuses it) and never the session: nothing can be
put in front of the encrypted conversation (CVE-2021-23214), and no byte that was read already gets
lost, as `loop.start_tls` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from dataclasses import dataclass
from typing import Final, cast

from sealtape.capture.postgres.codec import startup
from sealtape.capture.postgres.codec.messages import ProtocolViolation
from sealtape.capture.postgres.codec.startup import (
    CancelRequest,
    First,
    GSSENCRequest,
    SSLRequest,
    Startup,
    UnsupportedProtocol,
)
from sealtape.capture.postgres.refusals import refusal
from sealtape.capture.postgres.wire import Disconnected, Wire
from sealtape.schemas.errors import Refused, SettingsError

FAREWELL_S: Final = 2.0  # for a refused client to read why and close


@dataclass(frozen=True, slots=True)
class Hello:
    """A client at the end of its handshake.

    Attributes:
        wire: its connection, encrypted or not.
        first: its StartupMessage or CancelRequest, or why it has to be refused.
        tls: whether the connection is encrypted.
    """

    wire: Wire
    first: Startup | CancelRequest | Refused
    tls: bool


def server_context(certificate: str, key: str) -> ssl.SSLContext:
    """Return the TLS context that clients meet. Raises SettingsError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([startup.TLS_ALPN])
    context.num_tickets = 0  # PostgreSQL's clients resume no sessions
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(certificate, key)
    except OSError as exc:  # an SSLError is one too
        raise SettingsError(
            f"The TLS certificate {certificate} or its key cannot be read: {exc.strerror or exc}.",
            hint="Correct tls_certificate and tls_key in [capture.postgres].",
        ) from exc
    return context


def is_loopback(address: str) -> bool:
    """Whether a peer's address is on this host's loopback, in its IPv6 disguise too."""
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None)
    return bool((mapped or found).is_loopback)


async def greet(sock: socket.socket, context: ssl.SSLContext) -> Hello:
    """Read what a client says first, with TLS where it asks for it. Takes the socket over.

    Raises:
        ProtocolViolation: it does not speak PostgreSQL; it is not answered.
        OSError: the connection broke, TLS (`ssl.SSLError`) included.
    """
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        first = await _in_clear(sock)
    except BaseException:
        sock.close()
        raise
    if first is None:
        return await _direct(await _wire(sock, context))
    if isinstance(first, SSLRequest):
        return await _inside_tls(await _wire(sock, context))
    return Hello(await _wire(sock, None), first, tls=False)


async def say_goodbye(wire: Wire, message: bytes) -> None:
    """Send a last message, if any, and close so that the client can still read it."""
    transport = wire.transport
    if transport.is_closing():
        return
    if message:
        transport.write(message)
    if transport.can_write_eof():
        with contextlib.suppress(OSError):  # a TimeoutError is one
            transport.write_eof()
            async with asyncio.timeout(FAREWELL_S):
                await wire.until_closed()
    transport.close()


async def _in_clear(sock: socket.socket) -> Startup | CancelRequest | SSLRequest | Refused | None:
    """Read from the raw socket the first real packet; None says that TLS starts without one."""
    if await _peek(sock) == startup.TLS_HANDSHAKE:
        return None
    refused_gss = False
    while True:
        first = _read(await _exactly(sock, startup.first_length(await _exactly(sock, 4))))
        if isinstance(first, GSSENCRequest):
            if refused_gss:
                raise ProtocolViolation("Encryption was asked for twice.")
            refused_gss = True
            await asyncio.get_running_loop().sock_sendall(sock, b"N")
            continue
        if isinstance(first, SSLRequest):
            await asyncio.get_running_loop().sock_sendall(sock, b"S")
        return first


async def _direct(wire: Wire) -> Hello:
    """Take a client that starts with TLS (sslnegotiation=direct)."""
    session = cast("ssl.SSLObject", wire.transport.get_extra_info("ssl_object"))
    if session.selected_alpn_protocol() != startup.TLS_ALPN:
        return Hello(wire, refusal("alpn"), tls=True)
    return await _inside_tls(wire)


async def _inside_tls(wire: Wire) -> Hello:
    try:
        length = startup.first_length(await wire.exactly(4))
        first = _read(await wire.exactly(length))
        if isinstance(first, SSLRequest | GSSENCRequest):
            raise ProtocolViolation("Encryption was asked for inside TLS.")
    except BaseException:
        wire.abort()
        raise
    return Hello(wire, first, tls=True)


def _read(body: bytes) -> First | Refused:
    try:
        return startup.read_first(body)
    except UnsupportedProtocol as exc:
        return refusal("protocol-version", what=exc.message)


async def _wire(sock: socket.socket, context: ssl.SSLContext | None) -> Wire:
    # With TLS uvloop hands back its own SSLProtocol, not ours: keep what the factory gave.
    wire = Wire(tls=context is not None)
    await asyncio.get_running_loop().connect_accepted_socket(lambda: wire, sock, ssl=context)
    return wire


async def _exactly(sock: socket.socket, count: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < count:
        piece = await loop.sock_recv(sock, count - len(data))
        if not piece:
            raise Disconnected("The client closed the connection.")
        data += piece
    return data


async def _peek(sock: socket.socket) -> int:
    """Return the first byte without taking it."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            data = sock.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            readable = loop.create_future()
            loop.add_reader(sock, _wake, readable)
            try:
                await readable
            finally:
                loop.remove_reader(sock)
            continue
        if not data:
            raise Disconnected("The client closed the connection.")
        return data[0]


def _wake(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)
