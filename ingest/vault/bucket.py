"""A vault in a bucket of an object store, over obstore: what S3, GCS and Azure have in common.

Creation is one conditional PUT (`If-None-Match: *`, on GCS `x-goog-if-generation-match: 0`). Each
call of `put_new` writes a random token into the object's metadata. So when the answer to a put is
lost, the token says whether the object that is there now is the one this call made, and `Exists`
and success are never mixed up, not even when another writer sent the same bytes. A swap is a PUT on
the condition that the object is still the one that was read (`If-Match`, on GCS its generation).

obstore's own retries are off: after one it could not tell our first attempt from another writer.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from obstore.store import AzureStore, GCSStore, S3Store

from sealtape.ingest.vault.base import (
    Buffer,
    check_key,
    check_new_key,
    check_swapped_key,
    is_key,
)
from sealtape.ingest.vault.faults import FOREIGN, Fault, fault_of
from sealtape.schemas.errors import Exists, Fenced, StoreBusy, StoreError

if TYPE_CHECKING:
    from obstore import Bytes, GetResult, UpdateVersion

__all__ = ["TOKEN", "Bucket", "BucketVault", "Native"]

T = TypeVar("T")
Bucket = S3Store | GCSStore | AzureStore

TOKEN = "sealtapeput"
"""Name of the metadata value that tells one creator from another."""
PATIENCE_S = 6.0
"""How long a failing request is tried again; after that an outage is the caller's to know."""
FIRST_DELAY_S = 0.1
PER_TIMEOUT = 16 << 20
"""So many bytes more give a request its timeout once more."""
_PAGE = 1000


class Native(Protocol):
    """What only one kind of store can do. Keys are relative to the vault's prefix."""

    multipart_over: int
    locks: bool

    async def put_parts(self, key: str, data: Buffer, token: str) -> None:
        """Create an object in parts, create-only; raises the errors of `Vault.put_new`."""
        ...

    async def erase(self, key: str) -> None:
        """Remove all versions."""
        ...

    async def retain(self, key: str, until_ns: int) -> bool:
        """As `Vault.retain`."""
        ...

    async def hold(self, key: str, *, on: bool) -> bool:
        """As `Vault.hold`."""
        ...

    async def tidy(self) -> int:
        """Abort uploads in parts that nobody goes on with."""
        ...

    async def close(self) -> None:
        """Release what is held."""
        ...


