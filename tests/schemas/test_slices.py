"""DATA bodies: vectors, the reference library both ways, and legs rebuilt from slices."""

import io
import json
from pathlib import Path

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealtape.schemas import avro, slices
from sealtape.schemas.errors import FormatError
from sealtape.schemas.frames import MAX_BODY
from sealtape.schemas.slices import (
    CLIENT_IN,
    CLIENT_OUT,
    LEGS,
    MAX_REPLACES,
    TARGET_IN,
    TARGET_OUT,
    Hole,
    Slice,
)

VECTORS = json.loads(
    (Path(__file__).parent.parent / "vectors" / "data.json").read_text(encoding="utf-8")
)
SCHEMA = fastavro.parse_schema(json.loads(avro.text("data.v1")))
TS = 1_795_392_000_000_000_000


def slice_of(row, ts_ns=0):
    return Slice(
        row["leg"],
        row.get("ts_ns", ts_ns),
        row["offset"],
        bytes.fromhex(row["data"]),
        row["replaces"],
    )


def body_of(items, ts_ns):
    pieces = [
        slices.encode_slice(one.leg, one.ts_ns - ts_ns, one.offset, one.data, one.replaces)
        for one in items
    ]
    return slices.encode_data(pieces, len(pieces))


def stream(items, leg):
    return b"".join(slices.leg_stream(items, leg))


@pytest.mark.parametrize("case", VECTORS["bodies"], ids=lambda case: case["name"])
def test_vectors(case):
    items = [slice_of(row) for row in case["slices"]]
    assert body_of(items, case["ts_ns"]).hex() == case["encoded"]
    assert slices.decode_data(bytes.fromhex(case["encoded"]), case["ts_ns"]) == items


@pytest.mark.parametrize("case", VECTORS["malformed"], ids=lambda case: case["name"])
def test_malformed_vectors(case):
    with pytest.raises(FormatError):
        slices.decode_data(bytes.fromhex(case["encoded"]), TS)


@pytest.mark.parametrize("case", VECTORS["legs"], ids=lambda case: case["name"])
def test_leg_vectors(case):
    items = [slice_of(row) for row in case["slices"]]
    assert [stream(items, leg).hex() for leg in LEGS] == case["streams"]


@st.composite
def any_slice(draw):
    leg = draw(st.sampled_from(LEGS))
    return Slice(
        leg,
        TS + draw(st.integers(0, 2**63 - 1)),
        draw(st.integers(0, 2**63 - 1)),
        draw(st.binary(max_size=80)),
        draw(st.integers(0, MAX_REPLACES)) if leg in (TARGET_OUT, CLIENT_OUT) else 0,
    )


@given(st.lists(any_slice(), min_size=1, max_size=8))
def test_both_ways_against_the_reference_library(items):
    body = body_of(items, TS)
    value = {
        "slices": [
            {
                "leg": one.leg,
                "at_ns": one.ts_ns - TS,
                "offset": one.offset,
                "replaces": one.replaces,
                "data": one.data,
            }
            for one in items
        ]
    }
    assert fastavro.schemaless_reader(io.BytesIO(body[10:]), SCHEMA) == value
    out = io.BytesIO()
    fastavro.schemaless_writer(out, SCHEMA, value)
    assert slices.decode_data(body[:10] + out.getvalue(), TS) == items


def test_heads_and_data_can_be_joined_apart():
    pieces = [slices.slice_head(0, 5, 7, 3), b"abc"]
    assert slices.encode_data(pieces, 1) == body_of([Slice(0, TS + 5, 7, b"abc")], TS)


def test_every_cut_is_refused():
    body = body_of([Slice(0, TS + 300, 5, b"abc"), Slice(3, TS, 0, b"", 2)], TS)
    for size in range(len(body)):
        with pytest.raises(FormatError):
            slices.decode_data(body[:size], TS)


def test_a_body_above_the_limit_is_refused():
    body = body_of([Slice(0, TS, 0, bytes(MAX_BODY))], TS)
    with pytest.raises(FormatError, match="DATA"):
        slices.decode_data(body, TS)


# -- legs


def change(draw, chunk, leg, offset, at):
    """An out slice for the end of an in chunk, or None where the chunk is passed on."""
    replaces = draw(st.integers(0, len(chunk)))
    data = draw(st.binary(max_size=5))
    if not draw(st.booleans()):
        return None, chunk
    kept = chunk[: len(chunk) - replaces]
    return Slice(leg, at, offset + len(kept), data, replaces), kept + data


