import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sealtape.ingest import parquet
from sealtape.ingest.parquet import (
    ColumnReader,
    Layout,
    Pieces,
    footer_values,
    read_leaves,
    read_rows,
    row_groups,
    row_of,
    rows_of,
    write_segment,
)
from sealtape.schemas import segments
from sealtape.schemas.errors import FormatError
from sealtape.schemas.frames import Frame
from tests.factories.sessions import build_session

ARROW = {
    "fixed16": pa.binary(16),
    "fixed32": pa.binary(32),
    "uint8": pa.uint8(),
    "uint16": pa.uint16(),
    "uint32": pa.uint32(),
    "int64": pa.int64(),
    "binary": pa.binary(),
}


def stretch(number=0, count=5, size=100):
    session = bytes([number]) * 16
    return [
        row_of(Frame(session, 1, seq, 10**18 + seq, 3, 2, 0, os.urandom(size)))
        for seq in range(count)
    ]


def whole(stretches):
    return [row for rows in stretches for row in rows]


def test_a_row_hashes_a_frame_as_its_header_does():
    for frame in build_session().frames:
        row = row_of(frame)
        assert row.leaf == frame.leaf()
        assert row.payload_sha256 == frame.header()[-32:]
        assert row.payload_len == len(frame.payload)
        assert row.frame() == frame


def test_rows_come_back_as_they_were():
    stretches = [stretch(n, count=n + 1, size=n * 7) for n in range(5)]
    data = write_segment(stretches, {"v": "1", "shard": "frames/0"})
    assert list(read_rows(data)) == list(enumerate(whole(stretches)))
    assert footer_values(data) == {"v": "1", "shard": "frames/0"}


def test_the_largest_values_fit():
    row = row_of(Frame(b"\xff" * 16, 2**32 - 1, 2**63 - 1, -(2**63), 255, 255, 65535, b""))
    data = write_segment([[row]], {})
    assert list(read_rows(data)) == [(0, row)]


def test_the_columns_are_those_of_the_format():
    data = write_segment([stretch()], {})
    schema = pq.ParquetFile(pa.BufferReader(data)).schema_arrow
    assert [(f.name, f.type) for f in schema] == [(n, ARROW[kind]) for n, kind in segments.COLUMNS]
    assert not any(field.nullable for field in schema)


def test_payloads_are_stored_as_they_are_and_pages_are_checked():
    rows = stretch(count=50)
    data = write_segment([rows], {})
    group = pq.read_metadata(pa.BufferReader(data)).row_group(0)
    for index in range(group.num_columns):
        column = group.column(index)
        random = column.path_in_schema in {"payload", "payload_sha256", "leaf"}
        assert column.compression == ("UNCOMPRESSED" if random else "ZSTD")
        assert column.has_offset_index
        assert not (random and column.has_dictionary_page)
    assert all(row.payload in bytes(data) for row in rows)


def test_groups_end_between_stretches_where_they_can(monkeypatch):
    monkeypatch.setattr(parquet, "ROW_GROUP_BYTES", 1000)
    small, large = [stretch(n, count=3, size=100) for n in range(5)], stretch(9, count=25, size=100)
    groups = list(row_groups([*small, large, small[0]]))
    assert [len(group) for group in groups] == [9, 6, 10, 10, 8]
    assert whole(groups) == whole([*small, large, small[0]])
    assert list(row_groups([])) == []


@pytest.mark.parametrize(
    ("start", "end"), [(0, None), (0, 0), (3, 4), (2, 12), (7, 99), (15, None), (99, 100)]
)
def test_a_range_of_rows(monkeypatch, start, end):
    monkeypatch.setattr(parquet, "ROW_GROUP_BYTES", 400)
    rows = stretch(count=15)
    data = write_segment([rows], {})
    assert list(read_rows(data, start, end)) == list(enumerate(rows))[start:end]


def test_a_range_reads_only_its_row_groups(monkeypatch):
    """Another group may be damaged: it is not looked at."""
    monkeypatch.setattr(parquet, "ROW_GROUP_BYTES", 400)
    rows = stretch(count=15)
    data = bytearray(write_segment([rows], {}))
    at = data.index(rows[0].payload)
    data[at] ^= 1
    assert list(read_rows(data, 8, 12)) == list(enumerate(rows))[8:12]
    with pytest.raises(FormatError):
        list(read_rows(data, 0, 3))


