import pytest

from sealtape.ingest.tlog.signer import open_signer
from sealtape.ingest.tlog.signer_file import FileSigner
from sealtape.ingest.tlog.signer_socket import SocketSigner
from sealtape.schemas.errors import SettingsError
from tests.ingest.tlog.test_signer_file import LOG, make, text


async def test_a_signer_by_its_url(tmp_path):
    make(tmp_path / "log.key", 1)
    signer = await open_signer("file:log.key", tmp_path)
    assert isinstance(signer, FileSigner)
    assert await signer.signed(f"{LOG}/1") == 0
    await signer.close()
    await signer.close()
    assert isinstance(await open_signer("unix:s.sock", tmp_path), SocketSigner)


async def test_what_was_signed_may_be_kept_elsewhere(tmp_path):
    (tmp_path / "keys").mkdir()
    make(tmp_path / "keys/log.key", 1)
    (tmp_path / "keys").chmod(0o500)
    signer = await open_signer("file:keys/log.key?state=kept", tmp_path)
    await signer.sign(0, [], text(5))
    again = await open_signer("file:keys/log.key?state=kept", tmp_path)
    assert await again.signed(f"{LOG}/1") == 5
    assert sorted(path.name for path in tmp_path.glob("kept*")) == ["kept", "kept.lock"]


@pytest.mark.parametrize("url", ["log.key", "file:", "unix:", "kms:key", ""])
async def test_urls_that_name_none(tmp_path, url):
    with pytest.raises(SettingsError, match=r"log\.signer"):
        await open_signer(url, tmp_path)


async def test_a_file_without_its_key(tmp_path):
    with pytest.raises(SettingsError, match="sealtape log init"):
        await open_signer("file:log.key", tmp_path)
