"""Writing a bundle to a file: small files from memory, frames through a file beside it."""

from __future__ import annotations

import shutil
import tempfile
import zlib
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from sealtape.schemas import archive
from sealtape.schemas.archive import Member
from sealtape.schemas.bundle import SUMS, check_file, encode_sums
from sealtape.schemas.errors import FormatError

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

_PIECE: Final = 1 << 20


@dataclass(slots=True)
class Spooled:
    """A file of the bundle that may be large: written once, then copied to its place."""

    file: IO[bytes]
    size: int = 0
    crc: int = 0
    _sha: Hash = field(default_factory=sha256)

    def write(self, data: bytes) -> None:
        """Append."""
        self.file.write(data)
        self.size += len(data)
        self.crc = zlib.crc32(data, self.crc)
        self._sha.update(data)

    @property
    def digest(self) -> str:
        """SHA-256 of what was written."""
        return self._sha.hexdigest()


class BundleWriter:
    """Collects a bundle's files and writes them in their one order."""

    def __init__(self, folder: Path) -> None:
        """Large files wait in `folder`, which has room for the bundle twice."""
        self._folder = folder
        self._files: dict[str, bytes | Spooled] = {}

    def add(self, name: str, data: bytes) -> None:
        """Add a small file."""
        self._files[name] = data

    def spool(self, name: str) -> Spooled:
        """Add a file that is written piece by piece."""
        spooled = Spooled(tempfile.TemporaryFile(dir=self._folder))  # noqa: SIM115 - closed in write
        self._files[name] = spooled
        return spooled

    def close(self) -> None:
        """Let go of what waits."""
        for content in self._files.values():
            if isinstance(content, Spooled):
                content.file.close()

    def _check(self) -> None:
        if len(self._files) > archive.MAX_FILES:
            raise FormatError(f"{len(self._files)} files; at most {archive.MAX_FILES} are read")
        for name, content in self._files.items():
            check_file(name, content.size if isinstance(content, Spooled) else len(content))

    def write(self, out: IO[bytes]) -> int:
        """Write the bundle; returns its size. FormatError for what no verifier would read."""
        digests = {
            name: content.digest if isinstance(content, Spooled) else sha256(content).hexdigest()
            for name, content in self._files.items()
        }
        self._files[SUMS] = encode_sums(digests)
        self._check()
        members: list[Member] = []
        offset = 0
        for name in sorted(self._files):
            content = self._files[name]
            if isinstance(content, Spooled):
                member = Member(name, content.size, content.crc, offset)
            else:
                member = Member(name, len(content), zlib.crc32(content), offset)
            header = archive.local_header(member)
            out.write(header)
            if isinstance(content, Spooled):
                content.file.seek(0)
                shutil.copyfileobj(content.file, out, _PIECE)
            else:
                out.write(content)
            members.append(member)
            offset += len(header) + member.size
        end = archive.ending(members, offset)
        out.write(end)
        return offset + len(end)
