"""Avro's primitives: against the reference library both ways, and strict."""

import io
import json

import fastavro
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sealtape.schemas import avro, wire
from sealtape.schemas.errors import FormatError

longs = st.integers(-(2**63), 2**63 - 1)


def written(schema, value):
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), value)
    return out.getvalue()


def read_text(data, position):
    return wire.read_string(data, position, 100)


# -- schemas


@pytest.mark.parametrize("name", avro.FINGERPRINTS)
def test_canonical_form_and_fingerprint_are_the_reference_librarys(name):
    schema = json.loads(avro.text(name))
    canonical = fastavro.schema.to_parsing_canonical_form(schema)
    assert wire.parsing_canonical_form(schema) == canonical
    assert wire.fingerprint(avro.text(name)) == avro.FINGERPRINTS[name]
    assert wire.prefix(name)[:2] == b"\xc3\x01"
    assert len(wire.prefix(name)) == wire.PREFIX_SIZE


def test_canonical_form_of_what_our_schemas_do_not_use():
    colour = {"type": "enum", "name": "a.Colour", "symbols": ["RED", "BLUE"], "doc": "no"}
    schema = {
        "type": "record",
        "name": "Top",
        "doc": "dropped",
        "fields": [
            {"name": "c", "type": ["null", colour], "default": None},
            {"name": "again", "type": "a.Colour"},
            {"name": "m", "type": {"type": "map", "values": {"type": "long", "x": 1}}},
        ],
    }
    canonical = fastavro.schema.to_parsing_canonical_form(schema)
    assert wire.parsing_canonical_form(schema) == canonical
    nested = {
        "type": "record",
        "name": "n.Top",
        "fields": [
            {"name": "h", "type": {"type": "fixed", "name": "H", "size": 4}},
            {"name": "i", "type": "H"},
        ],
    }
    assert '"n.H"}]' in wire.parsing_canonical_form(nested)
    assert wire.parsing_canonical_form("Bare") == '"Bare"'


def test_fingerprints_of_the_specification():
    assert wire.fingerprint('"int"') == 0x7275D51A3F395C8F
    assert wire.fingerprint('"string"') == 0x8F014872634503C7


# -- numbers


@given(longs)
@example(0)
@example(-1)
@example(63)
@example(64)
@example(8191)
@example(8192)
@example(2**20 - 1)
@example(2**20)
@example(2**27 - 1)
@example(2**27)
@example(2**34)
@example(2**63 - 1)
@example(-(2**63))
def test_longs_both_ways(value):
    encoded = wire.encode_long(value)
    assert encoded == written("long", value)
    assert wire.read_long(b"x" + encoded + b"y", 1) == (value, 1 + len(encoded))


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 2**70])
def test_a_number_beyond_64_bits_is_not_written(value):
    with pytest.raises(FormatError, match="64 bits"):
        wire.encode_long(value)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "ends inside"),
        (b"\x80", "ends inside"),
        (b"\x80\x00", "shortest"),
        (b"\x81\x80\x00", "shortest"),
        (b"\xff" * 9 + b"\x02", "shortest"),
        (b"\xff" * 10 + b"\x01", "longer than 64"),
        (b"\x80" * 1_000_000, "longer than 64"),
    ],
)
def test_a_number_in_another_form_is_refused(data, reason):
    with pytest.raises(FormatError, match=reason):
        wire.read_long(data, 0)


def test_a_number_outside_its_range_is_refused():
    assert wire.read_within(b"\x06", 0, 3, 3) == (3, 1)
    for low, high in ((4, 9), (0, 2)):
        with pytest.raises(FormatError, match="is 3; it must be"):
            wire.read_within(b"\x06", 0, low, high)


# -- bytes and text


@given(st.binary(max_size=300))
def test_bytes_both_ways(value):
    encoded = wire.encode_bytes(value)
    assert encoded == written("bytes", value)
    assert wire.read_bytes(encoded, 0, 300) == (value, len(encoded))


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_strings_both_ways(value):
    encoded = wire.encode_string(value)
    assert encoded == written("string", value)
    assert wire.read_string(encoded, 0, 10_000) == (value, len(encoded))


def test_a_lone_surrogate_becomes_a_question_mark():
    assert wire.encode_string("a\udc80b") == b"\x06a?b"


@pytest.mark.parametrize("data", [b"\x04a", b"\x01", b"\x06abc", b"\x02"])
def test_a_length_beyond_data_or_limit_is_refused(data):
    with pytest.raises(FormatError):
        wire.read_bytes(data, 0, 2)


@pytest.mark.parametrize("raw", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"])
def test_text_that_is_not_utf_8_is_refused(raw):
    with pytest.raises(FormatError, match="UTF-8"):
        wire.read_string(wire.encode_bytes(raw), 0, 10)


def test_a_fixed_field_beyond_the_data_is_refused():
    assert wire.read_fixed(b"abc", 1, 2) == (b"bc", 3)
    with pytest.raises(FormatError, match="ends inside"):
        wire.read_fixed(b"abc", 2, 2)


@given(st.text(), st.integers(0, 30))
def test_clip_cuts_at_a_character(value, limit):
    clipped = wire.clip(value, limit)
    raw = value.encode("utf-8", "replace")
    assert len(clipped.encode("utf-8", "replace")) <= limit
    assert raw.startswith(clipped.encode("utf-8", "replace"))
    assert len(raw) - len(clipped.encode("utf-8", "replace")) < 4 or len(raw) > limit


def test_clip_leaves_short_text_as_it_is():
    assert wire.clip("abc", 100) == "abc"
    assert wire.clip("x" * 100, 100) == "x" * 100
    assert wire.clip("é" * 60, 120) == "é" * 60
    assert wire.clip("é" * 60, 3) == "é"


# -- arrays and maps


@given(st.lists(st.text(alphabet=st.characters(codec="utf-8"), max_size=9), max_size=9))
def test_arrays_both_ways(values):
    encoded = wire.encode_array([wire.encode_string(value) for value in values])
    assert encoded == written({"type": "array", "items": "string"}, values)
    assert wire.read_array(encoded, 0, 9, read_text) == (values, len(encoded))


@pytest.mark.parametrize(
    "data",
    [
        b"\x02\x02a\x02\x02b\x00",  # two blocks
        b"\x01\x04\x02a\x00",  # a block with its size
        b"\x02\x02a",  # no end
        b"\x06\x02a\x02b\x02c\x00",  # more than allowed
    ],
)
def test_arrays_in_another_form_are_refused(data):
    with pytest.raises(FormatError):
        wire.read_array(data, 0, 2, read_text)


keys = st.text(alphabet=st.characters(codec="utf-8"), max_size=5)


@given(st.dictionaries(keys, keys, max_size=8))
def test_maps_both_ways(values):
    ordered = dict(sorted(values.items(), key=lambda item: item[0].encode()))
    encoded = wire.encode_map(values)
    assert encoded == written({"type": "map", "values": "string"}, ordered)
    assert wire.read_map(encoded, 0, 8, 30, 30) == (values, len(encoded))


@pytest.mark.parametrize("pairs", [("b", "a"), ("a", "a")])
def test_map_keys_out_of_order_or_twice_are_refused(pairs):
    data = wire.encode_array([wire.encode_string(key) + wire.encode_string("v") for key in pairs])
    with pytest.raises(FormatError, match="ascending"):
        wire.read_map(data, 0, 8, 9, 9)


def test_bytes_after_the_end_are_refused():
    wire.end(b"abc", 3)
    with pytest.raises(FormatError, match="after the end"):
        wire.end(b"abc", 2)
