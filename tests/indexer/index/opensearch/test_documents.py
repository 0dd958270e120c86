import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealtape.indexer.index.opensearch import documents
from sealtape.indexer.index.opensearch.documents import (
    FOREVER,
    command_source,
    progress_of,
    read_command,
    read_session,
    session_source,
)
from sealtape.schemas.documents import COMMAND_STATUSES, SESSION_STATES
from sealtape.schemas.errors import StoreCorrupt
from tests.conformance.index import command, session

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
LISTS = st.lists(TEXTS, max_size=4).map(tuple)
COUNTS = st.integers(0, FOREVER)


@given(st.data())
def test_a_session_comes_back(data):
    draw = data.draw
    whole = session(
        draw(st.integers(0, (1 << 128) - 1)),
        **{
            name: draw(TEXTS)
            for name in ("user", "target", "protocol", "node", "agent", "run", "database")
        },
        **{name: draw(TEXTS) for name in ("source", "client", "close_reason")},
        **{name: draw(LISTS) for name in ("groups", "on_behalf_of", "effects")},
        **{name: draw(COUNTS) for name in ("started_ns", "revision", "frames", "commands")},
        **{name: draw(COUNTS) for name in ("bytes_client", "bytes_server", "errors")},
        ended_ns=draw(st.none() | COUNTS),
        state=draw(st.sampled_from(SESSION_STATES)),
    )
    progress = draw(st.none() | st.binary(max_size=20))
    source = json.loads(json.dumps(session_source(whole, 7, progress)))
    assert read_session(source) == whole
    assert progress_of(source) == progress


@given(st.data())
def test_a_command_comes_back(data):
    draw = data.draw
    names = ("user", "target", "protocol", "agent", "run", "source", "text", "fingerprint")
    whole = command(
        session(1),
        draw(COUNTS),
        **{name: draw(TEXTS) for name in (*names, "effect", "error", "message")},
        **{name: draw(LISTS) for name in ("groups", "tables")},
        **{name: draw(COUNTS) for name in ("seq", "time_ns", "offset", "length", "bytes_out")},
        epoch=draw(st.integers(0, (1 << 32) - 1)),
        leg=draw(st.integers(-1, 3)),
        rows=draw(st.integers(-1, FOREVER)),
        duration_ns=draw(st.none() | COUNTS),
        status=draw(st.sampled_from(COMMAND_STATUSES)),
        version=draw(st.integers(0, 9)),
    )
    assert read_command(json.loads(json.dumps(command_source(whole, 7)))) == whole


def test_what_people_see_has_the_names_of_ecs():
    owner = session(1, started_ns=1_500_000_000, ended_ns=2_500_000_000, source="[2001:db8::1]:7")
    source = session_source(owner, 1_500_000_000, None)
    assert source["@timestamp"] == 1500
    assert source["event"] == {
        "dataset": "sealtape.sessions",
        "start": 1500,
        "end": 2500,
        "duration": 1_000_000_000,
    }
    assert source["user"] == {"name": "anna@example.com", "roles": ("dba", "Ops")}
    assert source["source"] == {"address": "[2001:db8::1]:7", "ip": "2001:db8::1"}
    one = command(owner, 0, status="error", error="42P01", message="no", version=1)
    source = command_source(one, 1_500_000_000)
    assert source["process"] == {"command_line": "select 1"}
    assert source["event"]["outcome"] == "failure"
    assert source["error"] == {"code": "42P01", "message": "no"}
    assert "duration" not in source["event"]


def test_what_searches_compare():
    one = command(
        session(1),
        0,
        text="SELECT Ünï_code",
        tables=("Shop.Public.Orders", "x", "a."),
        message="No such Thing",
        user="",
        groups=("Ops", "", "ops"),
    )
    find = command_source(one, 9)["find"]
    assert find["words"] == ["select ünï code", "shop public orders", "x", "a", "no such thing"]
    assert find["tables"] == ["shop.public.orders", "public.orders", "orders", "x", "a."]
    assert find["groups"] == ["ops"]
    assert find["start_ns"] == 9
    assert "user" not in find
    assert "error" not in find
    assert find["failed"] is False


def test_the_example_of_the_page():
    page = Path(__file__).parents[4] / "docs" / "spec" / "index.md"
    example = json.loads(re.search(r"```json\n(.*?)```", page.read_text(), re.DOTALL)[1])
    written = command_source(read_command(example), example["find"]["start_ns"])
    assert json.loads(json.dumps(written)) == example


def test_a_live_session_never_ends():
    assert session_source(session(1), 0, None)["find"]["ended_ns"] == FOREVER
    assert session_source(session(1, ended_ns=5), 0, None)["find"]["ended_ns"] == 5


@pytest.mark.parametrize("source", ["10.1.2.3:99999x", "unix", "::ffff:10.1.2.3", "10.1.2.3"])
def test_addresses(source):
    part = command_source(command(session(1), 0, source=source), 0)["source"]
    assert part["address"] == source
    assert part.get("ip") in (None, "10.1.2.3")


def broken(source, path, value):
    copy = json.loads(json.dumps(source))
    part = copy
    for name in path[:-1]:
        part = part[name]
    if value is None:
        del part[path[-1]]
    else:
        part[path[-1]] = value
    return copy


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("session", "id"), "xyz"),
        (("session", "id"), 7),
        (("session",), "text"),
        (("sealtape", "time_ns"), None),
        (("sealtape", "time_ns"), "1"),
        (("sealtape", "time_ns"), True),
        (("sealtape", "time_ns"), 1.5),
        (("user", "roles"), "dba"),
        (("user", "roles"), [1]),
        (("user", "name"), ["anna"]),
        (("user",), []),
    ],
)
def test_what_somebody_changed_is_named(path, value):
    owner = session(1)
    with pytest.raises(StoreCorrupt):
        read_session(broken(session_source(owner, 0, None), path, value))
    with pytest.raises(StoreCorrupt):
        read_command(broken(command_source(command(owner, 0), 0), path, value))


@pytest.mark.parametrize("text", ["?", "abc", 7, "YQ==\n"])
def test_progress_that_somebody_changed_is_named(text):
    with pytest.raises(StoreCorrupt):
        progress_of({"sealtape": {"progress": text}})


def test_long_texts_are_not_remembered():
    before = documents._short_cut.cache_info().currsize
    one = command(session(1), 0, text="long " * 200)
    command_source(one, 0)
    command_source(replace(one, text="another " * 200), 0)
    assert documents._short_cut.cache_info().currsize - before <= 2
