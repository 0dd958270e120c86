"""Whether what the index says is what the record says: the answer; `confirming` finds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["DIFFERS", "Confirmed"]

DIFFERS: Final = "index differs from the record"


@dataclass(frozen=True, slots=True)
class Confirmed:
    """What the record says of something found. Neither true nor different: `reason` says why."""

    verified: bool
    reason: str = ""

    @property
    def differs(self) -> bool:
        """Whether the index says something that the record does not."""
        return self.reason.startswith(DIFFERS)
