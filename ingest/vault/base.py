"""The port to the object store that holds segments, manifests and quarantined bytes."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from sealtape.capture.checkup import Check
from sealtape.schemas.errors import SettingsError, StoreError
from sealtape.schemas.urls import shown_url

__all__ = [
    "MAX_KEY",
    "Buffer",
    "Vault",
    "check_key",
    "check_new_key",
    "check_swapped_key",
    "check_vault",
    "open_vault",
    "prepare_vault",
]

Buffer = bytes | bytearray | memoryview
MAX_KEY = 512
"""Longest object key, in characters (all of them ASCII)."""

_PART = re.compile(r"[A-Za-z0-9_=][A-Za-z0-9_=.\-]*")
# The checkpoints of a shard of the log, and what `sealtape doctor` tries instead of them.
_SWAPPED = re.compile(r"log/v1/[1-9][0-9]*/checkpoint(\.pending)?|probe/[0-9a-f]{32}/checkpoint")


def is_key(key: str) -> bool:
    """Whether `key` may name an object."""
    return len(key) <= MAX_KEY and all(_PART.fullmatch(part) for part in key.split("/"))


def is_swapped_key(key: str) -> bool:
    """Whether `key` names one of the few objects that are only ever swapped."""
    return _SWAPPED.fullmatch(key) is not None


def check_key(key: str) -> None:
    """Refuse what cannot name an object: empty, `.`- and `..`-parts, odd characters, too long.

    Raises `StoreError`. Every adapter calls this before it touches its store, so no key can leave
    the folder or bucket it belongs to.
    """
    if not is_key(key):
        raise StoreError(f"{key[:80]!r} cannot name an object in the vault.", key=key)


def check_new_key(key: str) -> None:
    """Refuse what `check_key` refuses, and the few objects that are only ever swapped."""
    check_key(key)
    if is_swapped_key(key):
        raise StoreError(f"{key} is swapped, never created.", key=key)


def check_swapped_key(key: str) -> None:
    """Refuse every key but those of the few objects that change. Raises `StoreError`."""
    check_key(key)
    if not is_swapped_key(key):
        raise StoreError(f"{key} never changes: only checkpoints of the log do.", key=key)


class Vault(Protocol):
    """Objects by key. Creation is the only way to write one; nothing overwrites.

    The exception are the newest checkpoints of the log, `log/v1/N/checkpoint` and
    `log/v1/N/checkpoint.pending`: they are swapped, and never created.

    * Every method MUST refuse a key that `check_key` refuses, before any other effect.
    * Errors MUST be of the `StoreError` tree; a full disk or bucket is `StoreFull`, what may pass
      by itself (an outage, throttling, a lock that will be over) is `StoreBusy`. An outage MUST be
      told within seconds, plus the time that the bytes of the request take.
    * Any number of processes MAY use one vault at the same time.
    """

    async def put_new(self, key: str, data: Buffer, *, retain_until_ns: int = 0) -> None:
        """Create `key` with exactly `data`.

        MUST raise `Exists` when the key exists, whatever its content, and change nothing.
        Of several callers at once exactly one MUST succeed. A reader MUST see all of the object or
        none of it. MUST NOT return before the object survives a crash of the host.
        After any other error or a cancellation the object either exists whole or does not exist.
        With `retain_until_ns` MUST NOT return before the object is locked as `retain` locks it.
        MUST refuse a key that is swapped.
        """
        ...

    async def swap(self, key: str, data: Buffer, before: bytes | None) -> None:
        """Replace the bytes of one of the few objects that change; None: there is none yet.

        MUST raise `Fenced` when its bytes are neither `before` nor `data`, and change nothing. MUST
        succeed when they are `data` already: so may a swap whose answer was lost be tried again. Of
        several callers at once with the same `before` exactly one MUST get its bytes in. A reader
        MUST see all of the old bytes or all of the new ones. MUST NOT return before the new ones
        survive a crash of the host. After any other error or a cancellation it holds either.
        """
        ...

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """The bytes `[start, end)` of the object, clipped to its size. Raises `Missing`."""
        ...

    async def fill(self, key: str, buffer: memoryview) -> int:
        """Read the object into `buffer`, from its first byte on; how many bytes it took.

        For readers of one object after the other, who need no new memory for each. MUST read all of
        the object, or what fits. Raises `Missing`.
        """
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
        """Remove the object. MUST succeed when there is none, and MUST be durable on return.

        MUST remove every version of it where the store keeps versions. A locked object MUST stay,
        with `StoreBusy`.
        """
        ...

    async def retain(self, key: str, until_ns: int) -> bool:
        """Lock the object until that time (Unix, nanoseconds); True when the store enforces it.

        MUST NOT shorten an earlier lock. A store that has no locks, or an adapter that was told not
        to use them, returns False. Raises `Missing`.
        """
        ...

    async def hold(self, key: str, *, on: bool) -> bool:
        """Set or lift a legal hold: a lock without an end. True when the store enforces it.

        As `retain` otherwise.
        """
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
    """Open the vault a URL names; relative paths are relative to `base`. Raises `SettingsError`.

    Nothing is created and no server is asked: one that is down shows at the first call.
    """
    match _scheme(url):
        case "file":
            from sealtape.ingest.vault.file import FileVault

            return FileVault(_folder(url, base))
        case "s3":
            with _clients():
                from sealtape.ingest.vault.s3 import open_s3
            return await open_s3(url, base)
        case scheme:
            with _clients():
                from sealtape.ingest.vault.clouds import open_cloud
            return open_cloud(scheme, url, base)


async def prepare_vault(url: str, base: Path) -> list[str]:
    """Create what the vault needs and does not have yet; returns what was done, in words.

    Raises the errors of `open_vault` and `StoreError`.
    """
    match _scheme(url):
        case "file":
            from sealtape.ingest.vault.file import prepare_folder

            return prepare_folder(_folder(url, base))
        case "s3":
            with _clients():
                from sealtape.ingest.vault.s3 import prepare_s3
            return await prepare_s3(url, base)
        case _:
            return []  # a bucket of these clouds is made with the cloud's own tools


async def check_vault(url: str, base: Path, *, writes: bool = True) -> list[Check]:
    """Try what the adapter needs, and say what was found; a failure is an `error`, never raised.

    With `writes` objects are made and removed; whoever only reads the vault need not be permitted
    to, and nothing is changed.
    """
    try:
        match _scheme(url):
            case "file":
                from sealtape.ingest.vault.file import check_folder

                return await check_folder(_folder(url, base), writes=writes)
            case "s3":
                with _clients():
                    from sealtape.ingest.vault.s3 import check_s3
                return await check_s3(url, base, writes=writes)
            case scheme:
                with _clients():
                    from sealtape.ingest.vault.clouds import check_cloud
                return await check_cloud(scheme, url, base, writes=writes)
    except SettingsError as error:
        return [Check("vault: settings", "error", error.message, error.hint)]


def _scheme(url: str) -> str:
    scheme, _, rest = url.partition(":")
    if scheme == "file" and rest and "?" not in rest:
        return scheme
    if scheme in {"s3", "gs", "az"} and rest.startswith("//"):
        return scheme
    raise SettingsError(
        f"{shown_url(url)!r} does not name a vault.",
        hint="Write file:FOLDER, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX.",
        url=shown_url(url),
    )


@contextmanager
def _clients() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise SettingsError(
            "A vault in a bucket needs a package that is not installed.",
            hint="Install sealtape[servers].",
        ) from error


def _folder(url: str, base: Path) -> Path:
    return base / url.removeprefix("file:")
