import ipaddress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealtape.indexer import tokens
from sealtape.indexer.query import (
    FIELDS,
    NAMES,
    Failed,
    Match,
    Not,
    Query,
    Since,
    Source,
    Text,
    Until,
    Value,
    form,
    parse,
)
from sealtape.schemas.errors import QueryError

NOW = int(datetime(2026, 11, 22, 12, 0, tzinfo=UTC).timestamp()) * 10**9
DAY = 86400 * 10**9
MIDNIGHT = NOW - DAY // 2
MAX = 2**63 - 1


def match(field: str, *values: str) -> Match:
    return Match(field, tuple(Value(value) for value in values))


TABLE = {
    "": (),
    "  \t ": (),
    "Update": (Text(("update",)),),
    "update orders": (Text(("update",)), Text(("orders",))),
    '"update  ORDERS"': (Text(("update", "orders")),),
    "public.orders": (Text(("public", "orders")),),
    "ord*": (Text(("ord",), prefix=True),),
    "public.*": (Text(("public",)),),
    '"drop ta"*': (Text(("drop", "ta"), prefix=True),),
    '"say \\"hi\\" c:\\\\x"': (Text(("say", "hi", "c", "x")),),
    '"back\\slash"': (Text(("back", "slash")),),
    "--force": (Text(("force",)),),
    "a - b": None,
    "-rf": (Not(Text(("rf",))),),
    "-_tmp": (Not(Text(("tmp",))),),
    "-'x'": (Not(Text(("x",))),),
    "data ->>'name'": (Text(("data",)), Text(("name",))),
    '-"drop table"': (Not(Text(("drop", "table"))),),
    "user:Anna": (match("user", "anna"),),
    "USER:anna": (match("user", "anna"),),
    "-user:anna": (Not(match("user", "anna")),),
    "user:anna,ben": (match("user", "anna", "ben"),),
    'user:"anna b",ben*': (Match("user", (Value("anna b"), Value("ben", prefix=True))),),
    'group:"a,b"': (match("group", "a,b"),),
    'agent:"x*"': (match("agent", "x*"),),
    "agent:*": (Match("agent", (Value("", prefix=True),)),),
    "run:urn:uuid:1": (match("run", "urn:uuid:1"),),
    "table:public.orders": (match("table", "public.orders"),),
    "target:shop protocol:postgres effect:write": (
        match("target", "shop"),
        match("protocol", "postgres"),
        match("effect", "write"),
    ),
    "error:true": (Failed(wanted=True),),
    'error:"FALSE"': (Failed(wanted=False),),
    "error:42P01,23*": (Match("error", (Value("42p01"), Value("23", prefix=True))),),
    "error:tru*": (Match("error", (Value("tru", prefix=True),)),),
    "session:4F": (Match("session", (Value("4f", prefix=True),)),),
    "session:4f*": (Match("session", (Value("4f", prefix=True),)),),
    "source:10.1.2.3": (Source(("10.1.2.3/32",)),),
    "source:*": (Source(("0.0.0.0/0", "::/0")),),
    "-source:10.1.2.3,*": (Not(Source(("10.1.2.3/32", "0.0.0.0/0", "::/0"))),),
    "source:10.1.2.3/8,::1": (Source(("10.0.0.0/8", "::1/128")),),
    "source:::ffff:10.1.2.3": (Source(("10.1.2.3/32",)),),
    "source:::ffff:10.1.2.3/104,::ffff:0:0/96": (Source(("10.0.0.0/8", "0.0.0.0/0")),),
    "source:::fffe:10.1.2.3,::/0": (Source(("::fffe:a01:203/128", "::/0")),),
    "since:2h": (Since(NOW - 2 * 3600 * 10**9),),
    "since:90s until:3w": (Since(NOW - 90 * 10**9), Until(NOW - 21 * DAY)),
    "since:999999999w": (Since(0),),
    "since:2026-11-22": (Since(MIDNIGHT),),
    "until:2026-11-22": (Until(MIDNIGHT + DAY),),
    "until:9999-12-31": (Until(MAX),),
    "since:1950-01-01": (Since(0),),
    "since:2026-11-22T12:00": (Since(NOW),),
    "since:2026-11-22t12:00:00z": (Since(NOW),),
    "since:2026-11-22T13:30+01:30": (Since(NOW),),
    "since:2026-11-22T10:30:00-01:30": (Since(NOW),),
    "since:2026-11-22T12:00:01.5Z": (Since(NOW + 1_500_000_000),),
    "since:2026-11-22T12:00:00.000000007": (Since(NOW + 7),),
}


@pytest.mark.parametrize("text", [text for text, terms in TABLE.items() if terms is not None])
def test_table(text: str) -> None:
    query = parse(text, now_ns=NOW)
    assert query == Query(TABLE[text])
    assert parse(form(query), now_ns=NOW + 5) == query


