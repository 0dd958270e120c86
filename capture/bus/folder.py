"""Making and looking at the folder of a `dir:` bus."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

from sealtape.capture.bus.dir import open_dir_bus
from sealtape.capture.checkup import Check

__all__ = ["check_folder", "prepare_folder"]


async def prepare_folder(url: str, base: Path) -> list[str]:
    """Make the folder unless it is there; return what was done. As `open_dir_bus` otherwise."""
    path = _path(url, base)
    new = not await asyncio.to_thread((path / "bus.json").exists)
    await open_dir_bus(url, base).close()
    return [f"made the bus {path}"] if new else []


async def check_folder(url: str, base: Path) -> list[Check]:
    """Look at the folder and its disk; nothing is changed. As `open_dir_bus` otherwise."""
    path = _path(url, base)
    if not await asyncio.to_thread((path / "bus.json").exists):
        hint = "`sealtape setup` makes it, or the first that opens it."
        return [Check("bus: folder", "warning", f"{path} does not exist yet.", hint)]
    bus = open_dir_bus(url, base)
    count = bus.partitions
    await bus.close()
    mode, free, total, writable = await asyncio.to_thread(_look_at, path)
    checks = [Check("bus: folder", "ok", f"{path} has {count} partitions.")]
    if not writable:
        hint = "Give it to the user that capture and ingest run as."
        checks = [Check("bus: folder", "error", f"{path} cannot be written by us.", hint)]
    if mode & 0o077:
        message = f"{path} has mode {mode:o}: others on this host may read or list it."
        checks.append(Check("bus: folder", "warning", message, f"chmod 700 {path}"))
    low = free < total / 10
    message = f"{free >> 20} MiB of {total >> 20} MiB of the disk are free."
    hint = "Make room: capture stops when it is full." if low else ""
    checks.append(Check("bus: disk", "warning" if low else "ok", message, hint))
    return checks


def _path(url: str, base: Path) -> Path:
    return base / url.removeprefix("dir:").partition("?")[0]


def _look_at(path: Path) -> tuple[int, int, int, bool]:
    """Mode of the folder; free and total bytes of its disk; whether we may write."""
    disk = shutil.disk_usage(path)
    return path.stat().st_mode & 0o777, disk.free, disk.total, os.access(path, os.W_OK)
