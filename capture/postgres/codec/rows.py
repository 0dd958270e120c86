"""Recorded bytes decoded again: one step per command, with its statement, parameters and rows.

The decoder is the capture codec itself; the replay only looks closer (row descriptions, rows,
notices) and keeps what it shows bounded. Statements are shown as they were sent, literals and all:
who replays holds the data key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from sealtape.capture.postgres.codec import messages, snapshot
from sealtape.capture.postgres.codec.derive import decode_parts, feed
from sealtape.capture.postgres.codec.memory import Prepared
from sealtape.capture.postgres.codec.scanner import Handler
from sealtape.capture.postgres.codec.statements import Classifier
from sealtape.capture.postgres.codec.tracker import Tracker
from sealtape.capture.postgres.codec.values import TYPE_NAMES, show_all
from sealtape.schemas.facts import COMMAND, RESULT, Fact, encode_head
from sealtape.schemas.slices import CLIENT_IN, TARGET_IN, Hole, Slice

MAX_ROWS = 1000
"""Rows of one result that are kept to be shown, unless the caller says otherwise."""
MAX_ROW = 1 << 20
"""Bytes of one row that are decoded; a longer one is shown as cut off."""
MAX_NOTICES = 100
_DATA_ROW, _COPY_DATA, _ROW_DESCRIPTION, _NOTICE = b"DdTN"
_Types = list[tuple[str, int, int]]


@dataclass(slots=True)
class Result:
    """What one statement of a command returned."""

    columns: list[tuple[str, str]] = field(default_factory=list)
    """Name and type name (or OID) of each column."""
    rows: list[list[str | None]] = field(default_factory=list)
    count: int = 0
    """Rows the server sent; more than `rows` holds where the limit was reached."""
    tag: str = ""


@dataclass(slots=True)
class Step:
    """One command as it went. Times are nanoseconds since the epoch, -1 while unknown."""

    n: int
    """Number of its COMMAND among the facts replayed, from 0; -1 if an error had no command."""
    ts_ns: int
    kind: str
    """`query`, `execute`, `function`, `parse`, or `session` for an error of no command."""
    offset: int
    """Where its message starts on the client_in leg."""
    length: int
    text: str
    cut: bool = False
    """The text is only the first 64 KiB."""
    effect: str = ""
    objects: tuple[str, ...] = ()
    parameters: list[str | None] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    status: str = "running"
    rows: int = -1
    bytes_out: int = 0
    duration_ns: int = -1
    code: str = ""
    error: Mapping[str, str] = field(default_factory=dict)
    """Fields of the ErrorResponse by their letter: M message, D detail, H hint ..."""
    notices: list[str] = field(default_factory=list)
    copy_in_bytes: int = 0
    copy_out_bytes: int = 0


def replay(
    slices: Iterable[Slice | Hole],
    *,
    state: bytes | None = None,
    max_rows: int = MAX_ROWS,
    classifier: Classifier | None = None,
) -> Iterator[Step]:
    """Yield the commands in the order they ended; those that never did come last, as `running`.

    `slices` are of all legs in recorded order (the `_out` legs are ignored), from the session's
    start or from where `state` (a `snapshot`) was taken. Raises FormatError where slices do not
    follow each other. After a hole in the recording nothing can be decoded: the replay ends there.
    """
    decoder = Replay(state=state, max_rows=max_rows, classifier=classifier)
    for item in slices:
        if isinstance(item, Hole):
            if item.leg in (CLIENT_IN, TARGET_IN) and item.length:
                break
            continue
        yield from decoder.feed(item)
    yield from decoder.running()


class Replay:
    """The decoder behind `replay`, for callers that feed it as they read."""

    def __init__(
        self,
        *,
        state: bytes | None = None,
        max_rows: int = MAX_ROWS,
        classifier: Classifier | None = None,
    ) -> None:
        """Start at the session's start, or at a snapshot."""
        self._watcher = _Watcher(max_rows=max_rows, classifier=classifier or Classifier())
        if state is not None:
            snapshot.load(self._watcher, state)

    @property
    def lost(self) -> bool:
        """Whether a direction stopped being PostgreSQL."""
        return self._watcher.client_lost or self._watcher.server_lost

    def feed(self, item: Slice) -> list[Step]:
        """Take the next slice; return the steps it ended."""
        feed(self._watcher, item)
        return self._watcher.take()

    def running(self) -> list[Step]:
        """Steps that have not ended."""
        return list(self._watcher.steps.values())


