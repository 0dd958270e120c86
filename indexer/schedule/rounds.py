"""One step after the other of scheduled verification: a pass or a batch, kept, and told.

A step opens vault and ledger, reads what is due within what is allowed, keeps its records, and
closes them again. What it finds for the first time is logged, and waits to be sent.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from sealtape import __version__
from sealtape.indexer.audit_log import LogTrust, signed_sizes
from sealtape.indexer.monitor.folder import MonitorFolder
from sealtape.indexer.schedule.parts import PartAudit
from sealtape.indexer.schedule.state import State, parts_of
from sealtape.ingest.ledger import open_ledger
from sealtape.ingest.ledger.rows import SegmentRow
from sealtape.ingest.tlog.publish import checkpoint_of
from sealtape.ingest.tlog.store import CHECKPOINT, LogStore
from sealtape.ingest.vault import Vault, open_vault
from sealtape.schemas.errors import FormatError, StoreError
from sealtape.schemas.evidence import EvidencePolicy
from sealtape.schemas.layout import SEGMENT_PREFIX
from sealtape.schemas.notes import Verifier
from sealtape.schemas.scheduling import Coverage, Part, coverage, due, pick
from sealtape.schemas.settings import Settings
from sealtape.schemas.verification import PASS, Alarm, CheckedLog, Verification, gravest
from sealtape.schemas.verify.findings import Finding, Verdict
from sealtape.schemas.verify.log_state import SeenLog

__all__ = ["EVENT", "Rounds", "Step", "Tally"]

EVENT: Final = "verification found something"
"""The event of the log line of each finding."""

SOON_NS: Final = 3600 * 1_000_000_000
"""After so long a log that lacked something is looked at again."""

BY: Final = f"sealtape {__version__}"

Found: TypeAlias = dict[bytes, tuple[str, Alarm]]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did: bytes read, objects judged, and what it found for the first time."""

    read: int
    objects: int
    fresh: tuple[Alarm, ...]


@dataclass(slots=True)
class Tally:
    """What was done since the start."""

    bytes: int = 0
    objects: int = 0
    passes: int = 0
    failures: int = 0
    found: Counter[str] = field(default_factory=Counter)
    last_ns: int = 0


