"""`sealtape capture` whose spool is on a full disk while a file exists:

python full_disk.py FILE -c CONFIG --json

Half of what is written while the disk is full fits, as on a real one.
"""

import errno
import os
import sys
from pathlib import Path

from sealtape.capture import files
from sealtape.capture.__main__ import main


def install(full):
    """Let the file layer fail below a folder named `spool` while `full` exists."""
    write = files.AppendFile.write

    def failing(self, pieces):
        if "spool" not in self.path.parts or not full.exists():
            write(self, pieces)
            return
        data = b"".join(pieces)
        write(self, [data[: len(data) // 2]])
        error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise files.store_error(error, "write to", self.path)

    files.AppendFile.write = failing


if __name__ == "__main__":
    install(Path(sys.argv.pop(1)))
    sys.exit(main(sys.argv[1:]))
