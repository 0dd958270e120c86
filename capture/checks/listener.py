"""Addresses to listen on: free, or taken by ourselves."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding

from sealtape.capture.checks.certificate import own_certificate
from sealtape.capture.checkup import Check
from sealtape.capture.postgres.codec.messages import SSL_REQUEST
from sealtape.schemas.settings import Settings
from sealtape.schemas.settings.values import split_address

__all__ = ["check_listener", "check_metrics"]

TIMEOUT_S: Final = 5.0
_EVERY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - recognised, not listened on


async def check_listener(settings: Settings) -> list[Check]:
    """Look whether clients' address can be had, or is a node's that shows our certificate."""
    name, address = "listener: address", settings.capture.postgres.listen
    if split_address(address)[1] == 0:
        if settings.deployment.mode == "dev":
            return [Check(name, "ok", "A free port is taken at each start.")]
        message = f"{address}: another port is taken at each start."
        return [Check(name, "warning", message, "Give capture.postgres.listen a port.")]
    refused = await asyncio.to_thread(_bind, address)
    if refused is None:
        return [Check(name, "ok", f"{address} is free.")]
    if await asyncio.to_thread(_shows_our_certificate, address, settings):
        return [Check(name, "ok", f"A node with our certificate listens on {address}.")]
    message = f"{address} cannot be had: {refused}."
    hint = "Stop what listens there, or change capture.postgres.listen."
    return [Check(name, "error", message, hint)]


async def check_metrics(address: str, room: str, mode: str = "production") -> list[Check]:
    """Look whether a room's metrics address can be had, or is answered as ours would."""
    name = f"{room}: metrics"
    if not address and mode == "dev":
        return [Check(name, "ok", "No metrics and no health checks, which a lab can do without.")]
    if not address:
        message = "No metrics and no health checks: nobody is told when something is wrong."
        return [Check(name, "warning", message, f'Set metrics = "127.0.0.1:PORT" in [{room}].')]
    refused = await asyncio.to_thread(_bind, address)
    if refused is None:
        return [Check(name, "ok", f"{address} is free.")]
    if await asyncio.to_thread(_is_alive, address):
        return [Check(name, "ok", f"A room answers on {address}.")]
    message = f"{address} cannot be had: {refused}."
    return [Check(name, "error", message, f"Change metrics in [{room}], or stop what is there.")]


def _bind(address: str) -> str | None:
    """Return why an address cannot be bound; None when it can, and was let go again."""
    host, port = split_address(address)
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(place)
    except OSError as exc:
        return exc.strerror or str(exc)
    return None


def _connect(address: str) -> socket.socket:
    host, port = split_address(address)
    return socket.create_connection((_EVERY.get(host, host), port), TIMEOUT_S)


def _shows_our_certificate(address: str, settings: Settings) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # it is compared whole instead
    try:
        ours = own_certificate(settings).public_bytes(Encoding.DER)
        with _connect(address) as sock:
            sock.sendall(SSL_REQUEST)
            if sock.recv(1) != b"S":
                return False
            with context.wrap_socket(sock) as inside:
                return inside.getpeercert(binary_form=True) == ours
    except (OSError, ValueError):
        return False


def _is_alive(address: str) -> bool:
    try:
        with _connect(address) as sock:
            sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            while len(answer) < 4096 and (data := sock.recv(4096)):
                answer += data
    except OSError:
        return False
    return answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"\r\n\r\nok\n")
