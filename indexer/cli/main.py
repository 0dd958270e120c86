"""`sealtape`: parse the command line, run one command, turn its outcome into an exit code."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from sealtape import __version__
from sealtape.indexer.cli.options import add_common
from sealtape.schemas.errors import SealtapeError

# In the order of the help; each is the module of that name beside this one.
COMMANDS = (
    "init",
    "setup",
    "doctor",
    "dev",
    "capture",
    "ingest",
    "index",
    "signer",
    "token",
    "login",
    "connect",
    "sessions",
    "search",
    "show",
    "replay",
    "verify",
    "export",
    "events",
    "status",
    "ledger",
    "log",
    "statement",
    "keys",
    "witness",
    "monitor",
)

DESCRIPTION = """\
Records what people and AI agents do to databases, at the gateway they must pass, and seals the
recording so that nobody can change, drop, reorder or backdate it unnoticed.

first steps
  sealtape dev lab --target shop=postgresql://app:secret@127.0.0.1:5432/shop
  sealtape -c lab/sealtape.toml connect shop -- psql
  sealtape -c lab/sealtape.toml search 'effect:write since:1h'
  sealtape -c lab/sealtape.toml verify --all
"""

EPILOG = """\
exit codes
  0  done; for `verify`: complete and verified      64  usage, settings or query error
  1  `verify`: tampered; `doctor`: errors           66  no such session, target or object
  2  `verify`: incomplete                           74  a store failed
  3  `verify`: deleted by policy                    77  not permitted, or a key is missing
More in docs/cli.md and docs/errors.md.
"""


def command_module(name: str) -> ModuleType:
    """The module of a command: its NAME, HELP, DESCRIPTION, `add_arguments` and `run`."""
    return import_module(f"sealtape.indexer.cli.{name}")


def build_parser(names: Sequence[str] = COMMANDS) -> argparse.ArgumentParser:
    """Return the parser of these commands, of all without; the documentation's test walks it."""
    parser = argparse.ArgumentParser(
        prog="sealtape",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"sealtape {__version__}")
    parser.add_argument(
        "-c", "--config", dest="early_config", metavar="FILE", help="the deployment's sealtape.toml"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in map(command_module, names):
        sub = commands.add_parser(
            module.NAME,
            help=module.HELP,
            description=module.DESCRIPTION,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        add_common(sub)
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    return parser


def _client_at(words: Sequence[str]) -> int:
    """Where the words of `connect` end; argparse cannot tell a client's own options from ours.

    To the other commands `--` says that no option follows, which argparse knows.
    """
    command = next((word for word in words if word in COMMANDS), None)
    return words.index("--") if command == "connect" and "--" in words else len(words)


def _commands_of(words: Sequence[str]) -> Sequence[str]:
    """The one command that these words start with, or all where argparse has to tell them apart.

    The rooms of all commands together take a second to import; `search` needs few of them.
    """
    rest = list(words)
    while rest and rest[0] in ("-c", "--config"):
        rest = rest[2:]
    return rest[:1] if rest and rest[0] in COMMANDS else COMMANDS


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser(_commands_of(words))
    cut = _client_at(words)
    try:
        args = parser.parse_args(words[:cut])
    except SystemExit as exc:  # argparse exits 2 on a usage error; 2 is a verdict here
        return 64 if exc.code == 2 else int(exc.code or 0)
    args.config = args.config or args.early_config
    if hasattr(args, "client"):
        args.client = words[cut + 1 :]
    try:
        return int(args.run(args))
    except SealtapeError as exc:
        _report(exc, as_json=bool(getattr(args, "json", False)))
        return exc.exit_code
    except BrokenPipeError:  # `sealtape sessions | head`
        # What is left in the buffer goes nowhere, or Python would complain when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def _report(error: SealtapeError, *, as_json: bool) -> None:
    if as_json:
        body = {"error": {"code": error.code, "message": str(error), "exit_code": error.exit_code}}
        print(json.dumps(body), file=sys.stderr)
    else:
        print(f"sealtape: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
