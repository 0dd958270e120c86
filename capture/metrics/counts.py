"""What a capture worker counts since it started: plain numbers of its one event loop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Final

from sealtape.capture.metrics.sheet import Histogram

__all__ = ["Counts"]

SIGNED_S: Final = (0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 30.0)


class Counts:
    """Counted where it happens; `capture.metrics.room` writes it down.

    Args:
        targets: names that may become labels. What a client made up never does, so nobody outside
            decides how many time series there are.
    """

    def __init__(self, targets: Collection[str] = ()) -> None:
        self._targets = frozenset(targets)
        self.opened: Counter[tuple[str, str]] = Counter()
        self.ended: Counter[tuple[str, str, str]] = Counter()
        self.refused: Counter[tuple[str, str, str]] = Counter()
        self.strangers: Counter[str] = Counter()
        self.legs = [0, 0, 0, 0]
        self.frames = 0
        self.commands = 0
        self.errors = 0
        self.gaps = 0
        self.orphans = 0
        self.signed = Histogram(SIGNED_S)

    def target(self, name: str) -> str:
        """Return a target's name if it is one of ours, else nothing."""
        return name if name in self._targets else ""

    def refusal(self, protocol: str, target: str, reason: str) -> None:
        """A client was refused."""
        self.refused[protocol, self.target(target), reason] += 1

    def open(self, protocol: str, target: str) -> None:
        """A session opened."""
        self.opened[protocol, target] += 1

    def end(
        self,
        protocol: str,
        target: str,
        reason: str,
        *,
        legs: Sequence[int],
        frames: int,
        commands: int,
        errors: int,
    ) -> None:
        """A session ended; the rest is what it had recorded."""
        self.ended[protocol, target, reason] += 1
        self.legs = [a + b for a, b in zip(self.legs, legs, strict=True)]
        self.frames += frames
        self.commands += commands
        self.errors += errors
