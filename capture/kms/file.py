"""A private key in a file of its own, readable by its owner alone."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from sealtape.capture.files import mapped, sync_directory, write_atomic
from sealtape.schemas.errors import Exists, KeyUnavailable
from sealtape.schemas.wraps import PrivateKey

__all__ = ["FileKms", "write_new"]


class FileKms:
    """See `Kms` for the contract."""

    def __init__(self, path: Path) -> None:
        """Name the file."""
        self._path = path

    def read(self) -> PrivateKey:
        """Read the key; see `Kms.read`."""
        try:
            text = self._path.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise KeyUnavailable(
                f"The private key {self._path} cannot be read.",
                hint="It lies only where its reader is.",
            ) from error
        return PrivateKey.from_text(text)

    def keep(self, private: PrivateKey) -> None:
        """Write the file, mode 0600; see `Kms.keep`."""
        write_new(self._path, private.text())


def write_new(path: Path, text: str) -> None:
    """Create a file with mode 0600, whole or not at all. Raises `Exists` and `StoreError`."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        write_atomic(draft, text.encode("ascii"))
        with mapped("create", path):
            try:
                os.link(draft, path)
            except FileExistsError:
                message = f"{path} exists already, and nothing is ever overwritten."
                raise Exists(message, hint="Choose another name.") from None
    finally:
        draft.unlink(missing_ok=True)
    sync_directory(path.parent)
