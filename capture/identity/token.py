"""Verification of the OIDC token that a client presents: PyJWT with everything pinned.

No text raised here contains the token or a part of its signature: it may go into logs and to the
client as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jwt

from sealtape.capture.identity.jwks import Jwk, KeySet
from sealtape.schemas.errors import Refused, SettingsError
from sealtape.schemas.settings import IdentitySettings

ASYMMETRIC: Final = frozenset(
    {"ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA"}
)
MAX_TOKEN: Final = 48 << 10
MAX_NAME: Final = 256  # characters of a user, group, agent or run
MAX_CHAIN: Final = 16  # actors of a nested `act`
MAX_GROUPS: Final = 1024  # what IDENT has room for
_MAX_EXPIRY: Final = (1 << 63) // 1_000_000_000  # its nanoseconds fit 64 bits; in the year 2262
_REQUIRED: Final = ("exp", "iat", "sub", "iss", "aud")
_NEW: Final = "Get a new token and connect again."


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent that acts in a session.

    Attributes:
        id: who acts.
        on_behalf_of: whom it acts for, nearest first; the person stands last.
        run: the agent's own name for this run, empty when the token states none.
    """

    id: str
    on_behalf_of: tuple[str, ...] = ()
    run: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """A verified identity.

    Attributes:
        user: the user claim (`sub` unless configured otherwise).
        subject: `sub`.
        token_id: `jti`, empty when the token has none.
        expires_ns: `exp`, nanoseconds since the Unix epoch.
    """

    user: str
    subject: str
    groups: tuple[str, ...]
    issuer: str
    token_id: str
    agent: Agent | None
    run: str
    expires_ns: int


class TokenVerifier:
    """Verifies tokens of one issuer for one audience.

    Args:
        settings: issuer, audience, algorithms and claim names; a dot in a claim name goes into an
            object (`act.sub`).
        keys: the issuer's key set.

    Raises:
        SettingsError: an accepted algorithm is symmetric, or unknown.
    """

    def __init__(self, *, settings: IdentitySettings, keys: KeySet) -> None:
        refused = sorted(set(settings.algorithms) - ASYMMETRIC)
        if refused or not settings.algorithms:
            raise SettingsError(
                f"identity.algorithms must name public-key signature algorithms; got {refused}.",
                hint=f"Known: {', '.join(sorted(ASYMMETRIC))}.",
            )
        self._settings = settings
        self._keys = keys

    async def verify(self, token: str) -> Identity:
        """Return the identity that `token` proves.

        Raises:
            Refused: with reason `token-invalid`, `token-expired` or `keys-unavailable`.
        """
        header = self._header(token)
        jwk = await self._keys.key(header.get("kid"))
        return self._identity(self._claims(token, jwk, header["alg"]))

    def _header(self, token: str) -> Mapping[str, Any]:
        if not token or len(token) > MAX_TOKEN or not token.isascii():
            raise _invalid("it is not a token of your identity provider (a JWT)")
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.InvalidTokenError, ValueError, RecursionError):
            raise _invalid("it is not a token of your identity provider (a JWT)") from None
        if header.get("alg") not in self._settings.algorithms:
            raise _invalid("its signature algorithm is not accepted here")
        if not isinstance(header.get("kid"), str | None):
            raise _invalid("its header is malformed")
        return header

    def _claims(self, token: str, jwk: Jwk, algorithm: str) -> Mapping[str, Any]:
        if jwk.get("alg", algorithm) != algorithm:
            raise _invalid("its key is meant for another algorithm")
        try:
            claims: Mapping[str, Any] = jwt.decode(
                token,
                jwt.PyJWK(dict(jwk), algorithm=algorithm),
                algorithms=[algorithm],
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                leeway=self._settings.leeway_s,
                options={"require": list(_REQUIRED)},
            )
        except jwt.ExpiredSignatureError:
            raise Refused(
                "The token has expired.", reason="token-expired", protocol_code="", hint=_NEW
            ) from None
        except jwt.PyJWTError as exc:
            raise _invalid(_reason(exc)) from None
        except (ValueError, TypeError, OverflowError):
            raise _invalid("its claims are malformed") from None
        return claims

    def _identity(self, claims: Mapping[str, Any]) -> Identity:
        user = _name(_find(claims, (self._settings.user_claim,)))
        if not user:
            raise _invalid(f"it has no usable `{self._settings.user_claim}` claim")
        run = _name(_find(claims, self._settings.run_claims))
        if not 0 <= int(claims["exp"]) < _MAX_EXPIRY:
            raise _invalid("its `exp` is no time in seconds that can be recorded")
        return Identity(
            user=user,
            subject=_name(claims["sub"]),
            groups=self._groups(claims),
            issuer=self._settings.issuer,
            token_id=_name(claims.get("jti")),
            agent=self._agent(claims, run),
            run=run,
            expires_ns=int(claims["exp"]) * 1_000_000_000,
        )

    def _groups(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        found = _find(claims, (self._settings.groups_claim,))
        if found is None:
            return ()
        listed = [found] if isinstance(found, str) else found
        if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
            raise _invalid(f"its `{self._settings.groups_claim}` claim is not a list of names")
        groups = tuple(dict.fromkeys(_name(item) for item in listed))
        if len(groups) > MAX_GROUPS:
            raise _invalid(f"it has more than {MAX_GROUPS} groups")
        return groups

    def _agent(self, claims: Mapping[str, Any], run: str) -> Agent | None:
        actor = _name(_find(claims, self._settings.agent_claims))
        if not actor:
            return None
        stated = _find(claims, self._settings.on_behalf_of_claims)
        names = [stated] if isinstance(stated, str) else stated
        if isinstance(names, list):
            chain = [_name(item) for item in names[:MAX_CHAIN]]
        else:
            chain = [*_actors(claims.get("act"))[1:], _name(claims["sub"])]
        return Agent(actor, tuple(item for item in chain if item and item != actor), run)


def _actors(act: Any) -> list[str]:
    """Return the actors of a nested `act` claim (RFC 8693), the present one first."""
    found: list[str] = []
    while isinstance(act, Mapping) and len(found) < MAX_CHAIN:
        found.append(_name(act.get("sub")))
        act = act.get("act")
    return found


def _find(claims: Mapping[str, Any], names: Sequence[str]) -> Any:
    """Return the first claim that is there; the exact name goes before the dotted way."""
    for name in names:
        if name in claims:
            return claims[name]
        value: Any = claims
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            return value
    return None


def _name(value: Any) -> str:
    """Return a name, empty when there is none; a cut one would be another's name."""
    if not isinstance(value, str):
        return ""
    if len(value) > MAX_NAME:
        raise _invalid(f"a name in it is longer than {MAX_NAME} characters")
    if not value.isprintable():  # control characters, lone surrogates
        raise _invalid("a name in it is not text")
    return value


def _invalid(why: str) -> Refused:
    return Refused(
        f"The token is not valid: {why}.", reason="token-invalid", protocol_code="", hint=_NEW
    )


def _reason(exc: jwt.PyJWTError) -> str:
    """Say what is wrong in words of ours: PyJWT's texts may quote claims."""
    if isinstance(exc, jwt.InvalidSignatureError):
        return "its signature does not verify"
    if isinstance(exc, jwt.InvalidAudienceError):
        return "it was issued for another audience"
    if isinstance(exc, jwt.InvalidIssuerError):
        return "it comes from another issuer"
    if isinstance(exc, jwt.ImmatureSignatureError):
        return "it is not valid yet"
    if isinstance(exc, jwt.MissingRequiredClaimError):
        return f"it has no `{exc.claim}` claim"
    return "its claims are malformed"
