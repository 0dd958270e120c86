"""`python -m sealtape.indexer`: the indexer as a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from sealtape.indexer.node import serve
from sealtape.schemas.errors import SealtapeError, SettingsError
from sealtape.schemas.settings import Settings, load_settings

__all__ = ["build_parser", "main"]

DESCRIPTION = """\
Makes recordings searchable. Reads the bus for sessions that run and the ledger for what is sealed,
and writes session and command documents into the index. It holds the indexers' private key, which
opens who a session was and what its statements did, never what they returned.

It may be killed at any moment and goes on where it stopped. Run one per deployment.
"""
EPILOG = """\
settings it reads: [stores], [keys] indexer_private, [indexer]
exit codes: 0 stopped, 64 settings, 65 a key file that is none, 74 a store failed, 77 no key file
"""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m sealtape.indexer",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        default=os.environ.get("SEALTAPE_CONFIG", "sealtape.toml"),
        help="the deployment's settings (default: $SEALTAPE_CONFIG or ./sealtape.toml)",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until a signal; returns the exit code."""
    given = build_parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        asyncio.run(_until_signal(_settings(Path(given.config))))
    except SealtapeError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


def _settings(path: Path) -> Settings:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{path} cannot be read.", hint="Name the settings with -c FILE.", path=str(path)
        ) from error
    return load_settings(text, base=str(path.resolve().parent))


async def _until_signal(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await serve(settings, stop)


if __name__ == "__main__":
    sys.exit(main())
