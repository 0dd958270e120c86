import pytest

from tests.conformance.index import IndexContract


def sqlite_url(tmp_path):
    return f"sqlite:{tmp_path}/index.db"


FACTORIES = [pytest.param(sqlite_url, id="sqlite")]


@pytest.fixture(params=FACTORIES)
def index_url(request, tmp_path):
    return request.param(tmp_path)


class TestIndex(IndexContract):
    """Runs on every adapter."""
