"""`sealtape capture`: a capture node as a process of its own."""

from __future__ import annotations

import argparse

from sealtape.capture.__main__ import main
from sealtape.indexer.cli.options import config_path

NAME = "capture"
HELP = "run a capture node: clients connect to it with a token"
DESCRIPTION = """\
A capture node: clients connect to it with a token, it connects them to targets, and everything
that passes is recorded before it is passed on. Interrupt or SIGTERM drains. What a node that died
had spooled is adopted and shipped at the next start. `sealtape-capture` is the same, and needs only
the capture extra to be installed.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments: there are none."""


def run(args: argparse.Namespace) -> int:
    """Run until a signal."""
    words = ["-c", str(config_path(args.config))]
    return main([*words, "--json"] if args.json else words)
