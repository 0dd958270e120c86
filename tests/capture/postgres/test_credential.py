"""Where a target's password comes from."""

import sys

import pytest

from sealtape.capture.postgres.credential import credential_of
from sealtape.schemas.errors import SettingsError, StoreError
from sealtape.schemas.settings import Secret


async def read(secret, base):
    return await credential_of(secret, base, target="shop")()


async def test_none_inline_file_and_environment(tmp_path, monkeypatch):
    (tmp_path / "pw").write_text("from a file\r\n")
    monkeypatch.setenv("SHOP_PASSWORD", "from the environment")
    assert await read(None, tmp_path) is None
    assert await read(Secret("inline", "as it is "), tmp_path) == "as it is "
    assert await read(Secret("file", "pw"), tmp_path) == "from a file"
    assert await read(Secret("env", "SHOP_PASSWORD"), tmp_path) == "from the environment"


async def test_a_file_is_read_anew_each_time(tmp_path):
    credential = credential_of(Secret("file", "pw"), tmp_path, target="shop")
    for word in ("old", "new"):
        (tmp_path / "pw").write_text(word)
        assert await credential() == word


async def test_what_is_absent_is_an_error(tmp_path, monkeypatch):
    monkeypatch.delenv("SHOP_PASSWORD", raising=False)
    with pytest.raises(SettingsError, match="SHOP_PASSWORD"):
        await read(Secret("env", "SHOP_PASSWORD"), tmp_path)
    with pytest.raises(OSError, match="pw"):
        await read(Secret("file", "pw"), tmp_path)


PROVIDER = """
def provide(reference):
    if reference == "fail":
        raise ValueError("the-secret-itself")
    return "secret of " + reference
"""


@pytest.fixture
def provider(tmp_path, monkeypatch):
    """A package on the path that offers two providers, one of which cannot be loaded."""
    (tmp_path / "acme_secrets.py").write_text(PROVIDER)
    info = tmp_path / "acme_secrets-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-secrets\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[sealtape.credentials]\nacme = acme_secrets:provide\nbroken = acme_nowhere:provide\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("acme_secrets", None)


@pytest.mark.usefixtures("provider")
async def test_an_installed_provider_is_asked(tmp_path):
    assert await read(Secret("provider", "acme:db/shop"), tmp_path) == "secret of db/shop"


@pytest.mark.usefixtures("provider")
async def test_a_failing_provider_does_not_show_what_it_said(tmp_path):
    with pytest.raises(StoreError) as caught:
        await read(Secret("provider", "acme:fail"), tmp_path)
    assert "the-secret-itself" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.usefixtures("provider")
async def test_providers_that_are_absent_or_broken_are_settings_errors(tmp_path):
    with pytest.raises(SettingsError, match=r"0 credential providers `vault`.*acme, broken"):
        await read(Secret("provider", "vault:x"), tmp_path)
    with pytest.raises(SettingsError, match="cannot be loaded"):
        await read(Secret("provider", "broken:x"), tmp_path)
