"""What a witness is asked, when it cosigns, and what it answers: C2SP tlog-witness.

    old 256
    VnQwAQGAjJawsusbRIYV+xyYZQslg7Z5HPTHZJGKgj0=

    example.org/log/1
    300
    JrMFtGYT2swoXiJf8CTSJiXzRsxtANIdftEzHwZ6mLw=

    — example.org/log/1 chw/wuls9i…

It answers with its cosignature lines, or refuses with a status that says why. The rule itself,
`grown`, is that of whoever signs for a log, too: never two trees of which one is no prefix of the
other.

All values here are immutable and safe in any thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from sealtape.schemas import notes
from sealtape.schemas.canonical import base64_bytes, base64_text, decimal_int
from sealtape.schemas.cosignatures import cosigned_at
from sealtape.schemas.errors import FormatError, Refused, SignatureError
from sealtape.schemas.tree import EMPTY_ROOT, HASH_SIZE, verify_consistency

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sealtape.schemas.cosignatures import Cosigner, MlDsaCosigner

MAX_REQUEST: Final = 1 << 16
MAX_ANSWER: Final = 1 << 16
MAX_PROOF: Final = 63
TEXT: Final = "text/plain; charset=utf-8"
SIZE: Final = "text/x.tlog.size"
"""The media type of an answer that tells the size that the witness has seen."""

_OLD: Final = "old "


class Refusal(Refused):
    """A witness does not cosign; `status` and `body` are its answer."""

    status: ClassVar[int] = 403
    word: ClassVar[str] = "refused"
    kind: ClassVar[str] = TEXT

    def __init__(self, message: str, *, hint: str = "") -> None:
        """Say what was wrong with the request."""
        reason, code = self.word, str(self.status)
        super().__init__(message, reason=reason, protocol_code=code, hint=hint)

    @property
    def body(self) -> bytes:
        """The answer's body: a stable word, then a sentence."""
        return f"{self.word}: {self.message}\n".encode()


class Malformed(Refusal):
    """The request does not follow the protocol."""

    status, word = 400, "malformed"


class UnknownLog(Refusal):
    """The witness does not follow that log."""

    status, word = 404, "unknown-log"


class Untrusted(Refusal):
    """No key that the witness trusts for the log signed, or such a signature does not verify."""

    status, word = 403, "untrusted"


class NotAdmitted(Refusal):
    """The checkpoint is consistent, but what it commits to breaks a rule of this witness."""

    status, word = 403, "not-admitted"


class Behind(Refusal):
    """The old size is not what the witness has seen; it tells what that is."""

    status, word, kind = 409, "old-size", SIZE

    def __init__(self, message: str, size: int, *, hint: str = "") -> None:
        """Keep the size that was seen last."""
        super().__init__(message, hint=hint)
        self.size = size

    @property
    def body(self) -> bytes:
        """The size in decimal."""
        return b"%d\n" % self.size


class Conflict(Behind):
    """The log signed two roots of the same size: a fork."""

    word = "conflict"


class Inconsistent(Refusal):
    """The proof does not show that the tree seen before is a prefix: a fork, or a wrong proof."""

    status, word = 422, "inconsistent"


@dataclass(frozen=True, slots=True)
class Seen:
    """The largest tree of a log that was seen; of an empty one when nothing was."""

    size: int = 0
    root: bytes = EMPTY_ROOT


@dataclass(frozen=True, slots=True)
class Request:
    """A request to cosign: whose checkpoint, and how it follows from the tree of `old_size`."""

    old_size: int
    proof: tuple[bytes, ...]
    note: bytes
    checkpoint: notes.Checkpoint


@dataclass(frozen=True, slots=True)
class Cosignature:
    """One verified cosignature: by whom, the POSIX second that it states, the line verbatim."""

    name: str
    key_id: bytes
    at: int
    line: str


def encode_request(old_size: int, proof: Sequence[bytes], note: bytes) -> bytes:
    """Write a request's body; FormatError for what could not be read back."""
    lines = [f"{_OLD}{old_size}", *map(base64_text, proof)]
    data = "\n".join(lines).encode() + b"\n\n" + note
    _parse(data)
    return data


def parse_request(data: bytes) -> Request:
    """Take a request's body apart without any trust; raises `Malformed`."""
    try:
        return _parse(data)
    except FormatError as exc:
        raise Malformed(exc.message) from exc


