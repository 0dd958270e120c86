"""The bus: one port, and one adapter per kind of log behind it."""

from __future__ import annotations

from pathlib import Path

from sealtape.capture.bus.base import Batch, Bus, Record, partition_of
from sealtape.schemas.errors import SettingsError

__all__ = ["Batch", "Bus", "Record", "open_bus", "partition_of"]


def open_bus(url: str, base: Path) -> Bus:
    """Open the bus a URL names; relative paths in it start at `base`.

    `dir:PATH?partitions=N` is a folder of append-only files (`docs/spec/bus-dir.md`).

    Raises `SettingsError` for a URL that names no adapter, and `StoreError`.
    """
    scheme = url.partition(":")[0]
    if scheme == "dir":
        from sealtape.capture.bus.dir import open_dir_bus

        return open_dir_bus(url, base)
    raise SettingsError(
        f"No bus adapter for {url!r}.", hint="Use dir:PATH?partitions=N.", setting="stores.bus"
    )
