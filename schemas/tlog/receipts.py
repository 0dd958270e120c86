"""What a capture node gets back from the log for an epoch that it closed (docs/spec/receipts.md).

A receipt is a tlog-proof of the epoch's `session-seal`, whose bytes are its `extra`, under a
checkpoint with the quorum of the node's own policy. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sealtape.schemas.bodies import Beacon
from sealtape.schemas.canonical import decimal_int
from sealtape.schemas.errors import FormatError, SignatureError
from sealtape.schemas.notes import MAX_NOTE, MAX_TREE_SIZE, Checkpoint
from sealtape.schemas.tlog.policy import LogPolicy
from sealtape.schemas.tlog.proof import MAX_EXTRA, parse_proof
from sealtape.schemas.tlog.records import SessionSeal, parse_entry

__all__ = ["MAX_BEACON", "MAX_RECEIPT", "Ended", "beacon_of", "contradiction", "verify_receipt"]

MAX_BEACON: Final = MAX_NOTE
MAX_RECEIPT: Final = MAX_NOTE + 2 * MAX_EXTRA


@dataclass(frozen=True, slots=True)
class Ended:
    """An epoch as its node made it: nothing will be added to it.

    Attributes:
        size, root: of its tree.
        closed: whether its last frame is its CLOSE. A crash ended an epoch without one; the epoch
            that continues it says where.
    """

    session: bytes
    epoch: int
    size: int
    root: bytes
    closed: bool = True


def beacon_of(note: bytes, policy: LogPolicy, log: str) -> Beacon:
    """What OPEN says of a checkpoint of `log`.

    Raises FormatError or SignatureError unless it is one with the quorum of `policy`.
    """
    found = _witnessed(note, policy, log)
    return Beacon(found.origin, found.size, found.root)


def verify_receipt(data: bytes, ended: Ended, policy: LogPolicy, log: str) -> SessionSeal:
    """The seal that a receipt proves to be in `log`.

    Raises FormatError or SignatureError when it proves nothing about this epoch: then nothing was
    received. Whether the seal says what the node knows is for `contradiction` to tell.
    """
    proof = parse_proof(data)
    if proof.extra is None:
        raise FormatError("a receipt has the entry's bytes as extra data")
    proof.check(proof.extra, _witnessed(proof.note, policy, log))
    seal = parse_entry(proof.extra)
    if not isinstance(seal, SessionSeal):
        raise FormatError("a receipt's entry is a session-seal")
    if (seal.session, seal.epoch) != (ended.session, ended.epoch):
        raise FormatError(
            f"the receipt is of session {seal.session.hex()} epoch {seal.epoch}, not of"
            f" {ended.session.hex()} epoch {ended.epoch}"
        )
    return seal


def contradiction(seal: SessionSeal, ended: Ended) -> str:
    """How a seal in the log differs from what its node sent; empty when it does not."""
    if seal.frames != ended.size:
        return f"{seal.frames} frames were sealed, and {ended.size} were sent"
    if seal.lost:
        return f"{seal.lost} of {ended.size} frames were lost"
    if seal.root != ended.root:
        return "the frames that were sealed are not those that were sent"
    if ended.closed and not seal.complete:
        return f"{seal.attested} of {ended.size} frames were signed, CLOSE says {seal.closed!r}"
    return ""


def _witnessed(note: bytes, policy: LogPolicy, log: str) -> Checkpoint:
    found = policy.open(note)
    name, _, number = found.checkpoint.origin.rpartition("/")
    if name != log:
        raise FormatError(f"the checkpoint is of {found.checkpoint.origin}, not of the log {log}")
    decimal_int(number, "number of the log's shard", 1, MAX_TREE_SIZE)
    if not found.quorum:
        raise SignatureError("the checkpoint has not the quorum of witnesses")
    return found.checkpoint
