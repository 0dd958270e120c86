"""From the query tree to SQL over the tables of `sql/0001_index.sql`. Pure.

Every value becomes a parameter. A condition is a boolean that is never NULL, so NOT is safe.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from sealtape.indexer.query import (
    COMMAND_FIELDS,
    Failed,
    Match,
    Not,
    Query,
    Since,
    Source,
    Term,
    Text,
    Until,
    Value,
)

__all__ = ["Condition", "commands", "packed_address", "sessions"]

JOURNAL = "journal"
_FLAT = 100
"""Conditions in one row; SQLite takes a thousand within each other, and a row is such a nest."""


@dataclass(frozen=True, slots=True)
class Condition:
    """An SQL expression and its parameters."""

    sql: str
    parameters: tuple[object, ...] = ()


def commands(query: Query) -> Condition:
    """The condition on `commands AS c`."""
    return _all([_command_term(term) for term in query.terms])


def sessions(query: Query) -> Condition:
    """The condition on `sessions AS s`."""
    positive: list[Condition] = []
    times: list[Condition] = []
    found: list[Condition] = []
    for term in map(_normal, query.terms):
        inner = term.term if isinstance(term, Not) else term
        if not _of_command(inner):
            found.append(_session_term(term))
            if isinstance(inner, Since | Until):
                times.append(_command_term(term))
        elif isinstance(term, Not):
            found.append(_no_command(_positive(inner)))
        else:
            positive.append(_positive(inner))
    if positive:
        found.append(_some_command(positive + times))
    if not any(
        isinstance(term, Match) and term.field in ("protocol", "session") for term in query.terms
    ):
        found.append(Condition("s.protocol <> ?", (JOURNAL,)))
    return _all(found)


def packed_address(text: str) -> bytes:
    """An address as bytes that sort like addresses within their family; empty when it is none.

    A port may follow, as in `192.0.2.7:5432` and `[2001:db8::1]:5432`; it does not count.
    """
    host = text[1:].partition("]")[0] if text.startswith("[") else text
    if host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return b""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return bytes([address.version]) + address.packed


def _normal(term: Term | Not) -> Term | Not:
    """`error:false` is `-error:true`, so that both read the same for a session."""
    inner = term.term if isinstance(term, Not) else term
    if isinstance(inner, Failed) and not inner.wanted:
        return Failed(wanted=True) if isinstance(term, Not) else Not(Failed(wanted=True))
    return term


def _of_command(term: Term) -> bool:
    if isinstance(term, Match):
        return term.field in COMMAND_FIELDS
    return isinstance(term, Text | Failed)


def _command_term(term: Term | Not) -> Condition:
    return _not(_positive(term.term)) if isinstance(term, Not) else _positive(term)


def _session_term(term: Term | Not) -> Condition:
    if isinstance(term, Not):
        return _not(_session_term(term.term))
    if isinstance(term, Since):
        return Condition("s.ended_ns >= ?", (term.ns,))
    if isinstance(term, Until):
        return Condition("s.started_ns < ?", (term.ns,))
    return _positive(term, "s")


def _positive(term: Term, table: str = "c") -> Condition:
    if isinstance(term, Text):
        return Condition("c.id IN (SELECT rowid FROM words WHERE words MATCH ?)", (_phrase(term),))
    if isinstance(term, Match):
        return _any([_value(table, term.field, value) for value in term.values])
    if isinstance(term, Failed):
        return Condition("c.failed = ?", (int(term.wanted),))
    if isinstance(term, Source):
        return _any([_network(table, network) for network in term.networks])
    if isinstance(term, Since):
        return Condition("c.time_ns >= ?", (term.ns,))
    return Condition("c.time_ns < ?", (term.ns,))


def _phrase(term: Text) -> str:
    # Words have no character that means something to FTS5; the quotes keep AND, OR and NOT words.
    return f'"{" ".join(term.words)}"' + " *" * term.prefix


def _value(table: str, field: str, value: Value) -> Condition:
    text = value.text
    if field == "session":
        return Condition(f"({table}.session >= ? AND {table}.session < ?)", (text, text + "g"))
    if field == "group":
        return _listed(f"{table}.groups", value, behind_dot=False)
    if field == "table":
        return _listed("c.tables", value, behind_dot=True)
    column = f"{table}.{field}"
    if not value.prefix:
        return Condition(f"{column} = ?", (text,))
    return Condition(f"({column} <> '' AND substr({column}, 1, ?) = ?)", (len(text), text))


def _listed(column: str, value: Value, *, behind_dot: bool) -> Condition:
    text, dotted = value.text, "." + value.text
    parameters: tuple[object, ...]
    if value.prefix:
        test = "item.value <> '' AND substr(item.value, 1, ?) = ?"
        parameters = (len(text), text)
        if behind_dot:
            test, parameters = test + " OR instr(item.value, ?) > 0", (*parameters, dotted)
    else:
        test, parameters = "item.value = ?", (text,)
        if behind_dot:
            test += " OR substr(item.value, ?) = ?"
            parameters = (*parameters, -len(dotted), dotted)
    return Condition(
        f"EXISTS (SELECT 1 FROM json_each({column}) AS item WHERE {test})",  # noqa: S608  (columns are ours)
        parameters,
    )


def _network(table: str, text: str) -> Condition:
    network = ipaddress.ip_network(text)
    family = bytes([network.version])
    low, high = network.network_address.packed, network.broadcast_address.packed
    return Condition(f"{table}.source BETWEEN ? AND ?", (family + low, family + high))


def _some_command(conditions: list[Condition]) -> Condition:
    inner = _all(conditions)
    return Condition(
        f"s.session IN (SELECT c.session FROM commands AS c WHERE {inner.sql})",  # noqa: S608  (made here)
        inner.parameters,
    )


def _no_command(condition: Condition) -> Condition:
    """None of the session's commands: looked at session by session, up to the first that is one.

    So a page costs its own sessions. The index is named since the planner, which knows no sizes,
    might go through all that match for each session.
    """
    return Condition(
        "NOT EXISTS (SELECT 1 FROM commands AS c INDEXED BY commands_by_session"  # noqa: S608  (made here)
        f" WHERE c.session = s.session AND {condition.sql})",
        condition.parameters,
    )


def _not(condition: Condition) -> Condition:
    return Condition(f"NOT ({condition.sql})", condition.parameters)


def _all(conditions: list[Condition]) -> Condition:
    return _joined(conditions, " AND ") if conditions else Condition("1")


def _any(conditions: list[Condition]) -> Condition:
    joined = _joined(conditions, " OR ")
    return Condition(f"({joined.sql})", joined.parameters)


def _joined(conditions: list[Condition], word: str) -> Condition:
    if len(conditions) > _FLAT:
        middle = len(conditions) // 2
        conditions = [
            Condition(f"({half.sql})", half.parameters)
            for half in (_joined(conditions[:middle], word), _joined(conditions[middle:], word))
        ]
    return Condition(
        word.join(condition.sql for condition in conditions),
        tuple(value for condition in conditions for value in condition.parameters),
    )
