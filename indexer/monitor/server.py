"""A monitor: a witness whose consent depends on what it reads."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sealtape.indexer.monitor.folder import MonitorFolder
from sealtape.indexer.monitor.follower import Follower
from sealtape.indexer.monitor.source import LogSource
from sealtape.ingest.vault import Vault
from sealtape.ingest.witness import WitnessServer, open_witness
from sealtape.schemas.errors import DigestError, StoreBusy
from sealtape.schemas.evidence import EvidencePolicy
from sealtape.schemas.notes import Checkpoint
from sealtape.schemas.tlog.keyfiles import PrivateHalf
from sealtape.schemas.tlog.witnessing import NotAdmitted
from sealtape.schemas.verify.violations import Limits

__all__ = ["Monitor", "MonitorSnapshot", "open_monitor"]

WAIT_S: Final = 3.0
"""So long who asks is kept waiting; reading goes on behind."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MonitorSnapshot:
    """How a monitor does.

    Attributes:
        number, size: the shard that is read, and how far.
        sessions: how many it knows.
        found: violations that were ever found, by rule.
        unacknowledged: how many of them nobody has acknowledged.
        late: how many things were missing at the last checkpoint.
        forks: how often entries did not give a signed root, since the start.
        objections: how many violations stand against the next cosignature.
    """

    number: int
    size: int
    sessions: int
    found: Mapping[str, int]
    unacknowledged: int
    late: int
    forks: int
    objections: int


class Monitor:
    """Reads before it cosigns. Open with `open_monitor`."""

    def __init__(self, follower: Follower, folder: MonitorFolder, wait_s: float) -> None:
        """Only `open_monitor` calls this."""
        self.follower = follower
        self.folder = folder
        self.server: WitnessServer
        self._wait_s = wait_s
        self._forks = 0
        self._reading: asyncio.Task[None] | None = None

    async def admit(self, checkpoint: Checkpoint) -> None:
        """Let a checkpoint be cosigned whose entries keep the rules.

        Raises `NotAdmitted`, and `StoreError` when it cannot tell yet.
        """
        until = asyncio.get_running_loop().time() + self._wait_s
        if self._reading is not None:  # for an earlier question
            await self._within(self._reading, until)
        task = asyncio.create_task(self.follower.reach(checkpoint))
        self._reading = task
        task.add_done_callback(_seen)
        await self._within(task, until)
        try:
            await task
        except DigestError as exc:
            self._forks += 1
            log.error("a log contradicts itself: %s", exc)  # noqa: TRY400 - the message says it all
            raise NotAdmitted(exc.message) from exc
        objections = await asyncio.to_thread(self.follower.objections)
        if objections:
            more = f", and {len(objections) - 1} more" if len(objections) > 1 else ""
            raise NotAdmitted(f"{objections[0]}{more}")

    async def snapshot(self) -> MonitorSnapshot:
        """Say how things stand. Raises StoreError."""
        rules = self.follower.rules
        found = await asyncio.to_thread(self.folder.unacknowledged)
        objections = await asyncio.to_thread(self.follower.objections)
        return MonitorSnapshot(
            number=rules.number,
            size=rules.size,
            sessions=rules.sessions,
            found=Counter(item.violation.rule for item in self.folder.found),
            unacknowledged=len(found),
            late=len(rules.late),
            forks=self._forks,
            objections=len(objections),
        )

    async def close(self) -> None:
        """Stop answering, finish the page that is read, keep how far it came."""
        self.follower.stop()
        if self._reading is not None:
            await asyncio.wait({self._reading})
        await self.server.close()
        await asyncio.to_thread(self.follower.keep)

    async def _within(self, task: asyncio.Task[None], until: float) -> None:
        """Wait for a reading, which goes on when it takes too long."""
        await asyncio.wait({task}, timeout=max(0.0, until - asyncio.get_running_loop().time()))
        if not task.done():
            rules = self.follower.rules
            raise StoreBusy(
                f"The log is being read: {rules.size} entries of shard {rules.number} so far.",
                retry_after_s=self._wait_s,
            )


def _seen(task: asyncio.Task[None]) -> None:
    """Log what ended a reading that nobody waited for."""
    error = None if task.cancelled() else task.exception()
    if error is not None:
        log.warning("reading the log: %s", error)


async def open_monitor(
    *,
    vault: Vault,
    policy: EvidencePolicy,
    keys: Sequence[PrivateHalf],
    state: Path,
    listen: str,
    limits: Limits | None = None,
    tls: ssl.SSLContext | None = None,
    clock_ns: Callable[[], int] = time.time_ns,
    wait_s: float = WAIT_S,
) -> Monitor:
    """Open a monitor of the log that `policy` names, in the folder `state`; answer on `listen`.

    The vault stays the caller's to close, and is only read. Raises `StoreBusy`, `StoreCorrupt`,
    `StoreError`, `SettingsError` and `TargetError`.
    """
    folder = await asyncio.to_thread(MonitorFolder, state)
    source = LogSource(vault, policy.log, policy.tlog)

    def follow() -> Follower:
        return Follower(source, policy, limits=limits, folder=folder, clock_ns=clock_ns)

    monitor = Monitor(await asyncio.to_thread(follow), folder, wait_s)
    monitor.server = await open_witness(
        state=folder.witness,
        listen=listen,
        keys=keys,
        logs=[item.verifier for item in policy.tlog.logs],
        admit=monitor.admit,
        tls=tls,
        clock_s=lambda: clock_ns() / 1e9,
    )
    return monitor
