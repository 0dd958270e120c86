"""The numbers that capture nodes give to their sessions, as a monitor follows them.

A worker of a node counts its sessions from 1, and its journal is number 0. A number that higher
ones have passed is a hole: the session is still on its way, or it vanished.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from sealtape.schemas.canonical import Fields, Json
from sealtape.schemas.tlog.records import Listed, NodeCount, SessionOpen
from sealtape.schemas.tree import leaf_hash, root
from sealtape.schemas.verify.violations import Place, Report, place_members, read_place

Worker: TypeAlias = tuple[str, bytes, int]
"""A node, its boot, and its worker: who numbers sessions."""

JOURNAL: Final = 0
_MAX_I64: Final = 2**63 - 1
_MAX_LISTED: Final = 1 << 24


@dataclass(slots=True)
class Hole:
    """Numbers [lo, hi) that never came. The entry at `place` passed them, at `at_ns`.

    `session` is what that entry opened; `stated` once an incident says that they never come.
    """

    lo: int
    hi: int
    place: Place
    at_ns: int
    session: bytes
    stated: bool = False


@dataclass(slots=True)
class Count:
    """What a worker has numbered so far."""

    highest: int = 0
    journal: bool = False
    holes: list[Hole] = field(default_factory=list)
    line: bytes = b""
    """Its line in a heartbeat; empty when it has to be written anew."""


class SessionNumbers:
    """All workers, in the order in which they first came."""

    def __init__(self, report: Report) -> None:
        """Of no worker; what is wrong goes to `report`."""
        self._report = report
        self._ranks: dict[Worker, int] = {}
        self._workers: list[Worker] = []
        self._counts: list[Count] = []

    def rank(self, worker: Worker) -> int:
        """A worker's rank in that order."""
        found = self._ranks.get(worker)
        if found is None:
            found = self._ranks[worker] = len(self._workers)
            self._workers.append(worker)
            self._counts.append(Count())
        return found

    def take(self, place: Place, entry: SessionOpen) -> int:
        """A session opened for the first time; returns the rank of its worker."""
        rank = self.rank((entry.node, entry.boot, entry.worker))
        count = self._counts[rank]
        who = _named(entry.node, entry.boot, entry.worker)
        if (entry.of == "journal") != (entry.number == JOURNAL):
            self._report("numbers", place, f"a {entry.of} has the number {entry.number}")
            _fill(count, place, entry)
        elif entry.number == JOURNAL:
            if count.journal:
                self._report("numbers", place, f"a second journal of {who}")
            count.journal = True
        elif not _fill(count, place, entry):
            reason = f"number {entry.number} of {who} is another session's"
            self._report("numbers", place, reason)
        return rank

    def again(self, place: Place, entry: SessionOpen) -> int:
        """Another epoch of a session that was opened before; returns the rank of its worker."""
        rank = self.rank((entry.node, entry.boot, entry.worker))
        _fill(self._counts[rank], place, entry)
        return rank

    def state(self, session: bytes) -> None:
        """An incident says that the numbers which this session passed never come."""
        for count in self._counts:
            for hole in count.holes:
                hole.stated = hole.stated or hole.session == session

    def overdue(self, before_ns: int) -> Iterator[tuple[Place, str]]:
        """What was passed over before that time and not stated: the places and reasons."""
        for worker, count in zip(self._workers, self._counts, strict=True):
            for hole in count.holes:
                if not hole.stated and hole.at_ns < before_ns:
                    numbers = f"{hole.lo}" + (
                        "" if hole.hi == hole.lo + 1 else f" to {hole.hi - 1}"
                    )
                    who = _named(*worker)
                    yield hole.place, f"number {numbers} of {who} never came, higher ones did"

    def listed(self) -> Listed:
        """As a heartbeat lists the highest numbers."""
        rows = []
        for worker, count in zip(self._workers, self._counts, strict=True):
            if not count.line:
                count.line = NodeCount(*worker, count.highest).line()
            rows.append(count.line)
        leaves = [leaf_hash(row) for row in sorted(rows)]
        return Listed(len(leaves), root(leaves))

    # -- kept --------------------------------------------------------------------------------------

    def members(self) -> list[Json]:
        """The state, as JSON."""
        return [
            {
                "node": node,
                "boot": boot.hex(),
                "worker": worker,
                "highest": str(count.highest),
                "journal": count.journal,
                "holes": [_hole_members(hole) for hole in count.holes],
            }
            for (node, boot, worker), count in zip(self._workers, self._counts, strict=True)
        ]

    def read(self, fields: Fields, name: str) -> None:
        """Read what `members` gave."""
        for item in fields.objects(name, max_items=_MAX_LISTED):
            rank = self.rank((item.text("node"), item.hex("boot", 16), item.integer("worker")))
            count = self._counts[rank]
            count.highest = item.decimal("highest", 0, _MAX_I64)
            count.journal = item.boolean("journal")
            count.holes = [_hole(inner) for inner in item.objects("holes")]
            item.end()


def _named(node: str, boot: bytes, worker: int) -> str:
    return f"{node}, boot {boot.hex()}, worker {worker}"


def _fill(count: Count, place: Place, entry: SessionOpen) -> bool:
    """Take a number; False when it was taken before."""
    number = entry.number
    if number > count.highest:
        if number > count.highest + 1:
            hole = Hole(count.highest + 1, number, place, entry.at_ns, entry.session)
            count.holes.append(hole)
        count.highest, count.line = number, b""
        return True
    for at, hole in enumerate(count.holes):
        if hole.lo <= number < hole.hi:
            count.holes[at : at + 1] = list(_parts(hole, number))
            return True
    return False


def _parts(hole: Hole, number: int) -> Iterator[Hole]:
    for lo, hi in ((hole.lo, number), (number + 1, hole.hi)):
        if lo < hi:
            yield Hole(lo, hi, hole.place, hole.at_ns, hole.session, hole.stated)


def _hole_members(hole: Hole) -> Json:
    return {
        "lo": str(hole.lo),
        "hi": str(hole.hi),
        "place": place_members(hole.place),
        "at_ns": str(hole.at_ns),
        "session": hole.session.hex(),
        "stated": hole.stated,
    }


def _hole(fields: Fields) -> Hole:
    found = Hole(
        fields.decimal("lo", 1, _MAX_I64),
        fields.decimal("hi", 1, _MAX_I64),
        read_place(fields, "place"),
        fields.time_ns("at_ns"),
        fields.hex("session", 16),
        fields.boolean("stated"),
    )
    fields.end()
    return found
