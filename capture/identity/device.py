"""How a person gets a token: the device flow (RFC 8628), and refreshing (RFC 6749 section 6).

The endpoints come from the issuer's discovery document (OpenID Connect Discovery 1.0). Functions
block; no text that is raised holds a token or a code.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from sealtape.capture.identity.fetch import fetch
from sealtape.schemas.errors import ProviderError

__all__ = ["DeviceGrant", "Provider", "Tokens", "ask", "discover", "poll", "refresh"]

_GRANT = "urn:ietf:params:oauth:grant-type:device_code"


@dataclass(frozen=True, slots=True)
class Provider:
    """An issuer's endpoints."""

    issuer: str
    token_endpoint: str
    device_endpoint: str


@dataclass(frozen=True, slots=True)
class DeviceGrant:
    """What the person is shown, and what is asked with meanwhile; times in seconds."""

    user_code: str
    verification_uri: str
    complete_uri: str
    device_code: str
    interval_s: float
    expires_in_s: float

    def __repr__(self) -> str:
        """Never print the device code."""
        return f"DeviceGrant({self.user_code}, {self.verification_uri})"


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of one answer; empty what it did not hold."""

    access_token: str
    id_token: str
    refresh_token: str
    expires_in_s: float

    def __repr__(self) -> str:
        """Never print a token."""
        return "Tokens(…)"


def discover(issuer: str, context: ssl.SSLContext | None) -> Provider:
    """Return the endpoints of an issuer. Raises `ProviderError`."""
    document = _ask(f"{issuer.rstrip('/')}/.well-known/openid-configuration", context, None)
    if document.get("issuer") != issuer:
        raise ProviderError(
            f"The discovery document of {issuer} is of another issuer.",
            hint="identity.issuer must be exactly what the provider calls itself.",
        )
    if not isinstance(document.get("device_authorization_endpoint"), str):
        raise ProviderError(
            f"{issuer} does not offer the device flow.",
            hint="Enable it for the client, or put a token into SEALTAPE_TOKEN.",
        )
    return Provider(
        issuer, str(document.get("token_endpoint")), document["device_authorization_endpoint"]
    )


def ask(
    provider: Provider, *, client: str, scope: str, context: ssl.SSLContext | None
) -> DeviceGrant:
    """Begin a device flow. Raises `ProviderError`."""
    form = {"client_id": client, "scope": scope}
    answer = _ask(provider.device_endpoint, context, form)
    try:
        return DeviceGrant(
            user_code=str(answer["user_code"]),
            verification_uri=str(answer["verification_uri"]),
            complete_uri=str(answer.get("verification_uri_complete", "")),
            device_code=str(answer["device_code"]),
            interval_s=float(answer.get("interval", 5)),
            expires_in_s=float(answer["expires_in"]),
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise _refused(provider.issuer, answer) from exc


def poll(
    provider: Provider, grant: DeviceGrant, *, client: str, context: ssl.SSLContext | None
) -> Tokens | float:
    """Return the tokens, or the seconds to wait longer than before between two questions.

    0.0 means: not yet, ask again at the same pace. Raises `ProviderError` when it was denied, has
    run out, or the provider fails; `away` in its context says that this may pass.
    """
    form = {"client_id": client, "grant_type": _GRANT, "device_code": grant.device_code}
    answer = _ask(provider.token_endpoint, context, form)
    if answer.get("error") == "authorization_pending":
        return 0.0
    if answer.get("error") == "slow_down":
        return 5.0  # RFC 8628, 3.5
    return _tokens(provider, answer)


def refresh(
    provider: Provider, token: str, *, client: str, context: ssl.SSLContext | None
) -> Tokens:
    """Return new tokens for a refresh token. Raises `ProviderError`.

    A provider that gives no new refresh token means the old one to be used again.
    """
    form = {"client_id": client, "grant_type": "refresh_token", "refresh_token": token}
    tokens = _tokens(provider, _ask(provider.token_endpoint, context, form))
    return tokens if tokens.refresh_token else replace(tokens, refresh_token=token)


def _tokens(provider: Provider, answer: Mapping[str, Any]) -> Tokens:
    try:
        return Tokens(
            access_token=str(answer["access_token"]),
            id_token=str(answer.get("id_token", "")),
            refresh_token=str(answer.get("refresh_token", "")),
            expires_in_s=float(answer.get("expires_in", 0)),
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise _refused(provider.issuer, answer) from exc


def _ask(
    url: str, context: ssl.SSLContext | None, form: Mapping[str, str] | None
) -> Mapping[str, Any]:
    try:
        status, body = fetch(url, context, form)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            msg = f"The identity provider at {url} fails (status {status})."
            raise ProviderError(msg, hint="Its own log says why; try again.", away=True)
        answer = json.loads(body)
    except OSError as exc:
        msg = f"The identity provider at {url} cannot be reached: {exc}."
        hint = "Check the address, the network and identity.ca."
        raise ProviderError(msg, hint=hint, away=True) from exc
    except (ValueError, RecursionError) as exc:
        raise ProviderError(
            f"The identity provider's answer at {url} cannot be read.",
            hint="identity.issuer must be the issuer's own address.",
        ) from exc
    if not isinstance(answer, Mapping) or (status >= 400 and "error" not in answer):
        raise ProviderError(
            f"The identity provider's answer at {url} (status {status}) makes no sense.",
            hint="identity.issuer must be the issuer's own address.",
        )
    return answer


def _refused(issuer: str, answer: Mapping[str, Any]) -> ProviderError:
    """The provider's own error code: a word of a fixed list, never a secret."""
    code = str(answer.get("error", "an incomplete answer"))[:64]
    return ProviderError(
        f"{issuer} gave no token: {code}.", hint="Run `sealtape login` again.", error=code
    )
