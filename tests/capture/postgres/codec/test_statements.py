import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealtape.capture.postgres.codec import statements as s
from sealtape.capture.postgres.codec.statements import Classifier, classify
from sealtape.schemas.facts import encode_statement


@pytest.mark.parametrize(
    ("text", "effect", "objects"),
    [
        ("", "other", ()),
        ("-- nothing", "other", ()),
        ("select 1", "read", ()),
        ("select * from a, b.c, d.e.f", "read", ("a", "b.c", "d.e.f")),
        ("values (1)", "read", ()),
        ("table t", "read", ("t",)),
        ("show all", "read", ()),
        ("fetch 10 from c", "read", ()),
        ("select * from t for update", "write", ("t",)),
        ("select * into x from y", "ddl", ("x", "y")),
        ("insert into t select * from u", "write", ("t", "u")),
        ("update t set a = (select max(b) from u)", "write", ("t", "u")),
        ("delete from t", "write", ("t",)),
        ("merge into t using s on true when matched then delete", "write", ("t", "s")),
        ("truncate t", "write", ("t",)),
        ("refresh materialized view v", "write", ("v",)),
        ("with a as (delete from t returning *) select * from a", "write", ("t",)),
        ("with t as (select * from t) select * from t", "read", ("t",)),
        ("with recursive t as (select 1 union select * from t) select * from t", "read", ()),
        ("with a as (select 1), b as (select * from a) select * from b, c", "read", ("c",)),
        ("with t as (select 1) select * from s.t", "read", ("s.t",)),
        ("explain delete from t", "other", ("t",)),
        ("explain analyze delete from t", "write", ("t",)),
        ("explain (analyze) delete from t", "write", ("t",)),
        ("explain (analyze 0, costs) delete from t", "other", ("t",)),
        ("explain (analyze false) delete from t", "other", ("t",)),
        ("explain (analyze 'OFF') delete from t", "other", ("t",)),
        ("explain (analyze off, analyze 1) delete from t", "write", ("t",)),
        ("copy t from stdin", "write", ("t",)),
        ("copy t to stdout", "read", ("t",)),
        ("copy (delete from t returning *) to stdout", "write", ("t",)),
        ("copy t to 'x.csv'", "write", ("t",)),
        ("copy t from program 'x'", "unknown", ("t",)),
        ("create table a as select * from b", "ddl", ("b", "a")),
        ("create table t (a int)", "ddl", ("t",)),
        ("create database d", "ddl", ()),
        ("drop database d", "ddl", ()),
        ("drop table a.b, c", "ddl", ("a.b", "c")),
        ("drop function f", "ddl", ()),
        ("alter table t add b int", "ddl", ("t",)),
        ("alter table t rename to u", "ddl", ("t",)),
        ("comment on table t is 'x'", "ddl", ()),
        ("create view v as select * from t", "ddl", ("v", "t")),
        ("create index on t (a)", "ddl", ("t",)),
        ("create schema s create table t (a int) grant select on t to u", "privilege", ("t",)),
        ("alter table t owner to u", "privilege", ("t",)),
        ("alter table t disable row level security", "privilege", ("t",)),
        ("grant select on t to u", "privilege", ("t",)),
        ("revoke a from b", "privilege", ()),
        ("alter default privileges grant select on tables to u", "privilege", ()),
        ("create role r", "privilege", ()),
        ("alter role r superuser", "privilege", ()),
        ("alter role r set x = 1", "privilege", ()),
        ("drop role r", "privilege", ()),
        ("set role r", "privilege", ()),
        ("reset role", "privilege", ()),
        ("set session authorization r", "privilege", ()),
        ("security label on table t is 'x'", "privilege", ()),
        ("alter system set x = 1", "privilege", ()),
        ("create policy p on t", "privilege", ("t",)),
        ("reassign owned by a to b", "privilege", ()),
        ("set x = 1", "other", ()),
        ("begin", "other", ()),
        ("listen c", "other", ()),
        ("vacuum t", "other", ("t",)),
        ("lock table t", "other", ("t",)),
        ("declare c cursor for select * from t", "read", ("t",)),
        ("prepare p as delete from t", "write", ("t",)),
        ("do $$ begin end $$", "unknown", ()),
        ("call f(1)", "unknown", ()),
        ("execute p", "unknown", ()),
        ("load 'x'", "unknown", ()),
        ("select 1; delete from t", "write", ("t",)),
        ("drop table t; do $$ $$", "unknown", ("t",)),
        ("do $$ $$; grant a to b", "privilege", ()),
    ],
)
def test_effect_and_objects(text, effect, objects):
    found = classify(text.encode())
    assert (found.effect, found.objects) == (effect, objects)
    assert found.encoded == encode_statement(
        found.normalized, found.fingerprint, found.effect, found.objects
    )


