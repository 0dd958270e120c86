import errno
import fcntl
import os

import pytest

from sealtape.capture.files import (
    AppendFile,
    create_file,
    locked,
    mapped,
    open_file,
    sync_directory,
    write_atomic,
)
from sealtape.schemas.errors import StoreError, StoreFull


def test_pieces_are_appended_in_order_also_more_than_one_call_takes(tmp_path):
    path = tmp_path / "f"
    file = create_file(path)
    pieces = [b"%d," % n for n in range(3000)]
    file.write(pieces)
    file.sync()
    assert file.size == len(b"".join(pieces))
    file.close()
    file.close()
    again = open_file(path)
    again.write([b"", b"end"])
    again.truncate(again.size - 1)
    assert again.refresh() == again.size
    again.close()
    assert path.read_bytes() == b"".join(pieces) + b"en"


def test_a_short_write_is_continued(tmp_path, monkeypatch):
    import os

    real = os.writev
    monkeypatch.setattr(os, "writev", lambda fd, pieces: real(fd, [b"".join(pieces)[:3]]))
    file = AppendFile(tmp_path / "f", create=True)
    file.write([b"ab", b"cdef", b"g"])
    file.close()
    assert (tmp_path / "f").read_bytes() == b"abcdefg"


def test_an_existing_file_is_never_created_over(tmp_path):
    create_file(tmp_path / "f").close()
    with pytest.raises(StoreError):
        create_file(tmp_path / "f")
    with pytest.raises(StoreError):
        open_file(tmp_path / "none")


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, StoreFull), (errno.EDQUOT, StoreFull), (errno.EIO, StoreError)],
)
def test_errors_of_the_system_become_store_errors(number, kind):
    with pytest.raises(kind) as caught, mapped("write", "somewhere"):
        raise OSError(number, "no luck")
    assert type(caught.value) is kind
    assert "Cannot write somewhere: no luck." in str(caught.value)


def test_a_closed_file_fails_as_a_store(tmp_path):
    file = create_file(tmp_path / "f")
    file.close()
    with pytest.raises(StoreError):
        file.write([b"x"])


def test_an_atomic_write_that_fails_leaves_no_draft(tmp_path, monkeypatch):
    """On a full disk each attempt would take what room comes free."""
    write_atomic(tmp_path / "f", b"one")
    real = os.write

    def write(fd, data):
        if len(data) < 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data[:10])

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(StoreFull):
        write_atomic(tmp_path / "f", bytes(15))
    assert (tmp_path / "f").read_bytes() == b"one"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_atomic_writes_leave_no_draft(tmp_path):
    write_atomic(tmp_path / "f", b"one")
    write_atomic(tmp_path / "f", b"two" * 10000)
    assert (tmp_path / "f").read_bytes() == b"two" * 10000
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o600


def test_a_directory_that_is_none_cannot_be_synced(tmp_path):
    sync_directory(tmp_path)
    with pytest.raises(StoreError):
        sync_directory(tmp_path / "none")


def test_a_lock_is_one_process_s_at_a_time(tmp_path):
    path = tmp_path / "lock"
    with locked(path):
        other = os.open(path, os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(StoreError, match="Cannot lock"), locked(tmp_path / "no/lock"):
        pass
