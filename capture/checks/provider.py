"""The identity provider: its keys can be had, fit what is accepted, and our clocks agree."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final

from sealtape.capture.checkup import Check
from sealtape.capture.identity.fetch import Answer, ask, provider_context
from sealtape.capture.identity.jwks import Jwk, parse_key_set
from sealtape.capture.identity.token import ASYMMETRIC
from sealtape.schemas.errors import FormatError, SettingsError
from sealtape.schemas.settings import IdentitySettings, Settings

__all__ = ["check_provider"]

DISCOVERY: Final = "/.well-known/openid-configuration"
MOST_SKEW_S: Final = 30.0
KEYS: Final = "identity: keys"
_CURVES: Final = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}


async def check_provider(settings: Settings) -> list[Check]:
    """Fetch the provider's keys, and what it says of itself. Takes seconds when it is away."""
    identity = settings.identity
    if identity is None:
        message = "There is no [identity]: the gateway would not know whom to believe."
        return [Check(KEYS, "error", message, "Name your identity provider in it.")]
    found = _algorithms(identity)
    if identity.development is not None:
        found.append(Check("identity: issuer", "ok", "The development issuer (dev only)."))
    if identity.jwks.startswith("file:"):
        return [*found, *_from_file(identity, Path(settings.base))]
    return [*found, *await _from_provider(identity, Path(settings.base))]


def _algorithms(identity: IdentitySettings) -> list[Check]:
    weak = sorted(set(identity.algorithms) - ASYMMETRIC)
    if not weak and identity.algorithms:
        return []
    message = f"identity.algorithms must be public-key signature algorithms, not {weak}."
    return [Check("identity: algorithms", "error", message, f"Known: {sorted(ASYMMETRIC)}.")]


def _from_file(identity: IdentitySettings, base: Path) -> list[Check]:
    path = base / identity.jwks.removeprefix("file:")
    try:
        return [_keys(path.read_bytes(), identity, str(path))]
    except OSError as exc:
        message = f"{path} cannot be read: {exc.strerror or exc}."
        return [Check(KEYS, "error", message, "identity.jwks names it.")]


async def _from_provider(identity: IdentitySettings, base: Path) -> list[Check]:
    try:
        context = provider_context(identity.ca, base)
    except SettingsError as exc:
        return [Check(KEYS, "error", exc.message, exc.hint)]
    sources = [identity.jwks, identity.issuer.rstrip("/") + DISCOVERY]
    asked = [source for source in sources if source.startswith("https://")]
    answers = await asyncio.gather(
        *(asyncio.to_thread(ask, source, context) for source in asked), return_exceptions=True
    )
    keys = answers[0]
    if isinstance(keys, BaseException):
        return [_away(identity.jwks, keys)]
    if keys.status != 200:
        message = f"{identity.jwks} answers {keys.status}."
        return [Check(KEYS, "error", message, "identity.jwks must be the address of a JWKS.")]
    found = [_keys(keys.body, identity, identity.jwks), _clock(keys)]
    if len(answers) > 1 and isinstance(answers[1], Answer) and answers[1].status == 200:
        found += _discovered(answers[1].body, identity)
    return found


def _away(source: str, error: BaseException) -> Check:
    if not isinstance(error, (OSError, ValueError)):
        raise error
    message = f"{source} cannot be had: {error}."
    hint = "No new session opens without keys. Check the address, the network, and identity.ca."
    return Check(KEYS, "error", message, hint)


def _keys(body: bytes, identity: IdentitySettings, source: str) -> Check:
    try:
        keys = parse_key_set(body)
    except FormatError as exc:
        return Check(KEYS, "error", f"{source}: {exc.message}", "It must be a JWKS document.")
    fitting = [key for key in keys.values() if _fits(key, identity)]
    told = f"{source}: {len(keys)} keys, {len(fitting)} for {', '.join(identity.algorithms)}."
    if not fitting:
        hint = "Accept in identity.algorithms what the provider signs with."
        return Check(KEYS, "error", told, hint)
    return Check(KEYS, "ok", told)


def _fits(key: Jwk, identity: IdentitySettings) -> bool:
    """Whether a key can verify signatures of an accepted algorithm."""
    accepted = set(identity.algorithms)
    if "alg" in key:
        return key["alg"] in accepted
    if key["kty"] == "RSA":
        return any(name.startswith(("RS", "PS")) for name in accepted)
    if key["kty"] == "EC":
        return _CURVES.get(str(key.get("crv"))) in accepted
    return "EdDSA" in accepted


def _clock(answer: Answer) -> Check:
    name = "identity: clock"
    try:
        theirs = parsedate_to_datetime(answer.date).timestamp()
    except ValueError:
        return Check(name, "ok", "The provider does not say what time it is.")
    skew_s = time.time() - theirs
    told = f"This host's clock and the provider's differ by {abs(skew_s):.0f} s."
    if abs(skew_s) <= MOST_SKEW_S:
        return Check(name, "ok", told)
    hint = "Run NTP here: tokens are refused as expired or not yet valid, and times are evidence."
    return Check(name, "error", told, hint)


def _discovered(body: bytes, identity: IdentitySettings) -> list[Check]:
    """Compare what the provider says of itself with the settings."""
    name = "identity: issuer"
    try:
        said: Mapping[str, Any] = json.loads(body)
        issuer, jwks = str(said["issuer"]), str(said["jwks_uri"])
    except (ValueError, KeyError, TypeError):
        return [Check(name, "warning", "The provider's discovery document cannot be read.")]
    if issuer != identity.issuer:
        message = f"The provider calls itself {issuer!r}, the settings {identity.issuer!r}."
        hint = "Each token would be refused: write identity.issuer exactly so, the last / included."
        return [Check(name, "error", message, hint)]
    if jwks != identity.jwks:
        message = f"The provider's keys are at {jwks!r}, the settings say {identity.jwks!r}."
        return [Check(name, "warning", message, "Set identity.jwks to it, unless on purpose.")]
    return [Check(name, "ok", f"The provider calls itself {issuer!r}, as the settings do.")]
