"""What the log is made with: its stores, its signer and policy, and how it is paced."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from sealtape.ingest.ledger import Ledger
from sealtape.ingest.tlog.signer import LogSigner
from sealtape.ingest.tlog.timestamping import AuthorityStatus, Stamp
from sealtape.ingest.tlog.witnesses import WitnessStatus
from sealtape.ingest.vault import Vault
from sealtape.schemas.tlog.policy import LogPolicy

__all__ = ["Cosigners", "Introductions", "LogParts", "Pace", "Prove", "Stamping"]

Introductions: TypeAlias = Callable[[int], Sequence[bytes]]
"""The entries that follow entry 0 of a shard, by the shard's number."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often, and how long to wait for what is missing; seconds."""

    checkpoint_s: float = 10.0
    heartbeat_s: float = 600.0
    final_s: float = 120.0
    silent_s: float = 60.0
    missing_s: float = 300.0
    timestamp_s: float = 3600.0
    idle_s: float = 0.5
    """Between two looks into the ledger when there was nothing."""


Prove: TypeAlias = Callable[[int, int], Awaitable[Sequence[bytes]]]
"""Gives the consistency proof from a size of the log to a larger one."""


class Cosigners(Protocol):
    """Who asks the witnesses; `sealtape.ingest.tlog.witnesses` is the real one."""

    async def cosign(self, note: bytes, prove: Prove) -> list[str]:
        """Cosignature lines on a checkpoint, verified; fewer than the quorum if they do not come.

        Never raises for a witness that is away, slow or wrong.
        """
        ...

    def snapshot(self) -> tuple[WitnessStatus, ...]:
        """How each witness does."""
        ...


class Stamping(Protocol):
    """Who asks time-stamping authorities; `sealtape.ingest.tlog.timestamping` is the real one."""

    @property
    def names(self) -> list[str]:
        """Whom it can ask."""
        ...

    async def stamp(self, digest: bytes, names: Collection[str] | None = None) -> list[Stamp]:
        """Have a SHA-256 stamped by all or by these; who is away is left out, never an error."""
        ...

    def snapshot(self) -> tuple[AuthorityStatus, ...]:
        """How each authority does."""
        ...


def nobody(_: int) -> Sequence[bytes]:
    """Introduce no keys: administrators submit their statements themselves."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogParts:
    """Everything that the log's worker works with; stores stay the caller's to close.

    `log` is the deployment's log name. Without `cosigners` no witness is asked.
    """

    ledger: Ledger
    vault: Vault
    signer: LogSigner
    policy: LogPolicy
    log: str
    cosigners: Cosigners | None = None
    stamping: Stamping | None = None
    pace: Pace = Pace()
    introduce: Introductions = nobody
    clock_ns: Callable[[], int] = time.time_ns
    monotonic: Callable[[], float] = time.monotonic