def test_every_statement_of_the_grammar_has_an_effect():
    import postgast.pg_query_pb2 as pb

    kinds = [f for f in pb.Node.DESCRIPTOR.fields if f.name.endswith("stmt")]
    unknown = {
        f.name for f in kinds if s._effect(f.name, getattr(pb, f.message_type.name)()) == "unknown"
    }
    assert unknown == {
        "call_stmt",
        "do_stmt",
        "execute_stmt",
        "load_stmt",
        "plassign_stmt",
        "raw_stmt",
        "return_stmt",
        "set_operation_stmt",
    }


def test_objects_are_bounded():
    text = "select * from " + ", ".join(f"t{n}" for n in range(100))
    assert len(classify(text.encode()).objects) == s.MAX_OBJECTS


# -- normalised text


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("select 1", "select ?"),
        ("select  'a' ,\n\t1.5 , $1;", "select ? , ? , $1"),
        ("/* hidden */ select 1 -- secret", "select ?"),
        ("select E'a\\'b', U&'x', B'1', X'1f', $tag$body$tag$", "select ?, ?, ?, ?, ?"),
        ("copy t from program 'curl'", "copy t from program ?"),
        ("comment on table t is 'x'", "comment on table t is ?"),
        ("create table t (a text default 'x')", "create table t (a text default ?)"),
        ('select "A b" from "T"', 'select "A b" from "T"'),
        ("select 1; select 'x';", "select ?; select ?"),
        ("set app.password = hunter2", "set app.password = ?"),
        ("set app.password to hunter2; select 1", "set app.password to ?; select ?"),
        ("alter role r password 'x'", "alter role r password ?"),
        ("selec 'hunter2'", "(15 bytes)"),
        ("alter role bob password hunter2", "ALTER ROLE (31 bytes)"),
        ("select 'unterminated", "SELECT (20 bytes)"),
        ("drop hunter2", "DROP (12 bytes)"),
        ("hunter2", "(7 bytes)"),
        ("select2 x", "(9 bytes)"),
    ],
)
def test_normalized_text_has_no_literal(text, normalized):
    assert classify(text.encode()).normalized == normalized


@given(st.text(alphabet="zq'\"$\\E;-/* \n1", max_size=30))
def test_no_marked_literal_survives(noise):
    for text in (f"select '{noise}MARK'", f"alter role r password 'MARK' {noise}"):
        try:
            import postgast

            tokens = postgast.scan(text).tokens
        except Exception:
            assert "MARK" not in classify(text.encode()).normalized
            continue
        raw = text.encode()
        names = b" ".join(raw[t.start : t.end] for t in tokens if t.token not in s._LITERALS)
        if b"MARK" not in names:
            assert "MARK" not in classify(raw).normalized


@given(st.binary(max_size=60))
def test_any_bytes_can_be_classified(text):
    found = classify(text)
    assert found.effect in s.EFFECTS
    assert Classifier().statement(text) == found or s._shape(text) is not None
    s.redact(text)


def test_normalized_text_is_bounded():
    text = b"select " + b"aaaaaaaaa, " * 5000 + b"1"
    assert len(classify(text).normalized) < 3 * s.CACHED_TEXT


# -- what the tracker asks


def test_what_is_forgotten_closed_and_lexed():
    assert classify(b"deallocate p").forgets == ("p",)
    assert classify(b"deallocate all").forgets == ("*",)
    found = classify(b"discard all")
    assert (found.forgets, found.closes) == (("*",), True)
    assert classify(b"close c").closes
    assert classify(b"declare c cursor for select 1").closes
    assert classify(b"set names 'SJIS'").relexes
    assert classify(b"set standard_conforming_strings = off").relexes
    assert classify(b"reset all").relexes
    assert classify(b"select set_config('client_encoding', 'SJIS', false)").relexes
    assert not classify(b"set x = 1").relexes


