import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealtape.capture.postgres.codec import rows as module
from sealtape.capture.postgres.codec import snapshot
from sealtape.capture.postgres.codec.rows import Replay, replay
from sealtape.capture.postgres.codec.statements import MAX_TEXT, Classifier
from sealtape.capture.postgres.codec.tracker import Tracker
from sealtape.schemas.errors import FormatError
from sealtape.schemas.slices import CLIENT_IN, CLIENT_OUT, TARGET_IN, Hole, Slice
from tests.capture.postgres.codec import pg_script as pg
from tests.capture.postgres.codec.test_tracker_garbage import MESSAGES, REPLIES

HELLO = ("s", pg.GREETING)
FOUR = struct.Struct(">i").pack


def steps(script, **options):
    return list(replay(pg.slices([HELLO, *script]), classifier=pg.CLASSIFIER, **options))


def shown(step):
    return [(r.columns, r.rows, r.count, r.tag) for r in step.results]


@pytest.mark.parametrize(("name", "script"), pg.captures(), ids=[n for n, _ in pg.captures()])
def test_recorded_sessions_replay_the_same_however_they_were_cut(name, script):
    whole = list(replay(pg.slices(script)))
    assert all(step.status != "running" for step in whole)
    for cut in (1, 7, 100):
        assert list(replay(pg.slices(script, cut=cut))) == whole


def test_a_real_session_reads_as_it_was_typed():
    (script,) = [script for name, script in pg.captures() if name == "simple-0"]
    found = list(replay(pg.slices(script)))
    select = found[2]
    assert select.text == "select id, name, price from shop order by id;"
    assert shown(select) == [
        (
            [("id", "int4"), ("name", "text"), ("price", "numeric")],
            [["1", "tea", "3.50"], ["2", "it's", None]],
            2,
            "SELECT 2",
        )
    ]
    assert (select.kind, select.status, select.effect, select.objects) == (
        "query", "SELECT 2", "read", ("shop",),
    )  # fmt: skip
    several = found[3]
    assert [result.tag for result in several.results] == ["SELECT 1", "SELECT 1", "UPDATE 1"]
    assert any("NOTICE: hello 1" in step.notices for step in found)


def test_asyncpg_rows_are_binary_and_described_once():
    (script,) = [script for name, script in pg.captures() if name == "extended-0"]
    found = [s for s in replay(pg.slices(script)) if s.text.startswith("select id, name")]
    assert [step.parameters for step in found] == [["0"], ["2"]]
    assert found[1].results[0].rows == [["2", "name 2"]]
    assert found[1].results[0].columns == [("id", "int4"), ("name", "text")]


def test_results_of_one_query_are_kept_apart():
    replies = (
        pg.columns(("a", 23, 0)) + pg.row(b"1") + pg.tag("SELECT 1") + pg.tag("SET")
        + pg.columns(("b", 25, 0)) + pg.row(b"x") + pg.row(None) + pg.tag("SELECT 2") + pg.ready()
    )  # fmt: skip
    (step,) = steps([("c", pg.query("select 1; set x=1; select 2")), ("s", replies)])
    assert shown(step) == [
        ([("a", "int4")], [["1"]], 1, "SELECT 1"),
        ([], [], 0, "SET"),
        ([("b", "text")], [["x"], [None]], 2, "SELECT 2"),
    ]
    assert (step.rows, step.ts_ns, step.duration_ns) == (3, pg.T0 + 10**6, 10**6)


def test_a_portals_description_wins_over_the_statements():
    script = [
        ("c", pg.parse("s", "select a") + pg.describe(b"S", "s") + pg.SYNC),
        ("s", pg.PARSED + pg.parameter_types() + pg.columns(("a", 23, 0)) + pg.ready()),
        ("c", pg.bind("", "s", (), (), [1]) + pg.describe(b"P") + pg.execute() + pg.SYNC),
        ("s", pg.BOUND + pg.columns(("a", 23, 1)) + pg.row(FOUR(5)) + pg.tag("SELECT 1")),
        ("s", pg.ready()),
        ("c", pg.bind("", "s", (), (), [1]) + pg.execute() + pg.SYNC),
        ("s", pg.BOUND + pg.row(FOUR(6)) + pg.tag("SELECT 1") + pg.ready()),
        ("c", pg.bind("", "s") + pg.execute() + pg.SYNC),
        ("s", pg.BOUND + pg.row(b"7") + pg.tag("SELECT 1") + pg.ready()),
    ]
    assert [step.results[0].rows for step in steps(script)] == [[["5"]], [["6"]], [["7"]]]


