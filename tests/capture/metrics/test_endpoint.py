import asyncio
import json
import socket

import pytest

from sealtape.capture import inbound as module
from sealtape.capture.metrics import Endpoint, Readiness
from sealtape.capture.metrics.vitals import build
from sealtape.schemas.errors import StoreError, TargetError
from tests.capture.metrics.http import get, response, send
from tests.capture.stage import until


class Room:
    """Vitals that a test decides on."""

    ready = True
    error = None

    async def families(self):
        if self.error:
            raise self.error
        return build("capture", "n1")

    async def readiness(self):
        return Readiness(ready=self.ready, checks={"bus": "ok"})


@pytest.fixture
async def room():
    room = Room()
    room.endpoint = endpoint = Endpoint(room)
    await endpoint.open("127.0.0.1:0")
    room.address = endpoint.address
    yield room
    await endpoint.close()


async def test_metrics(room):
    answer = await get(room.address, "/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert list(answer.samples().values()) == [1]
    assert (await get(room.address, "/metrics?x=1")).status == 200


async def test_alive_and_ready(room):
    assert (await get(room.address, "/healthz")).body == b"ok\n"
    answer = await get(room.address, "/readyz")
    assert (answer.status, json.loads(answer.body)["ready"]) == (200, True)
    room.ready = False
    answer = await get(room.address, "/readyz")
    assert (answer.status, json.loads(answer.body)["ready"]) == (503, False)
    assert (await get(room.address, "/healthz")).status == 200


async def test_a_head_has_no_body(room):
    answer = await get(room.address, "/metrics", "HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["content-length"]) > 50


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /metrics/ HTTP/1.1\r\n\r\n", 404),
        (b"GET /../metrics HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\n\r\n", 405),
        (b"DELETE /readyz HTTP/1.0\r\n\r\n", 405),
        (b"GET /metrics\r\n\r\n", 400),
        (b"GET /metrics HTTP/2.0\r\n\r\n", 400),
        (b"get /metrics HTTP/1.1\r\n\r\n", 400),
        (b"GET http://x/metrics HTTP/1.1\r\n\r\n", 400),
        (b"GET  /metrics HTTP/1.1\r\n\r\n", 400),
        (b"GET /met\x00rics HTTP/1.1\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 400),
        (b"GET /metrics HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 200),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (b"GET /" + b"x" * 2000 + b" HTTP/1.1\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 9000 + b"\r\n\r\n", 431),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 100_000, 431),
    ],
)
async def test_what_is_asked_strangely_is_refused(room, raw, status):
    try:
        answer = response(await send(room.address, raw))
    except ConnectionResetError:  # what it did not read of a request too large may reset it
        assert status == 431
    else:
        assert answer.status == status
        assert ("allow" in answer.headers) == (status == 405)
    assert (await get(room.address, "/healthz")).status == 200


async def test_half_a_request_is_cut_off(room, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT_S", 0.2)
    assert await send(room.address, b"GET /metrics HTTP/1.1\r\n") == b""
    reader, writer = await asyncio.open_connection(*room.address.split(":"))
    writer.close()  # and one who leaves at once
    await reader.read()
    assert (await get(room.address, "/healthz")).status == 200


async def test_one_who_does_not_read_is_cut_off(room, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT_S", 0.3)
    families = build("capture", "n" * (8 << 20))

    async def much():
        return families

    monkeypatch.setattr(room, "families", much, raising=False)
    host, port = room.address.split(":")
    with socket.create_connection((host, int(port))) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        await until(lambda: room.endpoint.connections)
        await until(lambda: not room.endpoint.connections)


async def test_there_are_never_many_connections(room, monkeypatch):
    host, port = room.address.split(":")
    held = [await asyncio.open_connection(host, port) for _ in range(module.MAX_CONNECTIONS)]
    await asyncio.sleep(0.1)
    assert await _refused(room.address)
    for _, writer in held:
        writer.close()
    await asyncio.sleep(0.1)
    assert (await get(room.address, "/healthz")).status == 200


async def _refused(address):
    try:
        return await send(address, b"GET /healthz HTTP/1.1\r\n\r\n") == b""
    except ConnectionError:
        return True


async def test_errors_are_answers_without_their_text(room, caplog):
    room.error = StoreError("the ledger at db.internal is away")
    answer = await get(room.address, "/metrics")
    assert (answer.status, answer.body) == (503, b"Service Unavailable\n")
    room.error = RuntimeError("nobody foresaw this")
    answer = await get(room.address, "/metrics")
    assert (answer.status, answer.body) == (500, b"Internal Server Error\n")
    assert "db.internal" in caplog.text
    assert "nobody foresaw this" in caplog.text


async def test_an_address_that_is_taken_is_named(room):
    with pytest.raises(TargetError, match=room.address) as caught:
        await Endpoint(room).open(room.address)
    assert caught.value.exit_code == 69


async def test_it_listens_on_ipv6():
    endpoint = Endpoint(Room())
    try:
        await endpoint.open("[::1]:0")
    except TargetError:
        pytest.skip("no IPv6 here")
    assert endpoint.address.startswith("[::1]:")
    assert (await get(endpoint.address, "/healthz")).status == 200
    await endpoint.close()
    await endpoint.close()
