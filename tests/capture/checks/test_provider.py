import json
import time
from dataclasses import replace
from email.utils import formatdate

import pytest

from sealtape.capture.checks.provider import check_provider
from tests.capture.checks.found import levels, one
from tests.capture.identity.test_jwks import Provider, key_set


@pytest.fixture
def provider(tmp_path):
    running = Provider(tmp_path)
    yield running
    running.stop()


@pytest.fixture
def settings(production, provider, tmp_path):
    """Settings that name the provider, with changes."""

    def changed(**identity):
        found = production.settings()
        theirs = {"issuer": "https://login.invalid", "jwks": provider.url, "ca": "../tls.crt"}
        return replace(found, identity=replace(found.identity, **theirs | identity))

    return changed


async def test_keys_of_a_provider(settings):
    checks = await check_provider(settings())
    assert levels(checks) == {"identity: keys": "ok", "identity: clock": "ok"}
    assert "1 keys, 1 for ES256, RS256, EdDSA" in checks[0].message


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"ca": None}, "CERTIFICATE_VERIFY_FAILED"),
        ({"ca": "nowhere.pem"}, "identity.ca"),
        ({"jwks": "https://localhost:1/keys"}, "refused"),
        ({"jwks": "https://no-such-host.invalid/keys"}, "network"),
        ({"algorithms": ("RS256",)}, "identity.algorithms"),
    ],
)
async def test_keys_that_cannot_be_had_or_used(settings, change, word):
    one(await check_provider(settings(**change)), "error", word)


@pytest.mark.parametrize(
    ("status", "body", "word"),
    [(404, b"", "404"), (302, b"", "302"), (200, b"<html>", "JWKS"), (200, b'{"keys":[]}', "JWKS"),
     (200, b"x" * (2 << 20), "larger")],
)  # fmt: skip
async def test_answers_that_are_no_keys(settings, provider, status, body, word):
    provider.status, provider.body = status, body
    one(await check_provider(settings()), "error", word)


@pytest.mark.parametrize(
    ("off_s", "level"), [(0, "ok"), (-20, "ok"), (-120, "error"), (90, "error")]
)
async def test_a_clock_that_is_off(settings, monkeypatch, off_s, level):
    now = time.time()
    monkeypatch.setattr(
        "http.server.BaseHTTPRequestHandler.date_time_string",
        lambda self, timestamp=None: formatdate(now + off_s, usegmt=True),
    )
    assert levels(await check_provider(settings()))["identity: clock"] == level


async def test_a_provider_without_a_clock(settings, monkeypatch):
    monkeypatch.setattr(
        "http.server.BaseHTTPRequestHandler.date_time_string", lambda self, timestamp=None: "soon"
    )
    assert levels(await check_provider(settings()))["identity: clock"] == "ok"


async def discovered(settings, provider, document, **identity):
    keys, base = provider.body, provider.url.rpartition("/")[0]
    asked = []

    class Answers(dict):
        def body(self, path):
            asked.append(path)
            return document if "well-known" in path else keys

    handler = provider._server.RequestHandlerClass
    before = handler.do_GET

    def do_get(self):
        provider.body = Answers().body(self.path)
        before(self)

    handler.do_GET = do_get
    checks = await check_provider(settings(issuer=f"{base}/realm", **identity))
    assert "/realm/.well-known/openid-configuration" in asked
    return checks


@pytest.mark.parametrize(
    ("said", "level", "word"),
    [
        ({"issuer": "{base}/realm", "jwks_uri": "{url}"}, "ok", "as the settings do"),
        ({"issuer": "{base}/realm/", "jwks_uri": "{url}"}, "error", "the last / included"),
        ({"issuer": "{base}/realm", "jwks_uri": "{base}/other"}, "warning", "identity.jwks"),
        ({"issuer": "{base}/realm"}, "warning", "discovery"),
        (None, "warning", "discovery"),
    ],
)
async def test_what_a_provider_says_of_itself(settings, provider, said, level, word):
    names = {"base": provider.url.rpartition("/")[0], "url": provider.url}
    if said is None:
        document = b"not json"
    else:
        document = json.dumps({k: v.format(**names) for k, v in said.items()}).encode()
    checks = await discovered(settings, provider, document)
    (check,) = [check for check in checks if check.name == "identity: issuer"]
    assert check.level == level
    assert word in check.message + check.hint


async def test_the_development_issuer(deployment):
    checks = await check_provider(deployment.settings())
    assert levels(checks) == {"identity: issuer": "ok", "identity: keys": "ok"}
    (deployment.keys / "jwks.json").unlink()
    one(await check_provider(deployment.settings()), "error", "identity.jwks")


async def test_without_identity(production):
    one(await check_provider(replace(production.settings(), identity=None)), "error", "[identity]")


async def test_a_symmetric_algorithm(deployment):
    settings = deployment.settings()
    identity = replace(settings.identity, algorithms=("HS256", "ES256"))
    one(await check_provider(replace(settings, identity=identity)), "error", "HS256")


@pytest.mark.parametrize(
    ("key", "accepted", "level"),
    [
        ({"kty": "RSA", "n": "x" * 400, "e": "AQAB"}, ("RS256",), "ok"),
        ({"kty": "RSA", "n": "x" * 400, "e": "AQAB"}, ("PS512",), "ok"),
        ({"kty": "RSA", "n": "x" * 400, "e": "AQAB"}, ("ES256",), "error"),
        ({"kty": "RSA", "n": "x" * 400, "e": "AQAB", "alg": "RS512"}, ("RS256",), "error"),
        ({"kty": "EC", "crv": "P-384"}, ("ES384",), "ok"),
        ({"kty": "EC", "crv": "P-384"}, ("ES256",), "error"),
        ({"kty": "OKP", "crv": "Ed25519"}, ("EdDSA",), "ok"),
        ({"kty": "OKP", "crv": "Ed25519"}, ("ES256",), "error"),
    ],
)
async def test_which_keys_fit_which_algorithms(deployment, key, accepted, level):
    (deployment.keys / "jwks.json").write_text(json.dumps({"keys": [{"kid": "a", **key}]}))
    settings = deployment.settings()
    settings = replace(settings, identity=replace(settings.identity, algorithms=accepted))
    assert levels(await check_provider(settings))["identity: keys"] == level


def test_the_helpers_key_set_has_a_key():
    assert json.loads(key_set("a"))["keys"][0]["kid"] == "a"
