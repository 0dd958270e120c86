"""What a session's names stand for: prepared statements and portals, bounded.

A name's meaning is *settled* when the server has confirmed it. Between a Parse or Close and its
reply the name is unsettled: in the client's own group the new meaning holds (the server skips the
group's rest if it fails), in a later group only if nothing else could be meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sealtape.capture.postgres.codec.statements import UNKNOWN, Statement
from sealtape.schemas.facts import NO_TAIL, NO_TEXT, encode_tail

MAX_STATEMENTS = 10_000
MAX_PORTALS = 1_000
MAX_REMEMBERED = 16 << 20
"""Bytes of texts and descriptions of one session's prepared statements."""


class Prepared:
    """A prepared statement: its text as sent (at most 64 KiB) and what is cached of its facts."""

    __slots__ = ("columns", "name", "part", "statement", "tail", "text", "types", "whole")

    def __init__(
        self,
        name: bytes,
        text: bytes,
        statement: Statement,
        part: bytes,
        types: bytes = b"",
        *,
        whole: bool = True,
    ) -> None:
        """Keep name, text, classification, encoded text part and the Parse's parameter types."""
        self.whole = whole
        self.name = name
        self.text = text
        self.statement = statement
        self.part = part
        self.types = types
        self.columns: bytes | None = None
        self.tail = encode_tail(attributes=self.attributes()) if name else NO_TAIL

    def attributes(self) -> dict[str, str]:
        """What a COMMAND says of the statement's name; a new dict each time."""
        return {"statement": self.name.decode("utf-8", "replace")} if self.name else {}

    def parameter_types(self) -> tuple[int, ...]:
        """Type OIDs as the server told them, or as the Parse named them (0: left open)."""
        count = min(int.from_bytes(self.types[:2], "big"), (len(self.types) - 2) // 4)
        return tuple(int.from_bytes(self.types[2 + 4 * i : 6 + 4 * i], "big") for i in range(count))

    @property
    def size(self) -> int:
        """Bytes this costs us, about."""
        return len(self.text) + len(self.types) + len(self.columns or b"") + 500


NOT_KNOWN = Prepared(b"", b"", UNKNOWN, NO_TEXT)
Bound = tuple[Prepared, tuple[str, ...], bytes]
"""A portal: its statement, its parameters as facts tell them, its Bind's body if that is short."""


class Memory:
    """Prepared statements and portals of one session."""

    __slots__ = ("_portals", "_size", "_statements", "_unsettled", "group")

    def __init__(self) -> None:
        self._statements: dict[bytes, Prepared] = {}
        self._size = 0
        self._unsettled: dict[bytes, tuple[int, Prepared | None, int]] = {}
        self._portals: dict[bytes, Bound] = {}
        self.group = 0

    def state(self) -> dict[str, Any]:
        """Everything, by name."""
        return {
            "group": self.group,
            "statements": self._statements,
            "portals": self._portals,
            "unsettled": self._unsettled,
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Take over a `state`; `statements` is a list here, oldest first."""
        self.group = state["group"]
        self._unsettled = state["unsettled"]
        self._portals = state["portals"]
        for prepared in state["statements"]:
            self.accept(prepared.name, prepared)

    # -- statements -----------------------------------------------------------------------------

    def lookup(self, name: bytes) -> Prepared:
        """What a Bind sent now would find; `NOT_KNOWN` where that cannot be told."""
        if self._unsettled:
            proposal = self._unsettled.get(name)
            if proposal is not None:
                return self._unsettled_meaning(name, *proposal)
        return self._statements.get(name, NOT_KNOWN)

    def _unsettled_meaning(
        self, name: bytes, count: int, prepared: Prepared | None, group: int
    ) -> Prepared:
        if prepared is None:
            return NOT_KNOWN
        if group == self.group or (count == 1 and name not in self._statements):
            return prepared
        return NOT_KNOWN

    def propose(self, name: bytes, prepared: Prepared | None) -> None:
        """The client sent a Parse, or a Close (None)."""
        count = self._unsettled.get(name, (0, None, 0))[0]
        self._unsettled[name] = (count + 1, prepared, self.group)

    def settle(self, name: bytes) -> None:
        """The reply to one Parse or Close of `name` came, or will never come."""
        count, prepared, group = self._unsettled[name]
        if count == 1:
            del self._unsettled[name]
        else:
            self._unsettled[name] = (count - 1, prepared, group)

    def accept(self, name: bytes, prepared: Prepared) -> None:
        """The server holds `prepared` under `name` now."""
        self.forget(name)
        self._statements[name] = prepared
        self._size += prepared.size
        while self._size > MAX_REMEMBERED or len(self._statements) > MAX_STATEMENTS:
            self.forget(next(iter(self._statements)))

    def forget(self, name: bytes | None) -> None:
        """A statement (None: all of them) is gone, or may be."""
        if name is None:
            self._statements.clear()
            self._size = 0
            return
        found = self._statements.pop(name, None)
        if found is not None:
            self._size -= found.size

    def describe(self, name: bytes, columns: bytes) -> None:
        """Remember the RowDescription of a statement; clients do not ask for it twice."""
        found = self._statements.get(name)
        if found is not None:
            self._size -= found.size
            found.columns = columns
            self._size += found.size

    def typed(self, name: bytes, types: bytes) -> None:
        """Remember the parameter types of a statement as the server told them."""
        found = self._statements.get(name)
        if found is not None:
            self._size += len(types) - len(found.types)
            found.types = types

    # -- portals --------------------------------------------------------------------------------

    def portal(self, name: bytes) -> Bound:
        """What an Execute of a portal bound in an earlier group would run."""
        return self._portals.get(name, (NOT_KNOWN, (), b""))

    def bind(self, bound: Mapping[bytes, Bound]) -> None:
        """A group that bound these portals went well and the transaction is still open."""
        self._portals.update(bound)
        while len(self._portals) > MAX_PORTALS:
            del self._portals[next(iter(self._portals))]

    def drop_portals(self, names: Iterable[bytes] | None) -> None:
        """Portals (None: all of them) are gone, or may be."""
        if names is None:
            self._portals.clear()
            return
        for name in names:
            self._portals.pop(name, None)
