import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sealtape.indexer.index import prepare_index
from tests.conformance.index import IndexContract


@pytest.fixture
def sqlite_url(tmp_path):
    return f"sqlite:{tmp_path}/index.db"


@pytest.fixture
def opensearch_url(opensearch_server):
    prefix = opensearch_server.prefix()
    url = opensearch_server.index_url(prefix)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, prepare_index(url, Path("/"))).result()
    yield url
    opensearch_server.forget(prefix)


@pytest.fixture(params=["sqlite", "opensearch"])
def index_url(request):
    return request.getfixturevalue(f"{request.param}_url")


class TestIndex(IndexContract):
    """Runs on every adapter."""
