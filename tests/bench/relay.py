"""The bare relay that everything is measured against: two uvloop Protocols, nothing in between.

python tests/bench/relay.py HOST:PORT [--certificate CRT --key KEY]

Listens on a free port of 127.0.0.1, prints it, and passes bytes on to HOST:PORT unchanged. With a
certificate it answers SSLRequest, takes TLS from the client and speaks plaintext to the far end.
It records nothing and understands nothing: what it costs is what any relay in Python costs.
"""

import argparse
import asyncio
import ssl

import uvloop

SSL_REQUEST = bytes.fromhex("0000000804d2162f")
HIGH_WATER = 512 << 10


class Side(asyncio.Protocol):
    """One connection; what it reads goes to `peer`."""

    def __init__(self):
        self.peer = None
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER)

    def data_received(self, data):
        self.peer.transport.write(data)

    def pause_writing(self):
        if not self.peer.transport.is_closing():
            self.peer.transport.pause_reading()

    def resume_writing(self):
        if not self.peer.transport.is_closing():
            self.peer.transport.resume_reading()

    def connection_lost(self, exc):
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.close()


class Client(Side):
    """The client's side, which also dials the far end."""

    def __init__(self, target, tls):
        super().__init__()
        self.target = target
        self.tls = tls
        self.early = []

    def connection_made(self, transport):
        super().connection_made(transport)
        if self.tls is None:
            transport.pause_reading()
            self._task = asyncio.ensure_future(self._dial())

    def data_received(self, data):
        if self.peer is not None:
            self.peer.transport.write(data)
        elif self.tls is not None and data == SSL_REQUEST:
            self.transport.pause_reading()
            self.transport.write(b"S")
            self._task = asyncio.ensure_future(self._secure())
        else:
            self.early.append(data)

    async def _secure(self):
        loop = asyncio.get_running_loop()
        plain, self.tls = self.transport, None
        self.transport = await loop.start_tls(plain, self, self.tls_context, server_side=True)
        self.transport.set_write_buffer_limits(high=HIGH_WATER)
        await self._dial()

    async def _dial(self):
        loop = asyncio.get_running_loop()
        _, far = await loop.create_connection(Side, *self.target)
        self.peer, far.peer = far, self
        for data in self.early:
            far.transport.write(data)
        self.transport.resume_reading()

    tls_context = None


async def main():
    """Listen until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    args = parser.parse_args()
    host, _, port = args.target.rpartition(":")
    if args.certificate:
        Client.tls_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        Client.tls_context.load_cert_chain(args.certificate, args.key)
    server = await asyncio.get_running_loop().create_server(
        lambda: Client((host, int(port)), Client.tls_context), "127.0.0.1", 0, backlog=2048
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
