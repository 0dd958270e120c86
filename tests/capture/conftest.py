import errno
import os
import threading

import pytest

from sealtape.capture.files import AppendFile, mapped


class Disk:
    """The file layer over a disk with so much room, whose syncs or writes can be told to fail.

    A sync waits while `goes` is not set.
    """

    def __init__(self, room=1 << 40):
        self.room = room
        self.syncs = 0
        self.fail_sync = False
        self.fail_write = False
        self.strange = False
        self.goes = threading.Event()
        self.goes.set()

    def create(self, path):
        if self.room <= 0:
            with mapped("open", path):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return DiskFile(self, path, create=True)

    def reopen(self, path):
        return DiskFile(self, path, create=False)


class DiskFile(AppendFile):
    def __init__(self, disk, path, *, create):
        super().__init__(path, create=create)
        self.disk = disk

    def write(self, pieces):
        with mapped("write to", self.path):
            if self.disk.fail_write:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        if self.disk.strange:
            raise ValueError("nobody foresaw this")
        data = b"".join(pieces)
        taken = data[: max(self.disk.room, 0)]
        self.disk.room -= len(taken)
        super().write([taken])
        if len(taken) < len(data):
            with mapped("write to", self.path):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def truncate(self, size):
        self.disk.room += self.size - size
        super().truncate(size)

    def sync(self):
        self.disk.syncs += 1
        self.disk.goes.wait(30)
        with mapped("sync", self.path):
            if self.disk.fail_sync:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync()


@pytest.fixture
def failing_files():
    return Disk
