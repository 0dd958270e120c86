"""The development issuer: a local key pair that signs tokens where there is no provider yet.

`sealtape init --dev` makes one, `sealtape token` signs with it; outside `dev` it is refused by the
settings. The tokens are ordinary OIDC tokens: the gateway has one way to verify, not two.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from jwt.algorithms import ECAlgorithm

from sealtape.schemas.errors import FormatError

ALGORITHM = "ES256"


class DevelopmentIssuer:
    """Signs tokens with one ES256 key."""

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        self._private = private
        public: dict[str, Any] = ECAlgorithm.to_jwk(private.public_key(), as_dict=True)
        self._public = {**public, "use": "sig", "alg": ALGORITHM, "kid": _thumbprint(public)}

    @classmethod
    def generate(cls) -> DevelopmentIssuer:
        """Return an issuer with a new key."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def from_pem(cls, pem: str) -> DevelopmentIssuer:
        """Return the issuer whose private key is `pem` (PKCS #8, P-256).

        Raises:
            FormatError: it is not such a key.
        """
        try:
            private = load_pem_private_key(pem.encode("ascii"), password=None)
        except (ValueError, TypeError) as exc:
            raise FormatError(
                "The development issuer's key is not a private key in PEM form.",
                hint="Make a new deployment with `sealtape init --dev`.",
            ) from exc
        if not isinstance(private, ec.EllipticCurvePrivateKey) or private.curve.name != "secp256r1":
            raise FormatError(
                "The development issuer's key is not a P-256 key.",
                hint="Make a new deployment with `sealtape init --dev`.",
            )
        return cls(private)

    def to_pem(self) -> str:
        """Return the private key; keep it in a file that only its owner may read."""
        pem = self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return pem.decode("ascii")

    def jwks(self) -> dict[str, Any]:
        """Return the key set that verifies this issuer's tokens."""
        return {"keys": [dict(self._public)]}

    def mint(
        self,
        *,
        issuer: str,
        audience: str,
        user: str,
        groups: list[str],
        agent: str | None = None,
        on_behalf_of: str | None = None,
        run: str | None = None,
        ttl_s: float = 3600.0,
        now_s: float,
    ) -> str:
        """Return a signed token for `user`, good from `now_s` (Unix seconds) for `ttl_s`."""
        claims: dict[str, Any] = {
            "iss": issuer,
            "aud": audience,
            "sub": user,
            "groups": groups,
            "iat": int(now_s),
            "exp": int(now_s + ttl_s),
            "jti": secrets.token_hex(16),
        }
        if agent:
            claims["act"] = {"sub": agent}
        if on_behalf_of:
            claims["on_behalf_of"] = on_behalf_of
        if run:
            claims["run"] = run
        headers = {"kid": self._public["kid"]}
        return jwt.encode(claims, self._private, algorithm=ALGORITHM, headers=headers)


def _thumbprint(public: dict[str, Any]) -> str:
    """Return the RFC 7638 thumbprint of an EC key."""
    members = {name: public[name] for name in ("crv", "kty", "x", "y")}
    digest = hashlib.sha256(json.dumps(members, separators=(",", ":")).encode("ascii")).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
