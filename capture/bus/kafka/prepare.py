"""Creating the topic that a `kafka:` URL names, with the settings it needs."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from sealtape.capture.bus.kafka.brokers import Brokers, Description, brokers_of
from sealtape.capture.bus.kafka.trouble import busy, of_code
from sealtape.capture.bus.kafka.url import KafkaUrl, parse_kafka_url
from sealtape.schemas.errors import StoreBusy, StoreError

__all__ = ["prepare_topic"]

UNKNOWN = 3
POLL_S = 0.1


async def prepare_topic(text: str, base: Path) -> list[str]:
    """Create the topic unless it is there; return what was done, in words.

    A topic that is there is not changed: `check_topic` says where it differs. Raises
    `SettingsError`, and `StoreError` when it cannot be created or has another number of partitions.
    """
    url = parse_kafka_url(text, base)
    async with brokers_of(url) as brokers:
        found = await brokers.describe()
        if found.code == 0:
            _check_count(url, found)
            return []
        if found.code != UNKNOWN:
            raise of_code(found.code, f"The topic {url.topic}")
        controller = found.nodes.get(found.controller, url.hosts[0])
        created = await brokers.create(controller)
        await _wait_until_known(url, brokers)
        if not created:
            return []
        shape = (
            f"{url.partitions} partitions, {url.replicas} replicas, {url.min_isr} must acknowledge"
        )
        return [f"created the topic {url.topic}: {shape}"]


async def _wait_until_known(url: KafkaUrl, brokers: Brokers) -> None:
    """Return when every broker that answers knows the topic and all its leaders."""
    deadline = time.monotonic() + url.timeout_s
    while True:
        found = await brokers.describe()
        told = [found, *[await _described(brokers, address) for address in found.nodes.values()]]
        if all(one is None or _is_led(one) for one in told):
            _check_count(url, found)
            return
        if time.monotonic() > deadline:
            raise busy(f"The topic {url.topic} was created, but has no leaders yet.")
        await asyncio.sleep(POLL_S)


async def _described(brokers: Brokers, address: tuple[str, int]) -> Description | None:
    try:
        return await brokers.describe(address)
    except StoreBusy:  # a broker that is down learns it when it comes back
        return None


def _is_led(found: Description) -> bool:
    return found.code == 0 and all(part.leader >= 0 for part in found.partitions)


def _check_count(url: KafkaUrl, found: Description) -> None:
    if len(found.partitions) != url.partitions:
        raise StoreError(
            f"The topic {url.topic} is there with {len(found.partitions)} partitions, not"
            f" {url.partitions}.",
            hint="The number never changes: correct `partitions` in the URL, or name a new topic.",
        )
