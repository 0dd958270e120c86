import pytest

from sealtape.capture.postgres.credential import credential_of
from sealtape.schemas.errors import SettingsError
from sealtape.schemas.settings import Secret


async def test_a_file_is_read_anew_each_time(tmp_path):
    path = tmp_path / "password"
    path.write_text("one\n")
    read = credential_of(Secret("file", "password"), tmp_path, target="shop")
    assert await read() == "one"
    path.write_text(" two \r\n")
    assert await read() == " two "
    path.unlink()
    with pytest.raises(OSError, match="password"):
        await read()


async def test_a_variable(tmp_path, monkeypatch):
    read = credential_of(Secret("env", "SHOP_PASSWORD"), tmp_path, target="shop")
    monkeypatch.setenv("SHOP_PASSWORD", "secret")
    assert await read() == "secret"
    monkeypatch.delenv("SHOP_PASSWORD")
    with pytest.raises(SettingsError, match="SHOP_PASSWORD"):
        await read()


async def test_none_and_inline(tmp_path):
    assert await credential_of(None, tmp_path, target="shop")() is None
    assert await credential_of(Secret("inline", "secret"), tmp_path, target="shop")() == "secret"


def test_a_provider_that_is_not_installed(tmp_path):
    with pytest.raises(SettingsError, match=r"targets\.shop\.password"):
        credential_of(Secret("provider", "vault:db"), tmp_path, target="shop")
