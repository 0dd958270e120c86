"""Trying a vault: objects of names that nothing else has are made, read and removed again."""

from __future__ import annotations

import asyncio
import secrets
import time

from sealtape.capture.checkup import Check
from sealtape.ingest.vault.base import Vault
from sealtape.schemas.errors import Exists, Fenced, Missing, StoreBusy, StoreError

__all__ = ["PROBE_PREFIX", "kept", "look", "probe"]

PROBE_PREFIX = "probe/"
"""What lies below is nobody's: `sealtape doctor` makes it and removes it."""

_ACCESS = "vault: access"
_SWAPS = 3
_SWAPPERS = 4
_FORBIDDEN = 403


async def probe(vault: Vault) -> list[Check]:
    """Create, create again, read, size, list and erase an object, then swap another.

    Stops at the first failure.
    """
    found = await _try_creation(vault)
    return [found] if found.level == "error" else [found, await _try_swaps(vault)]


async def look(vault: Vault) -> list[Check]:
    """List, and read a byte of what is there: all that whoever only reads needs."""
    doing, seen = "list objects", ""
    try:
        async for key in vault.keys("seg/"):
            doing, seen = "read an object", key
            await vault.get(key, 0, 1)
            break
    except Missing:
        seen = ""  # an orphan of a crash, which was cleared away after it was listed
    except StoreError as error:
        return [Check(_ACCESS, "error", f"Could not {doing}. {error.message}", error.hint)]
    told = "Listing and reading work." if seen else "Listing works; there is no segment to read."
    return [Check(_ACCESS, "ok", told)]


async def _try_creation(vault: Vault) -> Check:
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
        stays = await kept(vault, key)
        gone = stays is not None or await _gone(vault, key)
    except StoreError as error:
        return Check(_ACCESS, "error", f"Could not {doing}. {error.message}", error.hint)
    if overwritten:
        return Check(
            "vault: create-only",
            "error",
            "The store lets a second put overwrite an object: it ignores If-None-Match.",
            "Use a store with conditional writes; evidence must not be overwritable.",
        )
    if not (same and listed and gone):
        what = "read back" if not same else "list" if not listed else "remove"
        message = f"The store did not {what} what was put."
        return Check(_ACCESS, "error", message, "Do not use this store.")
    took = (time.monotonic() - started) * 1000
    message = f"Create, refuse to overwrite, read, list and remove work ({took:.0f} ms)."
    return stays or Check(_ACCESS, "ok", message)


async def _try_swaps(vault: Vault) -> Check:
    """Let several swap one object at once; more than one that gets through is an error."""
    name, key = "vault: swaps", f"{PROBE_PREFIX}{secrets.token_hex(16)}/checkpoint"
    before: bytes | None = None
    try:
        for _ in range(_SWAPS):
            each = [secrets.token_bytes(16) for _ in range(_SWAPPERS)]
            results = await asyncio.gather(
                *(vault.swap(key, data, before) for data in each), return_exceptions=True
            )
            failed = [r for r in results if r is not None and not isinstance(r, Fenced)]
            if failed:
                raise failed[0]
            if len([result for result in results if result is None]) != 1:
                message = "The store lets one swap overwrite another: it ignores If-Match."
                hint = "Use a store with conditional writes: the log keeps its checkpoint in it."
                return Check(name, "error", message, hint)
            before = await vault.get(key)
        await kept(vault, key)
    except StoreError as error:
        message = f"Could not swap an object. {error.message}"
        return Check(name, "error", message, error.hint)
    return Check(name, "ok", "Of several swaps of one object one gets through.")


async def _overwritten(vault: Vault, key: str) -> bool:
    try:
        await vault.put_new(key, b"")
    except Exists:
        return False
    return True


async def kept(vault: Vault, key: str) -> Check | None:
    """Remove what was tried; when it may stay, what keeps it: a lock, or a right we were not given.

    Raises `StoreError` for what else goes wrong.
    """
    works = "Create, refuse to overwrite, read and list work."
    try:
        await vault.erase(key)
    except StoreBusy as error:
        return Check(_ACCESS, "ok", f"{works} {error.message}")
    except StoreError as error:
        if error.context.get("status") != _FORBIDDEN:
            raise
        message = f"{works} Removing is not permitted: what crashes leave behind stays."
        hint = f"Unless that is meant: docs/vault.md, collector. Else remove {PROBE_PREFIX}*, too."
        return Check(_ACCESS, "warning", message, hint)
    return None


async def _gone(vault: Vault, key: str) -> bool:
    try:
        await vault.size(key)
    except Missing:
        return True
    return False
