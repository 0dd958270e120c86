"""What a witness has seen, so that no crash makes it forget.

::

    DIR/lock                     held while a witness runs on the folder
    DIR/seen/ID.checkpoint       the last checkpoint that it cosigned, with its own lines
    DIR/refused/ID/SHA256        requests that a log signed and that contradict what was seen

ID is the beginning of the SHA-256 of the log's origin. A checkpoint there is signed, by the log and
by the witness itself, and is verified when it is read: a damaged one stops the witness instead of
making it begin anew. Whoever puts back an old copy of the folder makes it forget all the same.

Its methods block, and none runs beside another of the same log.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

from sealtape.capture.files import DIRECTORY_MODE, FILE_MODE, mapped, sync_directory, write_atomic
from sealtape.schemas import notes
from sealtape.schemas.errors import FormatError, StoreBusy, StoreCorrupt

__all__ = ["Memory"]

MAX_REFUSED: Final = 100
"""Requests that are kept of one log; only who holds the log's key can fill this."""

_RETRY_S: Final = 5.0


class Memory:
    """The folder of one witness; `close` lets another have it.

    Raises `StoreBusy` when another process has it, and `StoreError`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for path in (folder, folder / "seen", folder / "refused"):
            with mapped("create", path):
                path.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
            sync_directory(path.parent)
        with mapped("open", folder / "lock"):
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._lock = os.open(folder / "lock", flags, FILE_MODE)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            self.close()
            raise StoreBusy(
                f"Another witness runs on {folder}.",
                retry_after_s=_RETRY_S,
                hint="One memory has one witness: stop the other, or name another folder.",
            ) from exc

    def recall(self, origin: str, keys: Sequence[notes.NoteVerifier]) -> notes.Note | None:
        """Return the last checkpoint of a log that was kept; None when there never was one.

        `keys` are the witness's own and those it trusts for the log; one of them signed it, or
        `StoreCorrupt` is raised.
        """
        path = self._seen(origin)
        with mapped("read", path):
            try:
                note = path.read_bytes()
            except FileNotFoundError:
                return None
        try:
            opened = notes.open_note(note, keys)
            checkpoint = notes.parse_checkpoint(opened.text)
            if checkpoint.origin != origin:
                raise FormatError(f"it is of {checkpoint.origin}")
        except FormatError as exc:
            raise StoreCorrupt(
                f"{path} is not what this witness has seen of {origin}: {exc.message}.",
                hint="Restore the file as it was last; an older copy would let the log fork.",
            ) from exc
        return opened

    def keep(self, origin: str, note: bytes) -> None:
        """Replace what was seen of a log; on the disk when this returns."""
        write_atomic(self._seen(origin), note)

    def convict(self, origin: str, request: bytes) -> Path | None:
        """Keep a request that contradicts what was seen; None when there are enough of them."""
        folder = self._folder / "refused" / _id(origin)
        with mapped("create", folder):
            folder.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
            kept = {path.name for path in folder.iterdir()}
        name = sha256(request).hexdigest()
        if name not in kept:
            if len(kept) >= MAX_REFUSED:
                return None
            write_atomic(folder / name, request)
        return folder / name

    def close(self) -> None:
        """Let go of the folder; closing again does nothing."""
        if self._lock >= 0:
            lock, self._lock = self._lock, -1
            os.close(lock)

    def _seen(self, origin: str) -> Path:
        return self._folder / "seen" / f"{_id(origin)}.checkpoint"


def _id(origin: str) -> str:
    return sha256(origin.encode()).hexdigest()[:32]