class Rounds:
    """Verification of one deployment, round after round."""

    def __init__(
        self,
        settings: Settings,
        state: State,
        *,
        trust: Sequence[Verifier],
        policy: EvidencePolicy | None,
        monitor: MonitorFolder | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Take what to read, what is known already, and whom to trust."""
        self._settings = settings
        self._state = state
        self._trust = trust
        self._policy = policy
        self._monitor = monitor
        self._clock_ns = clock_ns
        self._again_ns = int(settings.verify.again_s * 1e9)
        self.tally = Tally()
        self.coverage = Coverage(0, 0, 0, 1.0, 0)
        self.standing: Counter[str] = Counter()

    async def step(self, allowed: int) -> Step:
        """The pass if it is due, and a batch of at most `allowed` bytes.

        Raises `StoreError`, and what was read until then may not be kept.
        """
        now_ns = self._clock_ns()
        verified = await self._state.verified()
        vault = await open_vault(self._settings.stores.vault, Path(self._settings.base))
        try:
            fresh: list[Alarm] = []
            if await self._pass_is_due(now_ns):
                fresh += await self._pass(vault, now_ns)
            async with self._auditing(vault, now_ns) as (audit, checked):
                rows = await audit.follow()
                wanted = due(parts_of(rows, verified), now_ns, self._again_ns)
                keys = [part.object for part in pick(wanted, allowed)]
                await audit.objects(set(keys))
        finally:
            await vault.close()
        fresh += await self._keep_batch(keys, audit, checked, now_ns)
        await self._look(rows)
        self.tally.last_ns = now_ns
        return Step(sum(audit.read.values()), len(keys), tuple(fresh))

    async def _pass_is_due(self, now_ns: int) -> bool:
        """By its time; or sooner, because what the log lacked may be there by now."""
        again_ns = self._again_ns
        standing = [alarm.finding for alarm in await self._state.standing(PASS)]
        if any((each.layer, each.verdict) == ("log", Verdict.INCOMPLETE) for each in standing):
            again_ns = min(again_ns, SOON_NS)
        last_ns = (await self._state.verified()).get(PASS)
        return bool(due([Part(PASS, 0, 0, last_ns)], now_ns, again_ns))

    async def verdict(self) -> str:
        """The gravest of all that stands; incomplete as long as no object was ever read."""
        standing = {alarm.finding.verdict for alarm in await self._state.standing()}
        if not standing and not (await self._state.verified()).keys() - {PASS}:
            return Verdict.INCOMPLETE
        return gravest(standing)

    async def _look(self, rows: Sequence[SegmentRow]) -> None:
        """Sum up how things stand, for whoever asks."""
        parts = parts_of(rows, await self._state.verified())
        window_ns = int(self._settings.verify.window * 1e9)
        self.coverage = coverage(parts, self._clock_ns(), window_ns)
        self.standing = Counter(each.finding.verdict for each in await self._state.standing())

    @asynccontextmanager
    async def _auditing(
        self, vault: Vault, now_ns: int
    ) -> AsyncIterator[tuple[PartAudit, CheckedLog | None]]:
        """An audit of one moment, and the log's checkpoint at that moment."""
        settings = self._settings
        signed = await signed_sizes(vault)
        reasons = {} if self._monitor is None else self._monitor.reasons()
        trust = LogTrust(self._policy, signed, await self._state.seen(), reasons)
        checked = await self._checkpoint(vault, max(signed, default=0))
        ledger = await open_ledger(settings.stores.ledger, Path(settings.base), snapshot=True)
        try:
            audit = PartAudit(
                ledger=ledger,
                vault=vault,
                log=settings.deployment.log,
                trust=self._trust,
                now_ns=now_ns,
                log_trust=trust,
            )
            yield audit, checked
        finally:
            await ledger.close()

    async def _checkpoint(self, vault: Vault, number: int) -> CheckedLog | None:
        """The newest checkpoint that counts; that it is not there is for the pass to say."""
        try:
            note = await LogStore(vault, number).get(CHECKPOINT)
            if self._policy is None:
                found = checkpoint_of(note)
            else:
                opened = self._policy.tlog.open(note)
                if not opened.quorum:
                    return None
                found = opened.checkpoint
        except FormatError:
            return None
        return None if found is None else CheckedLog(found.origin, found.size)

    # -- what comes of it ------------------------------------------------------------------------

    async def _pass(self, vault: Vault, now_ns: int) -> list[Alarm]:
        # Listed first: what is sealed while we look is then not taken for a stranger.
        listed = [key async for key in vault.keys(SEGMENT_PREFIX)]
        async with self._auditing(vault, now_ns) as (audit, checked):
            await audit.follow()
            await audit.pass_over(listed)
        found = self._alarms(audit, now_ns)
        record = self._record(PASS, audit, found, checked, now_ns)
        # What was seen before is evidence once something is wrong.
        wrong = audit.report.verdict == Verdict.TAMPERED
        self.tally.passes += 1
        return await self._keep([record], found, seen=None if wrong else audit.log.seen)

    async def _keep_batch(
        self, keys: Sequence[str], audit: PartAudit, checked: CheckedLog | None, now_ns: int
    ) -> list[Alarm]:
        found = self._alarms(audit, now_ns)
        records = [self._record(key, audit, found, checked, now_ns) for key in keys]
        self.tally.bytes += sum(audit.read.values())
        self.tally.objects += len(keys)
        return await self._keep(records, found)

    async def _keep(
        self, records: Sequence[Verification], found: Found, *, seen: SeenLog | None = None
    ) -> list[Alarm]:
        send = bool(self._settings.verify.webhook)
        try:
            fresh = await self._state.keep(records, found, seen=seen, send=send)
        except StoreError:
            # Nothing remembers them now, so they are told, and told again by the next step.
            alarms = [alarm for _, alarm in found.values()]
            self.standing |= Counter(alarm.finding.verdict for alarm in alarms)
            _tell(alarms)
            raise
        self.tally.found.update(alarm.finding.verdict for alarm in fresh)
        _tell(fresh)
        return fresh

    def _alarms(self, audit: PartAudit, now_ns: int) -> Found:
        deployment = self._settings.deployment
        found: Found = {}
        for thing, finding in audit.found():
            alarm = Alarm(now_ns, deployment.log, deployment.node, finding)
            found[alarm.id] = (thing, alarm)
        return found

    @staticmethod
    def _record(
        key: str, audit: PartAudit, found: Found, checked: CheckedLog | None, now_ns: int
    ) -> Verification:
        own = [alarm.finding.verdict for thing, alarm in found.values() if thing == key]
        return Verification(
            object=key,
            at_ns=now_ns,
            by=BY,
            bytes=audit.read.get(key, 0),
            frames=audit.frames.get(key, 0),
            sessions=audit.held.get(key, 0),
            findings=len(own),
            verdict=gravest(set(own)),
            log=checked,
        )


def _tell(alarms: Sequence[Alarm]) -> None:
    for alarm in alarms:
        log.error(EVENT, extra={"finding": alarm.id.hex(), **_told(alarm.finding)})


def _told(finding: Finding) -> dict[str, object]:
    """A finding as fields of a line of the log; what is not known is left out."""
    return {name: value for name, value in finding.to_json().items() if value is not None}
