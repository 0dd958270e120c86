"""The evidence bundle: which files it has, how each is written, how it is read.

Reading takes a bundle apart without any trust; `schemas/verify/bundle.py` judges it. Everything
malformed is a FormatError that names the file in its context. Rules: docs/spec/bundle.md.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, NamedTuple

from sealtape.schemas import archive, canonical, notes
from sealtape.schemas.canonical import base64_bytes, base64_text, decimal_int
from sealtape.schemas.cosignatures import ML_DSA_44_SIGNATURE_SIZE
from sealtape.schemas.errors import FormatError
from sealtape.schemas.frames import (
    HEADER,
    HEADER_SIZE,
    MAGIC,
    MAX_PAYLOAD,
    MAX_SEQ,
    SESSION_SIZE,
    parse_header,
)
from sealtape.schemas.tlog.tiles import MAX_ENTRY
from sealtape.schemas.tree import HASH_SIZE, node_hash
from sealtape.schemas.tree import leaf_hash as entry_hash

README: Final = "README.txt"
SUMS: Final = "SHA256SUMS"
ABOUT: Final = "bundle.json"
INCLUSION: Final = "inclusion"
WITHHELD: Final = 0xFFFF_FFFF
MAX_ENTRIES: Final = 50_000
KEY_SIZE: Final = 32

_MAX_I64: Final = 2**63 - 1
_MAX_U32: Final = 2**32 - 1
_MIB: Final = 1 << 20
_LINE: Final = re.compile(r"(?:[ -~]+\n)*", re.ASCII)
_SUFFIXES: Final = {  # what follows the number, the largest size, and the range of the number
    "checkpoints": (r"(|\.mldsa|\.consistency)", _MIB, 1, _MAX_I64),
    "timestamps": (r"/([a-z0-9][a-z0-9_-]{0,62})\.(?:tsr|pem)", _MIB, 1, _MAX_I64),
    "entries": (r"(\.json)", MAX_ENTRY, 0, _MAX_I64),
    "fragments": (r"(\.jsonl|\.paths)", 256 * _MIB, 0, _MAX_U32),
    "frames": (r"(\.bin)", _MAX_I64, 0, _MAX_U32),
    "keys": (r"(\.jsonl)", 1024 * _MIB, 0, _MAX_U32),
}
_NAME: Final = {
    folder: re.compile(rf"{folder}/(0|[1-9][0-9]{{0,18}}){form}", re.ASCII)
    for folder, (form, *_) in _SUFFIXES.items()
}
_SINGLE: Final = {README: 1 << 16, SUMS: 16 * _MIB, ABOUT: 1024, INCLUSION: 16 * _MIB}
_ML_DSA_LINE: Final = notes.KEY_ID_SIZE + 8 + ML_DSA_44_SIGNATURE_SIZE


# -- names -----------------------------------------------------------------------------------------


def checkpoint_name(size: int) -> str:
    """The file of a checkpoint's note; `.mldsa` and `.consistency` lie beside it."""
    return f"checkpoints/{size}"


def timestamp_name(size: int, authority: str, suffix: str) -> str:
    """The file of a time-stamp (`tsr`) or of its chain (`pem`)."""
    return f"timestamps/{size}/{authority}.{suffix}"


def entry_name(index: int) -> str:
    """The file of an entry of the log."""
    return f"entries/{index}.json"


def fragments_name(epoch: int, suffix: str = "jsonl") -> str:
    """The file of an epoch's fragment records, or of their `paths`."""
    return f"fragments/{epoch}.{suffix}"


def frames_name(epoch: int) -> str:
    """The file of an epoch's frames."""
    return f"frames/{epoch}.bin"


def keys_name(epoch: int) -> str:
    """The file of an epoch's disclosed keys."""
    return f"keys/{epoch}.jsonl"


# -- the whole -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle taken apart: its files are where they may be, and nothing of them is verified.

    Attributes:
        session: whose evidence it says it is.
        size: names the checkpoint that everything is proven under.
        files: contents by name.
        entries: contents by index in the log.
        checkpoints: sizes, ascending; `size` among them.
        timestamps: (size, authority), sorted.
        epochs: numbers for which there are fragments, frames or keys, sorted.
    """

    session: bytes
    size: int
    files: Mapping[str, memoryview]
    entries: Mapping[int, bytes]
    checkpoints: tuple[int, ...]
    timestamps: tuple[tuple[int, str], ...]
    epochs: tuple[int, ...]

    def bytes_of(self, name: str) -> bytes | None:
        """A file's content, None where there is none."""
        found = self.files.get(name)
        return None if found is None else bytes(found)


