import pytest

from tests.conformance.postgresql import Cutter, Schema
from tests.servers.postgres import postgres_server  # noqa: F401 - a fixture


@pytest.fixture
def schema(postgres_server):  # noqa: F811
    """A schema of the test's own, not made yet."""
    schema = Schema(postgres_server, "store")
    yield schema
    schema.drop()


@pytest.fixture
async def cutter(postgres_server):  # noqa: F811
    cutter = await Cutter(postgres_server).start()
    yield cutter
    await cutter.stop()