ERRORS = {
    "a - b": (2, "no word"),
    "*": (0, "no word"),
    '""': (0, "no word"),
    "usr:anna": (0, "'user:'"),
    "x -groop:dba": (3, "'group:'"),
    "a::int": (0, "double quotes"),
    "http://x": (0, "double quotes"),
    "user:": (0 + 5, "has no value"),
    "user: anna": (5, "has no value"),
    "user:a,,b": (7, "has no value"),
    'user:""': (5, "has no value"),
    'ab "cd': (3, "not closed"),
    'user:"cd\\"': (5, "not closed"),
    'ab"cd"': (2, "inside a word"),
    'user:ab"cd"': (7, "inside a word"),
    '"ab"cd': (4, "follows"),
    'user:"ab"cd': (9, "follows"),
    '"ab","cd"': (4, "follows"),
    "user:\udcff": (5, "no character"),
    "session:xyz": (8, "session id"),
    "session:" + "0" * 33: (8, "session id"),
    "session:*": (8, "session id"),
    "source:here": (7, "network"),
    "source:10.0.0.0/8*": (7, "'10.0.0.0/8*'"),
    "source:10.*": (7, "'10.*'"),
    "source:10.0.0.0/8,10.0.0.0/99": (18, "'10.0.0.0/99'"),
    "source:fe80::1%eth0": (7, "zone"),
    "error:true,42P01": (0, "mixture"),
    "x error:42P01,false": (2, "mixture"),
    "since:yesterday": (6, "not a time"),
    "since:2h,3h": (6, "one time"),
    "since:2h*": (6, "one time"),
    "until:2026-02-30": (6, "not a time"),
    "until:2026-11-22T25:00": (6, "not a time"),
    "until:2026-11-22T10:00+99:00": (6, "not a time"),
    "until:0001-01-01T00:00+10:00": None,
    "since:20261122": (6, "not a time"),
}


@pytest.mark.parametrize("text", [text for text, wanted in ERRORS.items() if wanted])
def test_errors(text: str) -> None:
    position, said = ERRORS[text]
    with pytest.raises(QueryError) as caught:
        parse(text, now_ns=NOW)
    assert caught.value.context["position"] == position
    assert said in str(caught.value)
    assert f"character {position + 1} " in str(caught.value)


def test_the_first_year_is_no_trap() -> None:
    assert parse("until:0001-01-01T00:00+10:00", now_ns=NOW) == Query((Until(0),))


WORDS = st.text(max_size=12).map(tokens.words).filter(bool)
NAMED = st.builds(
    Value,
    st.one_of(st.text(min_size=1, max_size=8), st.sampled_from(['"', "\\", "a b", "a,b", "*", "-"]))
    .map(tokens.fold)
    .filter(lambda text: text not in {"", "true", "false"}),
    st.booleans(),
)
NETWORKS = st.one_of(
    st.builds(
        lambda at, size: str(ipaddress.ip_network((at, size), strict=False)),
        st.integers(0, 2**32 - 1),
        st.integers(0, 32),
    ),
    st.builds(
        lambda at, size: str(ipaddress.ip_network((at, size), strict=False)),
        st.integers(2**64, 2**128 - 1),
        st.integers(0, 128),
    ),
)
HEX = st.text("0123456789abcdef", min_size=1, max_size=32)
TERMS = st.one_of(
    st.builds(Text, WORDS, st.booleans()),
    st.builds(Match, st.sampled_from(NAMES), st.lists(NAMED, min_size=1, max_size=3).map(tuple)),
    st.builds(
        Match,
        st.just("session"),
        st.lists(HEX.map(lambda text: Value(text, prefix=True)), min_size=1).map(tuple),
    ),
    st.builds(Failed, st.booleans()),
    st.builds(Source, st.lists(NETWORKS, min_size=1, max_size=2).map(tuple)),
    st.builds(Since, st.integers(0, MAX)),
    st.builds(Until, st.integers(0, MAX)),
)


@given(st.lists(st.one_of(TERMS, st.builds(Not, TERMS)), max_size=5).map(tuple))
def test_round_trip(terms: tuple) -> None:
    query = Query(terms)
    assert parse(form(query), now_ns=NOW) == query


@given(st.one_of(st.text(), st.text('ab:,*"\\- ').map(lambda text: f"user:{text}")))
def test_any_text_is_read_or_refused_by_name(text: str) -> None:
    try:
        query = parse(text, now_ns=NOW)
    except QueryError as error:
        position = error.context["position"]
        assert isinstance(position, int)
        assert 0 <= position <= len(text)
    else:
        assert parse(form(query), now_ns=NOW) == query


def test_every_field_has_an_example() -> None:
    assert all(any(field + ":" in text for text in TABLE) for field in FIELDS)
