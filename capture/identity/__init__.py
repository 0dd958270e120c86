"""Who is connecting: OIDC tokens, the key set that verifies them, and a development issuer."""

from sealtape.capture.identity.issuer import DevelopmentIssuer
from sealtape.capture.identity.jwks import KeySet
from sealtape.capture.identity.token import Agent, Identity, TokenVerifier

__all__ = ["Agent", "DevelopmentIssuer", "Identity", "KeySet", "TokenVerifier"]
