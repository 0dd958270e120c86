"""The whole set of servers, from a terminal: `make servers`.

They run until Ctrl-C, with data under one temporary folder that goes away with them. What is
printed is a `[stores]` table for a sealtape.toml; `sealtape setup` then makes what it names.
"""

import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from tests.servers import cache, jvm, registry
from tests.servers.process import Home, ServerError

_STORES = ("kafka", "s3", "postgres", "opensearch")


def up(names: list[str], output=sys.stdout) -> int:
    """Start servers and wait for Ctrl-C or SIGTERM; the exit status is 1 when one did not start."""
    jvm.brief = False
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    Home.name_run()
    home = Home.current()
    try:
        servers = _start(names or list(registry.WHOLE_SET), over)
        if servers is None:
            return 1
        _describe(home, servers, output)
        over.wait()
    finally:
        cache.say("stopping", "all of them")
        home.end()
    return 0


def _start(names, over):
    """Start all at once; None when one of them failed or Ctrl-C came first."""
    with ThreadPoolExecutor(len(names)) as pool:
        futures = {name: pool.submit(_one, name) for name in names}
        servers = {name: future.result() for name, future in futures.items()}
    return None if None in servers.values() or over.is_set() else servers


def _one(name):
    kind = registry.server(name)
    try:
        for part in kind.PARTS:
            cache.fetch(part)
        server = kind.shared()
    except (ServerError, cache.FetchError) as error:
        cache.say(name, str(error))
        return None
    cache.say(name, f"runs as {server.pid}, log {server.log}")
    return server


def _describe(home, servers, output):
    from tests.servers.stores import StoreSet

    print(file=output)
    for name, server in servers.items():
        print(f"# {name}: {server.address}", file=output)
    if servers.keys() >= set(_STORES):
        table = StoreSet.new(home.folder, **{name: servers[name] for name in _STORES}).text()
        path = home.folder / "stores.toml"
        path.touch(mode=0o600)
        path.write_text(table)
        print(f"# For sealtape.toml (also in {path}); then: sealtape setup", file=output)
        print(table, file=output)
    if keycloak := servers.get("keycloak"):
        print(f"# OIDC provider: issuer {keycloak.issuer}, CA {keycloak.ca}", file=output)
    print(f"# {len(servers)} servers run, data in {home.folder}. Ctrl-C stops them.", file=output)
    output.flush()
