"""The listening socket: accepts, keeps the caps, and counts what never became a session.

Port scanners, garbage and broken TLS are neither sessions nor refusals: the journal has their
number.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Final

from sealtape.capture.postgres.codec.messages import ProtocolViolation
from sealtape.capture.postgres.limits import Limits, Seat
from sealtape.schemas.errors import TargetError

BACKLOG: Final = 1024
_NO_DESCRIPTORS_S: Final = 0.1  # before accepting again when the process has no descriptor left

log = logging.getLogger(__name__)

Peer = tuple[str, int]
Serve = Callable[[socket.socket, Peer, Seat], Awaitable[None]]
Count = Callable[[str], None]


def bind(host: str, port: int, *, shared: bool) -> socket.socket:
    """Return a bound socket; `shared` lets the other workers of this node bind it too.

    Raises:
        TargetError: the address cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(address)
        except BaseException:
            sock.close()
            raise
    except OSError as exc:
        raise TargetError(
            f"Cannot listen on {host}:{port}: {exc.strerror or exc}.",
            hint="Change `listen` in [capture.postgres], or stop what uses that address.",
        ) from exc
    sock.setblocking(False)
    return sock


class Listener:
    """Accepts connections and gives each a task.

    Args:
        sock: bound by `bind`.
        limits: the caps.
        serve: handles one connection, and raises `ProtocolViolation` or `OSError` for what is no
            session.
        count: told the kind of each connection that was no session.
    """

    def __init__(self, *, sock: socket.socket, limits: Limits, serve: Serve, count: Count) -> None:
        self._sock = sock
        self._limits = limits
        self._serve = serve
        self._count = count
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """The address it listens on, as `host:port`."""
        host, port = self._sock.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def open(self) -> None:
        """Start to accept."""
        self._sock.listen(BACKLOG)
        self._accepting = asyncio.create_task(self._accept())

    async def close(self) -> None:
        """Stop accepting; the connections there are stay."""
        if self._accepting is not None:
            self._accepting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._accepting
        self._sock.close()

    async def finished(self) -> None:
        """Return when no connection is left."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def abort(self) -> None:
        """Cancel the connections there are."""
        for task in self._tasks:
            task.cancel()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, address = await loop.sock_accept(self._sock)
            except ConnectionError:
                continue  # gone before it was accepted
            except Exception as exc:  # noqa: BLE001 - whatever it is, go on listening
                log.warning("cannot accept connections: %s", exc)
                await asyncio.sleep(_NO_DESCRIPTORS_S)
                continue
            seat = self._limits.enter(address[0])
            if seat is None:
                sock.close()
                self._count("over-limit")
                continue
            task = loop.create_task(self._connection(sock, (address[0], address[1]), seat))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connection(self, sock: socket.socket, peer: Peer, seat: Seat) -> None:
        try:
            await self._serve(sock, peer, seat)
        except ProtocolViolation:
            self._count("garbage")
        except TimeoutError:
            self._count("timeout")
        except ssl.SSLError:
            self._count("tls-failed")
        except OSError:
            self._count("disconnected")
        except Exception:
            log.exception("a connection ended in an error that nobody foresaw")
            self._count("error")
        finally:
            seat.leave()
