import pytest

from sealtape.ingest.keyring import open_keyring
from sealtape.schemas.errors import SettingsError
from tests.conformance.keyring import key_message


async def test_a_sqlite_url_is_relative_to_the_base(tmp_path):
    keyring = await open_keyring("sqlite:k.db", tmp_path)
    await keyring.put(key_message())
    await keyring.close()
    assert (tmp_path / "k.db").exists()


@pytest.mark.parametrize("url", ["", "sqlite", "sqlite:", "sqlite:x?mode=rw", "redis:x"])
async def test_any_other_url_is_a_settings_error(tmp_path, url):
    with pytest.raises(SettingsError):
        await open_keyring(url, tmp_path)