def test_what_may_change_names():
    assert classify(b"deallocate s").names
    assert classify(b"close p").names
    assert classify(b"selec").names
    assert not classify(b"select 1").names


def test_function_calls_and_unknown():
    assert s.function_call(5).normalized == "(function call of OID 5)"
    assert s.function_call(5).effect == s.UNKNOWN.effect == "unknown"


# -- depth


def test_a_chain_too_deep_for_the_parser_does_not_reach_it():
    code = (
        "import sys; from sealtape.capture.postgres.codec.statements import classify\n"
        "for text in ('select ' + '1+' * 32700 + '1', 'select ' + 'f(' * 30000, 'select a' + '::b'"
        " * 16000, 'select ' + '(' * 30000 + '1' + ')' * 30000, 'select '+ 'a in (' * 10000):\n"
        "    print(classify(text.encode()).effect)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["read", "read", "read", "read", "read"]


def test_deep_statements_are_classified_by_their_tokens():
    deep = "1" + "+1" * 5000
    cases = {
        f"select {deep}": "read",
        f"select {deep};": "read",
        f"/* x */ values ({deep})": "read",
        f"select {deep} into t": "unknown",
        f"select {deep} for update": "unknown",
        f"with x as (select {deep}) select 1": "unknown",
        f"insert into t values ({deep})": "write",
        f"update t set a = {deep}": "write",
        f"select {deep}; drop table t": "unknown",
        f"do $$ {deep} $$; select {deep}": "unknown",
    }
    for text, effect in cases.items():
        assert classify(text.encode()).effect == effect, text[:40]


def test_wide_statements_are_parsed_all_the_same():
    rows = ", ".join(f"({n}, 'x', $1)" for n in range(2000))
    found = classify(f"insert into t values {rows}".encode())
    assert (found.effect, found.objects, found.fingerprint) == ("write", ("t",), "")


def test_unbalanced_parentheses_do_not_confuse_the_depth():
    tokens = "select " + ") " * 4000
    assert classify(tokens.encode()).effect == "unknown"


def test_a_tree_the_decoder_finds_too_deep():
    found = classify(("select 1" + " union select 1" * 200).encode())
    assert (found.effect, found.fingerprint) == ("read", "")


# -- the cache


def test_shapes_are_shared_by_texts_that_differ_in_literals():
    classifier = Classifier()
    first = classifier.statement(b"select a from t where b = 1 and c = 'x'")
    assert classifier.statement(b"select a from t where b = 22 and c = 'it''s' and 1=1") != first
    assert classifier.statement(b"select a from t where b = 22 and c = 'yy'") is first
    quoted = classifier.statement(b'select "a" from "t" where "b" = 1')
    assert classifier.statement(b'select "a" from "t" where "b" = 2') is quoted
    assert classifier.statement(b'select "a" from "u" where "b" = 2') is not quoted


@pytest.mark.parametrize(
    "text",
    [
        b"explain (analyze 0) delete from t",
        b"select 'a\\'",
        b"select $1",
        b"select $$x$$",
        b"select 1 -- x",
        b"select 1 /* x */",
        b"select U&'x'",
        b"select 1; drop table t",
        b"set x = 1",
        b"selectx",
    ],
)
def test_what_has_no_shape(text):
    assert s._shape(text) is None


LITERAL = st.one_of(
    st.integers(0, 10**12).map(str),
    st.from_regex(r"[0-9]{1,4}\.[0-9]{1,4}", fullmatch=True),
    st.text(alphabet='ab1 ;"?\n(', max_size=8).map(lambda t: "'" + t + "'"),
)
PIECE = st.one_of(
    LITERAL,
    st.sampled_from(
        ["a", "t1", '"T 1"', "=", "-", "+", ",", "(", ")", " from t ", " where ", " and ", "x.y",
         ";", " returning ", " limit ", " ", "?", "b", "e", "::int"]
    ),
)  # fmt: skip


@given(st.lists(PIECE, max_size=12), st.lists(PIECE, max_size=12))
def test_texts_of_one_shape_are_the_same_statement(left, right):
    """The soundness of the cache key, on texts made to collide."""
    seen = {}
    for pieces in (left, right, left[::-1], right[::-1]):
        text = ("select " + "".join(pieces)).encode()
        shape = s._shape(text)
        if shape is None:
            continue
        found = classify(text)
        if found.effect == "unknown":
            continue
        other = seen.setdefault(shape, found)
        assert (other.effect, other.objects, other.normalized) == (
            found.effect,
            found.objects,
            found.normalized,
        )


@given(st.lists(PIECE, max_size=12), st.data())
def test_changing_literals_keeps_shape_and_meaning(pieces, data):
    changed = [data.draw(LITERAL) if p[0] in "'0123456789" else p for p in pieces]
    one, two = (("select " + " ".join(p)).encode() for p in (pieces, changed))
    if s._shape(one) is None or s._shape(one) != s._shape(two):
        return
    left, right = classify(one), classify(two)
    if "unknown" not in (left.effect, right.effect):
        assert (left.normalized, left.objects) == (right.normalized, right.objects)


def test_unknown_shapes_are_not_kept():
    classifier = Classifier()
    assert classifier.statement(b"select 1 1").effect == "unknown"
    assert not classifier._young


def test_a_text_cannot_pose_as_the_shape_of_others():
    classifier = Classifier()
    assert classifier.statement(b"select \x01").effect == "unknown"
    assert classifier.statement(b"select 1").effect == "read"


def test_the_cache_is_bounded_and_keeps_what_is_used():
    classifier = Classifier(capacity=4)
    kept = classifier.statement(b"set a.x = 1")
    assert classifier.statement(b"set a.x = 1") is kept
    shaped = classifier.statement(b"select 1")
    for n in range(3):
        classifier.statement(b"set b.x%d = 1" % n)
    assert classifier.statement(b"set a.x = 1") is kept
    assert classifier.statement(b"select 2") is shaped
    for n in range(100):
        classifier.statement(b"set c.x%d = 1" % n)
        assert len(classifier._young) + len(classifier._old) <= 8
    assert classifier.statement(b"set a.x = 1") is not kept


def test_long_texts_are_classified_but_not_kept():
    classifier = Classifier()
    text = b"select '" + b"x" * 5000 + b"'"
    assert classifier.statement(text).effect == "read"
    over = classifier.statement(b"delete from t where a = '" + b"x" * s.MAX_TEXT + b"'")
    assert (over.effect, over.normalized) == ("unknown", f"DELETE FROM ({s.MAX_TEXT + 26} bytes)")
    assert not classifier._young


# -- secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("select 'x'", "select 'x'"),
        ("alter role r password 'x'", "alter role r password ?"),
        ("create role r password 'x'", "create role r password '***'"),
        ("create user mapping for a server s options (password $$x$$)", None),
        ("create subscription s connection 'host=h password=x' publication p", None),
        ("create server s foreign data wrapper w options (host 'x')", None),
        ("select dblink_connect('x')", "select dblink_connect('***')"),
        ("select 'postgres://u:x@h/d'", "select '***'"),
        ("select 'password=x' /* x */ , 1", "select '***'  , 1"),
        ("set app.secret = x", "set app.secret = ?"),
        ("create role r password x", "CREATE ROLE (24 bytes)"),
        ("select 'password x", "SELECT (18 bytes)"),
    ],
)
def test_redacted_text(text, shown):
    found = s.redact(text.encode())
    if shown is None:
        assert "x" not in found
        assert "'***'" in found
    else:
        assert found == shown
    assert classify(text.encode()).secret == s.mentions_secret(text)


@pytest.mark.parametrize(
    ("code", "text", "shown"),
    [
        ("42P01", 'relation "t" does not exist', 'relation "t" does not exist'),
        ("23505", 'violates "t_pkey"', 'violates "t_pkey"'),
        ("42601", 'syntax error at or near "hunter2"', "syntax error at or near ?"),
        ("22P02", 'invalid input syntax: "it""s" or \'4', "invalid input syntax: ? or ?"),
        ("22003", "value 4711 out of range", "value ? out of range"),
        ("P0001", "card 4711 is bad", ""),
        ("ZZ999", "anything", ""),
        ("", "no code", ""),
    ],
)
def test_error_messages_without_what_was_typed(code, text, shown):
    assert s.redact_message(code, text, full_text=False) == shown


def test_error_messages_in_full():
    assert s.redact_message("P0001", "card 4711", full_text=True) == "card 4711"
    assert s.redact_message("42601", 'near "password=x"', full_text=True) == "near ?"
