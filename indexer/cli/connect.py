"""`sealtape connect`: how to reach a target through the gateway, or a client run with it set."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

from sealtape.indexer.cli import output
from sealtape.indexer.cli.deployment import read_runtime
from sealtape.indexer.cli.options import login_name, read_settings
from sealtape.indexer.cli.saved import current_token
from sealtape.indexer.cli.token import mint
from sealtape.schemas.errors import NotFound, TargetError, UsageError
from sealtape.schemas.settings import Settings
from sealtape.schemas.settings.values import split_address

NAME = "connect"
HELP = "print how to connect to a target, or run a client connected to it"
DESCRIPTION = """\
Prints the DSN of a target behind the gateway. The password is your OIDC token, in PGPASSWORD.
With `--` it runs a client with PGHOST, PGPORT, PGDATABASE, PGUSER, PGPASSWORD set:

  sealtape connect shop -- psql -c 'select 1'

The token is taken from SEALTAPE_TOKEN, else from `sealtape login`; in a `dev` deployment without
either, one is minted for --user (you) and --group (the target's groups).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("target", metavar="TARGET", help="name of the target, or TARGET/DATABASE")
    parser.add_argument("--user", metavar="U", help="user of the token minted in a dev deployment")
    parser.add_argument(
        "--group", action="append", metavar="G", help="group of that token; may be repeated"
    )
    parser.add_argument("client", nargs="*", metavar="-- CLIENT ARG", help="client to run")


def run(args: argparse.Namespace) -> int:
    """Print the DSN, or run the client and return its exit code."""
    settings = read_settings(args)
    name = args.target.partition("/")[0]
    if name not in settings.targets:
        known = ", ".join(sorted(settings.targets)) or "none yet"
        msg = f"There is no target `{name}`."
        raise NotFound(msg, hint=f"Known targets: {known}.")
    host, port = split_address(_listener(settings))
    user = args.user or login_name("--user")
    if args.client:
        _become_client(args, settings, host=host, port=port, user=user)
    shown = f"[{host}]" if ":" in host else host
    mode = "" if settings.deployment.mode == "dev" else "?sslmode=verify-full"
    dsn = f"postgresql://{user}@{shown}:{port}/{args.target.replace('/', '%2F')}{mode}"
    if args.json:
        output.json_line({"dsn": dsn, "password_env": "PGPASSWORD"})
    else:
        print(dsn)
        print("password: your token, in PGPASSWORD. For example:")
        print(f'  PGPASSWORD=$(sealtape token --user {user} --group GROUP) psql "{dsn}"')
    return 0


def _listener(settings: Settings) -> str:
    running = read_runtime(Path(settings.base)).get("postgres")
    configured = settings.capture.postgres.listen
    if running:
        return running
    if configured.endswith(":0"):
        msg = "The gateway is not running from this deployment, and its port is chosen at start."
        raise TargetError(
            msg,
            hint="Start `sealtape dev` or `sealtape capture`, or set capture.postgres.listen.",
        )
    return configured


def _become_client(
    args: argparse.Namespace, settings: Settings, *, host: str, port: int, user: str
) -> NoReturn:
    """Become the client: the terminal, signals and the exit code are its own."""
    token = os.environ.get("SEALTAPE_TOKEN") or current_token(settings)
    if not token:
        groups = args.group
        if groups is None:
            groups = [
                group
                for group in settings.targets[args.target.partition("/")[0]].groups
                if group != "*"
            ]
        token = mint(settings, user=user, groups=groups)
    environment = {
        **({} if settings.deployment.mode == "dev" else {"PGSSLMODE": "verify-full"}),
        **os.environ,
        "PGHOST": host,
        "PGPORT": str(port),
        "PGDATABASE": args.target,
        "PGUSER": user,
        "PGPASSWORD": token,
    }
    try:
        sys.stdout.flush()
        sys.stderr.flush()
        os.execvpe(args.client[0], args.client, environment)  # noqa: S606 (the client, as asked)
    except OSError as exc:
        msg = f"The client {args.client[0]} cannot be run: {exc.strerror or exc}."
        raise UsageError(msg, hint="Name a program on your PATH after `--`.") from exc
