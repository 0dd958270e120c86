"""What PostgreSQL and its client report, in our words, and what may be tried again."""

from __future__ import annotations

import ssl
from typing import Any

from sealtape.schemas.errors import SettingsError, StoreBusy, StoreCorrupt, StoreError, StoreFull

__all__ = ["away", "foreign", "load_client", "settled", "translated", "unknown_outcome"]

_HINTS = {
    "28": "Check the user and its password_file, password_env or client certificate.",
    "3D": "Create the database, then run sealtape setup.",
    "3F": "Run sealtape setup as the schema's owner.",
    "42P01": "Run sealtape setup as the schema's owner; give this user one of the store's roles.",
    "42883": "Run sealtape setup as the schema's owner.",
    "42501": "Make the user a member of the store's role; docs/postgresql.md names the roles.",
    "25006": "The server is a standby, or the store was opened for reading only.",
}
_FULL = {"53100", "54"}
_CORRUPT = {"XX001", "XX002"}
# Too many connections, lock or statement took too long, out of memory.
_BUSY = {"53", "55P03", "57014", "40"}
# The connection, or the server, goes or is gone: 08, shutdown, crash, start-up; not the primary.
_AWAY = {"08", "57P01", "57P02", "57P03", "57P05", "25006", "53300"}


def load_client() -> Any:
    """The `asyncpg` module. Raises `SettingsError` when it is not installed."""
    try:
        import asyncpg
    except ModuleNotFoundError as error:
        raise SettingsError(
            "A postgresql: store needs a package that is not installed.",
            hint="Install sealtape[servers].",
        ) from error
    return asyncpg


def foreign(error: BaseException) -> bool:
    """Whether the client, the socket or the server raised it, and not our own code."""
    client = load_client()
    kinds = (client.PostgresError, client.InterfaceError, client.InternalClientError, OSError)
    return isinstance(error, kinds)


def _state(error: BaseException) -> str:
    """The SQLSTATE, empty when the server did not say anything."""
    return str(getattr(error, "sqlstate", None) or "")


def _is(state: str, words: set[str]) -> bool:
    return state in words or state[:2] in words


def away(error: BaseException) -> bool:
    """Whether another connection may do better: this one, or its server, is gone or going.

    Two transactions that met (serialisation, deadlock) are such a case too: the server has undone
    this one. Says nothing about what happened before.
    """
    state = _state(error)
    if state:
        return _is(state, _AWAY) or state in {"40001", "40P01"}
    # asyncpg says InterfaceError for a socket that went away and InternalClientError for a server
    # that is not the primary; TimeoutError, an OSError, is an answer that does not come.
    return foreign(error) and not isinstance(error, ssl.SSLError)


def settled(error: BaseException) -> bool:
    """Whether a COMMIT that failed with `error` is known to have changed nothing.

    Not so when the connection or the server went away in the middle of it.
    """
    return _is(_state(error), {"23", "40", "25", "42", "53100", "55", "57014"})


def translated(error: BaseException, place: str) -> StoreError:
    """The `StoreError` for what the client raised.

    Only the primary message is taken over, since details can hold values.
    """
    state = _state(error)
    said = str(getattr(error, "message", None) or "").strip().rstrip(".")
    hint = next((_HINTS[word] for word in (state, state[:2]) if word in _HINTS), "")
    if not state:
        reason = str(error).split("\n", 1)[0].rstrip(".") or type(error).__name__
        if isinstance(error, ssl.SSLError):
            return StoreError(f"{place}: {reason}.", hint="Check tls, ca, cert and key in its URL.")
        return StoreBusy(f"{place} cannot be reached: {reason}.", retry_after_s=1.0)
    if _is(state, _FULL):
        return StoreFull(f"{place}: {said}.", hint="Make room.", sqlstate=state)
    if state in _CORRUPT:
        return StoreCorrupt(f"{place}: {said}.", sqlstate=state)
    if _is(state, _AWAY) or _is(state, _BUSY):
        return StoreBusy(f"{place}: {said}.", retry_after_s=1.0, hint=hint, sqlstate=state)
    return StoreError(f"{place}: {said} ({state}).", hint=hint, sqlstate=state)


def unknown_outcome(place: str) -> StoreError:
    """What to raise when the connection went away in the middle of a COMMIT."""
    return StoreError(
        f"{place} went away in the middle of a commit; whether it happened is unknown.",
        hint="Claim again and look.",
        outcome="unknown",
    )
