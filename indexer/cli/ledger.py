"""`sealtape ledger`: the ledger made anew."""

from __future__ import annotations

import argparse
import asyncio
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path

from sealtape.capture.bus import Bus, open_bus
from sealtape.indexer.cli import output
from sealtape.indexer.cli.options import read_settings
from sealtape.ingest.ledger import open_ledger
from sealtape.ingest.node import check_keys, read_trust
from sealtape.ingest.rebuild import Rebuilt, rebuild_ledger
from sealtape.ingest.vault import open_vault
from sealtape.schemas.settings import Settings

NAME = "ledger"
HELP = "make the ledger anew from the vault and the bus"
DESCRIPTION = """\
`sealtape ledger rebuild` fills an empty ledger with what vault and bus prove: segments, fragments,
heads, sessions, positions, what could not be sealed, and the log. It reads every object and refuses
a vault with holes. No ingest and no indexer may run meanwhile. Name a new file or schema in
stores.ledger (run `sealtape setup` for the latter), rebuild, and start ingest: it reads on where
the lost ledger was.

With --no-bus the bus is left out, where it is gone too; ingest then reads the last publication of
each partition again. docs/spec/ledger.md says which rows come back.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument(
        "action", choices=("rebuild",), metavar="rebuild", help="fill an empty ledger"
    )
    parser.add_argument("--no-bus", action="store_true", help="read the vault alone")


def run(args: argparse.Namespace) -> int:
    """Rebuild and say what came back."""
    progress = output.Progress("published frames", quiet=args.json)
    try:
        done = asyncio.run(_rebuild(read_settings(args), progress, with_bus=not args.no_bus))
    finally:
        progress.done()
    if args.json:
        positions = [[*place, offset] for place, offset in sorted(done.positions.items())]
        output.json_line(asdict(done) | {"positions": positions})
    else:
        _report(done)
    return 0


async def _rebuild(settings: Settings, progress: output.Progress, *, with_bus: bool) -> Rebuilt:
    base, urls = Path(settings.base), settings.stores
    async with AsyncExitStack() as stack:
        bus = await _bus(urls.bus, base, stack) if with_bus else None
        keys = await _bus(urls.keys, base, stack) if with_bus and urls.keys else None
        if bus is not None and keys is not None:
            check_keys(bus.partitions, keys.partitions)
        vault = await open_vault(urls.vault, base)
        stack.push_async_callback(vault.close)
        ledger = await open_ledger(urls.ledger, base)
        stack.push_async_callback(ledger.close)
        return await rebuild_ledger(
            ledger=ledger,
            vault=vault,
            bus=bus,
            keys=keys,
            verifiers=read_trust(settings),
            progress=progress.at,
        )


async def _bus(url: str, base: Path, stack: AsyncExitStack) -> Bus:
    bus = open_bus(url, base)
    stack.push_async_callback(bus.close)
    await bus.start()
    return bus


def _report(done: Rebuilt) -> None:
    print(
        f"rebuilt {done.segments} segments with {done.frames} frames in {done.shards} shards,"
        f" {done.quarantined} quarantined messages, {done.incidents} incidents"
    )
    if done.entries:
        print(f"rebuilt {done.entries} entries of the log")
    for (topic, partition), offset in sorted(done.positions.items()):
        print(f"  {topic}/{partition}: ingest reads on at {offset}")
    if done.unplaced:
        print(f"{done.unplaced} epochs are not on the bus any more, or only in part")
    for key in done.left:
        print(f"never published, left in the vault: {key}")
