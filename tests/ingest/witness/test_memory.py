"""What a witness keeps: it is there again, verified, and nobody else's."""

import errno
import os
import stat

import pytest

from sealtape.ingest.witness import memory as module
from sealtape.ingest.witness.memory import Memory
from sealtape.schemas.errors import StoreBusy, StoreCorrupt, StoreError, StoreFull
from tests.factories.growing import ORIGIN, GrowingLog

LOG = GrowingLog().grow(9)


@pytest.fixture
def memory(tmp_path):
    memory = Memory(tmp_path / "a" / "state")
    yield memory
    memory.close()


def seen_file(folder):
    (path,) = (folder / "a" / "state" / "seen").iterdir()
    return path


def test_what_is_kept_is_there_again(memory, tmp_path):
    assert memory.recall(ORIGIN, [LOG.verifier]) is None
    for size in (3, 9):
        memory.keep(ORIGIN, LOG.note(size))
        assert memory.recall(ORIGIN, [LOG.verifier]).text == LOG.checkpoint(size).text()
    assert memory.recall("example.org/other", [LOG.verifier]) is None
    memory.close()
    memory.close()
    again = Memory(tmp_path / "a" / "state")
    assert again.recall(ORIGIN, [LOG.verifier]).text == LOG.checkpoint(9).text()
    again.close()


def test_nobody_else_may_read_it(memory, tmp_path):
    memory.keep(ORIGIN, LOG.note())
    memory.convict(ORIGIN, b"x")
    for path in (tmp_path / "a" / "state").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


def test_one_memory_has_one_witness(memory, tmp_path):
    with pytest.raises(StoreBusy, match="Another witness runs on"):
        Memory(tmp_path / "a" / "state")
    memory.close()
    Memory(tmp_path / "a" / "state").close()


@pytest.mark.parametrize(
    "harm",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data.replace(b"\n9\n", b"\n8\n"),
        lambda data: GrowingLog(seed=b"\x09" * 32).grow(9).note(),
        lambda data: GrowingLog("example.org/other").grow(9).note(),
        lambda data: LOG.signer.sign("no\ncheckpoint\n"),
    ],
)
def test_what_was_changed_is_not_believed(memory, tmp_path, harm):
    memory.keep(ORIGIN, LOG.note())
    path = seen_file(tmp_path)
    path.write_bytes(harm(path.read_bytes()))
    keys = [LOG.verifier, GrowingLog("example.org/other").verifier]
    with pytest.raises(StoreCorrupt, match=ORIGIN) as caught:
        memory.recall(ORIGIN, keys)
    assert str(path) in caught.value.message


def test_what_cannot_be_read_is_an_error(memory, tmp_path):
    memory.keep(ORIGIN, LOG.note())
    path = seen_file(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(StoreError):
        memory.recall(ORIGIN, [LOG.verifier])


def test_a_full_disk_leaves_what_was_there(memory, tmp_path, monkeypatch):
    memory.keep(ORIGIN, LOG.note(3))

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for call in ("write", "fdatasync"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, full)
            with pytest.raises(StoreFull):
                memory.keep(ORIGIN, LOG.note(9))
        assert memory.recall(ORIGIN, [LOG.verifier]).text == LOG.checkpoint(3).text()


def test_what_contradicts_is_kept_once_and_not_without_end(memory, monkeypatch):
    monkeypatch.setattr(module, "MAX_REFUSED", 2)
    path = memory.convict(ORIGIN, b"one")
    assert path.read_bytes() == b"one"
    assert memory.convict(ORIGIN, b"one") == path
    assert memory.convict(ORIGIN, b"two") != path
    assert memory.convict(ORIGIN, b"three") is None
    assert memory.convict(ORIGIN, b"one") == path
    assert memory.convict("example.org/other", b"three") is not None


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="Cannot create"):
        Memory(tmp_path / "file" / "state")
