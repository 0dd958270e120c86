"""`sealtape login`: a person's token from the identity provider, by the device flow."""

from __future__ import annotations

import argparse
import ssl
import sys
import time
from pathlib import Path

from sealtape.capture.identity.device import DeviceGrant, Provider, Tokens, ask, discover, poll
from sealtape.capture.identity.fetch import provider_context
from sealtape.indexer.cli import output
from sealtape.indexer.cli.options import read_settings
from sealtape.indexer.cli.saved import forget, save, saved_path
from sealtape.schemas.errors import ProviderError, UsageError
from sealtape.schemas.settings import LoginSettings, Settings

NAME = "login"
HELP = "get a token from the identity provider; `connect` uses it"
DESCRIPTION = """\
Asks the identity provider for a token by the device flow (RFC 8628): it shows an address and a
code, you open the address in any browser, sign in and confirm the code. The token is kept in a file
that only you can read, refreshed while the provider allows it, and used by `sealtape connect`:

  sealtape login
  sealtape connect shop -- psql

Needs `[identity.login]` in the settings. With --out the saved token is deleted.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("--out", action="store_true", help="log out: delete the saved token")


def run(args: argparse.Namespace) -> int:
    """Log in or out."""
    settings = read_settings(args)
    identity = settings.identity
    if identity is None or identity.login is None:
        msg = "This deployment has no [identity.login]."
        hint = "Add it with the id of a public client, or put a token into SEALTAPE_TOKEN."
        raise UsageError(msg, hint=hint)
    path = saved_path(identity, identity.login.client)
    if args.out:
        existed = forget(path)
        _say(args, "logged out" if existed else "there was no saved token", logged_in=False)
        return 0
    tokens = _device_flow(args, settings, identity.login)
    save(path, identity.login, tokens)
    _say(args, f"logged in; the token is good for {tokens.expires_in_s:.0f} s", logged_in=True)
    return 0


def _say(args: argparse.Namespace, words: str, *, logged_in: bool) -> None:
    if args.json:
        output.json_line({"logged_in": logged_in})
    else:
        print(words)


def _device_flow(args: argparse.Namespace, settings: Settings, login: LoginSettings) -> Tokens:
    assert settings.identity is not None
    context = provider_context(settings.identity.ca, Path(settings.base))
    provider = discover(settings.identity.issuer, context)
    grant = ask(provider, client=login.client, scope=login.scope, context=context)
    if args.json:
        shown = {"verification_uri": grant.verification_uri, "user_code": grant.user_code}
        output.json_line({**shown, "verification_uri_complete": grant.complete_uri})
    else:
        print(f"Open  {output.printable(grant.complete_uri or grant.verification_uri)}")
        print(f"code  {output.printable(grant.user_code)}")
        sys.stdout.flush()
    return _wait(provider, grant, login, context)


def _wait(
    provider: Provider, grant: DeviceGrant, login: LoginSettings, context: ssl.SSLContext | None
) -> Tokens:
    pause_s = grant.interval_s
    end_s = time.monotonic() + grant.expires_in_s
    nobody = ProviderError("Nobody confirmed the code in time.", hint="Run `sealtape login` again.")
    failure = nobody
    progress = output.Progress("waiting for you to confirm")
    try:
        while time.monotonic() < end_s:
            time.sleep(pause_s)
            try:
                answer = poll(provider, grant, client=login.client, context=context)
                failure = nobody
            except ProviderError as exc:
                if not exc.context.get("away"):
                    raise
                failure, answer = exc, pause_s  # RFC 8628, 3.5: ask less often
            if isinstance(answer, Tokens):
                return answer
            pause_s += answer
            progress.at(int(end_s - time.monotonic()), "s left")
    finally:
        progress.done()
    raise failure
