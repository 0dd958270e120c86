import pytest

from sealtape.capture.postgres.codec import memory
from sealtape.capture.postgres.codec.memory import (
    ANY,
    CLOSED,
    NOT_KNOWN,
    Memory,
    Prepared,
    is_plain,
)
from sealtape.capture.postgres.codec.statements import Statement, classify
from sealtape.schemas.facts import NO_TAIL, NO_TEXT


def prepared(name, text=b"select 1", types=b""):
    return Prepared(name, text, classify(text), NO_TEXT, types)


def test_what_a_prepared_statement_says():
    named, unnamed = prepared(b"n", types=b"\0\2\0\0\0\x17\0\0\0\x19"), prepared(b"")
    assert named.attributes() == {"statement": "n"}
    assert unnamed.attributes() == {}
    assert unnamed.tail is NO_TAIL
    assert named.tail != NO_TAIL
    assert named.parameter_types() == (23, 25)
    assert unnamed.parameter_types() == ()
    assert prepared(b"", types=b"\xff\xff\0\0\0\x17").parameter_types() == (23,)


def test_a_name_means_what_the_server_accepted():
    names = Memory()
    assert names.lookup(b"a") is NOT_KNOWN
    one = prepared(b"a")
    names.accept(b"a", one)
    assert names.lookup(b"a") is one
    names.forget(b"a")
    names.forget(b"a")
    assert names.lookup(b"a") is NOT_KNOWN


def test_a_new_name_holds_at_once_in_its_own_group():
    names = Memory()
    one = prepared(b"a")
    names.propose(b"a", one)
    assert names.lookup(b"a") is one
    assert names.lookup(b"b") is NOT_KNOWN
    names.group += 1
    assert names.lookup(b"a") is NOT_KNOWN  # if it fails, the name may be of SQL's PREPARE
    names.settle(b"a")
    assert names.lookup(b"a") is NOT_KNOWN  # the server refused it


def test_a_name_in_use_holds_only_in_its_own_group():
    names = Memory()
    old, new = prepared(b"a"), prepared(b"a", b"select 2")
    names.accept(b"a", old)
    names.propose(b"a", new)
    assert names.lookup(b"a") is new
    names.group += 1
    assert names.lookup(b"a") is NOT_KNOWN  # the old or the new one, who knows
    names.settle(b"a")
    assert names.lookup(b"a") is old


def test_a_closed_name_is_not_known():
    names = Memory()
    names.accept(b"a", prepared(b"a"))
    names.propose(b"a", None)
    assert names.lookup(b"a") is NOT_KNOWN


def test_two_proposals_in_flight():
    names = Memory()
    one, two = prepared(b"a"), prepared(b"a")
    names.propose(b"a", one)
    names.group += 1
    names.propose(b"a", two)
    assert names.lookup(b"a") is two
    names.group += 1
    assert names.lookup(b"a") is NOT_KNOWN
    names.settle(b"a")
    assert names.lookup(b"a") is NOT_KNOWN
    names.settle(b"a")
    assert names.lookup(b"a") is NOT_KNOWN


def test_descriptions():
    names = Memory()
    names.accept(b"a", prepared(b"a"))
    before = names._size
    names.describe(b"a", b"x" * 10)
    names.typed(b"a", b"\0\1\0\0\0\x17")
    assert names._size == before + 16
    assert names.lookup(b"a").columns == b"x" * 10
    assert names.lookup(b"a").parameter_types() == (23,)
    names.describe(b"b", b"x")
    names.typed(b"b", b"x")
    names.forget(None)
    assert names._size == 0


def test_the_oldest_are_forgotten_first(monkeypatch):
    monkeypatch.setattr(memory, "MAX_STATEMENTS", 3)
    names = Memory()
    for n in range(5):
        names.accept(b"%d" % n, prepared(b"%d" % n))
    assert [names.lookup(b"%d" % n) is NOT_KNOWN for n in range(5)] == [True] * 2 + [False] * 3
    monkeypatch.setattr(memory, "MAX_REMEMBERED", 2000)
    names.accept(b"big", prepared(b"big", b"select '" + b"x" * 1000 + b"'"))
    assert names.lookup(b"3") is NOT_KNOWN
    assert names.lookup(b"big") is not NOT_KNOWN
    assert names._size <= 2000
    names.accept(b"huge", prepared(b"huge", b"select '" + b"x" * 3000 + b"'"))
    assert not names._statements


def test_portals(monkeypatch):
    monkeypatch.setattr(memory, "MAX_PORTALS", 2)
    names = Memory()
    assert names.portal(b"p", {}) == (NOT_KNOWN, (), b"")
    bound = (prepared(b""), (), b"")
    names.bind({b"p": bound, b"q": bound, b"r": bound})
    assert names.portal(b"p", {})[0] is NOT_KNOWN
    assert names.portal(b"q", {}) is bound
    names.drop_portals((b"q", b"none"))
    assert names.portal(b"q", {})[0] is NOT_KNOWN
    names.drop_portals(None)
    assert names.portal(b"r", {})[0] is NOT_KNOWN


def test_state():
    names, again = Memory(), Memory()
    names.accept(b"a", prepared(b"a"))
    names.propose(b"b", None)
    names.group = 5
    state = names.state()
    again.resume({**state, "statements": list(state["statements"].values())})
    assert again.group == 5
    assert again.lookup(b"a") is names.lookup(b"a")
    assert again.state() == state


