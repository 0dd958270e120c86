"""Tails that never came: what journals say of live sessions, against what is sealed. Pure.

A node's heartbeat lists its live sessions with the sizes of their trees. What it lists is in the
spool already, and comes by the bus. When ingest has long dealt with all that was on the bus, and a
session's head is still below a size that was listed, then somebody took its tail away.

What it lists no more has ended there, and so has what was too short to be listed at all. When the
end of such a session does not come, though its node lives on, it was taken away too.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from sealtape.schemas.errors import FormatError
from sealtape.schemas.facts import HEARTBEAT, Fact, Live, decode_facts

__all__ = ["EndRule", "MissingTail", "Open", "Roll", "TailRule", "heartbeats", "listed"]

Name: TypeAlias = tuple[bytes, int]

_PART: Final = re.compile(r"([1-9][0-9]{0,5})/([1-9][0-9]{0,5})", re.ASCII)
_NEXT: Final = re.compile(r"[0-9]{1,18}", re.ASCII)


def heartbeats(body: bytes, ts_ns: int) -> tuple[Fact, ...]:
    """The heartbeats of a journal's FACTS; none for what is no FACTS."""
    try:
        facts = decode_facts(body, ts_ns).facts
    except FormatError:
        return ()
    return tuple(fact for fact in facts if fact.kind == HEARTBEAT)


def listed(beats: Iterable[Fact]) -> tuple[Live, ...]:
    """The sessions that heartbeats list."""
    return tuple(live for fact in beats for live in fact.live)


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


@dataclass(frozen=True, slots=True)
class Roll:
    """All live sessions of a worker by a heartbeat, in however many parts, and when it was read.

    `following` is the number that its next session will get.
    """

    sessions: frozenset[bytes]
    following: int
    at: float


@dataclass(frozen=True, slots=True)
class Open:
    """A session that is live as far as it is sealed: its number, and its worker's journal."""

    session: bytes
    epoch: int
    number: int
    journal: bytes


class EndRule:
    """Finds sessions whose end is missing; time counts while their node says that it lives."""

    def __init__(self, missing_s: float) -> None:
        """After `missing_s` seconds."""
        self._missing_s = missing_s
        self._parts: dict[bytes, set[bytes]] = {}
        self._since: dict[Name, float] = {}
        self._told: set[Name] = set()
        self.rolls: dict[bytes, Roll] = {}
        """The last whole one of each journal."""

    def note(self, journal: bytes, beat: Fact, now: float) -> None:
        """A heartbeat of a journal, or a part of one; `now` as for `TailRule`."""
        part = _PART.fullmatch(beat.status)
        following = beat.attributes.get("next", "")
        if part is None or not _NEXT.fullmatch(following):
            return
        if part[1] == "1":
            self._parts[journal] = set()
        elif journal not in self._parts:
            return  # its beginning was read by another process
        self._parts[journal].update(live.session for live in beat.live)
        if part[1] == part[2]:
            sessions = frozenset(self._parts.pop(journal))
            self.rolls[journal] = Roll(sessions, int(following), now)

    def look(self, rows: Iterable[Open], reached: Callable[[bytes], float]) -> list[Name]:
        """The epochs whose end is missing now, of all sessions that are live; told ones are not.

        `reached` is as for `TailRule`. Sessions that are live no more are forgotten.
        """
        since: dict[Name, float] = {}
        found = []
        for row in rows:
            roll = self.rolls.get(row.journal)
            if roll is None or row.session in roll.sessions or row.number >= roll.following:
                continue
            name = (row.session, row.epoch)
            begun = since[name] = self._since.get(name, roll.at)
            if min(roll.at, reached(row.session)) - begun >= self._missing_s:
                found.append(name)
        self._since = since
        self._told &= since.keys()
        return [name for name in found if name not in self._told]

    def tell(self, name: Name) -> None:
        """This one was told, now or by another before."""
        self._told.add(name)
