from pathlib import Path

import pytest

from sealtape.indexer.index.base import open_index
from sealtape.schemas.errors import SettingsError


@pytest.mark.parametrize("url", ["", "index.db", "opensearch:host", "sqlite:", "sqlite:a?b=1"])
async def test_a_url_that_names_no_index(url, tmp_path):
    with pytest.raises(SettingsError):
        await open_index(url, Path(tmp_path))
    assert list(tmp_path.iterdir()) == []
