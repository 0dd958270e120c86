"""Whether a bundle shows, to somebody who trusts only their own policy, what it says it shows.

`verify_bundle` takes bytes and a policy and answers with a report. Nothing that a bundle may
contain makes it raise: what is malformed is a finding. Steps and rules: docs/spec/bundle.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sealtape.schemas.bundle import (
    INCLUSION,
    MAX_ENTRIES,
    Bundle,
    entry_name,
    frames_name,
    inclusion_root,
    open_bundle,
    parse_hashes,
)
from sealtape.schemas.errors import FormatError
from sealtape.schemas.evidence import EvidencePolicy
from sealtape.schemas.tlog.records import (
    Entry,
    Heartbeat,
    Listed,
    LogIncident,
    LogStart,
    SessionOpen,
    SessionSeal,
    parse_entry,
)
from sealtape.schemas.tlog.statements import KeyStatement, Statement
from sealtape.schemas.verify.anchors import Anchors, check_anchors, judge_timestamps
from sealtape.schemas.verify.attestations import (
    check_certificate,
    check_end,
    check_links,
    check_signatures,
)
from sealtape.schemas.verify.bundled_frames import FrameWalk
from sealtape.schemas.verify.disclosure import check_payloads
from sealtape.schemas.verify.key_history import KeyHistory
from sealtape.schemas.verify.lifecycle import check_lifecycle, decisions
from sealtape.schemas.verify.sealed_epochs import check_fragments, find_epochs
from sealtape.schemas.verify.steps import BundleReport
from sealtape.schemas.verify.timing import check_times

__all__ = ["verify_bundle"]

_SKEW_S: Final = 60


def verify_bundle(
    data: bytes | memoryview, policy: EvidencePolicy, *, now_ns: int | None = None
) -> BundleReport:
    """Verify a bundle by a policy.

    Args:
        data: the bundle; a view into a mapped file is read piece by piece.
        policy: whose signatures count.
        now_ns: the time of verification, for saying that a cosignature lies in the future.

    Raises:
        SettingsError: the policy requires time-stamps and nothing here can verify them.
    """
    report = BundleReport(policy_sha256=policy.sha256)
    try:
        bundle = open_bundle(data)
    except FormatError as exc:
        report.tampered("form", str(exc.context.get("file", "the file")), exc.message)
        return report
    report.session = bundle.session
    report.passed("form", f"{len(bundle.files)} files")
    anchors = check_anchors(bundle, policy, report)
    if anchors is not None and _included(bundle, anchors, report):
        entries = _records(bundle, policy, anchors, report)
        if entries is not None:
            _session(bundle, policy, anchors, entries, report)
    for name, seconds in report.witnesses.items():
        if now_ns is not None and seconds - _SKEW_S > now_ns // 1_000_000_000:
            report.note(f"the cosignature of {name} is of a time that has not come yet")
    return report


def _included(bundle: Bundle, anchors: Anchors, report: BundleReport) -> bool:
    try:
        if len(bundle.entries) > MAX_ENTRIES:
            raise FormatError(f"a bundle has at most {MAX_ENTRIES} entries")
        hashes = parse_hashes(bytes(bundle.files[INCLUSION]), INCLUSION)
        if inclusion_root(bundle.size, bundle.entries, hashes) != anchors.top.root:
            raise FormatError("the entries and these hashes do not give the checkpoint's root")
    except FormatError as exc:
        report.tampered("inclusion", INCLUSION, exc.message)
        return False
    report.passed("inclusion", f"{len(bundle.entries)} entries")
    return True


def _records(
    bundle: Bundle, policy: EvidencePolicy, anchors: Anchors, report: BundleReport
) -> dict[int, Entry] | None:
    """The entries, read; None when one of them is wrong."""
    entries: dict[int, Entry] = {}
    ids: set[bytes] = set()
    for index, data in bundle.entries.items():
        try:
            entries[index] = entry = parse_entry(data)
            _check_entry(index, entry, bundle.session, policy.log, anchors.origin)
            if isinstance(entry, Statement):
                heading = entry.body.heading
                if heading.id in ids:
                    raise FormatError("its statement is there twice")
                ids.add(heading.id)
        except FormatError as exc:
            report.tampered("records", entry_name(index), exc.message)
            return None
    report.passed("records")
    return entries


def _check_entry(index: int, entry: Entry, session: bytes, log: str, origin: str) -> None:
    if isinstance(entry, LogStart) != (index == 0):
        raise FormatError("entry 0, and no other, begins the log")
    if isinstance(entry, LogStart) and (entry.log, f"{log}/{entry.number}") != (log, origin):
        raise FormatError(f"the log {entry.log}/{entry.number} begins here, not {origin}")
    if isinstance(entry, Statement) and entry.body.heading.log != log:
        raise FormatError(f"its statement is made for the log {entry.body.heading.log}")
    if isinstance(entry, Heartbeat) and entry.index != index:
        raise FormatError(f"the heartbeat says that it is entry {entry.index}")
    if isinstance(entry, (SessionOpen, SessionSeal, LogIncident)) and entry.session != session:
        raise FormatError("it is of another session")


def _session(
    bundle: Bundle,
    policy: EvidencePolicy,
    anchors: Anchors,
    entries: Mapping[int, Entry],
    report: BundleReport,
) -> None:
    """The steps from `keys` on."""
    keys = _keys(bundle, policy, entries, report)
    others = {
        index: entry
        for index, entry in entries.items()
        if isinstance(entry, Statement) and not isinstance(entry.body, KeyStatement)
    }
    found = decisions(bundle.session, others, keys)
    epochs = find_epochs(bundle, entries, report)
    report.epochs = len(epochs)
    beacons = {}
    for epoch in epochs:
        if not check_fragments(bundle, entries, epoch, report):
            continue
        data = bundle.files.get(frames_name(epoch.number), memoryview(b""))
        walk = FrameWalk(epoch, data, found.removed(epoch.index), report)
        if not walk.run():
            continue
        opening = check_certificate(epoch, walk.facts, policy.log, keys, report)
        if opening is not None:
            beacons[epoch.number] = opening.beacon
            check_signatures(epoch, walk.facts, opening, report)
        check_end(epoch, walk.facts, report)
    check_links(epochs, report)
    last = max((epoch.seal_index for epoch in epochs), default=-1)
    judge_timestamps(policy, anchors, last, report)
    check_times(epochs, beacons, anchors, report)
    check_lifecycle(found, anchors, epochs, report)
    _incidents(entries, report)
    check_payloads(bundle, policy, epochs, report)


def _keys(
    bundle: Bundle, policy: EvidencePolicy, entries: Mapping[int, Entry], report: BundleReport
) -> KeyHistory:
    statements = {
        index: entry
        for index, entry in entries.items()
        if isinstance(entry, Statement) and isinstance(entry.body, KeyStatement)
    }
    keys = KeyHistory(policy, statements)
    for index in keys.ignored:
        report.note(
            f"{entry_name(index)} is not signed by enough administrators: it does not count"
        )
    kinds = (SessionOpen, SessionSeal)
    last = max((index for index, entry in entries.items() if isinstance(entry, kinds)), default=0)
    beats = {index: entry for index, entry in entries.items() if isinstance(entry, Heartbeat)}
    at = max(beats, default=-1)
    if beats:
        before = [bundle.entries[index] for index in sorted(statements) if index < at]
        if Listed.of(before) != beats[at].keys:
            reason = f"{beats[at].keys.count} keys were decided on before, the bundle has others"
            report.tampered("keys", entry_name(at), reason)
    if at < last:
        reason = "no heartbeat behind the seals: a revocation could have been left out"
        report.incomplete("keys", "entries", reason)
    report.passed("keys", f"{len(statements)} key entries")
    return keys


def _incidents(entries: Mapping[int, Entry], report: BundleReport) -> None:
    for index, entry in entries.items():
        if isinstance(entry, LogIncident):
            report.note(f"{entry_name(index)} is an incident of this session: {entry.reason}")
