"""The buses of a deployment: frames, keys where they have one of their own, events."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from sealtape.capture.bus import check_bus
from sealtape.capture.checkup import Check
from sealtape.schemas.settings import Settings

__all__ = ["check_buses"]


async def check_buses(settings: Settings, *, events: bool) -> list[Check]:
    """Look at the buses that the settings name; at the one of events only where it is used."""
    stores, base = settings.stores, Path(settings.base)
    urls = {"bus": stores.bus, "keys bus": stores.keys, "events bus": stores.events * events}
    named = {name: url for name, url in urls.items() if url}
    found = await asyncio.gather(*(check_bus(url, base) for url in named.values()))
    return [
        replace(check, name=check.name.replace("bus", name, 1))
        for name, checks in zip(named, found, strict=True)
        for check in checks
    ]
