"""What a monitor keeps, whatever happens to its process or its files."""

import os

import pytest

from sealtape.indexer.monitor.folder import Acknowledged, Found, MonitorFolder, Read, name_of
from sealtape.schemas.errors import StoreCorrupt, StoreError
from sealtape.schemas.verify.violations import Violation

ONE = Violation(1, 7, "chain", "record 3 follows record 1")
TWO = Violation(1, 9, "missing", "number 4 never came")
AGAIN = Violation(1, 9, "missing", "number 4 still never came")
READS = [Read(1, size, bytes([size]) * 32, 100 + size) for size in range(1, 4)]


@pytest.fixture
def folder(tmp_path):
    return MonitorFolder(tmp_path / "state")


def reopened(folder):
    return MonitorFolder(folder.path)


def test_a_new_folder_is_empty_and_private(folder):
    assert folder.rules() == b""
    assert folder.read() == []
    assert folder.found == ()
    assert folder.acknowledged() == []
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert folder.witness == folder.path / "witness"


def test_what_was_read(folder):
    for item in READS:
        folder.add_read(item)
    assert reopened(folder).read() == READS
    folder.keep_rules(b"rules")
    assert (folder.rules(), folder.read()) == (b"rules", [])
    folder.add_read(READS[0])
    assert reopened(folder).read() == READS[:1]
    folder.forget_rules()
    folder.forget_rules()
    assert folder.rules() == b""
    assert folder.read() == READS[:1]


def test_what_was_found_is_kept_once(folder):
    assert folder.add_found([ONE, TWO], 5) == [ONE, TWO]
    assert folder.add_found([TWO, AGAIN, ONE], 6) == []
    other = reopened(folder)
    assert other.found == (Found(ONE, 5), Found(TWO, 5))
    third = Violation(2, 7, "chain", "")
    assert other.add_found([ONE, third], 8) == [third]
    assert reopened(folder).found == (Found(ONE, 5), Found(TWO, 5), Found(third, 8))


def test_what_was_acknowledged(folder):
    folder.add_found([ONE], 5)
    assert folder.unacknowledged() == [ONE]
    assert folder.acknowledge("ann", "a test", 6) == [ONE]
    assert folder.unacknowledged() == []
    assert folder.acknowledge("ann", "again", 7) == []
    folder.add_found([TWO], 8)
    other = reopened(folder)  # as the command does, beside the process
    assert other.acknowledge("bob", "an outage", 9) == [TWO]
    assert folder.unacknowledged() == []
    assert folder.acknowledged() == [
        Acknowledged(6, "ann", "a test", (name_of(ONE),)),
        Acknowledged(9, "bob", "an outage", (name_of(TWO),)),
    ]


@pytest.mark.parametrize("name", ["read.jsonl", "found.jsonl", "acknowledged.jsonl"])
def test_a_line_that_a_crash_left_unfinished_never_counted(folder, name):
    folder.add_found([ONE], 5)
    folder.acknowledge("ann", "a test", 6)
    folder.add_read(READS[0])
    path = folder.path / name
    whole = path.read_bytes()
    for half in (b"{", whole[:-1] if name == "read.jsonl" else b'{"at_ns":'):
        path.write_bytes(whole + half)
        other = reopened(folder)
        assert other.read() == READS[:1]
        assert other.found == (Found(ONE, 5),)
        assert len(other.acknowledged()) == 1
    other.add_read(READS[1])
    other.add_found([TWO], 7)
    other.acknowledge("bob", "an outage", 8)
    last = reopened(folder)
    assert last.read() == READS[:2]
    assert [item.violation for item in last.found] == [ONE, TWO]
    assert [item.by for item in last.acknowledged()] == ["ann", "bob"]


@pytest.mark.parametrize("name", ["found.jsonl", "acknowledged.jsonl"])
def test_a_line_taken_out_or_changed_is_seen(folder, name):
    for at, violation in enumerate((ONE, TWO, Violation(1, 11, "cover", ""))):
        folder.add_found([violation], at)
        folder.acknowledge("ann", f"reason {at}", at)
    path = folder.path / name
    lines = path.read_bytes().splitlines(keepends=True)
    for wrong in (
        [*lines[1:]],
        [lines[0], lines[2]],
        [lines[1], lines[0], lines[2]],
        [lines[0].replace(b'"0"', b'"9"', 1), *lines[1:]],
        [b"poem\n", *lines[1:]],
    ):
        path.write_bytes(b"".join(wrong))
        with pytest.raises(StoreCorrupt, match=r"Line \d of .* was changed"):
            reopened(folder).acknowledged()


def test_a_full_disk_leaves_whole_lines(folder, monkeypatch):
    folder.add_found([ONE], 5)
    write = os.pwrite

    def short(descriptor, data, at):
        write(descriptor, data[:10], at)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", short)
    with pytest.raises(StoreError):
        folder.add_found([TWO], 6)
    monkeypatch.undo()
    assert reopened(folder).found == (Found(ONE, 5),)
    assert folder.add_found([TWO], 7) == [TWO]
    assert reopened(folder).found == (Found(ONE, 5), Found(TWO, 7))


def test_many_short_writes_are_one_line(folder, monkeypatch):
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: write(fd, data[:7], at))
    folder.add_read(READS[0])
    folder.add_read(READS[1])
    assert reopened(folder).read() == READS[:2]


def test_a_folder_that_cannot_be_had(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        MonitorFolder(tmp_path / "file" / "state")
