"""The rule for tails: only what was listed, only after so long, and told once."""

import math

from hypothesis import given
from hypothesis import strategies as st

from sealtape.indexer.heartbeats import EndRule, MissingTail, Open, TailRule, heartbeats, listed
from sealtape.schemas.facts import (
    HEARTBEAT,
    NO_LEG,
    NO_STATEMENT,
    NO_TEXT,
    NODE,
    Fact,
    Live,
    encode_facts,
    encode_head,
    encode_tail,
)

A, B = b"\xaa" * 16, b"\xbb" * 16


def live(session, size, epoch=0):
    return Live(session, epoch, 1, size, bytes(32))


def at(**heads):
    """Heads by the session's letter."""
    names = {(A, 0): heads.get("a", 0), (B, 0): heads.get("b", 0)}
    return lambda name: names.get(name, 0)


def reached(moment):
    return lambda _: moment


def test_a_tail_that_does_not_come():
    rule = TailRule(300.0)
    rule.note([live(A, 10), live(B, 4)], 0.0)
    assert rule.look(at(a=7, b=4), reached(299.0)) == []
    assert rule.waiting() == [(A, 0)]
    (tail,) = rule.look(at(a=7), reached(300.0))
    assert tail == MissingTail(A, 0, 7, 10)
    rule.tell(tail)
    rule.note([live(A, 12)], 1.0)
    assert rule.look(at(a=7), reached(math.inf)) == []
    assert rule.waiting() == []


def test_a_session_that_grows_is_judged_by_what_was_listed_long_ago():
    rule = TailRule(300.0)
    for now in range(0, 3000, 10):
        rule.note([live(A, now + 2)], float(now))
        assert rule.look(at(a=max(0, now - 200)), reached(float(now))) == []
    (tail,) = rule.look(at(a=2790), reached(3090.0))
    assert (tail.head, tail.size) == (2790, 2992)


def test_while_ingest_is_behind_nothing_is_missing():
    rule = TailRule(300.0)
    rule.note([live(A, 10)], 1000.0)
    assert rule.look(at(), reached(-math.inf)) == []
    assert rule.look(at(), reached(1299.0)) == []


def test_a_session_of_which_nothing_came_at_all():
    rule = TailRule(1.0)
    rule.note([live(A, 2)], 0.0)
    assert rule.look(at(), reached(1.0)) == [MissingTail(A, 0, 0, 2)]


def test_each_epoch_is_its_own():
    rule = TailRule(1.0)
    rule.note([live(A, 5), live(A, 3, epoch=1)], 0.0)
    heads = {(A, 0): 5, (A, 1): 1}
    assert rule.look(heads.__getitem__, reached(1.0)) == [MissingTail(A, 1, 1, 3)]


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 60)), max_size=40))
def test_it_agrees_with_the_plain_rule(steps):
    """Sizes listed one after the other, a second apart, and how much was sealed then."""
    rule, listed_at, head = TailRule(5.0), [], 0
    for now, (size, sealed) in enumerate(steps):
        rule.note([live(A, size)], float(now))
        listed_at.append((now, size))
        head = max(head, sealed)
        late = any(when <= now - 5 and s > head for when, s in listed_at)
        found = rule.look(lambda _, head=head: head, reached(float(now)))
        assert bool(found) == late


def test_what_a_journal_lists():
    tails = [
        (NODE, encode_tail(status="started")),
        (HEARTBEAT, encode_tail(status="1/1", rows=2, live=[live(A, 3), live(B, 4)])),
    ]
    facts = [
        encode_head(n, kind, 0, NO_LEG, 0, 0, -1) + NO_TEXT + NO_STATEMENT + tail
        for n, (kind, tail) in enumerate(tails)
    ]
    body = encode_facts([0, 0, 0, 0], facts)
    assert listed(heartbeats(body, 5)) == (live(A, 3), live(B, 4))
    assert heartbeats(body[:-1], 5) == ()
    assert heartbeats(b"", 5) == ()


# -- sessions that are listed no more --------------------------------------------------------------

JOURNAL = b"\x99" * 16
OPEN = (Open(A, 0, 1, JOURNAL),)


def beat(*sessions, following=5, part="1/1", **attributes):
    lives = tuple(live(session, 3) for session in sessions)
    given = {"next": str(following)} | attributes
    return Fact(0, HEARTBEAT, 0, status=part, attributes=given, live=lives)


def ending(*beats, reach=1000.0, rows=OPEN):
    """What is missing after each of these (time, heartbeat)."""
    rule, found = EndRule(300.0), []
    for now, each in beats:
        rule.note(JOURNAL, each, now)
        found.append(rule.look(rows, reached(min(reach, now))))
    return found


def test_an_end_that_does_not_come_while_the_node_lives():
    beats = [(0.0, beat()), (299.0, beat()), (300.0, beat())]
    assert ending(*beats) == [[], [], [(A, 0)]]
    assert ending(beats[0], beats[1]) == [[], []], "a node that says no more may be gone"
    assert ending(*beats, reach=299.0) == [[], [], []], "ingest is not so far"


def test_a_session_that_is_listed_or_has_not_begun_is_none():
    assert ending((0.0, beat(A)), (400.0, beat(A))) == [[], []]
    assert ending((0.0, beat()), (200.0, beat(A)), (400.0, beat())) == [[], [], []]
    assert ending((0.0, beat(following=1)), (400.0, beat(following=1))) == [[], []]
    other = (Open(A, 0, 1, B),)
    assert ending((0.0, beat()), (400.0, beat()), rows=other) == [[], []]


def test_one_in_parts_is_whole_with_its_last():
    first, second = beat(B, part="1/2"), beat(A, part="2/2")
    assert ending((0.0, first), (0.0, second), (400.0, first), (400.0, second)) == [[]] * 4
    assert ending((0.0, second), (400.0, second)) == [[], []], "its beginning was not read"


def test_what_is_no_whole_heartbeat_says_nothing():
    for odd in (beat(part="x"), beat(next="many"), beat(part="")):
        assert ending((0.0, odd), (400.0, odd)) == [[], []]


def test_an_end_is_told_once():
    rule, rows = EndRule(300.0), OPEN
    for now in (0.0, 300.0):
        rule.note(JOURNAL, beat(), now)
        found = rule.look(rows, reached(now))
    assert found == [(A, 0)]
    rule.tell((A, 0))
    assert rule.look(rows, reached(300.0)) == []
    assert rule.look([], reached(300.0)) == []
