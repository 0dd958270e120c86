"""Frames as they are stored: the record of a fragment, and rows column by column."""

from sealtape.ingest.parquet import row_of
from sealtape.schemas.segments import FragmentRecord
from sealtape.schemas.tree import CompactRange
from sealtape.schemas.verify.columns import Columns


def fragment_of(built, **fields):
    """The record of a whole session as one fragment."""
    covered = CompactRange(0)
    for frame in built.frames:
        covered.append(frame.leaf())
    values = {
        "tenant": "main",
        "class_name": "standard",
        "session": built.session,
        "epoch": 0,
        "lo": 0,
        "hi": len(built.frames),
        "nodes": covered.nodes,
        "rows": (0, len(built.frames)),
        "first_ts_ns": built.frames[0].ts_ns,
        "last_ts_ns": built.frames[-1].ts_ns,
        "bytes": sum(len(frame.payload) for frame in built.frames),
    }
    return FragmentRecord(**values | fields)


def rows_of(built):
    """The rows of a session."""
    return [row_of(frame) for frame in built.frames]


def columns_of(rows):
    """The same rows column by column."""
    return Columns(
        sessions=b"".join(row.session for row in rows),
        epochs=[row.epoch for row in rows],
        seqs=[row.seq for row in rows],
        times=[row.ts_ns for row in rows],
        kinds=bytes(row.kind for row in rows),
        suites=bytes(row.suite for row in rows),
        flags=[row.flags for row in rows],
        lengths=[row.payload_len for row in rows],
        digests=b"".join(row.payload_sha256 for row in rows),
        leaves=b"".join(row.leaf for row in rows),
        payloads=[memoryview(row.payload) for row in rows],
    )
