"""What a session's names stand for: prepared statements and portals, bounded.

A name's meaning is *settled* when the server has confirmed it. Between a Parse or Close and its
reply the name is unsettled: in the client's own group the new meaning holds (the server skips the
group's rest if it fails), in a later group nothing does: the Parse may fail, and the name stand for
what SQL's PREPARE made of it.

Servers cut names at 63 bytes of their own encoding, so two names of a client can be one. Only
*plain* names are remembered; a Parse, Bind or Close of another may be about any name. While
something is in flight that may change any name, no name has a meaning.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from sealtape.capture.postgres.codec.statements import UNKNOWN, Statement
from sealtape.schemas.facts import NO_TAIL, NO_TEXT, encode_tail

MAX_STATEMENTS = 10_000
MAX_PORTALS = 1_000
MAX_REMEMBERED = 16 << 20
"""Bytes of texts and descriptions of one session's prepared statements."""

_PLAIN = re.compile(rb"[ -\[\]-}]{0,63}")
# ASCII that is the same in every encoding of a client: a backslash and a tilde are not.


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


CLOSED: Bound = (NOT_KNOWN, (), b"")
ANY = b"\0"
"""Among names: it may be any, because it is not plain or its end is not known."""


def is_plain(name: bytes) -> bool:
    """Whether no other spelling of a name can mean the same to the server."""
    return not name or _PLAIN.fullmatch(name) is not None


def _named(statement: Statement) -> list[bytes]:
    """The prepared statements that it takes away, where it says which."""
    return [name.encode() for name in statement.forgets if name != "*"]


def _doubts(statement: Statement) -> bool:
    """Whether it may change what any name of a prepared statement means."""
    return statement.opaque or "*" in statement.forgets


class Memory:
    """Prepared statements and portals of one session.

    Attributes:
        group: number of the group that the client is sending; some have several numbers.
        doubts: how much is in flight that may change what any statement's name means.
        portal_doubts: likewise for portals of earlier groups.
    """

    __slots__ = (
        "_portals",
        "_size",
        "_statements",
        "_unsettled",
        "doubts",
        "group",
        "portal_doubts",
    )

    def __init__(self) -> None:
        self._statements: dict[bytes, Prepared] = {}
        self._size = 0
        self._unsettled: dict[bytes, tuple[int, Prepared | None, int]] = {}
        self._portals: dict[bytes, Bound] = {}
        self.group = self.doubts = self.portal_doubts = 0

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
        self.doubts = sum(
            count for name, (count, *_) in self._unsettled.items() if not is_plain(name)
        )
        self._portals = state["portals"]
        for prepared in state["statements"]:
            self.accept(prepared.name, prepared)

    # -- statements -----------------------------------------------------------------------------

    def lookup(self, name: bytes) -> Prepared:
        """What a Bind sent now would find; `NOT_KNOWN` where that cannot be told."""
        if self._unsettled:
            proposal = self._unsettled.get(name)
            if proposal is not None:
                _, prepared, group = proposal
                return NOT_KNOWN if prepared is None or group != self.group else prepared
        return NOT_KNOWN if self.doubts else self._statements.get(name, NOT_KNOWN)

    def propose(self, name: bytes, prepared: Prepared | None) -> None:
        """The client sent a Parse, or what takes the name away (None)."""
        if not is_plain(name):
            prepared = None
            self.doubt()
        count = self._unsettled.get(name, (0, None, 0))[0]
        self._unsettled[name] = (count + 1, prepared, self.group)

    def doubt(self) -> None:
        """The client sent what may change any name; what it said in this group before is open."""
        self.doubts += 1
        self.group += 1

    def settle(self, name: bytes) -> None:
        """The reply to what `propose` was told of `name` came, or will never come."""
        if name not in self._unsettled:
            return  # a snapshot of an older version did not count it
        if not is_plain(name):
            self.doubts -= 1
        count, prepared, group = self._unsettled[name]
        if count == 1:
            del self._unsettled[name]
        else:
            self._unsettled[name] = (count - 1, prepared, group)

    def accept(self, name: bytes, prepared: Prepared) -> None:
        """The server holds `prepared` under `name` now."""
        self.forget(name)
        if not is_plain(name):
            return
        self._statements[name] = prepared
        self._size += prepared.size
        while self._size > MAX_REMEMBERED or len(self._statements) > MAX_STATEMENTS:
            self.forget(next(iter(self._statements)))

    def forget(self, name: bytes | None) -> None:
        """A statement (None: all of them) is gone, or may be."""
        if name is None or not is_plain(name):
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

    # -- SQL that works on these names too ------------------------------------------------------
    # Done at the start and at the end, and in doubt between: to forget too much costs a
    # statement's text, to forget too little would be a lie.

    def begin_sql(self, statement: Statement) -> None:
        """The client sent a command of which `Statement.names` is true."""
        for name in _named(statement):
            self.propose(name, None)
        if _doubts(statement):
            self.doubt()
        self.portal_doubts += statement.closes or statement.opaque
        self._change(statement)

    def end_sql(self, statement: Statement, *, done: bool) -> None:
        """It has its reply, or is skipped; `done`: it did not fail."""
        for name in _named(statement):
            self.settle(name)
        self.doubts -= _doubts(statement)
        self.portal_doubts -= statement.closes or statement.opaque
        self._change(statement)
        if statement.opaque and done:
            self.forget(None)
            self.drop_portals(None)

    def resume_sql(self, statement: Statement) -> None:
        """It was in flight when the state was taken."""
        self.doubts += _doubts(statement)
        self.portal_doubts += statement.closes or statement.opaque

    def _change(self, statement: Statement) -> None:
        for name in statement.forgets:
            self.forget(None if name == "*" else name.encode())
        if statement.closes:
            self.drop_portals(None)

    # -- portals --------------------------------------------------------------------------------

    def portal(self, name: bytes, bound: Mapping[bytes, Bound]) -> Bound:
        """What an Execute sent now would run; `bound` are the portals of its group so far."""
        found = bound.get(name)
        if found is not None:
            return found
        unsure = self.portal_doubts or ANY in bound
        return CLOSED if unsure else self._portals.get(name, CLOSED)

    def rebind(self, bound: dict[bytes, Bound], name: bytes, portal: Bound) -> None:
        """The client sent a Bind or a Close; `bound` are the portals of its group so far."""
        if is_plain(name):
            bound[name] = portal
        else:
            bound.clear()
            bound[ANY] = CLOSED

    def bind(self, bound: Mapping[bytes, Bound]) -> None:
        """A group that bound or closed these went well and the transaction is still open."""
        if ANY in bound:
            self._portals.clear()
        for name, item in bound.items():
            if item == CLOSED:
                self._portals.pop(name, None)
            else:
                self._portals[name] = item
        while len(self._portals) > MAX_PORTALS:
            del self._portals[next(iter(self._portals))]

    def drop_portals(self, names: Collection[bytes] | None) -> None:
        """Portals (None: all of them) are gone, or may be."""
        if names is None or ANY in names:
            self._portals.clear()
            return
        for name in names:
            self._portals.pop(name, None)
