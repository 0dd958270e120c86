"""The heartbeats of a log and the times that its entries state, as a monitor follows them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sealtape.schemas.canonical import Fields, Json
from sealtape.schemas.tlog.records import Heartbeat, Listed
from sealtape.schemas.verify.violations import (
    NS,
    Limits,
    Place,
    Report,
    place_members,
    read_place,
)

_BEGINNING: Final = -(2**63)


@dataclass(frozen=True, slots=True)
class Standing:
    """How things stand, as a heartbeat says it."""

    keys: Listed
    shards: Listed
    nodes: Listed
    open: int


class Pulse:
    """When the log last said how things stand, and what its clock says."""

    def __init__(self, report: Report, limits: Limits) -> None:
        """Of no log; what is wrong goes to `report`."""
        self._report = report
        self._limits = limits
        self._last: Place = (0, 0)
        self._last_ns = 0
        self._every_s = 0
        self._told = False
        """Whether it was said that no heartbeat follows the last one in time."""
        self.clock_ns = _BEGINNING
        """The latest time that the log's writer stated, since its clock was last set back."""
        self._ahead: tuple[Place, int] = ((0, 0), _BEGINNING)
        """The latest time that any entry stated, and where, since a witness told the time."""

    def begin(self, place: Place, at_ns: int) -> None:
        """A shard of the log begins, at 0 when nothing says when; its heartbeats are due as any."""
        self._last, self._last_ns, self._told = place, at_ns, False
        self._every_s = self._every_s or self._limits.heartbeat_s

    def tick(self, place: Place, at_ns: int) -> None:
        """An entry says when the writer made it."""
        if at_ns < self.clock_ns - self._limits.clock_s * NS:
            seconds = (self.clock_ns - at_ns) // NS
            self._report("clock", place, f"made {seconds} seconds before what stands before it")
            self.clock_ns = at_ns  # told once: what follows is measured by the clock that was set
        self.clock_ns = max(self.clock_ns, at_ns)
        self.mention(place, at_ns)

    def mention(self, place: Place, at_ns: int) -> None:
        """An entry names a time, of whatever clock."""
        if at_ns > self._ahead[1]:
            self._ahead = (place, at_ns)

    def beat(self, place: Place, entry: Heartbeat, standing: Standing) -> None:
        """A heartbeat, and how things really stand."""
        late_s = (entry.at_ns - self._last_ns) // NS - self._every_s - self._limits.grace_s
        if self._last_ns and late_s > 0 and not self._told:
            self._report("silent", place, f"a heartbeat {late_s} seconds too late")
        self._last, self._last_ns, self._told = place, entry.at_ns, False
        self._every_s = entry.every_s
        if entry.every_s > self._limits.heartbeat_s:
            limit = self._limits.heartbeat_s
            self._report("period", place, f"the next within {entry.every_s} seconds, over {limit}")
            self._every_s = limit
        if entry.index != place[1]:
            self._report("heartbeat", place, f"it says that it stands at {entry.index}")
        for name, said, real in (
            ("key entries", entry.keys, standing.keys),
            ("chains of segments", entry.shards, standing.shards),
            ("numbers of nodes", entry.nodes, standing.nodes),
            ("open epochs", entry.open, standing.open),
        ):
            if said != real:
                self._report("heartbeat", place, f"the {name} are other ones: {_shown(said, real)}")

    def witnessed(self, at_ns: int) -> None:
        """A witness told the time: nothing before it is from the future."""
        place, ahead_ns = self._ahead
        if ahead_ns > at_ns + self._limits.clock_s * NS:
            seconds = (ahead_ns - at_ns) // NS
            self._report("clock", place, f"{seconds} seconds ahead of the checkpoint over it")
        self._ahead = ((0, 0), _BEGINNING)

    def overdue(self, now_ns: int) -> Iterator[tuple[Place, str]]:
        """The last heartbeat, when the next one should be there by now."""
        late_s = (now_ns - self._last_ns) // NS - self._every_s - self._limits.grace_s
        if self._last_ns and late_s > 0:
            self._told = True
            yield self._last, f"no heartbeat after it, {late_s} seconds too late"

    # -- kept --------------------------------------------------------------------------------------

    def members(self) -> dict[str, Json]:
        """The state, as JSON."""
        return {
            "last": place_members(self._last),
            "last_ns": str(self._last_ns),
            "every_s": self._every_s,
            "told": self._told,
            "clock_ns": str(self.clock_ns),
            "ahead": {"place": place_members(self._ahead[0]), "at_ns": str(self._ahead[1])},
        }

    def read(self, fields: Fields) -> None:
        """Read what `members` gave."""
        self._last = read_place(fields, "last")
        self._last_ns = fields.time_ns("last_ns")
        self._every_s = fields.integer("every_s")
        self._told = fields.boolean("told")
        self.clock_ns = fields.time_ns("clock_ns")
        ahead = fields.object("ahead")
        self._ahead = (read_place(ahead, "place"), ahead.time_ns("at_ns"))
        ahead.end()
        fields.end()


def _shown(said: Listed | int, real: Listed | int) -> str:
    if isinstance(said, Listed) and isinstance(real, Listed):
        if said.count == real.count:
            return f"{said.count} with another root"
        return f"{said.count}, not {real.count}"
    return f"{said}, not {real}"
