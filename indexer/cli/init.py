"""`sealtape init`: make a deployment folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from sealtape.indexer.cli import output
from sealtape.indexer.cli.deployment import create
from sealtape.indexer.cli.options import CONFIG_NAME
from sealtape.schemas.errors import FormatError, UsageError
from sealtape.schemas.notes import check_key_name

NAME = "init"
HELP = "make a deployment folder: settings, keys, embedded stores"
DESCRIPTION = """\
Makes a deployment folder: sealtape.toml, the node's signing key and the trust file that names it,
the spool's key, the auditors' and the indexer's key pairs, the log's keys, an administrator's and
the policies over the log, and a self-signed TLS certificate for localhost. Refuses to overwrite
anything. The log's name stands in its keys and checkpoints: say it with --log, it stays.

Without --dev the settings are for production: name your stores, identity provider and targets in
them, and move keys/auditor.key to where the auditors are; capture and ingest never need it. Then
`sealtape setup` makes what the stores lack, and `sealtape doctor` says whether all is well.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("dir", metavar="DIR", help="folder to make the deployment in")
    parser.add_argument(
        "--dev", action="store_true", help="with a development issuer and plaintext on loopback"
    )
    parser.add_argument(
        "--log", default="", metavar="NAME", help="name of the log, which cannot be changed later"
    )


def run(args: argparse.Namespace) -> int:
    """Make the folder and say what to do next."""
    folder = Path(args.dir)
    try:
        if args.log:
            check_key_name(f"{args.log}/1")
        if not args.log.isascii():
            raise FormatError("the name of a log is of ASCII")
    except FormatError as error:
        raise UsageError(
            f"--log: {error.message}.", hint="Write it like example.com/log."
        ) from error
    create(folder, development=args.dev, log=args.log)
    config = folder / CONFIG_NAME
    if args.json:
        output.json_line({"config": str(config.absolute())})
        return 0
    print(f"made {config}, keys in {folder / 'keys'}")
    if args.dev:
        print(
            f"next: sealtape dev {folder} --target shop=postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
        )
    else:
        print(
            "next: set [stores], [identity] and [targets.NAME] in it; sealtape setup makes what is"
        )
        print("missing in the stores, sealtape doctor looks; then start ingest, index, capture")
    return 0
