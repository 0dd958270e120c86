"""Answering strangers: bodies, their bounds, TLS, and what is cut off."""

import asyncio
import contextlib
import http.client
import ssl
from http import HTTPStatus

import pytest

from sealtape.capture import inbound as module
from sealtape.capture.inbound import TEXT, Inbound, Reply, plain
from sealtape.capture.outbound import destination, post
from sealtape.schemas.errors import StoreError, TargetError
from tests.capture.metrics.http import get, response, send
from tests.servers.tls import write_certificate


class Echo:
    """Answers with what it was asked."""

    def __init__(self):
        self.asked = []
        self.error = None

    async def answer(self, asked):
        self.asked.append(asked)
        if self.error:
            raise self.error
        if asked.path == "/none":
            return plain(HTTPStatus.NOT_FOUND)
        return Reply(HTTPStatus.OK, "application/x-echo", asked.body, {"X-Path": asked.path})


@pytest.fixture
async def echo():
    echo = Echo()
    echo.inbound = Inbound(echo.answer, max_body=100_000)
    await echo.inbound.open("127.0.0.1:0", what="echoes", hint="Shout elsewhere.")
    echo.address = echo.inbound.address
    yield echo
    await echo.inbound.close()


async def ask(echo, head, body=b""):
    return response(await send(echo.address, head + b"\r\n\r\n" + body))


async def test_a_body_comes_whole(echo):
    body = bytes(range(256)) * 300  # more than a head may have
    answer = await ask(echo, b"POST /a?b=1 HTTP/1.1\r\nContent-Length: 76800", body)
    assert (answer.status, answer.body) == (200, body)
    assert answer.headers["content-type"] == "application/x-echo"
    assert answer.headers["x-path"] == "/a"
    assert echo.asked[0].method == "POST"


async def test_a_body_in_pieces_comes_whole(echo):
    host, port = echo.address.split(":")
    reader, writer = await asyncio.open_connection(host, port)
    for byte in b"PUT /x HTTP/1.0\r\ncontent-length:5\r\n\r\nhello":
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0)
    assert response(await reader.read()).body == b"hello"
    writer.close()


async def test_who_waits_for_leave_to_send_gets_it(echo):
    host, port = echo.address.split(":")
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"POST / HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"hi")
    assert response(await reader.read()).body == b"hi"
    writer.close()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"POST / HTTP/1.1\r\nContent-Length: 100001", 413),
        (b"POST / HTTP/1.1\r\nContent-Length: 999999999999999", 413),
        (b"POST / HTTP/1.1\r\nContent-Length: 9999999999999999", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -1", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1, 1", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked", 411),
        (b"POST / HTTP/1.1\r\nContent-Length: 0", 200),
        (b"POST / HTTP/1.1\r\nContent-Length: 00", 200),
        (b"POST / HTTP/1.1", 200),
        (b"POST /none HTTP/1.1", 404),
        (b"POST", 400),
    ],
)
async def test_what_is_asked_strangely_is_refused(echo, head, status):
    assert (await ask(echo, head)).status == status
    assert bool(echo.asked) == (status in {200, 404})


