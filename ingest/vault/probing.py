"""Trying a vault: an object of a name that nothing else has is created, read and removed again."""

from __future__ import annotations

import secrets
import time

from sealtape.capture.checkup import Check
from sealtape.ingest.vault.base import Vault
from sealtape.schemas.errors import Exists, Missing, StoreBusy, StoreError

__all__ = ["PROBE_PREFIX", "probe"]

PROBE_PREFIX = "probe/"
"""What lies below is nobody's: `sealtape doctor` makes it and removes it."""


async def probe(vault: Vault) -> list[Check]:
    """Create, create again, read, size, list and erase an object; stops at the first failure."""
    key, data = f"{PROBE_PREFIX}{secrets.token_hex(16)}", secrets.token_bytes(64)
    started = time.monotonic()
    doing = "create an object"
    try:
        await vault.put_new(key, data)
        doing = "try to overwrite it"
        overwritten = await _overwritten(vault, key)
        doing = "read it"
        read = await vault.get(key, 0, len(data))
        same = read == data and await vault.size(key) == len(data)
        doing = "list it"
        listed = [found async for found in vault.keys(key)] == [key]
        doing = "remove it"
        kept = await _kept(vault, key)
        gone = bool(kept) or await _gone(vault, key)
    except StoreError as error:
        return [Check("vault: access", "error", f"Could not {doing}. {error.message}", error.hint)]
    if overwritten:
        return [
            Check(
                "vault: create-only",
                "error",
                "The store lets a second put overwrite an object: it ignores If-None-Match.",
                "Use a store with conditional writes; evidence must not be overwritable.",
            )
        ]
    if not (same and listed and gone):
        what = "read back" if not same else "list" if not listed else "remove"
        message = f"The store did not {what} what was put."
        return [Check("vault: access", "error", message, "Do not use this store.")]
    took = (time.monotonic() - started) * 1000
    message = f"Create, refuse to overwrite, read, list and remove work ({took:.0f} ms)."
    return [Check("vault: access", "ok", kept or message)]


async def _overwritten(vault: Vault, key: str) -> bool:
    try:
        await vault.put_new(key, b"")
    except Exists:
        return False
    return True


async def _kept(vault: Vault, key: str) -> str:
    try:
        await vault.erase(key)
    except StoreBusy as error:
        return f"Create, refuse to overwrite, read and list work. {error.message}"
    return ""


async def _gone(vault: Vault, key: str) -> bool:
    try:
        await vault.size(key)
    except Missing:
        return True
    return False
