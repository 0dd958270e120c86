"""A broker that clients reach through a proxy only, to cut, slow down and silence the way to it."""

import secrets
from types import SimpleNamespace

import pytest
from aiokafka.conn import AIOKafkaConnection

from sealtape.capture.bus.kafka.bus import KafkaBus
from tests.servers import availability
from tests.servers.kafka import KafkaServer
from tests.servers.process import Home


@pytest.fixture(scope="module")
def kafka_behind(toxiproxy):
    """`.server`, `.proxy`, and `.bootstrap`, which is the proxy's address, as the broker says."""
    availability.need(KafkaServer)
    server = KafkaServer.planned(Home.current(), f"kafka-behind-{secrets.token_hex(3)}")
    proxy = toxiproxy.proxy(server.bootstrap)
    with (server.place / "server.properties").open("a") as properties:
        properties.write(f"advertised.listeners=PLAINTEXT://{proxy.address}\n")
    try:
        server.start()
        yield SimpleNamespace(server=server, proxy=proxy, bootstrap=proxy.address)
    finally:
        proxy.close()
        server.remove()


@pytest.fixture(autouse=True)
async def closed_at_the_end(monkeypatch):
    """Close the buses that a failing test leaves open: their sockets would fail others."""
    opened = []
    begin = KafkaBus.__init__

    def remember(self, url):
        opened.append(self)
        begin(self, url)

    monkeypatch.setattr(KafkaBus, "__init__", remember)
    yield
    for bus in opened:
        await bus.close()


@pytest.fixture
def line(kafka_behind):
    """The proxy in front of the broker; healthy before and after."""
    kafka_behind.proxy.heal()
    yield kafka_behind.proxy
    kafka_behind.proxy.heal()


@pytest.fixture
def by_name(monkeypatch):
    """Brokers seem to be of a time when messages could be asked for by a topic's name only."""
    look_up = AIOKafkaConnection._do_version_lookup

    async def look_up_old(self):
        await look_up(self)
        self._versions = {**self._versions, 0: (3, 7), 1: (4, 11)}

    monkeypatch.setattr(AIOKafkaConnection, "_do_version_lookup", look_up_old)
