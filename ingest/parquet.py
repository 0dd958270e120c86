"""Segments as Parquet: one row per frame, in (session, epoch, seq) order.

The columns rebuild every frame's header and hold its stored payload; `leaf` is kept beside them so
that damage can be told frame by frame. `docs/spec/segments.md` has the rules. Payloads are
ciphertext, so that column is neither compressed nor dictionary-encoded. What the footer's
`sealtape.*` values say describes a lost file to a person; nothing trusts it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from sealtape.ingest.pages import plain_values
from sealtape.ingest.thrift import read_struct
from sealtape.schemas.errors import FormatError
from sealtape.schemas.frames import HEADER, MAGIC, Frame
from sealtape.schemas.verify.columns import Columns

__all__ = [
    "ROW_GROUP_BYTES",
    "ColumnReader",
    "Group",
    "Layout",
    "Pieces",
    "Row",
    "footer_values",
    "read_leaves",
    "read_rows",
    "row_groups",
    "row_of",
    "rows_of",
    "write_segment",
]

ROW_GROUP_BYTES = 4 << 20
FOOTER_PREFIX = "sealtape."
# Fields of Parquet's footer, by their numbers: of FileMetaData, RowGroup, ColumnChunk and
# ColumnMetaData.
_ROW_GROUPS = 4
_COLUMNS, _ROWS = 1, 3
_COLUMN = 3
_STORED_SIZE, _DATA_PAGES, _DICTIONARY_PAGE = 7, 9, 11
_T = TypeVar("_T")


class Row(NamedTuple):
    """One row of a segment, in the order of its columns."""

    session: bytes
    epoch: int
    seq: int
    ts_ns: int
    kind: int
    suite: int
    flags: int
    payload_len: int
    payload_sha256: bytes
    leaf: bytes
    payload: bytes

    def frame(self) -> Frame:
        """The frame without what can be computed from it."""
        return Frame(
            session=self.session,
            epoch=self.epoch,
            seq=self.seq,
            ts_ns=self.ts_ns,
            kind=self.kind,
            suite=self.suite,
            flags=self.flags,
            payload=self.payload,
        )


_FIELDS: list[pa.Field[Any]] = [
    pa.field("session", pa.binary(16), nullable=False),
    pa.field("epoch", pa.uint32(), nullable=False),
    pa.field("seq", pa.int64(), nullable=False),
    pa.field("ts_ns", pa.int64(), nullable=False),
    pa.field("kind", pa.uint8(), nullable=False),
    pa.field("suite", pa.uint8(), nullable=False),
    pa.field("flags", pa.uint16(), nullable=False),
    pa.field("payload_len", pa.uint32(), nullable=False),
    pa.field("payload_sha256", pa.binary(32), nullable=False),
    pa.field("leaf", pa.binary(32), nullable=False),
    pa.field("payload", pa.binary(), nullable=False),
]
_SCHEMA = pa.schema(_FIELDS)
# Random bytes gain nothing from compression or a dictionary and would only cost time.
_RANDOM = {"payload", "payload_sha256", "leaf"}
# The stubs know neither narrower value types nor a list of columns.
_COMPRESSION: dict[str, Any] = {
    name: "none" if name in _RANDOM else "zstd" for name in _SCHEMA.names
}
_DICTIONARY: Any = ["session", "epoch", "kind", "suite", "flags"]


def row_of(frame: Frame) -> Row:
    """Hash a frame once: its payload, then its header. Flags we do not know pass through."""
    payload = frame.payload
    size = len(payload)
    digest = sha256(payload).digest()
    header = HEADER.pack(
        MAGIC,
        frame.session,
        frame.epoch,
        frame.seq,
        frame.ts_ns,
        frame.kind,
        frame.suite,
        frame.flags,
        size,
        digest,
    )
    return Row(
        frame.session,
        frame.epoch,
        frame.seq,
        frame.ts_ns,
        frame.kind,
        frame.suite,
        frame.flags,
        size,
        digest,
        sha256(b"\0" + header).digest(),
        payload,
    )


def row_groups(stretches: Sequence[Sequence[Row]]) -> Iterator[list[Row]]:
    """Cut rows into groups of about `ROW_GROUP_BYTES`, between stretches where possible.

    A stretch is a fragment's rows. One is cut inside only when it alone is larger than a group.
    """
    group: list[Row] = []
    size = 0
    for stretch in stretches:
        length = sum(row.payload_len for row in stretch)
        if group and size + length > ROW_GROUP_BYTES:
            yield group
            group, size = [], 0
        if length <= ROW_GROUP_BYTES:
            group.extend(stretch)
            size += length
            continue
        for row in stretch:
            group.append(row)
            size += row.payload_len
            if size >= ROW_GROUP_BYTES:
                yield group
                group, size = [], 0
    if group:
        yield group


def write_segment(stretches: Sequence[Sequence[Row]], footer: Mapping[str, str]) -> memoryview:
    """The bytes of a segment. `footer` values are stored under `sealtape.<name>`.

    Rows are written in the order given; the caller sorts. Releases the GIL for most of the work:
    call it in a thread.
    """
    sink = pa.BufferOutputStream()
    writer = pq.ParquetWriter(
        sink,
        _SCHEMA,
        version="2.6",
        compression=_COMPRESSION,
        use_dictionary=_DICTIONARY,
        write_statistics=["session", "epoch", "seq", "ts_ns"],
        write_page_index=True,
        write_page_checksum=True,
        store_schema=False,
        sorting_columns=[pq.SortingColumn(index) for index in range(3)],
    )
    with writer:
        for group in row_groups(stretches):
            columns = [
                pa.array(values, field.type)
                for values, field in zip(zip(*group, strict=True), _SCHEMA, strict=True)
            ]
            writer.write_table(
                pa.Table.from_arrays(columns, schema=_SCHEMA), row_group_size=len(group)
            )
        writer.add_key_value_metadata(
            {FOOTER_PREFIX + name: value for name, value in footer.items()}
        )
    return memoryview(sink.getvalue())


def read_rows(
    data: bytes | memoryview, start: int = 0, end: int | None = None
) -> Iterator[tuple[int, Row]]:
    """Rows `[start, end)` with their numbers, decoding only the row groups they lie in.

    Raises `FormatError` for anything that is not a segment with exactly our columns.
    """
    with _readable():
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        _check_schema(file)
        last = file.metadata.num_rows if end is None else min(end, file.metadata.num_rows)
        first = 0
        for index in range(file.metadata.num_row_groups):
            following = first + file.metadata.row_group(index).num_rows
            if first < last and following > start:
                low, high = max(start, first), min(last, following)
                table = file.read_row_group(index).slice(low - first, high - low)
                yield from enumerate(rows_of(table), low)
            first = following


def rows_of(table: pa.Table) -> Iterator[Row]:
    """The rows of a table with all our columns."""
    columns = [column.to_pylist() for column in table.columns]
    return map(Row._make, zip(*columns, strict=True))


class ColumnReader:
    """The rows of a segment column by column, for verification. One thread may use it.

    Page checksums are not looked at: they would refuse a whole row group where the leaf column can
    name the one frame that is damaged. The last group read is kept, as neighbouring fragments
    share it.
    """

    def __init__(self, data: bytes | memoryview) -> None:
        """Read the footer; `data` must stay as it is while this is used. Raises `FormatError`."""
        self._data = memoryview(data)
        with _readable():
            self._file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=False)
            _check_schema(self._file)
            metadata = self._file.metadata
            sizes = [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)]
        self._bounds = list(pairwise(accumulate(sizes, initial=0)))
        self._plain = self._scanned()
        self.at = 0
        """Where in the data the payloads of the rows begin that were read last, if they do."""
        self._kept: tuple[int, Columns] | None = None

    def read(self, start: int, end: int) -> Iterator[Columns]:
        """Rows `[start, end)` by row group; those that the segment lacks are left out.

        Raises `FormatError` at a group that cannot be decoded.
        """
        for number, (first, behind) in enumerate(self._bounds):
            low, high = max(start, first), min(end, behind)
            if low < high:
                yield self._group(number).part(low - first, high - first)

    def _group(self, number: int) -> Columns:
        if self._kept is None or self._kept[0] != number:
            self._kept = None  # its memory serves the next one
            with _readable():
                table = self._table(number, _SCHEMA.names[:-1])
                payloads = self._payloads(number)
                if payloads is None:
                    payloads = _views(_array(self._table(number, ["payload"]), "payload"))
                self._kept = number, _columns(table, payloads)
        return self._kept[1]

    def _table(self, number: int, names: list[str]) -> pa.Table:
        # Threads would cost more than they bring: nearly all of the work is hashing.
        return self._file.read_row_group(number, columns=names, use_threads=False)

    def _scanned(self) -> bool:
        """Whether Arrow can read every payload; walks over their lengths only.

        Where it cannot, what the footer says of the column must not be asked: a codec that does not
        exist would end the process, not raise.
        """
        try:
            return bool(self._file.scan_contents(["payload"]) == self._file.metadata.num_rows)
        except (pa.ArrowException, OSError):
            return False

    def _payloads(self, number: int) -> list[memoryview] | None:
        """The payloads where they lie in the file; None when they are stored in another way."""
        if not self._plain:
            return None
        first, behind = self._bounds[number]
        chunk = self._file.metadata.row_group(number).column(len(_SCHEMA.names) - 1)
        if chunk.compression != "UNCOMPRESSED" or chunk.dictionary_page_offset is not None:
            return None
        start = self.at = chunk.data_page_offset
        return plain_values(self._data, start, start + chunk.total_compressed_size, behind - first)


def _columns(table: pa.Table, payloads: list[memoryview]) -> Columns:
    column = {name: _array(table, name) for name in table.column_names}
    return Columns(
        sessions=_joined(column["session"], 16),
        epochs=_numbers(column["epoch"]),
        seqs=_numbers(column["seq"]),
        times=_numbers(column["ts_ns"]),
        kinds=_joined(column["kind"], 1),
        suites=_joined(column["suite"], 1),
        flags=_numbers(column["flags"]),
        lengths=_numbers(column["payload_len"]),
        digests=_joined(column["payload_sha256"], 32),
        leaves=_joined(column["leaf"], 32),
        payloads=payloads,
    )


def _array(table: pa.Table, name: str) -> pa.Array[Any]:
    chunks: Any = table.column(name)
    array: pa.Array[Any] = chunks.chunk(0) if chunks.num_chunks == 1 else chunks.combine_chunks()
    return array


def _numbers(array: Any) -> list[int]:
    return list(array.to_pylist())


def _joined(array: pa.Array[Any], width: int) -> bytes:
    """The values of a column of fixed width, one after the other."""
    values = array.buffers()[1]
    start, end = array.offset * width, (array.offset + len(array)) * width
    return b"" if values is None else memoryview(values)[start:end].tobytes()


def _views(array: pa.Array[Any]) -> list[memoryview]:
    """The values of a binary column where they lie; they keep its memory."""
    _, offsets, data = array.buffers()
    bounds = memoryview(offsets or b"").cast("i")[array.offset : array.offset + len(array) + 1]
    values = memoryview(data or b"")
    return [values[start:end] for start, end in pairwise(bounds.tolist())]


def read_leaves(data: bytes | memoryview, start: int, end: int) -> list[bytes]:
    """The leaves of rows `[start, end)` alone. Raises `FormatError`."""
    with _readable():
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        _check_schema(file)
        column: Any = file.read(columns=["leaf"]).column(0).slice(start, end - start)
        return list(column.to_pylist())


def _check_schema(file: pq.ParquetFile) -> None:
    found = file.schema_arrow.remove_metadata()
    if not found.equals(_SCHEMA):
        raise FormatError("This Parquet file does not have the columns of a segment.")


def footer_values(data: bytes | memoryview) -> dict[str, str]:
    """The `sealtape.*` values of a segment's footer. Raises `FormatError`."""
    with _readable():
        metadata = pq.read_metadata(pa.BufferReader(data)).metadata or {}
        return {
            key.decode()[len(FOOTER_PREFIX) :]: value.decode()
            for key, value in metadata.items()
            if key.startswith(FOOTER_PREFIX.encode())
        }


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError) as error:
        raise FormatError(f"This is not a readable segment: {error}") from error


