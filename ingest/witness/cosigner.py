"""A witness without its network: requests in, cosignatures out, what was seen kept in between.

Whatever happens to who asked, a request that was begun is carried through: what was seen and what
was cosigned are never apart, and requests of one log take turns.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from sealtape.ingest.witness.memory import Memory
from sealtape.schemas import notes
from sealtape.schemas.cosignatures import ED25519, ML_DSA_44, cosign, cosigned_at
from sealtape.schemas.errors import SettingsError, StoreError
from sealtape.schemas.tlog.keyfiles import PrivateHalf
from sealtape.schemas.tlog.witnessing import (
    Conflict,
    Inconsistent,
    Refusal,
    Request,
    Seen,
    UnknownLog,
    decide,
    parse_request,
)

__all__ = ["Admit", "Witness", "WitnessSnapshot"]

MAX_BACK_S: Final = 60
"""How far the clock may have gone back since the last cosignature, in seconds."""

log = logging.getLogger(__name__)

Admit = Callable[[notes.Checkpoint], Awaitable[None]]
"""Looks at a checkpoint that is signed and consistent, before it counts as seen.

It raises `NotAdmitted` to refuse it (403), and any other `SealtapeError` when it cannot tell now
(503). It MAY be asked for the same checkpoint again, and for a larger one after one that it let
pass and that was never cosigned, because the witness ended in between.
"""


@dataclass(frozen=True, slots=True)
class WitnessSnapshot:
    """What a witness has done since it started.

    Attributes:
        seen: sizes by log; 0 where nothing was seen yet.
        cosigned: how many checkpoints, by log.
        refused: how many requests, by the word that says why.
        last: POSIX seconds of the last cosignature, by log.
    """

    seen: Mapping[str, int]
    cosigned: Mapping[str, int]
    refused: Mapping[str, int]
    last: Mapping[str, int]


@dataclass(slots=True)
class _Followed:
    """One log: its keys, its turn, what was seen of it and when that was cosigned last."""

    keys: list[notes.NoteVerifier]
    turn: asyncio.Lock
    seen: Seen | None = None
    at: int = 0
    cosigned: int = 0


class Witness:
    """Cosigns for some logs.

    Args:
        memory: what was seen; closed with the witness.
        keys: its own, of type 0x04 and 0x06, all of one name.
        logs: the keys of the logs it follows; a key's name is its log's origin.
        admit: asked last; nobody when None.
        clock_s: POSIX seconds.

    Raises `SettingsError` for keys that cannot cosign, and `StoreError` from the memory.
    """

    def __init__(
        self,
        memory: Memory,
        keys: Sequence[PrivateHalf],
        logs: Sequence[notes.NoteVerifier],
        *,
        admit: Admit | None = None,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        _check(keys, logs)
        self._memory = memory
        self._keys = tuple(keys)
        self._admit = admit
        self._clock_s = clock_s
        self._refused: Counter[str] = Counter()
        self._running: set[asyncio.Task[bytes]] = set()
        self._logs: dict[str, _Followed] = {}
        for verifier in logs:
            followed = self._logs.setdefault(verifier.name, _Followed([], asyncio.Lock()))
            followed.keys.append(verifier)
        for origin, followed in self._logs.items():
            self._recall(origin, followed)

    @property
    def name(self) -> str:
        """Under which it cosigns."""
        return self._keys[0].name

    @property
    def vkeys(self) -> tuple[str, ...]:
        """Its public keys, as policies name them."""
        return tuple(key.vkey for key in self._keys)

    def seen(self, origin: str) -> Seen | None:
        """What it has seen of a log; None for nothing."""
        followed = self._logs.get(origin)
        return None if followed is None else followed.seen

    def snapshot(self) -> WitnessSnapshot:
        """Say how things stand."""
        logs = self._logs.items()
        return WitnessSnapshot(
            seen={origin: (one.seen or Seen()).size for origin, one in logs},
            cosigned={origin: one.cosigned for origin, one in logs},
            refused=dict(self._refused),
            last={origin: one.at for origin, one in logs if one.at},
        )

    async def cosign(self, body: bytes) -> bytes:
        """Answer a request with cosignature lines.

        Raises a `Refusal`, or the `SealtapeError` because of which it cannot tell now. When this
        is cancelled after the log's turn has come, the request is carried through all the same.
        """
        with self._counted():
            request = parse_request(body)
            followed = self._logs.get(request.checkpoint.origin)
            if followed is None:
                raise UnknownLog(f"{request.checkpoint.origin} is not a log that is followed here")
        await followed.turn.acquire()
        task = asyncio.get_running_loop().create_task(self._add(followed, request, body))
        task.add_done_callback(lambda _: followed.turn.release())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Carry through what was begun, then let go of the memory."""
        await asyncio.gather(*self._running, return_exceptions=True)
        self._memory.close()

    async def _add(self, followed: _Followed, request: Request, body: bytes) -> bytes:
        checkpoint = request.checkpoint
        with self._counted():
            try:
                seen = decide(followed.seen, request, followed.keys)
            except (Conflict, Inconsistent) as refusal:
                await self._convict(refusal, checkpoint.origin, body)
                raise
            if self._admit is not None:
                await self._admit(checkpoint)
        text = checkpoint.text()
        at = self._time(checkpoint.origin, followed.at)
        lines = "".join(cosign(key.name, key.private, text, at) for key in self._keys).encode()
        note = b"".join([text.encode(), b"\n", *_lines(request.note, followed.keys), lines])
        await asyncio.to_thread(self._memory.keep, checkpoint.origin, note)
        followed.seen, followed.at = seen, at
        followed.cosigned += 1
        return lines

    async def _convict(self, refusal: Refusal, origin: str, body: bytes) -> None:
        kept = await asyncio.to_thread(self._memory.convict, origin, body)
        log.error("a log contradicts what was seen of it: %s (kept: %s)", refusal, kept)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            yield
        except Refusal as refusal:
            self._refused[refusal.word] += 1
            log.info("refused to cosign: %s", refusal)
            raise

    def _time(self, origin: str, last: int) -> int:
        """The clock, but never before the last cosignature: that saw a smaller tree, later."""
        now = int(self._clock_s())
        if now < last - MAX_BACK_S:
            raise StoreError(
                f"The clock is {last - now} seconds behind the last cosignature of {origin}.",
                hint="A cosignature would state a wrong time: set the clock right.",
            )
        return max(now, last)

    def _recall(self, origin: str, followed: _Followed) -> None:
        own = [key.verifier for key in self._keys]
        opened = self._memory.recall(origin, [*own, *followed.keys])
        if opened is None:
            return
        checkpoint = notes.parse_checkpoint(opened.text)
        followed.seen = Seen(checkpoint.size, checkpoint.root)
        times = [cosigned_at(item) for item in opened.verified if item.name == self.name]
        followed.at = max(times, default=0)


def _lines(note: bytes, keys: Sequence[notes.NoteVerifier]) -> list[bytes]:
    """The lines of a note by known keys."""
    return [
        notes.signature_line(item.name, item.key_id + item.value).encode()
        for item in notes.open_note(note, keys).verified
    ]


def _check(keys: Sequence[PrivateHalf], logs: Sequence[notes.NoteVerifier]) -> None:
    types = [key.algorithm for key in keys]
    if not keys or set(types) - {ED25519, ML_DSA_44} or len(set(types)) != len(types):
        raise SettingsError(
            "A witness has one key of type 4 (Ed25519), one of type 6 (ML-DSA-44), or both.",
            hint="`sealtape witness init` makes them.",
        )
    if len({key.name for key in keys}) != 1:
        raise SettingsError("A witness's keys have different names.")
    if keys[0].name in {key.name for key in logs}:
        raise SettingsError(f"{keys[0].name} is the name of a log that it follows: take another.")
