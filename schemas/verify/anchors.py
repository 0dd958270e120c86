"""What stands outside a bundle: the log's checkpoints, their witnesses, time-stamps over them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from sealtape.schemas import notes
from sealtape.schemas.bundle import (
    Bundle,
    checkpoint_name,
    parse_hashes,
    timestamp_name,
    whole_note,
)
from sealtape.schemas.cosignatures import ML_DSA_44
from sealtape.schemas.errors import FormatError, SettingsError
from sealtape.schemas.evidence import EvidencePolicy
from sealtape.schemas.timestamps import check_verifiable, verify_timestamp
from sealtape.schemas.tlog.policy import LogPolicy, Witnessed
from sealtape.schemas.tree import verify_consistency
from sealtape.schemas.verify.steps import BundleReport

_NS: Final = 1_000_000_000
_MAX_PATH: Final = 4096


@dataclass(slots=True)
class Anchor:
    """A verified checkpoint.

    Attributes:
        size: of the tree.
        root: of the tree.
        whole: the note's bytes, with every signature line: what an authority stamps.
        seconds: its witnessed time, None without one.
        stamped_ns: the latest time that the earliest verified time-stamp leaves, None without one.
    """

    size: int
    root: bytes
    whole: bytes
    seconds: int | None
    stamped_ns: int | None = None


@dataclass(slots=True)
class Anchors:
    """The checkpoint that everything is proven under, and the others by their sizes."""

    origin: str
    top: Anchor
    quorum: bool
    monitored: bool
    others: dict[int, Anchor] = field(default_factory=dict)

    def all(self) -> list[Anchor]:
        """All of them, the smallest first."""
        return sorted([*self.others.values(), self.top], key=lambda anchor: anchor.size)

    def at(self, size: int) -> Anchor | None:
        """The one of this size."""
        return self.top if size == self.top.size else self.others.get(size)

    def covering(self, index: int) -> int | None:
        """The witnessed time, in seconds, of the first one with an entry of this index."""
        times = [anchor.seconds for anchor in self.all() if anchor.size > index]
        return next((time for time in times if time is not None), None)

    def before(self, index: int) -> int | None:
        """The witnessed time, in seconds, of the last one without an entry of this index."""
        times = [anchor.seconds for anchor in self.all() if anchor.size <= index]
        return next((time for time in reversed(times) if time is not None), None)

    def latest_ns(self, index: int) -> int | None:
        """When an entry of this index existed at the latest, by witnesses or time-stamps."""
        stamps = [anchor.stamped_ns for anchor in self.all() if anchor.size > index]
        known = [time for time in stamps if time is not None]
        witnessed = self.covering(index)
        if witnessed is not None:
            known.append(witnessed * _NS)
        return min(known, default=None)


def witnessed_time(policy: LogPolicy, times: Mapping[str, int]) -> int | None:
    """The smallest T for which the cosignatures of at most T seconds make the quorum."""
    if policy.quorum is None:
        return None
    for limit in sorted(set(times.values())):
        if policy.enough([name for name, seconds in times.items() if seconds <= limit]):
            return limit
    return None


def check_anchors(bundle: Bundle, policy: EvidencePolicy, report: BundleReport) -> Anchors | None:
    """Go through the steps from `checkpoint` to `timestamps`; None when there is no way on."""
    name = checkpoint_name(bundle.size)
    try:
        whole, witnessed = _open(bundle, policy, bundle.size)
    except FormatError as exc:
        report.tampered("checkpoint", name, exc.message)
        return None
    checkpoint = witnessed.checkpoint
    report.checkpoint = checkpoint
    report.witnesses = dict(witnessed.times)
    report.passed("checkpoint", f"{checkpoint.origin}, {checkpoint.size} entries")
    _witnesses(policy, witnessed, name, report)
    _ml_dsa(policy, witnessed, name, report)
    monitored = _monitor(policy, witnessed, name, report)
    top = Anchor(bundle.size, checkpoint.root, whole, _seconds(policy, witnessed))
    anchors = Anchors(checkpoint.origin, top, witnessed.quorum, monitored)
    _others(bundle, policy, anchors, report)
    _timestamps(bundle, policy, anchors, report)
    return anchors


def _open(bundle: Bundle, policy: EvidencePolicy, size: int) -> tuple[bytes, Witnessed]:
    name = checkpoint_name(size)
    note, apart = bundle.files[name], bundle.bytes_of(f"{name}.mldsa")
    whole = whole_note(bytes(note), apart)
    witnessed = policy.tlog.open(whole)
    if notes.ALGORITHM not in witnessed.algorithms:
        raise FormatError("the log's Ed25519 signature is missing")
    if witnessed.checkpoint.size != size:
        raise FormatError(f"it is of {witnessed.checkpoint.size} entries, not of {size}")
    return whole, witnessed


def _seconds(policy: EvidencePolicy, witnessed: Witnessed) -> int | None:
    """The witnessed time; none where a line that the policy demands is missing."""
    checkpoint = witnessed.checkpoint
    wanted = policy.wants_ml_dsa(checkpoint.origin, checkpoint.size)
    if wanted and ML_DSA_44 not in witnessed.algorithms:
        return None
    return witnessed_time(policy.tlog, witnessed.times)


def _witnesses(
    policy: EvidencePolicy, witnessed: Witnessed, name: str, report: BundleReport
) -> None:
    if policy.tlog.quorum is None:
        report.not_provided("witnesses", "the policy asks for none: the operator alone vouches")
    elif witnessed.quorum:
        report.passed("witnesses", ", ".join(sorted(witnessed.times)))
    else:
        who = ", ".join(sorted(witnessed.times)) or "nobody"
        report.incomplete("witnesses", name, f"the quorum is short: {who} cosigned")


def _ml_dsa(policy: EvidencePolicy, witnessed: Witnessed, name: str, report: BundleReport) -> None:
    checkpoint = witnessed.checkpoint
    if ML_DSA_44 in witnessed.algorithms:
        report.passed("ml-dsa")
    elif "ml-dsa" in policy.require or policy.wants_ml_dsa(checkpoint.origin, checkpoint.size):
        report.incomplete("ml-dsa", name, "the log's ML-DSA-44 signature is missing")
    else:
        report.not_provided("ml-dsa", "no ML-DSA-44 line by a key of the policy")


def _monitor(policy: EvidencePolicy, witnessed: Witnessed, name: str, report: BundleReport) -> bool:
    found = [item for item in policy.monitors if item in witnessed.times]
    if found:
        report.passed("monitor", ", ".join(found))
    elif "monitor" in policy.require:
        report.incomplete("monitor", name, "no monitor of the policy cosigned")
    else:
        report.not_provided("monitor", "that there is no second seal is not shown")
    return bool(found)


def _others(bundle: Bundle, policy: EvidencePolicy, anchors: Anchors, report: BundleReport) -> None:
    if earlier := len(bundle.checkpoints) - 1:
        report.passed("consistency", f"{earlier} earlier checkpoints")
    else:
        report.not_provided("consistency", "no earlier checkpoint")
    for size in bundle.checkpoints:
        name = checkpoint_name(size)
        try:
            anchor = None if size == bundle.size else _other(bundle, policy, anchors, size)
        except FormatError as exc:
            report.tampered("consistency", name, exc.message)
            continue
        if anchor is not None:
            anchors.others[size] = anchor
        elif f"{name}.consistency" in bundle.files:
            report.tampered("consistency", name, "a checkpoint is not proven under itself")


def _other(bundle: Bundle, policy: EvidencePolicy, anchors: Anchors, size: int) -> Anchor:
    whole, witnessed = _open(bundle, policy, size)
    checkpoint = witnessed.checkpoint
    if checkpoint.origin != anchors.origin:
        raise FormatError(f"it is of the log {checkpoint.origin}, not of {anchors.origin}")
    path = bundle.bytes_of(f"{checkpoint_name(size)}.consistency")
    if path is None or len(path) > _MAX_PATH:
        raise FormatError("its proof of consistency is missing, or too long")
    proof = parse_hashes(path, "proof of consistency")
    verify_consistency(size, checkpoint.root, anchors.top.size, proof, anchors.top.root)
    return Anchor(size, checkpoint.root, whole, _seconds(policy, witnessed))


def _timestamps(
    bundle: Bundle, policy: EvidencePolicy, anchors: Anchors, report: BundleReport
) -> None:
    known = [(size, name) for size, name in bundle.timestamps if policy.authority(name)]
    for size, name in bundle.timestamps:
        if (size, name) not in known:
            report.note(f"the time-stamp of {name} at {size} entries is of no known authority")
    try:
        if known or "timestamp" in policy.require:
            check_verifiable()
    except SettingsError as exc:
        if "timestamp" in policy.require:
            raise
        report.not_checked("timestamps", exc.message)
        return
    for size, name in known:
        anchor = anchors.at(size)
        if anchor is not None:
            _timestamp(bundle, policy, anchor, name, report)
    report.passed("timestamps", ", ".join(report.stamps))


def _timestamp(
    bundle: Bundle, policy: EvidencePolicy, anchor: Anchor, name: str, report: BundleReport
) -> None:
    authority = policy.authority(name)
    tsr, pem = (bundle.files[timestamp_name(anchor.size, name, part)] for part in ("tsr", "pem"))
    roots = b"" if authority is None else authority.roots
    try:
        info = verify_timestamp(bytes(tsr), sha256(anchor.whole).digest(), roots, bytes(pem))
    except FormatError as exc:
        report.tampered("timestamps", timestamp_name(anchor.size, name, "tsr"), exc.message)
        return
    report.stamps[f"{anchor.size}/{name}"] = info.time_ns
    report.accuracies[f"{anchor.size}/{name}"] = info.accuracy_ns
    known = [] if anchor.stamped_ns is None else [anchor.stamped_ns]
    anchor.stamped_ns = min([info.latest_ns, *known])


def judge_timestamps(
    policy: EvidencePolicy, anchors: Anchors, last: int, report: BundleReport
) -> None:
    """Whether a time-stamp covers every seal, the last of which has index `last`."""
    if any(anchor.stamped_ns is not None and anchor.size > last for anchor in anchors.all()):
        return
    if "timestamp" in policy.require:
        report.incomplete("timestamps", checkpoint_name(anchors.top.size), "none covers the seals")
    elif report.state("timestamps") == "PASS":
        report.not_provided("timestamps", "none by a known authority covers the seals")
