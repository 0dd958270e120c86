import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealtape.capture.bus.records import (
    FILE_HEADER,
    MAX_KEY,
    RECORD_HEADER,
    FileHeader,
    check_lengths,
    encode_records,
    parse_file_header,
    parse_record,
    proves_damage,
)
from sealtape.schemas.errors import FormatError

VECTORS = json.loads(
    (Path(__file__).parents[2] / "vectors/bus-dir.json").read_text(encoding="utf-8")
)
MESSAGES = st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=60)), max_size=6)


@given(messages=MESSAGES, offset=st.integers(0, 2**62))
def test_records_come_back(messages, offset):
    pieces, ends = encode_records(messages, offset=offset, synced=offset, ts_ms=5)
    window, at, found = b"".join(pieces), 0, []
    while at < len(window):
        parsed = parse_record(window, at, offset + at)
        found.append((parsed.record.key, parsed.record.value))
        assert parsed.synced == offset
        assert parsed.record.ts_ms == 5
        at += parsed.needed
        assert parsed.record.next_offset == ends[len(found) - 1]
    assert found == messages
    assert parse_record(window, at, offset + at).needed == RECORD_HEADER


def test_every_cut_asks_for_more_and_every_flip_is_damage():
    pieces, _ = encode_records([(b"key", b"value")], offset=7, synced=0, ts_ms=1)
    whole = b"".join(pieces)
    for cut in range(len(whole)):
        parsed = parse_record(whole[:cut], 0, 7)
        assert parsed.record is None
        assert parsed.needed > cut
    for bit in range(len(whole) * 8):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        parsed = parse_record(bytes(flipped), 0, 7)
        assert parsed.record is None
    assert parse_record(whole, 0, 8).needed == 0


def test_file_headers_come_back_and_damage_is_refused():
    header = FileHeader(3, 1 << 40, 1 << 39)
    data = header.encode()
    assert len(data) == FILE_HEADER
    assert parse_file_header(data + b"more") == header
    for bad in (data[:-1], b"X" + data[1:], data[:12] + b"\x01" + data[13:]):
        with pytest.raises(FormatError):
            parse_file_header(bad)


def test_only_a_later_record_that_knew_it_durable_proves_damage():
    first, ends = encode_records([(b"", b"a")], offset=0, synced=0, ts_ms=0)
    known, _ = encode_records([(b"", b"b")], offset=ends[0], synced=ends[0], ts_ms=0)
    unknown, _ = encode_records([(b"", b"b")], offset=ends[0], synced=0, ts_ms=0)
    assert proves_damage(b"".join(first + known), 0)
    assert not proves_damage(b"".join(first + unknown), 0)
    assert not proves_damage(b"SBR1SBR1SBR1" * 5, 0)


def test_lengths_are_bounded():
    check_lengths([(bytes(MAX_KEY), b"")])
    with pytest.raises(FormatError):
        check_lengths([(bytes(MAX_KEY + 1), b"")])


def test_the_example_of_the_spec_page_is_a_record():
    page = Path(__file__).parents[3] / "docs" / "spec" / "bus-dir.md"
    lines = re.findall(r"^([0-9a-f]{2,16})  ", page.read_text(), re.MULTILINE)
    pieces, _ = encode_records([(b"k", b"hello")], offset=100, synced=100, ts_ms=0x19AAD2E8A00)
    assert bytes.fromhex("".join(lines)) == b"".join(pieces)


@pytest.mark.parametrize("case", VECTORS["headers"], ids=lambda case: case["base"])
def test_header_vectors(case):
    header = FileHeader(case["partition"], int(case["base"]), int(case["previous_end"]))
    assert header.encode().hex() == case["header"]
    assert parse_file_header(bytes.fromhex(case["header"])) == header


@pytest.mark.parametrize("case", VECTORS["records"], ids=lambda case: case["offset"])
def test_record_vectors(case):
    key, value = bytes.fromhex(case["key"]), bytes.fromhex(case["value"])
    offset, synced = int(case["offset"]), int(case["synced"])
    pieces, _ = encode_records([(key, value)], offset=offset, synced=synced, ts_ms=case["ts_ms"])
    assert b"".join(pieces).hex() == case["record"]
    parsed = parse_record(bytes.fromhex(case["record"]), 0, offset)
    assert (parsed.record.key, parsed.record.value) == (key, value)
    assert (parsed.synced, parsed.record.ts_ms) == (synced, case["ts_ms"])