def open_bundle(data: bytes | memoryview) -> Bundle:
    """Take a bundle apart: the ZIP file, its names and sizes, the sums, what it says of itself."""
    files = archive.unpack(data)
    numbers: dict[str, set[int]] = {folder: set() for folder in _SUFFIXES}
    stamps: set[tuple[int, str]] = set()
    for name, content in files.items():
        folder, number, rest = _place(name, len(content))
        numbers.setdefault(folder, set()).add(number)
        if folder == "timestamps":
            stamps.add((number, rest))
    session, size = _about(files)
    _complete(files, size, stamps)
    _check_sums(files)
    return Bundle(
        session,
        size,
        files,
        {index: bytes(files[entry_name(index)]) for index in sorted(numbers["entries"])},
        tuple(sorted(numbers["checkpoints"])),
        tuple(sorted(stamps)),
        tuple(sorted(numbers["fragments"] | numbers["frames"] | numbers["keys"])),
    )


def pack_bundle(files: Mapping[str, bytes]) -> bytes:
    """The bundle of these files; its sums are made here."""
    digests = {name: sha256(content).hexdigest() for name, content in files.items()}
    return archive.pack({**files, SUMS: encode_sums(digests)})


def check_file(name: str, size: int) -> None:
    """Raise FormatError for a file that no bundle has, or that is larger than is read."""
    _place(name, size)


def encode_about(session: bytes, size: int) -> bytes:
    """`bundle.json`."""
    return canonical.encode(
        {"v": 1, "type": "bundle", "session": session.hex(), "checkpoint": str(size)}
    )


def encode_sums(digests: Mapping[str, str]) -> bytes:
    """`SHA256SUMS`, of the digests in hex of all other files by name."""
    return "".join(f"{digests[name]}  {name}\n" for name in sorted(digests)).encode("ascii")


def _place(name: str, size: int) -> tuple[str, int, str]:
    """The file's folder, number, and what names it besides; a single file is its own folder."""
    found = (name, 0, "")
    limit = _SINGLE.get(name)
    if limit is None:
        folder = name.partition("/")[0]
        match = _NAME[folder].fullmatch(name) if folder in _NAME else None
        _, limit, low, high = _SUFFIXES[folder] if match else ("", 0, 0, -1)
        found = (folder, int(match[1]), match[2]) if match else found
        if not low <= found[1] <= high:
            raise FormatError(f"no bundle has a file {name[:64]!r}", file=name)
    if size > limit:
        raise FormatError(f"{name} has {size} bytes; at most {limit} are read", file=name)
    return found


def _about(files: Mapping[str, memoryview]) -> tuple[bytes, int]:
    if ABOUT not in files:
        raise FormatError(f"a bundle has a file {ABOUT}", file=ABOUT)
    try:
        fields = canonical.fields(bytes(files[ABOUT]), ABOUT)
        fields.version(1)
        fields.text("type", choices=("bundle",))
        session = fields.hex("session", SESSION_SIZE)
        size = fields.decimal("checkpoint", 1, _MAX_I64)
        fields.end()
    except FormatError as exc:
        raise FormatError(exc.message, file=ABOUT) from exc
    return session, size


def _complete(files: Mapping[str, memoryview], size: int, stamps: set[tuple[int, str]]) -> None:
    wanted = [README, SUMS, INCLUSION, entry_name(0), checkpoint_name(size)]
    for name in files:
        stem, _, suffix = name.rpartition(".")
        if name.startswith("checkpoints/") and suffix in ("mldsa", "consistency"):
            wanted.append(stem)
        elif name.startswith("fragments/"):
            wanted.append(f"{stem}.{'paths' if suffix == 'jsonl' else 'jsonl'}")
    for at, authority in stamps:
        wanted.append(checkpoint_name(at))
        wanted += [timestamp_name(at, authority, suffix) for suffix in ("tsr", "pem")]
    for name in wanted:
        if name not in files:
            raise FormatError(f"{name} is missing", file=name)


def _check_sums(files: Mapping[str, memoryview]) -> None:
    digests = {name: sha256(files[name]).hexdigest() for name in files if name != SUMS}
    given = bytes(files[SUMS])
    if given == encode_sums(digests):
        return
    stated = dict(line.split("  ", 1)[::-1] for line in _texts(given) if "  " in line)
    for name, digest in digests.items():
        if stated.get(name) != digest:
            raise FormatError(f"{name} is not the file that {SUMS} names", file=name)
    raise FormatError(f"{SUMS} is not what the other files give", file=SUMS)


