"""A log judged once, from its first entry to its last, without cosigning anything."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sealtape.indexer.monitor.folder import Acknowledged, MonitorFolder, Name, name_of
from sealtape.indexer.monitor.follower import Follower
from sealtape.indexer.monitor.source import LogSource
from sealtape.ingest.vault import Vault
from sealtape.schemas.errors import DigestError, FormatError, StoreCorrupt
from sealtape.schemas.evidence import EvidencePolicy
from sealtape.schemas.notes import Checkpoint
from sealtape.schemas.verify.findings import EXIT_CODES, Verdict
from sealtape.schemas.verify.violations import Limits, Violation, verdict_of

__all__ = ["Judgement", "read_once"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a log is like.

    Attributes:
        log: its name.
        number, size: the last shard, and the entries that were read of it.
        sessions, open: how many were ever opened; epochs without a seal.
        violations: what is wrong, what was acknowledged among it.
        suppressed: how many more violations there were.
        broken: why reading ended before the last entry; empty when it did not.
        acknowledged: by what each violation is known, and who acknowledged it.
    """

    log: str
    number: int
    size: int
    sessions: int
    open: int
    violations: tuple[Violation, ...]
    suppressed: int
    broken: str
    acknowledged: Mapping[Name, Acknowledged]

    @property
    def verdict(self) -> str:
        """What it means, what was acknowledged left out."""
        if self.broken:
            return Verdict.TAMPERED
        left = [item for item in self.violations if name_of(item) not in self.acknowledged]
        return verdict_of(left, self.size if self.number == 1 else 1)

    @property
    def exit_code(self) -> int:
        """0, 1 or 2."""
        return EXIT_CODES[self.verdict]

    def to_json(self) -> dict[str, Any]:
        """As programs read it."""
        return {
            "verdict": self.verdict,
            "log": self.log,
            "shard": self.number,
            "size": self.size,
            "sessions": self.sessions,
            "open": self.open,
            "broken": self.broken,
            "violations": [self._member(item) for item in self.violations],
            "suppressed": self.suppressed,
        }

    def lines(self) -> list[str]:
        """For people: what is wrong, then the verdict."""
        found = []
        for item in self.violations:
            found.append(f"{item.grade.upper():<6}  {item}")
            known = self.acknowledged.get(name_of(item))
            if known is not None:
                found.append(f"        acknowledged by {known.by}: {known.reason}")
        if self.suppressed:
            found.append(f"        and {self.suppressed} more")
        if self.broken:
            found.append(f"BREACH  {self.broken}")
        where = f"shard {self.number}, {self.size} entries"
        found.append(
            f"{self.verdict.upper()}: {self.log}, {where}, {self.sessions} sessions,"
            f" {self.open} epochs open"
        )
        return found

    def _member(self, item: Violation) -> dict[str, Any]:
        known = self.acknowledged.get(name_of(item))
        by = None if known is None else {"by": known.by, "reason": known.reason}
        return {**item.to_json(), "acknowledged": by}


async def read_once(
    vault: Vault,
    policy: EvidencePolicy,
    *,
    limits: Limits | None = None,
    folder: MonitorFolder | None = None,
    clock_ns: Callable[[], int] = time.time_ns,
) -> Judgement:
    """Read all of a log up to the largest checkpoint that it has signed, and judge it.

    Of a monitor's `folder` only what was acknowledged counts. Raises `StoreError` when the vault
    does not answer.
    """
    source = LogSource(vault, policy.log, policy.tlog)
    follower = Follower(source, policy, limits=limits, clock_ns=clock_ns)
    broken = ""
    try:
        shards: list[Checkpoint] = []
        while (last := await source.largest(len(shards) + 1)) is not None:
            shards.append(last)
        for checkpoint in reversed(shards):  # the last one leads to all; they must have ended
            await follower.reach(checkpoint)
    except (DigestError, FormatError, StoreCorrupt) as exc:
        broken = exc.message
    rules = follower.rules
    acknowledged = [] if folder is None else folder.acknowledged()
    return Judgement(
        log=policy.log,
        number=rules.number,
        size=rules.size,
        sessions=rules.sessions,
        open=rules.open,
        violations=tuple(rules.violations),
        suppressed=rules.suppressed,
        broken=broken,
        acknowledged={name: item for item in acknowledged for name in item.names},
    )
