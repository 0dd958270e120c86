"""Options that many commands share, and the way from them to settings and stores."""

from __future__ import annotations

import argparse
import getpass
from pathlib import Path

from sealtape.capture.__main__ import CONFIG_NAME, config_path, settings_at
from sealtape.schemas.errors import UsageError
from sealtape.schemas.settings import Settings

_MOST = 2**31 - 1

__all__ = [
    "CONFIG_NAME",
    "add_common",
    "add_verify",
    "config_path",
    "inside",
    "login_name",
    "positive",
    "read_settings",
    "settings_at",
]


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add the options that every command takes."""
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        help=f"the deployment's {CONFIG_NAME} (else $SEALTAPE_CONFIG, else ./{CONFIG_NAME})",
    )
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def add_verify(parser: argparse.ArgumentParser) -> None:
    """Add the options of commands that compare the index with the record."""
    parser.add_argument(
        "--verify",
        action="store_true",
        help="compare with the sealed record; the exit code is 1 when the index differs from it",
    )
    parser.add_argument(
        "--key",
        metavar="PLACE",
        help="for --verify: a private key that opens facts (else the deployment's)",
    )
    parser.add_argument(
        "--trust", metavar="FILE", help="for --verify: your own trust file (else the deployment's)"
    )


def read_settings(args: argparse.Namespace) -> Settings:
    """Return the deployment's settings and print their warnings to standard error."""
    return settings_at(config_path(args.config))


def inside(settings: Settings, path: str) -> Path:
    """Return a path of the settings, relative ones starting at the settings file's folder."""
    return Path(settings.base, path)


def positive(text: str) -> int:
    """Return a whole number above 0, and not above what stores take, for argparse."""
    value = int(text)
    if not 1 <= value <= _MOST:
        msg = f"must be at least 1, and at most {_MOST}"
        raise argparse.ArgumentTypeError(msg)
    return value


def login_name(option: str) -> str:
    """Return the name of whoever runs this; `option` says it where the system does not know one.

    Raises:
        UsageError: it knows none, as in a container that runs under a number.
    """
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError) as exc:  # KeyError before Python 3.13
        msg = "This system has no name for who runs this."
        raise UsageError(msg, hint=f"Say it with {option}.") from exc
