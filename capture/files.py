"""The file layer under the spool and the `dir:` bus, kept tiny so that tests can make it fail.

`AppendFile` is the only place of capture that writes evidence to a disk. Whatever it raises is a
`StoreError`; `ENOSPC` and `EDQUOT` become `StoreFull`.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from sealtape.schemas.errors import StoreError, StoreFull

IOV_MAX = 1024
FILE_MODE = 0o600
DIRECTORY_MODE = 0o700


def store_error(exc: OSError, action: str, path: Path | str) -> StoreError:
    """Return the `StoreFull` or `StoreError` for an `OSError`, naming the file and the action."""
    text = f"Cannot {action} {path}: {exc.strerror or exc}."
    if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StoreFull(text, hint="Free space on this disk.")
    return StoreError(text, hint="Check the disk and the permissions.")


@contextmanager
def mapped(action: str, path: Path | str) -> Iterator[None]:
    """Turn an `OSError` into what `store_error` makes of it."""
    try:
        yield
    except OSError as exc:
        raise store_error(exc, action, path) from exc


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Be the only process that has this file's lock; it is made if need be, and stays."""
    with mapped("lock", path):
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        with mapped("lock", path):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


class AppendFile:
    """One file that only grows; the caller keeps track of where its last good record ends.

    `size` counts the bytes that `write` was able to put down, also of a write that failed half-way.
    """

    __slots__ = ("_fd", "path", "size")

    def __init__(self, path: Path, *, create: bool) -> None:
        """Open for appending; with `create` the file must not exist yet."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
        if create:
            flags |= os.O_CREAT | os.O_EXCL
        self.path = path
        with mapped("open", path):
            self._fd = os.open(path, flags, FILE_MODE)
            self.size = os.fstat(self._fd).st_size

    def write(self, pieces: Sequence[bytes]) -> None:
        """Append all pieces in order, in one system call where the kernel takes them in one."""
        pending = list(pieces)
        try:  # not `mapped`: this is the hot path
            while pending:
                done = os.writev(self._fd, pending[:IOV_MAX])
                self.size += done
                pending = _rest(pending, done)
        except OSError as exc:
            raise store_error(exc, "write to", self.path) from exc

    def sync(self) -> None:
        """Return when everything written is on the disk (fdatasync)."""
        with mapped("sync", self.path):
            os.fdatasync(self._fd)

    def truncate(self, size: int) -> None:
        """Cut the file back to `size` bytes."""
        with mapped("truncate", self.path):
            os.ftruncate(self._fd, size)
        self.size = size

    def refresh(self) -> int:
        """Return the size the file has now (another process may have appended)."""
        with mapped("look at", self.path):
            self.size = os.fstat(self._fd).st_size
        return self.size

    def close(self) -> None:
        """Close; closing again does nothing."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            with mapped("close", self.path):
                os.close(fd)


def create_file(path: Path) -> AppendFile:
    """Create a new file to append to."""
    return AppendFile(path, create=True)


def open_file(path: Path) -> AppendFile:
    """Open an existing file to append to."""
    return AppendFile(path, create=False)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable (a new, renamed or deleted file)."""
    with mapped("sync", path):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def write_atomic(path: Path, data: bytes) -> None:
    """Put `data` under `path` so that a reader, or a crash, sees the old content or the new one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    with mapped("write", path):
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
        try:
            _write_all(fd, data)
            draft.replace(path)
        except BaseException:
            with suppress(OSError):
                draft.unlink()
            raise
    sync_directory(path.parent)


def _write_all(fd: int, data: bytes) -> None:
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fdatasync(fd)
    finally:
        os.close(fd)


def _rest(pieces: list[bytes], done: int) -> list[bytes]:
    """Return what is left of `pieces` after the first `done` bytes."""
    for index, piece in enumerate(pieces):
        if done < len(piece):
            return [piece[done:], *pieces[index + 1 :]]
        done -= len(piece)
    return []
