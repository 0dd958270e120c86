"""The bus: one port, and one adapter per kind of log behind it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from sealtape.capture.bus.base import Batch, Bus, Record, partition_of
from sealtape.schemas.errors import SettingsError

__all__ = ["Batch", "Bus", "Record", "open_bus", "partition_of"]


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


def _scheme(url: str) -> str:
    """Return which adapter a URL names."""
    scheme = url.partition(":")[0]
    if scheme not in {"dir", "kafka"}:
        raise SettingsError(
            f"No bus adapter for {url!r}.",
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
