"""The state machine of one PostgreSQL session: bytes of both directions in, facts out.

`client(chunk, ts_ns)` and `server(chunk, ts_ns)` take what was read on the `client_in` and
`target_in` legs, in the order it was read, and never change it. Facts go to `emit`, which numbers
them. Neither ever raises on odd bytes: where a direction stops being PostgreSQL, one NODE fact says
so (`lost sync`), and from then on the bytes are recorded but not understood.

*Commands.* One COMMAND when the client sends a Query, an Execute or a FunctionCall, and one RESULT
with `ref` on it. A Query with several statements is one command: its RESULT comes with
ReadyForQuery, adds up the rows and lists the tags. An Execute's RESULT comes with its own end. A
failed Parse that no Execute followed is a COMMAND of its own. A deferred constraint may fail at
Sync: then the group's last command gets a second RESULT, which overrides the first.

*Names.* What a prepared statement's name stands for changes only when the server says so
(ParseComplete, CloseComplete), and inside one group (up to Sync) as the client says, because the
server skips the rest of a group that fails. Where neither tells, the statement is `UNKNOWN`; a name
never stands for a text the server may not have accepted. `memory` has the rules.

*Bounds.* In flight at most `MAX_IN_FLIGHT` replies; `MAX_STATEMENTS` names and `MAX_REMEMBERED`
bytes of their texts, oldest forgotten first; `MAX_PORTALS` portals.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from sealtape.capture.postgres.codec import messages
from sealtape.capture.postgres.codec.memory import ANY, CLOSED, NOT_KNOWN, Bound, Memory, Prepared
from sealtape.capture.postgres.codec.messages import ProtocolViolation
from sealtape.capture.postgres.codec.scanner import Handler, Scanner
from sealtape.capture.postgres.codec.statements import (
    MALFORMED,
    MAX_TEXT,
    REDACTED,
    UNKNOWN,
    Classifier,
    Statement,
    function_call,
    unread,
)
from sealtape.capture.postgres.codec.teller import Emit, Teller, severity
from sealtape.capture.postgres.codec.values import literal, show_all
from sealtape.schemas.errors import FormatError
from sealtape.schemas.facts import NO_TAIL, NO_TEXT, encode_tail
from sealtape.schemas.slices import CLIENT_IN, TARGET_IN

MAX_IN_FLIGHT = 65_536
MAX_BIND = 4096
"""Bytes of a Bind that are remembered with its portal, for its result formats."""
_QUERY, _EXECUTE, _FUNCTION, _PARSE, _CLOSE, _DESCRIBE, _COPY_END, _SYNC = range(8)
_LAST = ("FATAL", "PANIC")
"""Severities after which no ReadyForQuery follows."""
_COMMANDS = (_QUERY, _EXECUTE, _FUNCTION)
_UNSAFE_ENCODINGS = frozenset(
    ("SJIS", "SHIFT_JIS_2004", "BIG5", "GBK", "UHC", "GB18030", "JOHAB", "MSKANJI", "UNICODE?")
)

_PLAIN = (
    "transaction",
    "_skipping",
    "_group_failed",
    "_group_n",
    "_copy_in",
    "_total",
    "_cite",
    "_failure",
    "_open",
    "_touched",
)

# An entry of the FIFO of replies to come is a tuple: what is expected, and what it needs.
#   (_QUERY | _EXECUTE | _FUNCTION, n, started_ns, Statement)
#   (_PARSE, name, Prepared, offset, length, ts_ns)   (_CLOSE, name or None)   (_DESCRIBE, name)
#   (_COPY_END,)                     (_SYNC, portals bound or closed since the last one)
_Entry = tuple[Any, ...]


@lru_cache(maxsize=256)
def _told_rows(tag: bytes) -> int:
    """The number at the end of a command tag; -1 when it has none."""
    count = tag[tag.rfind(b" ") + 1 :]
    return int(count) if count.isdigit() and len(count) < 19 else -1


class Tracker:
    """Follows one session from AuthenticationOk on."""

    def __init__(
        self,
        *,
        emit: Emit,
        classifier: Classifier,
        salt: bytes,
        full_text: bool = False,
        parameters: bool = False,
        client_offset: int = 0,
        server_offset: int = 0,
    ) -> None:
        """Start at the given offsets of the two legs.

        `salt` is `facts.text_salt` of the epoch. `full_text` and `parameters` are what the target
        opted in to.
        """
        self._parameters = parameters
        self._scan_client, self._scan_server = self._scanners(salt, client_offset, server_offset)
        self._teller = Teller(
            emit=emit,
            classifier=classifier,
            salt=salt,
            full_text=full_text,
            server_counts=self._scan_server.counts,
            client_sizes=self._scan_client.sizes,
            mark=server_offset,
        )
        self.client_lost = False
        self.server_lost = False
        self.transaction = "I"
        self._pending: deque[_Entry] = deque()
        self._memory = Memory()
        self._bound: dict[bytes, Bound] = {}
        self._skipping = False  # the server ignores everything up to the next Sync
        self._group_failed = False
        self._group_n = -1  # the last command of this group that has its RESULT
        self._copy_in = False  # the server ignores Sync until CopyDone or CopyFail
        self._open = False  # something of this group gets no reply that is waited for
        self._touched = False  # a setting that says how text reads was not always a safe one
        self._tags: list[bytes] = []
        self._total = 0
        self._cite = (0, 0)
        self._failure: dict[str, str] | None = None
        self._settings = {"client_encoding": "UTF8", "standard_conforming_strings": "on"}

    def _scanners(self, salt: bytes, client: int, server: int) -> tuple[Scanner, Scanner]:
        q, p, b, e = b"QPBE"
        return (
            Scanner(
                kinds=messages.CLIENT_KINDS,
                handlers=self._client_handlers(),
                limits={q: MAX_TEXT, p: MAX_TEXT, b: 1 << 14},
                digests={q: 0, p: 1},
                salt=salt,
                offset=client,
            ),
            Scanner(
                kinds=messages.SERVER_KINDS,
                handlers=self._server_handlers(),
                limits={e: messages.MAX_ERROR, **self._server_limits()},
                offset=server,
            ),
        )

    def _client_handlers(self) -> Mapping[int, Handler]:
        return {
            ord("Q"): self._query,
            ord("P"): self._parse,
            ord("B"): self._bind,
            ord("D"): self._describe,
            ord("E"): self._execute,
            ord("C"): self._close,
            ord("S"): self._sync,
            ord("F"): self._function,
            ord("c"): self._copy_end,
            ord("f"): self._copy_end,
        }

    def _server_handlers(self) -> Mapping[int, Handler]:
        return {
            ord("1"): self._parsed,
            ord("3"): self._closed,
            ord("t"): self._typed,
            ord("T"): self._described,
            ord("n"): self._described,
            ord("C"): self._complete,
            ord("I"): self._empty,
            ord("s"): self._suspended,
            ord("E"): self._error,
            ord("Z"): self._ready,
            ord("S"): self._parameter,
            ord("G"): self._copying,
            ord("W"): self._copying,
        }

    def _server_limits(self) -> Mapping[int, int]:
        return {}

    @property
    def server_at_boundary(self) -> bool:
        """Whether a message towards the client may be put in here."""
        return self._scan_server.at_boundary and not self.server_lost

    @property
    def offsets(self) -> tuple[int, int]:
        """How far the two legs have been understood (client_in, target_in)."""
        return self._scan_client.offset, self._scan_server.offset

    # -- state ------------------------------------------------------------------------------

    @property
    def at_rest(self) -> bool:
        """Whether `snapshot.dump` can be taken here."""
        sound = not (self.client_lost or self.server_lost)
        return sound and self._scan_client.at_rest and self._scan_server.at_rest

    def state(self) -> dict[str, Any]:
        """Everything that changes, for `snapshot`."""
        return {
            "scanners": [self._scan_client.state(), self._scan_server.state()],
            "plain": {name: getattr(self, name) for name in _PLAIN},
            "teller": self._teller.state(),
            "settings": self._settings,
            "tags": self._tags,
            "pending": list(self._pending),
            "bound": self._bound,
            **self._memory.state(),
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Take over a `state`; only right after construction."""
        for scanner, kept in zip(
            (self._scan_client, self._scan_server), state["scanners"], strict=True
        ):
            scanner.resume(kept)
        plain = {"_open": False, "_touched": False, **state["plain"]}  # older ones have neither
        for name in _PLAIN:
            setattr(self, name, plain[name])
        self._teller.resume(state["teller"])
        self._settings = state["settings"]
        self._tags = state["tags"]
        self._pending = deque(state["pending"])
        self._bound = state["bound"]
        self._memory.resume(state)
        for entry in self._pending:
            if entry[0] == _SYNC:
                self._memory.portal_doubts += bool(entry[1])
            elif entry[0] in _COMMANDS:
                self._memory.resume_sql(entry[3])

    def prepare(self, name: bytes, text: bytes, types: bytes, *, whole: bool) -> Prepared:
        """Make a prepared statement from what a snapshot keeps of it."""
        if whole:
            statement, part = self._teller.classify(text)
        else:
            statement, part = unread(text, len(text)), NO_TEXT
        return Prepared(name, text, statement, part, types, whole=whole)

    # -- chunks -----------------------------------------------------------------------------

    def client(self, chunk: bytes, ts_ns: int) -> None:
        """Take bytes read from the client."""
        if self.client_lost:
            return
        self._teller.now = ts_ns
        try:
            self._scan_client.feed(chunk)
            if len(self._pending) > MAX_IN_FLIGHT:
                raise ProtocolViolation("Too many replies are outstanding to follow them.")
        except FormatError as error:
            self.client_lost = self.server_lost = True
            self._lose(CLIENT_IN, self._scan_client.offset, len(chunk), error)
        else:
            if self.server_lost:
                self._assume()

    def server(self, chunk: bytes, ts_ns: int) -> None:
        """Take bytes read from the target."""
        if self.server_lost:
            return
        self._teller.now = ts_ns
        try:
            self._scan_server.feed(chunk)
        except FormatError as error:
            self.server_lost = True
            self._lose(TARGET_IN, self._scan_server.offset, len(chunk), error)
            self._assume()

    def _lose(self, leg: int, offset: int, length: int, error: FormatError) -> None:
        self._teller.lost(leg, offset, length, error.message)
        if self.client_lost:
            self._pending.clear()

    def _assume(self) -> None:
        """Believe the client where the server cannot be understood any more."""
        for entry in self._pending:
            if entry[0] in _COMMANDS:
                self._over(entry, done=True)
            elif entry[0] == _PARSE:
                self._memory.settle(entry[1])
                self._memory.accept(entry[1], entry[2])
            elif entry[0] == _CLOSE and entry[1] is not None:
                self._memory.settle(entry[1])
                self._memory.forget(entry[1])
            elif entry[0] == _SYNC and entry[1]:
                self._memory.portal_doubts -= 1
                self._memory.bind(entry[1])
        self._pending.clear()

    # -- from the client --------------------------------------------------------------------

    def _query(
        self, buffer: bytes | bytearray, start: int, stop: int, offset: int, length: int
    ) -> None:
        if stop - start == length - 5:
            end = buffer.find(b"\0", start, stop)
            if end < 0:  # the server refuses it and goes on
                statement, part = MALFORMED, NO_TEXT
            else:
                statement, part = self._teller.classify(bytes(buffer[start:end]))
        else:
            statement, part = self._overlong(bytes(buffer[start:stop]))
        self._command(_QUERY, offset, length, statement, part, NO_TAIL)

    def _command(
        self,
        kind: int,
        offset: int,
        length: int,
        statement: Statement,
        text: bytes,
        tail: bytes,
    ) -> None:
        teller = self._teller
        n = teller.command(offset, length, statement.encoded, text, tail)
        entry = (kind, n, teller.now, statement)
        self._pending.append(entry)
        if statement.names:
            self._bound.clear()
            self._memory.begin_sql(statement)
        if statement.relexes:
            self._touched = True
        if self._touched:
            teller.odd = True

    def _overlong(self, prefix: bytes) -> tuple[Statement, bytes]:
        digest = self._scan_client.digest
        assert digest is not None
        return self._teller.overlong(prefix, digest)

    def _parse(
        self, buffer: bytes | bytearray, start: int, stop: int, offset: int, length: int
    ) -> None:
        body = bytes(buffer[start:stop])
        name, ended, text = body.partition(b"\0")
        text, whole, types = text.partition(b"\0")
        if not whole and stop - start == length - 5:
            self._open = True  # the server refuses it
            return
        if not ended:  # too long; the server takes no more of it than of any name
            name, prepared = ANY, NOT_KNOWN
        elif whole:
            prepared = Prepared(name, text, *self._teller.classify(text), types)
        else:
            prepared = Prepared(name, text, *self._overlong(text), whole=False)
        self._memory.propose(name, prepared)
        self._pending.append((_PARSE, name, prepared, offset, length, self._teller.now))

    def _bind(
        self, buffer: bytes | bytearray, start: int, stop: int, offset: int, length: int
    ) -> None:
        portal_end = buffer.find(b"\0", start, stop)
        name_end = buffer.find(b"\0", portal_end + 1, stop)
        self._open = True
        if portal_end < 0 or name_end < 0:  # too long, or refused
            self._memory.rebind(self._bound, ANY, CLOSED)
            return
        portal = bytes(buffer[start:portal_end])
        prepared = self._memory.lookup(bytes(buffer[portal_end + 1 : name_end]))
        shown: tuple[str, ...] = ()
        if self._parameters and stop - start == length - 5:
            shown = self._show_parameters(bytes(buffer[start:stop]), prepared)
        raw = bytes(buffer[start:stop]) if stop - start <= MAX_BIND else b""
        self._memory.rebind(self._bound, portal, (prepared, shown, raw))

    def _show_parameters(self, body: bytes, prepared: Prepared) -> tuple[str, ...]:
        """Spell the parameters of a Bind, of a target that opted in."""
        try:
            _, _, codes, values, _ = messages.bind(body)
        except ProtocolViolation:
            return ()  # the server will refuse it
        if prepared.statement.secret:
            return (REDACTED,) * len(values)
        return tuple(map(literal, show_all(values, prepared.parameter_types(), codes)))

    def _describe(
        self, buffer: bytes | bytearray, start: int, stop: int, offset: int, length: int
    ) -> None:
        if buffer[start : start + 1] == b"S":
            self._pending.append((_DESCRIBE, bytes(buffer[start + 1 : stop - 1])))
        else:
            self._open = True

    def _execute(
        self, buffer: bytes | bytearray, start: int, stop: int, offset: int, length: int
    ) -> None:
        end = buffer.find(b"\0", start, stop)
        if end < 0:  # refused, or a name too long
            statement = MALFORMED if stop - start == length - 5 else UNKNOWN
            self._command(_EXECUTE, offset, length, statement, NO_TEXT, NO_TAIL)
            return
        portal = bytes(buffer[start:end])
        prepared, shown, _ = self._memory.portal(portal, self._bound)
        if not portal and not shown:
            tail = prepared.tail
        else:
            attributes = prepared.attributes()
            if portal:
                attributes["portal"] = portal.decode("utf-8", "replace")
            tail = encode_tail(parameters=shown, attributes=attributes)
        self._command(_EXECUTE, offset, length, prepared.statement, prepared.part, tail)

    def _close(
        self, buffer: bytes | bytearray, start: int, stop: int, offset: int, length: int
    ) -> None:
        name = bytes(buffer[start + 1 : stop - 1])
        if buffer[start : start + 1] == b"S":
            self._memory.propose(name, None)
            self._pending.append((_CLOSE, name))
            return
        self._memory.rebind(self._bound, name, CLOSED)
        self._pending.append((_CLOSE, None))

    def _sync(
        self, buffer: bytes | bytearray, start: int, stop: int, offset: int, length: int
    ) -> None:
        self._memory.group += 1  # of a COPY too: it may have failed, and this be the group's end
        if self._copy_in:
            self._bound = {}
            return
        self._open = False
        if self._skipping:
            self._skipping = False
            while self._pending:
                self._skip(self._pending.popleft())
        self._pending.append((_SYNC, self._bound))
        if self._bound:
            self._memory.portal_doubts += 1
            self._bound = {}

    def _function(
        self, buffer: bytes | bytearray, start: int, stop: int, offset: int, length: int
    ) -> None:
        oid = int.from_bytes(buffer[start : start + 4], "big")
        self._command(_FUNCTION, offset, length, function_call(oid), NO_TEXT, NO_TAIL)

    def _copy_end(
        self, buffer: bytes | bytearray, start: int, stop: int, offset: int, length: int
    ) -> None:
        if self._copy_in:
            self._copy_in = False
        elif self._pending:
            self._pending.append((_COPY_END,))

    # -- from the server --------------------------------------------------------------------

    def _head(self) -> _Entry | None:
        pending = self._pending
        while pending:
            entry = pending[0]
            if entry[0] != _COPY_END:
                return entry
            pending.popleft()  # of a COPY that failed before the client had ended it
        return None

    def _parsed(
        self, buffer: bytes | bytearray, start: int, stop: int, offset: int, length: int
    ) -> None:
        entry = self._head()
        if entry is None or entry[0] != _PARSE:
            raise ProtocolViolation("A ParseComplete nobody asked for.")
        self._pending.popleft()
        self._memory.settle(entry[1])
        self._memory.accept(entry[1], entry[2])

    def _closed(
        self, buffer: bytes | bytearray, start: int, stop: int, offset: int, length: int
    ) -> None:
        entry = self._head()
        if entry is None or entry[0] != _CLOSE:
            raise ProtocolViolation("A CloseComplete nobody asked for.")
        self._pending.popleft()
        if entry[1] is not None:
            self._memory.settle(entry[1])
            self._memory.forget(entry[1])

    def _typed(
        self, buffer: bytes | bytearray, start: int, stop: int, offset: int, length: int
    ) -> None:
        """ParameterDescription: the types the server chose where the Parse left them open."""
        entry = self._head()
        if entry is not None and entry[0] == _DESCRIBE and stop - start == length - 5:
            self._memory.typed(entry[1], bytes(buffer[start:stop]))

    def _described(
        self, buffer: bytes | bytearray, start: int, stop: int, offset: int, length: int
    ) -> None:
        entry = self._head()
        if entry is not None and entry[0] == _DESCRIBE:
            self._pending.popleft()
            if start < stop and stop - start == length - 5:  # NoData has no body
                self._memory.describe(entry[1], bytes(buffer[start:stop]))

    def _complete(
        self, buffer: bytes | bytearray, start: int, stop: int, offset: int, length: int
    ) -> None:
        self._end(bytes(buffer[start : stop - 1]), offset, length)

    def _empty(
        self, buffer: bytes | bytearray, start: int, stop: int, offset: int, length: int
    ) -> None:
        self._end(b"EMPTY", offset, length)

    def _suspended(
        self, buffer: bytes | bytearray, start: int, stop: int, offset: int, length: int
    ) -> None:
        self._end(b"SUSPENDED", offset, length)

    def _end(self, tag: bytes, offset: int, length: int) -> None:
        """One statement is over: the whole command (Execute), or a part of it (Query)."""
        entry = self._head()
        if entry is None:
            return
        rows = self._teller.since()
        told = _told_rows(tag)
        if told >= 0:
            rows = told
        if entry[0] == _EXECUTE:
            self._pending.popleft()
            _, n, started, _ = entry
            self._group_n = n
            self._teller.result(n, started, tag, rows, offset, length)
            self._over(entry, done=True)
        elif entry[0] == _QUERY:
            self._tags.append(tag)
            self._total += rows
        else:
            raise ProtocolViolation("A CommandComplete nobody asked for.")

    def _ready(
        self, buffer: bytes | bytearray, start: int, stop: int, offset: int, length: int
    ) -> None:
        self.transaction = chr(buffer[start]) if stop > start else "I"
        entry = self._head()
        if entry is None:
            self._skipping = False  # whatever Sync it was that the server found
            self._teller.ready(offset + length)
            return
        kind = entry[0]
        if kind == _SYNC:
            self._settle_portals(entry[1])
        elif kind in (_QUERY, _FUNCTION):
            self._finish(entry, offset, length)
        else:
            raise ProtocolViolation("A ReadyForQuery before what was asked.")
        self._pending.popleft()
        self._teller.ready(offset + length)
        self._group_failed = False
        self._group_n = -1
        if self.transaction == "I":
            self._memory.drop_portals(None)
        if self._teller.odd and not self._pending:
            self._relex()

    def _settle_portals(self, bound: dict[bytes, Bound]) -> None:
        if not bound:
            return
        self._memory.portal_doubts -= 1
        if self._group_failed:
            self._memory.drop_portals(bound)
        elif self.transaction != "I":
            self._memory.bind(bound)

    def _finish(self, entry: _Entry, offset: int, length: int) -> None:
        """A Query or FunctionCall is over: ReadyForQuery came."""
        kind, n, started, _ = entry
        failed = self._failure is not None
        if self._failure is not None:
            end = offset + length
            self._teller.fail(n, started, self._failure, self._total, self._cite, end)
            self._failure = None
        else:
            tags = self._tags or [b"FUNCTION CALL" if kind == _FUNCTION else b""]
            tag = tags[0] if len(tags) == 1 else b"; ".join(tags)
            self._teller.result(n, started, tag, self._total, offset, length, len(tags))
        if self._tags:
            self._tags = []
        self._total = 0
        self._over(entry, done=not failed)

    def _error(
        self, buffer: bytes | bytearray, start: int, stop: int, offset: int, length: int
    ) -> None:
        self._copy_in = False
        found = messages.fields(bytes(buffer[start:stop]))
        entry = self._head()
        if entry is not None and entry[0] in (_QUERY, _FUNCTION) and severity(found) not in _LAST:
            self._failure = found
            self._cite = (offset, length)
            return
        if entry is None:
            self._skipping |= self._open and severity(found) not in _LAST
            now = self._teller.now
            self._teller.fail(-1, now, found, 0, (offset, length), offset + length)
            return
        self._group_failed = True
        self._fail_group(found, offset, length)

    def _fail_group(self, found: dict[str, str], offset: int, length: int) -> None:
        """Give the error to whom it belongs, and skip what the server will skip: up to Sync."""
        parse: _Entry | None = None
        owner: tuple[int, int] | None = None
        pending = self._pending
        skipped = []
        while pending and pending[0][0] != _SYNC:
            entry = pending.popleft()
            if entry[0] in _COMMANDS and owner is None:
                owner = (entry[1], entry[2])
                self._over(entry, done=False)
                continue
            if entry[0] == _PARSE and parse is None:
                parse = entry
            skipped.append(entry)
        self._skipping = not pending
        if owner is None:
            owner = (self._group_n, self._teller.now)
            if parse is not None:
                owner = (self._teller.failed_parse(*parse[2:5]), parse[5])
        if parse is not None and not parse[1]:
            self._memory.forget(b"")  # the server drops the unnamed statement before it parses
        self._teller.fail(*owner, found, self._total, (offset, length), offset + length)
        self._total = 0
        self._tags = []
        for entry in skipped:
            self._skip(entry)

    def _over(self, entry: _Entry, *, done: bool) -> None:
        """A command has its reply, or will have none."""
        if entry[3].names:
            self._memory.end_sql(entry[3], done=done)

    def _skip(self, entry: _Entry) -> None:
        """Take back what the server will not do because something before it failed."""
        if entry[0] in _COMMANDS:
            self._over(entry, done=False)
            self._teller.skipped(entry[1], entry[2])
        elif entry[0] in (_PARSE, _CLOSE) and entry[1] is not None:
            self._memory.settle(entry[1])

    def _parameter(
        self, buffer: bytes | bytearray, start: int, stop: int, offset: int, length: int
    ) -> None:
        name, value = messages.parameter(bytes(buffer[start:stop]))
        if name in self._settings:
            self._settings[name] = value
            self._teller.odd = True
            if not self._pending:
                self._relex()

    def _relex(self) -> None:
        """Nothing is in flight: what the server last reported holds for the next text."""
        strings = self._settings["standard_conforming_strings"]
        encoding = self._settings["client_encoding"].upper()
        self._teller.odd = strings != "on" or encoding in _UNSAFE_ENCODINGS
        self._touched |= self._teller.odd

    def _copying(
        self, buffer: bytes | bytearray, start: int, stop: int, offset: int, length: int
    ) -> None:
        """COPY takes the client's data now: Syncs sent for convenience count for nothing."""
        entry = self._head()
        if entry is None or entry[0] not in (_QUERY, _EXECUTE):
            raise ProtocolViolation("A CopyInResponse nobody asked for.")
        pending = self._pending
        while len(pending) > 1 and pending[1][0] == _SYNC:
            if pending[1][1]:
                self._memory.portal_doubts -= 1
                self._memory.drop_portals(pending[1][1])
            del pending[1]
        if len(pending) > 1 and pending[1][0] == _COPY_END:
            del pending[1]
        else:
            self._copy_in = True
