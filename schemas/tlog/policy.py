"""Which logs and witnesses count, and how many of them: C2SP tlog-policy.

    log example.org/log+…
    witness office witness.example.org+…
    witness auditor audit.example.com/w+…
    group both all office auditor
    quorum both

The file is the verifier's own. It never comes from what is verified.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sealtape.schemas import notes
from sealtape.schemas.canonical import decimal_int
from sealtape.schemas.cosignatures import (
    AnyVerifier,
    Cosigner,
    MlDsaCosigner,
    cosigned_at,
    verifier_of,
)
from sealtape.schemas.errors import FormatError, SignatureError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

MAX_POLICY: Final = 1 << 20
MAX_NAMED: Final = 256
NONE: Final = "none"

_FORBIDDEN: Final = re.compile(rb"[^\t\n\x20-\x7e\x80-\xff]")


@dataclass(frozen=True, slots=True)
class Log:
    """A log's key. Its name is the origin of the log's checkpoints."""

    verifier: notes.Verifier | MlDsaCosigner
    url: str = ""


@dataclass(frozen=True, slots=True)
class Witness:
    """A witness's key, under the policy's own name for it."""

    name: str
    verifier: Cosigner | MlDsaCosigner
    url: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """`threshold` of `members` must have witnessed; members are witnesses or earlier groups."""

    name: str
    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Witnessed:
    """A checkpoint whose signatures were verified.

    Attributes:
        checkpoint: the log's statement.
        algorithms: the signature types by which the log itself signed it.
        times: POSIX seconds at which each witness, by its name in the policy, cosigned it.
        quorum: whether that is enough. Without it the checkpoint is only *pending*.
    """

    checkpoint: notes.Checkpoint
    algorithms: frozenset[bytes]
    times: Mapping[str, int]
    quorum: bool


@dataclass(frozen=True, slots=True)
class LogPolicy:
    """Known logs and witnesses, and the rule how many are enough; None: no witness is needed."""

    logs: tuple[Log, ...]
    witnesses: tuple[Witness, ...]
    groups: tuple[Group, ...]
    quorum: str | None

    def enough(self, witnessed: Collection[str]) -> bool:
        """Whether these witnesses, by name, make the quorum."""
        if self.quorum is None:
            return True
        seen = {witness.name for witness in self.witnesses if witness.name in witnessed}
        for group in self.groups:
            if sum(member in seen for member in group.members) >= group.threshold:
                seen.add(group.name)
        return self.quorum in seen

    def open(self, note: bytes) -> Witnessed:
        """Verify a checkpoint by this policy's keys; whether there is a quorum is told, not asked.

        Raises FormatError or SignatureError: it is no checkpoint, no known log signed it, or a
        signature by a known key does not verify.
        """
        logs: list[notes.NoteVerifier] = [log.verifier for log in self.logs]
        opened = notes.open_note(note, [*logs, *(item.verifier for item in self.witnesses)])
        checkpoint = notes.parse_checkpoint(opened.text)
        signed = {(item.name, item.key_id): item for item in opened.verified}
        algorithms = frozenset(
            _algorithm(log.verifier)
            for log in self.logs
            if log.verifier.name == checkpoint.origin and _key(log.verifier) in signed
        )
        if not algorithms:
            raise SignatureError(f"no known key of {checkpoint.origin} signed the checkpoint")
        times = {
            witness.name: cosigned_at(signed[_key(witness.verifier)])
            for witness in self.witnesses
            if _key(witness.verifier) in signed
        }
        return Witnessed(checkpoint, algorithms, times, self.enough(times))


def parse_policy(data: bytes) -> LogPolicy:
    """Read a policy file; FormatError names the line that is wrong."""
    if len(data) > MAX_POLICY:
        raise FormatError(f"a policy has at most {MAX_POLICY} bytes")
    if _FORBIDDEN.search(data) is not None:
        raise FormatError("a policy has no control characters but tabs and newlines")
    if not data.endswith(b"\n"):
        raise FormatError("a policy's last line ends with a newline")
    reader = _Reader()
    # Names are octets to the format: what is no UTF-8 is carried along, and equals only itself.
    for number, line in enumerate(data.decode("utf-8", "surrogateescape").split("\n"), 1):
        words = [word for word in re.split("[ \t]+", line) if word]
        if words and not words[0].startswith("#"):
            try:
                reader.take(words[0], words[1:])
            except (FormatError, SignatureError) as exc:
                raise FormatError(f"policy line {number}: {exc.message}") from exc
    return reader.policy()


@dataclass(slots=True)
class _Reader:
    logs: list[Log] = field(default_factory=list)
    witnesses: list[Witness] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    quorums: list[str] = field(default_factory=list)
    members: set[str] = field(default_factory=set)

    def take(self, word: str, rest: Sequence[str]) -> None:
        """One line that says something."""
        if word == "log" and len(rest) in (1, 2):
            self._log(rest[0], *rest[1:])
        elif word == "witness" and len(rest) in (2, 3):
            self._witness(rest[0], rest[1], *rest[2:])
        elif word == "group" and len(rest) > 2:
            self._group(rest[0], rest[1], rest[2:])
        elif word == "quorum" and len(rest) == 1:
            self._quorum(rest[0])
        else:
            raise FormatError(
                "a line is `log VKEY [URL]`, `witness NAME VKEY [URL]`,"
                " `group NAME any|all|K NAME...` or `quorum NAME|none`"
            )
        if max(len(self.logs), len(self.witnesses), len(self.groups)) > MAX_NAMED:
            raise FormatError(f"at most {MAX_NAMED} logs, witnesses and groups are read")

    def policy(self) -> LogPolicy:
        """What was read."""
        if not self.quorums:
            raise FormatError("a policy has one line `quorum NAME`, or `quorum none`")
        quorum = None if self.quorums == [NONE] else self.quorums[0]
        return LogPolicy(tuple(self.logs), tuple(self.witnesses), tuple(self.groups), quorum)

    def _log(self, vkey: str, url: str = "") -> None:
        verifier = verifier_of(vkey)
        if isinstance(verifier, Cosigner):
            raise FormatError("a log's key is of type Ed25519 (1) or ML-DSA-44 (6)")
        _refuse_second(verifier, [log.verifier for log in self.logs])
        self.logs.append(Log(verifier, url))

    def _witness(self, name: str, vkey: str, url: str = "") -> None:
        verifier = verifier_of(vkey)
        if isinstance(verifier, notes.Verifier):
            raise FormatError("a witness's key is of type Ed25519 cosignature (4) or ML-DSA-44 (6)")
        _refuse_second(verifier, [witness.verifier for witness in self.witnesses])
        self._define(name)
        self.witnesses.append(Witness(name, verifier, url))

    def _group(self, name: str, how: str, members: Sequence[str]) -> None:
        count = len(members)
        known = {"any": 1, "all": count}.get(how)
        threshold = decimal_int(how, "threshold", 1, count) if known is None else known
        for member in members:
            if member not in self._named():
                raise FormatError(f"{_shown(member)} is no witness or group of a line above")
            if member in self.members:
                raise FormatError(f"{_shown(member)} is a member already, and can be one only once")
            self.members.add(member)
        self._define(name)
        self.groups.append(Group(name, threshold, tuple(members)))

    def _quorum(self, name: str) -> None:
        if self.quorums:
            raise FormatError("there is a quorum already")
        if name != NONE and name not in self._named():
            raise FormatError(f"{_shown(name)} is no witness or group of a line above")
        self.quorums.append(name)

    def _define(self, name: str) -> None:
        if name == NONE or name in self._named():
            raise FormatError(f"{_shown(name)} is taken")

    def _named(self) -> set[str]:
        return {witness.name for witness in self.witnesses} | {group.name for group in self.groups}


def _refuse_second(verifier: AnyVerifier, known: Sequence[AnyVerifier]) -> None:
    if verifier.public in {other.public for other in known}:
        raise FormatError(f"the key of {verifier.name} is there already")


def _algorithm(verifier: notes.Verifier | MlDsaCosigner) -> bytes:
    return notes.ALGORITHM if isinstance(verifier, notes.Verifier) else verifier.algorithm


def _key(verifier: AnyVerifier) -> tuple[str, bytes]:
    return verifier.name, verifier.key_id


def _shown(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")[:64]
