"""The least that asks an endpoint."""

import asyncio
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families


@dataclass
class Response:
    status: int
    headers: dict
    body: bytes

    def samples(self):
        """Value by (name, labels)."""
        return samples(self.body.decode())


def samples(text):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def send(address, raw):
    """Send bytes, return all that comes back."""
    host, port = address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    try:
        writer.write(raw)
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.close()


async def get(address, path, method="GET"):
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    raw = await send(address, head.encode())
    return response(raw)


def response(raw):
    head, _, body = raw.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
    return Response(int(status.split()[1]), headers, body)
