"""Time in a recording: the wall clock once, then the monotonic clock; steps are told apart.

A session's times are `anchor + monotonic`, so they never go backwards. When the wall clock moves
against that by more than `STEP_NS` since the last look, somebody set it (or the machine slept), and
the recordings of that time say so in a CLOCK frame.
"""

from __future__ import annotations

import time
from collections.abc import Callable

STEP_NS = 500_000_000


class Clock:
    """Reads both clocks; they are injected, so a test can stop and step them."""

    __slots__ = ("_difference", "_mono_ns", "_wall_ns")

    def __init__(
        self,
        wall_ns: Callable[[], int] = time.time_ns,
        mono_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Take the first look at both."""
        self._wall_ns = wall_ns
        self._mono_ns = mono_ns
        self._difference = wall_ns() - mono_ns()

    def mono_ns(self) -> int:
        """Nanoseconds that only grow, from an arbitrary start."""
        return self._mono_ns()

    def anchor_ns(self) -> int:
        """What to add to `mono_ns` for wall-clock time, as of now: the anchor of a new session."""
        return self._wall_ns() - self._mono_ns()

    def step(self) -> int:
        """Return by how much the wall clock was stepped since the last call, in ns; usually 0.

        A slow drift (NTP slewing the clock) is not a step and is taken over silently.
        """
        difference = self._wall_ns() - self._mono_ns()
        moved = difference - self._difference
        self._difference = difference
        return moved if abs(moved) >= STEP_NS else 0
