"""The port to whoever holds the log's keys.

The log worker asks it to sign checkpoints. It signs only what goes on from what it signed before,
so a worker that is mistaken, restored from an old copy or in another's hands cannot make it fork
the log: `schemas.tlog.witnessing.grown` is the rule, the same as a witness's.

`file:PATH` keeps the keys in this process's own folder (`file:PATH?state=FILE` where that may not
be written), `unix:SOCKET` asks a `sealtape signer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from sealtape.schemas.errors import SettingsError
from sealtape.schemas.urls import shown_url

__all__ = ["LogSigner", "open_signer"]


class LogSigner(Protocol):
    """Signs checkpoints as the log.

    * Errors MUST be of the `SealtapeError` tree: `Missing` for an origin it has no key of,
      `SignatureError` for what it refuses to sign, `StoreError` for what may pass by itself.
    * What it has signed MUST survive a crash of its host before anybody sees the signature.
    """

    async def signed(self, origin: str) -> int | None:
        """The size of the largest tree it has signed for `origin`; None when it has no key."""
        ...

    async def sign(self, old_size: int, proof: Sequence[bytes], text: str) -> bytes:
        """A checkpoint's text as a signed note.

        `old_size` MUST be what `signed` says, and `proof` show that the tree signed then is a
        prefix of the one to sign (empty from 0, and for the same tree again). MUST raise
        `SignatureError` otherwise.
        """
        ...

    async def close(self) -> None:
        """Release what the adapter holds. Closing twice is fine."""
        ...


async def open_signer(url: str, base: Path) -> LogSigner:
    """Open the signer that `log.signer` names, relative to `base`. Raises `SettingsError`."""
    scheme, _, rest = url.partition(":")
    if scheme == "file" and rest:
        from sealtape.ingest.tlog.signer_file import FileSigner

        path, _, state = rest.partition("?state=")
        return await FileSigner.open(base / path, base / state if state else None)
    if scheme == "unix" and rest:
        from sealtape.ingest.tlog.signer_socket import SocketSigner

        return SocketSigner(base / rest)
    raise SettingsError(
        f"log.signer: {shown_url(url)!r} does not name a signer.",
        hint="Write file:PATH of the log's key, or unix:PATH of the socket of `sealtape signer`.",
    )
