"""`sealtape login`, with a provider that answers by a script."""

import json

import pytest

from tests.factories.provider import scripted_provider

GRANT = {
    "device_code": "the-secret-code",
    "user_code": "ABCD-EFGH",
    "verification_uri": "https://x/device",
    "verification_uri_complete": "https://x/device?user_code=ABCD-EFGH",
    "expires_in": 30,
    "interval": 0.01,
}
PENDING = (400, {"error": "authorization_pending"})
GIVEN = (200, {"access_token": "the-token", "refresh_token": "again", "expires_in": 300})


@pytest.fixture
def provider(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with scripted_provider(tmp_path) as running:
        running.answers["/device"] = [(200, GRANT)]
        running.config = tmp_path / "sealtape.toml"
        running.config.write_text(
            f'[identity]\nissuer = "{running.issuer}"\nca = "{running.ca}"\njwks = "file:x"\n'
            '[identity.login]\nclient = "cli"\n'
        )
        yield running


def test_login_shows_the_code_and_keeps_the_token(run, provider, tmp_path):
    provider.answers["/token"] = [PENDING, PENDING, GIVEN]
    answer = run("-c", provider.config, "login")
    assert answer.code == 0, answer.err
    assert "https://x/device?user_code=ABCD-EFGH" in answer.out
    assert "ABCD-EFGH" in answer.out
    assert "the-token" not in answer.out + answer.err
    assert "the-secret-code" not in answer.out + answer.err
    (saved,) = (tmp_path / "state").rglob("*.json")
    assert json.loads(saved.read_text())["token"] == "the-token"
    assert run("-c", provider.config, "login", "--out", "--json").json == {"logged_in": False}
    assert not saved.exists()
    assert "no saved token" in run("-c", provider.config, "login", "--out").out


def test_json(run, provider):
    provider.answers["/token"] = [GIVEN]
    answer = run("-c", provider.config, "login", "--json")
    shown, done = map(json.loads, answer.out.splitlines())
    assert shown == {
        "verification_uri": "https://x/device",
        "user_code": "ABCD-EFGH",
        "verification_uri_complete": "https://x/device?user_code=ABCD-EFGH",
    }
    assert done == {"logged_in": True}


def test_a_provider_that_is_away_for_a_moment_does_not_end_a_login(run, provider):
    provider.answers["/token"] = [PENDING, (503, {}), (502, {}), GIVEN]
    answer = run("-c", provider.config, "login")
    assert answer.code == 0, answer.err
    assert "logged in" in answer.out


def test_a_provider_that_stays_away_is_named(run, provider):
    provider.answers["/device"] = [(200, GRANT | {"expires_in": 0.1})]
    provider.answers["/token"] = [PENDING, (503, {})]
    answer = run("-c", provider.config, "login")
    assert answer.code == 69
    assert "status 503" in answer.err


def test_a_denied_login(run, provider):
    provider.answers["/token"] = [(400, {"error": "access_denied"})]
    answer = run("-c", provider.config, "login")
    assert answer.code == 69
    assert "access_denied" in answer.err


def test_nobody_confirms(run, provider):
    provider.answers["/device"] = [(200, GRANT | {"expires_in": 0.1})]
    provider.answers["/token"] = [PENDING]
    answer = run("-c", provider.config, "login")
    assert answer.code == 69
    assert "in time" in answer.err


def test_a_deployment_without_login_says_so(run, tmp_path):
    config = tmp_path / "sealtape.toml"
    config.write_text("")
    answer = run("-c", config, "login")
    assert answer.code == 64
    assert "[identity.login]" in answer.err
