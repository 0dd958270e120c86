"""The report on a bundle: steps with their state, findings, times, and the verdict they give.

Steps come in the order of docs/spec/bundle.md. A step that nobody got to is NOT CHECKED; the
verdict is `verified` only when the last one was reached.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from sealtape.schemas.notes import Checkpoint
from sealtape.schemas.verify.findings import EXIT_CODES, MAX_FINDINGS, Verdict

STEPS: Final = {
    "form": "the file is a bundle, byte for byte",
    "checkpoint": "a known log signed the checkpoint",
    "witnesses": "enough witnesses cosigned it",
    "ml-dsa": "the log signed it with ML-DSA-44 too",
    "monitor": "a monitor checked what all entries mean",
    "consistency": "earlier checkpoints are beginnings of it",
    "timestamps": "authorities stamped checkpoints with a time",
    "inclusion": "the log has these entries",
    "records": "the entries are well-formed and of this session",
    "keys": "keys were introduced, and no revocation is left out",
    "seals": "every epoch was opened, sealed once, and closed",
    "fragments": "the sealed fragments are those of the log",
    "frames": "the frames are those that were sealed",
    "certificate": "a known node signed each OPEN",
    "signatures": "the session's own keys signed its frames",
    "epochs": "ends and continuations agree",
    "times": "when each fragment existed at the latest",
    "lifecycle": "holds and deletions",
    "payloads": "disclosed keys open the payloads",
}
"""What each step shows, by its name."""


class State:
    """What became of a step."""

    PASS: Final = "PASS"
    FAIL: Final = "FAIL"
    NOT_PROVIDED: Final = "NOT PROVIDED"
    NOT_CHECKED: Final = "NOT CHECKED"


@dataclass(frozen=True, slots=True)
class BundleFinding:
    """One thing that is wrong or missing.

    Attributes:
        verdict: what this finding by itself means.
        step: the step that found it, one of STEPS.
        object: the file of the bundle, or what else was looked at.
        reason: what is wrong, in words.
        epoch: of the session, or None.
        frames: the first frame it is about, and the one behind the last; or None.
    """

    verdict: str
    step: str
    object: str
    reason: str
    epoch: int | None = None
    frames: tuple[int, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the finding as programs read it."""
        return {
            "verdict": self.verdict,
            "step": self.step,
            "object": self.object,
            "reason": self.reason,
            "epoch": self.epoch,
            "frames": None if self.frames is None else list(self.frames),
        }


@dataclass(frozen=True, slots=True)
class Span:
    """Frames [lo, hi) of an epoch that are `attested` by the node alone, `withheld` or `absent`."""

    what: str
    epoch: int
    lo: int
    hi: int

    def to_json(self) -> dict[str, Any]:
        """Return the span as programs read it."""
        return {"what": self.what, "epoch": self.epoch, "frames": [self.lo, self.hi]}


@dataclass(frozen=True, slots=True)
class Bounds:
    """When the frames [lo, hi) of an epoch were made: between two times, None where unknown."""

    epoch: int
    lo: int
    hi: int
    not_before_ns: int | None
    not_after_ns: int | None

    def to_json(self) -> dict[str, Any]:
        """Return the bounds as programs read them."""
        before, after = self.not_before_ns, self.not_after_ns
        return {
            "epoch": self.epoch,
            "frames": [self.lo, self.hi],
            "not_before_ns": None if before is None else str(before),
            "not_after_ns": None if after is None else str(after),
        }


