import pytest

from sealtape.capture.bus import open_bus
from sealtape.schemas.errors import SettingsError


@pytest.mark.parametrize(
    "url",
    [
        "dir:",
        "dir:x?partitions=0",
        "dir:x?partitions=many",
        "dir:x?partitions=2000",
        "dir:x?colour=red",
        "carrier-pigeon:x",
    ],
)
def test_a_url_that_means_nothing_is_a_settings_error(tmp_path, url):
    with pytest.raises(SettingsError):
        open_bus(url, tmp_path)


async def test_paths_start_at_the_base(tmp_path):
    bus = open_bus("dir:a/b", tmp_path)
    await bus.close()
    assert (tmp_path / "a" / "b" / "bus.json").exists()
    assert bus.partitions == 1
