import random
from dataclasses import fields, replace

import pytest

from sealtape.capture.postgres.codec import derive, snapshot
from sealtape.capture.postgres.codec.derive import (
    LOST,
    TOLERANCE_NS,
    Comparison,
    Deriver,
    compare,
    decode_parts,
    facts_from_data,
)
from sealtape.capture.postgres.codec.statements import Classifier
from sealtape.capture.postgres.codec.tracker import Tracker
from sealtape.schemas.errors import FormatError
from sealtape.schemas.facts import (
    ACCESS,
    COMMAND,
    NO_STATEMENT,
    NO_TAIL,
    NO_TEXT,
    NODE,
    RESULT,
    Fact,
    encode_head,
)
from sealtape.schemas.slices import CLIENT_IN, CLIENT_OUT, TARGET_IN, TARGET_OUT, Hole, Slice
from tests.capture.postgres.codec import pg_script as pg

SCRIPT = [
    ("s", pg.GREETING),
    ("c", pg.query("select 'x'")),
    ("s", pg.row(b"x") + pg.tag("SELECT 1") + pg.ready()),
    ("c", pg.query("delete from t")),
    ("s", pg.error("42P01", 'relation "t" does not exist') + pg.ready()),
]


def test_facts_cite_the_bytes_they_come_from():
    found = pg.facts(SCRIPT)
    streams = {
        CLIENT_IN: b"".join(data for side, data in SCRIPT if side == "c"),
        TARGET_IN: b"".join(data for side, data in SCRIPT if side == "s"),
    }
    cited = [streams[f.leg][f.offset : f.offset + f.length] for f in found]
    assert cited == [
        pg.query("select 'x'"),
        pg.ready(),
        pg.query("delete from t"),
        pg.error("42P01", 'relation "t" does not exist'),
    ]
    assert [f.ts_ns - pg.T0 for f in found] == [10**6, 2 * 10**6, 3 * 10**6, 4 * 10**6]


def test_the_out_legs_say_nothing_new():
    whole = pg.slices(SCRIPT)
    extra = [Slice(TARGET_OUT, pg.T0, 5, b"x"), Slice(CLIENT_OUT, pg.T0, 9, b"", 4)]
    assert facts_from_data([*extra, *whole, *extra], salt=b"salt") == pg.facts(SCRIPT)


def test_a_hole_ends_what_can_be_derived():
    whole = pg.slices(SCRIPT)
    harmless = [Hole(TARGET_OUT, 0, 100), Hole(CLIENT_IN, 0, 0)]
    assert facts_from_data([*harmless, *whole], salt=b"salt") == pg.facts(SCRIPT)
    cut = [*whole[:3], Hole(CLIENT_IN, 18, 100), *whole[3:]]
    assert facts_from_data(cut, salt=b"salt") == pg.facts(SCRIPT)[:2]


def test_slices_have_to_follow_each_other():
    whole = pg.slices(SCRIPT)
    with pytest.raises(FormatError):
        facts_from_data([*whole[:2], *whole[3:]], salt=b"salt")
    deriver = Deriver(salt=b"salt")
    deriver.feed(Slice(CLIENT_IN, 1, 0, b"garbage that is no PostgreSQL"))
    assert deriver.feed(Slice(CLIENT_IN, 2, 5000, b"anything")) == []
    assert deriver.feed(Slice(TARGET_IN, 2, 5000, b"anything")) == []


def test_full_text_is_as_the_target_had_it():
    found = facts_from_data(pg.slices(SCRIPT), salt=b"salt", full_text=True)
    assert found[0].text == "select 'x'"


def test_deriving_from_a_snapshot():
    whole = pg.slices(SCRIPT)
    tracker = Tracker(emit=lambda *_, **__: 0, classifier=Classifier(), salt=b"salt")
    for item in whole[:3]:
        (tracker.client if item.leg == CLIENT_IN else tracker.server)(item.data, item.ts_ns)
    found = facts_from_data(whole[3:], salt=b"salt", state=snapshot.dump(tracker))
    assert [replace(f, n=f.n + 2, ref=f.ref + 2 if f.ref >= 0 else -1) for f in found] == (
        pg.facts(SCRIPT)[2:]
    )


def test_decode_parts():
    head = encode_head(3, COMMAND, 0)
    assert decode_parts(head, 7, NO_TEXT, NO_STATEMENT, NO_TAIL) == Fact(3, COMMAND, 7)


# -- comparing


def test_equal_facts_have_no_difference():
    found = pg.facts(SCRIPT)
    assert compare(found, found) == []


