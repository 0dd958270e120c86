"""Thrift structs: what Parquet's own writer wrote, every cut of it, and bytes that are none."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealtape.ingest.thrift import read_struct
from sealtape.schemas.errors import FormatError


@pytest.fixture(scope="module")
def footer():
    sink = pa.BufferOutputStream()
    table = pa.table({"number": [1, -2, 3], "text": ["a", "b", None], "half": [0.5, 1.5, 2.5]})
    pq.write_table(table, sink, row_group_size=2, compression="none")
    data = sink.getvalue().to_pybytes()
    return data[-8 - int.from_bytes(data[-8:-4], "little") : -8], pq.read_metadata(
        pa.BufferReader(data)
    )


def test_a_footer_says_what_arrow_reads(footer):
    data, metadata = footer
    found = read_struct(data)
    assert found[3] == metadata.num_rows
    assert found[6].decode() == metadata.created_by
    assert [group[3] for group in found[4]] == [2, 1]
    for number, group in enumerate(found[4]):
        for place, chunk in enumerate(group[1]):
            column = metadata.row_group(number).column(place)
            assert chunk[3][3] == [column.path_in_schema.encode()]
            assert chunk[3][7] == column.total_compressed_size
            assert chunk[3][9] == column.data_page_offset


def test_every_cut_is_refused(footer):
    data, _ = footer
    for cut in range(len(data)):
        with pytest.raises(FormatError):
            read_struct(data[:cut])
    assert read_struct(data + b"more") == read_struct(data)


@pytest.mark.parametrize(
    ("data", "fields"),
    [
        ("00", {}),
        ("11 12 00", {1: True, 2: False}),
        ("13 ff 00", {1: 255}),
        ("14 01 15 02 16 03 00", {1: -1, 2: 1, 3: -2}),
        ("16 ff ff ff ff ff ff ff ff ff 01 00", {1: -(2**63)}),
        ("17 00 00 00 00 00 00 e0 3f 00", {1: bytes.fromhex("000000000000e03f")}),
        ("18 03 61 62 63 00", {1: b"abc"}),
        ("19 21 01 02 1a 15 04 00", {1: [1, 2], 2: [2]}),
        ("19 f5 10" + " 02" * 16 + " 00", {1: [1] * 16}),
        ("1c 1c 00 00 2c 00 00", {1: {1: {}}, 3: {}}),
        ("05 c8 01 02 15 04 00", {100: 1, 101: 2}),
    ],
)
def test_values(data, fields):
    assert read_struct(bytes.fromhex(data)) == fields


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("", "beyond"),
        ("15", "beyond"),
        ("1b 01 55 02 02 00", "type 11"),  # a map, which no footer has
        ("1d 00", "type 13"),
        ("15 00 05 02 00 00", "twice"),
        ("18 7f 61 00", "longer"),
        ("17 00 00", "longer"),
        ("19 f5 ff ff ff ff 0f 00", "longer"),
        ("15" + " ff" * 10 + " 01 00", "too long"),
        ("1c" * 20 + "00" * 21, "too deep"),
        ("19" + "19" * 20 + "00" * 30, "too deep"),
    ],
)
def test_what_is_none(data, reason):
    with pytest.raises(FormatError, match=reason):
        read_struct(bytes.fromhex(data))


@given(st.binary(max_size=200))
def test_other_bytes_are_a_format_error_or_a_struct(data):
    try:
        assert isinstance(read_struct(data), dict)
    except FormatError:
        pass
