import json

import pytest

from sealtape.capture.postgres.codec import tracker as module
from sealtape.capture.postgres.codec.derive import facts_from_data
from sealtape.capture.postgres.codec.memory import NOT_KNOWN
from sealtape.capture.postgres.codec.statements import MAX_TEXT, Classifier
from sealtape.capture.postgres.codec.tracker import Tracker
from sealtape.schemas.facts import COMMAND, NODE, RESULT, text_digest
from tests.capture.postgres.codec import pg_script as pg
from tests.capture.postgres.codec.pg_script import (
    BOUND,
    CLOSED,
    COPY_DONE,
    COPY_IN,
    COPY_OUT,
    EMPTY,
    GREETING,
    NO_DATA,
    PARSED,
    SUSPENDED,
    SYNC,
    commands,
    facts,
    ready,
    row,
    tag,
)

HELLO = ("s", GREETING)
DELETE, SELECT = "delete from t", "select a from t"


def told(script, **options):
    return commands([HELLO, *script], **options)


# -- recorded sessions


def summary(found):
    """Facts as the golden file has them: without times, which are the script's."""
    return [
        [f.n, f.kind, f.leg, f.offset, f.length, f.ref, f.normalized, f.effect, list(f.objects),
         list(f.parameters), f.status, f.rows, f.bytes_out, f.code, f.message, dict(f.attributes)]
        for f in found
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "script"), pg.captures(), ids=[n for n, _ in pg.captures()])
def test_recorded_sessions_give_the_golden_facts(name, script):
    golden = json.loads((pg.VECTORS / "expected.json").read_text())
    assert summary(facts(script, parameters=True)) == golden[name]


