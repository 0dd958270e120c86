"""`sealtape status`: how far each part of a deployment has come, and what needs looking at."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

from sealtape.capture.bus import open_bus
from sealtape.indexer.cli import output
from sealtape.indexer.cli.deployment import read_runtime
from sealtape.indexer.cli.options import inside, read_settings
from sealtape.indexer.cli.stores import index_of, ledger_of
from sealtape.ingest.ledger import Ledger
from sealtape.schemas.errors import StoreError
from sealtape.schemas.settings import Settings

NAME = "status"
HELP = "how far each part has come, and what needs looking at"
DESCRIPTION = """\
Shows whether a node runs from this deployment, how many sessions are live, closed and sealed,
how far ingest and the indexer are behind the bus, the segments sealed, and incidents.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments: there are none."""


def run(args: argparse.Namespace) -> int:
    """Print the status."""
    settings = read_settings(args)
    status = asyncio.run(_status(settings))
    if args.json:
        output.json_line(status)
        return 0
    for part, facts in status.items():
        print(part)
        for key, value in facts.items():
            print(f"  {key:12} {value}")
    return 0


async def _status(settings: Settings) -> dict[str, dict[str, Any]]:
    listeners = read_runtime(Path(settings.base))
    status: dict[str, dict[str, Any]] = {
        "capture": {
            "running": bool(listeners),
            "listeners": listeners,
            "targets": sorted(settings.targets),
            "spool_bytes": _folder_size(inside(settings, settings.capture.spool)),
        }
    }
    try:
        status["ingest"] = await _ingest(settings)
        status["indexer"] = await _indexer(settings)
    except StoreError as exc:
        status["stores"] = {"error": str(exc)}
    return status


async def _ingest(settings: Settings) -> dict[str, Any]:
    states = {"live": 0, "closed": 0, "sealed": 0}
    segments = size = 0
    # The ledger first: where there is none yet, no bus is made by looking at it.
    async with ledger_of(settings) as ledger:
        behind = await _behind(settings, ledger)
        async for segment in ledger.segments():
            segments, size = segments + 1, size + segment.record.bytes
        async for session in ledger.sessions():
            states[session.state] = states.get(session.state, 0) + 1
        incidents = await ledger.incidents()
    return {
        "sessions": states,
        "segments": segments,
        "bytes": size,
        "behind": behind,
        "incidents": len(incidents),
        "last_incident": incidents[-1].reason if incidents else None,
    }


async def _behind(settings: Settings, ledger: Ledger) -> int:
    """How far ingest is behind the bus, in the bus's offsets."""
    bus = open_bus(settings.stores.bus, Path(settings.base))
    behind = 0
    try:
        await bus.start()
        for partition in range(bus.partitions):
            _, end = await bus.bounds(partition)
            behind += max(0, end - await ledger.position(bus.topic, partition))
    finally:
        await bus.close()
    return behind


async def _indexer(settings: Settings) -> dict[str, Any]:
    async with index_of(settings) as index:
        return {"positions": await index.positions()}


def _folder_size(folder: Path) -> int:
    if not folder.is_dir():
        return 0
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
