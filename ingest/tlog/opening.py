"""The log as the settings describe it: policy, signer, witnesses; and its worker in a process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sealtape.capture.bus import Bus
from sealtape.ingest.ledger import Ledger
from sealtape.ingest.tlog.parts import Introductions, LogParts, Pace, nobody
from sealtape.ingest.tlog.signer import open_signer
from sealtape.ingest.tlog.timestamping import Timestamping, read_authorities
from sealtape.ingest.tlog.watch import Watch
from sealtape.ingest.tlog.witnesses import Witnesses
from sealtape.ingest.tlog.worker import LogWorker
from sealtape.ingest.vault import Vault
from sealtape.schemas.errors import FormatError, SettingsError
from sealtape.schemas.settings import LogSettings, Settings
from sealtape.schemas.tlog.policy import LogPolicy, parse_policy

__all__ = ["RunningLog", "log_parts", "pace_of", "read_policy", "start_log"]

INIT = "`sealtape log init` makes the log's keys and policies where a deployment has none."


def read_policy(settings: Settings) -> LogPolicy:
    """The operator's own policy over the log. Raises `SettingsError`."""
    path = Path(settings.base) / settings.log.policy
    try:
        policy = parse_policy(path.read_bytes())
    except OSError as error:
        raise SettingsError(
            f"The log's policy {path} cannot be read.",
            hint=f"log.policy names it. {INIT}",
            path=str(path),
        ) from error
    except FormatError as error:
        raise SettingsError(f"The log's policy {path}: {error.message}.") from error
    name = settings.deployment.log
    if not any(key.verifier.name.startswith(f"{name}/") for key in policy.logs):
        raise SettingsError(
            f"The log's policy {path} has no key of {name}/1.",
            hint="deployment.log is the log's name; each shard's key is named NAME/N.",
        )
    return policy


def pace_of(settings: LogSettings) -> Pace:
    """How the log is paced, from the settings."""
    return Pace(
        checkpoint_s=settings.checkpoint_s,
        heartbeat_s=settings.heartbeat_s,
        final_s=settings.final_s,
        silent_s=settings.silent_s,
        missing_s=settings.missing_s,
        timestamp_s=settings.timestamp_every,
    )


@asynccontextmanager
async def log_parts(
    settings: Settings,
    ledger: Ledger,
    vault: Vault,
    *,
    policy: LogPolicy | None = None,
    introduce: Introductions = nobody,
) -> AsyncIterator[LogParts]:
    """What the log's worker works with; `policy` is taken instead of the settings' file.

    Raises `SettingsError`.
    """
    policy, base = policy or read_policy(settings), Path(settings.base)
    authorities = read_authorities(settings.log.timestamps, base)
    signer = await open_signer(settings.log.signer, base)
    cosigners, timeout_s = None, settings.log.witness_timeout_s
    try:
        if policy.witnesses:
            ca = settings.log.witness_ca
            cosigners = Witnesses(policy, timeout_s=timeout_s, ca=base / ca if ca else None)
        yield LogParts(
            ledger=ledger,
            vault=vault,
            signer=signer,
            policy=policy,
            log=settings.deployment.log,
            cosigners=cosigners,
            stamping=Timestamping(authorities, timeout_s=timeout_s) if authorities else None,
            pace=pace_of(settings.log),
            introduce=introduce,
        )
    finally:
        if cosigners is not None:
            await cosigners.close()
        await signer.close()


class RunningLog:
    """What `start_log` started: the log's worker, and the watch beside it."""

    def __init__(self, worker: LogWorker, watch: Watch) -> None:
        """Start; needs a running event loop."""
        self.worker = worker
        self._watch = watch
        self._tasks = (
            asyncio.create_task(worker.run(), name="log"),
            asyncio.create_task(watch.run(), name="watch"),
        )

    async def wait(self) -> None:
        """Return when one of them has ended; raise what ended it."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def stop(self) -> None:
        """Add what was sealed last, sign it, release the leases. Raises failures."""
        self._watch.leave()
        self.worker.leave()
        await asyncio.wait(self._tasks)
        for task in self._tasks:
            task.result()


def start_log(parts: LogParts, bus: Bus, *, owner: str, lease_s: float) -> RunningLog:
    """Write the log in the background; stop it after ingest, so that the last seals are in it."""
    worker = LogWorker(parts, owner=owner, ttl_s=lease_s)
    return RunningLog(worker, Watch(parts, bus, owner=owner, ttl_s=lease_s))
