"""Holds, releases and deletions of a session, as the entries of a bundle have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sealtape.schemas.bundle import entry_name
from sealtape.schemas.tlog.statements import (
    DoneStatement,
    HoldStatement,
    IntentStatement,
    PolicyStatement,
    ReleaseStatement,
    Statement,
)
from sealtape.schemas.verify.anchors import Anchors
from sealtape.schemas.verify.key_history import KeyHistory, signed_by
from sealtape.schemas.verify.sealed_epochs import SealedEpoch
from sealtape.schemas.verify.steps import BundleReport

_STEP = "lifecycle"
_TWO = 2  # so many administrators lift a hold, or erase before the term is over


@dataclass(slots=True)
class Decisions:
    """The statements about a session that count, by index."""

    session: bytes
    holds: dict[int, HoldStatement] = field(default_factory=dict)
    releases: dict[int, ReleaseStatement] = field(default_factory=dict)
    intents: dict[int, IntentStatement] = field(default_factory=dict)
    dones: dict[int, DoneStatement] = field(default_factory=dict)
    policies: dict[int, PolicyStatement] = field(default_factory=dict)
    ignored: list[int] = field(default_factory=list)
    foreign: list[int] = field(default_factory=list)

    def held(self, index: int) -> bool:
        """Whether a hold of the session is in force at an index."""
        return any(
            at < index and self.session in hold.sessions and not self._released(at, hold, index)
            for at, hold in self.holds.items()
        )

    def _released(self, begin: int, hold: HoldStatement, index: int) -> bool:
        return any(
            begin < at < index
            and release.hold == hold.heading.id
            and self.session in release.sessions
            for at, release in self.releases.items()
        )

    def deletions(self) -> list[tuple[int, DoneStatement]]:
        """The intents, by index, that were carried out, and what says so."""
        return [
            (index, done)
            for index, intent in self.intents.items()
            for at, done in self.dones.items()
            if at > index and done.intent == intent.heading.id and done.index == index
        ]

    def removed(self, opened: int) -> frozenset[bytes]:
        """The segment records whose objects a deletion of an epoch, opened there, removed."""
        return frozenset(
            item for index, done in self.deletions() if index > opened for item in done.objects
        )


def decisions(session: bytes, statements: Mapping[int, Statement], keys: KeyHistory) -> Decisions:
    """Sort out what counts, what does not, and what is about other sessions."""
    found = Decisions(session)
    for index, statement in sorted(statements.items()):
        body = statement.body
        if _foreign(found, body, statements):
            found.foreign.append(index)
        elif not _counts(statement, index, keys):
            found.ignored.append(index)
        elif isinstance(body, HoldStatement):
            found.holds[index] = body
        elif isinstance(body, ReleaseStatement):
            found.releases[index] = body
        elif isinstance(body, IntentStatement):
            found.intents[index] = body
        elif isinstance(body, DoneStatement):
            found.dones[index] = body
        elif isinstance(body, PolicyStatement):
            found.policies[index] = body
    return found


def _foreign(found: Decisions, body: object, statements: Mapping[int, Statement]) -> bool:
    if isinstance(body, (HoldStatement, IntentStatement)):
        return found.session not in body.sessions
    bodies = [statement.body for statement in statements.values()]
    if isinstance(body, ReleaseStatement):
        ids = [item.heading.id for item in bodies if isinstance(item, HoldStatement)]
        return body.hold not in ids
    if isinstance(body, DoneStatement):
        ids = [item.heading.id for item in bodies if isinstance(item, IntentStatement)]
        return body.intent not in ids
    return False


def _counts(statement: Statement, index: int, keys: KeyHistory) -> bool:
    body = statement.body
    expired = isinstance(body, IntentStatement) and body.basis == "expired"
    if expired or isinstance(body, DoneStatement):
        return signed_by(statement.note, keys.verifiers("reaper", index)) > 0
    two = isinstance(body, (ReleaseStatement, IntentStatement))
    return keys.by_admins(statement.note, index, _TWO if two else 1)


def check_lifecycle(
    found: Decisions,
    anchors: Anchors,
    epochs: Sequence[SealedEpoch],
    report: BundleReport,
) -> None:
    """The step `lifecycle`; `epochs` are the session's, in their order."""
    for index in found.foreign:
        report.tampered(_STEP, entry_name(index), "it is not about this session")
    for index in found.ignored:
        report.note(f"{entry_name(index)} is not signed by whom it must be, and does not count")
    for index, intent in found.intents.items():
        if found.held(index):
            report.tampered(_STEP, entry_name(index), "the session was to be deleted under a hold")
        if intent.basis == "expired":
            opened = [epoch for epoch in epochs if epoch.index < index]
            _check_expiry(found, anchors, opened[-1] if opened else None, index, report)
    if found.deletions():
        report.deleted = True
        if not (anchors.quorum and anchors.monitored):
            lacking = "quorum" if not anchors.quorum else "monitor"
            reason = f"the session was deleted, and without {lacking} nobody vouches that it could"
            report.incomplete(_STEP, entry_name(found.deletions()[0][0]), reason)
        report.passed(_STEP, "deleted by policy")
    elif found.holds or found.intents:
        last = max([*found.holds, *found.releases, *found.intents]) + 1
        report.passed(_STEP, "held" if found.held(last) else "not held any more")
    else:
        report.not_provided(_STEP, "no hold and no deletion in the bundle")


def _check_expiry(
    found: Decisions,
    anchors: Anchors,
    last: SealedEpoch | None,
    index: int,
    report: BundleReport,
) -> None:
    name = entry_name(index)
    seal = None if last is None else last.seal
    sealed = None if last is None else anchors.covering(last.seal_index)
    if seal is None or sealed is None:
        report.incomplete(_STEP, name, "the witnessed time of the seal is not there")
        return
    retention = seal.retention
    terms = [retention.retain_for_s] + [
        policy.retention.retain_for_s
        for at, policy in found.policies.items()
        if at < index and policy.tenant == seal.tenant and policy.retention.name == retention.name
    ]
    until = sealed + max(terms)
    before, after = anchors.before(index), anchors.covering(index)
    if before is not None and before >= until:
        return
    if after is not None and after < until:
        report.tampered(_STEP, name, f"the session was deleted {until - after} s early")
    else:
        report.incomplete(_STEP, name, "no witnessed checkpoint shows that the term was over")
