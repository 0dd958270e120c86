"""From the query tree to OpenSearch's query language. Pure.

Everything is a filter: nothing is scored, and the order is told by the search. The fields are those
of `documents`; what is found must be what `fts5` finds in SQLite.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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

__all__ = ["SessionPlan", "after", "all_of", "any_of", "commands", "sessions"]

Json = dict[str, Any]

JOURNAL = "journal"
_FIELDS = {"session": "session.id", "group": "find.groups", "table": "find.tables"}
_MAPPED = "0.0.0.0/0"
_ALL_EXPANSIONS = (1 << 31) - 1
"""Words a prefix at the end of a phrase may stand for: all there are, or hits would be missing."""


@dataclass(frozen=True, slots=True)
class SessionPlan:
    """What to ask about sessions, and what of their commands.

    Attributes:
        session: holds for the session's own document.
        some: holds for at least one of its commands; None if nothing is asked.
        none: holds for none of its commands; None if nothing is asked.
    """

    session: Json
    some: Json | None = None
    none: Json | None = None


def commands(query: Query) -> Json:
    """The condition on commands."""
    return all_of([_signed(term, _of_command) for term in query.terms])


def sessions(query: Query) -> SessionPlan:
    """The conditions on sessions and their commands.

    A session's document has the effects of all its commands: commands are asked about an effect
    only beside what else holds for the same command.
    """
    own: list[Json] = []
    times: list[Json] = []
    together: list[Term] = []
    never: list[Json] = []
    for term in map(_normal, query.terms):
        inner = term.term if isinstance(term, Not) else term
        if not _asks_command(inner):
            own.append(_signed(term, _of_session))
            if isinstance(inner, Since | Until):
                times.append(_signed(term, _of_command))
            continue
        if _is_effect(inner):
            own.append(_signed(term, _of_effects))
        if not isinstance(term, Not):
            together.append(inner)
        elif not _is_effect(inner):
            never.append(_of_command(inner))
    if len(together) == 1 and not times and _is_effect(together[0]):
        together = []
    if not any(
        isinstance(term, Match) and term.field in ("protocol", "session") for term in query.terms
    ):
        own.append(_not({"term": {"find.protocol": JOURNAL}}))
    return SessionPlan(
        session=all_of(own),
        some=all_of([*map(_of_command, together), *times]) if together else None,
        none=any_of(never) if never else None,
    )


def after(fields: Sequence[str], values: Sequence[object], *, oldest_first: bool) -> Json:
    """What comes behind `values` in the order of `fields` (for searches without `search_after`)."""
    word = "gt" if oldest_first else "lt"
    steps: list[Json] = []
    for at, (field, value) in enumerate(zip(fields, values, strict=True)):
        same: list[Json] = [{"term": {fields[n]: values[n]}} for n in range(at)]
        steps.append(all_of([*same, {"range": {field: {word: value}}}]))
    return any_of(steps)


def all_of(conditions: Sequence[Json]) -> Json:
    """All of the conditions hold; without any, everything matches."""
    if not conditions:
        return {"match_all": {}}
    return conditions[0] if len(conditions) == 1 else {"bool": {"filter": list(conditions)}}


def any_of(conditions: Sequence[Json]) -> Json:
    """One of the conditions holds."""
    if len(conditions) == 1:
        return conditions[0]
    return {"bool": {"should": list(conditions), "minimum_should_match": 1}}


def _not(condition: Json) -> Json:
    return {"bool": {"must_not": [condition]}}


def _normal(term: Term | Not) -> Term | Not:
    """`error:false` is `-error:true`, so that both read the same for a session."""
    inner = term.term if isinstance(term, Not) else term
    if isinstance(inner, Failed) and not inner.wanted:
        return Failed(wanted=True) if isinstance(term, Not) else Not(Failed(wanted=True))
    return term


def _asks_command(term: Term) -> bool:
    if isinstance(term, Match):
        return term.field in COMMAND_FIELDS
    return isinstance(term, Text | Failed)


def _is_effect(term: Term) -> bool:
    return isinstance(term, Match) and term.field == "effect"


def _of_effects(term: Match) -> Json:
    return any_of([_value("effects", value) for value in term.values])


def _signed(term: Term | Not, positive: Any) -> Json:
    found: Json = positive(term.term if isinstance(term, Not) else term)
    return _not(found) if isinstance(term, Not) else found


def _of_session(term: Term) -> Json:
    if isinstance(term, Since):
        return {"range": {"find.ended_ns": {"gte": term.ns}}}
    return _of_command(term)


def _of_command(term: Term) -> Json:
    if isinstance(term, Text):
        return _words(term)
    if isinstance(term, Match):
        return any_of([_value(term.field, value) for value in term.values])
    if isinstance(term, Failed):
        return {"term": {"find.failed": term.wanted}}
    if isinstance(term, Source):
        return any_of([_network(network) for network in term.networks])
    if isinstance(term, Since):
        return {"range": {"sealtape.time_ns": {"gte": term.ns}}}
    return {"range": {"sealtape.time_ns": {"lt": term.ns}}}


def _words(term: Text) -> Json:
    if len(term.words) == 1:
        kind = "prefix" if term.prefix else "term"
        return {kind: {"find.words": {"value": term.words[0]}}}
    phrase = " ".join(term.words)
    if not term.prefix:
        return {"match_phrase": {"find.words": {"query": phrase}}}
    return {
        "match_phrase_prefix": {"find.words": {"query": phrase, "max_expansions": _ALL_EXPANSIONS}}
    }


def _value(field: str, value: Value) -> Json:
    name = _FIELDS.get(field, f"find.{field}")
    if not value.prefix:
        return {"term": {name: {"value": value.text}}}
    if not value.text:
        return {"exists": {"field": name}}
    return {"prefix": {name: {"value": value.text}}}


def _network(text: str) -> Json:
    condition: Json = {"term": {"source.ip": {"value": text}}}
    if isinstance(ipaddress.ip_network(text), ipaddress.IPv6Network):
        # OpenSearch keeps IPv4 addresses among the IPv6 ones; here the families are apart.
        return {"bool": {"filter": [condition], "must_not": [{"term": {"source.ip": _MAPPED}}]}}
    return condition
