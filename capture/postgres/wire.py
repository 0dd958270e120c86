"""Awaitable exact reads over a transport, for the handshakes before relaying starts.

Relaying itself uses bare protocols (`relay.py`): streams cost half as much again per round trip.
"""

from __future__ import annotations

import asyncio
from typing import cast

from sealtape.capture.postgres.codec import messages

PRE_AUTH_LIMIT = 64 << 10
"""Bytes a peer may have waiting before it is believed; more stays in the kernel."""


class Disconnected(ConnectionError):
    """The peer closed the connection before it had said what was awaited."""


class Wire(asyncio.Protocol):
    """Buffers what arrives, bounded, until `take_over` puts another protocol in its place.

    uvloop ignores `pause_reading` inside `connection_made`, so reading is paused only once
    more than `limit` bytes wait; one late chunk of a TLS transport is kept too.
    """

    def __init__(self, *, tls: bool, limit: int = PRE_AUTH_LIMIT) -> None:
        self.tls = tls
        self.ended = False
        self.lost = False
        self._limit = limit
        self._buffer = bytearray()
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None

    @property
    def transport(self) -> asyncio.Transport:
        """The transport; only after the connection is made."""
        assert self._transport is not None
        return self._transport

    # -- asyncio.Protocol --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > self._limit and not self._paused:
            self._paused = True
            self.transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        self.ended = True
        self._wake()
        return not self.tls  # half open; TLS has no such thing

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = self.lost = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def abort(self) -> None:
        """Close at once.

        A transport of asyncio that closed after flushing raises AttributeError when it is aborted.
        """
        if not self.lost:
            self.transport.abort()

    # -- reading -----------------------------------------------------------------------------------

    async def exactly(self, count: int) -> bytes:
        """Return the next `count` bytes. Raises Disconnected."""
        while len(self._buffer) < count:
            if self.ended:
                raise Disconnected("The connection was closed.")
            self._resume()
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    async def message(self, limit: int) -> tuple[bytes, bytes]:
        """Return the header (kind and length) and the body of the next message.

        Raises:
            Disconnected: the peer closed.
            ProtocolViolation: the message is malformed or longer than `limit` bytes.
        """
        header = await self.exactly(5)
        return header, await self.exactly(messages.parse_length(header, limit=limit))

    async def until_closed(self) -> None:
        """Return when the peer has closed; what it still sends is thrown away."""
        while not self.ended:
            self._buffer.clear()
            self._resume()
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self.transport.resume_reading()

    def take_over(self, protocol: asyncio.Protocol) -> bytes:
        """Give the transport to `protocol` and return what had arrived but was not read.

        The caller looks at `ended` and `lost`: what came before is not told to `protocol` again.
        """
        data = bytes(self._buffer)
        self._buffer.clear()
        self.transport.set_protocol(protocol)
        if not self.lost:
            self._resume()
        return data
