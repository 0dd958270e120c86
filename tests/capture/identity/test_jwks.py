import asyncio
import contextlib
import json
import os
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sealtape.capture.identity import DevelopmentIssuer, KeySet
from sealtape.capture.identity import jwks as jwks_module
from sealtape.capture.identity.jwks import parse_key_set
from sealtape.schemas.errors import FormatError, Refused, SettingsError
from tests.factories.provider import scripted_provider
from tests.servers.tls import write_certificate


def key_set(*kids):
    (key,) = DevelopmentIssuer.generate().jwks()["keys"]
    return json.dumps({"keys": [{**key, "kid": kid} for kid in kids]}).encode()


class Provider:
    """An HTTPS server that answers `body` and `status`, and counts; `gate` holds answers back."""

    def __init__(self, folder):
        self.body, self.status, self.hits, self.headers = key_set("a"), 200, 0, {}
        self.gate = threading.Event()
        self.gate.set()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                provider.hits += 1
                provider.gate.wait(10)
                self.send_response(provider.status)
                for name, value in provider.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(provider.body)))
                self.end_headers()
                self.wfile.write(provider.body)

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        chain, key = write_certificate(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.context = ssl.create_default_context(cafile=str(chain))
        self.url = f"https://localhost:{self._server.server_address[1]}/jwks.json"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self):
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def provider(tmp_path):
    running = Provider(tmp_path)
    yield running
    running.stop()


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@contextlib.asynccontextmanager
async def keys_of(provider, clock=None):
    keys = KeySet(source=provider.url, base=None, context=provider.context, clock=clock or Clock())
    try:
        yield keys
    finally:
        await keys.close()


async def refusal(keys, kid):
    with pytest.raises(Refused) as caught:
        await keys.key(kid)
    return caught.value.reason


async def test_keys_come_over_https_once(provider):
    async with keys_of(provider) as keys:
        found = await asyncio.gather(*(keys.key("a") for _ in range(5)))
        assert {key["kid"] for key in found} == {"a"}
        assert provider.hits == 1
        assert (await keys.key(None))["kid"] == "a"


async def test_the_loop_goes_on_while_the_provider_is_slow(provider):
    provider.gate.clear()
    async with keys_of(provider) as keys:
        waiting = asyncio.create_task(keys.key("a"))
        for _ in range(20):
            await asyncio.sleep(0.005)
        assert not waiting.done()
        provider.gate.set()
        assert (await waiting)["kid"] == "a"


async def test_an_unknown_kid_asks_the_provider_at_most_once_a_minute(provider):
    clock = Clock()
    async with keys_of(provider, clock) as keys:
        await keys.key("a")
        for _ in range(5):
            clock.now += 10
            assert await refusal(keys, "b") == "token-invalid"
        assert provider.hits == 1  # the set is younger than a minute
        provider.body = key_set("a", "b")
        clock.now += 11
        assert (await keys.key("b"))["kid"] == "b"
        assert provider.hits == 2
        assert await refusal(keys, None) == "token-invalid"  # which of two?


async def test_the_last_good_set_stays_when_the_provider_is_down_or_talks_nonsense(provider):
    clock = Clock()
    async with keys_of(provider, clock) as keys:
        await keys.key("a")
        for body, status in (
            (b"<html>", 200),
            (b"{}", 503),
            (b'{"keys": []}', 200),
            (b"x" * (2 << 20), 200),
        ):
            provider.body, provider.status = body, status
            clock.now += 1000
            assert (await keys.key("a"))["kid"] == "a"
            await keys.close()
            assert keys.error
        provider.stop()
        clock.now += 1000
        assert (await keys.key("a"))["kid"] == "a"
        await keys.close()
        assert keys.error
    provider.stop = lambda: None


async def test_an_answer_that_is_not_http_ends_neither_a_session_nor_the_node(tmp_path):
    clock = Clock()
    with scripted_provider(tmp_path) as provider:
        provider.answers["/keys"] = [(None, b"hello\r\n\r\n"), (200, key_set("a")), (None, b"no")]
        source = f"{provider.issuer}/keys"
        keys = KeySet(source=source, base=None, context=provider.context, clock=clock)
        assert await refusal(keys, "a") == "keys-unavailable"
        assert "not HTTP" in keys.error
        clock.now += 10
        assert (await keys.key("a"))["kid"] == "a"
        clock.now += 1000
        assert (await keys.key("a"))["kid"] == "a"
        await keys.close()
        assert "not HTTP" in keys.error


