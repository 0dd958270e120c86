"""What journeys run on: embedded stores, and the same deployment on real servers."""

import pytest

from tests.servers.postgres import postgres_server  # noqa: F401
from tests.servers.stores import StoreSet


@pytest.fixture
def real_stores(tmp_path, kafka_server, s3_server, postgres_stores, opensearch_server):
    """Stores of the test's own on Kafka, S3, PostgreSQL and OpenSearch."""
    return StoreSet.new(
        tmp_path,
        kafka=kafka_server,
        s3=s3_server,
        postgres=postgres_stores,
        opensearch=opensearch_server,
    )


@pytest.fixture(params=["embedded", "servers"])
def stores(request):
    """None for the embedded stores, then the real ones: what a `Lab` is given."""
    if request.param == "embedded":
        return None
    return request.getfixturevalue("real_stores")
