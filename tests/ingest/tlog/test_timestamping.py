"""Time-stamp authorities asked over HTTP: one that stamps, and all that one can do wrong."""

import asyncio
import contextlib
import hashlib
import logging
import ssl
from contextlib import asynccontextmanager

import pytest

from sealtape.capture.outbound import destination
from sealtape.ingest.tlog.timestamping import Authority, Timestamping, read_authorities, stamp
from sealtape.schemas import der
from sealtape.schemas.der import Der
from sealtape.schemas.errors import SettingsError
from sealtape.schemas.timestamps import verify_timestamp
from tests.factories import timestamps as tsa
from tests.servers.tls import write_certificate

DIGEST = hashlib.sha256(b"a witnessed checkpoint").digest()
ROOT = tsa.Party("Root 1", 10, ca=True)
SIGNER = tsa.Party("Authority 1", 11, ROOT)
BETWEEN = tsa.Party("Between", 12, ROOT, ca=True)
DEEP = tsa.Party("Authority 2", 13, BETWEEN)
STRANGER = tsa.Party("Root 9", 90, ca=True)
TIME_NS = 1_795_392_000 * 10**9
REPLY = "application/timestamp-reply"


def asked(body):
    """Digest and nonce of a request."""
    fields = Der(body, "request").inside(der.SEQUENCE)
    assert fields.integer() == 1
    imprint = fields.inside(der.SEQUENCE)
    imprint.inside(der.SEQUENCE)
    return imprint.value(der.OCTET_STRING), fields.integer()


def stamps(signer=SIGNER, **given):
    """What an honest authority answers."""

    def answer(body):
        digest, nonce = asked(body)
        info = tsa.statement(digest, **{"nonce": tsa.integer(nonce), **given})
        return tsa.answer(signer, digest, info=info)

    return answer


