"""`verify --deep`: the facts of a session against what its recorded bytes say.

The bytes are the evidence; facts are what search shows. The capture codec decodes the bytes again,
and what differs from the recorded facts is a finding. Both are taken and compared as they come: the
memory this takes does not grow with the session, and little is left of one that was closed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from sealtape.capture.postgres.codec.derive import (
    LOST,
    MAX_UNMATCHED,
    Comparison,
    Deriver,
    Difference,
)
from sealtape.capture.postgres.codec.statements import Classifier
from sealtape.schemas.bodies import Close, Ident
from sealtape.schemas.errors import FormatError
from sealtape.schemas.facts import COMMAND, Fact, decode_facts, text_salt
from sealtape.schemas.frames import Frame, Kind
from sealtape.schemas.slices import CLIENT_IN, TARGET_OUT, Slice, decode_data

Problem = tuple[int, int | None, str]
_CUT_SHORT = frozenset({"aborted", "spool", "killed", "error"})


def deep_checks() -> Callable[[bytes, bytes | None], DeepComparison]:
    """Return a maker of checks for one run: what many sessions say is parsed once."""
    return partial(DeepComparison, classifier=Classifier())


class DeepComparison:
    """Facts against data for one session."""

    def __init__(
        self, session: bytes, data_key: bytes | None, *, classifier: Classifier | None = None
    ) -> None:
        """Begin; `data_key` (of epoch 0) salts the digests of statement texts."""
        self._salt = text_salt(data_key, session, 0)
        self._classifier = classifier or Classifier()
        self._readings: list[_Reading] = []
        self._problems: list[Problem] = []
        self._heard = _Heard()
        self._place: tuple[int, int | None] = (0, None)
        self._stopped = False
        self._decodable = False
        self._closed = False
        self._open_end = True

    def body(self, frame: Frame, body: bytes) -> None:
        """Take the next opened body of the session."""
        try:
            if frame.kind == Kind.DATA:
                self._place = (frame.epoch, frame.seq)
                self._data(decode_data(body, frame.ts_ns))
            elif frame.kind == Kind.FACTS:
                self._facts(decode_facts(body, frame.ts_ns).facts, frame)
            elif frame.kind == Kind.IDENT:
                self._begin(decodable=Ident.from_json(body).protocol == "postgres")
            elif frame.kind == Kind.GAP:
                self._stop()  # what follows a hole cannot be decoded from the start
            elif frame.kind == Kind.CLOSE:
                self._open_end = Close.from_json(body).reason in _CUT_SHORT
                self._close()
        except FormatError as exc:
            self._problems.append((frame.epoch, frame.seq, exc.message))
            self._stop()

    def finish(self) -> Sequence[Problem]:
        """Return the differences: epoch, seq and what is wrong."""
        found: Sequence[Problem] = ()
        try:
            self._derive(self._heard.rest())
        except FormatError as exc:
            self._problems.append((*self._place, exc.message))
            self._stop()
        for reading in self._readings:
            found = reading.finish(open_end=self._open_end)
            if not found:
                break
        self._problems += found
        self._readings = []
        return self._problems

    def _begin(self, *, decodable: bool) -> None:
        """Whether the target had opted in to full text is not known yet: read it both ways."""
        if not decodable:
            self._readings = []
        elif not self._decodable:
            self._readings = [
                _Reading(self._salt, self._classifier, full_text=full_text)
                for full_text in (True, False)
            ]
        self._decodable = decodable

    def _close(self) -> None:
        """Let go of a session that ended well, as all but the last of many have."""
        if not self._open_end and not self._stopped:
            self.finish()
            self._closed = True

    def _data(self, slices: Sequence[Slice]) -> None:
        if self._stopped or not self._decodable:
            return
        if self._closed:
            raise FormatError("There are bytes after the end of the session.")
        self._derive(self._heard.take(slices))

    def _derive(self, slices: Sequence[Slice]) -> None:
        for reading in self._readings:
            try:
                reading.data(slices)
            except FormatError as exc:
                if len(self._readings) == 1:
                    raise
                reading.failed = exc.message

    def _facts(self, facts: Sequence[Fact], frame: Frame) -> None:
        if self._closed:
            raise FormatError("There are facts after the end of the session.")
        place = (frame.epoch, frame.seq)
        for fact in facts:
            if len(self._readings) > 1 and fact.kind == COMMAND and fact.text_length:
                self._decide(full_text=bool(fact.text))
            for reading in self._readings:
                reading.comparison.record(fact, place)
        if any(fact.status == LOST for fact in facts):
            self._stop()

    def _decide(self, *, full_text: bool) -> None:
        """Whether the target had opted in to full text shows in the first text there was."""
        self._readings = [self._readings[0 if full_text else 1]]
        failed, self._readings[0].failed = self._readings[0].failed, None
        if failed is not None:
            raise FormatError(failed)

    def _stop(self) -> None:
        self._stopped = True
        self._heard.rest()
        for reading in self._readings:
            reading.comparison.stop()


class _Heard:
    """Lets through what the gateway's codec was shown.

    Once the gateway has ended a session, the client's bytes are read and go nowhere: they are
    recorded with, in the same tick, that nothing is sent in their place. No fact is made of them.
    """

    def __init__(self) -> None:
        self._held: list[Slice] = []

    def take(self, slices: Sequence[Slice]) -> Sequence[Slice]:
        """Take the next slices; return those that are decided on, in order."""
        passed: list[Slice] = []
        for item in slices:
            held = self._held
            if item.leg == CLIENT_IN and held and held[-1].ts_ns == item.ts_ns:
                held.append(item)
                continue
            if item.leg == TARGET_OUT and not item.data and held and held[-1].ts_ns == item.ts_ns:
                del held[_unsent(held, item.replaces) :]
            passed += held
            self._held = [item] if item.leg == CLIENT_IN else []
            passed += () if self._held else (item,)
        return passed

    def rest(self) -> Sequence[Slice]:
        """Return what nothing follows."""
        held, self._held = self._held, []
        return held


def _unsent(held: Sequence[Slice], size: int) -> int:
    """Where the last slices begin that have this size; behind the last one if none have."""
    for index in range(len(held) - 1, -1, -1):
        size -= len(held[index].data)
        if size <= 0:
            return index if size == 0 else len(held)
    return len(held)


class _Reading:
    """The bytes decoded in one of the ways a target can be set, and compared with the facts."""

    def __init__(self, salt: bytes, classifier: Classifier, *, full_text: bool) -> None:
        self._deriver = Deriver(
            salt=salt, full_text=full_text, parameters=True, classifier=classifier
        )
        self.comparison = Comparison(parameters=False)
        self.failed: str | None = None

    def data(self, slices: Sequence[Slice]) -> None:
        if self.failed is None:
            for item in slices:
                for fact in self._deriver.feed(item):
                    self.comparison.derive(fact)

    def finish(self, *, open_end: bool) -> list[Problem]:
        if self.failed is not None:
            return [(0, None, self.failed)]
        comparison = self.comparison
        comparison.end(open_end=open_end)
        problems: list[Problem] = [(*each.place, _reason(each)) for each in comparison.found]
        if comparison.more:
            problems.append((0, None, f"the facts differ in {comparison.more} more places"))
        return problems


def _reason(difference: Difference) -> str:
    if difference.field == "missing":
        return f"a fact is missing that the bytes give (as number {difference.n})"
    if difference.field == "extra":
        return f"fact {difference.n} is not in the bytes"
    if difference.field == "unmatched":
        side = "the bytes" if difference.derived is None else "the recorded facts"
        return f"fact {difference.n} and {MAX_UNMATCHED} before it are not in {side}"
    recorded, derived = (repr(value)[:80] for value in (difference.recorded, difference.derived))
    return f"fact {difference.n} says {difference.field} {recorded}, the bytes say {derived}"
