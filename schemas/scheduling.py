"""Which objects to read again, and when: oldest first, by a budget, spread over the day. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["DAY_NS", "MOST", "Coverage", "Part", "allowance", "coverage", "due", "pause_ns", "pick"]

DAY_NS: Final = 86_400 * 1_000_000_000
MOST: Final = 1000
"""Most objects of a batch: what is found of them is kept at its end."""


@dataclass(frozen=True, slots=True)
class Part:
    """An object as the schedule sees it.

    Attributes:
        object: its key.
        bytes: its size, as its record says.
        sealed_ns: when it was sealed.
        verified_ns: when it was last read, None for never.
    """

    object: str
    bytes: int
    sealed_ns: int
    verified_ns: int | None = None

    @property
    def known_ns(self) -> int:
        """Since when nobody has looked at it."""
        return self.sealed_ns if self.verified_ns is None else self.verified_ns


def due(parts: Iterable[Part], now_ns: int, again_ns: int) -> list[Part]:
    """What may be read now, in the order in which it should be.

    A part that was read in the future is due: a clock was wrong.
    """
    found = [
        part
        for part in parts
        if part.verified_ns is None or not 0 <= now_ns - part.verified_ns < again_ns
    ]
    return sorted(found, key=lambda part: (part.verified_ns is not None, part.known_ns))


def pick(parts: Sequence[Part], allowed: int) -> list[Part]:
    """The first of `parts` that take at most `allowed` bytes; one of any size if any is allowed."""
    picked: list[Part] = []
    left = allowed
    for part in parts[:MOST]:
        if left <= 0 or (picked and part.bytes > left):
            break
        picked.append(part)
        left -= part.bytes
    return picked


def allowance(per_day: int, period_ns: int) -> int:
    """How many bytes may be read in a period; at least one, so that no budget stops everything."""
    return max(1, per_day * period_ns // DAY_NS)


def pause_ns(read: int, per_day: int) -> int:
    """How long to read nothing after `read` bytes, so that the day's budget holds."""
    return read * DAY_NS // per_day


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of what is sealed was verified lately.

    Attributes:
        objects, bytes: of everything.
        unverified: objects that were never read.
        share: of all bytes, those of objects that were read within the window; 1 when there are
            none.
        oldest_ns: how long nobody has looked at the object for which that is longest.
    """

    objects: int
    bytes: int
    unverified: int
    share: float
    oldest_ns: int


def coverage(parts: Sequence[Part], now_ns: int, window_ns: int) -> Coverage:
    """Sum up all parts."""
    total = sum(part.bytes for part in parts)
    fresh = sum(
        part.bytes
        for part in parts
        if part.verified_ns is not None and 0 <= now_ns - part.verified_ns < window_ns
    )
    return Coverage(
        objects=len(parts),
        bytes=total,
        unverified=sum(part.verified_ns is None for part in parts),
        share=fresh / total if total else 1.0,
        oldest_ns=max((max(0, now_ns - part.known_ns) for part in parts), default=0),
    )
