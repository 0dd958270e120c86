"""A worker's spool folder, its lock, and the folders that dead workers left behind.

`ROOT/NODE-BOOT-WORKER/` belongs to whoever holds the lock on its `lock` file; the kernel lets go of
it when a process dies, however it dies.
"""

from __future__ import annotations

import fcntl
import os
import re
import struct
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from sealtape.capture.files import (
    DIRECTORY_MODE,
    FILE_MODE,
    AppendFile,
    create_file,
    locked,
    mapped,
    sync_directory,
)
from sealtape.capture.spool.files import SUFFIX, SpoolFile
from sealtape.capture.spool.lane import Budget, LaneFiles
from sealtape.capture.spool.records import FRAMES, SALT_SIZE, FileKey

FILE_BYTES = 64 << 20
RECOVERY = f"recovery{SUFFIX}"

_NAME = re.compile(r"(?P<node>.+)-(?P<boot>[0-9a-f]{32})-(?P<worker>[0-9]+)")
_SLOT = struct.Struct(">QI")


class Spool:
    """The spool of one worker of one boot; it belongs to one event loop."""

    def __init__(
        self,
        root: Path,
        *,
        node: str,
        boot: bytes,
        worker: int,
        key: bytes,
        limit: int,
        file_bytes: int = FILE_BYTES,
        create: Callable[[Path], AppendFile] = create_file,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """Create the worker's folder and lock it."""
        self.root = root
        self.node = node
        self.key = key
        self.budget = Budget(limit)
        self._create = create
        self._random = random
        self._file_bytes = max(min(file_bytes, limit // 8), 1 << 12)
        self.folder = root / f"{node}-{boot.hex()}-{worker}"
        with mapped("create", self.folder):
            root.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
            with _root_lock(root):
                self.folder.mkdir(mode=DIRECTORY_MODE)
                self._lock = _try_lock(self.folder)
        self._counter = _Counter(self.folder)
        sync_directory(self.folder)
        sync_directory(root)

    def lane(self, name: str, *, sync: bool, keeps: bool = False) -> LaneFiles:
        """Return the files of a lane; ask once for each. Where it `keeps`, they await receipts."""
        return LaneFiles(
            self.folder,
            name,
            spool_key=self.key,
            budget=self.budget,
            file_bytes=self._file_bytes,
            sync=sync,
            keeps=keeps,
            create=self._create,
            random=self._random,
        )

    def reserve(self, number: int) -> None:
        """Write durably that sessions up to `number` may exist (waits for the disk)."""
        self._counter.write(number)

    def claim_orphans(self) -> list[Orphan]:
        """Lock and return the folders of dead workers of this node, oldest boot first."""
        claimed: list[Orphan] = []
        with mapped("list", self.root), _root_lock(self.root):
            for folder in sorted(self.root.iterdir(), key=lambda path: path.stat().st_mtime_ns):
                match = _NAME.fullmatch(folder.name)
                if match is None or match["node"] != self.node or folder == self.folder:
                    continue
                lock = _try_lock(folder)
                if lock is not None:
                    claimed.append(Orphan(folder, lock, self))
        return claimed

    def close(self, *, remove: bool) -> None:
        """Let go of the folder; `remove` deletes it (everything in it was acknowledged)."""
        self._counter.close()
        if remove:
            _remove(self.folder)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


class Orphan:
    """The folder of a dead worker; locked, so nobody else adopts it."""

    def __init__(self, folder: Path, lock: int, spool: Spool) -> None:
        """Take over the lock and count what the folder takes."""
        self.folder = folder
        match = _NAME.fullmatch(folder.name)
        if match is None:
            raise ValueError(folder.name)
        self.boot = bytes.fromhex(match["boot"])
        self.worker = int(match["worker"])
        self.numbers, self.counted = _Counter.read(folder)
        self._lock = lock
        self._spool = spool
        self._bytes = sum(path.stat().st_size for path in self.files())
        spool.budget.add(self._bytes)

    def files(self) -> list[Path]:
        """Return the folder's spool files, each lane in the order of writing, recovery last."""
        found = sorted(path for path in self.folder.glob(f"*{SUFFIX}") if path.name != RECOVERY)
        recovery = self.folder / RECOVERY
        return [*found, recovery] if recovery.exists() else found

    @property
    def recovered(self) -> bool:
        """True when the recovery epochs of this folder were made by an earlier attempt."""
        return (self.folder / RECOVERY).exists()

    def keep_recovery(self, records: list[list[bytes]]) -> None:
        """Put the finished recovery epochs down, all or nothing, before any of it is shipped.

        So a crash never leads to a second epoch with the same name and other content: either this
        file is there and is shipped as it is, or nothing of it ever left the process.
        """
        draft = self.folder / f"{RECOVERY}.draft"
        with mapped("write", draft):
            draft.unlink(missing_ok=True)
        key = FileKey(self._spool.key, self._spool._random(SALT_SIZE))  # noqa: SLF001 - its own
        file = SpoolFile(draft, key, self._spool._create, sync=False)  # noqa: SLF001 - its own
        try:
            for pieces in records:
                file.write([(FRAMES, pieces)])
            file.sync()
        finally:
            file.close()
        with mapped("rename", draft):
            draft.rename(self.folder / RECOVERY)
        sync_directory(self.folder)

    def remove(self, *, damaged: bool) -> None:
        """Delete the folder: the bus has everything; a damaged one is kept under another name."""
        if damaged:
            with mapped("rename", self.folder), _root_lock(self.folder.parent):
                self.folder.rename(self.folder.with_name(f"{self.folder.name}.damaged"))
        else:
            _remove(self.folder)
        self.release()

    def release(self) -> None:
        """Let go of the folder and leave it for the next start."""
        if self._lock >= 0:
            lock, self._lock = self._lock, -1
            os.close(lock)
            self._spool.budget.add(-self._bytes)


class _Counter:
    """The highest session number that may be in use, in two slots so that one is always whole."""

    def __init__(self, folder: Path) -> None:
        path = folder / "counter"
        with mapped("create", path):
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._fd = os.open(path, flags, FILE_MODE)
            os.ftruncate(self._fd, 2 * _SLOT.size)
        self._path = path
        self._writes = 0

    def write(self, number: int) -> None:
        """Put the number down durably, in the slot that was not written last."""
        packed = number.to_bytes(8, "big")
        with mapped("write", self._path):
            os.pwrite(
                self._fd, _SLOT.pack(number, zlib.crc32(packed)), self._writes % 2 * _SLOT.size
            )
            os.fdatasync(self._fd)
        self._writes += 1

    def close(self) -> None:
        """Close."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    @staticmethod
    def read(folder: Path) -> tuple[int, bool]:
        """Return the highest number a dead worker put down, 0 when none; whether all is whole."""
        try:
            data = (folder / "counter").read_bytes()
        except OSError:
            return 0, False
        numbers, whole = [0], len(data) == 2 * _SLOT.size
        for at in range(0, len(data) - _SLOT.size + 1, _SLOT.size):
            number, crc = _SLOT.unpack_from(data, at)
            if crc == zlib.crc32(number.to_bytes(8, "big")):
                numbers.append(number)
            elif number or crc:
                whole = False
        return max(numbers), whole


def _root_lock(root: Path) -> AbstractContextManager[None]:
    """Keep others from adopting a folder between its creation and its lock, or while it goes."""
    return locked(root / ".lock")


def _try_lock(folder: Path) -> int | None:
    """Return the locked descriptor, or None when a living process holds it."""
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def _remove(folder: Path) -> None:
    """Delete a folder of ours; the lock goes last, so that a crash leaves an orphan again.

    What says which sessions are over goes after the files that speak of them: an adopter of what
    a crash leaves would end those once more. Another worker that looks for orphans sees all of the
    folder or nothing.
    """

    def order(path: Path) -> tuple[bool, bool, bool]:
        return path.name == "lock", path.name == RECOVERY, path.suffix != SUFFIX

    with mapped("delete", folder), _root_lock(folder.parent):
        for path in sorted(folder.iterdir(), key=order):
            path.unlink()
        folder.rmdir()