def columns(data, start=0, end=99):
    """The same rows out of columns."""
    return [row for part in ColumnReader(data).read(start, end) for row in part.rows()]


@pytest.mark.parametrize(("start", "end"), [(0, 0), (0, 15), (3, 4), (2, 12), (7, 99), (50, 99)])
def test_columns_hold_the_same_rows(monkeypatch, start, end):
    monkeypatch.setattr(parquet, "ROW_GROUP_BYTES", 400)
    rows = stretch(count=15)
    assert columns(write_segment([rows], {}), start, end) == rows[start:end]


def test_columns_of_the_largest_and_of_empty_values():
    row = row_of(Frame(b"\xff" * 16, 2**32 - 1, 2**63 - 1, -(2**63), 255, 255, 65535, b""))
    assert columns(write_segment([[row, row]], {})) == [row, row]
    assert columns(write_segment([], {})) == []


def test_payloads_are_read_where_they_lie():
    data = bytes(write_segment([stretch(count=5)], {}))
    (part,) = ColumnReader(data).read(0, 5)
    assert all(payload.obj is data for payload in part.payloads)


@pytest.mark.parametrize("how", [{"compression": "zstd"}, {"use_dictionary": True}, {}])
def test_columns_that_another_writer_stored_in_his_way(how):
    """Statistics, dictionaries, compression: other pages than ours, with the same rows."""
    rows = stretch(count=15)
    sink = pa.BufferOutputStream()
    pq.write_table(pq.read_table(pa.BufferReader(write_segment([rows], {}))), sink, **how)
    assert columns(sink.getvalue().to_pybytes(), 2, 9) == rows[2:9]


def test_neighbours_read_their_group_once(monkeypatch):
    monkeypatch.setattr(parquet, "ROW_GROUP_BYTES", 400)
    rows = stretch(count=8)
    reader = ColumnReader(write_segment([rows], {}))
    (first,), (second,) = reader.read(0, 2), reader.read(2, 4)
    (other,) = reader.read(4, 6)
    payloads = [part.payloads[0].obj for part in (first, second, other)]
    assert payloads[0] is payloads[1]
    assert [*first.rows(), *second.rows(), *other.rows()] == rows[:6]


def test_a_codec_that_does_not_exist_is_a_format_error():
    """Asked for it, Arrow would end the process."""
    data = bytearray(write_segment([stretch()], {}))
    at = data.rindex(b"payload\x15\x00") + len(b"payload\x15")
    data[at] = 0x1C
    with pytest.raises(FormatError):
        columns(bytes(data))


def test_a_damaged_payload_is_read_for_its_leaf_to_name_it():
    rows = stretch(count=5)
    data = bytearray(write_segment([rows], {}))
    data[data.index(rows[2].payload)] ^= 1
    found = columns(data)
    assert [a == b for a, b in zip(found, rows, strict=True)] == [True, True, False, True, True]


def test_leaves_alone():
    rows = stretch(count=15)
    data = write_segment([rows], {})
    assert read_leaves(data, 3, 9) == [row.leaf for row in rows[3:9]]


@pytest.mark.parametrize(
    "function",
    [lambda d: list(read_rows(d)), footer_values, lambda d: read_leaves(d, 0, 1), columns],
)
def test_other_bytes_are_a_format_error(function):
    data = bytes(write_segment([stretch()], {}))
    for bad in (b"", b"PAR1", data[:-1], data[:100], data[:-8] + b"\xff\xff\xff\x7fPAR1"):
        with pytest.raises(FormatError):
            function(bad)


def test_another_parquet_file_is_a_format_error():
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"session": [1]}), sink)
    for function in (lambda d: list(read_rows(d)), lambda d: read_leaves(d, 0, 1), columns):
        with pytest.raises(FormatError):
            function(sink.getvalue().to_pybytes())


def test_flipped_bits_never_become_another_error():
    data = bytes(write_segment([stretch(count=3, size=20)], {"v": "1"}))
    for position in range(0, len(data), 3):
        bad = bytearray(data)
        bad[position] ^= 0x10
        for function in (lambda d: list(read_rows(d)), columns):
            try:
                function(bad)
            except FormatError:
                pass


