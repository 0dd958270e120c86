"""`sealtape`: parse the command line, run one command, turn its outcome into an exit code."""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import NoReturn

from sealtape import __version__
from sealtape.capture.logs import without_secrets
from sealtape.indexer.cli import output
from sealtape.indexer.cli.options import add_common
from sealtape.schemas.errors import SealtapeError, StoreError, UsageError

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


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are ours: 2, with which its own ends, is a verdict here."""

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the command line."""
        raise UsageError(f"{message}.", hint=f"`{self.prog} --help` shows what there is.")


def command_module(name: str) -> ModuleType:
    """The module of a command: its NAME, HELP, DESCRIPTION, `add_arguments` and `run`."""
    return import_module(f"sealtape.indexer.cli.{name}")


def build_parser(names: Sequence[str] = COMMANDS) -> argparse.ArgumentParser:
    """Return the parser of these commands, of all without; the documentation's test walks it."""
    parser = Parser(
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
    at = _command_at(words)
    connects = words[at : at + 1] == ["connect"]
    return words.index("--", at) if connects and "--" in words[at:] else len(words)


def _command_at(words: Sequence[str]) -> int:
    """Where the command stands: behind options, of which -c has a name that may be a command's."""
    at = 0
    while at < len(words) and words[at].startswith("-"):
        apart = words[at] == "-c" or (len(words[at]) > 2 and "--config".startswith(words[at]))
        at += 2 if apart else 1
    return at


def _commands_of(words: Sequence[str]) -> Sequence[str]:
    """The one command that these words start with, or all where argparse has to tell them apart.

    The rooms of all commands together take a second to import; `search` needs few of them.
    """
    at = _command_at(words)
    named = words[at : at + 1]
    # Before it -c alone may stand: whoever asks for anything else is to see all commands.
    alone = all(word in ("-c", "--config") for word in words[:at:2])
    return named if named and named[0] in COMMANDS and alone else COMMANDS


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in words  # unless the command line can be read, which knows better
    output.prepare()
    try:
        args = _parsed(words)
        as_json = args is not None and args.json
        code = 0 if args is None else int(args.run(args))
        output.flush()
    except SealtapeError as exc:
        _report(exc, as_json=as_json)
        return exc.exit_code
    except BrokenPipeError:  # `sealtape sessions | head`
        output.discard()
        return 0
    except OSError as exc:  # a full disk behind `> FILE`
        output.discard()
        error = StoreError(f"What was asked for cannot be read or written: {exc}.")
        _report(error, as_json=as_json)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception as exc:  # noqa: BLE001 - Python would end with 1, which is a verdict
        return _unforeseen(exc, as_json=as_json)
    return code


def _parsed(words: Sequence[str]) -> argparse.Namespace | None:
    """The command line; None where only help was asked for. Raises `UsageError`."""
    cut = _client_at(words)
    try:
        args = build_parser(_commands_of(words)).parse_args(words[:cut])
    except SystemExit:  # --help, --version; `Parser` ends with nothing else
        return None
    args.config = args.config or args.early_config
    if hasattr(args, "client"):
        args.client = words[cut + 1 :]
    return args


def _report(error: SealtapeError, *, as_json: bool) -> None:
    if as_json:
        body = {"error": {"code": error.code, "message": str(error), "exit_code": error.exit_code}}
        print(json.dumps(body), file=sys.stderr)
    else:
        print(f"sealtape: {error}", file=sys.stderr)


def _unforeseen(exc: Exception, *, as_json: bool) -> int:
    """Say what nobody foresaw, with its stack."""
    said = without_secrets(f"{type(exc).__name__}: {exc}")
    error = SealtapeError(f"Something went wrong inside: {said}.", hint="Please report it.")
    if not as_json:
        print(without_secrets("".join(traceback.format_exception(exc))), file=sys.stderr)
    _report(error, as_json=as_json)
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
