"""`sealtape token`: a token of the development issuer."""

from __future__ import annotations

import argparse
import time

from sealtape.capture.identity.issuer import DevelopmentIssuer
from sealtape.indexer.cli import output
from sealtape.indexer.cli.options import inside, read_settings
from sealtape.schemas.errors import KeyUnavailable, UsageError
from sealtape.schemas.settings import Settings, parse_duration

NAME = "token"
HELP = "mint a token of the development issuer"
DESCRIPTION = """\
Prints a token signed by the development issuer, and nothing else, so that a shell can take it:

  PGPASSWORD=$(sealtape token --user ada --group dba) psql ...

Only in a `dev` deployment; in production the tokens come from your identity provider.
With --agent the token says that an AI agent acts, for whom, and in which run.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("--user", required=True, metavar="U", help="the identity (`sub`)")
    parser.add_argument(
        "--group", action="append", default=[], metavar="G", help="a group; may be repeated"
    )
    parser.add_argument("--agent", metavar="A", help="the agent that acts (`act`)")
    parser.add_argument("--on-behalf-of", metavar="U", help="whom the agent acts for")
    parser.add_argument("--run", dest="run_id", metavar="R", help="the agent's run id")
    parser.add_argument(
        "--ttl", default="1h", metavar="T", help="how long the token is good (default 1h)"
    )


def run(args: argparse.Namespace) -> int:
    """Print one token."""
    try:
        ttl_s = parse_duration(args.ttl)
    except ValueError as exc:
        msg = f"--ttl must be {exc}."
        raise UsageError(msg) from exc
    minted = mint(
        read_settings(args),
        user=args.user,
        groups=args.group,
        agent=args.agent,
        on_behalf_of=args.on_behalf_of,
        run_id=args.run_id,
        ttl_s=ttl_s,
    )
    if args.json:
        output.json_line({"token": minted})
    else:
        print(minted)
    return 0


def mint(
    settings: Settings,
    *,
    user: str,
    groups: list[str],
    agent: str | None = None,
    on_behalf_of: str | None = None,
    run_id: str | None = None,
    ttl_s: float = 3600.0,
) -> str:
    """Return a token of the deployment's development issuer.

    Raises:
        UsageError: the deployment has none.
        KeyUnavailable: its key cannot be read.
    """
    identity = settings.identity
    if identity is None or identity.development is None:
        msg = "This deployment has no development issuer."
        raise UsageError(
            msg,
            hint="Take one from your identity provider, or make a lab: `sealtape init --dev`.",
        )
    path = inside(settings, identity.development.key)
    try:
        pem = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as exc:
        msg = f"The development issuer's key {path} cannot be read: {exc}."
        raise KeyUnavailable(msg, hint="It is made by `sealtape init --dev`.") from exc
    return DevelopmentIssuer.from_pem(pem).mint(
        issuer=identity.issuer,
        audience=identity.audience,
        user=user,
        groups=groups,
        agent=agent,
        on_behalf_of=on_behalf_of,
        run=run_id,
        ttl_s=ttl_s,
        now_s=time.time(),
    )