def decide(seen: Seen | None, request: Request, logs: Sequence[notes.NoteVerifier]) -> Seen:
    """Return what the witness has seen when it cosigns; whoever does MUST keep that before.

    Args:
        seen: of the request's log, None for nothing.
        request: what was asked.
        logs: the keys that the witness trusts. A key's name is the log that it signs for.

    Raises `UnknownLog`, `Untrusted`, and what `grown` raises.
    """
    checkpoint = request.checkpoint
    trusted = [key for key in logs if key.name == checkpoint.origin]
    if not trusted:
        raise UnknownLog(f"{checkpoint.origin} is not a log that is followed here")
    try:
        notes.open_note(request.note, trusted)
    except SignatureError as exc:
        raise Untrusted(exc.message) from exc
    return grown(seen, request.old_size, request.proof, checkpoint)


def grown(
    seen: Seen | None, old_size: int, proof: Sequence[bytes], checkpoint: notes.Checkpoint
) -> Seen:
    """Return what is seen now, if the checkpoint's tree has the one seen before as its prefix.

    Raises `Malformed` (smaller than the old size), `Behind` (the old size is another one),
    `Conflict` (as large, and another root) or `Inconsistent`.
    """
    known = seen or Seen()
    origin, size, root = checkpoint.origin, checkpoint.size, checkpoint.root
    if old_size > size:
        raise Malformed(f"old size {old_size} is above the checkpoint's {size}")
    if old_size != known.size:
        raise Behind(f"{origin} was seen at {known.size}, not at {old_size}", known.size)
    if size == known.size and root != known.root:
        raise Conflict(f"{origin} was seen at {size} with another root", known.size)
    try:
        verify_consistency(old_size, known.root, size, proof, root)
    except FormatError as exc:
        raise Inconsistent(f"{origin} from {old_size} to {size}: {exc.message}") from exc
    return Seen(size, root)


def submitted(note: bytes) -> bytes:
    """The checkpoint with the log's own signatures only.

    What others have signed is nothing to a witness, and some read no more than a few kilobytes.
    Raises FormatError: it is no checkpoint, or the log has not signed it.
    """
    parsed = notes.parse_note(note)
    origin = notes.parse_checkpoint(parsed.text).origin
    lines = [
        notes.signature_line(item.name, item.key_id + item.value)
        for item in parsed.unverified
        if item.name == origin
    ]
    if not lines:
        raise FormatError(f"checkpoint of {origin} has no signature by the log")
    return "".join([parsed.text, "\n", *lines]).encode()


def parse_cosignatures(
    body: bytes, text: str, witnesses: Sequence[Cosigner | MlDsaCosigner]
) -> tuple[Cosignature, ...]:
    """Read and verify the lines by which known keys cosigned a checkpoint's `text`.

    Lines of other keys are ignored. Raises FormatError when the body is not signature lines, and
    SignatureError when none is by a known key, or one that is does not verify.
    """
    if len(body) > MAX_ANSWER:
        raise FormatError(f"a witness's answer has at most {MAX_ANSWER} bytes")
    opened = notes.open_note(text.encode() + b"\n" + body, witnesses)
    if opened.text != text:
        raise FormatError("a witness's answer has more than signature lines")
    return tuple(
        Cosignature(
            item.name,
            item.key_id,
            cosigned_at(item),
            notes.signature_line(item.name, item.key_id + item.value),
        )
        for item in opened.verified
    )


def parse_size(body: bytes) -> int:
    """Read the size that a witness tells with status 409; FormatError for anything else."""
    try:
        text = body.decode("ascii")
    except UnicodeDecodeError as exc:
        raise FormatError("a size told by a witness is not ASCII") from exc
    if not text.endswith("\n"):
        raise FormatError("a size told by a witness does not end with a newline")
    return decimal_int(text[:-1], "size told by a witness", 0, notes.MAX_TREE_SIZE)


def _parse(data: bytes) -> Request:
    if len(data) > MAX_REQUEST:
        raise FormatError(f"a request to a witness has at most {MAX_REQUEST} bytes")
    head, gap, note = data.partition(b"\n\n")
    if not gap:
        raise FormatError("a request to a witness has no empty line before its checkpoint")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError as exc:
        raise FormatError("a request's first lines are not ASCII") from exc
    first = lines.pop(0)
    if not first.startswith(_OLD):
        raise FormatError(f"a request to a witness begins with `{_OLD}SIZE`")
    old_size = decimal_int(first.removeprefix(_OLD), "old size", 0, notes.MAX_TREE_SIZE)
    if len(lines) > MAX_PROOF:
        raise FormatError(f"a consistency proof has at most {MAX_PROOF} hashes, not {len(lines)}")
    proof = tuple(base64_bytes(line, "consistency proof") for line in lines)
    if any(len(item) != HASH_SIZE for item in proof):
        raise FormatError(f"a consistency proof has hashes of {HASH_SIZE} bytes")
    return Request(old_size, proof, note, notes.parse_checkpoint(notes.parse_note(note).text))
