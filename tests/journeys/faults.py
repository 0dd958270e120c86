"""What happens to the servers behind a deployment, and how long it lasts.

    async with fault(site, "kafka", "paused"):
        ...                     # all is as before when the block is over

`FAULTS` that need a proxy before the server want it in `site.proxies`; the others stop the server's
own process and want it in `site.servers`.
"""

import asyncio
import contextlib
from dataclasses import dataclass, field

from tests.servers.stores import StoreSet

SERVERS = ("kafka", "s3", "postgres", "opensearch")


@dataclass
class Site:
    """The servers of a deployment by name, those that are its own, proxies before them, stores."""

    stores: StoreSet
    servers: dict = field(default_factory=dict)
    proxies: dict = field(default_factory=dict)


@contextlib.contextmanager
def _cut(proxy):
    proxy.cut()
    try:
        yield
    finally:
        proxy.heal()


@contextlib.contextmanager
def _stopped(server):
    server.stop()
    try:
        yield
    finally:
        server.start()


@contextlib.contextmanager
def _killed(server):
    server.kill()
    try:
        yield
    finally:
        server.start()


@contextlib.contextmanager
def _paused(server):
    server.pause()
    try:
        yield
    finally:
        server.resume()


PROXIED = {
    "cut": _cut,
    "slow": lambda proxy: proxy.slow(2000),
    "throttled": lambda proxy: proxy.throttled(10),
    "resetting": lambda proxy: proxy.resetting(),
    "half-open": lambda proxy: proxy.half_open(),
}
STOPPED = {"stopped": _stopped, "killed": _killed, "paused": _paused}
AWAY = {"cut", "resetting", "half-open", *STOPPED}
"""Those in which nothing gets through."""


@contextlib.asynccontextmanager
async def fault(site, server, kind):
    """A block in which a server has this fault."""
    if kind in PROXIED:
        context = PROXIED[kind](site.proxies[server])
    else:
        context = STOPPED[kind](site.servers[server])
    await asyncio.to_thread(context.__enter__)
    try:
        yield
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)
