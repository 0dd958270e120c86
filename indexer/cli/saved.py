"""What `sealtape login` keeps for a person: a file an issuer, readable by them alone."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from sealtape.capture.files import locked, mapped, write_atomic
from sealtape.capture.identity.device import Tokens, discover, refresh
from sealtape.capture.identity.fetch import provider_context
from sealtape.schemas.errors import ProviderError, UsageError
from sealtape.schemas.settings import IdentitySettings, LoginSettings, Settings

__all__ = ["current_token", "forget", "save", "saved_path"]

FRESH_S = 30.0
"""A token with less time left than this is refreshed before it is used."""


def saved_path(identity: IdentitySettings, client: str) -> Path:
    """Return where the tokens of one issuer and client are kept (XDG base directories).

    Raises `UsageError` where the system knows no home of whoever runs this.
    """
    try:
        home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    except RuntimeError as exc:
        msg = "This system knows no home folder, where a token would be kept."
        raise UsageError(msg, hint="Set HOME or XDG_STATE_HOME.") from exc
    name = hashlib.sha256(f"{identity.issuer}\n{client}".encode()).hexdigest()[:24]
    return Path(home, "sealtape", "tokens", f"{name}.json")


def save(path: Path, login: LoginSettings, tokens: Tokens) -> str:
    """Keep tokens; return the one that is shown to the gateway.

    Raises `ProviderError` without one, and `StoreError` where it cannot be written.
    """
    token = tokens.id_token if login.token == "id_token" else tokens.access_token
    if not token:
        msg = f"The provider's answer holds no {login.token}."
        raise ProviderError(msg, hint="See identity.login.scope and identity.login.token.")
    _make_folder(path)
    kept = {
        "token": token,
        "refresh_token": tokens.refresh_token,
        "expires_at_s": time.time() + tokens.expires_in_s,
    }
    write_atomic(path, json.dumps(kept).encode())
    return token


def forget(path: Path) -> bool:
    """Delete the saved tokens; whether there were any."""
    with mapped("delete", path):
        existed = path.exists()
        path.unlink(missing_ok=True)
    return existed


def current_token(settings: Settings) -> str | None:
    """Return the token of the last login, refreshed when it is about to expire; None without one.

    Raises:
        ProviderError: it has expired, and the provider gave no new one.
    """
    identity = settings.identity
    if identity is None or identity.login is None:
        return None
    login = identity.login
    path = saved_path(identity, login.client)
    kept = _read(path)
    if kept is None or _fresh(kept):
        return None if kept is None else str(kept["token"])
    # Many a provider takes a refresh token only once: one process refreshes, the others wait.
    with locked(path.with_suffix(".lock")):
        kept = _read(path)
        if kept is None or _fresh(kept):  # another process was first
            return None if kept is None else str(kept["token"])
        if not kept["refresh_token"]:
            msg = f"The token of {identity.issuer} has expired."
            raise ProviderError(msg, hint="Run `sealtape login`.")
        context = provider_context(identity.ca, Path(settings.base))
        provider = discover(identity.issuer, context)
        tokens = refresh(provider, kept["refresh_token"], client=login.client, context=context)
        return save(path, login, tokens)


def _fresh(kept: dict[str, Any]) -> bool:
    return bool(kept["expires_at_s"] - time.time() > FRESH_S)


def _make_folder(path: Path) -> None:
    with mapped("make the folder of", path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        kept = json.loads(path.read_text("utf-8"))
        expires_at_s = float(kept["expires_at_s"])
        return {
            "token": str(kept["token"]),
            "refresh_token": str(kept["refresh_token"]),
            "expires_at_s": expires_at_s,
        }
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as exc:
        msg = f"The saved token {path} cannot be read."
        raise ProviderError(msg, hint="Run `sealtape login` again.") from exc
