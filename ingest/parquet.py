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
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from sealtape.schemas.errors import FormatError
from sealtape.schemas.frames import HEADER, MAGIC, Frame

__all__ = [
    "ROW_GROUP_BYTES",
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
    data: bytes | memoryview, start: int = 0, end: int | None = None, *, page_checksums: bool = True
) -> Iterator[tuple[int, Row]]:
    """Rows `[start, end)` with their numbers, decoding only the row groups they lie in.

    Verification reads without `page_checksums`, which would refuse a whole row group where the
    leaf column can name the one frame that is damaged.

    Raises `FormatError` for anything that is not a segment with exactly our columns.
    """
    with _readable():
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=page_checksums)
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
            footer = b"PAR1" + tail[-self.tail_size(tail) :]
            file = pq.ParquetFile(pa.BufferReader(footer))
            _check_schema(file)
            self._metadata = file.metadata
            self.groups = tuple(self._groups(size))
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

    def _groups(self, size: int) -> Iterator[Group]:
        metadata, first = self._metadata, 0
        for index in range(metadata.num_row_groups):
            group = metadata.row_group(index)
            if group.num_columns != len(_SCHEMA.names):
                raise FormatError("A row group of a segment has all columns.")
            columns = {}
            for place, name in enumerate(_SCHEMA.names):
                chunk = group.column(place)
                pages = chunk.data_page_offset, chunk.dictionary_page_offset
                begin = min(offset for offset in pages if offset is not None)
                end = begin + chunk.total_compressed_size
                if not 0 <= begin < end <= size:
                    raise FormatError("A segment's footer points outside of the file.")
                columns[name] = (begin, end)
            yield Group(first, first + group.num_rows, columns)
            first += group.num_rows
