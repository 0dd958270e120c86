import struct
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealtape.capture.postgres.codec.values import TYPE_NAMES, literal, show, show_all


def test_text_format_and_null():
    assert show(b"abc", 23, 0) == "abc"
    assert show(b"\xff", 25, 0) == "\ufffd"
    assert show(None, 23, 1) is None


@pytest.mark.parametrize(
    ("oid", "value", "shown"),
    [
        (16, b"\x01", "t"),
        (16, b"\x00", "f"),
        (17, b"\x00\xff", "\\x00ff"),
        (20, struct.pack(">q", -(1 << 40)), str(-(1 << 40))),
        (21, struct.pack(">h", -2), "-2"),
        (23, struct.pack(">i", 7), "7"),
        (26, struct.pack(">I", 4_000_000_000), "4000000000"),
        (25, "é".encode(), "é"),
        (700, struct.pack(">f", 1.1), "1.10000002"),
        (701, struct.pack(">d", 1.1), "1.1"),
        (1082, struct.pack(">i", 0), "2000-01-01"),
        (1082, struct.pack(">i", 0x7FFFFFFF), "infinity"),
        (1083, struct.pack(">q", 3_600_000_001), "01:00:00.000001"),
        (1114, struct.pack(">q", 1_000_000), "2000-01-01 00:00:01"),
        (1114, struct.pack(">q", -(1 << 63)), "-infinity"),
        (1184, struct.pack(">q", 0), "2000-01-01 00:00:00+00:00"),
        (1184, struct.pack(">q", (1 << 63) - 1), "infinity"),
        (1186, struct.pack(">qii", 1_500_000, 2, 14), "14 mons 2 days 1.5 s"),
        (1186, struct.pack(">qii", 0, 0, 0), "0 s"),
        (1186, struct.pack(">qii", 0, 3, 0), "3 days"),
        (2950, bytes(16), str(UUID(int=0))),
        (3802, b'\x01{"a": 1}', '{"a": 1}'),
        (869, bytes([2, 32, 0, 4, 127, 0, 0, 1]), "127.0.0.1"),
        (650, bytes([2, 8, 1, 4, 10, 0, 0, 0]), "10.0.0.0/8"),
        (869, bytes([3, 128, 0, 16, *bytes(15), 1]), "::1"),
        (1700, struct.pack(">HhHHHH", 2, 0, 0, 1, 12, 5000), "12.5"),
        (1700, struct.pack(">HhHHHH", 2, 0, 0x4000, 2, 12, 5000), "-12.50"),
        (1700, struct.pack(">HhHHH", 1, 1, 0, 0, 3), "30000"),
        (1700, struct.pack(">HhHHH", 1, -2, 0, 8, 7), "0.00000007"),
        (1700, struct.pack(">HhHH", 0, 0, 0, 3), "0.000"),
        (1700, struct.pack(">HhHH", 0, 0, 0xC000, 0), "NaN"),
        (1700, struct.pack(">HhHH", 0, 0, 0xD000, 0), "Infinity"),
        (1700, struct.pack(">HhHH", 0, 0, 0xF000, 0), "-Infinity"),
    ],
)
def test_binary_format(oid, value, shown):
    assert show(value, oid, 1) == shown


@pytest.mark.parametrize(
    ("oid", "value"),
    [
        (23, b"\x01"),
        (16, b"\x02"),
        (25, b"\xff"),
        (3802, b"\x02{}"),
        (3802, b""),
        (869, bytes([9, 32, 0, 4, 127, 0, 0, 1])),
        (1114, struct.pack(">q", (1 << 62))),
        (1700, struct.pack(">HhHHH", 1, 0, 0, 0, 10_000)),
        (1700, struct.pack(">HhHH", 0, 0, 0x1234, 0)),
        (99999, b"abc"),
    ],
)
def test_what_does_not_fit_its_type_is_hex(oid, value):
    assert show(value, oid, 1) == "\\x" + value.hex()


@given(st.sampled_from([*TYPE_NAMES, 0]), st.binary(max_size=40), st.integers(0, 1))
def test_any_bytes_can_be_shown(oid, value, code):
    assert isinstance(show(value, oid, code), str)


def test_rows():
    one = struct.pack(">i", 1)
    assert show_all([one, b"x", None], [23, 25, 25], [1, 0, 0]) == ["1", "x", None]
    assert show_all([one, one], [23, 23], [1]) == ["1", "1"]
    assert show_all([b"a", b"b"], [], []) == ["a", "b"]
    assert show_all([one, one], [23], [1, 1, 1]) == ["1", "\\x00000001"]
    assert show_all([one, b"x", b"y"], [23, 25, 25], [1, 0]) == ["1", "x", "y"]


def test_literals():
    assert literal(None) == "NULL"
    assert literal('a"é') == '"a\\"é"'