def _texts(data: bytes) -> list[str]:
    return data.decode("ascii", "replace").split("\n")


# -- checkpoints -----------------------------------------------------------------------------------


def split_note(note: bytes) -> tuple[bytes, bytes]:
    """A note without its ML-DSA-44 lines, and the file of these; together they give it again."""
    text, lines = _signature_lines(note)
    rest = [line for line in lines if not _is_ml_dsa(line)]
    apart = [f"{at} {line}\n" for at, line in enumerate(lines) if _is_ml_dsa(line)]
    if not rest:
        raise FormatError("a checkpoint has a signature that is not of ML-DSA-44")
    return (text + "".join(f"{line}\n" for line in rest)).encode(), "".join(apart).encode()


def whole_note(note: bytes, apart: bytes | None) -> bytes:
    """The note that `split_note` took apart; FormatError for parts that it would not make."""
    text, lines = _signature_lines(note)
    if any(_is_ml_dsa(line) for line in lines):
        raise FormatError("a checkpoint's ML-DSA-44 lines stand in a file of their own")
    before = -1
    for item in _ml_dsa_lines(apart):
        place, _, line = item.partition(" ")
        at = decimal_int(place, "place of a signature", before + 1, len(lines))
        if not _is_ml_dsa(line):
            raise FormatError("a line that is not of ML-DSA-44 stands among those that are")
        lines.insert(at, line)
        before = at
    whole = (text + "".join(f"{line}\n" for line in lines)).encode()
    notes.parse_note(whole)
    return whole


def _ml_dsa_lines(apart: bytes | None) -> list[str]:
    if apart is None:
        return []
    try:
        text = apart.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise FormatError("the ML-DSA-44 lines are not UTF-8") from exc
    if not text.endswith("\n"):
        raise FormatError("the ML-DSA-44 lines end with a newline")
    return text[:-1].split("\n")


def _signature_lines(note: bytes) -> tuple[str, list[str]]:
    """Text with the empty line behind it, and the lines below, without their ends."""
    text = notes.parse_note(note).text + "\n"
    return text, note.decode()[len(text) : -1].split("\n")


def _is_ml_dsa(line: str) -> bool:
    encoded = line.rpartition(" ")[2]
    return len(encoded) == -(-_ML_DSA_LINE // 3) * 4 and len(base64_bytes(encoded, "line")) == (
        _ML_DSA_LINE
    )


# -- lines of hashes, the proof of all entries -----------------------------------------------------


def encode_hashes(hashes: Iterable[bytes]) -> bytes:
    """A text of lines, a hash in each."""
    return "".join(base64_text(item) + "\n" for item in hashes).encode()


def parse_hashes(data: bytes, what: str) -> tuple[bytes, ...]:
    """Read a text of lines with a hash in each."""
    return tuple(_hash(line, what) for line in _lines(data, what))


def _hash(text: str, what: str) -> bytes:
    found = base64_bytes(text, what)
    if len(found) != HASH_SIZE:
        raise FormatError(f"{what} has a hash of {len(found)} bytes, not {HASH_SIZE}")
    return found


def _lines(data: bytes, what: str) -> list[str]:
    text = data.decode("ascii", "replace")
    if not data.isascii() or _LINE.fullmatch(text) is None:
        raise FormatError(f"{what} must be lines of ASCII, each ended by a newline")
    return text.split("\n")[:-1]


def parts_without(size: int, indexes: Iterable[int]) -> list[tuple[int, int]]:
    """The ranges [lo, hi) of the log's leaves whose roots `inclusion` has, in its order."""
    wanted = sorted(indexes)
    if not wanted or not 0 <= wanted[0] <= wanted[-1] < size:
        raise FormatError(f"the entries must be some of the {size} of the log")
    parts: list[tuple[int, int]] = []
    stack = [(0, size)]
    while stack:
        lo, hi = stack.pop()
        place = bisect_left(wanted, lo)
        if place == len(wanted) or wanted[place] >= hi:
            parts.append((lo, hi))
        elif hi - lo > 1:
            middle = lo + (1 << (hi - lo - 1).bit_length() - 1)
            stack += [(middle, hi), (lo, middle)]
    return parts