def test_rows_without_any_description():
    script = [
        ("c", pg.parse("", "select a") + pg.bind() + pg.execute() + pg.SYNC),
        ("s", pg.PARSED + pg.BOUND + pg.row(b"x", None) + pg.tag("SELECT 1") + pg.ready()),
    ]
    (step,) = steps(script)
    assert shown(step) == [([], [["x", None]], 1, "SELECT 1")]


def test_rows_are_counted_but_shown_only_so_many():
    replies = pg.columns(("a", 23, 0)) + pg.row(b"1") * 10 + pg.tag("SELECT 10") + pg.ready()
    (step,) = steps([("c", pg.query("select")), ("s", replies)], max_rows=3)
    assert (len(step.results[0].rows), step.results[0].count) == (3, 10)


def test_a_huge_row_is_shown_as_cut(monkeypatch):
    monkeypatch.setattr(module, "MAX_ROW", 10_000)
    replies = pg.columns(("a", 25, 0)) + pg.row(b"x" * 20_000) + pg.tag("SELECT 1") + pg.ready()
    (step,) = steps([("c", pg.query("select")), ("s", replies)])
    assert step.results[0].rows == [["(a row of 20011 bytes)"]]


def test_a_huge_description_is_left_out(monkeypatch):
    monkeypatch.setattr(module, "MAX_ROW", 10_000)
    many = pg.columns(*[("a" * 50, 23, 0)] * 300)
    (step,) = steps([("c", pg.query("select")), ("s", many + pg.tag("SELECT 0") + pg.ready())])
    assert shown(step) == [([], [], 0, "SELECT 0")]


def test_errors_with_all_their_fields():
    script = [
        ("c", pg.query("select 'secret'::int")),
        ("s", pg.error("22P02", 'invalid input: "secret"') + pg.ready()),
        ("s", pg.error("57P01", "bye", "FATAL")),
    ]
    one, two = steps(script)
    assert (one.status, one.code, one.error["M"]) == ("error", "22P02", 'invalid input: "secret"')
    assert (two.kind, two.n, two.error["M"]) == ("session", -1, "bye")


def test_failed_parses_and_skipped_commands():
    script = [
        ("c", pg.parse("", "selec 'x'") + pg.SYNC),
        ("s", pg.error("42601", "syntax error") + pg.ready()),
        ("c", pg.bind() + pg.execute() + pg.execute("nope") + pg.SYNC),
        ("s", pg.error("26000") + pg.ready()),
    ]
    found = steps(script)
    assert [(s.kind, s.status) for s in found] == [
        ("parse", "error"), ("execute", "error"), ("execute", "skipped"),
    ]  # fmt: skip
    assert found[0].text == "selec 'x'"
    assert found[1].text == "(a statement prepared before or beyond what is remembered)"


def test_functions_copy_and_what_still_runs():
    data = pg.copy_data(b"1\n")
    script = [
        ("c", pg.function(1598)),
        ("s", pg.m(b"V", b"\xff\xff\xff\xff") + pg.ready()),
        ("c", pg.query("copy t from stdin; copy t to stdout")),
        ("s", pg.COPY_IN),
        ("c", data * 3 + pg.COPY_DONE),
        ("s", pg.tag("COPY 3") + pg.COPY_OUT + data * 2 + pg.m(b"c") + pg.tag("COPY 2")),
        ("s", pg.ready()),
        ("c", pg.query("select pg_sleep(9)")),
    ]
    call, copy, runs = steps(script)
    assert (call.kind, call.text, call.status) == (
        "function", "(function call of OID 1598)", "FUNCTION CALL",
    )  # fmt: skip
    assert (copy.copy_in_bytes, copy.copy_out_bytes) == (3 * len(data), 2 * len(data))
    assert (runs.status, runs.duration_ns, runs.rows) == ("running", -1, -1)


