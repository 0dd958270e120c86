"""`sealtape keys`: where the private keys of readers are kept."""

from __future__ import annotations

import argparse
from pathlib import Path

from sealtape.capture.kms import open_kms
from sealtape.indexer.cli import output
from sealtape.indexer.cli.options import read_settings
from sealtape.schemas.errors import KeyUnavailable

NAME = "keys"
HELP = "seal a private key with a key management service"
DESCRIPTION = """\
Copies a reader's private key from one place to another, where there must be none yet. A place is
written as in the settings `keys.auditor_private` and `keys.indexer_private`: a file, or
transit:https://HOST:PORT/MOUNT/keys/NAME?file=FILE for a key that OpenBao's transit engine seals.
The copy is read back and compared. Nothing is removed.

examples
  sealtape keys seal keys/auditor.key \\
    'transit:https://bao.example:8200/transit/keys/auditor?file=keys/auditor.sealed&ca=bao.pem'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("action", choices=("seal",), help="what to do")
    parser.add_argument("source", metavar="FROM", help="where the private key is now")
    parser.add_argument("target", metavar="TO", help="where it shall be sealed")


def run(args: argparse.Namespace) -> int:
    """Copy, compare, and say what is left to do."""
    base = Path(read_settings(args).base)
    target = open_kms(args.target, base)
    private = open_kms(args.source, base).read()
    target.keep(private)
    if target.read() != private:
        msg = f"{args.target} does not hold what was put there."
        raise KeyUnavailable(msg, hint="Keep the key where it was.")
    if args.json:
        output.json_line({"id": private.id, "place": args.target})
        return 0
    print(f"sealed {private.id}; put this into the settings of whoever reads with it:")
    setting = "auditor_private" if private.id.startswith("auditor-") else "indexer_private"
    print(f'  [keys]\n  {setting} = "{args.target}"')
    print(f"Then keep {args.source} where no service is, or destroy it: it opens the same.")
    return 0
