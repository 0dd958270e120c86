"""The buses of a deployment: frames, keys where they have one of their own, events."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Final

from sealtape.capture.bus import check_bus
from sealtape.capture.checks.certificate import check_client_certificate
from sealtape.capture.checkup import Check
from sealtape.schemas.settings import Settings

__all__ = ["check_buses"]


_FRAMES: Final = {"capture": "write", "ingest": "read", "indexer": "read", "auditor": "read"}
_USES: Final = {
    "bus": _FRAMES,
    "keys bus": _FRAMES,
    "events bus": {"ingest": "write", "indexer": "write"},
}
"""What each room, and the auditor, does with each bus."""


async def check_buses(settings: Settings, rooms: Collection[str]) -> list[Check]:
    """Look at the buses that these rooms use, and whether they may do there what they do."""
    stores, base = settings.stores, Path(settings.base)
    urls = {"bus": stores.bus, "keys bus": stores.keys, "events bus": stores.events}
    needs = {name: {uses[room] for room in rooms if room in uses} for name, uses in _USES.items()}
    named = [name for name, url in urls.items() if url and needs[name]]
    found = await asyncio.gather(*(check_bus(urls[name], base, needs[name]) for name in named))
    now, told = dt.datetime.now(dt.UTC), list[Check]()
    for name, checks in zip(named, found, strict=True):
        told += [replace(check, name=check.name.replace("bus", name, 1)) for check in checks]
        told += check_client_certificate(name, urls[name], base, now)
    return told
