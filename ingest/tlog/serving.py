"""The log over HTTP: its tiles, its newest witnessed checkpoint, and receipts (receipts.md).

Capture nodes, monitors and whoever verifies read it. All that it says is signed or hashed by what
is signed, so nobody has to trust the server or the way to it.
"""

from __future__ import annotations

import re
import ssl
from http import HTTPStatus
from pathlib import Path
from typing import Final

from sealtape.capture.inbound import TEXT, Asked, Inbound, Reply, plain
from sealtape.ingest.ledger import Ledger
from sealtape.ingest.tlog.names import seal_name
from sealtape.ingest.tlog.publish import checkpoint_of
from sealtape.ingest.tlog.store import CHECKPOINT, LogStore
from sealtape.ingest.vault import Vault
from sealtape.schemas.errors import FormatError, SettingsError, StoreCorrupt
from sealtape.schemas.settings import LogSettings
from sealtape.schemas.tlog.proof import LogProof
from sealtape.schemas.tlog.tiles import Tile
from sealtape.schemas.tree import inclusion_ranges

__all__ = ["LogServer", "Receipts", "serve_log"]

CONNECTIONS: Final = 256
"""Requests that are answered at the same time: readers of a log ask for many tiles at once."""
OCTETS: Final = "application/octet-stream"
_LOG = re.compile(r"/log/([1-9][0-9]{0,8})/(checkpoint|tile/.+)", re.ASCII)
_RECEIPT = re.compile(r"/receipt/([0-9a-f]{32})/(0|[1-9][0-9]{0,9})", re.ASCII)


class Receipts:
    """Finds what is witnessed: the newest checkpoint, and the seals under it."""

    def __init__(self, ledger: Ledger, vault: Vault) -> None:
        """Only read; the stores stay the caller's to close."""
        self._ledger = ledger
        self._vault = vault

    async def beacon(self) -> bytes:
        """The newest witnessed checkpoint; empty before the first. Raises StoreError."""
        number = (await self._ledger.log_state()).number
        note = await self.checkpoint(number) if number else b""
        if not note and number > 1:  # of a shard that has just begun nothing is witnessed yet
            note = await self.checkpoint(number - 1)
        return note

    async def checkpoint(self, number: int) -> bytes:
        """The newest witnessed checkpoint of a shard; empty where there is none."""
        return await LogStore(self._vault, number).get(CHECKPOINT)

    async def receipt(self, session: bytes, epoch: int) -> bytes:
        """The proof of an epoch's seal; empty while it is not witnessed. Raises StoreError."""
        name = seal_name(session, epoch)
        place = (await self._ledger.log_find([name])).get(name)
        if place is None:
            return b""
        number, index = place
        note = await self.checkpoint(number)
        checkpoint = checkpoint_of(note)
        if checkpoint is None or checkpoint.size <= index:
            return b""
        size, store = checkpoint.size, LogStore(self._vault, number)
        path = await store.roots(inclusion_ranges(index, size), size)
        (found,) = await self._ledger.log_entries(number, index, 1)
        proof = LogProof(index, tuple(path), note, found.entry)
        try:
            proof.check(found.entry, checkpoint)
            return proof.encode()
        except FormatError as error:
            raise StoreCorrupt(
                f"The ledger's entry {index} of the log's shard {number} is not the one in the"
                f" vault's tree: {error.message}.",
                hint="`sealtape ledger rebuild` brings the ledger up to the vault.",
            ) from error


class LogServer:
    """Answers for one log."""

    def __init__(self, ledger: Ledger, vault: Vault, *, secure: bool = False) -> None:
        """`secure` is whether it will speak TLS. The stores stay the caller's to close."""
        self._receipts = Receipts(ledger, vault)
        self._vault = vault
        self._secure = secure
        self._inbound = Inbound(self._answer, connections=CONNECTIONS)

    @property
    def address(self) -> str:
        """`host:port` where it answers; empty while it does not."""
        return self._inbound.address

    @property
    def url(self) -> str:
        """What `capture.log` names, as seen from this host; empty while it does not answer."""
        scheme = "https" if self._secure else "http"
        return f"{scheme}://{self.address}" if self.address else ""

    async def open(self, address: str, tls: ssl.SSLContext | None = None) -> None:
        """Listen on `host:port`; raises `TargetError`."""
        hint = "Change `log.serve`, or stop what uses that address."
        await self._inbound.open(address, what="readers of the log", hint=hint, tls=tls)

    async def close(self) -> None:
        """Stop listening, and cut off who is being answered."""
        await self._inbound.close()

    async def _answer(self, asked: Asked) -> Reply:
        if asked.method not in {"GET", "HEAD"}:
            return plain(HTTPStatus.METHOD_NOT_ALLOWED, Allow="GET, HEAD")
        kind, body = await self._read(asked.path)
        return Reply(HTTPStatus.OK, kind, body) if body else plain(HTTPStatus.NOT_FOUND)

    async def _read(self, path: str) -> tuple[str, bytes]:
        """What is at a path, and its media type; empty where nothing is."""
        if path == "/beacon":
            return TEXT, await self._receipts.beacon()
        if match := _RECEIPT.fullmatch(path):
            return TEXT, await self._receipts.receipt(bytes.fromhex(match[1]), int(match[2]))
        match = _LOG.fullmatch(path)
        if match is None:
            return TEXT, b""
        number, name = int(match[1]), match[2]
        if name == CHECKPOINT:
            return TEXT, await self._receipts.checkpoint(number)
        try:
            tile = Tile.from_path(name)
        except FormatError:
            return TEXT, b""
        return OCTETS, await LogStore(self._vault, number).get(tile.path)


async def serve_log(
    settings: LogSettings, base: Path, ledger: Ledger, vault: Vault, *, address: str = ""
) -> LogServer:
    """Serve the log as `log.serve` says, or on `address` where that is empty; with neither, not.

    Raises `SettingsError` and `TargetError`.
    """
    address = settings.serve or address
    tls = _tls(settings, base) if address and settings.tls_certificate else None
    server = LogServer(ledger, vault, secure=tls is not None)
    if address:
        await server.open(address, tls)
    return server


def _tls(settings: LogSettings, base: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(
            base / settings.tls_certificate, base / settings.tls_key if settings.tls_key else None
        )
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"The certificate {settings.tls_certificate} of the log's server, or its key, cannot"
            " be read.",
            hint="log.tls_certificate and log.tls_key name PEM files.",
        ) from error
    return context