def test_overlong_statements_are_shown_as_cut():
    text = "select '" + "x" * MAX_TEXT + "'"
    script = [
        ("c", pg.query(text)),
        ("s", pg.tag("SELECT 0") + pg.ready()),
        ("c", pg.parse("", text) + pg.bind() + pg.execute() + pg.SYNC),
        ("s", pg.PARSED + pg.BOUND + pg.tag("SELECT 0") + pg.ready()),
    ]
    for step in steps(script):
        assert step.cut
        assert len(step.text) >= MAX_TEXT - 10


def test_odd_binds_and_stray_messages():
    odd = pg.m(b"B", b"\0\0\0\5")
    script = [
        ("s", pg.row(b"1") + pg.notice() + pg.tag("x") + pg.columns(("a", 23, 0))),
        ("c", pg.parse("", "select 1") + odd + pg.execute() + pg.SYNC),
        ("s", pg.PARSED + pg.error("08P01") + pg.ready()),
    ]
    (step,) = steps(script)
    assert (step.parameters, step.code) == ([], "08P01")


def test_notices_are_bounded(monkeypatch):
    monkeypatch.setattr(module, "MAX_NOTICES", 2)
    replies = pg.notice("n") * 5 + pg.m(b"N") + pg.tag("DO") + pg.ready()
    (step,) = steps([("c", pg.query("do $$ $$")), ("s", replies)])
    assert step.notices == ["NOTICE: n"] * 2


def test_replaying_from_a_snapshot():
    prepare = pg.parse("s", "select $1") + pg.describe(b"S", "s") + pg.SYNC
    described = pg.PARSED + pg.parameter_types(23) + pg.columns(("a", 23, 0)) + pg.ready()
    run = pg.bind("", "s", [FOUR(7)], [1], [1]) + pg.execute() + pg.SYNC
    rows = pg.BOUND + pg.row(FOUR(7)) + pg.tag("SELECT 1") + pg.ready()
    script = [HELLO, ("c", prepare), ("s", described), ("c", run), ("s", rows)]
    tracker = Tracker(emit=lambda *_, **__: 0, classifier=Classifier(), salt=b"")
    whole = pg.slices(script)
    for item in whole[:3]:
        (tracker.client if item.leg == CLIENT_IN else tracker.server)(item.data, item.ts_ns)
    (step,) = replay(whole[3:], state=snapshot.dump(tracker))
    assert (step.text, step.parameters) == ("select $1", ["7"])
    assert step.results[0].rows == [["7"]]
    # A snapshot while the command runs: its rows come without a step to show them in.
    tracker.client(run, pg.T0)
    assert next(replay(whole[4:], state=snapshot.dump(tracker))).kind == "session"


def test_holes_and_slices_that_do_not_follow():
    whole = pg.slices([HELLO, ("c", pg.query("select 1")), ("s", pg.tag("SELECT 1") + pg.ready())])
    harmless = [Hole(CLIENT_OUT, 0, 10), Hole(TARGET_IN, 0, 0), Slice(CLIENT_OUT, 1, 9, b"x")]
    assert [step.status for step in replay([*harmless, *whole])] == ["SELECT 1"]
    cut = [*whole[:2], Hole(TARGET_IN, 50, 10), *whole[2:]]
    assert [step.status for step in replay(cut)] == ["running"]
    with pytest.raises(FormatError):
        list(replay(whole[1:2] + whole[1:2]))


def test_a_direction_that_is_lost():
    decoder = Replay()
    assert not decoder.lost
    assert decoder.feed(Slice(TARGET_IN, 1, 0, b"HTTP/1.1 400 Bad Request")) == []
    assert decoder.lost


@settings(max_examples=200)
@given(
    st.lists(
        st.one_of(st.tuples(st.just("c"), MESSAGES), st.tuples(st.just("s"), REPLIES)), max_size=40
    )
)
def test_no_order_of_messages_raises(script):
    for step in steps(script):
        assert step.kind in ("query", "execute", "function", "parse", "session")