@pytest.mark.parametrize(("name", "script"), pg.captures(), ids=[n for n, _ in pg.captures()])
def test_recorded_sessions_cut_anyhow_give_the_same_facts(name, script):
    whole = raw(script)
    for cut in (1, 2, 3, 5, 7, 64):
        pieces = [(s, d[i : i + cut]) for s, d in script for i in range(0, len(d), cut)]
        assert raw(pieces) == whole
    for index, (side, data) in enumerate(script):
        for cut in range(1, len(data), 1 + len(data) // 100):
            halves = [(side, data[:cut]), (side, data[cut:])]
            assert raw([*script[:index], *halves, *script[index + 1 :]]) == whole


def raw(script):
    """Facts as the tracker emits them, all at one time."""
    found = []

    def emit(*parts, error=False):
        found.append((*parts, error))
        return len(found) - 1

    follower = Tracker(emit=emit, classifier=pg.CLASSIFIER, salt=b"salt", parameters=True)
    for side, data in script:
        (follower.client if side == "c" else follower.server)(data, pg.T0)
    return found


# -- simple queries


def test_a_query():
    found = facts(
        [HELLO, ("c", pg.query("select 1")), ("s", row(b"1") + tag("SELECT 1") + ready())]
    )
    command, result = found
    assert (command.kind, command.offset, command.length) == (COMMAND, 0, 14)
    assert (command.normalized, command.effect, command.ts_ns) == (
        "select ?",
        "read",
        pg.T0 + 10**6,
    )
    assert (result.kind, result.ref, result.rows) == (RESULT, 0, 1)
    assert result.duration_ns == 10**6
    assert result.bytes_out == len(row(b"1") + tag("SELECT 1") + ready())
    assert result.offset == len(GREETING + row(b"1") + tag("SELECT 1"))


def test_a_query_of_several_statements_is_one_command():
    replies = row(b"1") + tag("SELECT 1") + tag("UPDATE 5") + row(b"2") + tag("SHOW") + ready()
    (found,) = told([("c", pg.query("select 1; update t set a=1; show a")), ("s", replies)])
    assert found[1:] == ("SELECT 1; UPDATE 5; SHOW", 7, "")


def test_an_error_in_a_query_counts_the_rows_before_it():
    replies = (
        row(b"1") + tag("SELECT 1") + row(b"2") + pg.error("22012", "division by zero") + ready()
    )
    script = [HELLO, ("c", pg.query("select 1; select 1/0")), ("s", replies)]
    result = facts(script)[1]
    assert (result.status, result.rows, result.code) == ("error", 2, "22012")
    assert result.message == "division by zero"
    assert result.length == len(pg.error("22012", "division by zero"))


def test_an_empty_query_and_asynchronous_messages():
    noise = pg.notice() + pg.m(b"A", b"\0\0\0\1c\0p\0") + pg.setting("TimeZone", "UTC")
    script = [("c", pg.query("")), ("s", noise + EMPTY + noise + ready() + noise)]
    assert told(script) == [("", "EMPTY", 0, "")]


def test_a_tag_with_an_absurd_count_is_not_believed():
    script = [("c", pg.query("x")), ("s", row() + tag("SELECT " + "9" * 30) + ready())]
    assert told(script)[0][2] == 1


def test_an_overlong_query_is_unknown_and_has_its_digest():
    text = "select '" + "x" * MAX_TEXT * 2 + "'"
    script = [HELLO, ("c", pg.query(text)), ("s", tag("SELECT 0") + ready())]
    whole = facts(script)
    assert whole[0].normalized == f"SELECT ({len(text)} bytes)"
    assert whole[0].text_length == len(text)
    assert facts_from_data(pg.slices(script, cut=1000), salt=b"salt") == whole
    exact = "select '" + "x" * (MAX_TEXT - 9) + "'"
    found = facts([HELLO, ("c", pg.query(exact))])
    assert found[0].text_length == len(exact) == MAX_TEXT
    assert found[0].text_sha256 == text_digest(b"salt", exact.encode())


# -- extended queries


def extended(text=SELECT, name="", portal=""):
    return pg.parse(name, text) + pg.bind(portal, name) + pg.execute(portal) + SYNC


def answer(status="SELECT 1", state=b"I"):
    return PARSED + BOUND + row(b"1") + tag(status) + ready(state)


def test_an_execute():
    script = [HELLO, ("c", extended(name="s", portal="p")), ("s", answer())]
    command, result = facts(script)
    assert command.normalized == SELECT
    assert command.attributes == {"statement": "s", "portal": "p"}
    assert command.length == len(pg.execute("p"))
    assert (result.status, result.rows, result.bytes_out) == ("SELECT 1", 1, len(answer()) - 6)


def test_a_prepared_statement_executed_again():
    again = pg.bind("", "s") + pg.describe(b"P") + pg.execute() + SYNC
    replies = BOUND + NO_DATA + tag("SELECT 0") + ready()
    script = [("c", extended(name="s")), ("s", answer())] + [("c", again), ("s", replies)] * 3
    assert [text for text, *_ in told(script)] == [SELECT] * 4


def test_a_closed_statement_is_forgotten():
    script = [
        ("c", extended(name="s")),
        ("s", answer()),
        ("c", pg.close(b"S", "s") + pg.close(b"P", "p") + SYNC),
        ("s", CLOSED + CLOSED + ready()),
        ("c", pg.bind("", "s") + pg.execute() + SYNC),
        ("s", pg.error("26000") + ready()),
    ]
    assert told(script)[1][0] == NOT_KNOWN.statement.normalized


def test_a_suspended_portal_goes_on():
    bind = pg.parse("", SELECT) + pg.bind("p") + pg.execute("p", 1) + SYNC
    script = [
        ("c", pg.query("begin")),
        ("s", tag("BEGIN") + ready(b"T")),
        ("c", bind),
        ("s", PARSED + BOUND + row(b"1") + SUSPENDED + ready(b"T")),
        ("c", pg.execute("p", 1) + SYNC),
        ("s", row(b"2") + tag("SELECT 1") + ready(b"T")),
        ("c", pg.query("commit")),
        ("s", tag("COMMIT") + ready(b"I")),
        ("c", pg.execute("p", 1) + SYNC),
        ("s", pg.error("34000") + ready()),
    ]
    found = told(script)
    assert [item[:3] for item in found[1:3]] == [(SELECT, "SUSPENDED", 1), (SELECT, "SELECT 1", 1)]
    assert found[4][0] == NOT_KNOWN.statement.normalized


def test_pipelined_commands_keep_their_order():
    two = extended() + extended(DELETE)
    script = [("c", two + pg.query("select 3")), ("s", answer() + answer("DELETE 7")),
              ("s", tag("SELECT 0") + ready())]  # fmt: skip
    assert told(script) == [
        (SELECT, "SELECT 1", 1, ""),
        (DELETE, "DELETE 7", 7, ""),
        ("select ?", "SELECT 0", 0, ""),
    ]


def test_an_error_skips_the_rest_of_its_group():
    one = pg.parse("", SELECT) + pg.bind() + pg.execute()
    script = [
        (
            "c",
            one + one + one + pg.close(b"S", "x") + pg.query("select 9") + SYNC + extended(DELETE),
        ),
        ("s", PARSED + BOUND + tag("SELECT 0") + PARSED + pg.error("22012")),
        ("s", ready() + answer("DELETE 1")),
    ]
    assert [item[1] for item in told(script)] == [
        "SELECT 0", "error", "skipped", "skipped", "DELETE 1",
    ]  # fmt: skip


def test_what_is_sent_after_an_error_and_before_sync_is_skipped_too():
    one = pg.parse("", SELECT) + pg.bind() + pg.execute()
    script = [
        ("c", one),
        ("s", pg.error()),
        ("c", one + pg.FLUSH),
        ("c", SYNC),
        ("s", ready()),
        ("c", extended()),
        ("s", answer()),
    ]
    assert [item[1] for item in told(script)] == ["error", "skipped", "SELECT 1"]


def test_a_parse_that_fails_alone_is_a_command():
    script = [HELLO, ("c", pg.parse("s", "selec") + pg.describe(b"S", "s") + SYNC),
              ("s", pg.error() + ready())]  # fmt: skip
    command, result = facts(script)
    assert command.attributes == {"stage": "parse", "statement": "s"}
    assert (command.offset, result.ref, result.status) == (0, command.n, "error")
    assert result.duration_ns == 10**6


def test_a_bind_that_fails_alone_belongs_to_nothing():
    script = [("c", pg.bind("", "none") + SYNC), ("s", pg.error("26000") + ready())]
    assert told(script) == [(None, "error", 0, "26000")]


def test_a_commit_that_fails_at_sync_overrides_the_result():
    script = [HELLO, ("c", extended(DELETE)),
              ("s", PARSED + BOUND + tag("DELETE 1") + pg.error("23503") + ready())]  # fmt: skip
    command, first, second = facts(script)
    assert first.ref == second.ref == command.n
    assert (first.status, second.status) == ("DELETE 1", "error")


def test_an_error_of_the_session():
    script = [("c", pg.query("select 1")), ("s", tag("SELECT 1") + ready()),
              ("s", pg.error("57P01", "terminating", "FATAL"))]  # fmt: skip
    assert told(script)[1] == (None, "error", 0, "57P01")


def test_a_fatal_error_ends_the_command_at_once():
    script = [("c", pg.query("select 1")), ("s", pg.error("57P01", "terminating", "FATAL"))]
    assert told(script) == [("select ?", "error", 0, "57P01")]


def test_function_calls():
    script = [("c", pg.function(1598)), ("s", pg.m(b"V", b"\xff\xff\xff\xff") + ready()),
              ("c", pg.function(1)), ("s", pg.error("42883") + ready())]  # fmt: skip
    assert told(script) == [
        ("(function call of OID 1598)", "FUNCTION CALL", 0, ""),
        ("(function call of OID 1)", "error", 0, "42883"),
    ]


def test_an_overlong_parse():
    text = "select '" + "x" * MAX_TEXT + "'"
    script = [HELLO, ("c", extended(text)), ("s", answer())]
    found = facts(script)
    assert found[0].normalized == f"SELECT ({len(text)} bytes)"
    assert found[0].text_length == len(text)
    assert facts_from_data(pg.slices(script, cut=999), salt=b"salt") == found


# -- parameters


def test_parameters_only_if_opted_in():
    sent = pg.parse("", "select $1, $2", [23, 0]) + pg.bind("", "", [b"\0\0\0\7", None], [1])
    script = [HELLO, ("c", sent + pg.execute() + SYNC), ("s", answer())]
    assert facts(script)[0].parameters == ()
    assert facts(script, parameters=True)[0].parameters == ('"7"', "NULL")


def test_parameters_of_a_secret_statement_are_never_told():
    sent = pg.parse("", "select login(password => $1)") + pg.bind("", "", [b"hunter2"])
    found = facts([HELLO, ("c", sent + pg.execute() + SYNC)], parameters=True)
    assert found[0].parameters == ("'***'",)


def test_odd_binds_have_no_parameters():
    long = pg.bind("", "", [b"x" * 20_000])
    odd = pg.m(b"B", b"\0\0\0\5")
    for sent in (long, odd):
        script = [HELLO, ("c", pg.parse("", "select 1") + sent + pg.execute() + SYNC)]
        assert facts(script, parameters=True)[0].parameters == ()


def test_parameter_types_as_the_server_tells_them():
    prepare = pg.parse("s", "select $1") + pg.describe(b"S", "s") + SYNC
    described = PARSED + pg.parameter_types(23) + pg.columns(("a", 23, 0)) + ready()
    run = pg.bind("", "s", [b"\0\0\0\7"], [1]) + pg.execute() + SYNC
    script = [HELLO, ("c", prepare), ("s", described), ("c", run), ("s", pg.parameter_types(25))]
    assert facts(script, parameters=True)[0].parameters == ('"7"',)


# -- names cannot lie


def prepared(name, text):
    return [("c", pg.parse(name, text) + SYNC), ("s", PARSED + ready())]


RUN = pg.bind("", "s") + pg.execute() + SYNC


def test_a_second_parse_of_a_name_that_fails_changes_nothing():
    script = [
        *prepared("s", DELETE),
        ("c", pg.parse("s", SELECT) + SYNC),
        ("s", pg.error("42P05") + ready()),
        ("c", RUN),
        ("s", BOUND + tag("DELETE 1") + ready()),
    ]
    assert told(script)[-1][:2] == (DELETE, "DELETE 1")


def test_nor_when_it_is_pipelined():
    script = [
        *prepared("s", DELETE),
        ("c", pg.parse("s", SELECT) + SYNC + RUN),
        ("s", pg.error("42P05") + ready() + BOUND + tag("DELETE 1") + ready()),
    ]
    assert told(script)[-1][0] == NOT_KNOWN.statement.normalized


@pytest.mark.parametrize(
    "sql", ["deallocate s", "deallocate all", "discard all", "deallocate s; prepare s as select 1"]
)
@pytest.mark.parametrize("simple", [True, False])
def test_sql_that_deallocates(sql, simple):
    ends = tag("DEALLOCATE")
    sent, replies = pg.query(sql), ends + ready()
    if not simple:
        sent = pg.parse("", sql) + pg.bind() + pg.execute() + SYNC
        replies = PARSED + BOUND + replies
    script = [*prepared("s", DELETE), ("c", sent), ("s", replies), ("c", RUN), ("s", ready())]
    found = [f for f in facts([HELLO, *script]) if f.kind == COMMAND]
    assert found[-1].normalized == NOT_KNOWN.statement.normalized


# -- how text is to be read


def setting_script(name, value, text):
    return [
        ("c", pg.query(f"set {name} = x")),
        ("s", tag("SET") + pg.setting(name, value) + ready()),
        ("c", pg.query(text)),
        ("s", tag("SELECT 0") + ready()),
    ]


@pytest.mark.parametrize(
    ("name", "value", "text", "known"),
    [
        ("standard_conforming_strings", "off", "select '\\'", False),
        ("standard_conforming_strings", "on", "select '\\'", True),
        ("standard_conforming_strings", "off", "select 'x'", True),
        ("client_encoding", "SJIS", "select 'é'", False),
        ("client_encoding", "LATIN1", "select 'é'", True),
        ("TimeZone", "UTC", "select '\\'", True),
    ],
)
def test_text_is_not_trusted_where_it_may_lex_otherwise(name, value, text, known):
    found = told(setting_script(name, value, text))
    assert (found[-1][0] == "select ?") == known


def test_not_even_before_the_server_has_confirmed_the_setting():
    sent = pg.query("set standard_conforming_strings = off") + pg.query("select '\\'")
    off = pg.setting("standard_conforming_strings", "off")
    script = [("c", sent), ("s", off + tag("SET") + ready() + tag("SELECT 0") + ready()),
              ("c", pg.query("set standard_conforming_strings = on")),
              ("s", pg.setting("standard_conforming_strings", "on") + tag("SET") + ready()),
              ("c", pg.query("select '\\'")), ("s", tag("SELECT 0") + ready())]  # fmt: skip
    assert [text for text, *_ in told(script)] == [
        "set standard_conforming_strings = off",
        "SELECT (10 bytes)",
        "set standard_conforming_strings = on",
        "select ?",
    ]


# -- COPY


def test_copy_in_and_out():
    rows = pg.copy_data(b"1\n") + pg.copy_data(b"2\n")
    script = [
        HELLO,
        ("c", pg.query("copy t from stdin")),
        ("s", COPY_IN),
        ("c", rows + COPY_DONE),
        ("s", tag("COPY 2") + ready()),
        ("c", pg.query("copy t to stdout")),
        ("s", COPY_OUT + rows + pg.m(b"c") + tag("COPY 2") + ready()),
    ]
    found = facts(script)
    assert found[1].attributes == {"copy_in_bytes": str(len(rows))}
    assert [f.rows for f in found if f.kind == RESULT] == [2, 2]
    assert found[3].attributes == {}


def test_syncs_sent_for_convenience_during_copy_count_for_nothing():
    start = pg.parse("", "copy t from stdin") + pg.bind() + pg.execute()
    after = [("s", tag("COPY 1") + ready()), ("c", pg.query("select 1")),
             ("s", tag("SELECT 1") + ready())]  # fmt: skip
    expected = [("copy t from stdin", "COPY 1", 1, ""), ("select ?", "SELECT 1", 1, "")]
    data = pg.copy_data(b"1\n")
    scripts = [
        [
            ("c", start + SYNC),
            ("s", PARSED + BOUND + COPY_IN),
            ("c", data + SYNC + COPY_DONE + SYNC),
        ],
        [("c", start + SYNC * 2 + data + COPY_DONE + SYNC), ("s", PARSED + BOUND + COPY_IN)],
        [("c", start), ("s", PARSED + BOUND + COPY_IN), ("c", data + COPY_DONE + SYNC)],
    ]
    for script in scripts:
        assert told([*script, *after]) == expected


def test_copy_that_fails():
    script = [
        ("c", pg.query("copy t from stdin")),
        ("s", COPY_IN),
        ("c", pg.copy_data(b"x")),
        ("s", pg.error("22P02", "invalid input")),
        ("c", pg.copy_data(b"y") + COPY_DONE),
        ("s", ready()),
        ("c", COPY_DONE + pg.query("copy t from stdin")),
        ("s", COPY_IN),
        ("c", pg.copy_fail("no")),
        ("s", pg.error("57014", "COPY from stdin failed") + ready()),
        ("c", pg.query("select 1")),
        ("s", tag("SELECT 1") + ready()),
    ]
    assert [item[1] for item in told(script)] == ["error", "cancelled", "SELECT 1"]


def test_copy_both():
    stream = pg.copy_data(b"x" * 50)
    script = [
        ("c", pg.query("START_REPLICATION SLOT s LOGICAL 0/0")),
        ("s", pg.m(b"W", b"\0\0\0") + stream),
        ("c", stream + COPY_DONE),
        ("s", stream + pg.m(b"c") + tag("COPY 0") + tag("START_REPLICATION") + ready()),
    ]
    assert [item[1] for item in told(script)] == ["COPY 0; START_REPLICATION"]


# -- what a server refuses, and goes on


def texts(*script):
    """The texts of the commands; nothing may be lost on the way."""
    found = facts([HELLO, *script])
    assert NODE not in [fact.kind for fact in found]
    return [fact.normalized for fact in found if fact.kind == COMMAND]


@pytest.mark.parametrize(
    ("refused", "commands"),
    [
        (pg.m(b"Q", b"no end"), ["(a malformed message)"]),
        (pg.m(b"P", b"no end"), []),
        (pg.m(b"P", b"name\0no end"), []),
        (pg.m(b"B", b"no end"), []),
        (pg.m(b"B", b"portal\0no end"), []),
        (pg.m(b"B", b""), []),
        (pg.m(b"E", b"no end"), ["(a malformed message)"]),
    ],
)
def test_a_malformed_message_hides_nothing_that_comes_after_it(refused, commands):
    sync, end = (b"", ready()) if refused[:1] == b"Q" else (SYNC, ready())
    found = texts(
        ("c", refused + pg.FLUSH),
        ("s", pg.error("08P01")),
        ("c", sync),
        ("s", end),
        ("c", pg.query(DELETE)),
        ("s", tag("DELETE 5") + ready()),
    )
    assert found == [*commands, DELETE]


def test_names_of_any_length():
    far = "n" * (MAX_TEXT + 10)
    found = texts(
        ("c", pg.parse(far, SELECT) + pg.bind("p" * 20_000, "s") + pg.execute("p" * 20_000) + SYNC),
        ("s", PARSED + BOUND + tag("DELETE 5") + ready()),
        ("c", pg.parse(far, SELECT) + SYNC),
        ("s", pg.error("42P05") + ready()),
        ("c", pg.query(DELETE)),
        ("s", tag("DELETE 5") + ready()),
    )
    assert found == [NOT_KNOWN.statement.normalized] * 2 + [DELETE]


# -- what is not PostgreSQL


@pytest.mark.parametrize("garbage", [b"?\0\0\0\x04", b"Q\0\0\0\x03"])
def test_a_client_that_stops_making_sense(garbage):
    script = [HELLO, ("c", pg.query("select 1")), ("c", garbage), ("s", tag("SELECT 1") + ready()),
              ("c", pg.query("select 2"))]  # fmt: skip
    found = facts(script)
    assert [f.kind for f in found] == [COMMAND, NODE]
    assert (found[1].status, found[1].leg) == ("lost sync", 0)
    assert found[1].message


@pytest.mark.parametrize(
    "garbage",
    [b"?\0\0\0\x04", PARSED, CLOSED, COPY_IN, pg.m(b"S", b"x"), b"Z\0\0\0\0"],
)
def test_a_server_that_stops_making_sense(garbage):
    prepare = pg.parse("s", DELETE) + SYNC
    script = [HELLO, ("s", garbage), ("c", prepare), ("s", b"more"), ("c", RUN),
              ("c", pg.close(b"S", "s") + RUN)]  # fmt: skip
    found = facts(script)
    assert [f.kind for f in found] == [NODE, COMMAND, COMMAND]
    assert found[0].leg == 2
    assert found[1].normalized == DELETE  # nobody tells any more, so the client is believed
    assert found[2].normalized == NOT_KNOWN.statement.normalized


@pytest.mark.parametrize("reply", [tag("SELECT 1"), ready(), EMPTY])
def test_replies_out_of_turn(reply):
    script = [HELLO, ("c", pg.parse("s", DELETE) + pg.bind("p", "s") + SYNC), ("s", reply),
              ("c", pg.execute("p"))]  # fmt: skip
    found = facts(script)
    assert [f.kind for f in found] == [NODE, COMMAND]
    assert found[1].normalized == DELETE


def test_a_completion_nobody_waits_for_is_ignored():
    script = [("s", tag("SELECT 1") + ready()), ("c", pg.query("select 1")),
              ("s", tag("SELECT 1") + pg.m(b"Z") + ready())]  # fmt: skip
    assert told(script) == [("select ?", "SELECT 1", 1, "")]


def test_too_much_in_flight(monkeypatch):
    monkeypatch.setattr(module, "MAX_IN_FLIGHT", 10)
    found = facts([HELLO, *[("c", pg.query("select 1"))] * 20])
    assert [f.kind for f in found] == [COMMAND] * 11 + [NODE]


def test_stray_copy_ends_do_not_pile_up():
    script = [HELLO, *[("c", COPY_DONE)] * 100, ("c", pg.query("select 1") + COPY_DONE),
              ("s", tag("SELECT 1") + ready()), ("c", pg.query("select 2")),
              ("s", tag("SELECT 2") + ready())]  # fmt: skip
    assert [item[1] for item in commands(script)] == ["SELECT 1", "SELECT 2"]


def test_a_stray_copy_end_before_a_describe():
    sent = pg.parse("s", SELECT) + pg.bind("", "s") + pg.execute()
    script = [
        HELLO,
        ("c", sent + COPY_DONE + pg.describe(b"S", "s") + SYNC + pg.query("select 1")),
        ("s", PARSED + BOUND + tag("SELECT 0") + pg.parameter_types()),
        ("s", pg.columns(("a", 23, 0)) + ready() + tag("SELECT 1") + ready()),
    ]
    assert [item[1] for item in commands(script)] == ["SELECT 0", "SELECT 1"]


def tracker(**options):
    return Tracker(emit=lambda *_, **__: 0, classifier=Classifier(), salt=b"", **options)


def test_offsets_and_boundaries():
    found = tracker(client_offset=7, server_offset=9)
    assert found.offsets == (7, 9)
    assert found.server_at_boundary
    found.server(b"Z\0", 1)
    assert not found.server_at_boundary
    found.server(b"\0\0\x05T", 1)
    assert found.server_at_boundary
    assert found.transaction == "T"
    found.client(pg.query("select 1")[:4], 1)
    assert found.offsets == (11, 15)
    assert found.at_rest
    found.client(pg.query("select 1")[4:9], 1)
    assert not found.at_rest
    found.server(b"?\0\0\0\4", 1)
    assert not found.server_at_boundary


def test_state_can_be_taken_over():
    long = "select '" + "x" * MAX_TEXT + "'"
    first = tracker()
    first.server(pg.GREETING, 1)
    first.client(pg.parse("s", SELECT) + pg.parse("t", long) + pg.query("select 1"), 2)
    first.client(pg.bind("p", "s") + SYNC + pg.query("deallocate t") + pg.parse("u", SELECT), 2)
    first.server(PARSED + PARSED + row(b"1"), 3)
    second = tracker()
    kept = json.loads(json.dumps(first.state()["plain"])), first.state()
    second.resume({**kept[1], "plain": kept[0], "statements": []})
    for name in ("s", "t"):
        whole = name == "s"
        found = second.prepare(name.encode(), SELECT.encode(), b"\0\0", whole=whole)
        assert found.statement.effect == ("read" if whole else "unknown")
        assert found.whole == whole
    assert second.offsets == first.offsets
    assert second.state()["scanners"] == first.state()["scanners"]
    assert second.at_rest