@pytest.mark.parametrize("name", [b"", b"S_1", b"a" * 63, b"a b", b"[]{}|"])
def test_plain_names_have_one_spelling(name):
    assert is_plain(name)


@pytest.mark.parametrize("name", [b"a" * 64, b"\xe9", b"a\\", b"~", b"\t", b"\0", b"a\n"])
def test_other_names_may_have_several(name):
    assert not is_plain(name)


@pytest.mark.parametrize("odd", [b"a" * 64, b"\xc3\xa9"])
def test_a_name_that_is_not_plain_may_be_any(odd):
    names = Memory()
    one = prepared(b"a" * 63)
    names.accept(one.name, one)
    names.propose(b"b", prepared(b"b"))
    names.propose(odd, prepared(odd))
    new = prepared(b"c")
    names.propose(b"c", new)
    found = [names.lookup(name) for name in (one.name, b"b", odd, b"c")]
    assert found == [NOT_KNOWN, NOT_KNOWN, NOT_KNOWN, new]
    again = Memory()
    again.resume(names.state() | {"statements": [one]})
    assert again.lookup(one.name) is NOT_KNOWN
    names.settle(odd)
    assert names.lookup(one.name) is one  # it was skipped
    names.propose(odd, prepared(odd))
    names.settle(odd)
    names.accept(odd, prepared(odd))
    assert names.lookup(one.name) is NOT_KNOWN
    assert names.lookup(odd) is NOT_KNOWN


def test_sql_takes_a_name_away_from_its_start_on():
    names, one, two = Memory(), prepared(b"a"), prepared(b"b")
    names.accept(b"a", one)
    names.accept(b"b", two)
    names.propose(b"c", prepared(b"c"))
    gone = Statement("", forgets=("a", "c"))
    names.begin_sql(gone)
    assert [names.lookup(name) for name in (b"a", b"b", b"c")] == [NOT_KNOWN, two, NOT_KNOWN]
    names.settle(b"c")
    names.accept(b"c", prepared(b"c"))
    assert names.lookup(b"c") is NOT_KNOWN
    names.end_sql(gone, done=True)
    assert names.lookup(b"c") is NOT_KNOWN
    names.accept(b"a", one)
    assert names.lookup(b"a") is one


def test_what_could_not_be_read_may_do_anything_to_names_unless_it_fails():
    names, one, opaque = Memory(), prepared(b"a"), Statement("", opaque=True)
    names.accept(b"a", one)
    names.bind({b"p": (one, (), b"")})
    names.begin_sql(opaque)
    assert names.lookup(b"a") is NOT_KNOWN
    assert names.portal(b"p", {}) is CLOSED
    again = Memory()
    again.resume(names.state() | {"statements": [one]})
    again.resume_sql(opaque)
    assert (again.lookup(b"a"), again.portal(b"p", {})) == (NOT_KNOWN, CLOSED)
    names.end_sql(opaque, done=False)
    assert names.lookup(b"a") is one
    assert names.portal(b"p", {})[0] is one
    names.begin_sql(opaque)
    names.end_sql(opaque, done=True)
    assert (names.lookup(b"a"), names.portal(b"p", {})) == (NOT_KNOWN, CLOSED)


def test_all_names_may_be_taken_away():
    names, one, every = Memory(), prepared(b"a"), Statement("", forgets=("*",), closes=True)
    names.bind({b"p": (one, (), b"")})
    names.begin_sql(every)
    names.accept(b"a", one)
    assert names.lookup(b"a") is NOT_KNOWN
    names.end_sql(every, done=False)
    assert (names.lookup(b"a"), names.portal(b"p", {})) == (NOT_KNOWN, CLOSED)


def test_a_reply_that_an_older_snapshot_did_not_expect_is_no_error():
    names = Memory()
    names.settle(b"a")
    names.settle(b"a" * 64)
    assert names.lookup(b"a") is NOT_KNOWN
    assert not names.doubts


def test_a_portal_means_what_its_group_says_and_then_what_went_well():
    names, one = Memory(), (prepared(b"a"), (), b"")
    group = {}
    names.rebind(group, b"p", one)
    assert names.portal(b"p", group) is one
    names.bind(group)
    assert names.portal(b"p", {}) is one
    names.portal_doubts += 1  # another group is in flight
    assert names.portal(b"p", {}) is CLOSED
    names.portal_doubts -= 1
    closing = {}
    names.rebind(closing, b"p", CLOSED)
    assert names.portal(b"p", closing) is CLOSED
    names.bind(closing)
    assert names.portal(b"p", {}) is CLOSED


def test_a_portal_with_a_name_that_is_not_plain_may_be_any():
    names, one = Memory(), (prepared(b"a"), (), b"")
    names.bind({b"p": one})
    group = {}
    names.rebind(group, b"q", one)
    names.rebind(group, b"p" * 64, one)
    assert list(group) == [ANY]
    assert [names.portal(name, group) for name in (b"p", b"q", b"p" * 64)] == [CLOSED] * 3
    names.rebind(group, b"r", one)
    assert names.portal(b"r", group) is one
    names.bind(group)
    assert [names.portal(name, {}) for name in (b"p", b"q", b"r")] == [CLOSED, CLOSED, one]
    names.drop_portals({ANY: CLOSED})
    assert names.portal(b"r", {}) is CLOSED
