import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from sealtape.indexer.index import open_index, prepare_index
from sealtape.indexer.index.opensearch.layout import Layout


def run(coroutine):
    """Run a coroutine from a fixture, whatever loop the test gets."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


@pytest.fixture
def prepared(opensearch_server):
    """A prefix of the test's own in the shared OpenSearch, with its templates loaded."""
    prefix = opensearch_server.prefix()
    url = opensearch_server.index_url(prefix)
    run(prepare_index(url, Path("/")))
    yield SimpleNamespace(url=url, layout=Layout(prefix, replicas=0), server=opensearch_server)
    opensearch_server.forget(prefix)


@pytest.fixture
async def index(prepared):
    index = await open_index(prepared.url, Path("/"))
    yield index
    await index.close()
