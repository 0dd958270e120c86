"""What a monitor keeps: how far it has read, what it found, and what was acknowledged of that.

::

    DIR/rules.json            the rules' state after some checkpoint, with a digest
    DIR/read.jsonl            checkpoints that were read since, and when
    DIR/found.jsonl           every violation, when it was found
    DIR/acknowledged.jsonl    violations that somebody has acknowledged, with the reason
    DIR/witness/              what the witness in it has seen

The `.jsonl` files only grow, but for `read.jsonl`, which begins anew with each `rules.json`. In the
last two every line names the SHA-256 of the line before it, so none can be taken out unnoticed by
whoever has a later copy.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final, TypeAlias

from sealtape.capture.files import (
    DIRECTORY_MODE,
    FILE_MODE,
    locked,
    mapped,
    sync_directory,
    write_atomic,
)
from sealtape.schemas import canonical
from sealtape.schemas.canonical import Fields, Json
from sealtape.schemas.errors import FormatError, StoreCorrupt
from sealtape.schemas.notes import MAX_TREE_SIZE
from sealtape.schemas.tree import HASH_SIZE
from sealtape.schemas.verify.violations import Violation

__all__ = ["Acknowledged", "Found", "MonitorFolder", "Name", "Read", "name_of"]

Name: TypeAlias = tuple[int, int, str]
"""What a violation is known by: shard, index, rule. Its reason may tell how long it has lasted."""

WITNESS: Final = "witness"
_RULES: Final = "rules.json"
_READ: Final = "read.jsonl"
_FOUND: Final = "found.jsonl"
_ACKNOWLEDGED: Final = "acknowledged.jsonl"
_FIRST: Final = bytes(HASH_SIZE)
_MAX_TEXT: Final = 4096


def name_of(violation: Violation) -> Name:
    """What a violation is known by."""
    return violation.number, violation.index, violation.rule


@dataclass(frozen=True, slots=True)
class Read:
    """A checkpoint over entries that were read; it was witnessed at that time."""

    number: int
    size: int
    root: bytes
    at_ns: int


@dataclass(frozen=True, slots=True)
class Found:
    """A violation, and when it was found."""

    violation: Violation
    at_ns: int


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Violations that somebody has acknowledged: when, who, why."""

    at_ns: int
    by: str
    reason: str
    names: tuple[Name, ...]


