"""What a command that only reads opens: the stores of a deployment, and the auditors' key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sealtape.capture.kms import read_private_key
from sealtape.indexer.index import Index, open_index
from sealtape.ingest.keyring import Keyring, open_keyring
from sealtape.ingest.ledger import Ledger, open_ledger
from sealtape.schemas.errors import KeyUnavailable
from sealtape.schemas.settings import Settings
from sealtape.schemas.wraps import PrivateKey


@asynccontextmanager
async def index_of(settings: Settings) -> AsyncIterator[Index]:
    """The index, read-only."""
    index = await open_index(settings.stores.index, Path(settings.base), read_only=True)
    try:
        yield index
    finally:
        await index.close()


@asynccontextmanager
async def ledger_of(settings: Settings, *, snapshot: bool = False) -> AsyncIterator[Ledger]:
    """The ledger, read-only; a snapshot stays as it is now, whatever is published meanwhile."""
    base = Path(settings.base)
    ledger = await open_ledger(settings.stores.ledger, base, read_only=True, snapshot=snapshot)
    try:
        yield ledger
    finally:
        await ledger.close()


@asynccontextmanager
async def keyring_of(settings: Settings) -> AsyncIterator[Keyring]:
    """The keyring, read-only."""
    keyring = await open_keyring(settings.stores.keyring, Path(settings.base), read_only=True)
    try:
        yield keyring
    finally:
        await keyring.close()


def auditor_key(settings: Settings, given: str | None) -> PrivateKey:
    """Return the auditors' private key.

    Raises:
        KeyUnavailable: there is none where it should be.
    """
    place, base = settings.keys.auditor_private, Path(settings.base)
    if given:
        place, base = given, Path()
    try:
        return read_private_key(place, base)
    except KeyUnavailable as exc:
        hint = f"{exc.hint} Name it with --key; capture and ingest never have it."
        raise KeyUnavailable(exc.message, hint=hint) from exc
