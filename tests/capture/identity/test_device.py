import pytest

from sealtape.capture.identity import device
from sealtape.schemas.errors import ProviderError
from tests.factories.provider import scripted_provider

GRANT = {
    "device_code": "the-secret-code",
    "user_code": "ABCD",
    "verification_uri": "https://x/device",
    "expires_in": 60,
}
TOKENS = {"access_token": "the-token", "refresh_token": "again", "expires_in": 300}


@pytest.fixture
def provider(tmp_path):
    with scripted_provider(tmp_path) as running:
        yield running


@pytest.fixture
def known(provider):
    return device.discover(provider.issuer, provider.context)


def ask(provider, known):
    return device.ask(known, client="cli", scope="openid", context=provider.context)


def test_the_flow(provider, known):
    provider.answers["/device"] = [(200, GRANT)]
    provider.answers["/token"] = [
        (400, {"error": "authorization_pending"}),
        (400, {"error": "slow_down"}),
        (200, TOKENS),
    ]
    grant = ask(provider, known)
    assert (grant.interval_s, grant.complete_uri, grant.user_code) == (5.0, "", "ABCD")
    assert "the-secret-code" not in repr(grant)
    answers = [device.poll(known, grant, client="cli", context=provider.context) for _ in range(3)]
    assert answers[:2] == [0.0, 5.0]
    assert answers[2] == device.Tokens("the-token", "", "again", 300.0)
    assert "the-token" not in repr(answers[2])
    assert provider.asked[-1][1]["device_code"] == "the-secret-code"


def test_refresh(provider, known):
    provider.answers["/token"] = [(200, TOKENS)]
    tokens = device.refresh(known, "old", client="cli", context=provider.context)
    assert tokens.access_token == "the-token"
    assert provider.asked[-1][1] == {
        "client_id": "cli",
        "grant_type": "refresh_token",
        "refresh_token": "old",
    }


@pytest.mark.parametrize("error", ["access_denied", "expired_token", "invalid_client"])
def test_a_refusal_is_told_in_the_providers_word(provider, known, error):
    provider.answers["/token"] = [(400, {"error": error, "error_description": "the-token"})]
    with pytest.raises(ProviderError, match=error) as caught:
        device.refresh(known, "old", client="cli", context=provider.context)
    assert "the-token" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b"<html>"), (200, b"[]"), (500, {"x": 1}), (200, {}), (200, b"\xff"), (302, b"{}")],
)
def test_nonsense_is_a_provider_error(provider, known, status, body):
    provider.answers["/device"] = [(status, body)]
    with pytest.raises(ProviderError):
        ask(provider, known)


def test_a_discovery_document_must_be_the_issuers_own(provider):
    provider.answers["/.well-known/openid-configuration"] = [
        (200, provider.document(issuer="https://else"))
    ]
    with pytest.raises(ProviderError, match="another issuer"):
        device.discover(provider.issuer, provider.context)


def test_a_provider_without_the_flow(provider):
    document = provider.document()
    del document["device_authorization_endpoint"]
    provider.answers["/.well-known/openid-configuration"] = [(200, document)]
    with pytest.raises(ProviderError, match="device flow"):
        device.discover(provider.issuer, provider.context)


def test_a_provider_that_is_away(provider):
    provider.stop()
    with pytest.raises(ProviderError, match="cannot be reached"):
        device.discover(provider.issuer, provider.context)
