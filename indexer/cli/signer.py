"""`sealtape signer`: the log's keys in a process of their own."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from sealtape.indexer.cli.options import config_path, settings_at
from sealtape.indexer.cli.running import run_until_signal
from sealtape.ingest.tlog.signer_file import FileSigner
from sealtape.ingest.tlog.signer_socket import SignerServer
from sealtape.schemas.errors import UsageError

NAME = "signer"
HELP = "hold the log's keys and sign its checkpoints, apart from ingest"
DESCRIPTION = """\
Signs the log's checkpoints for ingest, which then needs no key: name the socket in its settings as
log.signer = "unix:SOCKET". It signs only what goes on from what it signed before, and keeps that
beside the key. The socket is open to its owner alone (mode 0600): run both as one user, or share
the socket's folder with a group and `chmod` the socket after the start.

  sealtape signer --key keys/log.key --socket run/signer.sock
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("--key", metavar="FILE", required=True, help="the key of shard 1")
    parser.add_argument("--socket", metavar="PATH", required=True, help="where to listen")
    parser.add_argument(
        "--state", metavar="FILE", help="what was signed last (else beside the key, as log.signed)"
    )


def run(args: argparse.Namespace) -> int:
    """Run until a signal."""
    settings = settings_at(config_path(args.config))
    key, path = Path(args.key), Path(args.socket)
    if not path.parent.is_dir():
        msg = f"There is no folder {path.parent} for the socket."
        raise UsageError(msg, hint="Make it, readable to whoever may ask.")
    state = Path(args.state) if args.state else None
    run_until_signal(lambda stop: _serve(key, state, path, stop), settings, room="signer")
    return 0


async def _serve(key: Path, state: Path | None, path: Path, stop: asyncio.Event) -> None:
    server = SignerServer(await FileSigner.open(key, state), path)
    await server.start()
    try:
        await stop.wait()
    finally:
        await server.stop()
