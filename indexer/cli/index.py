"""`sealtape index`: the indexer as a process of its own, or the index made anew."""

from __future__ import annotations

import argparse
import asyncio

from sealtape.indexer.cli import output
from sealtape.indexer.cli.options import read_settings
from sealtape.indexer.cli.running import run_until_signal
from sealtape.indexer.node import rebuild_index, serve

NAME = "index"
HELP = "run the indexer, or make the index anew"
DESCRIPTION = """\
Makes sessions searchable: from the bus while they run, from the ledger once they are sealed. The
indexer holds the key of the facts alone and cannot read what a query returned.

With --rebuild the index is emptied and made again from the ledger, the vault and the bus; no
other indexer may run meanwhile.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("--rebuild", action="store_true", help="make the index anew, then end")


def run(args: argparse.Namespace) -> int:
    """Run until a signal, or rebuild."""
    settings = read_settings(args)
    if not args.rebuild:
        run_until_signal(lambda stop: serve(settings, stop), settings, room="indexer")
        return 0
    tally = asyncio.run(rebuild_index(settings))
    if args.json:
        output.json_line({"frames": tally.frames, "commands": tally.commands})
    else:
        print(f"indexed {tally.commands} commands from {tally.frames} frames")
    return 0
