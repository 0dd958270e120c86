"""Options that many commands share, and the way from them to settings and stores."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from sealtape.schemas.errors import SettingsError
from sealtape.schemas.settings import Settings, load_settings

CONFIG_NAME = "sealtape.toml"


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add the options that every command takes."""
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        help=f"the deployment's {CONFIG_NAME} (else $SEALTAPE_CONFIG, else ./{CONFIG_NAME})",
    )
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def config_path(given: str | None) -> Path:
    """Return the settings file: the option, the variable, or the one in the working folder.

    Raises:
        SettingsError: there is none.
    """
    chosen = given or os.environ.get("SEALTAPE_CONFIG") or CONFIG_NAME
    path = Path(chosen)
    if path.is_dir():
        path = path / CONFIG_NAME
    if not path.is_file():
        msg = f"There is no settings file at {path}."
        raise SettingsError(
            msg, hint="Name it with -c, set SEALTAPE_CONFIG, or make one with `sealtape init DIR`."
        )
    return path.absolute()


def read_settings(args: argparse.Namespace) -> Settings:
    """Return the deployment's settings and print their warnings to standard error."""
    return settings_at(config_path(args.config))


def settings_at(path: Path) -> Settings:
    """Return the settings of one file.

    Raises:
        SettingsError: it cannot be read, or something in it is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        msg = f"The settings file {path} cannot be read: {exc}."
        raise SettingsError(msg, hint="It must be a readable UTF-8 file.") from exc
    settings = load_settings(text, base=str(path.parent))
    for warning in settings.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return settings


def inside(settings: Settings, path: str) -> Path:
    """Return a path of the settings, relative ones starting at the settings file's folder."""
    return Path(settings.base, path)


def positive(text: str) -> int:
    """Return a whole number above 0, for argparse."""
    value = int(text)
    if value < 1:
        msg = "must be at least 1"
        raise argparse.ArgumentTypeError(msg)
    return value
