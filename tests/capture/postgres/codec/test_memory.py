import pytest

from sealtape.capture.postgres.codec import memory
from sealtape.capture.postgres.codec.memory import NOT_KNOWN, Memory, Prepared
from sealtape.capture.postgres.codec.statements import classify
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


def test_a_new_name_holds_at_once():
    names = Memory()
    one = prepared(b"a")
    names.propose(b"a", one)
    assert names.lookup(b"a") is one
    assert names.lookup(b"b") is NOT_KNOWN
    names.group += 1
    assert names.lookup(b"a") is one
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
    assert names.lookup(b"a") is two
    names.settle(b"a")
    with pytest.raises(KeyError):
        names.settle(b"a")


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
    assert names.portal(b"p") == (NOT_KNOWN, (), b"")
    bound = (prepared(b""), (), b"")
    names.bind({b"p": bound, b"q": bound, b"r": bound})
    assert names.portal(b"p")[0] is NOT_KNOWN
    assert names.portal(b"q") is bound
    names.drop_portals((b"q", b"none"))
    assert names.portal(b"q")[0] is NOT_KNOWN
    names.drop_portals(None)
    assert names.portal(b"r")[0] is NOT_KNOWN


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