@given(st.data())
def test_out_legs_are_what_was_sent(data):
    items, sent = [], dict.fromkeys(LEGS, b"")
    for at in range(data.draw(st.integers(1, 10))):
        leg = data.draw(st.sampled_from((CLIENT_IN, TARGET_IN)))
        out = {CLIENT_IN: TARGET_OUT, TARGET_IN: CLIENT_OUT}[leg]
        chunk = data.draw(st.binary(max_size=8))
        items.append(Slice(leg, at, len(sent[leg]), chunk))
        changed, passed = change(data.draw, chunk, out, len(sent[out]), at)
        if changed:
            items.append(changed)
        sent[leg] += chunk
        sent[out] += passed
    for leg in LEGS:
        assert stream(items, leg) == sent[leg]
    totals = [0, 0, 0, 0]
    for one in items:
        assert slices.advance(totals, one.leg, len(one.data), one.replaces) == one.offset
    assert totals == [len(sent[leg]) for leg in LEGS]


def test_a_change_may_reach_back_over_several_slices():
    items = [
        Slice(CLIENT_IN, 0, 0, b"ab"),
        Slice(TARGET_IN, 0, 0, b"other"),
        Slice(CLIENT_IN, 0, 2, b"cd"),
        Slice(TARGET_OUT, 0, 1, b"X", 3),
        Slice(TARGET_OUT, 0, 2, b"Y", 0),
        Slice(CLIENT_IN, 0, 4, b"e"),
    ]
    assert stream(items, TARGET_OUT) == b"aXYe"
    assert stream(items, CLIENT_OUT) == b"other"


def test_a_long_leg_is_not_held_back():
    chunk = bytes(64 << 10)
    items = (Slice(CLIENT_IN, 0, len(chunk) * n, chunk) for n in range(1_000))
    passed = slices.leg_stream(items, TARGET_OUT)
    assert next(passed) == chunk
    assert next(items).offset <= MAX_REPLACES + len(chunk)


def test_what_was_passed_on_cannot_be_replaced():
    items = [
        Slice(CLIENT_IN, 0, 0, b"abc"),
        Slice(TARGET_OUT, 0, 1, b"X", 2),
        Slice(TARGET_OUT, 0, 2, b"Y", 1),
    ]
    with pytest.raises(FormatError, match="replaces 1 bytes; 0 are there"):
        stream(items, TARGET_OUT)


@pytest.mark.parametrize("leg", [CLIENT_IN, TARGET_OUT])
def test_a_leg_that_does_not_follow_on_is_refused(leg):
    items = [Slice(CLIENT_IN, 0, 7, b"abc"), Slice(CLIENT_IN, 0, 11, b"d")]
    with pytest.raises(FormatError, match="goes on at byte 10, not at 11"):
        stream(items, leg)


def test_an_out_slice_that_does_not_follow_on_is_refused():
    items = [
        Slice(CLIENT_IN, 0, 0, b"abc"),
        Slice(TARGET_OUT, 0, 3, b"X"),
        Slice(CLIENT_IN, 0, 3, b"d"),
        Slice(TARGET_OUT, 0, 4, b"Y"),
    ]
    with pytest.raises(FormatError, match="target_out goes on at byte 5, not at 4"):
        stream(items, TARGET_OUT)


def test_holes_move_every_leg_on():
    items = [
        Slice(CLIENT_IN, 0, 0, b"abc"),
        Slice(TARGET_OUT, 0, 3, b"!"),
        Hole(CLIENT_IN, 3, 10),
        Hole(TARGET_OUT, 4, 8),
        Slice(CLIENT_IN, 0, 13, b"d"),
        Slice(TARGET_OUT, 0, 13, b"?"),
    ]
    assert stream(items, CLIENT_IN) == b"abcd"
    assert stream(items, TARGET_OUT) == b"abc!d?"
    late = [*items[:2], Hole(CLIENT_IN, 4, 10)]
    with pytest.raises(FormatError):
        stream(late, CLIENT_IN)


def test_after_a_hole_of_unknown_length_a_leg_starts_anew():
    items = [
        Slice(TARGET_IN, 0, 0, b"abc"),
        Hole(TARGET_IN, 3, -1),
        Slice(TARGET_IN, 0, 900, b"d"),
        Slice(TARGET_IN, 0, 901, b"e"),
    ]
    assert stream(items, TARGET_IN) == b"abcde"
    assert stream(items, CLIENT_OUT) == b"abcde"
