"""sigstore's time-stamp authority (RFC 3161), with keys in memory that are new at each start.

    timestamp_server.url          where requests are posted
    timestamp_server.chain()      its certificates in PEM: the signer's, one between, the root

`timestamp_alone` is the same for one test file: .stop() .start() .kill() .pause() .resume().
"""

import json
import re
import shutil
import subprocess
import tempfile
import urllib.request
from pathlib import Path

import pytest

from tests.servers import availability, cache
from tests.servers.process import LOOPBACK, Server, Spec, free_port, http_status

_MODULE = "github.com/sigstore/timestamp-authority/v2"
_METRICS = "pkg/server/prometheus.go"
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----\n.*?-----END CERTIFICATE-----\n", re.DOTALL)


def _build(folder):
    # Its metrics always listen on port 2112 of every address: there could be one on a machine.
    version = cache.VERSIONS["timestamp"]
    cache.run("Go", "go", "mod", "download", f"{_MODULE}@v{version}", cwd=folder)
    told = subprocess.run(
        ["go", "mod", "download", "-json", f"{_MODULE}@v{version}"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    source = Path(json.loads(told.stdout)["Dir"])
    with tempfile.TemporaryDirectory() as scratch:
        module = Path(scratch, "module")
        shutil.copytree(source, module, copy_function=shutil.copyfile)
        for place in (module, *module.rglob("*/")):
            place.chmod(0o755)  # modules are kept read-only
        text = (module / _METRICS).read_text()
        assert '":2112"' in text
        (module / _METRICS).write_text(text.replace('":2112"', f'"{LOOPBACK}:0"'))
        cache.run(
            "Go", "go", "build", "-trimpath", "-o", folder / "timestamp-server",
            "./cmd/timestamp-server", cwd=module,
            GOFLAGS="-mod=readonly -buildvcs=false", CGO_ENABLED="0",
        )  # fmt: skip


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