# -- in pieces -------------------------------------------------------------------------------------


class Pieces(io.RawIOBase):
    """A file of which only some stretches are here. What is not raises `ValueError`."""

    def __init__(self, size: int, pieces: Mapping[int, bytes]) -> None:
        """Take the file's size, and its pieces by where they begin."""
        super().__init__()
        self._size = size
        self._pieces = sorted(pieces.items())
        self._at = 0

    def readable(self) -> bool:
        """It can be read."""
        return True

    def seekable(self) -> bool:
        """It can be read anywhere."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to an offset from the beginning, from here, or from the end."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1, /) -> bytes:
        """Read on; all of it must lie in one piece."""
        end = self._size if size < 0 else min(self._size, self._at + size)
        for begin, data in self._pieces:
            if begin <= self._at and end <= begin + len(data):
                found = data[self._at - begin : end - begin]
                self._at = max(self._at, end)
                return found
        raise ValueError(f"bytes {self._at} to {end} are not here")


@dataclass(frozen=True, slots=True)
class Group:
    """One row group: its rows `[first, end)`, and where each column's bytes lie."""

    first: int
    end: int
    columns: Mapping[str, tuple[int, int]]

    @property
    def span(self) -> tuple[int, int]:
        """The bytes of all columns, which lie side by side."""
        return min(s for s, _ in self.columns.values()), max(e for _, e in self.columns.values())