async def test_a_body_that_never_comes_is_not_waited_for(echo, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT_S", 0.2)
    assert await send(echo.address, b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhell") == b""
    assert not echo.asked


async def test_a_body_that_ends_early_is_no_request(echo):
    host, port = echo.address.split(":")
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhell")
    writer.write_eof()
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    assert not echo.asked
    writer.close()


async def test_errors_do_not_tell_their_text(echo, caplog):
    echo.error = StoreError("the disk of db.internal is full")
    answer = await get(echo.address, "/")
    assert (answer.status, answer.body) == (503, b"Service Unavailable\n")
    echo.error = RuntimeError("nobody foresaw this")
    answer = await get(echo.address, "/")
    assert (answer.status, answer.body) == (500, b"Internal Server Error\n")
    assert "db.internal" in caplog.text
    assert "nobody foresaw this" in caplog.text


async def test_a_head_has_no_body(echo):
    answer = await get(echo.address, "/none", "HEAD")
    assert (answer.status, answer.body) == (404, b"")
    assert answer.headers["content-type"] == TEXT


async def test_it_speaks_tls(echo, tmp_path):
    chain, key = write_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain, key)
    secure = Inbound(echo.answer, max_body=10)
    await secure.open("127.0.0.1:0", what="echoes", hint="", tls=context)
    server = destination(f"https://{secure.address}/x", chain, what="url")
    answer = await post(server, b"hi", kind="text/plain", timeout_s=10, max_answer=10)
    assert (answer.status, answer.body) == (200, b"hi")
    await secure.close()


async def test_an_address_that_is_taken_is_named(echo):
    with pytest.raises(TargetError, match="Cannot listen for echoes") as caught:
        await Inbound(echo.answer).open(echo.address, what="echoes", hint="Shout elsewhere.")
    assert echo.address in caught.value.message
    assert caught.value.hint == "Shout elsewhere."


async def test_closing_cuts_off_who_is_being_answered(echo):
    started = asyncio.Event()

    async def never(_):
        started.set()
        await asyncio.Event().wait()

    slow = Inbound(never)
    await slow.open("127.0.0.1:0", what="nothing", hint="")
    asking = asyncio.create_task(send(slow.address, b"GET / HTTP/1.1\r\n\r\n"))
    await started.wait()
    assert slow.connections == 1
    await slow.close()
    with contextlib.suppress(ConnectionError):
        assert await asking == b""
    assert slow.connections == 0
    await slow.close()


@contextlib.asynccontextmanager
async def keeping(echo, **options):
    """A server that keeps connections, and a client on one."""
    inbound = Inbound(echo.answer, max_body=100, **({"keep_s": 5.0} | options))
    await inbound.open("127.0.0.1:0", what="echoes", hint="Shout elsewhere.")
    host, port = inbound.address.split(":")
    client = http.client.HTTPConnection(host, int(port), timeout=10)
    try:
        yield inbound, client
    finally:
        client.close()
        await inbound.close()


def talk(client, *bodies, **headers):
    """Ask on one connection; what was answered to each, and whether it stays."""
    found = []
    client.connect()
    own = client.sock
    for body in bodies:
        client.request("POST", "/x", body, headers)
        reply = client.getresponse()
        found.append((reply.status, reply.read(), reply.headers["connection"]))
        assert client.sock in (own, None)
    return found


async def test_a_connection_is_kept_for_more(echo):
    async with keeping(echo) as (inbound, client):
        answers = await asyncio.to_thread(talk, client, b"one", b"", b"three")
        kept = "keep-alive"
        assert answers == [(200, b"one", kept), (200, b"", kept), (200, b"three", kept)]
        assert inbound.connections == 1


async def test_who_says_that_it_is_the_last_one_is_let_go(echo):
    async with keeping(echo) as (_, client):
        answers = await asyncio.to_thread(talk, client, b"one", Connection="close")
        assert answers == [(200, b"one", "close")]
        old = await send(client_address(client), b"GET /x HTTP/1.0\r\n\r\n")
        assert b"Connection: close" in old


def client_address(client):
    return f"{client.host}:{client.port}"


async def test_what_is_not_understood_ends_it(echo):
    async with keeping(echo) as (_, client):
        assert b"400 Bad Request" in await send(client_address(client), b"what?\r\n\r\n")


async def test_none_is_kept_while_others_need_the_room(echo):
    async with keeping(echo, connections=1) as (_, client):
        answers = await asyncio.to_thread(talk, client, b"one")
        assert answers == [(200, b"one", "close")]


async def test_who_is_idle_is_cut_off(echo):
    async with keeping(echo, keep_s=0.1) as (inbound, client):
        await asyncio.to_thread(talk, client, b"one")
        async with asyncio.timeout(60):
            while inbound.connections:
                await asyncio.sleep(0.01)


async def test_who_begins_another_and_does_not_end_it_is_cut_off(echo, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT_S", 0.2)
    async with keeping(echo) as (inbound, client):
        await asyncio.to_thread(talk, client, b"one")
        await asyncio.to_thread(client.sock.sendall, b"POST")
        async with asyncio.timeout(60):
            while inbound.connections:
                await asyncio.sleep(0.01)


async def test_a_connection_has_its_number_of_requests(echo, monkeypatch):
    monkeypatch.setattr(module, "MAX_KEPT", 2)
    async with keeping(echo) as (_, client):
        answers = await asyncio.to_thread(talk, client, b"one", b"two")
        assert [kept for _, _, kept in answers] == ["keep-alive", "close"]
