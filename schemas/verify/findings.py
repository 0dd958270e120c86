"""What verification can say: findings, and the verdict and exit code they add up to.

Verdicts and exit codes: verified 0, tampered 1, incomplete 2, deleted by policy 3. Of several the
gravest wins, tampered before incomplete before deleted. Nothing verified is incomplete, never 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

MAX_FINDINGS: Final = 10_000


class Verdict:
    """The four verdicts."""

    VERIFIED: Final = "verified"
    TAMPERED: Final = "tampered"
    INCOMPLETE: Final = "incomplete"
    DELETED: Final = "deleted"


EXIT_CODES: Final = {
    Verdict.VERIFIED: 0,
    Verdict.TAMPERED: 1,
    Verdict.INCOMPLETE: 2,
    Verdict.DELETED: 3,
}
_GRAVITY: Final = (Verdict.TAMPERED, Verdict.INCOMPLETE, Verdict.DELETED)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong or missing.

    Attributes:
        verdict: what this finding by itself means.
        layer: where it was found: `object`, `manifest`, `chain`, `ledger`, `frame`, `tree`,
            `checkpoint`, `certificate`, `session`, `payload` or `facts`.
        object: the object's key, or the store that was looked at.
        session: the session's id in hex, or None.
        seq: the frame, or None.
        reason: what is wrong, in words.
    """

    verdict: str
    layer: str
    object: str
    session: str | None
    seq: int | None
    reason: str
    epoch: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the finding as programs read it."""
        return {
            "layer": self.layer,
            "object": self.object,
            "session": self.session,
            "epoch": self.epoch,
            "seq": self.seq,
            "reason": self.reason,
            "verdict": self.verdict,
        }


@dataclass(slots=True)
class Report:
    """Findings and counts of one run; `notes` are true statements that are no findings."""

    sessions: int = 0
    frames: int = 0
    payload_bytes: int = 0
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    suppressed: int = 0

    def tampered(
        self,
        layer: str,
        thing: str,
        reason: str,
        *,
        session: bytes | None = None,
        epoch: int | None = None,
        seq: int | None = None,
    ) -> None:
        """Record something that cannot be unless somebody changed it."""
        self._add(Verdict.TAMPERED, layer, thing, reason, session, epoch, seq)

    def incomplete(
        self,
        layer: str,
        thing: str,
        reason: str,
        *,
        session: bytes | None = None,
        epoch: int | None = None,
        seq: int | None = None,
    ) -> None:
        """Record something that is missing or not yet there."""
        self._add(Verdict.INCOMPLETE, layer, thing, reason, session, epoch, seq)

    def _add(
        self,
        verdict: str,
        layer: str,
        thing: str,
        reason: str,
        session: bytes | None,
        epoch: int | None,
        seq: int | None,
    ) -> None:
        finding = Finding(
            verdict, layer, thing, session.hex() if session else None, seq, reason, epoch
        )
        self._keep(finding)

    def _keep(self, finding: Finding) -> None:
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(finding)
        else:
            # A store full of damage must not fill the memory; the verdict is settled long before.
            self.suppressed += 1

    def merge(self, part: Report) -> None:
        """Take over the findings, counts and notes of a part that was verified by itself."""
        self.sessions += part.sessions
        self.frames += part.frames
        self.payload_bytes += part.payload_bytes
        self.suppressed += part.suppressed
        for finding in part.findings:
            self._keep(finding)
        for note in part.notes:
            self.note(note)

    def note(self, text: str) -> None:
        """Add a statement for the reader, once."""
        if text not in self.notes:
            self.notes.append(text)

    @property
    def verdict(self) -> str:
        """The verdict of everything looked at."""
        found = {finding.verdict for finding in self.findings}
        for verdict in _GRAVITY:
            if verdict in found:
                return verdict
        return Verdict.VERIFIED if self.sessions else Verdict.INCOMPLETE

    @property
    def exit_code(self) -> int:
        """The exit code of `sealtape verify`."""
        return EXIT_CODES[self.verdict]

    def to_json(self) -> dict[str, Any]:
        """Return the report as programs read it."""
        return {
            "verdict": self.verdict,
            "sessions": self.sessions,
            "frames": self.frames,
            "bytes": self.payload_bytes,
            "findings": [finding.to_json() for finding in self.findings],
            "suppressed": self.suppressed,
            "notes": self.notes,
        }
