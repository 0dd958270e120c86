"""Facts derived again from recorded bytes, and compared with the recorded ones.

This is what `verify --deep` asks of the codec. It is the capture codec, so the same bytes give the
same facts; what differs was falsified, or written by a gateway of another version. Facts are
compared as they come, so the memory this takes does not grow with the session.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import zip_longest
from operator import attrgetter

from sealtape.capture.postgres.codec import snapshot
from sealtape.capture.postgres.codec.statements import Classifier
from sealtape.capture.postgres.codec.tracker import Tracker
from sealtape.schemas import facts
from sealtape.schemas.errors import FormatError
from sealtape.schemas.facts import (
    COMMAND,
    NODE,
    RESULT,
    Fact,
    decode_facts,
    encode_fact,
    encode_facts,
)
from sealtape.schemas.slices import CLIENT_IN, TARGET_IN, Hole, Slice

TOLERANCE_NS = 5_000_000
"""By how much two durations may differ: a slice's time is its loop tick's."""
LOST = "lost sync"
MAX_UNMATCHED = 1 << 17
"""Facts of one side that wait for the other side's; capture writes both within a second."""
MAX_DIFFERENCES = 10_000
"""Differences that are kept; more of them change no verdict."""
NOWHERE = (0, 0)

_RECENT = 4096
_COMPARED = tuple(
    item.name
    for item in fields(Fact)
    if item.name not in ("n", "ts_ns", "ref", "duration_ns", "live", "parameters")
)
_same = attrgetter(*_COMPARED)


@dataclass(frozen=True, slots=True)
class Difference:
    """Where recorded and derived facts part.

    `field` is a Fact's field, or `missing`, `extra`, or `unmatched` (`MAX_UNMATCHED` was reached).
    """

    n: int
    """Number of the recorded fact; of the derived one where nothing is recorded."""
    field: str
    recorded: object
    derived: object
    place: tuple[int, int] = NOWHERE
    """What `Comparison.record` was told of the recorded fact."""


def feed(tracker: Tracker, item: Slice) -> None:
    """Give a recorded slice to a tracker; the `_out` legs say nothing new and are left out.

    Raises FormatError where the slice does not follow the one before it.
    """
    if item.leg not in (CLIENT_IN, TARGET_IN):
        return
    client = item.leg == CLIENT_IN
    lost = tracker.client_lost if client else tracker.server_lost
    if not lost and item.offset != tracker.offsets[0 if client else 1]:
        raise FormatError("A slice does not follow the one before it.", offset=item.offset)
    if client:
        tracker.client(item.data, item.ts_ns)
    else:
        tracker.server(item.data, item.ts_ns)


def decode_parts(head: bytes, ts_ns: int, text: bytes, statement: bytes, tail: bytes) -> Fact:
    """Decode a fact from the parts a tracker emits."""
    body = encode_facts((0, 0, 0, 0), [encode_fact(head, text, statement, tail)])
    return decode_facts(body, ts_ns).facts[0]


class Deriver:
    """Derives facts slice by slice, for sessions too long to hold."""

    def __init__(
        self,
        *,
        salt: bytes,
        full_text: bool = False,
        parameters: bool = False,
        state: bytes | None = None,
        classifier: Classifier | None = None,
    ) -> None:
        """Take what the target had opted in to, the epoch's text salt, and where to start."""
        self._n = 0
        self._now = 0
        self._found: list[Fact] = []
        self._tracker = Tracker(
            emit=self._emit,
            classifier=classifier or Classifier(),
            salt=salt,
            full_text=full_text,
            parameters=parameters,
        )
        if state is not None:
            snapshot.load(self._tracker, state)

    def feed(self, item: Slice) -> list[Fact]:
        """Take the next slice; return the facts it gave."""
        self._now = item.ts_ns
        feed(self._tracker, item)
        found = self._found
        self._found = []
        return found

    def _emit(
        self,
        kind: int,
        leg: int,
        offset: int,
        length: int,
        ref: int,
        text: bytes,
        statement: bytes,
        tail: bytes,
        *,
        error: bool = False,
    ) -> int:
        n = self._n
        self._n += 1
        head = (n, kind, self._now, leg, offset, length, ref)
        self._found.append(facts.decode_parts(head, text, statement, tail))
        return n


def facts_from_data(
    slices: Iterable[Slice | Hole],
    *,
    salt: bytes,
    full_text: bool = False,
    parameters: bool = False,
    state: bytes | None = None,
    classifier: Classifier | None = None,
) -> list[Fact]:
    """Derive the facts of recorded slices, numbered from 0, up to the first hole."""
    deriver = Deriver(
        salt=salt,
        full_text=full_text,
        parameters=parameters,
        state=state,
        classifier=classifier,
    )
    found: list[Fact] = []
    for item in slices:
        if isinstance(item, Hole):
            if item.leg in (CLIENT_IN, TARGET_IN) and item.length:
                break
            continue
        found += deriver.feed(item)
    return found


