"""The port to the object store that holds segments, manifests and quarantined bytes."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from sealtape.schemas.errors import SettingsError, StoreError

__all__ = ["MAX_KEY", "Buffer", "Vault", "check_key", "open_vault"]

Buffer = bytes | bytearray | memoryview
MAX_KEY = 512
"""Longest object key, in characters (all of them ASCII)."""

_PART = re.compile(r"[A-Za-z0-9_=][A-Za-z0-9_=.\-]*")


def check_key(key: str) -> None:
    """Refuse what cannot name an object: empty, `.`- and `..`-parts, odd characters, too long.

    Raises `StoreError`. Every adapter calls this before it touches its store, so no key can leave
    the folder or bucket it belongs to.
    """
    if len(key) > MAX_KEY or not all(_PART.fullmatch(part) for part in key.split("/")):
        raise StoreError(f"{key[:80]!r} cannot name an object in the vault.", key=key)


class Vault(Protocol):
    """Objects by key. Creation is the only way to write one; nothing overwrites.

    * Every method MUST refuse a key that `check_key` refuses, before any other effect.
    * Errors MUST be of the `StoreError` tree; a full disk or bucket is `StoreFull`.
    * Any number of processes MAY use one vault at the same time.
    """

    async def put_new(self, key: str, data: Buffer) -> None:
        """Create `key` with exactly `data`.

        MUST raise `Exists` when the key exists, whatever its content, and change nothing.
        Of several callers at once exactly one MUST succeed. A reader MUST see all of the object or
        none of it. MUST NOT return before the object survives a crash of the host.
        After any other error or a cancellation the object either exists whole or does not exist.
        """
        ...

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """The bytes `[start, end)` of the object, clipped to its size. Raises `Missing`."""
        ...

    async def size(self, key: str) -> int:
        """Size in bytes. Raises `Missing`."""
        ...

    def keys(self, prefix: str = "", after: str = "") -> AsyncIterator[str]:
        """Keys that begin with `prefix` and are greater than `after`, in ascending ASCII order.

        `prefix` is a plain string and need not end at a slash. Objects created or erased while the
        listing runs MAY be missing from it or still be in it; all others MUST be in it once.
        """
        ...

    async def erase(self, key: str) -> None:
        """Remove the object. MUST succeed when there is none, and MUST be durable on return."""
        ...

    async def tidy(self) -> int:
        """Remove what writers that crashed left behind and no key names; returns how much.

        MUST NOT touch an object, nor a write that may still be going on.
        """
        ...

    async def close(self) -> None:
        """Release what the adapter holds. Closing twice is fine."""
        ...


async def open_vault(url: str, base: Path) -> Vault:
    """Open the vault a URL names: `file:FOLDER`, relative to `base`. Raises `SettingsError`."""
    scheme, separator, rest = url.partition(":")
    if scheme == "file" and separator and rest and "?" not in rest:
        from sealtape.ingest.vault.file import FileVault

        return FileVault(base / rest)
    raise SettingsError(
        f"{url!r} does not name a vault.", hint="The embedded vault is file:FOLDER.", url=url
    )
