"""`sealtape ingest`: the sealing room as a process of its own."""

from __future__ import annotations

import argparse

from sealtape.indexer.cli.options import read_settings
from sealtape.indexer.cli.running import run_until_signal
from sealtape.ingest.node import serve

NAME = "ingest"
HELP = "run the ingest room: verify frames, seal segments, publish them"
DESCRIPTION = """\
Seals recordings: reads the bus, verifies every frame, keeps wrapped keys in the keyring, writes
segments into the vault and publishes each in one transaction of the ledger. It may be killed at
any moment: what was not published is read again. Interrupt or SIGTERM seals what is signed, then
ends. Several processes may serve one deployment, each with its own deployment.node.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments: there are none."""


def run(args: argparse.Namespace) -> int:
    """Run until a signal."""
    settings = read_settings(args)
    run_until_signal(lambda stop: serve(settings, stop), settings, room="ingest")
    return 0