class _Watcher(Tracker):
    """The tracker, looking at rows, their descriptions and notices too."""

    def __init__(self, *, max_rows: int, classifier: Classifier) -> None:
        self.steps: dict[int, Step] = {}
        self._max_rows = max_rows
        self._ended: list[Step] = []
        self._commands: dict[int, Fact] = {}
        self._bounds: dict[int, tuple[Prepared, bytes]] = {}
        self._types: _Types = []
        self._told_n = 0
        self._fields: Mapping[str, str] = {}
        super().__init__(emit=self._told, classifier=classifier, salt=b"", full_text=True)

    def _server_handlers(self) -> Mapping[int, Handler]:
        return {
            **super()._server_handlers(),
            _DATA_ROW: self._data_row,
            _NOTICE: self._notice,
            _ROW_DESCRIPTION: self._row_description,
        }

    def _server_limits(self) -> Mapping[int, int]:
        return {_DATA_ROW: MAX_ROW, _ROW_DESCRIPTION: MAX_ROW}

    def take(self) -> list[Step]:
        """Return the steps that have ended since the last call."""
        ended = self._ended
        self._ended = []
        return ended

    # -- facts, as the tracker tells them -------------------------------------------------------

    def _told(
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
        n = self._told_n
        self._told_n += 1
        head = encode_head(n, kind, 0, leg, offset, length, ref)
        fact = decode_parts(head, self._teller.now, text, statement, tail)
        if kind == COMMAND:
            self._commands[n] = fact
        elif kind == RESULT:
            self._close_step(fact, failed=error)
        return n

    def _close_step(self, fact: Fact, *, failed: bool) -> None:
        command = self._commands.pop(fact.ref, None)
        step = self.steps.pop(fact.ref, None)
        self._bounds.pop(fact.ref, None)
        if step is None:
            step = _stray(fact, command)
        step.status = fact.status
        step.rows = fact.rows
        step.bytes_out = fact.bytes_out
        step.duration_ns = fact.duration_ns
        step.code = fact.code
        step.copy_in_bytes = int(fact.attributes.get("copy_in_bytes", "0"))
        if failed:
            step.error = self._fields
        self._ended.append(step)

    # -- commands -------------------------------------------------------------------------------

    def _open_step(
        self, kind: str, text: str, parameters: list[str | None], *, cut: bool = False
    ) -> int:
        n = int(self._pending[-1][1])
        fact = self._commands[n]
        self.steps[n] = Step(
            n,
            fact.ts_ns,
            kind,
            fact.offset,
            fact.length,
            text,
            cut=cut,
            effect=fact.effect,
            objects=fact.objects,
            parameters=parameters,
        )
        return n

    def _query(
        self, buffer: bytes | bytearray, start: int, stop: int, offset: int, length: int
    ) -> None:
        super()._query(buffer, start, stop, offset, length)
        text = bytes(buffer[start:stop]).partition(b"\0")[0]
        self._open_step("query", _read(text), [], cut=stop - start < length - 5)

    def _execute(
        self, buffer: bytes | bytearray, start: int, stop: int, offset: int, length: int
    ) -> None:
        portal = bytes(buffer[start:stop]).partition(b"\0")[0]
        prepared, _, raw = self._memory.portal(portal, self._bound)
        super()._execute(buffer, start, stop, offset, length)
        parameters = []
        if raw:
            try:
                _, _, codes, values, _ = messages.bind(raw)
                parameters = show_all(values, prepared.parameter_types(), codes)
            except messages.ProtocolViolation:
                raw = b""  # the server refuses it too
        text = _read(prepared.text) or prepared.statement.normalized
        n = self._open_step("execute", text, parameters, cut=not prepared.whole)
        self._bounds[n] = (prepared, raw)

    def _function(
        self, buffer: bytes | bytearray, start: int, stop: int, offset: int, length: int
    ) -> None:
        super()._function(buffer, start, stop, offset, length)
        self._open_step("function", self._commands[self._told_n - 1].normalized, [])

    # -- what the server sends ------------------------------------------------------------------

    def _step(self) -> Step | None:
        """Find the step the server is answering."""
        entry = self._head()
        if entry is None or not isinstance(entry[1], int):
            return None
        return self.steps.get(entry[1])

    def _row_description(
        self, buffer: bytes | bytearray, start: int, stop: int, offset: int, length: int
    ) -> None:
        step = self._step()
        if step is None:
            self._described(buffer, start, stop, offset, length)
        elif stop - start == length - 5:
            self._begin_result(step, messages.row_description(bytes(buffer[start:stop])))

    def _begin_result(self, step: Step, types: _Types) -> Result:
        self._types = types
        columns = [(name, TYPE_NAMES.get(oid, str(oid))) for name, oid, _ in types]
        result = Result(columns)
        step.results.append(result)
        return result

    def _result_of(self, step: Step) -> Result:
        """Find the result the next row belongs to; open one where no description came."""
        if step.results and not step.results[-1].tag:
            return step.results[-1]
        prepared, raw = self._bounds.get(step.n, (None, b""))
        if prepared is None or prepared.columns is None:
            return self._begin_result(step, [])
        types = messages.row_description(prepared.columns)
        codes = messages.bind(raw)[4] if raw else []
        if len(codes) == 1:
            codes = codes * len(types)
        if len(codes) == len(types):
            types = [(name, oid, code) for (name, oid, _), code in zip(types, codes, strict=True)]
        return self._begin_result(step, types)

    def _data_row(
        self, buffer: bytes | bytearray, start: int, stop: int, offset: int, length: int
    ) -> None:
        self._scan_server.counts[_DATA_ROW] += 1
        step = self._step()
        if step is None:
            return
        result = self._result_of(step)
        result.count += 1
        if len(result.rows) >= self._max_rows:
            return
        if stop - start < length - 5:
            result.rows.append([f"(a row of {length} bytes)"])
            return
        values = messages.data_row(buffer[start:stop])
        oids = [oid for _, oid, _ in self._types]
        codes = [code for _, _, code in self._types]
        if len(codes) != len(values):
            oids, codes = [], [0]
        result.rows.append(show_all(values, oids, codes))

    def _end(self, tag: bytes, offset: int, length: int) -> None:
        step = self._step()
        if step is not None:
            copied = self._scan_server.sizes[_COPY_DATA]
            step.copy_out_bytes += copied
            self._scan_server.sizes[_COPY_DATA] = 0
            if not step.results or step.results[-1].tag:
                step.results.append(Result())
            step.results[-1].tag = _read(tag)
        super()._end(tag, offset, length)

    def _error(
        self, buffer: bytes | bytearray, start: int, stop: int, offset: int, length: int
    ) -> None:
        self._fields = messages.fields(bytes(buffer[start:stop]))
        super()._error(buffer, start, stop, offset, length)

    def _notice(
        self, buffer: bytes | bytearray, start: int, stop: int, offset: int, length: int
    ) -> None:
        step = self._step()
        if step is not None and len(step.notices) < MAX_NOTICES:
            found = messages.fields(bytes(buffer[start:stop]))
            step.notices.append(f"{found.get('S', 'NOTICE')}: {found.get('M', '')}")


def _read(text: bytes) -> str:
    return text.decode("utf-8", "replace")


def _stray(fact: Fact, command: Fact | None) -> Step:
    """Make a step for a RESULT whose command was not seen as one: a failed Parse, or none."""
    if command is None:
        return Step(fact.ref, fact.ts_ns, "session", fact.offset, fact.length, "")
    return Step(
        command.n,
        command.ts_ns,
        "parse",
        command.offset,
        command.length,
        command.text,
        effect=command.effect,
        objects=command.objects,
    )
