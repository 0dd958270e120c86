import asyncio
import contextlib
import socket
import ssl
from collections import Counter

import pytest

from sealtape.capture.postgres.codec.messages import ProtocolViolation
from sealtape.capture.postgres.limits import Limits
from sealtape.capture.postgres.listener import Listener, bind
from sealtape.schemas.errors import TargetError


@contextlib.asynccontextmanager
async def listening(serve, **limits):
    counts = Counter()
    chosen = {"connections": 9, "unauthenticated": 9, "per_address": 9, **limits}
    listener = Listener(
        sock=bind("127.0.0.1", 0, shared=False),
        limits=Limits(**chosen),
        serve=serve,
        count=lambda kind: counts.update([kind]),
    )
    listener.open()
    listener.counts = counts
    try:
        yield listener
    finally:
        await listener.close()
        listener.abort()
        await listener.finished()


async def knock(listener):
    host, port = listener.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    with contextlib.suppress(ConnectionError):
        await asyncio.wait_for(reader.read(), 60)
    writer.close()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ProtocolViolation("x"), "garbage"),
        (TimeoutError(), "timeout"),
        (ssl.SSLError("x"), "tls-failed"),
        (ConnectionResetError(), "disconnected"),
        (RuntimeError("nobody foresaw this"), "error"),
    ],
)
async def test_every_end_that_is_no_session_is_counted_by_its_kind(error, kind, caplog):
    async def serve(sock, peer, seat):
        sock.close()
        raise error

    async with listening(serve) as listener:
        await knock(listener)
        await knock(listener)  # and the listener goes on
        assert listener.counts == {kind: 2}
        assert listener._limits.total == 0
    assert ("nobody foresaw" in caplog.text) == (kind == "error")


async def test_a_failing_accept_does_not_end_the_listener(monkeypatch, caplog):
    served = asyncio.Event()

    async def serve(sock, peer, seat):
        sock.close()
        served.set()

    failures = [OSError(24, "Too many open files"), ConnectionAbortedError(), RuntimeError("odd")]
    real = socket.socket.accept

    def accept(self):
        if failures:
            raise failures.pop(0)
        return real(self)

    monkeypatch.setattr(socket.socket, "accept", accept)
    async with listening(serve) as listener:
        await knock(listener)
        assert served.is_set()
    assert "Too many open files" in caplog.text


async def test_closing_leaves_the_connections_there_are():
    release = asyncio.Event()

    async def serve(sock, peer, seat):
        await release.wait()
        sock.close()

    async with listening(serve) as listener:
        host, port = listener.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        await asyncio.sleep(0.05)
        await listener.close()
        waiting = asyncio.create_task(listener.finished())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        release.set()
        await waiting
        assert await reader.read() == b""
        writer.close()


def test_workers_share_an_address_and_strangers_do_not():
    first = bind("127.0.0.1", 0, shared=True)
    port = first.getsockname()[1]
    second = bind("127.0.0.1", port, shared=True)
    first.listen()
    second.listen()
    with pytest.raises(TargetError):
        bind("127.0.0.1", port, shared=False)
    first.close()
    second.close()
    with pytest.raises(TargetError):
        bind("nowhere.invalid", 0, shared=False)


async def test_an_ipv6_address_is_written_in_brackets():
    try:
        sock = bind("::1", 0, shared=False)
    except TargetError:
        pytest.skip("this host has no IPv6")
    limits = Limits(connections=1, unauthenticated=1, per_address=1)
    listener = Listener(sock=sock, limits=limits, serve=None, count=None)
    assert listener.address.startswith("[::1]:")
    await listener.close()
