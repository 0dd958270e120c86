"""Connections to brokers, kept and lent to one request at a time.

A broker answers the requests of one connection one after the other, and a fetch may wait there for
messages to come; so whoever asks gets a connection nobody else uses meanwhile. What was interrupted
(an error, a timeout, a cancelled caller) is closed, never used again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from sealtape.capture.bus.kafka.login import Connection, Tokens, connect
from sealtape.capture.bus.kafka.trouble import busy, mapped
from sealtape.capture.bus.kafka.url import KafkaUrl
from sealtape.schemas.errors import StoreError

__all__ = ["Address", "Wire"]

Address = tuple[str, int]


class Wire:
    """Connections to all brokers of one cluster."""

    def __init__(
        self, url: KafkaUrl, greet: Callable[[Connection], Awaitable[None]] | None = None
    ) -> None:
        """`greet` is called with each new connection, before anything is asked of it."""
        self._url = url
        self._greet = greet
        self._tokens = Tokens(url)
        self._idle: dict[Address, list[Connection]] = {}
        self._lent: set[Connection] = set()
        self._closed = False

    async def ask(self, address: Address, request: Any, *, limit_s: float) -> Any:
        """Send a request to one broker and return the response.

        Raises `StoreBusy` when the broker cannot be reached or does not answer within `limit_s`
        seconds, `StoreError` when it does not take us.
        """
        where = f"Kafka at {address[0]}:{address[1]}"
        try:
            async with asyncio.timeout(limit_s):
                with mapped(where):
                    return await self._ask(address, request)
        except TimeoutError as exc:
            self._forget(address)
            raise busy(f"{where} does not answer within {limit_s:.3g} s.") from exc

    async def _ask(self, address: Address, request: Any) -> Any:
        connection = self._take_idle(address)
        if connection is None:
            connection = await connect(self._url, self._tokens, *address)
            self._lent.add(connection)
            try:
                if self._greet is not None:
                    await self._greet(connection)
            except BaseException:
                await self._drop(connection)
                raise
        try:
            self._check_open()
            response = await connection.send(request)
        except BaseException:
            await self._drop(connection)
            raise
        self._lent.discard(connection)
        self._idle.setdefault(address, []).append(connection)
        return response

    def _take_idle(self, address: Address) -> Connection | None:
        self._check_open()
        idle = self._idle.get(address, [])
        while idle:
            connection = idle.pop()
            if connection.connected():
                self._lent.add(connection)
                return connection
            connection.close()
        return None

    def _forget(self, address: Address) -> None:
        """Close what is idle there: what made one connection dead may have made all of them so."""
        for connection in self._idle.pop(address, []):
            connection.close()

    async def _drop(self, connection: Connection) -> None:
        self._lent.discard(connection)
        await connection.end()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"The bus {self._url.store.text_form} is closed.")

    async def close(self) -> None:
        """Close all connections; what is under way fails."""
        self._closed = True
        idle = [connection for some in self._idle.values() for connection in some]
        self._idle.clear()
        await asyncio.gather(*(connection.end() for connection in [*idle, *self._lent]))