class MonitorFolder:
    """The folder of one monitor, made where there is none. Its methods block.

    Raises `StoreCorrupt` for files that were changed, and `StoreError`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with mapped("create", path):
            path.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        sync_directory(path.parent)
        self._sizes: dict[str, int] = {}
        self._last = _FIRST
        self._found = list(self._read_found())

    @property
    def witness(self) -> Path:
        """Where the witness keeps what it has seen."""
        return self.path / WITNESS

    # -- how far it has read -----------------------------------------------------------------------

    def rules(self) -> bytes:
        """The rules' last kept state; empty when there is none."""
        with mapped("read", self.path / _RULES):
            try:
                return (self.path / _RULES).read_bytes()
            except FileNotFoundError:
                return b""

    def keep_rules(self, data: bytes) -> None:
        """Replace the rules' state; what was read up to there need not be remembered."""
        write_atomic(self.path / _RULES, data)
        write_atomic(self.path / _READ, b"")
        self._sizes[_READ] = 0

    def forget_rules(self) -> None:
        """The rules' state is of no more use; when checkpoints were read still is."""
        with mapped("remove", self.path / _RULES):
            (self.path / _RULES).unlink(missing_ok=True)
        sync_directory(self.path)

    def read(self) -> list[Read]:
        """The checkpoints that were read since the rules' state was kept."""
        return [_read_of(fields) for fields in self._lines(_READ)]

    def add_read(self, item: Read) -> None:
        """Remember that a checkpoint was read; on the disk when this returns."""
        line: dict[str, Json] = {
            "number": item.number,
            "size": str(item.size),
            "root": item.root.hex(),
            "at_ns": str(item.at_ns),
        }
        self._append(_READ, [canonical.encode(line)])

    # -- what it found -----------------------------------------------------------------------------

    @property
    def found(self) -> tuple[Found, ...]:
        """Every violation that was found, once."""
        return tuple(self._found)

    def add_found(self, violations: Iterable[Violation], at_ns: int) -> list[Violation]:
        """Remember those that were not known; returns them."""
        new, lines, last = self.unknown(violations), [], self._last
        for violation in new:
            line = {"at_ns": str(at_ns), "prev": last.hex(), **violation.members()}
            lines.append(canonical.encode(line))
            last = sha256(lines[-1]).digest()
        self._append(_FOUND, lines)
        self._last = last
        self._found += [Found(violation, at_ns) for violation in new]
        return new

    def unknown(self, violations: Iterable[Violation]) -> list[Violation]:
        """Those that are not among what was found, each once."""
        known = {name_of(item.violation) for item in self._found}
        new = []
        for violation in violations:
            if name_of(violation) not in known:
                known.add(name_of(violation))
                new.append(violation)
        return new

    def _read_found(self) -> Iterator[Found]:
        for fields, digest in self._chained(_FOUND):
            at_ns = fields.time_ns("at_ns")
            yield Found(Violation.read(fields), at_ns)
            self._last = digest

    # -- what was acknowledged ---------------------------------------------------------------------

    def acknowledged(self) -> list[Acknowledged]:
        """Read anew each time: another process may add to it."""
        return [_acknowledged(fields) for fields, _ in self._chained(_ACKNOWLEDGED)]

    def reasons(self) -> dict[Name, str]:
        """What was acknowledged: by whom, and why."""
        return {
            name: f"{item.by}: {item.reason}" for item in self.acknowledged() for name in item.names
        }

    def unacknowledged(self) -> list[Violation]:
        """What was found and not acknowledged."""
        names = {name for item in self.acknowledged() for name in item.names}
        return [item.violation for item in self._found if name_of(item.violation) not in names]

    def acknowledge(self, by: str, reason: str, at_ns: int) -> list[Violation]:
        """Acknowledge all that was found so far and was not yet; returns that."""
        with locked(self.path / _ACKNOWLEDGED):
            violations = self.unacknowledged()
            if violations:
                last = [_FIRST, *(digest for _, digest in self._chained(_ACKNOWLEDGED))][-1]
                line: Mapping[str, Json] = {
                    "at_ns": str(at_ns),
                    "by": by,
                    "reason": reason,
                    "prev": last.hex(),
                    "violations": [item.members() for item in violations],
                }
                self._append(_ACKNOWLEDGED, [canonical.encode(line)])
        return violations

    # -- lines -------------------------------------------------------------------------------------

    def _chained(self, name: str) -> Iterator[tuple[Fields, bytes]]:
        """The lines of a file, each with its own hash, that name the one before them."""
        last = _FIRST
        for number, line in enumerate(self._raw(name), 1):
            fields = self._fields(name, number, line)
            if fields.hex("prev", HASH_SIZE) != last:
                raise self._corrupt(name, number, "it does not name the line before it")
            last = sha256(line).digest()
            yield fields, last

    def _lines(self, name: str) -> Iterator[Fields]:
        for number, line in enumerate(self._raw(name), 1):
            yield self._fields(name, number, line)

    def _raw(self, name: str) -> list[bytes]:
        """Whole lines: one that a crash left unfinished never counted."""
        path = self.path / name
        with mapped("read", path):
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                return []
        return data.split(b"\n")[:-1]

    def _fields(self, name: str, number: int, line: bytes) -> Fields:
        try:
            return canonical.fields(line, name)
        except FormatError as exc:
            raise self._corrupt(name, number, exc.message) from exc

    def _append(self, name: str, lines: list[bytes]) -> None:
        """Append whole lines behind the last whole one; on the disk when this returns."""
        if not lines:
            return
        path = self.path / name
        with mapped("write to", path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
            try:
                whole = self._sizes.get(name)
                if whole is None:
                    whole = sum(len(line) + 1 for line in self._raw(name))
                os.ftruncate(descriptor, whole)
                data = b"".join(line + b"\n" for line in lines)
                at = whole
                while at < whole + len(data):
                    at += os.pwrite(descriptor, data[at - whole :], at)
                os.fsync(descriptor)
                if name != _ACKNOWLEDGED:  # others may write that one
                    self._sizes[name] = at
            finally:
                os.close(descriptor)
        sync_directory(self.path)

    def _corrupt(self, name: str, number: int, why: str) -> StoreCorrupt:
        return StoreCorrupt(
            f"Line {number} of {self.path / name} was changed: {why}.",
            hint="Restore the file from your copy; what it says is part of the evidence.",
        )


def _read_of(fields: Fields) -> Read:
    found = Read(
        fields.integer("number", 1),
        fields.decimal("size", 0, MAX_TREE_SIZE),
        fields.hex("root", HASH_SIZE),
        fields.time_ns("at_ns"),
    )
    fields.end()
    return found


def _acknowledged(fields: Fields) -> Acknowledged:
    names = tuple(name_of(Violation.read(item)) for item in fields.objects("violations"))
    found = Acknowledged(
        fields.time_ns("at_ns"),
        fields.text("by", max_bytes=_MAX_TEXT),
        fields.text("reason", max_bytes=_MAX_TEXT),
        names,
    )
    fields.end()
    return found
