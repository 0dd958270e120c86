"""Who signed an epoch: the node its OPEN, the epoch's own key the tree; and how epochs connect."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from sealtape.schemas.bodies import Close, Continues, Opening, parse_open
from sealtape.schemas.bundle import entry_name, fragments_name, frames_name
from sealtape.schemas.errors import FormatError
from sealtape.schemas.frames import Kind
from sealtape.schemas.notes import Verifier, open_checkpoint
from sealtape.schemas.segments import FragmentCheckpoint
from sealtape.schemas.tlog.records import SessionOpen, SessionSeal
from sealtape.schemas.verify.bundled_frames import FrameFacts
from sealtape.schemas.verify.key_history import KeyHistory
from sealtape.schemas.verify.sealed_epochs import SealedEpoch
from sealtape.schemas.verify.steps import BundleReport, Span

_CERTIFICATE: Final = "certificate"
_SIGNATURES: Final = "signatures"
_EPOCHS: Final = "epochs"


def check_certificate(
    epoch: SealedEpoch, facts: FrameFacts, log: str, keys: KeyHistory, report: BundleReport
) -> Opening | None:
    """The step `certificate` for one epoch: what OPEN says, None when that is not to be had."""
    if facts.opening_sha256 is None:
        for step in (_CERTIFICATE, _SIGNATURES):
            report.not_provided(step, f"OPEN of epoch {epoch.number} is not there")
        return None
    report.passed(_CERTIFICATE)
    try:
        if facts.opening_sha256 != epoch.opened.opening_sha256:
            raise FormatError("OPEN is not the one that the log names")
        if facts.opening is None:
            for step in (_CERTIFICATE, _SIGNATURES):
                report.not_checked(step, f"OPEN of epoch {epoch.number} must not be read")
            return None
        opening, _ = parse_open(facts.opening, keys.verifiers("node", epoch.index))
        _check_opening(opening, epoch, facts, log)
    except FormatError as exc:
        report.tampered(
            _CERTIFICATE, frames_name(epoch.number), exc.message, epoch=epoch.number, frames=(0, 1)
        )
        return None
    return opening


def _check_opening(opening: Opening, epoch: SealedEpoch, facts: FrameFacts, log: str) -> None:
    entry = epoch.opened
    if opening.log != log:
        raise FormatError(f"OPEN names the log {opening.log}, not {log}")
    if facts.ident_sha256 not in (None, opening.ident_sha256):
        raise FormatError("IDENT is not the one that OPEN names")
    stated = SessionOpen(
        at_ns=entry.at_ns,
        of=opening.type,
        tenant=opening.tenant,
        session=opening.session,
        epoch=opening.epoch,
        node=opening.node,
        boot=opening.boot,
        worker=opening.worker,
        number=opening.number,
        retention=opening.retention,
        anchor_ns=opening.anchor_ns,
        continues=opening.continues,
        opening_sha256=entry.opening_sha256,
    )
    if stated != entry:
        raise FormatError(f"OPEN says other things than {entry_name(epoch.index)}")


def check_signatures(
    epoch: SealedEpoch, facts: FrameFacts, opening: Opening, report: BundleReport
) -> None:
    """The step `signatures` for one epoch."""
    report.passed(_SIGNATURES)
    name = fragments_name(epoch.number)
    try:
        verifier = Verifier.from_vkey(opening.key)
        largest = 0, bytes(32)
        for item in epoch.fragments:
            if item.record.checkpoint is not None:
                largest = max(largest, _checkpoint(item.record.checkpoint, verifier, facts))
        seal = epoch.seal
        if seal is not None and (seal.attested, seal.checkpoint_sha256) != largest:
            raise FormatError(
                f"the seal names a signed size of {seal.attested}, here it is {largest[0]},"
                " or another checkpoint"
            )
    except FormatError as exc:
        report.tampered(_SIGNATURES, name, exc.message, epoch=epoch.number)


def _checkpoint(
    stated: FragmentCheckpoint, verifier: Verifier, facts: FrameFacts
) -> tuple[int, bytes]:
    """Size and digest of a record's checkpoint, which is the tree's as far as that is known."""
    try:
        checkpoint = open_checkpoint(stated.note.encode(), verifier)
    except FormatError as exc:
        raise FormatError(f"the checkpoint at size {stated.size}: {exc.message}") from exc
    if checkpoint.size != stated.size:
        raise FormatError(f"the checkpoint at size {stated.size} is of {checkpoint.size} frames")
    if facts.roots.get(stated.size, checkpoint.root) != checkpoint.root:
        raise FormatError(f"the first {stated.size} frames do not have the root that was signed")
    return stated.size, sha256(stated.note.encode()).digest()


# -- from epoch to epoch ---------------------------------------------------------------------------


def check_end(epoch: SealedEpoch, facts: FrameFacts, report: BundleReport) -> None:
    """The step `epochs`, for the end of one."""
    report.passed(_EPOCHS)
    seal = epoch.seal
    if seal is None or facts.last_kind is None:
        return
    span = (seal.frames - 1, seal.frames)
    reason = ""
    try:
        closed = _closed(facts, seal.closed)
    except FormatError as exc:
        closed, reason = "", f"CLOSE cannot be read: {exc.message}"
    if not reason and closed != seal.closed:
        reason = f"the epoch ends as {closed or 'not closed'}, sealed is {seal.closed or 'no end'}"
    if reason:
        report.tampered(_EPOCHS, frames_name(epoch.number), reason, epoch=epoch.number, frames=span)


def _closed(facts: FrameFacts, sealed: str) -> str:
    """The reason that the last frame gives, empty without CLOSE."""
    if facts.last_kind != Kind.CLOSE:
        return ""
    if facts.close is None:  # it must not be read: that it is CLOSE is all that it says
        return sealed or "closed"
    return Close.from_json(facts.close).reason


def check_links(epochs: Sequence[SealedEpoch], report: BundleReport) -> None:
    """The step `epochs`, for what continues what."""
    seals = {epoch.number: epoch.seal for epoch in epochs if epoch.seal is not None}
    for epoch in epochs:
        continues = epoch.opened.continues
        before = -1 if continues is None else continues.epoch
        if before != epoch.number - 1:
            reason = "it does not continue the epoch before it"
            report.tampered(_EPOCHS, entry_name(epoch.index), reason, epoch=epoch.number)
        elif continues is not None and before in seals:
            _check_link(seals[before], epoch, continues, report)


def _check_link(
    seal: SessionSeal, after: SealedEpoch, continues: Continues, report: BundleReport
) -> None:
    """Whether an epoch goes on where the one before it is sealed, and that one was not closed."""
    name, number = entry_name(after.index), seal.epoch
    if seal.closed:
        # Whoever has the node's key can write on; nothing that was closed is taken up again.
        reason = f"it goes on after epoch {number} was closed"
        report.incomplete(_EPOCHS, name, reason, epoch=after.number)
    if continues.size != seal.frames or (not seal.lost and continues.root != seal.root):
        reason = f"it does not continue epoch {number} as that is sealed"
        report.tampered(_EPOCHS, name, reason, epoch=after.number)
    elif seal.attested < seal.frames:
        report.spans.append(Span("attested", number, seal.attested, seal.frames))
        report.note(
            f"frames {seal.attested} to {seal.frames - 1} of epoch {number} are attested"
            " by the node's key after a crash, not by the session's own"
        )
