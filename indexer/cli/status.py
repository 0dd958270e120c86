"""`sealtape status`: how far each part of a deployment has come, and what needs looking at."""

from __future__ import annotations

import argparse
import asyncio
import stat
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sealtape.capture.bus import open_bus
from sealtape.capture.metrics.asking import metrics_at, readiness_at
from sealtape.indexer.cli import output
from sealtape.indexer.cli.deployment import read_runtime
from sealtape.indexer.cli.log import log_of
from sealtape.indexer.cli.options import inside, read_settings
from sealtape.indexer.cli.stores import index_of, ledger_of
from sealtape.indexer.schedule.lately import lately
from sealtape.indexer.worker import lease_topic
from sealtape.ingest.ledger import Ledger
from sealtape.ingest.ledger.rows import LeaseRow
from sealtape.schemas.documents import SESSION_STATES
from sealtape.schemas.errors import StoreError
from sealtape.schemas.settings import Settings

NAME = "status"
HELP = "how far each part has come, and what needs looking at"
DESCRIPTION = """\
Shows whether a node runs from this deployment and what it says of itself, how many sessions are
live, closed, incomplete and sealed, how far ingest and the indexer are behind the bus and who works
on which partition, the segments sealed, how far the log is signed and witnessed, how much of it was
verified lately, and incidents. What cannot be reached is said, the rest is shown.
"""

OUTBOX: Final = 1000
"""Most events of the outbox that are counted."""

Row = dict[str, Any]
Leases = Mapping[tuple[str, int], LeaseRow]

_TOLD: Final = {
    "live": "sealtape_capture_sessions_live",
    "stalled": "sealtape_capture_sessions_stalled",
    "unrecorded": "sealtape_capture_sessions_unrecorded",
    "unshipped_bytes": "sealtape_capture_unshipped_bytes",
}
_OLDEST: Final = "sealtape_capture_oldest_unacked_seconds"


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
            if key != "partitions":
                print(f"  {key:16} {output.shown(value)}")
        if rows := facts.get("partitions"):
            cells = [["", *map(output.shown, row.values())] for row in rows]
            output.table(["", *rows[0]], cells)
    return 0


async def _status(settings: Settings) -> dict[str, dict[str, Any]]:
    """Every part by itself: one store that is away hides no other."""
    status = {"capture": await _capture(settings)}
    logs: dict[str, Log] = {}
    try:
        # The ledger first: where there is none yet, no bus is made by looking at it.
        async with ledger_of(settings) as ledger:
            try:
                logs = await _logs(settings)
            except StoreError as exc:
                status["bus"] = {"error": str(exc)}
            leases = {(row.topic, row.partition): row for row in await ledger.leases()}
            status["ingest"] = await _ingest(ledger, logs, leases)
            status["log"] = await log_of(settings, ledger)
            try:
                status["verification"] = await lately(settings, ledger, time.time_ns())
            except StoreError as exc:
                status["verification"] = {"error": str(exc)}
    except StoreError as exc:
        status["stores"] = {"error": str(exc)}
        return status
    try:
        status["indexer"] = await _indexer(settings, logs, leases, status["ingest"]["partitions"])
    except StoreError as exc:
        status["indexer"] = {"error": str(exc)}
    return status


# -- capture ---------------------------------------------------------------------------------------


async def _capture(settings: Settings) -> dict[str, Any]:
    listeners = read_runtime(Path(settings.base))
    address = listeners.get("metrics") or settings.capture.metrics
    told = await _told(address) if address else {}
    return {
        "running": bool(listeners or told),
        "listeners": listeners,
        "targets": sorted(settings.targets),
        "spool_bytes": _folder_size(inside(settings, settings.capture.spool)),
        **told,
    }


async def _told(address: str) -> dict[str, Any]:
    """What the node says of itself, where it answers."""
    readiness, metrics = await asyncio.gather(readiness_at(address), metrics_at(address))
    if readiness is None or metrics is None:
        return {}
    numbers = {name: int(metrics[metric]) for name, metric in _TOLD.items()}
    return {**readiness, **numbers, "oldest_unacked_s": round(metrics[_OLDEST], 1)}


def _folder_size(folder: Path) -> int:
    """The bytes of all files in it; a running node deletes some meanwhile."""
    size = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            found = path.stat()
            size += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return size


# -- the bus and who reads it ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Log:
    """A bus as it is now: its topic, and where each partition ends."""

    topic: str
    ends: list[int]


async def _logs(settings: Settings) -> dict[str, Log]:
    """The buses that ingest reads, by their names in `[stores]`."""
    found = {}
    for name, url in (("bus", settings.stores.bus), ("keys", settings.stores.keys)):
        if url:
            bus = open_bus(url, Path(settings.base))
            try:
                await bus.start()
                ends = [(await bus.bounds(each))[1] for each in range(bus.partitions)]
                found[name] = Log(bus.topic, ends)
            finally:
                await bus.close()
    return found


def _row(topic: str, partition: int, position: int, end: int, lease: LeaseRow | None) -> Row:
    held = lease if lease is not None and lease.owner and lease.expires_in_s > 0 else None
    return {
        "topic": topic.partition("@")[0],
        "partition": partition,
        "position": position,
        "end": end,
        "behind": max(0, end - position),
        "owner": held.owner if held else None,
        "term": lease.term if lease is not None else 0,
        "lease_s": round(held.expires_in_s, 1) if held else None,
    }


# -- ingest and the indexer ------------------------------------------------------------------------


async def _ingest(ledger: Ledger, logs: Mapping[str, Log], leases: Leases) -> dict[str, Any]:
    totals = await ledger.totals()
    partitions = {name: await _read(ledger, log, leases) for name, log in logs.items()}
    return {
        "sessions": dict.fromkeys(SESSION_STATES, 0) | totals.sessions,
        "segments": totals.segments,
        "bytes": totals.bytes,
        "behind": sum(row["behind"] for row in partitions["bus"]) if "bus" in logs else None,
        "incidents": sum(totals.incidents.values()),
        "gaps": totals.incidents.get("gap", 0),
        "incidents_by_reason": dict(sorted(totals.incidents.items())),
        "last_incident": totals.last_incident or None,
        "events_waiting": len(await ledger.outbox(limit=OUTBOX)),
        "partitions": [row for rows in partitions.values() for row in rows],
    }


async def _read(ledger: Ledger, log: Log, leases: Leases) -> list[Row]:
    """How far ingest has come with each partition of a bus."""
    return [
        _row(
            log.topic,
            partition,
            await ledger.position(log.topic, partition),
            end,
            leases.get((log.topic, partition)),
        )
        for partition, end in enumerate(log.ends)
    ]


async def _indexer(
    settings: Settings, logs: Mapping[str, Log], leases: Leases, ingest: Sequence[Row]
) -> dict[str, Any]:
    """A partition that no indexer ever read of the bus begins where ingest stands."""
    async with index_of(settings) as index:
        positions = await index.positions()
    if "bus" not in logs:
        return {"positions": positions}
    topic, rows = logs["bus"].topic, []
    for partition, end in enumerate(logs["bus"].ends):
        read = positions.get(f"bus/{topic}/{partition}")
        position = ingest[partition]["position"] if read is None else read
        lease = leases.get((lease_topic(topic), partition))
        rows.append(_row(topic, partition, position, end, lease))
    behind = sum(row["behind"] for row in rows)
    return {"behind": behind, "positions": positions, "partitions": rows}
