"""Requests to others, against a server that writes whatever a test wants, at any pace."""

import asyncio
import contextlib
import ssl
from contextlib import asynccontextmanager

import pytest

from sealtape.capture.outbound import MAX_HEAD, Answer, OutboundError, destination, get, post
from sealtape.schemas.errors import SettingsError
from tests.servers.tls import write_certificate

KIND = "application/octet-stream"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: Text/Plain; charset=utf-8\r\nContent-Length: 3\r\n\r\nyes"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Scripted:
    """A server; `asked` has the bytes of each request."""

    def __init__(self, parts, pause=0.0, hold=False):
        self.parts, self.pause, self.hold = parts, pause, hold
        self.asked = []
        self.gone = asyncio.Event()

    async def serve(self, reader, writer):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            _, told, value = head.lower().partition(b"content-length: ")
            length = int(value.split(b"\r\n")[0]) if told else 0
            self.asked.append(head + await reader.readexactly(length))
            for part in self.parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(self.pause)
            if self.hold:
                await reader.read()
        except OSError:
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            self.gone.set()


@asynccontextmanager
async def scripted(*parts, pause=0.0, hold=False, tls=None):
    server = Scripted(parts, pause, hold)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    server.url = f"http{'s' if tls else ''}://127.0.0.1:{server.port}/ask"
    try:
        yield server
    finally:
        listening.close()


async def test_a_page_is_got():
    async with scripted(OK) as server:
        place = destination(server.url, what="test")
        found = await get(place, "/beacon", timeout_s=5.0, max_answer=3)
        assert found == Answer(200, "text/plain", b"yes")
        with pytest.raises(OutboundError, match="more than 2 bytes"):
            await get(place, "/beacon", timeout_s=5.0, max_answer=2)
    assert server.asked[0].startswith(b"GET /beacon HTTP/1.1\r\nHost: ")
    assert b"content-" not in server.asked[0].lower()


async def ask(server, body=b"body", *, ca=None, timeout_s=5.0, max_answer=100, path=None):
    place = destination(server.url, ca, what="test")
    return await post(place, body, kind=KIND, timeout_s=timeout_s, max_answer=max_answer, path=path)


async def test_headers_are_sent_besides():
    async with scripted(OK) as server:
        place = destination(server.url, what="test")
        options = {"kind": KIND, "timeout_s": 5.0, "max_answer": 3}
        found = await post(place, b"x", headers={"Sealtape-Signature": "t=1,v1=00"}, **options)
        assert found.status == 200
    assert b"\r\nContent-Length: 1\r\nSealtape-Signature: t=1,v1=00\r\n" in server.asked[0]


async def test_what_is_sent_and_what_comes_back():
    async with scripted(OK) as server:
        assert await ask(server) == Answer(200, "text/plain", b"yes")
        assert await ask(server, path="/other?x=1") == Answer(200, "text/plain", b"yes")
    first, second = server.asked
    assert first.startswith(b"POST /ask HTTP/1.1\r\n")
    assert f"\r\nHost: 127.0.0.1:{server.port}\r\n".encode() in first
    assert b"\r\nContent-Type: application/octet-stream\r\nContent-Length: 4\r\n" in first
    assert first.endswith(b"\r\n\r\nbody")
    assert second.startswith(b"POST /other?x=1 HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("raw", "answer"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno", (404, b"no")),
        (b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", (302, b"")),
        (b"HTTP/1.0 200\r\n\r\nto the end", (200, b"to the end")),
        (b"HTTP/1.1 204 None\r\n\r\n", (204, b"")),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
            (200, b"x"),
        ),
        (
            CHUNKED + b"3;x=y\r\nabc\r\n01\r\nd\r\n0\r\n\r\n",
            (200, b"abcd"),
        ),
    ],
)
async def test_bodies_of_each_kind_whole_and_byte_by_byte(raw, answer):
    async with scripted(raw) as server:
        found = await ask(server)
        assert (found.status, found.body) == answer
    async with scripted(*(raw[at : at + 1] for at in range(len(raw)))) as server:
        found = await ask(server)
        assert (found.status, found.body) == answer


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 99 Low\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 2 * MAX_HEAD + b"\r\n\r\n",
    ],
)
async def test_what_is_not_http(raw):
    async with scripted(raw) as server:
        with pytest.raises(OutboundError, match="an answer that is not HTTP"):
            await ask(server)


