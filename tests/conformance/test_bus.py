import pytest

from tests.conformance.bus import BusContract
from tests.factories.kafka_topics import new_topic


async def dir_url(request, tmp_path):
    return f"dir:{tmp_path}/bus?partitions=3"


async def kafka_url(request, tmp_path):
    server = request.getfixturevalue("kafka_server")
    return await new_topic(server.bootstrap, partitions=3)


FACTORIES = [pytest.param(dir_url, id="dir"), pytest.param(kafka_url, id="kafka")]


@pytest.fixture(params=FACTORIES)
async def bus_url(request, tmp_path):
    return await request.param(request, tmp_path)


class TestBus(BusContract):
    """Runs on every adapter."""
