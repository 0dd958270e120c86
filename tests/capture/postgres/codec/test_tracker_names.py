"""What a client tries that wants another statement told than the one that runs."""

import pytest

from sealtape.capture.postgres.codec.memory import NOT_KNOWN
from sealtape.capture.postgres.codec.snapshot import dump, load
from sealtape.capture.postgres.codec.statements import MAX_TEXT
from sealtape.capture.postgres.codec.tracker import Tracker
from sealtape.schemas.facts import COMMAND, NODE, RESULT
from tests.capture.postgres.codec import pg_script as pg
from tests.capture.postgres.codec.pg_script import (
    BOUND,
    CLOSED,
    COPY_DONE,
    COPY_IN,
    GREETING,
    PARSED,
    SYNC,
    facts,
    ready,
    row,
    tag,
)

HELLO = ("s", GREETING)
DELETE, SELECT = "delete from t", "select a from t"
HIDDEN = NOT_KNOWN.statement.normalized
DELETED = tag("DELETE 5")
LONG = "n" * 63
BEGIN = [("c", pg.query("begin")), ("s", tag("BEGIN") + ready(b"T"))]


def told(*script):
    """The texts of the commands; nothing may be lost on the way."""
    found = facts([HELLO, *script])
    assert NODE not in [fact.kind for fact in found]
    return [fact.normalized for fact in found if fact.kind == COMMAND]


def run(name="", portal=""):
    return pg.bind(portal, name) + pg.execute(portal)


def prepared(**texts):
    sent = b"".join(pg.parse(name, text) for name, text in texts.items())
    return [("c", sent + SYNC), ("s", PARSED * len(texts) + ready())]


def test_a_parse_of_an_earlier_group_may_fail_because_sql_has_prepared_the_name():
    found = told(
        ("c", pg.query("prepare s as delete from t")),
        ("s", tag("PREPARE") + ready()),
        ("c", pg.parse("s", SELECT) + SYNC + run("s") + SYNC),
        ("s", pg.error("42P05") + ready() + BOUND + DELETED + ready()),
    )
    assert found[1] == HIDDEN


def test_names_are_cut_by_the_server():
    found = told(
        *prepared(**{LONG: SELECT, LONG + "1": SELECT}),
        ("c", pg.close(b"S", LONG + "2") + SYNC),
        ("s", CLOSED + ready()),
        ("c", pg.parse(LONG + "3", DELETE) + SYNC),
        ("s", PARSED + ready()),
        ("c", run(LONG) + run(LONG + "1") + SYNC),
        ("s", (BOUND + DELETED) * 2 + ready()),
    )
    assert found == [HIDDEN] * 2


def test_names_are_cut_by_the_server_in_one_group_too():
    sent = pg.parse(LONG, SELECT) + pg.close(b"S", LONG + "2") + pg.parse(LONG + "3", DELETE)
    assert told(("c", sent + run(LONG) + SYNC)) == [HIDDEN]


def test_portals_are_cut_by_the_server():
    close = pg.close(b"P", LONG + "2") + pg.bind(LONG + "3", "b")
    found = told(
        *prepared(a=SELECT, b=DELETE),
        *BEGIN,
        ("c", pg.bind(LONG, "a") + SYNC),
        ("s", BOUND + ready(b"T")),
        ("c", close + pg.execute(LONG) + pg.execute(LONG + "3") + SYNC),
        ("s", CLOSED + BOUND + DELETED * 2 + ready(b"T")),
        ("c", pg.execute(LONG) + SYNC),
    )
    assert found[1:] == [HIDDEN] * 3


def test_a_portal_may_have_been_bound_anew_in_a_group_that_is_in_flight():
    again = pg.close(b"P", "p") + run("slow") + pg.bind("p", "b")
    found = told(
        *prepared(a=SELECT, b=DELETE, slow="select pg_sleep(3)"),
        *BEGIN,
        ("c", pg.bind("p", "a") + SYNC + again + SYNC),
        ("s", BOUND + ready(b"T") + CLOSED + BOUND),
        ("c", pg.execute("p") + SYNC),
        ("s", row(b"") + tag("SELECT 1") + BOUND + ready(b"T") + DELETED + ready(b"T")),
        ("c", pg.execute("p") + SYNC),
    )
    assert found[1:] == ["select pg_sleep(?)", HIDDEN, DELETE]


def test_a_portal_that_sql_closes_is_in_doubt_from_its_start_on():
    cursor = "close p; declare p cursor for select * from u"
    found = told(
        *prepared(a=SELECT),
        *BEGIN,
        ("c", pg.bind("p", "a") + SYNC + pg.query(cursor)),
        ("s", BOUND + ready(b"T")),
        ("c", pg.execute("p") + SYNC),
    )
    assert found[-1] == HIDDEN


