r"""What a run of verification has seen of a log, kept for the next one: so a rollback shows.

    {"checkpoints":["example.org/log/1\n300\nJrMF…=\n"],"log":"example.org/log","type":"seen","v":1}

The largest witnessed checkpoint of every shard, without signatures: the file is the verifier's own,
like his policy, and is worth what the disk is worth that it lies on. Page: docs/spec/seen.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sealtape.schemas import canonical, notes
from sealtape.schemas.canonical import Json
from sealtape.schemas.errors import FormatError
from sealtape.schemas.notes import Checkpoint, parse_checkpoint

MAX_SHARDS = 1000


@dataclass(frozen=True, slots=True)
class SeenLog:
    """The log's name, and a checkpoint of each shard from the first one on."""

    log: str
    checkpoints: tuple[Checkpoint, ...]

    @classmethod
    def of(cls, log: str, checkpoints: Iterable[Checkpoint]) -> SeenLog:
        """Of what was verified; FormatError when shards are missing or of another log."""
        found = cls(log, tuple(checkpoints))
        notes.check_key_name(log)
        if len(found.checkpoints) > MAX_SHARDS:
            raise FormatError(f"A log has at most {MAX_SHARDS} shards.")
        for number, checkpoint in enumerate(found.checkpoints, 1):
            if checkpoint.origin != f"{log}/{number}":
                raise FormatError(f"The checkpoint of {checkpoint.origin} stands in another place.")
        return found

    def of_shard(self, number: int) -> Checkpoint | None:
        """The checkpoint of a shard, if one was seen."""
        return self.checkpoints[number - 1] if number <= len(self.checkpoints) else None

    def to_json(self) -> bytes:
        """Write it, with a newline behind it."""
        texts: list[Json] = [checkpoint.text() for checkpoint in self.checkpoints]
        value: dict[str, Json] = {
            "v": 1, "type": "seen", "log": self.log, "checkpoints": texts,
        }  # fmt: skip
        return canonical.encode(value) + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> SeenLog:
        """Read what `to_json` wrote; FormatError for anything else."""
        if not data.endswith(b"\n"):
            raise FormatError("The state of an earlier run does not end with a newline.")
        fields = canonical.fields(data[:-1], "state of an earlier run")
        fields.version(1)
        fields.text("type", choices=("seen",))
        found = cls.of(
            fields.text("log", max_bytes=255),
            [parse_checkpoint(text) for text in fields.texts("checkpoints", max_items=MAX_SHARDS)],
        )
        fields.end()
        return found
