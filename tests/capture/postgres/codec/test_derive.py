from dataclasses import replace

import pytest

from sealtape.capture.postgres.codec import snapshot
from sealtape.capture.postgres.codec.derive import (
    TOLERANCE_NS,
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