@asynccontextmanager
async def serving(answer, *, status=200, kind=REPLY, delay=0.0, tls=None):
    """An authority's URL; `answer` turns a request's body into an answer's."""
    requests, tasks = [], set()

    async def serve(reader, writer):
        try:
            await respond(reader, writer)
        finally:
            writer.transport.abort()

    async def respond(reader, writer):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
            requests.append((head, await reader.readexactly(length)))
            await asyncio.sleep(delay)
            body = answer(requests[-1][1])
            writer.write(
                f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\n"
                f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            await writer.drain()
            await reader.read()

    def accept(reader, writer):
        tasks.add(asyncio.create_task(serve(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    scheme = "https" if tls else "http"
    try:
        yield f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/tsr", requests
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def authority(url, name="one", **known):
    return Authority(name, destination(url, what="test"), **known)


async def one(url, **known):
    """What asking one authority gives: the stamp or None, and its status."""
    asking = Timestamping([authority(url, **known)], timeout_s=2.0, clock_ns=lambda: TIME_NS)
    found = await asking.stamp(DIGEST)
    (status,) = asking.snapshot()
    assert status.answers == {status.state: 1}
    assert status.seconds > 0
    return (found[0] if found else None), status


async def test_an_authority_that_stamps():
    async with serving(stamps()) as (url, requests):
        found, status = await one(url, roots=ROOT.pem)
        assert (status.state, status.reason, status.url) == ("ok", "", url)
        assert (status.time_ns, status.offset_s) == (TIME_NS, 0.0)
        assert verify_timestamp(found.der, DIGEST, ROOT.pem, found.chain_pem)
        assert found.chain_pem == SIGNER.pem
        again, _ = await one(url)
        assert again.der != found.der  # another nonce
    (head, body), _ = requests
    assert b"\r\ncontent-type: application/timestamp-query\r\n" in head
    assert asked(body)[0] == DIGEST


async def test_201_is_as_good_as_200():
    async with serving(stamps(), status=201) as (url, _):
        assert (await one(url))[0] is not None


async def test_certificates_that_only_the_settings_know():
    async with serving(stamps(DEEP)) as (url, _):
        found, status = await one(url, roots=ROOT.pem, chain=BETWEEN.pem)
        assert found.chain_pem == DEEP.pem + BETWEEN.pem
        assert verify_timestamp(found.der, DIGEST, ROOT.pem, found.chain_pem)
        found, status = await one(url, roots=ROOT.pem)
        assert (found, status.state) == (None, "invalid")
        assert "does not verify" in status.reason


async def test_https_by_its_own_roots(tmp_path):
    chain, key = write_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain, key)
    async with serving(stamps(), tls=context) as (url, _):
        assert (await one(url))[1].reason == "its certificate is not trusted"
        (known,) = read_authorities([f"tsa={url} ca={chain.name}"], tmp_path)
        assert len(await stamp([known], DIGEST, timeout_s=2.0)) == 1


OTHER = hashlib.sha256(b"another").digest()
LIES = {
    "another digest": (stamps(imprint=tsa.imprint(OTHER)), "another request"),
    "another nonce": (stamps(nonce=tsa.integer(5)), "another request"),
    "no nonce": (stamps(nonce=b""), "another request"),
    "an answer of before": (
        lambda _: stamps()(tsa.sequence(tsa.integer(1), tsa.imprint(DIGEST), tsa.integer(9))),
        "another request",
    ),
    "another root": (stamps(tsa.Party("Authority 1", 91, STRANGER)), "does not verify"),
    "half a token": (lambda body: stamps()(body)[:-1], "ends inside"),
    "nothing": (lambda _: b"", "its end"),
    "words": (lambda _: b"<html>no</html>", "tag"),
}


@pytest.mark.parametrize("lie", LIES)
async def test_an_authority_that_lies(lie, caplog):
    answer, reason = LIES[lie]
    async with serving(answer) as (url, _):
        found, status = await one(url, roots=ROOT.pem)
    assert (found, status.state, status.time_ns) == (None, "invalid", None)
    assert reason in status.reason
    assert "no time-stamp by one" in caplog.text


async def test_an_answer_of_another_type():
    async with serving(stamps(), kind="text/html") as (url, _):
        found, status = await one(url)
    assert (found, status.state, status.reason) == (None, "invalid", "an answer of type text/html")


async def test_an_authority_that_refuses():
    async with serving(lambda _: tsa.refused()) as (url, _):
        assert (await one(url))[1].reason == "the time-stamp is not granted but rejected"
        assert (await one(url))[1].state == "refused"
    for code in (302, 404, 503):
        async with serving(stamps(), status=code) as (url, _):
            assert (await one(url))[1].state == "refused"


async def test_endless_slow_and_down():
    async with serving(lambda _: bytes(1 << 17)) as (url, _):
        found, status = await one(url)
        assert (found, status.state) == (None, "down")
        assert "more than" in status.reason
    async with serving(stamps(), delay=30) as (url, _):
        asking = Timestamping([authority(url)], timeout_s=0.2)
        assert await asking.stamp(DIGEST) == []
        assert asking.snapshot()[0].reason == "no answer in time"
    found, status = await one(url)
    assert (found, status.state) == (None, "down")


async def test_two_authorities_of_which_one_is_down(caplog):
    caplog.set_level(logging.WARNING)
    async with serving(stamps()) as (gone, _):
        pass
    async with serving(stamps()) as (url, _):
        asking = Timestamping([authority(gone), authority(url, "two")], clock_ns=lambda: 0)
        assert [status.state for status in asking.snapshot()] == ["unasked", "unasked"]
        for times in (1, 2):
            found = await asking.stamp(DIGEST)
            assert [item.name for item in found] == ["two"]
            down, ok = asking.snapshot()
            assert (down.state, ok.state) == ("down", "ok")
            assert (down.answers, ok.answers) == ({"down": times}, {"ok": times})
            assert ok.offset_s == TIME_NS / 1e9
    assert len(caplog.records) == 2


async def test_a_slow_one_does_not_delay_another_beyond_its_time():
    async with serving(stamps(), delay=30) as (slow, _), serving(stamps()) as (url, _):
        started = asyncio.get_running_loop().time()
        both = [authority(slow), authority(url, "two")]
        found = await stamp(both, DIGEST, timeout_s=0.3, nonce=lambda: 7)
        assert [item.name for item in found] == ["two"]
        assert asyncio.get_running_loop().time() - started < 5


def test_settings(tmp_path):
    (tmp_path / "r.pem").write_bytes(ROOT.pem.rstrip())
    (tmp_path / "c.pem").write_bytes(BETWEEN.pem)
    one, two = read_authorities(
        ["tsa=http://tsa.example/tsr", "b-2=https://b.example roots=r.pem chain=c.pem"], tmp_path
    )
    assert (one.name, one.place.url, one.roots) == ("tsa", "http://tsa.example/tsr", b"")
    assert (two.roots, two.chain) == (ROOT.pem, BETWEEN.pem)
    assert read_authorities([], tmp_path) == ()


@pytest.mark.parametrize(
    ("entries", "word"),
    [
        (["http://tsa.example/"], "name of its own"),
        (["A=http://tsa.example/"], "name of its own"),
        (["a/b=http://tsa.example/"], "name of its own"),
        (["a=http://x.example/", "a=http://y.example/"], "name of its own"),
        (["a=nowhere"], "not an address"),
        (["a=http://x.example/ key=x"], "unknown option"),
        (["a=http://x.example/ roots=r.pem roots=r.pem"], "unknown option"),
        (["a=http://x.example/ roots=nowhere.pem"], "nowhere.pem cannot be read"),
        (["a=http://x.example/ chain=empty.pem"], "does not hold certificates"),
        (["a=https://x.example/ ca=empty.pem"], "cannot be read"),
    ],
)
def test_settings_that_are_refused(entries, word, tmp_path):
    (tmp_path / "r.pem").write_bytes(ROOT.pem)
    (tmp_path / "empty.pem").write_bytes(b"")
    with pytest.raises(SettingsError, match=word):
        read_authorities(entries, tmp_path)