async def test_an_old_set_is_fetched_again_without_making_anyone_wait(provider):
    clock = Clock()
    async with keys_of(provider, clock) as keys:
        await keys.key("a")
        provider.gate.clear()
        provider.body = key_set("b")
        clock.now += 151
        async with asyncio.timeout(0.5):
            assert (await keys.key("a"))["kid"] == "a"
        provider.gate.set()
        await keys.close()
        assert await refusal(keys, "a") == "token-invalid"  # it was withdrawn


async def test_a_withdrawn_key_opens_nothing_after_hours_in_which_nobody_came(provider):
    clock = Clock()
    async with keys_of(provider, clock) as keys:
        await keys.key("a")
        provider.body = key_set("b")
        clock.now += 36_000
        assert await refusal(keys, "a") == "token-invalid"


async def test_a_provider_that_hangs_delays_a_known_key_and_no_more(provider, monkeypatch):
    monkeypatch.setattr(jwks_module, "STALE_WAIT_S", 0.2)
    clock = Clock()
    async with keys_of(provider, clock) as keys:
        await keys.key("a")
        provider.gate.clear()
        clock.now += 301
        async with asyncio.timeout(2):
            assert (await keys.key("a"))["kid"] == "a"
        provider.gate.set()


async def test_without_any_set_identities_cannot_be_verified_and_it_tries_again_soon(provider):
    clock = Clock()
    provider.status = 500
    async with keys_of(provider, clock) as keys:
        assert await refusal(keys, "a") == "keys-unavailable"
        assert await refusal(keys, "a") == "keys-unavailable"
        assert provider.hits == 1
        provider.status = 200
        clock.now += 6
        assert (await keys.key("a"))["kid"] == "a"


async def test_a_redirect_is_not_followed(provider):
    provider.status, provider.headers = 302, {"Location": provider.url + "?again"}
    async with keys_of(provider) as keys:
        assert await refusal(keys, "a") == "keys-unavailable"
        assert provider.hits == 1


async def test_a_certificate_nobody_vouches_for_is_refused(provider):
    keys = KeySet(source=provider.url, base=None)
    assert await refusal(keys, "a") == "keys-unavailable"
    assert provider.hits == 0
    await keys.close()


async def test_a_file_is_read_again_when_it_changes_and_kept_when_it_breaks(tmp_path):
    path = tmp_path / "jwks.json"
    keys = KeySet(source="file:jwks.json", base=tmp_path)
    assert await refusal(keys, "a") == "keys-unavailable"
    path.write_bytes(key_set("a"))
    assert (await keys.key("a"))["kid"] == "a"
    path.write_bytes(b"{")
    os.utime(path, ns=(1, 1))
    assert (await keys.key("a"))["kid"] == "a"
    assert keys.error
    path.write_bytes(key_set("a", "b"))
    assert (await keys.key("b"))["kid"] == "b"
    assert not keys.error
    path.unlink()
    assert (await keys.key("b"))["kid"] == "b"
    await keys.close()


@pytest.mark.parametrize("source", ["http://x.test/jwks", "jwks.json", "file:", ""])
def test_other_sources_are_a_mistake_in_the_settings(tmp_path, source):
    with pytest.raises(SettingsError):
        KeySet(source=source, base=tmp_path)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b'{"keys": 1}',
        b'{"keys": ["x"]}',
        b'{"keys": []}',
        b"\xff",
        b"[" * 99_999,
    ],
)
def test_what_is_no_key_set_is_a_format_error(body):
    with pytest.raises(FormatError):
        parse_key_set(body)


def test_only_public_signature_keys_of_good_size_are_taken():
    (good,) = DevelopmentIssuer.generate().jwks()["keys"]
    listed = [
        {**good, "kid": "good"},
        {**good, "kid": "enc", "use": "enc"},
        {**good, "kid": "private", "d": "x"},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "shared"},
        {"kty": "RSA", "n": "A" * 171, "e": "AQAB", "kid": "rsa1024"},
        {"kty": "RSA", "n": "A" * 342, "e": "AQAB", "kid": "rsa2048"},
    ]
    assert set(parse_key_set(json.dumps({"keys": listed}).encode())) == {"good", "rsa2048"}


def test_the_limits_are_the_documented_ones():
    assert (jwks_module.UNKNOWN_KID_S, jwks_module.REFRESH_S) == (60.0, 300.0)
