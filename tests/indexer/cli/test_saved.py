import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sealtape.capture.identity.device import Tokens
from sealtape.indexer.cli.saved import current_token, forget, save, saved_path
from sealtape.schemas.errors import ProviderError, StoreError, UsageError
from sealtape.schemas.settings import LoginSettings, load_settings
from tests.factories.provider import scripted_provider

TOKENS = Tokens("access", "identity", "again", 300.0)


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def settings(tmp_path, issuer="https://x", ca="", login="[identity.login]"):
    text = f'[identity]\nissuer = "{issuer}"\njwks = "file:x"\n{ca}\n{login}\n'
    return load_settings(text, base=str(tmp_path))


def path_of(found):
    return saved_path(found.identity, found.identity.login.client)


def test_what_is_saved_is_shown_and_readable_by_its_owner_alone(tmp_path):
    found = settings(tmp_path)
    path = path_of(found)
    assert current_token(found) is None
    assert save(path, found.identity.login, TOKENS) == "access"
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0
    assert current_token(found) == "access"
    assert current_token(settings(tmp_path, "https://other")) is None
    assert forget(path)
    assert not forget(path)
    assert current_token(found) is None


def test_a_deployment_without_login_has_no_saved_token(tmp_path):
    assert current_token(settings(tmp_path, login="")) is None
    assert current_token(load_settings("", base=str(tmp_path))) is None


def test_the_id_token_is_kept_where_asked(tmp_path):
    login = LoginSettings(token="id_token")
    assert save(tmp_path / "a/b", login, TOKENS) == "identity"
    with pytest.raises(ProviderError, match="holds no id_token"):
        save(tmp_path / "a/c", login, Tokens("access", "", "", 1))


def test_a_token_about_to_expire_is_refreshed(tmp_path):
    with scripted_provider(tmp_path) as provider:
        found = settings(tmp_path, provider.issuer, f'ca = "{provider.ca}"')
        path = path_of(found)
        save(path, found.identity.login, Tokens("old", "", "again", 5.0))
        provider.answers["/token"] = [(200, {"access_token": "new", "expires_in": 60})]
        assert current_token(found) == "new"
        assert json.loads(path.read_text())["expires_at_s"] > time.time() + 50
        save(path, found.identity.login, Tokens("old", "", "", 5.0))
        with pytest.raises(ProviderError, match="sealtape login"):
            current_token(found)


def test_a_refresh_token_that_is_not_replaced_is_good_again(tmp_path):
    """RFC 6749, section 6: the provider may issue a new one, and then only the new one is kept."""
    with scripted_provider(tmp_path) as provider:
        found = settings(tmp_path, provider.issuer, f'ca = "{provider.ca}"')
        path = path_of(found)
        save(path, found.identity.login, Tokens("old", "", "first", 5.0))
        provider.answers["/token"] = [
            (200, {"access_token": "one", "expires_in": 5}),
            (200, {"access_token": "two", "expires_in": 5, "refresh_token": "second"}),
            (200, {"access_token": "three", "expires_in": 60}),
        ]
        assert [current_token(found) for _ in range(3)] == ["one", "two", "three"]
        used = [form["refresh_token"] for _, form in provider.asked if form]
        assert used == ["first", "first", "second"]


@pytest.mark.parametrize("content", ["", "[]", '{"token": "a"}', '{"token":1,"expires_at_s":"x"}'])
def test_a_damaged_file_is_named(tmp_path, content):
    found = settings(tmp_path)
    path = path_of(found)
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(ProviderError, match=str(path)):
        current_token(found)


def test_two_at_once_refresh_once(tmp_path):
    """A provider that takes a refresh token once calls the second a theft, and ends both."""
    with scripted_provider(tmp_path) as provider:
        found = settings(tmp_path, provider.issuer, f'ca = "{provider.ca}"')
        save(path_of(found), found.identity.login, Tokens("old", "", "again", 5.0))
        provider.answers["/token"] = [
            (200, {"access_token": "new", "expires_in": 60, "refresh_token": "next"}),
            (400, {"error": "invalid_grant"}),
        ]
        with ThreadPoolExecutor(4) as pool:
            tokens = list(pool.map(lambda _: current_token(found), range(4)))
        assert tokens == ["new"] * 4
        assert len([form for _, form in provider.asked if form]) == 1


def test_where_nothing_can_be_kept(tmp_path, monkeypatch):
    found = settings(tmp_path)
    (tmp_path / "state").write_text("a file, where the folder would be")
    with pytest.raises(StoreError, match="Cannot make the folder"):
        save(path_of(found), found.identity.login, TOKENS)
    with pytest.raises(StoreError, match="Cannot delete"):
        forget(tmp_path / ("x" * 300))
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr("pathlib.Path.home", lambda: (_ for _ in ()).throw(RuntimeError))
    with pytest.raises(UsageError, match="HOME"):
        path_of(found)
