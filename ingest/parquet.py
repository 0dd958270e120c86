"""Segments as Parquet: one row per frame, in (session, epoch, seq) order.

The columns rebuild every frame's header and hold its stored payload; `leaf` is kept beside them so
that damage can be told frame by frame. `docs/spec/segments.md` has the rules. Payloads are
ciphertext, so that column is neither compressed nor dictionary-encoded. What the footer's
`sealtape.*` values say describes a lost file to a person; nothing trusts it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from sealtape.schemas.errors import FormatError
from sealtape.schemas.frames import HEADER, MAGIC, Frame

__all__ = ["ROW_GROUP_BYTES", "Row", "read_rows", "row_groups", "row_of", "write_segment"]

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
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=page_checksums)
        _check_schema(file)
        last = file.metadata.num_rows if end is None else min(end, file.metadata.num_rows)
        first = 0
        for index in range(file.metadata.num_row_groups):
            following = first + file.metadata.row_group(index).num_rows
            if first < last and following > start:
                low, high = max(start, first), min(last, following)
                table = file.read_row_group(index).slice(low - first, high - low)
                columns = [column.to_pylist() for column in table.columns]
                yield from enumerate(map(Row._make, zip(*columns, strict=True)), low)
            first = following
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise FormatError(f"This is not a readable segment: {error}") from error


def read_leaves(data: bytes | memoryview, start: int, end: int) -> list[bytes]:
    """The leaves of rows `[start, end)` alone. Raises `FormatError`."""
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        _check_schema(file)
        column: Any = file.read(columns=["leaf"]).column(0).slice(start, end - start)
        return list(column.to_pylist())
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise FormatError(f"This is not a readable segment: {error}") from error


def _check_schema(file: pq.ParquetFile) -> None:
    found = file.schema_arrow.remove_metadata()
    if not found.equals(_SCHEMA):
        raise FormatError("This Parquet file does not have the columns of a segment.")


def footer_values(data: bytes | memoryview) -> dict[str, str]:
    """The `sealtape.*` values of a segment's footer. Raises `FormatError`."""
    try:
        metadata = pq.read_metadata(pa.BufferReader(data)).metadata or {}
        return {
            key.decode()[len(FOOTER_PREFIX) :]: value.decode()
            for key, value in metadata.items()
            if key.startswith(FOOTER_PREFIX.encode())
        }
    except (pa.ArrowException, OSError, ValueError) as error:
        raise FormatError(f"This is not a readable segment: {error}") from error
