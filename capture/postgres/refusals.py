"""Every refusal in PostgreSQL's own words: a reason, an SQLSTATE, a text and a hint.

`docs/connect.md` has the table, and a test keeps the two alike. No text names a credential, a
target's user or a part of a token.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from sealtape.capture.postgres.codec import messages
from sealtape.schemas.errors import Refused, SealtapeError


@dataclass(frozen=True, slots=True)
class Words:
    """What a client is told. `text` may have `{name}` places that the place of refusal fills."""

    sqlstate: str
    text: str
    hint: str


_ADMIN = "Tell whoever runs the gateway."

REFUSALS: Final = MappingProxyType(
    {
        # before and during authentication
        "protocol": Words(
            "08P01", "{what}", "Check that the client speaks PostgreSQL's protocol, version 3."
        ),
        "protocol-version": Words(
            "0A000", "{what}", "Use a client of PostgreSQL 7.4 or newer (protocol 3)."
        ),
        "tls-required": Words(
            "28000",
            "this gateway takes connections over TLS only",
            "Connect with sslmode=require, or better sslmode=verify-full.",
        ),
        "alpn": Words(
            "08P01",
            "a direct TLS connection must offer the ALPN protocol `postgresql`",
            "Use a client that supports sslnegotiation=direct, or sslnegotiation=postgres.",
        ),
        "too-many-connections": Words(
            "53300", "this gateway has no connection left", "Close idle connections or try later."
        ),
        "token-missing": Words(
            "28P01",
            "a token is required",
            "Give your OIDC token as the password, for example in PGPASSWORD.",
        ),
        "token-invalid": Words(
            "28P01", "{what}", "Give a token of your identity provider as the password."
        ),
        "token-expired": Words(
            "28P01", "the token has expired", "Get a new token and connect again."
        ),
        "keys-unavailable": Words(
            "57P03",
            "identities cannot be verified now: the identity provider's keys cannot be had",
            "Try again shortly.",
        ),
        # authorization
        "no-target": Words(
            "3D000",
            "there is no target `{target}`",
            "Give a target's name, or target/database, as the database name.",
        ),
        "not-allowed": Words(
            "42501",
            "none of your groups may open target `{target}`",
            "Ask for membership in one of the target's groups.",
        ),
        "database-not-allowed": Words(
            "42501",
            "target `{target}` does not allow database `{database}`",
            "Leave the database out to open the target's own.",
        ),
        "parameter-not-allowed": Words(
            "0A000",
            "{what}",
            "Leave it out, or have the target's settings allow it.",
        ),
        # the target
        "target-down": Words("08001", "target `{target}` cannot be reached", "Try again later."),
        "target-starting": Words(
            "57P03", "target `{target}` is starting up or shutting down", "Try again shortly."
        ),
        "target-tls": Words(
            "08001", "the TLS that target `{target}` offers is not what is demanded of it", _ADMIN
        ),
        "target-credential": Words(
            "28000", "target `{target}` does not accept the gateway's credential", _ADMIN
        ),
        "target-credential-missing": Words(
            "28000", "the gateway's credential for target `{target}` cannot be read", _ADMIN
        ),
        "target-database": Words(
            "3D000", "target `{target}` has no database `{database}`", "Check the database name."
        ),
        "target-full": Words(
            "53300", "target `{target}` has no connection left", "Try again later."
        ),
        "target-refused": Words("{sqlstate}", "target `{target}` refused: {what}", _ADMIN),
        "target-protocol": Words(
            "08P01", "target `{target}` does not speak PostgreSQL's protocol as expected", _ADMIN
        ),
        # recording
        "recording-unavailable": Words(
            "57P03", "sessions cannot be recorded now, so none is opened", "Try again later."
        ),
        "shutting-down": Words(
            "57P03", "this gateway is shutting down", "Connect again: another node will answer."
        ),
        # the end of a session that was open
        "expired": Words(
            "57P01",
            "the session ends because its token has expired",
            "Get a new token and connect again.",
        ),
        "max-session": Words(
            "57P01",
            "the session has reached the longest time that target `{target}` allows",
            "Connect again.",
        ),
        "shutdown": Words(
            "57P01",
            "the session ends because this gateway is shutting down",
            "Connect again: another node will answer.",
        ),
        "recording-failed": Words(
            "58030", "the session ends because it can no longer be recorded", "Try again later."
        ),
    }
)


def refusal(reason: str, **values: str) -> Refused:
    """Return the refusal for `reason`, its places filled with `values`.

    `target` in `values` is also context for the journal.
    """
    words = REFUSALS[reason]
    return Refused(
        words.text.format_map(values),
        reason=reason,
        protocol_code=words.sqlstate.format_map(values),
        hint=words.hint,
        **{name: value for name, value in values.items() if name in {"target", "database"}},
    )


def in_protocol(refused: Refused) -> Refused:
    """Give a refusal that another module raised (identity) PostgreSQL's code and words."""
    if refused.protocol_code:
        return refused
    return refusal(refused.reason, what=refused.message)


def from_target(error: SealtapeError, *, target: str, database: str) -> Refused:
    """Return the refusal for a TargetError: its context says which, its text stays here."""
    values = {name: str(error.context.get(name, "")) for name in ("what", "sqlstate")}
    reason = str(error.context.get("reason", "target-down"))
    return refusal(reason, target=target, database=database, **values)


def fatal(refused: Refused) -> bytes:
    """Return the ErrorResponse that tells a client; the connection is closed after it."""
    return messages.error_response(refused.protocol_code, refused.message, hint=refused.hint)
