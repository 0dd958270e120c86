"""`verify --deep`: the facts of a session against what its recorded bytes say.

The bytes are the evidence; facts are what search shows. The capture codec decodes the bytes again,
and what differs from the recorded facts is a finding. Slices and facts are taken as they come;
the facts of one session are held in memory until its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sealtape.capture.postgres.codec.derive import LOST, Deriver, Difference, compare
from sealtape.schemas.bodies import Close, Ident
from sealtape.schemas.errors import FormatError
from sealtape.schemas.facts import COMMAND, Fact, decode_facts, text_salt
from sealtape.schemas.frames import Frame, Kind
from sealtape.schemas.slices import Slice, decode_data

Problem = tuple[int, int | None, str]
_CUT_SHORT = frozenset({"aborted", "spool", "killed", "error"})


class DeepComparison:
    """Facts against data for one session."""

    def __init__(self, session: bytes, data_key: bytes | None) -> None:
        """Begin; `data_key` (of epoch 0) salts the digests of statement texts."""
        self._salt = text_salt(data_key, session, 0)
        self._deriver: Deriver | None = None
        self._waiting: list[Slice] = []
        self._derived: list[Fact] = []
        self._recorded: list[Fact] = []
        self._places: dict[int, tuple[int, int]] = {}
        self._problems: list[Problem] = []
        self._stopped = False
        self._decodable = False
        self._open_end = True

    def body(self, frame: Frame, body: bytes) -> None:
        """Take the next opened body of the session."""
        try:
            if frame.kind == Kind.DATA:
                self._data(decode_data(body, frame.ts_ns), frame)
            elif frame.kind == Kind.FACTS:
                self._facts(decode_facts(body, frame.ts_ns).facts, frame)
            elif frame.kind == Kind.IDENT:
                self._decodable = Ident.from_json(body).protocol == "postgres"
            elif frame.kind == Kind.GAP:
                self._stopped = True  # what follows a hole cannot be decoded from the start
            elif frame.kind == Kind.CLOSE:
                self._open_end = Close.from_json(body).reason in _CUT_SHORT
        except FormatError as exc:
            self._problems.append((frame.epoch, frame.seq, exc.message))
            self._stopped = True

    def finish(self) -> Sequence[Problem]:
        """Return the differences: epoch, seq and what is wrong."""
        if not self._decodable:
            return self._problems
        if self._deriver is None:
            self._problems += self._undecided()
        else:
            self._problems += self._differences()
        return self._problems

    def _undecided(self) -> Sequence[Problem]:
        """No recorded statement told whether the target had opted in to full text: try both."""
        waiting = self._waiting
        found: Sequence[Problem] = ()
        for full_text in (True, False):
            self._deriver, self._waiting, self._derived = None, waiting, []
            try:
                self._start(full_text=full_text)
                found = self._differences()
            except FormatError as exc:
                found = [(0, None, exc.message)]
            if not found:
                break
        return found

    def _differences(self) -> Sequence[Problem]:
        recorded, derived = self._recorded, self._alike()
        open_end = self._open_end or self._stopped
        if self._stopped:
            recorded = recorded[: len(derived)]
        return [
            (*self._places.get(difference.n, (0, 0)), _reason(difference))
            for difference in compare(recorded, derived, open_end=open_end)
        ]

    def _data(self, slices: Sequence[Slice], frame: Frame) -> None:
        if self._stopped or not self._decodable:
            return
        if self._deriver is None:
            self._waiting += slices
            return
        for item in slices:
            self._derived += self._deriver.feed(item)

    def _facts(self, facts: Sequence[Fact], frame: Frame) -> None:
        for fact in facts:
            undecided = self._deriver is None and self._decodable
            if undecided and fact.kind == COMMAND and fact.text_length:
                # Whether the target had opted in to full text shows in the first text there was.
                self._start(full_text=bool(fact.text))
            self._places[fact.n] = (frame.epoch, frame.seq)
        self._recorded += facts
        self._stopped = self._stopped or any(fact.status == LOST for fact in facts)

    def _start(self, *, full_text: bool) -> None:
        if self._deriver is None:
            self._deriver = Deriver(salt=self._salt, full_text=full_text, parameters=True)
            waiting, self._waiting = self._waiting, []
            for item in waiting:
                self._derived += self._deriver.feed(item)

    def _alike(self) -> list[Fact]:
        """The derived facts without the parameters, where the target had not opted in to them."""
        if any(fact.parameters for fact in self._recorded):
            return self._derived
        return [replace(fact, parameters=()) for fact in self._derived]


def _reason(difference: Difference) -> str:
    if difference.field == "missing":
        return f"a fact is missing that the bytes give (as number {difference.n})"
    if difference.field == "extra":
        return f"fact {difference.n} is not in the bytes"
    recorded, derived = (repr(value)[:80] for value in (difference.recorded, difference.derived))
    return f"fact {difference.n} says {difference.field} {recorded}, the bytes say {derived}"
