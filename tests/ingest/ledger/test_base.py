import pytest

from sealtape.ingest.ledger import open_ledger
from sealtape.schemas.errors import SettingsError


async def test_a_sqlite_url_is_relative_to_the_base(tmp_path):
    ledger = await open_ledger("sqlite:l.db", tmp_path)
    assert await ledger.position("frames", 0) == 0
    await ledger.close()
    assert (tmp_path / "l.db").exists()


@pytest.mark.parametrize("url", ["", "sqlite", "sqlite:", "sqlite:x?mode=rw", "mysql:x"])
async def test_any_other_url_is_a_settings_error(tmp_path, url):
    with pytest.raises(SettingsError):
        await open_ledger(url, tmp_path)
