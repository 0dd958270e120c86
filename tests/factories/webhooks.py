"""A receiver of alarms: a real HTTP server that answers as it is told, and keeps what came.

async with webhook(statuses=[500]) as hook:      # 500 once, then 200 for ever
    ...
alarms = hook.verified(secret)                   # each under its signature, as a receiver does
"""

import asyncio
import contextlib
import hashlib
import hmac
from contextlib import asynccontextmanager

from sealtape.schemas.verification import SIGNATURE, Alarm

__all__ = ["webhook"]


class Webhook:
    def __init__(self, statuses):
        self.statuses = list(statuses)
        self.requests = []
        self.arrived = asyncio.Event()

    async def serve(self, reader, writer):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines[1:] if line)
            body = await reader.readexactly(int(headers["Content-Length"]))
            status = self.statuses.pop(0) if self.statuses else 200
            if status == 200:
                self.requests.append((lines[0], headers, body))
            writer.write(f"HTTP/1.1 {status} so\r\nContent-Length: 0\r\n\r\n".encode())
            await writer.drain()
            self.arrived.set()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    def verified(self, secret):
        """The alarms that were taken; each must have its signature."""
        found = []
        for _, headers, body in self.requests:
            named, told = headers[SIGNATURE].split(",v1=")
            message = named.removeprefix("t=").encode() + b"." + body
            expected = hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()
            assert hmac.compare_digest(expected, told)
            found.append(Alarm.from_json(body))
        return found

    async def until(self, count):
        """Wait until so many were taken."""
        async with asyncio.timeout(60):
            while len(self.requests) < count:
                self.arrived.clear()
                await self.arrived.wait()


@asynccontextmanager
async def webhook(statuses=()):
    hook = Webhook(statuses)
    server = await asyncio.start_server(hook.serve, "127.0.0.1", 0)
    hook.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/alarms?to=ops"
    try:
        yield hook
    finally:
        server.close()
