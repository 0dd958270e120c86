"""`sealtape ingest`: the sealing room as a process of its own."""

from __future__ import annotations

import argparse
from dataclasses import replace

from sealtape.indexer.cli.options import read_settings
from sealtape.indexer.cli.running import add_worker, run_until_signal, worker_name
from sealtape.ingest.node import serve

NAME = "ingest"
HELP = "run the ingest room: verify frames, seal segments, publish them"
DESCRIPTION = """\
Seals recordings: reads the bus, verifies every frame, keeps wrapped keys in the keyring, writes
segments into the vault and publishes each in one transaction of the ledger. It may be killed at
any moment: what was not published is read again. Interrupt or SIGTERM seals what is signed, then
ends.

Any number of processes may run, on any number of hosts, each under its own name: they share the
bus's partitions. When one comes or goes, the others take over within seconds; when one dies, after
ingest.lease_s.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    add_worker(parser)


def run(args: argparse.Namespace) -> int:
    """Run until a signal."""
    settings = read_settings(args)
    room = settings.ingest
    worker = worker_name(args.worker, room.worker, settings.deployment.node)
    settings = replace(settings, ingest=replace(room, worker=worker))
    run_until_signal(lambda stop: serve(settings, stop), settings, room="ingest", worker=worker)
    return 0
