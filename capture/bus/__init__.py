"""The bus: one port, and one adapter per kind of log behind it."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection
from pathlib import Path

from sealtape.capture.bus.base import Batch, Bus, Record, partition_of
from sealtape.capture.checkup import Check
from sealtape.schemas.errors import SettingsError, StoreError
from sealtape.schemas.urls import shown_url

__all__ = ["Batch", "Bus", "Record", "check_bus", "open_bus", "partition_of", "prepare_bus"]


def open_bus(url: str, base: Path) -> Bus:
    """Open the bus a URL names; relative paths in it start at `base`.

    `dir:PATH?partitions=N` is a folder of append-only files (`docs/spec/bus-dir.md`),
    `kafka://HOST:PORT,…/TOPIC?…` a topic of Kafka (`docs/kafka.md`), which `start` connects to.

    Raises `SettingsError` for a URL that names no adapter, and `StoreError`.
    """
    if _scheme(url) == "kafka":
        from sealtape.capture.bus.kafka.bus import open_kafka_bus

        return open_kafka_bus(url, base)
    from sealtape.capture.bus.dir import open_dir_bus

    return open_dir_bus(url, base)


async def prepare_bus(url: str, base: Path) -> list[str]:
    """Create what the bus needs and does not have yet; return what was done, in words.

    Raises `SettingsError` and `StoreError`.
    """
    if _scheme(url) == "kafka":
        from sealtape.capture.bus.kafka.prepare import prepare_topic

        return await prepare_topic(url, base)
    from sealtape.capture.bus.folder import prepare_folder

    return await prepare_folder(url, base)


async def check_bus(url: str, base: Path, needs: Collection[str] = ()) -> list[Check]:
    """Look at the bus and say what was found; a failure is an `error`, never raised.

    `needs` are what whoever uses the URL must be permitted to do: `read`, `write`.
    """
    try:
        if _scheme(url) == "kafka":
            from sealtape.capture.bus.kafka.check import check_topic

            return await check_topic(url, base, needs)
        from sealtape.capture.bus.folder import check_folder

        return await check_folder(url, base)
    except (SettingsError, StoreError) as exc:
        return [Check("bus", "error", exc.message, exc.hint)]


def _scheme(url: str) -> str:
    """Return which adapter a URL names."""
    scheme = url.partition(":")[0]
    if scheme not in {"dir", "kafka"}:
        raise SettingsError(
            f"No bus adapter for {shown_url(url)!r}.",
            hint="Use dir:PATH?partitions=N or kafka://HOST:PORT/TOPIC.",
            setting="stores.bus",
        )
    if scheme == "kafka" and importlib.util.find_spec("aiokafka") is None:
        raise SettingsError(
            "The client of Kafka is not installed.",
            hint="Install sealtape[kafka].",
            setting="stores.bus",
        )
    return scheme
