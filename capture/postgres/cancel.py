"""Cancel keys of ours, and the way a CancelRequest takes from any worker to the session it names.

The 32-bit process number of a key says where the session lives:

    0 | node 7 bits | worker 6 bits | session 18 bits

The rest is secret: 32 bits for a protocol 3.0 client, 32 bytes for a 3.2 client. A worker that gets
a request for another worker of its node passes it on through a datagram socket in the node's run
folder; one for another node is passed on to it if it is a peer (`peers`). Nothing is ever answered:
the protocol has no word for it, and a guesser learns nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import os
import secrets
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sealtape.schemas.errors import StoreError

MAX_WORKERS: Final = 64
MAX_SESSIONS: Final = 1 << 18
LONG_KEY: Final = 32
_MAX_PATH: Final = 100  # sun_path has 108 bytes, 104 on some systems

Cancel = Callable[[], Awaitable[None]]
PassOn = Callable[[int, bytes], Awaitable[None]]


def node_bits(name: str) -> int:
    """Return the seven bits that stand for a node in cancel keys."""
    return hashlib.sha256(name.encode()).digest()[0] >> 1


@dataclass(frozen=True, slots=True)
class CancelKey:
    """What BackendKeyData tells a client."""

    process: int
    key: bytes


class CancelRegistry:
    """The open sessions of one worker by their cancel keys.

    Args:
        node: name of the node; 7 bits of its digest go into the keys.
        worker: this worker's number, under 64.
    """

    def __init__(self, *, node: str, worker: int) -> None:
        self.worker = worker
        self._node = node_bits(node)
        self._base = self._node << 24 | worker << 18
        self._sessions: dict[int, tuple[bytes, Cancel]] = {}
        self._running: set[asyncio.Task[None]] = set()

    def add(self, cancel: Cancel, *, long: bool) -> CancelKey:
        """Return a new key for a session; `cancel` is called when a client presents it.

        `long` gives a key for protocol 3.2.
        """
        while True:  # at most MAX_SESSIONS, far over what a worker holds
            process = self._base | secrets.randbelow(MAX_SESSIONS)
            if process not in self._sessions:
                break
        key = secrets.token_bytes(LONG_KEY if long else 4)
        self._sessions[process] = key, cancel
        return CancelKey(process, key)

    def remove(self, key: CancelKey) -> None:
        """Forget a session that has ended."""
        self._sessions.pop(key.process, None)

    def worker_of(self, process: int) -> int | None:
        """Return the worker of this node that a process number names; None for another node's."""
        if process >> 24 != self._node:
            return None
        return process >> 18 & (MAX_WORKERS - 1)

    def knows(self, process: int, key: bytes) -> bool:
        """Whether it is the key of an open session of this worker."""
        known = self._sessions.get(process)
        return known is not None and hmac.compare_digest(known[0], key)

    async def cancel(self, process: int, key: bytes) -> None:
        """Cancel what the session is doing if the key is right, else do nothing."""
        if self.knows(process, key):
            await self._sessions[process][1]()

    def cancel_soon(self, process: int, key: bytes) -> None:
        """Cancel without waiting."""
        task = asyncio.get_running_loop().create_task(self.cancel(process, key))
        self._running.add(task)
        task.add_done_callback(self._running.discard)


class CancelSwitch:
    """Takes cancel requests to the right worker of this node.

    Args:
        registry: this worker's sessions.
        folder: where the workers of this node leave their sockets; only its owner may enter it.
        elsewhere: takes requests for sessions of other nodes.
    """

    def __init__(
        self, *, registry: CancelRegistry, folder: Path, elsewhere: PassOn | None = None
    ) -> None:
        self._elsewhere = elsewhere
        self._registry = registry
        self._folder = folder
        self._socket: socket.socket | None = None
        self._descriptor = -1

    def open(self) -> None:
        """Start to listen for requests that other workers pass on. Raises StoreError."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self._folder / _name(self._registry.worker)
            path.unlink(missing_ok=True)
            self._descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
            self._socket.bind(self._address(self._registry.worker))
            path.chmod(0o600)
        except OSError as exc:
            self.close()
            raise StoreError(
                f"Cannot make the cancel socket in {self._folder}: {exc.strerror or exc}.",
                hint="Check the permissions of the run folder.",
            ) from exc
        asyncio.get_running_loop().add_reader(self._socket, self._receive)

    def close(self) -> None:
        """Stop listening."""
        if self._socket is not None:
            if self._socket.fileno() >= 0:
                with contextlib.suppress(RuntimeError):  # no loop: `open` had failed
                    asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
            with contextlib.suppress(OSError):
                (self._folder / _name(self._registry.worker)).unlink()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    async def request(self, process: int, key: bytes) -> None:
        """Carry out a client's CancelRequest, here or at the worker that it names."""
        worker = self._registry.worker_of(process)
        if worker == self._registry.worker:
            await self._registry.cancel(process, key)
        elif worker is None and self._elsewhere is not None:
            await self._elsewhere(process, key)
        elif worker is not None and self._socket is not None:
            with contextlib.suppress(OSError):  # no such worker, or it is overrun
                self._socket.sendto(process.to_bytes(4, "big") + key, self._address(worker))

    def _receive(self) -> None:
        assert self._socket is not None
        with contextlib.suppress(OSError):
            data = self._socket.recv(512)
            if len(data) >= 8:
                self._registry.cancel_soon(int.from_bytes(data[:4], "big"), data[4:])

    def _address(self, worker: int) -> str:
        path = str(self._folder / _name(worker))
        if len(os.fsencode(path)) <= _MAX_PATH:
            return path
        return f"/proc/self/fd/{self._descriptor}/{_name(worker)}"  # Linux: a short name for it


def _name(worker: int) -> str:
    return f"cancel-{worker}.sock"
