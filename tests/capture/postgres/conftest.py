import asyncio

import uvloop

from tests.servers.postgres import postgres_server  # noqa: F401


def pytest_asyncio_loop_factories(config, item):
    """Both event loops: they differ where it hurts."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
