"""Documents as lines for programs and rows for people; the shapes are promised in docs/cli.md."""

import re
from dataclasses import replace

import pytest

from sealtape.indexer.cli import results
from sealtape.indexer.cli.confirmed import DIFFERS, Confirmed
from sealtape.indexer.cli.logged import Logged
from sealtape.schemas.documents import CommandDocument, SessionDocument
from tests.house import sources

SESSION = SessionDocument(
    session=bytes(range(16)),
    tenant="main",
    retention="standard",
    user="svc",
    groups=("dba",),
    agent="invoice-bot",
    on_behalf_of=("ada",),
    run="r-1",
    target="shop",
    protocol="postgres",
    database="shopdb",
    source="127.0.0.1:5",
    client="psql",
    node="dev-1",
    started_ns=1_790_000_000_000_000_000,
    ended_ns=None,
    state="live",
    close_reason="",
    frames=4,
    bytes_client=100,
    bytes_server=2000,
    commands=1,
    errors=0,
    revision=1,
)
COMMAND = CommandDocument(
    session=SESSION.session,
    tenant="main",
    retention="standard",
    user="svc",
    groups=("dba",),
    agent="",
    run="r-1",
    target="shop",
    protocol="postgres",
    source="127.0.0.1:5",
    epoch=0,
    seq=3,
    leg=0,
    offset=0,
    length=20,
    n=0,
    time_ns=1_790_000_000_500_000_000,
    text="select 1",
    fingerprint="",
    effect="read",
    tables=("orders",),
    status="running",
    rows=-1,
    bytes_out=0,
    duration_ns=None,
    error="",
    message="",
    version=0,
)


def promised(word):
    """The names that docs/cli.md lists after a word."""
    page = " ".join(
        sources.text(next(p for p in sources.files() if str(p) == "docs/cli.md")).split()
    )
    names = re.search(word + r" `([^`]+)`", page)[1]
    return {name for name in re.sub(r"\([^)]*\)", "", names).replace(" ", "").split(",") if name}


def test_a_session_for_programs():
    line = results.session_json(SESSION)
    assert promised("A session has at least") <= set(line)
    assert line["session"] == SESSION.session.hex()
    assert line["started"] == "2026-09-21T14:13:20.000000Z"
    assert line["on_behalf_of"] == ["ada"]
    assert line["ended"] is None
    assert line["close_reason"] is None
    bare = replace(SESSION, agent="", run="", database="", source="", client="", groups=())
    line = results.session_json(bare)
    for name in ("agent", "run", "database", "source", "client"):
        assert line[name] is None
    assert line["groups"] == []


def test_a_hit_for_programs():
    line = results.hit_json(COMMAND, SESSION)
    assert set(results.session_json(SESSION)) | promised("and adds") <= set(line)
    assert (line["seq"], line["rows"], line["duration_ms"], line["error"]) == (3, None, None, None)
    assert line["agent"] == "invoice-bot", "who it was is the session's"
    refused = replace(COMMAND, user="eve", target="shop", source="192.0.2.9")
    line = results.hit_json(refused, replace(SESSION, user="", target="", source=""))
    assert (line["user"], line["target"], line["source"]) == ("eve", "shop", "192.0.2.9")
    done = replace(
        COMMAND, status="error", rows=0, duration_ns=1_500_000, error="42601", message="oops"
    )
    line = results.hit_json(done, SESSION)
    assert (line["rows"], line["duration_ms"]) == (0, 1.5)
    assert (line["error"], line["message"]) == ("42601", "oops")


def test_rows_for_people():
    row = results.session_row(SESSION)
    assert len(row) == len(results.SESSION_HEADER)
    assert row[3:5] == ["-", "svc (invoice-bot)"]
    assert row[-1] == "2.1 KiB"
    assert results.session_row(replace(SESSION, agent=""), Logged("pending"))[3:5] == [
        *("pending", "svc")
    ]


@pytest.mark.parametrize(
    ("change", "outcome"),
    [({}, ""), ({"rows": 7}, "7"), ({"rows": 0, "error": "42601"}, "42601")],
)
def test_hits_for_people(change, outcome):
    row = results.hit_row(replace(COMMAND, **change))
    assert len(row) == len(results.HIT_HEADER)
    assert row[6] == outcome
    assert row[7] == "select 1"


def test_a_hit_names_its_frame_as_replay_takes_it():
    assert results.hit_row(COMMAND)[1] == "3"
    assert results.hit_row(replace(COMMAND, epoch=2))[1] == "2:3"


def test_where_the_log_has_a_session():
    assert results.session_json(SESSION)["log"] is None, "not known"
    assert results.session_json(SESSION, Logged("witnessed"))["log"] == "witnessed"
    assert results.hit_json(COMMAND, SESSION, Logged())["log"] == "none"
    assert results.hit_row(COMMAND, Logged("pending"))[3] == "pending"


def test_nothing_is_verified_until_it_was():
    assert results.session_json(SESSION)["verified"] is False
    assert results.confirmed_json(None) == {}
    assert results.confirmed_json(Confirmed(verified=True)) == {
        "verified": True, "verify_reason": None,
    }  # fmt: skip


def test_what_was_confirmed_is_counted(capsys):
    other = Confirmed(verified=False, reason="it is not sealed yet")
    assert results.say_confirmed([Confirmed(verified=True), other, other]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "verified: 1 of 3", "not verified: 2: it is not sealed yet",
    ]  # fmt: skip
    assert results.say_confirmed([Confirmed(verified=False, reason=f"{DIFFERS}: text")]) == 1
