import pytest

from sealtape.indexer.cli.deployment import create
from sealtape.schemas.settings import load_settings
from tests.servers.postgres import postgres_server  # noqa: F401


class Deployment:
    """A deployment folder as `sealtape init` makes it, and its settings after changes."""

    def __init__(self, folder, *, development):
        self.folder = folder
        create(folder, development=development)
        self.path = folder / "sealtape.toml"
        self.keys = folder / "keys"

    def settings(self, *changes, more=""):
        """The settings, with texts of the file replaced."""
        text = self.path.read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        return load_settings(text + more, base=str(self.folder))


@pytest.fixture
def deployment(tmp_path):
    return Deployment(tmp_path / "d", development=True)


@pytest.fixture
def production(tmp_path):
    return Deployment(tmp_path / "p", development=False)
