"""A proof that a log has an entry, as one small text file: C2SP tlog-proof.

    c2sp.org/tlog-proof@v1
    index 73894
    gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=
    …

    example.com/log
    109482
    sFodV/vSp5O8n9a8QpW6PRY97tfOSW5bsc2Xl/EQi08=

    — example.com/log hI2DJw…

It has all that is needed offline but the keys, which come from the verifier's own policy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sealtape.schemas.canonical import base64_bytes, base64_text, decimal_int
from sealtape.schemas.errors import FormatError
from sealtape.schemas.notes import MAX_NOTE, MAX_TREE_SIZE, Checkpoint, parse_note
from sealtape.schemas.tree import HASH_SIZE, leaf_hash, verify_inclusion

HEADER: Final = "c2sp.org/tlog-proof@v1"
MAX_PATH: Final = 63
MAX_EXTRA: Final = 65_536


@dataclass(frozen=True, slots=True)
class LogProof:
    """Where an entry is, how it leads to the root, and the signed checkpoint with that root.

    Attributes:
        index: the entry's place in the log, from 0.
        path: the inclusion proof (RFC 6962, 2.1.1).
        note: the checkpoint, verbatim, with the log's and the witnesses' signatures.
        extra: what the format has room for and nothing vouches for.
    """

    index: int
    path: tuple[bytes, ...]
    note: bytes
    extra: bytes | None = None

    def encode(self) -> bytes:
        """Write it; FormatError for what could not be read back."""
        lines = [HEADER]
        if self.extra is not None:
            lines.append(f"extra {base64_text(self.extra)}")
        lines.append(f"index {self.index}")
        lines += [base64_text(item) for item in self.path]
        data = "\n".join(lines).encode() + b"\n\n" + self.note
        parse_proof(data)
        return data

    def check(self, entry: bytes, checkpoint: Checkpoint) -> None:
        """FormatError unless the path leads from `entry` to the checkpoint's root.

        `checkpoint` is what verifying `note` gave: this looks at no signature.
        """
        size, root = checkpoint.size, checkpoint.root
        verify_inclusion(leaf_hash(entry), self.index, size, self.path, root)


def parse_proof(data: bytes) -> LogProof:
    """Take a proof apart without any trust."""
    if len(data) > MAX_NOTE + MAX_EXTRA * 2:
        raise FormatError(f"a proof has at most {MAX_NOTE + MAX_EXTRA * 2} bytes")
    head, gap, note = data.partition(b"\n\n")
    if not gap:
        raise FormatError("a proof has no empty line before its checkpoint")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError as exc:
        raise FormatError("a proof's first lines are not ASCII") from exc
    if lines.pop(0) != HEADER:
        raise FormatError(f"a proof begins with {HEADER}")
    extra = None
    if lines and lines[0].startswith("extra "):
        extra = base64_bytes(lines.pop(0).removeprefix("extra "), "proof extra data")
        if len(extra) > MAX_EXTRA:
            raise FormatError(f"a proof's extra data has at most {MAX_EXTRA} bytes")
    if not lines or not lines[0].startswith("index "):
        raise FormatError("a proof names the entry's index before its path")
    index = decimal_int(lines.pop(0).removeprefix("index "), "proof index", 0, MAX_TREE_SIZE)
    if len(lines) > MAX_PATH:
        raise FormatError(f"a proof's path has at most {MAX_PATH} hashes, not {len(lines)}")
    path = tuple(base64_bytes(line, "proof path") for line in lines)
    if any(len(item) != HASH_SIZE for item in path):
        raise FormatError(f"a proof's path has hashes of {HASH_SIZE} bytes")
    parse_note(note)
    return LogProof(index, path, note, extra)