def test_a_portal_closed_where_copy_swallowed_the_sync():
    copy = pg.parse("", "copy t from stdin") + run()
    found = told(
        *prepared(a=SELECT, b=DELETE),
        *BEGIN,
        ("c", pg.bind("p", "a") + SYNC),
        ("s", BOUND + ready(b"T")),
        ("c", pg.close(b"P", "p") + pg.bind("p", "b") + copy + SYNC),
        ("s", CLOSED + BOUND + PARSED + BOUND + COPY_IN),
        ("c", COPY_DONE + SYNC),
        ("s", tag("COPY 0") + ready(b"T")),
        ("c", pg.execute("p") + SYNC),
    )
    assert found[-1] == HIDDEN


def test_a_statement_deallocated_by_a_command_in_flight():
    sql = "deallocate s; prepare s as delete from t"
    sent = pg.parse("s", SELECT) + pg.parse("", "deallocate s") + run()
    sent += pg.parse("", "prepare s as delete from t") + run()
    assert told(("c", sent + run("s") + SYNC))[-1] == HIDDEN
    assert told(("c", sent), ("s", PARSED), ("c", run("s")))[-1] == HIDDEN
    other = told(*prepared(k=SELECT), ("c", pg.query(sql) + run("k") + SYNC))
    assert other[-1] == SELECT


def test_a_text_too_long_to_read_may_deallocate():
    hiding = "deallocate s; prepare s as delete from t --" + " " * MAX_TEXT
    found = told(
        *prepared(s=SELECT),
        ("c", pg.query(hiding)),
        ("s", tag("DEALLOCATE") + pg.error("22012") + ready()),
        ("c", run("s") + SYNC),
    )
    assert found[-1] == HIDDEN


@pytest.mark.parametrize("works", [True, False])
def test_a_text_that_the_parser_does_not_know_may_deallocate_if_it_works(works):
    found = told(
        *prepared(s=SELECT),
        ("c", pg.query("deallocate s; select 5 !") + run("s") + SYNC),
        ("s", (tag("DEALLOCATE") if works else pg.error()) + ready() + pg.error() + ready()),
        ("c", run("s") + SYNC),
    )
    assert found[1:] == [HIDDEN, HIDDEN if works else SELECT]


@pytest.mark.parametrize(
    "first",
    [
        "select set_config('standard_conforming_strings', 'off', false)",
        "update pg_settings set setting = 'off' where name like 'standard_c%'",
        "select U&\"set!005fconfig\" UESCAPE '!' ('standard_conforming_strings', 'off', false)",
        "do $$ begin perform 1; end $$",
        "discard all",
    ],
)
def test_text_behind_what_may_set_how_it_reads(first):
    hiding = "select '\\' , 'x; delete from t; --'"
    assert told(("c", pg.query(first) + pg.query(hiding)))[1] == "SELECT (35 bytes)"


def test_a_setting_that_was_unsafe_may_come_back_with_a_rollback():
    on, off = (pg.setting("standard_conforming_strings", value) for value in ("on", "off"))
    found = told(
        ("c", pg.query("set standard_conforming_strings = off")),
        ("s", tag("SET") + off + ready()),
        *BEGIN,
        ("c", pg.query("set standard_conforming_strings = on")),
        ("s", tag("SET") + on + ready(b"T")),
        ("c", pg.query("select '\\'")),
        ("s", tag("SELECT 1") + ready(b"T")),
        ("c", pg.query("rollback") + pg.query("select '\\'")),
    )
    assert found[3:] == ["select ?", "rollback", "SELECT (10 bytes)"]


def test_a_close_the_server_skipped_changes_nothing():
    found = told(
        *prepared(s=DELETE),
        ("c", pg.bind("", "none") + pg.close(b"S", "s") + SYNC),
        ("s", pg.error("26000") + ready()),
        ("c", pg.parse("s", SELECT) + SYNC),
        ("s", pg.error("42P05") + ready()),
        ("c", run("s") + SYNC),
        ("s", BOUND + DELETED + ready()),
    )
    assert found[-1] == DELETE


def test_an_unnamed_statement_that_fails_is_gone():
    found = told(
        ("c", pg.parse("", DELETE) + SYNC),
        ("s", PARSED + ready()),
        ("c", pg.parse("", "selec") + SYNC),
        ("s", pg.error() + ready()),
        ("c", run() + SYNC),
        ("s", pg.error("26000") + ready()),
    )
    assert found[-1] == HIDDEN


def test_sql_that_deallocates_what_was_still_in_flight():
    found = told(
        ("c", pg.parse("s", DELETE) + SYNC + pg.query("deallocate s; prepare s as select 1")),
        ("s", PARSED + ready() + tag("DEALLOCATE") + tag("PREPARE") + ready()),
        ("c", run("s") + SYNC),
    )
    assert found[-1] == HIDDEN


