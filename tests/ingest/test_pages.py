"""The payload column where it lies: the values that Arrow reads, or none at all."""

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealtape.ingest.pages import plain_values

SIZES = [0, 1, 100, 0, 5000, 70_000]


def written(values, **options):
    """A Parquet file of one column, and where its only chunk lies."""
    sink = pa.BufferOutputStream()
    field = pa.field("payload", pa.binary(), nullable=False)
    table = pa.table([pa.array(values, pa.binary())], schema=pa.schema([field]))
    how = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    pq.write_table(table, sink, **{**how, **options})
    data = sink.getvalue().to_pybytes()
    chunk = pq.read_metadata(pa.BufferReader(data)).row_group(0).column(0)
    start = chunk.data_page_offset
    return data, start, start + chunk.total_compressed_size


def read(data, start, end, count):
    found = plain_values(memoryview(data), start, end, count)
    return None if found is None else [bytes(value) for value in found]


@pytest.fixture(scope="module")
def values():
    return [os.urandom(size) for size in SIZES]


@pytest.mark.parametrize("page_size", [1, 100, 1 << 20])
@pytest.mark.parametrize("checksums", [False, True])
def test_values_are_those_that_were_written(values, page_size, checksums):
    options = {"data_page_size": page_size, "write_batch_size": 1, "write_page_checksum": checksums}
    assert read(*written(values, **options), len(values)) == values


def test_no_copy_is_made(values):
    data, start, end = written(values)
    found = plain_values(memoryview(data), start, end, len(values))
    assert all(value.obj is data for value in found)


@pytest.mark.parametrize(
    "options",
    [
        {"use_dictionary": True},
        {"compression": "zstd"},
        {"data_page_version": "2.0"},
        {"write_statistics": True},
        {"column_encoding": "DELTA_BYTE_ARRAY"},
        {"column_encoding": "DELTA_LENGTH_BYTE_ARRAY"},
    ],
    ids=lambda options: next(iter(options.values())),
)
def test_what_is_stored_in_another_way_is_left_to_others(values, options):
    assert read(*written(values * 3, **options), 3 * len(values)) is None


def test_the_number_of_values_must_be_the_groups(values):
    data, start, end = written(values)
    assert read(data, start, end, len(values) - 1) is None
    assert read(data, start, end, len(values) + 1) is None
    assert read(data, start, start, 0) == []


@pytest.mark.parametrize("place", [(-1, 10), (10, 5), (0, 1 << 40)])
def test_a_place_outside_of_the_file(values, place):
    assert read(written(values)[0], *place, 0) is None


def test_every_cut_is_refused():
    values = [b"one", b"", b"three"]
    data, start, end = written(values)
    for cut in range(start + 1, end):
        assert read(data, start, cut, 3) is None
    assert read(data[:end] + b"\0", start, end + 1, 3) is None


@given(st.data())
def test_damage_is_found_or_reads_as_arrow_reads_it(data):
    """So nothing is verified that a reader would see in another way."""
    values = [b"one", b"", b"three", b"twenty-two", b"5"]
    whole, start, end = written(values, write_page_checksum=True)
    at = data.draw(st.integers(start, end - 1))
    bad = bytearray(whole)
    bad[at] ^= data.draw(st.integers(1, 255))
    found = read(bytes(bad), start, end, len(values))
    if found is not None:
        table = pq.read_table(pa.BufferReader(bytes(bad)))
        assert table.column(0).to_pylist() == found


@pytest.mark.parametrize(
    "header",
    [
        # 1 type, 2 size, 3 stored size, 5 {1 values, 2 encoding, 3 and 4 levels}
        "15 00 15 10 15 08 2c 15 02 15 00 15 06 15 06 00 00",  # another stored size
        "15 02 15 08 15 08 2c 15 02 15 00 15 06 15 06 00 00",  # no data page
        "15 00 15 07 15 07 2c 15 02 15 00 15 06 15 06 00 00",  # a size below nothing
        "15 00 15 08 15 08 2c 15 02 15 02 15 06 15 06 00 00",  # another encoding
        "15 00 15 08 15 08 2c 15 02 25 06 15 06 00 00",  # none
        "15 00 15 08 15 08 00",  # no header of a data page
        "15 00 15 08 15 08 2c 15 00 15 00 15 06 15 06 00 00",  # bytes that are no value's
        "15 00 15 08 15 08 2c 15 04 15 00 15 06 15 06 00 00",  # a value beyond the page
        "15 00 15 ff ff ff ff ff 01 15 08 2c 15 02 15 00 15 06 15 06 00 00",  # too long a number
        "15 00 05 02 08 15 08 2c 15 02 15 00 15 06 15 06 00 00",  # a name in its long form
        "15 00 15 08 15 08 2c 2c 15 02 00 15 00 15 06 15 06 00 00",  # a struct inside
        "15 00 15 08 15 08 45 00 15 00 00",  # a field that is not known
        "15 00 15 08 15 08 3c 15 02 15 00 00 00",  # a struct that is not known
    ],
)
def test_other_headers_are_refused(header):
    page = bytes(4)  # one value, empty
    good = bytes.fromhex("15 00 15 08 15 08 2c 15 02 15 00 15 06 15 06 00 00") + page
    assert read(good, 0, len(good), 1) == [b""]
    bad = bytes.fromhex(header) + page
    assert read(bad, 0, len(bad), 1) is None
    twice = bad + good
    assert read(twice, 0, len(twice), 2) is None