class Layout:
    """What the footer of a segment says about where its rows lie. Trusts none of it further."""

    TRAILER = 8
    """Bytes at the end of the file that hold the footer's size."""

    def __init__(self, size: int, tail: bytes) -> None:
        """Read the footer from the last bytes of a file of `size`; raises `FormatError`."""
        with _readable():
            # A footer alone is a file too: nothing in it is followed here.
            footer = tail[-self.tail_size(tail) :]
            file = pq.ParquetFile(pa.BufferReader(b"PAR1" + footer))
            _check_schema(file)
            self._metadata = file.metadata
        self.groups = tuple(self._groups(footer, size))
        self.size = size

    @classmethod
    def tail_size(cls, tail: bytes) -> int:
        """How many of the last bytes hold the footer, from the very last ones."""
        if tail[-4:] != b"PAR1":
            raise FormatError("This is not a readable segment: it does not end as one.")
        return int.from_bytes(tail[-8:-4], "little") + cls.TRAILER

    def within(self, start: int, end: int) -> list[int]:
        """The row groups that rows `[start, end)` lie in, by number."""
        return [
            number
            for number, group in enumerate(self.groups)
            if group.first < end and group.end > start
        ]

    def read(self, number: int, pieces: Mapping[int, bytes], *columns: str) -> pa.Table:
        """Decode a row group, or only some columns, out of pieces; raises `FormatError`."""
        with _readable():
            source = pa.PythonFile(Pieces(self.size, pieces), mode="r")
            file = pq.ParquetFile(source, metadata=self._metadata, page_checksum_verification=True)
            return file.read_row_group(number, columns=list(columns) or None)

    def _groups(self, footer: bytes, size: int) -> Iterator[Group]:
        """Read by ourselves: Arrow ends the process where a footer's statistics are damaged."""
        first = 0
        for group in _fields(read_struct(footer).get(_ROW_GROUPS), list):
            chunks = _fields(_fields(group, dict).get(_COLUMNS), list)
            if len(chunks) != len(_SCHEMA.names):
                raise FormatError("A row group of a segment has all columns.")
            columns = {}
            for name, chunk in zip(_SCHEMA.names, chunks, strict=True):
                columns[name] = _place(_fields(_fields(chunk, dict).get(_COLUMN), dict), size)
            count = _fields(group.get(_ROWS), int)
            if count < 0:
                raise FormatError("A row group of a segment has no rows.")
            yield Group(first, first + count, columns)
            first += count


def _place(column: dict[int, Any], size: int) -> tuple[int, int]:
    """Where the bytes of a column of a group lie."""
    begin = _fields(column.get(_DATA_PAGES), int)
    begin = min(begin, _fields(column.get(_DICTIONARY_PAGE, begin), int))
    end = begin + _fields(column.get(_STORED_SIZE), int)
    if not 0 <= begin < end <= size:
        raise FormatError("A segment's footer points outside of the file.")
    return begin, end


def _fields(value: Any, kind: type[_T]) -> _T:
    """What a footer has at a place, of the type that belongs there."""
    if not isinstance(value, kind):
        raise FormatError("A segment's footer is not one of Parquet.")
    return value
