"""The log's signer as a process of its own, asked over a Unix socket: `sealtape signer`.

The log worker needs the signatures and never the keys, so the keys may belong to another user of
the host. A request is a line of canonical JSON, an answer another; the socket is open to its owner
only (mode 0600), or to the group that its folder's permissions let in.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from sealtape.capture.files import mapped
from sealtape.ingest.tlog.signer import LogSigner
from sealtape.schemas import canonical
from sealtape.schemas.canonical import Fields, Json
from sealtape.schemas.errors import (
    FormatError,
    Missing,
    SealtapeError,
    SettingsError,
    SignatureError,
    StoreBusy,
    StoreCorrupt,
    StoreError,
)
from sealtape.schemas.notes import MAX_TREE_SIZE
from sealtape.schemas.tree import HASH_SIZE

__all__ = ["SignerServer", "SocketSigner"]

MAX_LINE: Final = 1 << 18
ANSWER_S: Final = 10.0
RETRY_S: Final = 2.0
_MAX_PROOF: Final = 63
_KNOWN: Final[tuple[type[SealtapeError], ...]] = (
    SignatureError,
    StoreCorrupt,
    Missing,
    SettingsError,
    StoreError,
)

log = logging.getLogger(__name__)

T = TypeVar("T")


class SocketSigner:
    """See `LogSigner` for the contract; nothing is asked before the first call."""

    def __init__(self, path: Path) -> None:
        """Ask at this socket."""
        self._path = path

    async def signed(self, origin: str) -> int | None:
        return await self._ask({"v": 1, "ask": "signed", "origin": origin}, _size)

    async def sign(self, old_size: int, proof: Sequence[bytes], text: str) -> bytes:
        question: dict[str, Json] = {
            "v": 1,
            "ask": "sign",
            "old_size": str(old_size),
            "proof": [item.hex() for item in proof],
            "text": text,
        }
        return await self._ask(question, _note)

    async def close(self) -> None:
        """Nothing is held: each question has its own connection."""

    async def _ask(self, question: dict[str, Json], read: Callable[[Fields], T]) -> T:
        line = canonical.encode(question) + b"\n"
        try:
            answer = await asyncio.wait_for(self._exchange(line), ANSWER_S)
        except (OSError, TimeoutError, asyncio.LimitOverrunError, ValueError) as error:
            raise StoreBusy(
                f"The log's signer at {self._path} does not answer ({type(error).__name__}).",
                retry_after_s=RETRY_S,
                hint="Start `sealtape signer`; log.signer names its socket.",
            ) from error
        try:
            fields = canonical.fields(answer, "signer's answer")
            fields.version(1)
            if fields.has("error"):
                _raise(fields)
            found = read(fields)
            fields.end()
        except SignatureError:
            raise
        except FormatError as error:
            raise StoreError(f"What answers at {self._path} is no signer of a log.") from error
        return found

    async def _exchange(self, line: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(str(self._path), limit=MAX_LINE)
        try:
            writer.write(line)
            await writer.drain()
            answer = await reader.readline()
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        if not answer.endswith(b"\n"):
            raise ConnectionError("it hung up")
        return answer[:-1]


def _size(fields: Fields) -> int | None:
    return None if fields.null("size") else fields.decimal("size", 0, MAX_TREE_SIZE)


def _note(fields: Fields) -> bytes:
    return fields.text("note", max_bytes=MAX_LINE).encode()


def _raise(fields: Fields) -> None:
    code, message, hint = fields.text("error"), fields.text("message"), fields.text("hint")
    for kind in _KNOWN:
        if kind.code == code:
            raise kind(message, hint=hint)
    raise StoreError(message, hint=hint)


class SignerServer:
    """Answers at a Unix socket with what a signer in this process says."""

    def __init__(self, signer: LogSigner, path: Path) -> None:
        """Answer for `signer` at `path`; `start` begins."""
        self._signer = signer
        self._path = path
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. A socket that a dead process left is replaced; a live one is not."""
        if await self._answers():
            raise SettingsError(
                f"Another signer answers at {self._path}.", hint="End it before you start this one."
            )
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with mapped("listen at", self._path):
                self._path.unlink(missing_ok=True)
                before = os.umask(0o177)  # the socket is never open to others, not for a moment
                try:
                    listening.bind(str(self._path))
                finally:
                    os.umask(before)
            self._server = await asyncio.start_unix_server(
                self._answer, sock=listening, limit=MAX_LINE
            )
        except BaseException:
            listening.close()
            raise

    async def stop(self) -> None:
        """Close the socket and remove it."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None
            self._path.unlink(missing_ok=True)

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.open_unix_connection(str(self._path))
        except OSError:
            return False
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        return True

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(ANSWER_S):
                line = await reader.readline()
                if line:
                    writer.write(canonical.encode(await self._reply(line)) + b"\n")
                    await writer.drain()
        except (OSError, TimeoutError, ValueError) as error:
            log.warning("a question to the log's signer was not answered: %s", error)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _reply(self, line: bytes) -> dict[str, Json]:
        try:
            return {"v": 1, **await self._work(line.removesuffix(b"\n"))}
        except SealtapeError as error:
            log.warning("the log's signer: %s", error)
            return {"v": 1, "error": error.code, "message": error.message, "hint": error.hint}

    async def _work(self, line: bytes) -> dict[str, Json]:
        fields = canonical.fields(line, "question")
        fields.version(1)
        if fields.text("ask", choices=("signed", "sign")) == "signed":
            origin = fields.text("origin", max_bytes=512)
            fields.end()
            size = await self._signer.signed(origin)
            return {"size": None if size is None else str(size)}
        old_size = fields.decimal("old_size", 0, MAX_TREE_SIZE)
        proof = fields.hexes("proof", HASH_SIZE, max_items=_MAX_PROOF)
        text = fields.text("text", max_bytes=4096)
        fields.end()
        note = await self._signer.sign(old_size, proof, text)
        return {"note": note.decode()}
