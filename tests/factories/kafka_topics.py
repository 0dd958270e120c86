"""Topics of their own for tests that share a broker."""

import secrets
from pathlib import Path

from sealtape.capture.bus import open_bus, prepare_bus

BASE = Path("/")


def kafka_url(bootstrap, topic=None, **options):
    """A `kafka:` URL on a broker without TLS and replicas, for a topic nobody else uses."""
    topic = topic or f"t-{secrets.token_hex(6)}"
    given = {"partitions": 1, "replicas": 1, "tls": "disable", "timeout": "10s", **options}
    query = "&".join(f"{name}={value}" for name, value in given.items())
    return f"kafka://{bootstrap}/{topic}?{query}"


async def new_topic(bootstrap, **options):
    """Create a topic; return its URL."""
    url = kafka_url(bootstrap, **options)
    await prepare_bus(url, BASE)
    return url


async def new_bus(bootstrap, **options):
    """Create a topic; return a bus on it, started."""
    bus = open_bus(await new_topic(bootstrap, **options), BASE)
    await bus.start()
    return bus