def inclusion_root(size: int, entries: Mapping[int, bytes], hashes: Sequence[bytes]) -> bytes:
    """The root that the entries and the hashes of `inclusion` give."""
    parts = parts_without(size, entries)
    if len(parts) != len(hashes):
        raise FormatError(f"{INCLUSION} has {len(hashes)} hashes, it needs {len(parts)}")
    given = dict(zip(parts, hashes, strict=True))

    def root(lo: int, hi: int) -> bytes:
        found = given.get((lo, hi))
        if found is not None:
            return found
        if hi - lo == 1:
            return entry_hash(entries[lo])
        middle = lo + (1 << (hi - lo - 1).bit_length() - 1)
        return node_hash(root(lo, middle), root(middle, hi))

    return root(0, size)


# -- fragments -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FragmentPath:
    """Where a fragment record is sealed: the segment's entry, its place there, and the proof."""

    entry: int
    place: int
    path: tuple[bytes, ...]

    def line(self) -> str:
        """The line of the file."""
        return " ".join([str(self.entry), str(self.place), *map(base64_text, self.path)]) + "\n"


def parse_paths(data: bytes) -> tuple[FragmentPath, ...]:
    """Read the paths of an epoch's fragments."""
    found = []
    for line in _lines(data, "paths"):
        entry, *rest = line.split(" ")
        if not rest:
            raise FormatError("a path names the segment's entry and the fragment's place")
        found.append(
            FragmentPath(
                decimal_int(entry, "path's entry", 0, _MAX_I64),
                decimal_int(rest[0], "path's place", 0, _MAX_U32),
                tuple(_hash(item, "path") for item in rest[1:]),
            )
        )
    return tuple(found)


def record_lines(data: bytes) -> list[bytes]:
    """The lines of a file of records, of which there is at least one."""
    if not data.endswith(b"\n"):
        raise FormatError("records stand one to a line, each ended by a newline")
    return data[:-1].split(b"\n")


# -- frames ----------------------------------------------------------------------------------------


class BundledFrame(NamedTuple):
    """A frame: its header's 84 bytes and fields, and the payload, None where it is withheld."""

    raw: bytes
    session: bytes
    epoch: int
    seq: int
    ts_ns: int
    kind: int
    suite: int
    flags: int
    payload_len: int
    payload_sha256: bytes
    payload: memoryview | None


class FrameReader:
    """Reads the frames of an epoch in their order."""

    def __init__(self, data: memoryview) -> None:
        """Begin with the first."""
        self._data = data
        self._at = 0

    @property
    def next_seq(self) -> int | None:
        """The `seq` in the header that comes next, None at the end. Nothing of it is checked."""
        if self._at >= len(self._data):
            return None
        return int.from_bytes(self._data[self._at + 28 : self._at + 36], "big")

    def read(self) -> BundledFrame:
        """The next frame; FormatError where there is none, or half of one."""
        data, at = self._data, self._at
        begin = at + HEADER_SIZE + 4
        if begin > len(data):
            raise FormatError("the frames end inside a frame")
        raw = bytes(data[at : begin - 4])
        magic, session, epoch, seq, ts_ns, kind, suite, flags, length, digest = HEADER.unpack(raw)
        if magic != MAGIC or seq > MAX_SEQ or length > MAX_PAYLOAD:
            parse_header(raw)  # which says what is wrong
        size = int.from_bytes(data[begin - 4 : begin], "big")
        end = begin if size == WITHHELD else begin + size
        if size not in (WITHHELD, length):
            raise FormatError(f"the payload has {size} bytes, not {length}")
        if end > len(data):
            raise FormatError("the frames end inside a payload")
        self._at = end
        payload = None if size == WITHHELD else data[begin:end]
        return BundledFrame(
            raw, session, epoch, seq, ts_ns, kind, suite, flags, length, digest, payload
        )


def encode_frame(header: bytes, payload: bytes | None) -> bytes:
    """A frame as the file has it; without payload, it is withheld."""
    if payload is None:
        return header + WITHHELD.to_bytes(4, "big")
    return header + len(payload).to_bytes(4, "big") + payload


# -- keys ------------------------------------------------------------------------------------------


def encode_key(seq: int, key: bytes) -> bytes:
    """The line of one frame's key."""
    return canonical.encode({"seq": str(seq), "key": key.hex()}) + b"\n"


def parse_keys(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The keys of an epoch, in ascending order of `seq`."""
    before, at = -1, 0
    while not at or at < len(data):
        end = data.find(b"\n", at)
        if end < 0:
            raise FormatError("keys stand one to a line, each ended by a newline")
        fields = canonical.fields(data[at:end], "key")
        seq = fields.decimal("seq", before + 1, _MAX_I64)
        key = fields.hex("key", KEY_SIZE)
        fields.end()
        yield seq, key
        before, at = seq, end + 1
