import pytest

from sealtape.ingest.vault import open_vault
from sealtape.ingest.vault.file import FileVault
from sealtape.schemas.errors import SettingsError


async def test_a_file_url_is_relative_to_the_base(tmp_path):
    vault = await open_vault("file:some/vault", tmp_path)
    assert isinstance(vault, FileVault)
    await vault.put_new("a", b"x")
    assert (tmp_path / "some/vault/a").read_bytes() == b"x"


@pytest.mark.parametrize("url", ["", "file:", "file", "ftp:x", "file:x?y=1", "s3:bucket"])
async def test_any_other_url_is_a_settings_error(tmp_path, url):
    with pytest.raises(SettingsError, match="vault"):
        await open_vault(url, tmp_path)