async def test_an_answer_that_ends_early_at_each_place():
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"
    for raw in (OK, chunked):
        for end in range(len(raw)):
            async with scripted(raw[:end]) as server:
                with pytest.raises(OutboundError, match=r"ended inside|reset"):
                    await ask(server)


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 101\r\n\r\n" + b"x" * 101,
        b"\r\n" + b"x" * 101,
        b"Transfer-Encoding: chunked\r\n\r\nffffffff\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n64\r\n" + b"x" * 100 + b"\r\n1\r\nx\r\n",
    ],
)
async def test_no_more_is_read_than_was_asked_for(head):
    async with scripted(b"HTTP/1.1 200 OK\r\n" + head, hold=True) as server:
        with pytest.raises(OutboundError, match="more than 100 bytes"):
            await ask(server)
        await asyncio.wait_for(server.gone.wait(), 60)


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n", *[b"x"] * 1000],
        [b"H"] * 1000,
        [b"HTTP/1.1 200 OK\r\n", *[b"X: y\r\n"] * 1000],
        [b"HTTP/1.1 100 Continue\r\n\r\n"] * 1000,
    ],
)
async def test_a_server_that_trickles_is_left_in_time(parts):
    async with scripted(*parts, pause=0.01, hold=True) as server:
        started = asyncio.get_running_loop().time()
        with pytest.raises(OutboundError, match="no answer in time"):
            await ask(server, timeout_s=0.2, max_answer=2000)
        assert asyncio.get_running_loop().time() - started < 2
        await asyncio.wait_for(server.gone.wait(), 60)


async def test_a_cancelled_request_closes_its_connection():
    async with scripted(hold=True) as server:
        task = asyncio.ensure_future(ask(server))
        while not server.asked:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(server.gone.wait(), 60)


async def test_nobody_listens():
    async with scripted(OK) as server:
        pass
    with pytest.raises(OutboundError, match=r"refused|failed"):
        await ask(server)


async def test_tls_needs_its_authority(tmp_path):
    chain, key = write_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain, key)
    async with scripted(OK, tls=context) as server:
        assert (await ask(server, ca=chain)).body == b"yes"
        with pytest.raises(OutboundError, match="not trusted"):
            await ask(server)


def test_destinations():
    plain = destination("http://[::1]:8080", what="w")
    assert (plain.host, plain.port, plain.path, plain.tls) == ("::1", 8080, "/", None)
    assert plain.authority == "[::1]:8080"
    assert plain.below("add") == "/add"
    secure = destination("https://tsa.example/a/b?c=d", what="w")
    assert (secure.port, secure.path, secure.authority) == (443, "/a/b?c=d", "tsa.example")
    assert secure.tls.verify_mode is ssl.CERT_REQUIRED
    assert destination("https://w.example/log/", what="w").below("add") == "/log/add"


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x.example/",
        "x.example",
        "http://",
        "http://x.example:port/",
        "http://x.example:99999/",
        "http://[::1/",
        "http://x.example/a b",
        "http://x.example/\r\nX: y",
        "http://user@x.example/",
        "http://x.example/#part",
        "http://ü.example/",
        "http://x..example/",
        f"http://{'x' * 64}.example/",
        "http://user:hunter2@x.example/",
        "http://user:hun/ter2@x.example/",
    ],
)
def test_urls_that_are_refused(url):
    with pytest.raises(SettingsError, match=r"log\.timestamps") as caught:
        destination(url, what="log.timestamps")
    assert "ter2" not in str(caught.value)


def test_a_ca_that_cannot_be_read(tmp_path):
    (tmp_path / "ca.pem").write_text("no certificate")
    for name in ("nowhere.pem", "ca.pem"):
        with pytest.raises(SettingsError, match=name):
            destination("https://x.example/", tmp_path / name, what="log.timestamps")
