import json

import pytest

from sealtape.capture.postgres.codec.rows import Result, Step
from sealtape.indexer.rendering import FORMATS, MAX_CELL, as_json, as_table, as_text
from sealtape.indexer.replay import Note, Statement

NOON = 1_795_392_000_123_456_789


def statement(epoch=0, seq=7, **changes):
    values = {
        "n": 0,
        "ts_ns": NOON,
        "kind": "query",
        "offset": 0,
        "length": 9,
        "text": "select 1",
        "status": "SELECT 1",
        "duration_ns": 1_234_567,
    }
    return Statement(epoch, seq, Step(**(values | changes)))


def result(*rows, columns=(("id", "int4"), ("name", "text")), count=None, tag="SELECT 2"):
    return Result(list(columns), [list(row) for row in rows], count or len(rows), tag)


def test_a_table():
    shown = statement(
        text="select *\nfrom t",
        parameters=["a", None],
        results=[result(("1", "Lyon"), ("2", None), ("3", "東京"))],
    )
    assert as_table(shown) == (
        "#7  00:00:00.123  1.2 ms\n"
        "  select *\n"
        "  from t\n"
        "  $1 = 'a', $2 = NULL\n"
        "id | name\n"
        "---+-----\n"
        "1  | Lyon\n"
        "2  | NULL\n"
        "3  | 東京\n"
        "SELECT 2\n"
    )


def test_text():
    shown = statement(results=[result(("1", "a\tb\nc"), ("2", None))], notices=["NOTICE: hm"])
    assert as_text(shown) == (
        "#7  00:00:00.123  1.2 ms\n"
        "  select 1\n"
        "id\tname\n"
        "1\ta\\tb\\nc\n"
        "2\t\\N\n"
        "SELECT 2\n"
        "NOTICE: hm\n"
    )


@pytest.mark.parametrize("write", FORMATS.values())
def test_what_went_wrong(write):
    failed = statement(
        epoch=1,
        status="error",
        code="42P01",
        error={"S": "ERROR", "M": "no t", "D": "really", "H": "make one"},
    )
    assert write(failed).startswith("#1:7  ")
    assert write(failed).endswith("ERROR 42P01: no t\nDETAIL: really\nHINT: make one\n")
    assert write(statement(status="cancelled", code="57014")).endswith("ERROR 57014: \n")
    assert write(statement(status="skipped")).endswith("  select 1\n(skipped)\n")


@pytest.mark.parametrize("write", FORMATS.values())
def test_what_is_not_whole_says_so(write):
    shown = write(
        statement(
            cut=True,
            duration_ns=-1,
            results=[result(("1",), columns=(), count=5, tag="")],
            copy_in_bytes=3,
            copy_out_bytes=4,
        )
    )
    for words in (
        "still running",
        "(the statement goes on)",
        "(the first 1 of 5 rows)",
        "3 bytes of COPY data sent",
        "4 bytes of COPY data received",
    ):
        assert words in shown
    assert "(no statement)" in write(statement(kind="session", text=""))
    assert "(parse)" in write(statement(kind="parse", text=""))
    assert write(statement(results=[Result(tag="BEGIN")])).endswith("select 1\nBEGIN\n")
    assert write(Note(0, 9, "Bytes are missing.")) == "#9  (Bytes are missing.)\n"


@pytest.mark.parametrize("write", FORMATS.values())
def test_nothing_steers_the_terminal(write):
    evil = "\x1b]0;owned\x07\x1b[2J\u202e\x9b31m\r"
    shown = write(
        statement(
            text=evil,
            parameters=[evil],
            results=[result((evil,), columns=((evil, "text"),), tag=evil)],
            notices=[evil],
            code="00000",
            error={"S": evil, "M": evil, "D": evil},
        )
    )
    assert all(char.isprintable() or char in "\n\t" for char in shown)
    assert all(char.isprintable() or char == "\n" for char in write(Note(0, 1, evil)))


@pytest.mark.parametrize("write", FORMATS.values())
def test_what_was_recorded_looks_like_no_statement(write):
    head = "#8  10:00:00.000  1.0 ms"
    shown = statement(
        text=head,
        parameters=[head],
        results=[
            result((head,), ("  drop table audit",), columns=((head, "text"),), tag=f"x\n{head}")
        ],
        notices=[f"NOTICE: hm\n{head}\n  drop table audit"],
        code="42P01",
        error={"M": f"no\n{head}", "D": f"a\n{head}"},
    )
    lines = write(shown).splitlines()
    assert [line for line in lines if line.startswith("#")] == ["#7  00:00:00.123  1.2 ms"]
    assert sum(line.startswith("\\" + head) for line in lines) == 6


def test_long_and_odd_values_keep_the_table_straight():
    rows = [("x" * 500, "b"), ("e\u0301", "only", "more"), ("\\", "x" * MAX_CELL)]
    lines = as_table(statement(results=[result(*rows)])).split("\n")[2:7]
    assert "x" * (MAX_CELL - 1) + "… | b" in lines[2]
    assert lines[1].count("+") == 2
    assert lines[4].endswith("x" * MAX_CELL + " |")


def test_json():
    shown = statement(
        effect="read",
        objects=("t",),
        parameters=["a", None],
        results=[Result(tag="SET"), result(("1", None), count=9), Result(tag="COMMIT")],
        rows=1,
        bytes_out=77,
        copy_out_bytes=5,
        cut=True,
    )
    found = json.loads(json.dumps(as_json(shown)))
    assert (found["epoch"], found["seq"], found["time"]) == (0, 7, "2026-11-23T00:00:00.123456Z")
    assert (found["statement"], found["kind"], found["effect"]) == ("select 1", "query", "read")
    assert (found["tables"], found["parameters"]) == (["t"], ["a", None])
    assert (found["columns"], found["types"]) == (["id", "name"], ["int4", "text"])
    assert (found["rows"], found["row_count"], found["truncated"]) == ([["1", None]], 9, True)
    assert (found["tag"], found["affected"]) == ("SET; SELECT 2; COMMIT", 1)
    assert (found["duration_ms"], found["bytes_out"], found["error"]) == (1.235, 77, None)
    assert [each["tag"] for each in found["results"]] == ["SET", "SELECT 2", "COMMIT"]
    assert found["statement_cut"]
    assert (found["copy_out_bytes"], "copy_in_bytes" in found) == (5, False)

    plain = as_json(statement(duration_ns=-1, ts_ns=-1, status="running"))
    assert plain["duration_ms"] is plain["time"] is plain["affected"] is None
    assert "results" not in plain
    assert plain["rows"] == []

    failed = as_json(statement(code="42P01", status="error", error={"M": "no t", "P": "8"}))
    assert failed["error"] == {"code": "42P01", "message": "no t", "position": "8"}
    assert as_json(Note(1, 2, "x")) == {"epoch": 1, "seq": 2, "note": "x"}
