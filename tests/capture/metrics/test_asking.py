import asyncio

import pytest

from sealtape.capture.metrics import Endpoint, asking
from sealtape.capture.metrics.asking import metrics_at, readiness_at
from tests.capture.metrics.test_endpoint import Room
from tests.servers.postgres import free_port


@pytest.fixture
async def room():
    room = Room()
    endpoint = Endpoint(room)
    await endpoint.open("0.0.0.0:0")
    room.address = endpoint.address  # of all interfaces, as settings may have it
    yield room
    await endpoint.close()


async def test_a_room_is_asked(room):
    assert await readiness_at(room.address) == {"ready": True, "checks": {"bus": "ok"}}
    room.ready = False
    assert (await readiness_at(room.address))["ready"] is False
    assert (await metrics_at(room.address))["sealtape_build_info"] == 1
    assert (await metrics_at(room.address))["sealtape_nothing"] == 0


async def test_nobody_is_there():
    address = f"127.0.0.1:{free_port()}"
    assert await readiness_at(address) is None
    assert await metrics_at(address) is None
    assert await metrics_at("no-such-host.invalid:1") is None


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n<html>",
        b"HTTP/1.1 200 OK\r\n\r\n[1]",
        b'HTTP/1.1 200 OK\r\n\r\n{"ready": true}',
        b"HTTP/1.1 200 OK\r\n\r\nnode_cpu_seconds_total 3\n",
        b"HTTP/1.1 200 OK\r\n\r\nx{ 3\n",
        b"HTTP/1.1 200 OK\r\n\r\n\xff\xfe",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (9 << 20),
    ],
)
async def test_somebody_else_is_there(answer):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    assert await readiness_at(address) is None
    assert await metrics_at(address) is None
    server.close()


async def test_somebody_does_not_answer(monkeypatch):
    monkeypatch.setattr(asking, "TIMEOUT_S", 0.2)
    asked = asyncio.Event()

    async def serve(reader, writer):
        await asked.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    assert await metrics_at(f"127.0.0.1:{server.sockets[0].getsockname()[1]}") is None
    asked.set()
    server.close()
