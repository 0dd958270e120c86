"""Tails that never came: what journals say of live sessions, against what is sealed. Pure.

A node's heartbeat lists its live sessions with the sizes of their trees. What it lists is in the
spool already, and comes by the bus. When ingest has long dealt with all that was on the bus, and a
session's head is still below a size that was listed, then somebody took its tail away.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from sealtape.schemas.errors import FormatError
from sealtape.schemas.facts import HEARTBEAT, Live, decode_facts

__all__ = ["MissingTail", "TailRule", "listed"]

Name: TypeAlias = tuple[bytes, int]


def listed(body: bytes, ts_ns: int) -> tuple[Live, ...]:
    """The sessions that the heartbeats of a journal's FACTS list; none for what is no FACTS."""
    try:
        facts = decode_facts(body, ts_ns).facts
    except FormatError:
        return ()
    return tuple(live for fact in facts if fact.kind == HEARTBEAT for live in fact.live)


@dataclass(frozen=True, slots=True)
class MissingTail:
    """A session's frames from `head` up to `size` were there at its node, and never came."""

    session: bytes
    epoch: int
    head: int
    size: int


class TailRule:
    """Finds tails that are missing; each epoch is told once."""

    def __init__(self, missing_s: float) -> None:
        """After `missing_s` seconds."""
        self._missing_s = missing_s
        self._sizes: dict[Name, deque[tuple[float, int]]] = {}
        self._told: set[Name] = set()

    def note(self, sessions: Iterable[Live], now: float) -> None:
        """A heartbeat listed these; `now` is seconds by a clock that never goes back."""
        for live in sessions:
            name = (live.session, live.epoch)
            if name not in self._told:
                sizes = self._sizes.setdefault(name, deque())
                if not sizes or live.size > sizes[-1][1]:
                    sizes.append((now, live.size))

    def waiting(self) -> list[Name]:
        """The epochs of which something that was listed is not known to be sealed."""
        return list(self._sizes)

    def look(
        self, head: Callable[[Name], int], reached: Callable[[bytes], float]
    ) -> list[MissingTail]:
        """What is missing now.

        `head` tells how many frames of an epoch are sealed, `reached` up to which moment ingest has
        dealt with all that was on the bus of a session.
        """
        found = []
        for name, sizes in list(self._sizes.items()):
            have = head(name)
            while sizes and sizes[0][1] <= have:
                sizes.popleft()
            if not sizes:
                del self._sizes[name]
            elif reached(name[0]) - sizes[0][0] >= self._missing_s:
                found.append(MissingTail(*name, have, sizes[-1][1]))
        return found

    def tell(self, tail: MissingTail) -> None:
        """This one was told, now or by another before."""
        name = (tail.session, tail.epoch)
        self._told.add(name)
        self._sizes.pop(name, None)