@dataclass(slots=True)
class BundleReport:
    """What was found of a bundle under a policy.

    `stamps` are the times that authorities state, `accuracies` how far off each may be, in ns; 0
    where it states nothing. `notes` are true statements that are no findings; `deleted` that the
    session was, by policy.
    """

    policy_sha256: bytes = b""
    session: bytes = b""
    checkpoint: Checkpoint | None = None
    witnesses: dict[str, int] = field(default_factory=dict)
    stamps: dict[str, int] = field(default_factory=dict)
    accuracies: dict[str, int] = field(default_factory=dict)
    epochs: int = 0
    frames: int = 0
    payload_bytes: int = 0
    states: dict[str, str] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)
    findings: list[BundleFinding] = field(default_factory=list)
    suppressed: int = 0
    spans: list[Span] = field(default_factory=list)
    bounds: list[Bounds] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    deleted: bool = False

    def passed(self, step: str, detail: str = "") -> None:
        """A step was gone through; it passes unless something is found, now or before."""
        self.states.setdefault(step, State.PASS)
        if detail:
            self.details[step] = detail

    def not_provided(self, step: str, detail: str) -> None:
        """The bundle has nothing for a step."""
        self._unless_failed(step, State.NOT_PROVIDED, detail)

    def not_checked(self, step: str, detail: str) -> None:
        """This program does not look at what a step is about."""
        self._unless_failed(step, State.NOT_CHECKED, detail)

    def _unless_failed(self, step: str, state: str, detail: str) -> None:
        if self.states.get(step) != State.FAIL:
            self.states[step] = state
            self.details[step] = detail

    def tampered(
        self,
        step: str,
        thing: str,
        reason: str,
        *,
        epoch: int | None = None,
        frames: tuple[int, int] | None = None,
    ) -> None:
        """Record something that cannot be unless somebody changed it."""
        self._add(BundleFinding(Verdict.TAMPERED, step, thing, reason, epoch, frames))

    def incomplete(
        self,
        step: str,
        thing: str,
        reason: str,
        *,
        epoch: int | None = None,
        frames: tuple[int, int] | None = None,
    ) -> None:
        """Record something that is missing or not yet there."""
        self._add(BundleFinding(Verdict.INCOMPLETE, step, thing, reason, epoch, frames))

    def _add(self, finding: BundleFinding) -> None:
        self.states[finding.step] = State.FAIL
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(finding)
        else:
            self.suppressed += 1

    def note(self, text: str) -> None:
        """Add a statement for the reader, once."""
        if text not in self.notes:
            self.notes.append(text)

    def state(self, step: str) -> str:
        """What became of a step."""
        return self.states.get(step, State.NOT_CHECKED)

    @property
    def verdict(self) -> str:
        """The verdict on the bundle."""
        found = {finding.verdict for finding in self.findings}
        for verdict in (Verdict.TAMPERED, Verdict.INCOMPLETE):
            if verdict in found:
                return verdict
        if list(STEPS)[-1] not in self.states:
            return Verdict.INCOMPLETE
        return Verdict.DELETED if self.deleted else Verdict.VERIFIED

    @property
    def exit_code(self) -> int:
        """The exit code of `sealtape verify`."""
        return EXIT_CODES[self.verdict]

    def to_json(self) -> dict[str, Any]:
        """Return the report as programs read it."""
        top = self.checkpoint
        return {
            "verdict": self.verdict,
            "policy_sha256": self.policy_sha256.hex(),
            "session": self.session.hex(),
            "checkpoint": None
            if top is None
            else {"origin": top.origin, "size": str(top.size), "root": top.root.hex()},
            "witnesses": {name: str(seconds) for name, seconds in self.witnesses.items()},
            "timestamps": {name: str(time_ns) for name, time_ns in self.stamps.items()},
            "accuracies": {name: str(off_ns) for name, off_ns in self.accuracies.items()},
            "epochs": self.epochs,
            "frames": self.frames,
            "bytes": self.payload_bytes,
            "steps": [
                {"step": step, "state": self.state(step), "detail": self.details.get(step, "")}
                for step in STEPS
            ],
            "findings": [finding.to_json() for finding in self.findings],
            "suppressed": self.suppressed,
            "spans": [span.to_json() for span in self.spans],
            "bounds": [bounds.to_json() for bounds in self.bounds],
            "notes": self.notes,
        }