def test_facts_of_others_do_not_matter():
    """ACCESS and node events are numbered in between; what refers to what has to be the same."""
    found = pg.facts(SCRIPT)
    between = [Fact(0, ACCESS, 1), Fact(1, NODE, 1, status="drain")]
    shifted = [replace(f, n=f.n + 2, ref=f.ref + 2 if f.ref >= 0 else -1) for f in found]
    assert compare([*between, *shifted], found) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status", "SELECT 2"),
        ("rows", 3),
        ("normalized", "select ?, ?"),
        ("effect", "write"),
        ("objects", ("u",)),
        ("offset", 1),
        ("length", 1),
        ("leg", 1),
        ("bytes_out", 9),
        ("code", "00000"),
        ("message", "all is well"),
        ("text_sha256", b"x" * 32),
        ("attributes", {"a": "b"}),
        ("kind", 2),
    ],
)
def test_every_falsified_field_is_found(name, value):
    found = pg.facts(SCRIPT)
    false = [replace(found[0], **{name: value}), *found[1:]]
    (difference,) = compare(false, found)
    assert (difference.n, difference.field, difference.recorded) == (0, name, value)
    assert difference.derived == getattr(found[0], name)


def test_falsified_references_and_durations():
    found = pg.facts(SCRIPT)
    false = [*found[:3], replace(found[3], ref=0)]
    assert [d.field for d in compare(false, found)] == ["ref"]
    slower = [found[0], replace(found[1], duration_ns=found[1].duration_ns + TOLERANCE_NS)]
    assert compare(slower, found[:2]) == []
    slower[1] = replace(slower[1], duration_ns=slower[1].duration_ns + 1)
    assert [d.field for d in compare(slower, found[:2])] == ["duration_ns"]


def test_missing_and_extra_facts():
    found = pg.facts(SCRIPT)
    (missing,) = compare(found[:3], found)
    assert (missing.n, missing.field, missing.derived) == (3, "missing", found[3])
    assert compare(found[:3], found, open_end=True) == []
    (extra,) = compare(found, found[:3])
    assert (extra.n, extra.field, extra.recorded) == (3, "extra", found[3])
    assert compare([], []) == []


def test_a_lost_direction_is_compared_too():
    script = [*SCRIPT, ("c", b"garbage that is no PostgreSQL")]
    found = pg.facts(script)
    assert found[-1].kind == NODE
    assert [d.field for d in compare(found[:-1], found)] == ["missing"]


# -- comparing bit by bit


def pipeline(dice, count):
    """Commands and results as a pipelining client causes them, some with two results."""
    found, running = [], []
    while len(found) < count:
        n = len(found)
        if not running or dice.random() < 0.5:
            found.append(Fact(n, COMMAND, n, normalized=f"s{dice.randrange(5)}", length=n))
            running.append(n)
        else:
            ref = running.pop(0) if dice.random() < 0.9 else running[0]
            found.append(Fact(n, RESULT, n, ref=ref, rows=dice.randrange(3)))
    return found


def falsified(dice, told):
    """Some other facts in between, numbered on; some lies."""
    found, numbers = [], {}
    for fact in told:
        if dice.random() < 0.1:
            found.append(Fact(len(found), dice.choice((ACCESS, NODE)), fact.ts_ns))
        numbers[fact.n] = len(found)
        found.append(replace(fact, n=len(found), ref=numbers.get(fact.ref, -1)))
    for _ in range(dice.choice((0, 0, 1, 3))):
        at = dice.randrange(len(found))
        change = dice.choice(({"rows": 77}, {"ref": -1}, {"ref": 0}, {"duration_ns": 10**9}))
        found[at] = replace(found[at], **change)
    return found[: dice.choice((len(found), len(found), len(found) - 3))]


def compared_whole(recorded, derived, open_end):
    """The same comparison with everything in memory."""
    ours = [f for f in recorded if f.kind in (COMMAND, RESULT) or f.status == LOST]
    names = {f.n: index for index, f in enumerate(ours)}
    places = {f.n: index for index, f in enumerate(derived)}
    found = set()
    for left, right in zip(ours, derived, strict=False):
        for name in {item.name for item in fields(Fact)} - {"n", "ts_ns", "ref", "duration_ns"}:
            if getattr(left, name) != getattr(right, name):
                found.add((left.n, name))
        if abs(left.duration_ns - right.duration_ns) > TOLERANCE_NS:
            found.add((left.n, "duration_ns"))
        same = names.get(left.ref, -1) == places.get(right.ref, -1)
        if not same or (left.ref < 0) != (right.ref < 0):
            found.add((left.n, "ref"))
    found |= {(f.n, "extra") for f in ours[len(derived) :]}
    if not open_end:
        found |= {(f.n, "missing") for f in derived[len(ours) :]}
    return found


