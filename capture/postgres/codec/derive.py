"""Facts derived again from recorded bytes, and compared with the recorded ones.

This is what `verify --deep` asks of the codec. It is the capture codec, so the same bytes give the
same facts; what differs was falsified, or written by a gateway of another version.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

from sealtape.capture.postgres.codec import snapshot
from sealtape.capture.postgres.codec.statements import Classifier
from sealtape.capture.postgres.codec.tracker import Tracker
from sealtape.schemas.errors import FormatError
from sealtape.schemas.facts import (
    COMMAND,
    NODE,
    RESULT,
    Fact,
    decode_facts,
    encode_fact,
    encode_facts,
    encode_head,
)
from sealtape.schemas.slices import CLIENT_IN, TARGET_IN, Hole, Slice

TOLERANCE_NS = 5_000_000
"""By how much two durations may differ: a slice's time is its loop tick's."""
LOST = "lost sync"
_SKIPPED = frozenset(("n", "ts_ns", "ref", "duration_ns", "live"))


@dataclass(frozen=True, slots=True)
class Difference:
    """Where recorded and derived facts part. `field` is a Fact's field, or `missing` or `extra`."""

    n: int
    """Number of the recorded fact; of the derived one where nothing is recorded."""
    field: str
    recorded: object
    derived: object


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
        head = encode_head(n, kind, 0, leg, offset, length, ref)
        self._found.append(decode_parts(head, self._now, text, statement, tail))
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
    ours = [fact for fact in recorded if _is_ours(fact)]
    names = {fact.n: index for index, fact in enumerate(ours)}
    places = {fact.n: index for index, fact in enumerate(derived)}
    found: list[Difference] = []
    for left, right in zip(ours, derived, strict=False):
        found += _differences(left, right, names, places, tolerance_ns)
    for fact in ours[len(derived) :]:
        found.append(Difference(fact.n, "extra", fact, None))
    if not open_end:
        for fact in derived[len(ours) :]:
            found.append(Difference(fact.n, "missing", None, fact))
    return found


def _is_ours(fact: Fact) -> bool:
    return fact.kind in (COMMAND, RESULT) or (fact.kind == NODE and fact.status == LOST)


def _differences(
    left: Fact, right: Fact, names: dict[int, int], places: dict[int, int], tolerance_ns: int
) -> list[Difference]:
    found = [
        Difference(left.n, item.name, getattr(left, item.name), getattr(right, item.name))
        for item in fields(Fact)
        if item.name not in _SKIPPED and getattr(left, item.name) != getattr(right, item.name)
    ]
    if abs(left.duration_ns - right.duration_ns) > tolerance_ns:
        found.append(Difference(left.n, "duration_ns", left.duration_ns, right.duration_ns))
    if names.get(left.ref, -1) != places.get(right.ref, -1):
        found.append(Difference(left.n, "ref", left.ref, right.ref))
    return found