def test_a_deallocate_that_fails_forgets_all_the_same():
    found = told(
        *prepared(s=DELETE),
        ("c", pg.query("deallocate s; select 1/0")),
        ("s", tag("DEALLOCATE") + pg.error("22012") + ready()),
        ("c", run("s") + SYNC),
    )
    assert found[-1] == HIDDEN


def test_a_portal_bound_in_a_group_that_failed_is_not_trusted():
    found = told(
        *BEGIN,
        ("c", pg.parse("", DELETE) + pg.bind("p") + SYNC),
        ("s", PARSED + BOUND + ready(b"T")),
        ("c", pg.parse("", SELECT) + pg.bind("p") + SYNC),
        ("s", PARSED + pg.error("42P03") + ready(b"E")),
        ("c", pg.execute("p") + SYNC),
    )
    assert found[-1] == HIDDEN


def test_sql_cursors_make_portals_uncertain():
    found = told(
        *BEGIN,
        ("c", pg.parse("", SELECT) + pg.bind("p") + SYNC),
        ("s", PARSED + BOUND + ready(b"T")),
        ("c", pg.query("close p; declare p cursor for select * from u")),
        ("s", tag("CLOSE CURSOR") + tag("DECLARE CURSOR") + ready(b"T")),
        ("c", pg.execute("p") + SYNC),
    )
    assert found[-1] == HIDDEN


# -- a group that fails without a reply


@pytest.mark.parametrize("refused", [pg.bind("", "none"), pg.describe(b"P", "none")])
def test_what_fails_without_a_reply_skips_the_rest_of_its_group(refused):
    script = [
        HELLO,
        ("c", refused + pg.FLUSH),
        ("s", pg.error("26000")),
        ("c", pg.parse("", SELECT) + run() + SYNC),
        ("s", ready()),
        ("c", pg.query(DELETE)),
        ("s", DELETED + ready()),
    ]
    found = facts(script)
    ends = [fact.status for fact in found if fact.kind == RESULT]
    assert ends == ["error", "skipped", "DELETE 5"]
    assert [fact.normalized for fact in found if fact.kind == COMMAND] == [SELECT, DELETE]


def test_a_sync_behind_a_copy_that_has_failed_already():
    copy = pg.parse("", "copy t from stdin") + run()
    found = told(
        ("c", pg.query("prepare s as delete from t")),
        ("s", tag("PREPARE") + ready()),
        ("c", copy),
        ("s", PARSED + BOUND + COPY_IN),
        ("c", pg.copy_data(b"bad") + pg.parse("s", SELECT) + SYNC + run("s") + SYNC),
        ("s", pg.error("22P04") + ready() + BOUND + DELETED + ready()),
    )
    assert found[2] == HIDDEN


def test_a_ready_server_skips_nothing():
    copy = pg.parse("", "copy t from stdin") + run()
    script = [
        HELLO,
        ("c", copy),
        ("s", PARSED + BOUND + COPY_IN),
        ("c", pg.copy_data(b"bad") + SYNC),
        ("s", pg.error("22P04") + ready()),
        ("c", pg.parse("", DELETE) + run() + SYNC),
        ("s", PARSED + BOUND + DELETED + ready()),
    ]
    ends = [fact.status for fact in facts(script) if fact.kind == RESULT]
    assert ends == ["error", "DELETE 5"]


# -- doubts outlast a snapshot


def tracker(found):
    def emit(kind, *parts, **_):
        found.append((kind, parts[5]))
        return len(found)

    return Tracker(emit=emit, classifier=pg.CLASSIFIER, salt=b"")


def test_what_is_in_doubt_is_in_doubt_after_a_snapshot():
    first = tracker([])
    script = [HELLO, *prepared(a=SELECT, b=DELETE), *BEGIN,
              ("c", pg.bind("p", "a") + SYNC), ("s", BOUND + ready(b"T")),
              ("c", pg.close(b"P", "p") + SYNC + pg.query("deallocate a; select 5 !"))]  # fmt: skip
    for side, data in script:
        (first.client if side == "c" else first.server)(data, 1)
    told_by = [], []
    for found in told_by:
        again = tracker(found)
        load(again, dump(first))
        if found is told_by[1]:
            again.server(CLOSED + ready(b"T") + pg.error() + ready(b"E") + ready(b"T"), 2)
        again.client(pg.execute("p") + run("b") + SYNC, 3)
    hidden = NOT_KNOWN.statement.encoded
    assert [part for kind, part in told_by[0] if kind == COMMAND] == [hidden] * 2
    last = [part for kind, part in told_by[1] if kind == COMMAND]
    assert last[0] == hidden
    assert last[1] != hidden
