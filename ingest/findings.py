"""What ingest found wrong: words for incidents and quarantine, and how they are gathered."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from sealtape.ingest.ledger.rows import Event, Incident, Quarantined
from sealtape.ingest.parquet import Row
from sealtape.schemas import messages

__all__ = ["QUARANTINE_REASONS", "REASONS", "Findings"]

QUARANTINE_REASONS = {
    "malformed": "A message is not a frame, checkpoint or key, or its fields are out of range.",
    "key_mismatch": "A message stands under the bus key or in the partition of another session.",
    "no_open": "A frame or checkpoint of an epoch whose OPEN never came.",
    "open_bad": "An OPEN cannot be read, or is of another session, epoch, node or number.",
    "open_untrusted": "An OPEN is not signed by a node of the trust file.",
    "ident_mismatch": "Frame 1 is not the IDENT that the signed OPEN names.",
    "conflict": "A second frame with the same session, epoch and seq, but other content.",
    "late_frame": "A frame came after its absence had been sealed as a gap.",
    "seal_unreadable": "A frame with a seq that is sealed, in a segment that cannot be read.",
    "early_frame": "A frame past a hole, which no signature shows to belong to the session.",
    "checkpoint_bad": "A checkpoint is not signed by the epoch's key, or is of another tree.",
    "checkpoint_root": "A signed root is not the root of the frames that came.",
    "checkpoint_late": "A checkpoint of frames that were sealed without it.",
    "checkpoint_ahead": "A checkpoint of frames that never came.",
    "misplaced": "A frame or checkpoint on the bus that is for keys alone.",
}
"""Reasons why a message is in quarantine; each is an incident too."""

REASONS = QUARANTINE_REASONS | {
    "gap": "Frames that were signed, or that others follow, never came; the gap is sealed.",
    "after_close": "A frame follows CLOSE; it is sealed.",
    "time_backwards": "A frame is older than the one before it; it is sealed.",
    "continuation": "A recovery epoch does not go on where the epoch before it ends.",
    "key_conflict": "A second wrap under the same name; it is kept aside in the keyring.",
    "key_misplaced": "A key among the frames, though keys have a bus of their own; it is kept.",
    "bus_lost": "Messages were deleted from the bus before ingest had read them.",
    "bus_cut": "The bus ends before what was read from it already; reading goes on from its end.",
    "topic_recreated": "The bus's topic was deleted and made anew; what was unread in it is lost.",
    "retention_half": "Half of the time is over that the bus keeps what ingest has not read.",
    "after_seal": "Frames came for an epoch whose seal was in the log; they are sealed too.",
    "node_silent": "A node's journal brings nothing any more; its live sessions are incomplete.",
    "session_missing": "A session never came, though a later one of the same worker did.",
    "tail_missing": (
        "Frames that a node's heartbeat lists, or the end of a session that it lists no more,"
        " never came."
    ),
}
"""All reasons for incidents, as `docs/ingest.md` lists them."""

INLINE_BYTES = 64 << 10


class Findings:
    """Incidents and quarantined messages since the last publication. Pure."""

    def __init__(self, topic: str, partition: int, known: Iterable[tuple[int, bytes]] = ()) -> None:
        """Gather for one partition; `known` are in quarantine: offsets, and messages' SHA-256."""
        self._known = frozenset(known)
        self._topic = topic
        self._partition = partition
        self.incidents: list[Incident] = []
        self.quarantined: list[Quarantined] = []
        self.events: list[Event] = []
        """What leaves with the next publication, but is no reason for one."""

    def __bool__(self) -> bool:
        """Whether there is anything to publish."""
        return bool(self.incidents or self.quarantined)

    def incident(
        self,
        reason: str,
        detail: str,
        *,
        offset: int,
        now_ns: int,
        session: bytes = b"",
        epoch: int = -1,
        seq: int = -1,
    ) -> None:
        """Add an incident; `reason` is one of REASONS."""
        self.incidents.append(
            Incident(
                topic=self._topic,
                partition=self._partition,
                offset=offset,
                reason=reason,
                detail=detail,
                session=session,
                epoch=epoch,
                seq=seq,
                at_ns=now_ns,
            )
        )

    def quarantine(
        self,
        reason: str,
        detail: str,
        *,
        offset: int,
        data: bytes,
        now_ns: int,
        session: bytes = b"",
        epoch: int = -1,
        seq: int = -1,
    ) -> None:
        """Keep a message that cannot be sealed, and say so."""
        digest = sha256(data).digest()
        # By its bytes too: on a bus that was cut off another message may stand at the offset.
        if (offset, digest) in self._known:
            return
        self.quarantined.append(
            Quarantined(
                topic=self._topic,
                partition=self._partition,
                offset=offset,
                reason=reason,
                session=session,
                sha256=digest,
                size=len(data),
                data=data,
                key="",
                at_ns=now_ns,
            )
        )
        self.incident(
            reason, detail, offset=offset, now_ns=now_ns, session=session, epoch=epoch, seq=seq
        )

    def quarantine_row(
        self, reason: str, row: Row, *, offset: int, now_ns: int, detail: str = ""
    ) -> None:
        """Keep a frame that cannot be sealed; its message is written as it came."""
        self.quarantine(
            reason,
            detail or QUARANTINE_REASONS[reason],
            offset=offset,
            data=messages.encode(row.frame()),
            now_ns=now_ns,
            session=row.session,
            epoch=row.epoch,
            seq=row.seq,
        )

    def clear(self) -> None:
        """Forget what was published."""
        self.incidents = []
        self.quarantined = []
        self.events = []
