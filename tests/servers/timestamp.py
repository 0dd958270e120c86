"""sigstore's time-stamp authority (RFC 3161), with keys in memory that are new at each start.

    timestamp_server.url          where requests are posted
    timestamp_server.chain()      its certificates in PEM: the signer's, one between, the root

`timestamp_alone` is the same for one test file: .stop() .start() .kill() .pause() .resume().
"""

import re
import urllib.request

import pytest

from tests.servers import availability, cache
from tests.servers.process import LOOPBACK, Server, Spec, free_port, http_status

_PACKAGE = "github.com/sigstore/timestamp-authority/v2/cmd/timestamp-server"
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----\n.*?-----END CERTIFICATE-----\n", re.DOTALL)


def _build(folder):
    cache.go_program(_PACKAGE, cache.VERSIONS["timestamp"], folder)


cache.register(cache.Recipe("timestamp", cache.VERSIONS["timestamp"], _build, needs=("go",)))


class TimestampServer(Server):
    """One authority."""

    KIND, PARTS = "timestamp", ("timestamp",)

    @classmethod
    def plan(cls, place):
        return {"port": free_port()}

    def spec(self):
        program = self.at("timestamp", "timestamp-server")
        return Spec(
            [
                program, "serve", "--host", LOOPBACK, "--port", self.facts["port"],
                "--timestamp-signer", "memory", "--disable-ntp-monitoring",
            ],
            env={"HOME": str(self.place)},
        )  # fmt: skip

    def healthy(self):
        return http_status(f"http://{self.address}/ping") == 200

    @property
    def url(self) -> str:
        """Where requests are posted."""
        return f"http://{self.address}/api/v1/timestamp"

    def chain(self) -> list[bytes]:
        """Its certificates: the signer's, the one between, the root."""
        with urllib.request.urlopen(f"{self.url}/certchain", timeout=10) as response:
            return _PEM.findall(response.read())


@pytest.fixture(scope="session")
def timestamp_server():
    """The time-stamp authority that all tests of the run share."""
    availability.need(TimestampServer)
    return TimestampServer.shared()


@pytest.fixture(scope="module")
def timestamp_alone():
    """One for this test file alone, to stop, kill and pause."""
    availability.need(TimestampServer)
    with TimestampServer.own() as server:
        yield server
