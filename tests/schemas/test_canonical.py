"""Canonical JSON: one value, one text; readers that name what they do not like."""

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from sealtape.schemas import canonical
from sealtape.schemas.errors import FormatError

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=20,
)


def reader(**members):
    return canonical.fields(canonical.encode(members), "thing")


@given(st.dictionaries(text, json_values, max_size=5))
def test_what_is_written_is_read_back(value):
    assert canonical.decode(canonical.encode(value), "thing") == value


@given(json_values, st.dictionaries(st.text('az\x00\x1f\x7f"\\/ \n', max_size=5), json_values))
def test_the_quick_form_is_the_librarys(value, ascii_keys):
    """What RFC 8785's own library writes, whichever way a value takes through this module."""
    assert canonical.encode(value) == rfc8785.dumps(value)
    assert canonical.encode(ascii_keys) == rfc8785.dumps(ascii_keys)
    assert canonical.decode(rfc8785.dumps(ascii_keys), "thing") == ascii_keys


@given(st.text('{}[]:,"\\\\/abu0123456789.-+eE ', max_size=40), st.integers(-(10**17), 10**17))
def test_what_is_taken_quickly_is_what_is_taken_slowly(inner, number):
    """Texts near to JSON, and numbers around the largest: both ways say the same."""
    for written in (f'{{"a":{inner}}}', f'{{"a":{number}}}', f'{{"a":[{number},{inner}]}}', inner):
        results = []
        for quick in (canonical._quick, lambda _: None):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(canonical, "_quick", quick)
                try:
                    results.append(canonical.decode(written.encode(), "thing"))
                except FormatError as error:
                    results.append(error.message)
        assert results[0] == results[1]


@given(st.dictionaries(text, json_values, max_size=3), st.data())
def test_no_other_bytes_mean_the_same(value, data):
    written = canonical.encode(value)
    at = data.draw(st.integers(0, len(written) - 1))
    bit = data.draw(st.integers(0, 7))
    changed = bytearray(written)
    changed[at] ^= 1 << bit
    try:
        assert canonical.decode(bytes(changed), "thing") != value
    except FormatError:
        pass


def test_keys_are_sorted_by_utf_16_units():
    assert canonical.encode({"\ufb33": 1, "\U0001f600": 2, "a": 3}) == (
        '{"a":3,"\U0001f600":2,"\ufb33":1}'.encode()
    )


@pytest.mark.parametrize(
    "value", [1.0, {"a": [1, (0.5,)]}, 2**53, {"a": "\ud800"}, {"a": b"x"}, {1: "a"}]
)
def test_values_without_one_form_are_not_written(value):
    with pytest.raises(FormatError, match="cannot be written"):
        canonical.encode(value)


def test_bottomless_values_are_not_written():
    value = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(FormatError, match="cannot be written"):
        canonical.encode(value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b'\xef\xbb\xbf{"a":1}',
        b'{"a":1',
        b'{"a":1}x',
        b'{"a":1}\n',
        b'{ "a":1}',
        b'{"b":1,"a":1}',
        b'{"a":1,"a":1}',
        b'{"a":{"b":1,"b":2}}',
        b'{"a":1.0}',
        b'{"a":1e3}',
        b'{"a":-0}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":9007199254740992}',
        b'{"a":"\\u0041"}',
        b'{"a":"\\ud800"}',
        b'{"a":"\\/"}',
        b"[]",
        b'"a"',
        b"1",
        b"null",
        b"[" * 100_000,
        b"1" * 5000,
    ],
)
def test_other_bytes_are_refused(data):
    with pytest.raises(FormatError, match="thing"):
        canonical.decode(data, "thing")


def test_all_members_are_read_by_type():
    members = reader(
        v=1,
        word="ab",
        words=["a", "b"],
        small=7,
        yes=True,
        big="18446744073709551615",
        when="-5",
        totals=["1", "2"],
        digest="00ff",
        hashes=["00", "ff"],
        raw="AAE=",
        inner={"a": 1},
        maybe=None,
        list=[{"a": 1}, {"a": 2}],
    )
    members.version()
    assert members.what == "thing"
    assert members.text("word") == "ab"
    assert members.texts("words") == ("a", "b")
    assert members.integer("small") == 7
    assert members.boolean("yes") is True
    assert members.decimal("big") == 2**64 - 1
    assert members.time_ns("when") == -5
    assert members.decimals("totals", count=2) == (1, 2)
    assert members.hex("digest", 2) == b"\x00\xff"
    assert members.hexes("hashes", 1) == (b"\x00", b"\xff")
    assert members.base64("raw", sizes=(2, 4)) == b"\0\1"
    inner = members.optional_object("inner")
    assert inner.integer("a") == 1
    inner.end()
    assert members.optional_object("maybe") is None
    assert [item.integer("a") for item in members.objects("list")] == [1, 2]
    assert members.has("list")
    assert not members.has("lost")
    members.end()


def test_text_may_be_bound_to_choices():
    assert reader(a="x").text("a", choices=("x", "y")) == "x"
    assert reader(a="").hex("a") == b""
    assert reader(a=["1"]).decimals("a") == (1,)
    assert reader(a="").base64("a") == b""


