"""Dialling a target: TCP, TLS as demanded, StartupMessage, authentication, until ReadyForQuery.

Whatever goes wrong is a `TargetError` whose context has a `reason` of `refusals.REFUSALS`. The
target's own words may hold the user name the gateway logs in with, so they are not passed on but
for errors about settings that the client itself asked for.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sealtape.capture.postgres.codec import messages, scram
from sealtape.capture.postgres.wire import Disconnected, Wire
from sealtape.schemas.errors import SealtapeError, TargetError
from sealtape.schemas.settings import TargetSettings
from sealtape.schemas.settings.values import split_address

DIAL_TIMEOUT_S: Final = 15.0
CANCEL_TIMEOUT_S: Final = 5.0
MAX_GREETING: Final = 1 << 20  # bytes from AuthenticationOk to ReadyForQuery
_ANSWER_LIMIT: Final = 64 << 10  # bytes of one message during authentication

Credential = Callable[[], Awaitable[str | None]]
"""Returns the password of the target's user, read anew for each connection; None: there is none."""


@dataclass(slots=True)
class Greeting:
    """What a target said from its AuthenticationOk up to and with its ReadyForQuery.

    Attributes:
        stream: those bytes.
        key_start, key_stop: where BackendKeyData stands in them; both 0 when the target sent none.
        process, key: what it held.
        parameters: ParameterStatus.
    """

    stream: bytes = b""
    key_start: int = 0
    key_stop: int = 0
    process: int = 0
    key: bytes = b""
    parameters: dict[str, str] = field(default_factory=dict)


