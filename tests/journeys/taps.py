"""Plain byte taps in front of a server, and where authentication ends in what they kept."""

import asyncio
import contextlib
import hashlib
import struct
from dataclasses import dataclass, field

AUTHENTICATION_OK = b"R\0\0\0\x08\0\0\0\0"
CANCEL, SSL = 80877102, 80877103


@dataclass(eq=False)
class Tapped:
    """One connection: what the client sent, what it received, and the tap's own port."""

    port: int = 0
    sent: bytearray = field(default_factory=bytearray)
    received: bytearray = field(default_factory=bytearray)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def cancels(self):
        return self.sent[4:8] == struct.pack(">I", CANCEL)

    def client_bytes(self):
        """What was sent after authentication."""
        data, at = bytes(self.sent), 0
        while len(data) - at >= 8:  # requests for encryption, then the StartupMessage
            length, code = struct.unpack_from(">II", data, at)
            at += length
            if code >> 16 == 3:
                break
        while data[at : at + 1] == b"p":
            at += 1 + struct.unpack_from(">I", data, at + 1)[0]
        return data[at:]

    def server_bytes(self):
        """What was received from AuthenticationOk on; empty when it never came."""
        data = bytes(self.received)
        at = data.find(AUTHENTICATION_OK)
        return data[at:] if at >= 0 else b""


class Tap:
    """A TCP relay that keeps every byte of both directions of each connection."""

    def __init__(self, port):
        self.target = port
        self.connections = []
        self._tasks = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def sessions(self):
        """The connections that were not cancel requests."""
        return [each for each in self.connections if each.sent and not each.cancels]

    def by_port(self):
        return {each.port: each for each in self.connections}

    async def quiet(self):
        """Wait until every connection is over."""
        for each in self.connections:
            await asyncio.wait_for(each.over.wait(), 30)

    def _accept(self, reader, writer):
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader, writer):
        kept = Tapped()
        self.connections.append(kept)
        try:
            inner_reader, inner_writer = await self._connect()
        except OSError:
            writer.transport.abort()
            kept.over.set()
            return
        kept.port = inner_writer.get_extra_info("sockname")[1]
        try:
            await asyncio.gather(
                self._pass(reader, inner_writer, kept.sent),
                self._pass(inner_reader, writer, kept.received),
            )
        finally:
            for each in (writer, inner_writer):
                each.close()
            kept.over.set()

    async def _connect(self):
        return await asyncio.open_connection("127.0.0.1", self.target)

    async def _pass(self, reader, writer, kept):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                kept += data
                writer.write(data)
                await writer.drain()
        with contextlib.suppress(OSError, RuntimeError):
            writer.write_eof()


class Balancer(Tap):
    """A tap before several nodes: each connection goes to the next one that takes it."""

    def __init__(self):
        super().__init__(0)
        self.targets = []
        self._turn = 0

    async def _connect(self):
        for _ in self.targets:
            self._turn += 1
            with contextlib.suppress(OSError):
                port = self.targets[self._turn % len(self.targets)]
                return await asyncio.open_connection("127.0.0.1", port)
        raise ConnectionRefusedError


def digest(chunks):
    """SHA-256 and length of a stream too large to keep."""
    found, length = hashlib.sha256(), 0
    for chunk in chunks:
        found.update(chunk)
        length += len(chunk)
    return found.hexdigest(), length