@pytest.mark.parametrize("seed", range(150))
def test_bit_by_bit_is_as_the_whole(seed):
    dice = random.Random(seed)
    derived = pipeline(dice, dice.randrange(4, 60))
    recorded = falsified(dice, derived)
    if dice.random() < 0.2:
        derived = derived[:-4]
    open_end = dice.random() < 0.3
    comparison = Comparison()
    left, right = list(recorded), list(derived)
    while left or right:
        if left and (not right or dice.random() < 0.5):
            fact = left.pop(0)
            comparison.record(fact, (0, fact.n + 1000))
        else:
            comparison.derive(right.pop(0))
    comparison.end(open_end=open_end)
    found = comparison.found
    assert {(d.n, d.field) for d in found} == compared_whole(recorded, derived, open_end)
    assert {d.n + 1000 for d in found if d.recorded is not None} == {
        d.place[1] for d in found if d.recorded is not None
    }
    plain = [replace(d, place=(0, 0)) for d in found]
    assert sorted(map(repr, compare(recorded, derived, open_end=open_end))) == sorted(
        map(repr, plain)
    )


def test_memory_does_not_grow_with_the_session(monkeypatch):
    monkeypatch.setattr(derive, "_RECENT", 8)
    comparison = Comparison()
    for n in range(0, 2000, 2):
        for fact in (Fact(n, COMMAND, 1), Fact(n + 1, RESULT, 2, ref=n)):
            comparison.record(fact)
            comparison.derive(fact)
    for side in (comparison._left, comparison._right):
        assert len(side._open) == 0
        assert len(side._young) + len(side._old) <= 16
    assert not comparison._recorded
    assert not comparison._derived
    late = Fact(2000, RESULT, 3, ref=1998)
    comparison.derive(late)
    comparison.record(replace(late, ref=1990))
    comparison.end()
    assert [d.field for d in comparison.found] == ["ref"]


@pytest.mark.parametrize("side", ["record", "derive"])
def test_a_side_that_runs_far_ahead_is_a_difference(monkeypatch, side):
    monkeypatch.setattr(derive, "MAX_UNMATCHED", 10)
    comparison = Comparison()
    for n in range(30):
        getattr(comparison, side)(Fact(n, COMMAND, 1))
    assert not comparison._recorded
    assert not comparison._derived
    for n in range(30):
        comparison.record(Fact(n, COMMAND, 1))
        comparison.derive(Fact(n, COMMAND, 2, length=9))
    comparison.end()
    (difference,) = comparison.found
    assert (difference.n, difference.field) == (10, "unmatched")


def test_so_many_differences_are_kept(monkeypatch):
    monkeypatch.setattr(derive, "MAX_DIFFERENCES", 3)
    comparison = Comparison(parameters=False)
    for n in range(5):
        comparison.record(Fact(n, COMMAND, 1))
        comparison.derive(Fact(n, COMMAND, 2, length=9, parameters=("1",)))
    assert (len(comparison.found), comparison.more) == (3, 2)
    comparison.record(Fact(5, COMMAND, 1, parameters=("2",)))
    assert (len(comparison.found), comparison.more) == (3, 5)


@pytest.mark.parametrize("opted", [True, False])
def test_parameters_count_where_any_are_recorded(opted):
    told = [Fact(n, COMMAND, 1, parameters=(str(n),)) for n in range(3)]
    recorded = [replace(told[0], parameters=()), told[1], replace(told[2], parameters=())]
    if not opted:
        recorded[1] = replace(told[1], parameters=())
    comparison = Comparison(parameters=False)
    for left, right in zip(recorded, told, strict=True):
        comparison.record(left)
        comparison.derive(right)
    comparison.end()
    assert [(d.n, d.field) for d in comparison.found] == (
        [(0, "parameters"), (2, "parameters")] if opted else []
    )


def test_after_a_stop_both_ends_are_open():
    told = [Fact(n, COMMAND, 1) for n in range(4)]
    comparison = Comparison()
    for fact in told:
        comparison.derive(fact)
    comparison.record(told[0])
    comparison.stop()
    comparison.record(replace(told[1], rows=5))
    comparison.end()
    assert [(d.n, d.field) for d in comparison.found] == [(1, "rows")]
    comparison = Comparison()
    comparison.record(told[0])
    comparison.stop()
    comparison.record(told[1])
    comparison.end()
    assert comparison.found == []