class TargetDialer:
    """Opens connections to one target.

    Args:
        name: the target's name, for messages.
        settings: address, user, TLS.
        base: folder that `tls_ca` is relative to.
        credential: gives the password.

    Raises:
        TargetError: `tls_ca` cannot be read.
    """

    def __init__(
        self, *, name: str, settings: TargetSettings, base: Path, credential: Credential
    ) -> None:
        self.name = name
        self._settings = settings
        self._credential = credential
        self._host, self._port = split_address(settings.address)
        self._context = _context(settings, base)

    async def dial(self, parameters: Mapping[str, str]) -> tuple[Wire, Greeting]:
        """Connect and log in. `parameters` are the StartupMessage's, without `user`.

        Raises:
            TargetError: see the module.
        """
        try:
            async with asyncio.timeout(DIAL_TIMEOUT_S):
                password = await self._password()
                wire = await self._connect()
                try:
                    return wire, await self._log_in(wire, parameters, password)
                except BaseException:
                    wire.abort()
                    raise
        except (TimeoutError, Disconnected) as exc:
            raise self._error("target-down", "it does not answer") from exc

    async def cancel(self, process: int, key: bytes) -> None:
        """Send a CancelRequest and wait until the target has taken it; failures are swallowed.

        The protocol gives no answer either way: a cancel that comes too late looks the same.
        """
        try:
            async with asyncio.timeout(CANCEL_TIMEOUT_S):
                wire = await self._connect()
                try:
                    wire.transport.write(messages.cancel_request(process, key))
                    await wire.until_closed()
                finally:
                    wire.abort()
        except (TimeoutError, Disconnected, TargetError):
            return

    # -- connecting --------------------------------------------------------------------------------

    async def _connect(self) -> Wire:
        """Return a connection on which the StartupMessage can be sent."""
        loop = asyncio.get_running_loop()
        sock = await self._socket()
        # With TLS uvloop hands back its own SSLProtocol, not ours: keep what the factory gave.
        wire = Wire(tls=self._context is not None)
        try:
            if self._context is None:
                await loop.create_connection(lambda: wire, sock=sock)
                return wire
            await loop.sock_sendall(sock, messages.SSL_REQUEST)
            answer = await loop.sock_recv(sock, 1)
            if answer != b"S":  # whatever else it is, nothing in clear is read on
                raise self._error("target-tls", "it does not offer TLS")
            await loop.create_connection(
                lambda: wire, sock=sock, ssl=self._context, server_hostname=self._host
            )
        except ssl.SSLError as exc:
            sock.close()
            raise self._error("target-tls", "its TLS handshake failed") from exc
        except OSError as exc:
            sock.close()
            raise self._error("target-down", "the connection broke") from exc
        except BaseException:
            sock.close()
            raise
        return wire

    async def _socket(self) -> socket.socket:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except OSError as exc:
            raise self._error("target-down", "its name does not resolve") from exc
        failure: OSError | None = None
        for family, kind, protocol, _, address in found:
            sock = socket.socket(family, kind, protocol)
            try:
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                await loop.sock_connect(sock, address)
            except OSError as exc:
                sock.close()
                failure = exc
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        raise self._error("target-down", "nothing answers at its address") from failure

    # -- logging in --------------------------------------------------------------------------------

    async def _password(self) -> str | None:
        try:
            return await self._credential()
        except (SealtapeError, OSError, ValueError) as exc:
            raise self._error("target-credential-missing", "its credential cannot be read") from exc

    async def _log_in(
        self, wire: Wire, parameters: Mapping[str, str], password: str | None
    ) -> Greeting:
        wire.transport.write(messages.startup({"user": self._settings.user, **parameters}))
        try:
            start = await self._authenticate(wire, password)
            return await self._greeting(wire, start)
        except messages.ProtocolViolation as exc:
            credential = isinstance(exc, scram.AuthenticationFailed)
            reason = "target-credential" if credential else "target-protocol"
            raise self._error(reason, "it breaks the protocol") from exc

    async def _authenticate(self, wire: Wire, password: str | None) -> bytes:
        """Answer until AuthenticationOk; return that message's bytes."""
        exchange: scram.ScramClient | None = None
        verified = True
        while True:
            header, body = await wire.message(_ANSWER_LIMIT)
            if header[:1] in {b"E", b"v"}:  # v: it knows no minor version we do not ask for
                self._check(header, body)
                continue
            if header[:1] != b"R":
                raise messages.ProtocolViolation("An Authentication message was expected.")
            code, rest = messages.authentication(body)
            if code == 0:
                if not verified:
                    raise scram.AuthenticationFailed("The target left its SCRAM exchange.")
                return header + body
            if code == 12 and exchange is not None:
                exchange.verify(rest)
                verified = True
                continue
            if password is None:
                raise self._error("target-credential", "it asks for a password, and there is none")
            if code == 10:
                chosen = scram.mechanism(rest)
                exchange = scram.ScramClient(password, secrets.token_bytes(scram.NONCE_BYTES))
                verified = False
                answer = messages.sasl_initial_response(chosen, exchange.first())
            elif code == 11 and exchange is not None:
                final = await asyncio.to_thread(exchange.final, rest)  # PBKDF2: 1 ms and more
                answer = messages.sasl_response(final)
            else:
                answer = self._answer(code, rest, password)
            wire.transport.write(answer)

    def _answer(self, code: int, rest: bytes, password: str) -> bytes:
        if code == 3:
            return messages.password_message(password)
        if code == 5:
            return messages.password_message(
                scram.md5_password(self._settings.user, password, rest)
            )
        raise self._error("target-credential", "it asks for a kind of login that is not supported")

    async def _greeting(self, wire: Wire, start: bytes) -> Greeting:
        greeting = Greeting()
        pieces, size = [start], len(start)
        while True:
            header, body = await wire.message(MAX_GREETING)
            kind = header[:1]
            if kind == b"E":
                self._check(header, body)
            pieces += (header, body)
            if kind == b"K":
                greeting.process, greeting.key = messages.key_data(body)
                greeting.key_start = size
                greeting.key_stop = size + len(header) + len(body)
            elif kind == b"S":
                name, value = messages.parameter(body)
                greeting.parameters[name] = value
            size += len(header) + len(body)
            if kind == b"Z":
                greeting.stream = b"".join(pieces)
                return greeting
            if size > MAX_GREETING:
                raise messages.ProtocolViolation("The target's greeting does not end.")

    def _check(self, header: bytes, body: bytes) -> None:
        """Raise what an ErrorResponse means; other messages pass."""
        if header[:1] != b"E":
            return
        fields = messages.fields(body[: messages.MAX_ERROR])
        sqlstate = fields.get("C", "")
        sqlstate = sqlstate if len(sqlstate) == 5 and sqlstate.isalnum() else "08006"
        if sqlstate[:2] == "28":
            raise self._error("target-credential", "it refused the credential")
        if sqlstate == "3D000":
            raise self._error("target-database", "it has no such database")
        if sqlstate == "53300":
            raise self._error("target-full", "it has no connection left")
        if sqlstate in {"57P01", "57P02", "57P03"}:
            raise self._error("target-starting", "it is starting up or shutting down")
        what = "it gives no reason that may be shown"
        if sqlstate[:2] in {"22", "42"} and sqlstate != "42501":  # about what the client asked for
            what = fields.get("M", what)[:500]
        raise self._error("target-refused", what, sqlstate=sqlstate)

    def _error(self, reason: str, what: str, *, sqlstate: str = "08006") -> TargetError:
        return TargetError(
            f"Target `{self.name}`: {what}.",
            hint="Check the target's address, TLS and credential in the settings.",
            reason=reason,
            what=what,
            sqlstate=sqlstate,
        )


def _context(settings: TargetSettings, base: Path) -> ssl.SSLContext | None:
    if settings.tls == "disable":
        return None
    try:
        cafile = str(base / settings.tls_ca) if settings.tls_ca else None
        context = ssl.create_default_context(cafile=cafile)
    except OSError as exc:  # an SSLError is one too
        raise TargetError(
            f"The CA certificates {settings.tls_ca} cannot be read: {exc}.",
            hint="Correct tls_ca of the target.",
        ) from exc
    if settings.tls == "require":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["postgresql"])
    return context