def compare(
    recorded: Sequence[Fact],
    derived: Sequence[Fact],
    *,
    tolerance_ns: int = TOLERANCE_NS,
    open_end: bool = False,
) -> list[Difference]:
    """Say where facts differ; empty if the recorded ones are what the bytes say.

    Only what this codec emits is compared: COMMAND, RESULT and the NODE fact of lost sync. Numbers
    need not be equal (other facts are numbered in between), what they refer to must be. With
    `open_end` facts may be missing at the end: a crash cuts slices and facts independently.
    """
    comparison = Comparison(tolerance_ns=tolerance_ns)
    for left, right in zip_longest(recorded, derived):
        if left is not None:
            comparison.record(left)
        if right is not None:
            comparison.derive(right)
    comparison.end(open_end=open_end)
    return comparison.found


class Comparison:
    """`compare` for facts that come bit by bit, the recorded ones and the derived ones in turn."""

    def __init__(self, *, tolerance_ns: int = TOLERANCE_NS, parameters: bool = True) -> None:
        """Begin. `parameters` False: it is not known whether the target had opted in to them.

        Then derived ones count only if any recorded fact has some.
        """
        self.found: list[Difference] = []
        self.more = 0
        """Differences that were too many to keep."""
        self._tolerance_ns = tolerance_ns
        self._opted = parameters
        self._withheld: list[Difference] = []
        self._recorded: deque[tuple[Fact, tuple[int, int]]] = deque()
        self._derived: deque[Fact] = deque()
        self._index = 0
        self._left = _Commands()
        self._right = _Commands()
        self._stopped = self._over = False

    def record(self, fact: Fact, place: tuple[int, int] = NOWHERE) -> None:
        """Take the next recorded fact."""
        if fact.parameters and not self._opted:
            self._opted = True
            for difference in self._withheld:
                self._add(difference)
        if not _is_ours(fact) or self._over:
            return
        if self._derived:
            self._pair(fact, place, self._derived.popleft())
            return
        if self._stopped:
            return
        self._recorded.append((fact, place))
        if len(self._recorded) > MAX_UNMATCHED:
            self._give_up(Difference(fact.n, "unmatched", fact, None, place))

    def derive(self, fact: Fact) -> None:
        """Take the next derived fact."""
        if self._over:
            return
        if self._recorded:
            self._pair(*self._recorded.popleft(), fact)
            return
        self._derived.append(fact)
        if len(self._derived) > MAX_UNMATCHED:
            self._give_up(Difference(fact.n, "unmatched", None, fact))

    def stop(self) -> None:
        """Nothing more can be derived: compare only what was, and let both ends be open."""
        self._stopped = True

    def end(self, *, open_end: bool = False) -> None:
        """Add what is left over to `found`; what is missing not with `open_end`."""
        if not self._stopped:
            for fact, place in self._recorded:
                self._add(Difference(fact.n, "extra", fact, None, place))
            for fact in () if open_end else self._derived:
                self._add(Difference(fact.n, "missing", None, fact))
        self._recorded.clear()
        self._derived.clear()

    def _give_up(self, difference: Difference) -> None:
        self._add(difference)
        self._recorded.clear()
        self._derived.clear()
        self._over = True

    def _add(self, difference: Difference) -> None:
        if len(self.found) < MAX_DIFFERENCES:
            self.found.append(difference)
        else:
            self.more += 1

    def _pair(self, left: Fact, place: tuple[int, int], right: Fact) -> None:
        names: list[str] = []
        if _same(left) != _same(right):
            names = [name for name in _COMPARED if getattr(left, name) != getattr(right, name)]
        if abs(left.duration_ns - right.duration_ns) > self._tolerance_ns:
            names.append("duration_ns")
        if right.kind == COMMAND:
            self._left.begin(left.n, self._index)
            self._right.begin(right.n, self._index)
        self._index += 1
        same = self._left.index(left.ref) == self._right.index(right.ref)
        if not same or (left.ref < 0) != (right.ref < 0):
            names.append("ref")
        for name in names:
            values = getattr(left, name), getattr(right, name)
            self._add(Difference(left.n, name, *values, place))
        if left.parameters != right.parameters:
            values = left.parameters, right.parameters
            difference = Difference(left.n, "parameters", *values, place)
            if self._opted:
                self._add(difference)
            elif len(self._withheld) < MAX_DIFFERENCES:
                self._withheld.append(difference)


class _Commands:
    """At which place in the order the commands stand that a fact may still refer to.

    That is those without a result, and the last few that have one: a second may override it.
    """

    __slots__ = ("_old", "_open", "_young")

    def __init__(self) -> None:
        self._open: dict[int, int] = {}
        self._young: dict[int, int] = {}
        self._old: dict[int, int] = {}

    def begin(self, n: int, index: int) -> None:
        self._open[n] = index

    def index(self, ref: int) -> int:
        """The place of command `ref`, -1 if it is none."""
        found = self._open.pop(ref, -1)
        if found < 0:
            return self._young.get(ref, self._old.get(ref, -1))
        if len(self._young) >= _RECENT:
            self._old, self._young = self._young, {}
        self._young[ref] = found
        return found


def _is_ours(fact: Fact) -> bool:
    return fact.kind in (COMMAND, RESULT) or (fact.kind == NODE and fact.status == LOST)
