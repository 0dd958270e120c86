"""Toxiproxy: between a client and any server of the run, to cut, slow down and reset it.

proxy = toxiproxy.proxy(kafka_server.bootstrap)
connect(proxy.address)
proxy.cut()                                  # refused, and open connections closed
proxy.heal()                                 # all as before
with proxy.toxic("latency", latency=2000):   # and others, below
    …
"""

import contextlib
import http.client
import itertools
import json
import os

import pytest

from tests.servers import availability, cache
from tests.servers.process import LOOPBACK, Server, Spec, free_port, http_status

_names = itertools.count(1)
_PACKAGE = "github.com/Shopify/toxiproxy/v2/cmd/server"


def _build(folder):
    cache.go_program(_PACKAGE, cache.VERSIONS["toxiproxy"], folder)
    (folder / "server").rename(folder / "toxiproxy-server")


cache.register(cache.Recipe("toxiproxy", cache.VERSIONS["toxiproxy"], _build, needs=("go",)))


class Proxy:
    """One listening address in front of one server. Its faults end with `heal` or `close`."""

    def __init__(self, server, name, address, upstream):
        self._server = server
        self.name = name
        self.address = address  # "host:port"
        self.upstream = upstream

    @property
    def port(self) -> int:
        """The port of `address`."""
        return int(self.address.rpartition(":")[2])

    def cut(self) -> None:
        """Close all connections and refuse new ones."""
        self._server.ask("POST", f"/proxies/{self.name}", enabled=False)

    def heal(self) -> None:
        """Take all toxics away and accept connections."""
        for toxic in self._server.ask("GET", f"/proxies/{self.name}/toxics"):
            self.cure(toxic["name"])
        self._server.ask("POST", f"/proxies/{self.name}", enabled=True)

    def poison(self, kind, *, stream="downstream", toxicity=1.0, **attributes) -> str:
        """Add a toxic and return its name. `stream`: `upstream` is from client to server.

        latency(latency, jitter: ms), bandwidth(rate: KB/s), slow_close(delay: ms), timeout(timeout:
        ms; 0 swallows all for ever), reset_peer(timeout: ms), slicer(average_size, size_variation:
        bytes, delay: µs), limit_data(bytes).
        """
        name = f"toxic-{next(_names)}"
        self._server.ask(
            "POST", f"/proxies/{self.name}/toxics", name=name, type=kind, stream=stream,
            toxicity=toxicity, attributes=attributes,
        )  # fmt: skip
        return name

    def cure(self, toxic) -> None:
        """Take one toxic away."""
        self._server.ask("DELETE", f"/proxies/{self.name}/toxics/{toxic}")

    @contextlib.contextmanager
    def toxic(self, kind, **options):
        """Add a toxic for the length of a block."""
        name = self.poison(kind, **options)
        try:
            yield self
        finally:
            self.cure(name)

    @contextlib.contextmanager
    def both(self, kind, **options):
        """The same toxic in both directions."""
        with (
            self.toxic(kind, stream="upstream", **options),
            self.toxic(kind, stream="downstream", **options),
        ):
            yield self

    def slow(self, milliseconds, jitter=0):
        """A block in which every answer comes this much later."""
        return self.toxic("latency", latency=milliseconds, jitter=jitter)

    def throttled(self, kilobytes_per_s):
        """A block in which each direction carries this much, per connection."""
        return self.both("bandwidth", rate=kilobytes_per_s)

    def resetting(self, after_ms=0):
        """A block in which connections are reset (RST) after a time."""
        return self.toxic("reset_peer", timeout=after_ms)

    def limited(self, count, stream="downstream"):
        """A block in which a connection closes after that many bytes, inside an answer."""
        return self.toxic("limit_data", bytes=count, stream=stream)

    def half_open(self):
        """A block in which connections stay open and nothing passes; afterwards they are closed."""
        return self.both("timeout", timeout=0)

    def close(self) -> None:
        """Remove the proxy."""
        self._server.ask("DELETE", f"/proxies/{self.name}")


class Toxiproxy(Server):
    """The proxies of a run; one process of its own between them and the servers."""

    KIND, PARTS = "toxiproxy", ("toxiproxy",)

    @classmethod
    def plan(cls, place):
        return {"port": free_port()}

    def spec(self):
        program = self.at("toxiproxy", "toxiproxy-server")
        return Spec([program, "-host", LOOPBACK, "-port", self.facts["port"]],
                    env={"LOG_LEVEL": "error"})  # fmt: skip

    def healthy(self):
        return http_status(f"http://{LOOPBACK}:{self.facts['port']}/version") == 200

    def proxy(self, upstream, listen="") -> Proxy:
        """A new proxy in front of `host:port`, on a free port unless `listen` names one."""
        name = f"p{os.getpid()}-{next(_names)}"
        for attempt in range(3):
            address = listen or f"{LOOPBACK}:{free_port()}"
            try:
                self.ask("POST", "/proxies", name=name, listen=address, upstream=upstream)
            except ToxiproxyError:
                if listen or attempt == 2:
                    raise
                continue
            return Proxy(self, name, address, upstream)
        raise AssertionError

    def ask(self, method, path, **body):
        """One request of toxiproxy's HTTP API."""
        connection = http.client.HTTPConnection(LOOPBACK, self.facts["port"], timeout=10)
        with contextlib.closing(connection):
            connection.request(method, path, json.dumps(body) if body else None)
            response = connection.getresponse()
            text = response.read().decode()
        if response.status >= 300:
            raise ToxiproxyError(f"{method} {path}: {response.status} {text}")
        return json.loads(text) if text else None


class ToxiproxyError(RuntimeError):
    """Toxiproxy refused a request."""


@pytest.fixture(scope="session")
def toxiproxy():
    """The run's toxiproxy; put `.proxy("host:port")` in front of what is to fail."""
    availability.need(Toxiproxy)
    return Toxiproxy.shared()
