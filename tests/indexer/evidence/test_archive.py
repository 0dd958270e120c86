"""Bundles written to a file: the same bytes as in memory."""

import io

import pytest

from sealtape.indexer.evidence.archive import BundleWriter
from sealtape.schemas import archive
from sealtape.schemas.bundle import pack_bundle
from sealtape.schemas.errors import FormatError

FILES = {"README.txt": b"read me", "frames/0.bin": b"abc" * 1000, "frames/1.bin": b""}


def test_the_same_as_in_memory(tmp_path):
    writer = BundleWriter(tmp_path)
    writer.add("README.txt", FILES["README.txt"])
    large = writer.spool("frames/0.bin")
    for _ in range(1000):
        large.write(b"abc")
    writer.spool("frames/1.bin")
    out = io.BytesIO()
    assert writer.write(out) == len(out.getvalue())
    assert out.getvalue() == pack_bundle(FILES)
    writer.close()
    assert list(tmp_path.iterdir()) == []


def test_nothing_stays_when_it_is_given_up(tmp_path):
    writer = BundleWriter(tmp_path)
    large = writer.spool("frames/0.bin")
    large.write(b"abc")
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        large.write(b"abc")
    assert list(tmp_path.iterdir()) == []


def test_what_no_verifier_reads_is_not_written(tmp_path, monkeypatch):
    out = io.BytesIO()
    writer = BundleWriter(tmp_path)
    writer.add("bundle.json", b"x" * 1025)
    with pytest.raises(FormatError, match="at most 1024"):
        writer.write(out)
    writer = BundleWriter(tmp_path)
    writer.spool("frames/0.txt")
    with pytest.raises(FormatError, match="no bundle has a file"):
        writer.write(out)
    writer.close()
    monkeypatch.setattr(archive, "MAX_FILES", 1)
    writer = BundleWriter(tmp_path)
    writer.add("README.txt", b"")
    with pytest.raises(FormatError, match="2 files"):
        writer.write(out)
    assert out.getvalue() == b""