@pytest.mark.parametrize(
    ("members", "read", "message"),
    [
        ({}, lambda f: f.text("a"), r"thing\.a is missing"),
        ({"a": 1}, lambda f: f.text("a"), r"thing\.a must be a string"),
        ({"a": "éé"}, lambda f: f.text("a", max_bytes=3), r"thing\.a must be at most 3 bytes"),
        ({"a": "z"}, lambda f: f.text("a", choices=("x", "y")), r"thing\.a must be one of x, y"),
        ({"a": "x"}, lambda f: f.texts("a"), r"thing\.a must be a list"),
        ({"a": [1]}, lambda f: f.texts("a"), r"thing\.a must hold strings"),
        ({"a": ["xx"]}, lambda f: f.texts("a", max_bytes=1), r"thing\.a must hold strings"),
        ({"a": ["x"] * 3}, lambda f: f.texts("a", max_items=2), "at most 2 items"),
        ({"a": "1"}, lambda f: f.integer("a"), r"thing\.a must be a whole number"),
        ({"a": True}, lambda f: f.integer("a"), r"thing\.a must be a whole number"),
        ({"a": -1}, lambda f: f.integer("a"), "within 0 and 4294967295"),
        ({"a": 2**32}, lambda f: f.integer("a"), "within 0 and 4294967295"),
        ({"v": 2}, lambda f: f.version(), "version 2, this program reads 1"),
        ({"a": 1}, lambda f: f.boolean("a"), r"thing\.a must be true or false"),
        ({"a": 1}, lambda f: f.decimal("a"), r"thing\.a must be a string"),
        ({"a": "01"}, lambda f: f.decimal("a"), r"thing\.a is not a decimal number"),
        ({"a": "-0"}, lambda f: f.decimal("a"), r"thing\.a is not a decimal number"),
        ({"a": "+1"}, lambda f: f.decimal("a"), r"thing\.a is not a decimal number"),
        ({"a": "1 "}, lambda f: f.decimal("a"), r"thing\.a is not a decimal number"),
        ({"a": "1\n"}, lambda f: f.decimal("a"), r"thing\.a is not a decimal number"),
        ({"a": "١"}, lambda f: f.decimal("a"), r"thing\.a is not a decimal number"),
        ({"a": ""}, lambda f: f.decimal("a"), r"thing\.a is not a decimal number"),
        ({"a": "-1"}, lambda f: f.decimal("a"), r"thing\.a must be within 0 and"),
        ({"a": str(2**64)}, lambda f: f.decimal("a"), r"thing\.a must be within 0 and"),
        ({"a": str(2**63)}, lambda f: f.time_ns("a"), r"thing\.a must be within"),
        ({"a": ["1"]}, lambda f: f.decimals("a", count=2), r"thing\.a must hold 2 numbers"),
        ({"a": ["8"]}, lambda f: f.decimals("a", high=7), r"thing\.a must be within 0 and 7"),
        ({"a": "0"}, lambda f: f.hex("a"), r"thing\.a is not lowercase hex"),
        ({"a": "0A"}, lambda f: f.hex("a"), r"thing\.a is not lowercase hex"),
        ({"a": "0a\n"}, lambda f: f.hex("a"), r"thing\.a is not lowercase hex"),
        ({"a": "00"}, lambda f: f.hex("a", 2), r"thing\.a must be 2 bytes, not 1"),
        ({"a": ["00", "0"]}, lambda f: f.hexes("a", 1), r"thing\.a is not lowercase hex"),
        ({"a": "AAE"}, lambda f: f.base64("a"), r"thing\.a is not standard base64"),
        ({"a": "AA E="}, lambda f: f.base64("a"), r"thing\.a is not standard base64"),
        ({"a": "AAé="}, lambda f: f.base64("a"), r"thing\.a is not standard base64"),
        ({"a": "_-A="}, lambda f: f.base64("a"), r"thing\.a is not standard base64"),
        ({"a": "AAF="}, lambda f: f.base64("a"), "in its only form"),
        ({"a": "AAE="}, lambda f: f.base64("a", sizes=(0, 32)), "must be 0 or 32 bytes, not 2"),
        ({"a": "AAECAwQF"}, lambda f: f.base64("a", max_bytes=1), "must be at most 5 bytes"),
        ({"a": 1}, lambda f: f.object("a"), r"thing\.a must be an object"),
        ({"a": 1}, lambda f: f.optional_object("a"), r"thing\.a must be an object"),
        ({}, lambda f: f.optional_object("a"), r"thing\.a is missing"),
        ({"a": [{}, 1]}, lambda f: f.objects("a"), r"thing\.a\[1\] must be an object"),
        ({"a": {"b": 1}}, lambda f: f.object("a").text("b"), r"thing\.a\.b must be a string"),
        ({"a": [{"b": 1}]}, lambda f: f.objects("a")[0].end(), r"thing\.a\[0\] has unknown"),
        ({"a": 1, "b": 2}, lambda f: f.end(), "thing has unknown member 'a'"),
        ({"a": None}, lambda f: f.text("a"), r"thing\.a must be a string"),
    ],
)
def test_a_wrong_member_is_named(members, read, message):
    with pytest.raises(FormatError, match=message):
        read(reader(**members))


def test_members_marked_as_ignorable_are_ignored():
    members = canonical.fields(b'{"a":1,"x-note":"later"}', "thing")
    members.integer("a")
    members.end()


@given(st.binary(max_size=40))
def test_base64_has_one_text(data):
    written = canonical.base64_text(data)
    assert canonical.base64_bytes(written, "it") == data
    assert canonical.hex_bytes(data.hex(), "it") == data