class TestPieces:
    def test_what_is_here_is_read(self):
        pieces = Pieces(100, {10: b"0123456789", 90: b"abcdefghij"})
        assert pieces.readable()
        assert pieces.seekable()
        assert pieces.seek(12) == 12
        assert pieces.read(3) == b"234"
        assert pieces.seek(2, os.SEEK_CUR) == 17
        assert pieces.read(3) == b"789"
        assert pieces.tell() == 20
        assert pieces.seek(-4, os.SEEK_END) == 96
        assert pieces.read() == b"ghij"
        assert pieces.read(5) == b""

    @pytest.mark.parametrize(("at", "size"), [(0, 1), (9, 2), (19, 2), (15, -1), (50, 1)])
    def test_what_is_not_here_is_refused(self, at, size):
        pieces = Pieces(100, {10: b"0123456789"})
        pieces.seek(at)
        with pytest.raises(ValueError, match="not here"):
            pieces.read(size)


def test_a_layout_says_where_rows_lie(monkeypatch):
    monkeypatch.setattr(parquet, "ROW_GROUP_BYTES", 400)
    rows = stretch(count=15)
    data = bytes(write_segment([rows], {}))
    layout = Layout(len(data), data[-Layout.tail_size(data) :])
    assert [(group.first, group.end) for group in layout.groups] == [
        (0, 4),
        (4, 8),
        (8, 12),
        (12, 15),
    ]
    assert layout.within(3, 9) == [0, 1, 2]
    assert layout.within(4, 4) == []
    begin, end = layout.groups[1].span
    table = layout.read(1, {begin: data[begin:end]})
    assert list(rows_of(table)) == rows[4:8]
    begin, end = layout.groups[1].columns["kind"]
    assert layout.read(1, {begin: data[begin:end]}, "kind").num_columns == 1
    with pytest.raises(FormatError):
        layout.read(2, {begin: data[begin:end]})


@pytest.mark.parametrize("tail", [b"", b"PAR2", b"\0\0\0\0PAR"])
def test_a_file_that_does_not_end_as_one_has_no_layout(tail):
    with pytest.raises(FormatError, match="does not end"):
        Layout(100, tail)


def test_a_layout_that_points_outside_of_the_file_is_refused():
    data = bytes(write_segment([stretch()], {}))
    tail = data[-Layout.tail_size(data) :]
    with pytest.raises(FormatError, match="outside of the file"):
        Layout(500, tail)


def test_flipped_bytes_of_a_footer_never_become_another_error():
    """Nor end the process: Arrow does, where it is asked for a column's damaged statistics."""
    data = bytes(write_segment([stretch()], {}))
    tail = data[-Layout.tail_size(data) :]
    found = set()
    for at in range(len(tail) - 8):
        for byte in {tail[at] ^ 1, tail[at] ^ 0x10, tail[at] ^ 0x20, 0, 0x19}:
            try:
                Layout(len(data), tail[:at] + bytes([byte]) + tail[at + 1 :])
            except FormatError as error:
                found.add(error.message)
    assert len(found) > 5


def group(count=1, columns=11):
    """The footer of one group, as `read_struct` would give it."""
    return {4: [{1: [{3: {7: 10, 9: 4}}] * columns, 3: count}]}


@pytest.mark.parametrize(
    "footer",
    [
        {},
        {4: 1},
        {4: [1]},
        {4: [{}]},
        {4: [{1: [{3: {7: 10, 9: 4}}] * 11}]},
        {4: [{1: [1] * 11, 3: 1}]},
        {4: [{1: [{3: 1}] * 11, 3: 1}]},
        group(columns=10),
        group(count=-1),
        group(count=b"x"),
        {4: [{1: [{3: {7: 10}}] * 11, 3: 1}]},
    ],
)
def test_footers_that_are_none(monkeypatch, footer):
    data = bytes(write_segment([stretch()], {}))
    tail = data[-Layout.tail_size(data) :]
    monkeypatch.setattr(parquet, "read_struct", lambda _: footer)
    with pytest.raises(FormatError):
        Layout(len(data), tail)


def test_a_column_begins_with_its_dictionary(monkeypatch):
    data = bytes(write_segment([stretch()], {}))
    footer = {4: [{1: [{3: {7: 10, 9: 14, 11: 4}}] * 11, 3: 5}]}
    monkeypatch.setattr(parquet, "read_struct", lambda _: footer)
    (found,) = Layout(len(data), data[-Layout.tail_size(data) :]).groups
    assert (found.first, found.end, found.span) == (0, 5, (4, 14))
