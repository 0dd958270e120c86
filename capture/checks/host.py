"""What a capture node needs of its host: a disk to spool on, a run folder, descriptors."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import stat
import tempfile
import time
from pathlib import Path
from typing import Final

from sealtape.capture.checkup import Check
from sealtape.schemas.settings import Settings

__all__ = ["check_host"]

SLOW_SYNC_S: Final = 0.1
FILES_PER_CONNECTION: Final = 2
OTHER_FILES: Final = 200
_MEMORY: Final = frozenset({"tmpfs", "ramfs"})


def check_host(settings: Settings) -> list[Check]:
    """Look at the spool's disk, the run folder and the limit on open files. Blocks on the disk."""
    base = Path(settings.base)
    return [
        *_spool(base / settings.capture.spool, settings),
        _run_folder(base / "run"),
        _descriptors(settings.capture.max_connections),
    ]


def _spool(folder: Path, settings: Settings) -> list[Check]:
    name, place = "spool: folder", _nearest(folder)
    try:
        took_s = _try_disk(place)
    except OSError as exc:
        message = f"{place} cannot be written: {exc.strerror or exc}."
        return [Check(name, "error", message, "capture.spool names it; it must be ours.")]
    told = f"{folder} can be written; a write is on the disk after {took_s * 1000:.0f} ms."
    hint = "A session at level `durable` waits that long for each of its steps."
    found = [Check(name, "warning" if took_s > SLOW_SYNC_S else "ok", told, hint)]
    if settings.deployment.mode != "dev" and _kind(place) in _MEMORY:
        message = f"{folder} is in memory: what is spooled there is lost with the host."
        found.append(Check(name, "error", message, "Put the spool on a disk."))
    return [*found, _room(place, folder, settings)]


def _nearest(folder: Path) -> Path:
    """Return the folder, or what is there of the way to it."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _try_disk(folder: Path) -> float:
    """Write and sync 4 KiB in a file without a name; return how long the sync took, in seconds."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(4096))
        file.flush()
        start = time.monotonic()
        os.fdatasync(file.fileno())
        return time.monotonic() - start


def _kind(folder: Path) -> str:
    """Return the kind of file system a folder is on; empty where that cannot be known."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = [line.split()[1:3] for line in mounts.splitlines()]
    here = folder.resolve()
    at = [(len(point), kind) for point, kind in found if here.is_relative_to(point)]
    return max(at, default=(0, ""))[1]


def _room(place: Path, folder: Path, settings: Settings) -> Check:
    name, capture = "spool: room", settings.capture
    limit = capture.spool_limit * capture.workers
    used = _size(folder)
    free = shutil.disk_usage(place).free
    told = f"{free >> 20} MiB are free, {used >> 20} of at most {limit >> 20} MiB are in use."
    if used + free < limit // 10:
        hint = "Make room: sessions stall and end when nothing can be spooled."
        return Check(name, "error", told, hint)
    if used + free < limit:
        hint = "Make room, or lower capture.spool_limit: the disk is full before it is reached."
        return Check(name, "warning", told, hint)
    return Check(name, "ok", told)


def _size(folder: Path) -> int:
    """Return the bytes of all files below a folder; a running node deletes some meanwhile."""
    size = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            found = path.stat()
            size += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return size


def _run_folder(folder: Path) -> Check:
    name, place = "node: run folder", _nearest(folder)
    if not os.access(place, os.W_OK | os.X_OK):
        message = f"{folder} cannot be made or written."
        hint = "Let the user that runs capture write to the folder of sealtape.toml, or make `run`."
        return Check(name, "error", message, hint)
    return Check(name, "ok", f"{folder} can be written.")


def _descriptors(connections: int) -> Check:
    name = "node: open files"
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_PER_CONNECTION * connections + OTHER_FILES
    told = f"{limit} files may be open; {connections} connections a worker need {wanted}."
    if limit != resource.RLIM_INFINITY and limit < wanted:
        hint = "Raise it (ulimit -n, LimitNOFILE), or lower capture.max_connections."
        return Check(name, "warning", told, hint)
    return Check(name, "ok", told)