class BucketVault:
    """See `Vault` for the contract."""

    def __init__(
        self,
        *,
        name: str,
        reading: Bucket,
        writing: Bucket,
        timeout_s: float,
        native: Native | None = None,
    ) -> None:
        """Work on one bucket and prefix.

        `reading` may have a read timeout; in `writing` it would bound the time a body takes.
        """
        self._name = name
        self._reading = reading
        self._writing = writing
        self._timeout_s = timeout_s
        self._native = native

    async def put_new(self, key: str, data: Buffer, *, retain_until_ns: int = 0) -> None:
        """Create an object; see `Vault.put_new`."""
        check_new_key(key)
        view, token = memoryview(data).cast("B"), secrets.token_hex(16)
        if self._native is not None and len(view) > self._native.multipart_over:
            await self._native.put_parts(key, view, token)
        else:
            await self._put(key, view, token)
        if retain_until_ns and self._native is not None and self._native.locks:
            await self._native.retain(key, retain_until_ns)

    async def swap(self, key: str, data: Buffer, before: bytes | None) -> None:
        """Replace an object that changes; see `Vault.swap`."""
        check_swapped_key(key)
        wanted = bytes(data)
        deadline, delay = time.monotonic() + PATIENCE_S, FIRST_DELAY_S
        while True:
            found, version = await self._current(key)
            if found == wanted:
                return
            if found != before:
                raise Fenced(f"{key} is not what it was: another has swapped it.", key=key)
            try:
                await self._put_over(key, wanted, version)
                return
            except FOREIGN as error:
                fault, cause = fault_of(error), error
            lost = fault.exists or fault.missing  # another was first: the next look says who
            if not (lost or fault.again) or time.monotonic() + delay > deadline:
                failure = fault.error(self._name, f"a swap of {key}")
                raise (_busy(key) if lost else failure) from cause
            await asyncio.sleep(delay * (0.5 + random.random() / 2))  # noqa: S311 (jitter)
            delay *= 2

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """Read a range; see `Vault.get`."""
        check_key(key)
        if start < 0 or (end is not None and end < start):
            raise StoreError(f"[{start}, {end}) is not a range of {key}.", key=key)
        if start == end:
            await self.size(key)
            return b""
        options: Any = {}
        if end is not None:
            options = {"range": (start, end)}
        elif start:
            options = {"range": {"offset": start}}

        data = await self._read(key, options)
        return b"" if data is None else data.to_bytes()

    async def fill(self, key: str, buffer: memoryview) -> int:
        """Read into memory that is there; see `Vault.fill`."""
        check_key(key)
        if not buffer:
            await self.size(key)
            return 0
        data = await self._read(key, {"range": (0, len(buffer))})
        if data is None:
            return 0
        with memoryview(data) as view:
            buffer[: len(view)] = view
            return len(view)

    async def size(self, key: str) -> int:
        """Size in bytes; see `Vault.size`."""
        check_key(key)
        return int((await self._head(key)).meta["size"])

    async def keys(self, prefix: str = "", after: str = "") -> AsyncIterator[str]:
        """List; see `Vault.keys`. A page that fails is asked for again behind what came last."""
        folder = prefix.rpartition("/")[0]
        if folder and not is_key(folder):
            return
        cursor = after if is_key(after) else ""
        more = True
        while more:
            page = await self._plain(partial(self._page, folder, cursor), "a listing")
            more, last = len(page) == _PAGE, cursor
            for key, size in page:
                if key <= cursor:
                    if size:
                        raise self._unordered()
                    continue  # `a/`, the folder of another tool, without the slash and so too late
                cursor = key
                if key > after and key.startswith(prefix) and is_key(key):
                    yield key
                if key > prefix and not key.startswith(prefix):
                    return
            if more and cursor == last:
                raise self._unordered()

    async def erase(self, key: str) -> None:
        """Remove an object; see `Vault.erase`."""
        check_key(key)
        if self._native is not None:
            await self._native.erase(key)
            return
        try:
            await self._tried(lambda: self._reading.delete_async(key), f"a delete of {key}")
        except _Failed as failed:
            if not failed.fault.missing:
                raise failed.error from failed.__cause__

    async def retain(self, key: str, until_ns: int) -> bool:
        """Lock an object; see `Vault.retain`."""
        check_key(key)
        if self._native is not None:
            return await self._native.retain(key, until_ns)
        await self.size(key)
        return False

    async def hold(self, key: str, *, on: bool) -> bool:
        """Hold an object; see `Vault.hold`."""
        check_key(key)
        if self._native is not None:
            return await self._native.hold(key, on=on)
        await self.size(key)
        return False

    async def tidy(self) -> int:
        """Abort abandoned uploads in parts; see `Vault.tidy`."""
        return 0 if self._native is None else await self._native.tidy()

    async def close(self) -> None:
        """Release what the adapter holds."""
        if self._native is not None:
            await self._native.close()

    async def _read(self, key: str, options: Any) -> Bytes | None:
        """The bytes of an object, or of a range of it; None when the range begins behind them."""

        async def read() -> Bytes:
            result = await self._reading.get_async(key, options=options)
            return await result.bytes_async()

        try:
            return await self._tried(read, f"a get of {key}")
        except _Failed as failed:
            if failed.fault.past_end:
                return None
            raise failed.error from failed.__cause__

    async def _put(self, key: str, data: memoryview, token: str) -> None:
        unsure = False
        deadline, delay = time.monotonic() + PATIENCE_S, FIRST_DELAY_S
        timeout_s = self._timeout_s * (1 + len(data) / PER_TIMEOUT)
        while True:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._writing.put_async(
                        key, data, mode="create", use_multipart=False, attributes={TOKEN: token}
                    )
                return
            except FOREIGN as error:
                fault, cause = fault_of(error), error
            if fault.exists and not unsure:
                raise _exists(key) from None
            unsure = unsure or fault.unsure
            if fault.exists or not fault.again or time.monotonic() + delay > deadline:
                failure = fault.error(self._name, f"a put of {key}")
                if unsure and await self._is_ours(key, token, failure):
                    return
                raise failure from cause
            await asyncio.sleep(delay * (0.5 + random.random() / 2))  # noqa: S311 (jitter)
            delay *= 2

    async def _put_over(self, key: str, data: bytes, version: UpdateVersion | None) -> None:
        async with asyncio.timeout(self._timeout_s):
            await self._writing.put_async(
                key, data, mode="create" if version is None else version, use_multipart=False
            )

    async def _current(self, key: str) -> tuple[bytes | None, UpdateVersion | None]:
        """The bytes of an object and which of its states they are; None where there is none."""

        async def read() -> tuple[bytes, UpdateVersion]:
            result = await self._reading.get_async(key)
            data: bytes = (await result.bytes_async()).to_bytes()
            return data, _version(result)

        try:
            return await self._tried(read, f"a get of {key}")
        except _Failed as failed:
            if failed.fault.missing:
                return None, None
            raise failed.error from failed.__cause__

    async def _is_ours(self, key: str, token: str, failure: StoreError) -> bool:
        """After attempts of unknown outcome: whether one of them created the object.

        Raises `Exists` when somebody else did, `failure` when nobody answers this either.
        """

        async def ask() -> GetResult:
            return await self._reading.get_async(key, options={"head": True})

        try:
            # In an outage only one question more: the caller waits.
            found = await (self._tried(ask) if isinstance(failure, Exists) else ask())
        except _Failed as failed:
            fault = failed.fault
        except FOREIGN as error:
            fault = fault_of(error)
        else:
            if found.attributes.get(TOKEN) == token:
                return True
            raise _exists(key)
        if fault.missing:
            return False
        raise failure

    async def _head(self, key: str) -> GetResult:
        try:
            return await self._tried(lambda: self._reading.get_async(key, options={"head": True}))
        except _Failed as failed:
            if not failed.fault.missing:
                raise failed.error from failed.__cause__
        # The answer to HEAD has no body; only one to GET says whether the bucket is there.
        return await self._plain(lambda: self._reading.get_async(key), f"a get of {key}")

    def _unordered(self) -> StoreError:
        return StoreError(
            f"The vault {self._name} does not list keys in ascending order.",
            hint="Directory buckets of S3 cannot be a vault.",
        )

    async def _page(self, folder: str, after: str) -> list[tuple[str, int]]:
        listing = self._reading.list(folder or None, offset=after or None, chunk_size=_PAGE)
        async for objects in listing:
            return [(found["path"], found["size"]) for found in objects]
        return []

    async def _plain(self, request: Callable[[], Awaitable[T]], doing: str) -> T:
        try:
            return await self._tried(request, doing)
        except _Failed as failed:
            raise failed.error from failed.__cause__

    async def _tried(self, request: Callable[[], Awaitable[T]], doing: str = "a head") -> T:
        """A request that changes nothing, or nothing twice, tried until patience ends."""
        deadline, delay = time.monotonic() + PATIENCE_S, FIRST_DELAY_S
        while True:
            try:
                return await request()
            except FOREIGN as error:
                fault, cause = fault_of(error), error
            if not fault.again or time.monotonic() + delay > deadline:
                raise _Failed(fault, fault.error(self._name, doing)) from cause
            await asyncio.sleep(delay * (0.5 + random.random() / 2))  # noqa: S311 (jitter)
            delay *= 2


def _exists(key: str) -> Exists:
    return Exists(f"The vault holds {key} already.", key=key)


def _version(result: GetResult) -> UpdateVersion:
    """What a condition names: the ETag, on GCS the generation."""
    version: UpdateVersion = {}
    if result.meta["e_tag"]:
        version["e_tag"] = result.meta["e_tag"]
    if result.meta["version"]:
        version["version"] = result.meta["version"]
    return version


def _busy(key: str) -> StoreBusy:
    return StoreBusy(f"{key} is being swapped by others all the time.", retry_after_s=1.0)


class _Failed(Exception):
    """A request failed for good; never leaves this module."""

    def __init__(self, fault: Fault, error: StoreError) -> None:
        super().__init__(error.message)
        self.fault = fault
        self.error = error
