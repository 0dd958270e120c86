"""`sealtape index`: the indexer as a process of its own, or the index made anew."""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import replace

from sealtape.indexer.cli import index_setup, output
from sealtape.indexer.cli.options import read_settings
from sealtape.indexer.cli.running import add_worker, run_until_signal, worker_name
from sealtape.indexer.node import rebuild_index, serve
from sealtape.indexer.snapshot import Tally
from sealtape.schemas.errors import FormatError, Missing

NAME = "index"
HELP = "run the indexer, or make the index anew"
DESCRIPTION = """\
Makes sessions searchable: from the bus while they run, from the ledger once they are sealed. The
indexer holds the key of the facts alone and cannot read what a query returned.

Any number of processes may run, on any number of hosts, each under its own name: they share the
bus's partitions. When one comes or goes, the others take over within seconds; when one dies, after
indexer.lease_s.

`sealtape index rebuild` empties the index and makes it again from the ledger, the vault and the
bus. It is refused while an indexer is at work, and none starts to work before it has ended. What
can be read is indexed; segments that are gone or damaged are named, and the exit code is 74 or 65.

`sealtape index setup` loads into an OpenSearch cluster what an index needs there: templates; roles,
if it has users; policies that delete whole indices long after `delete_after`, if it has Index
State Management; and with --dashboards, boards for OpenSearch Dashboards. It says what it could
not load. The user in `stores.index` must be permitted to do this; the indexer's own need not be.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    add_worker(parser)
    parser.add_argument(
        "action",
        nargs="?",
        choices=("setup", "rebuild"),
        help="prepare the index, or make it anew, then end",
    )
    parser.add_argument(
        "--dashboards", metavar="URL", default="", help="setup: load boards into this Dashboards"
    )


def run(args: argparse.Namespace) -> int:
    """Run until a signal, prepare, or rebuild."""
    settings = read_settings(args)
    if args.action == "setup":
        return index_setup.run(settings, dashboards=args.dashboards, as_json=args.json)
    if args.action != "rebuild":
        room = settings.indexer
        worker = worker_name(args.worker, room.worker, settings.deployment.node)
        settings = replace(settings, indexer=replace(room, worker=worker))
        run_until_signal(
            lambda stop: serve(settings, stop), settings, room="indexer", worker=worker
        )
        return 0
    progress = output.Progress("indexed frames", quiet=args.json)
    try:
        tally = asyncio.run(rebuild_index(settings, progress.at))
    finally:
        progress.done()
    _tell(tally, as_json=args.json)
    _check(tally)
    return 0


def _tell(tally: Tally, *, as_json: bool) -> None:
    if as_json:
        failed = [
            {"segment": segment, "code": error.code, "message": error.message}
            for segment, error in sorted(tally.failed.items())
        ]
        output.json_line({"frames": tally.frames, "commands": tally.commands, "failed": failed})
        return
    print(f"indexed {tally.commands} commands from {tally.frames} frames")
    for segment, error in sorted(tally.failed.items()):
        print(output.line(f"not indexed: {segment}: {error.message}"))


def _check(tally: Tally) -> None:
    """Raise when not all that is sealed could be indexed: damage before what is gone."""
    failed = sorted(tally.failed.items(), key=lambda each: isinstance(each[1], Missing))
    if not failed:
        return
    (segment, error), count = failed[0], len(failed)
    name = segment if count == 1 else f"{segment} and others"
    raise (Missing if isinstance(error, Missing) else FormatError)(
        f"{count} segment{'s' if count > 1 else ''} could not be indexed: {name}.",
        hint="The rest is indexed. Say `sealtape verify --all`, bring back what it names from a"
        " copy of the vault, and rebuild again.",
    )
