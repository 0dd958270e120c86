import sys

import pytest

from sealtape.ingest.vault import check_vault, open_vault, prepare_vault
from sealtape.ingest.vault.file import FileVault
from sealtape.schemas.errors import SettingsError


async def test_a_file_url_is_relative_to_the_base(tmp_path):
    vault = await open_vault("file:some/vault", tmp_path)
    assert isinstance(vault, FileVault)
    await vault.put_new("a", b"x")
    assert (tmp_path / "some/vault/a").read_bytes() == b"x"


@pytest.mark.parametrize("url", ["", "file:", "file", "ftp:x", "file:x?y=1", "s3:bucket", "gs:x"])
async def test_any_other_url_is_a_settings_error(tmp_path, url):
    with pytest.raises(SettingsError, match="vault"):
        await open_vault(url, tmp_path)
    with pytest.raises(SettingsError, match="vault"):
        await prepare_vault(url, tmp_path)
    (check,) = await check_vault(url, tmp_path)
    assert check.level == "error"
    assert "s3://" in check.hint


async def test_buckets_of_other_clouds_are_made_there(tmp_path):
    assert await prepare_vault("gs://bucket/x", tmp_path) == []


@pytest.mark.parametrize("url", ["s3://bucket/x", "gs://bucket/x"])
async def test_a_client_that_is_not_installed_is_named(tmp_path, monkeypatch, url):
    for module in ("s3", "clouds"):
        monkeypatch.delitem(sys.modules, f"sealtape.ingest.vault.{module}", raising=False)
    for client in ("obstore.store", "botocore.session"):
        monkeypatch.setitem(sys.modules, client, None)
    with pytest.raises(SettingsError) as caught:
        await open_vault(url, tmp_path)
    assert "servers" in caught.value.hint
    (check,) = await check_vault(url, tmp_path)
    assert check.level == "error"
