import pytest

from tests.conformance.bus import BusContract


def dir_url(tmp_path):
    return f"dir:{tmp_path}/bus?partitions=3"


FACTORIES = [pytest.param(dir_url, id="dir")]


@pytest.fixture(params=FACTORIES)
def bus_url(request, tmp_path):
    return request.param(tmp_path)


class TestBus(BusContract):
    """Runs on every adapter."""
