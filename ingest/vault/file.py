"""`file:`, a vault in a local folder.

An object becomes visible by a hard link made from a finished, fsync'd temporary file: `link` fails
when the name exists, which makes creation atomic and exclusive. Folders are fsync'd after that, so
the name survives a crash of the host too. The few objects that change are renamed over, under one
lock for all processes.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from sealtape.capture.checkup import Check
from sealtape.ingest.vault.base import Buffer, check_key, check_new_key, check_swapped_key
from sealtape.ingest.vault.probing import look, probe
from sealtape.schemas.errors import (
    Exists,
    Fenced,
    Missing,
    StoreBusy,
    StoreError,
    StoreFull,
)

__all__ = ["FileVault", "check_folder", "prepare_folder"]

_STAGING = ".incoming"  # begins with a dot, so no object key can name it
_LOCK = ".swapping"  # the same
_LOCK_PATIENCE_S = 5.0
_LOCK_PAUSE_S = 0.01
_ABANDONED_AFTER_S = 24 * 3600
_LISTING_BATCH = 512


class FileVault:
    """See `Vault` for the contract. The folder is made on first use."""

    def __init__(self, root: Path) -> None:
        """Name the folder; nothing is touched yet."""
        self._root = root
        self._durable: set[Path] = set()
        """Folders of which this process knows that their names are on the disk."""

    async def put_new(self, key: str, data: Buffer, *, retain_until_ns: int = 0) -> None:
        """Create an object; see `Vault.put_new`. There are no locks in a folder."""
        check_new_key(key)
        await asyncio.to_thread(self._put_new, key, data)

    async def swap(self, key: str, data: Buffer, before: bytes | None) -> None:
        """Replace an object that changes; see `Vault.swap`."""
        check_swapped_key(key)
        await asyncio.to_thread(self._swap, key, bytes(data), before)

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """Read a range; see `Vault.get`."""
        check_key(key)
        return await asyncio.to_thread(self._get, key, start, end)

    async def fill(self, key: str, buffer: memoryview) -> int:
        """Read into memory that is there; see `Vault.fill`."""
        check_key(key)
        return await asyncio.to_thread(self._fill, key, buffer)

    async def size(self, key: str) -> int:
        """Size in bytes; see `Vault.size`."""
        check_key(key)
        return await asyncio.to_thread(self._size, key)

    async def keys(self, prefix: str = "", after: str = "") -> AsyncIterator[str]:
        """List; see `Vault.keys`."""
        walk = self._walk("", prefix, after)
        while batch := await asyncio.to_thread(lambda: list(islice(walk, _LISTING_BATCH))):
            for key in batch:
                yield key

    async def erase(self, key: str) -> None:
        """Remove an object; see `Vault.erase`."""
        check_key(key)
        await asyncio.to_thread(self._erase, key)

    async def retain(self, key: str, until_ns: int) -> bool:
        """A folder has no locks; see `Vault.retain`."""
        await self.size(key)
        return False

    async def hold(self, key: str, *, on: bool) -> bool:
        """A folder has no locks; see `Vault.hold`."""
        await self.size(key)
        return False

    async def tidy(self) -> int:
        """Remove temporary files a crash left behind more than a day ago."""
        return await asyncio.to_thread(self._tidy)

    async def close(self) -> None:
        """Nothing is held between calls."""

    def _tidy(self) -> int:
        removed = 0
        limit = time.time() - _ABANDONED_AFTER_S
        with _translated(_STAGING):
            for file in (self._root / _STAGING).glob("*"):
                if file.stat().st_mtime < limit:
                    file.unlink(missing_ok=True)
                    removed += 1
        return removed

    def _put_new(self, key: str, data: Buffer) -> None:
        with _translated(key):
            target = self._root / key
            self._make_folder(target.parent)
            self._make_folder(self._root / _STAGING)
            staged = self._root / _STAGING / secrets.token_hex(16)
            try:
                _write_durably(staged, data)
                os.link(staged, target)
            except FileExistsError:
                # Whoever put it may have crashed before its name was on the disk, and who takes
                # it for the same object relies on it.
                _sync_folder(target.parent)
                raise Exists(f"The vault holds {key} already.", key=key) from None
            finally:
                staged.unlink(missing_ok=True)
            _sync_folder(target.parent)

    def _swap(self, key: str, data: bytes, before: bytes | None) -> None:
        with _translated(key):
            target = self._root / key
            self._make_folder(target.parent)
            self._make_folder(self._root / _STAGING)
            with _locked(self._root / _LOCK):
                try:
                    found = self._get(key, 0, None)
                except Missing:
                    found = None
                if found not in (data, before):
                    raise Fenced(f"{key} is not what it was: another has swapped it.", key=key)
                if found != data:
                    staged = self._root / _STAGING / secrets.token_hex(16)
                    try:
                        _write_durably(staged, data)
                        staged.rename(target)
                    finally:
                        staged.unlink(missing_ok=True)
                # Also when it was there: whoever put it may have crashed before this.
                _sync_folder(target.parent)

    def _get(self, key: str, start: int, end: int | None) -> bytes:
        if start < 0 or (end is not None and end < start):
            raise StoreError(f"[{start}, {end}) is not a range of {key}.", key=key)
        with _translated(key), os.fdopen(self._opened(key), "rb") as file:
            file.seek(start)
            return file.read(-1 if end is None else end - start)

    def _fill(self, key: str, buffer: memoryview) -> int:
        filled = 0
        with _translated(key), os.fdopen(self._opened(key), "rb", buffering=0) as file:
            while count := file.readinto(buffer[filled:]):
                filled += count
        return filled

    def _size(self, key: str) -> int:
        with _translated(key), os.fdopen(self._opened(key), "rb") as file:
            return os.fstat(file.fileno()).st_size

    def _opened(self, key: str) -> int:
        # A planted symlink must not make the vault read from outside its folder.
        return os.open(self._root / key, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def _erase(self, key: str) -> None:
        with _translated(key):
            target = self._root / key
            try:
                target.unlink(missing_ok=True)
            except NotADirectoryError:
                return
            if target.parent.exists():
                _sync_folder(target.parent)

    def _walk(self, folder: str, prefix: str, after: str) -> Iterator[str]:
        """Keys below `folder` ("" or ending in a slash), in order, skipping whole sub-folders."""
        with _translated(folder):
            try:
                entries = list(os.scandir(self._root / folder))
            except FileNotFoundError:
                return
            names = sorted(e.name + "/" * e.is_dir(follow_symlinks=False) for e in entries)
        for name in names:
            path = folder + name
            if not folder and name.startswith("."):
                continue
            if not name.endswith("/"):
                if path.startswith(prefix) and path > after:
                    yield path
            # Every key in there begins with `path`; none can be greater than `after` if even the
            # greatest such string is not.
            elif path.startswith(prefix) or prefix.startswith(path):
                yield from self._walk(path, prefix, after) if path + "\x7f" > after else ()

    def _make_folder(self, folder: Path) -> None:
        """Make a folder and its parents durably: each name is fsync'd in its parent.

        Also one that is there: whoever made it may have crashed before that.
        """
        if folder.is_dir() and (folder in self._durable or not folder.is_relative_to(self._root)):
            return
        if folder.parent != folder:
            self._make_folder(folder.parent)
        if folder != self._root or not folder.is_dir():
            folder.mkdir(mode=0o700, exist_ok=True)
            _sync_folder(folder.parent)
        self._durable.add(folder)


def prepare_folder(root: Path) -> list[str]:
    """Make the folder; see `prepare_vault`."""
    if root.is_dir():
        return []
    with _translated(str(root)):
        root.mkdir(mode=0o700, parents=True)
    return [f"made the folder {root}"]


async def check_folder(root: Path, *, writes: bool) -> list[Check]:
    """Look at the folder, its mode and the disk, and try an object; see `check_vault`."""
    if not await asyncio.to_thread(root.is_dir):
        hint = "`sealtape setup` or the first segment makes it."
        return [Check("vault: folder", "warning", f"{root} does not exist yet.", hint)]
    vault = FileVault(root)
    found = await (probe(vault) if writes else look(vault))
    mode, free, total = await asyncio.to_thread(_look_at, root)
    if mode & 0o077:
        message = f"{root} has mode {mode:o}: others on this host may read or list it."
        found.append(Check("vault: folder", "warning", message, f"chmod 700 {root}"))
    low = free < total / 10
    message = f"{free >> 20} MiB of {total >> 20} MiB of the disk are free."
    hint = "Make room: ingest stops when it is full." if low else ""
    found.append(Check("vault: disk", "warning" if low else "ok", message, hint))
    return found


def _look_at(root: Path) -> tuple[int, int, int]:
    """Mode of the folder; free and total bytes of its disk."""
    disk = shutil.disk_usage(root)
    return root.stat().st_mode & 0o777, disk.free, disk.total


def _write_durably(path: Path, data: Buffer) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        rest = memoryview(data).cast("B")
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file, against all processes. Raises `StoreBusy` when another keeps it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        deadline = time.monotonic() + _LOCK_PATIENCE_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StoreBusy(
                        f"Another process keeps {path.name} of the vault locked.",
                        retry_after_s=_LOCK_PATIENCE_S,
                    ) from None
            time.sleep(_LOCK_PAUSE_S)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _translated(key: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, IsADirectoryError) as error:
        raise Missing(f"The vault holds no {key}.", key=key) from error
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StoreFull(f"No room for {key}.", hint="Free disk space.", key=key) from error
        raise StoreError(f"The vault failed on {key}: {error.strerror}.", key=key) from error
