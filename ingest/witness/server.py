"""A witness's HTTP server: `POST /add-checkpoint`, and nothing else."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path

from sealtape.capture.inbound import TEXT, Asked, Inbound, Reply, plain
from sealtape.ingest.witness.cosigner import Admit, Witness
from sealtape.ingest.witness.memory import Memory
from sealtape.schemas.notes import NoteVerifier
from sealtape.schemas.tlog.keyfiles import PrivateHalf
from sealtape.schemas.tlog.witnessing import MAX_REQUEST, Refusal

__all__ = ["WitnessServer", "open_witness"]

PATH = "/add-checkpoint"
KEEP_S = 30.0
"""How long a connection may wait for its next checkpoint: longer than logs usually take to grow."""


class WitnessServer:
    """Answers for one witness; `close` closes that too."""

    def __init__(self, witness: Witness, *, secure: bool) -> None:
        self.witness = witness
        self._secure = secure
        self._inbound = Inbound(self._answer, max_body=MAX_REQUEST, keep_s=KEEP_S)

    @property
    def address(self) -> str:
        """`host:port` where it answers; empty while it does not."""
        return self._inbound.address

    @property
    def url(self) -> str:
        """What a policy names, as seen from this host."""
        return f"{'https' if self._secure else 'http'}://{self.address}"

    async def open(self, address: str, tls: ssl.SSLContext | None = None) -> None:
        """Listen on `host:port`; raises `TargetError`."""
        hint = "Choose another address, or stop what uses that one."
        await self._inbound.open(address, what="requests to cosign", hint=hint, tls=tls)

    async def close(self) -> None:
        """Stop listening, carry through what was begun, let go of the memory."""
        await self._inbound.close()
        await self.witness.close()

    async def _answer(self, asked: Asked) -> Reply:
        if asked.path != PATH:
            return plain(HTTPStatus.NOT_FOUND)
        if asked.method != "POST":
            return plain(HTTPStatus.METHOD_NOT_ALLOWED, Allow="POST")
        try:
            return Reply(HTTPStatus.OK, TEXT, await self.witness.cosign(asked.body))
        except Refusal as refusal:
            return Reply(HTTPStatus(refusal.status), refusal.kind, refusal.body)


async def open_witness(
    *,
    state: Path,
    listen: str,
    keys: Sequence[PrivateHalf],
    logs: Sequence[NoteVerifier],
    admit: Admit | None = None,
    tls: ssl.SSLContext | None = None,
    clock_s: Callable[[], float] = time.time,
) -> WitnessServer:
    """Open a witness's memory in the folder `state`, and answer on `listen` (`host:port`).

    The rest is as for `Witness`; with `tls` it speaks HTTPS. Raises `StoreBusy`, `StoreCorrupt`,
    `StoreError`, `SettingsError` and `TargetError`.
    """
    memory = await asyncio.to_thread(Memory, state)
    try:
        witness = await asyncio.to_thread(Witness, memory, keys, logs, admit=admit, clock_s=clock_s)
        server = WitnessServer(witness, secure=tls is not None)
        await server.open(listen, tls)
    except BaseException:
        memory.close()
        raise
    return server
