"""What the ledger keeps and what one publish transaction changes. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from sealtape.schemas import canonical
from sealtape.schemas.segments import FragmentRecord, SegmentRecord

__all__ = [
    "Event",
    "FragmentRow",
    "Head",
    "HeadChange",
    "Incident",
    "Lease",
    "LeaseRow",
    "LogEntry",
    "LogState",
    "Publish",
    "Quarantined",
    "SealedSegment",
    "SegmentRow",
    "SessionChange",
    "SessionRow",
    "ShardHead",
    "StagedObject",
    "Submitted",
    "Totals",
    "Unsealed",
]


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to publish from one partition. `term` grows with every claim.

    `next_offset` is where to read on: every message below it is sealed, quarantined or dropped as
    an exact duplicate. It was current when the lease was made; `Publish` carries it on.
    """

    topic: str
    partition: int
    term: int
    owner: str
    next_offset: int


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """A lease as it stands. `owner` is empty when nobody holds it.

    `expires_in_s` is how long it still holds by the store's clock, 0.0 once it is over.
    """

    topic: str
    partition: int
    owner: str
    term: int
    next_offset: int
    expires_in_s: float


@dataclass(frozen=True, slots=True)
class Head:
    """How far one (session, epoch) is sealed, and what is needed to go on.

    `lo`, `hi` and `nodes` are the compact range of the frames sealed since the last gap (`lo` is 0
    while none was lost). `offset` is the bus offset of the last message that went in: a message at
    or below it was dealt with. `attested` is the largest size whose signed root was compared with
    ours. `opening` is OPEN's payload, verbatim. `closed` is CLOSE's reason, empty while open.
    """

    session: bytes
    epoch: int
    lo: int
    hi: int
    nodes: tuple[bytes, ...]
    last_ts_ns: int
    offset: int
    attested: int
    lost: int
    closed: str
    opening: bytes

    def digest(self) -> bytes:
        """SHA-256 over every field: what the compare-and-set compares."""
        text: canonical.Json = {
            "session": self.session.hex(),
            "epoch": self.epoch,
            "lo": str(self.lo),
            "hi": str(self.hi),
            "nodes": [node.hex() for node in self.nodes],
            "last_ts_ns": str(self.last_ts_ns),
            "offset": str(self.offset),
            "attested": str(self.attested),
            "lost": str(self.lost),
            "closed": self.closed,
            "opening": sha256(self.opening).hexdigest(),
        }
        return sha256(canonical.encode(text)).digest()

    @property
    def complete(self) -> bool:
        """Whether all frames up to a CLOSE are sealed, under a signature of the session's key."""
        return bool(self.closed) and not self.lost and self.attested == self.hi


@dataclass(frozen=True, slots=True)
class ShardHead:
    """The end of a chain of segment records: how many there are, the hash of the last one."""

    n: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """A published segment. `id` grows by publication, so a tail of it misses nothing."""

    id: int
    key: str
    record: SegmentRecord


@dataclass(frozen=True, slots=True)
class FragmentRow:
    """A fragment, and the segment it lies in (`index` counts within the manifest)."""

    segment_id: int
    segment_key: str
    index: int
    record: FragmentRecord


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session as far as it is sealed.

    `state` is `live` until the CLOSE of its last epoch is sealed; then `sealed`, or `closed` when
    frames are missing or the end is not signed. `incomplete`: its node fell silent before; what
    still comes makes it one of the others again. `revision` grows with every change.
    `frames` and `bytes` (payload as stored) count what is sealed, over all epochs.
    """

    session: bytes
    tenant: str
    class_name: str
    state: str
    epoch: int
    frames: int
    bytes: int
    first_ts_ns: int
    last_ts_ns: int
    close_reason: str
    lost: int
    incidents: int
    revision: int


@dataclass(frozen=True, slots=True)
class SessionChange:
    """What one publication adds to a session, for its head of the same publication (`epoch`)."""

    session: bytes
    tenant: str
    class_name: str
    epoch: int
    frames: int
    bytes: int
    first_ts_ns: int
    last_ts_ns: int
    lost: int
    closed: str
    complete: bool


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that must not happen, did. One per place on the bus, reason and frame.

    `reason` is a stable word (docs/ingest.md lists them), `detail` one sentence without personal
    data. `session`, `epoch` and `seq` are as the message claims them; empty and -1 where unknown.
    """

    topic: str
    partition: int
    offset: int
    reason: str
    detail: str
    session: bytes
    epoch: int
    seq: int
    at_ns: int
    id: int = 0


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A message that could not be sealed, with its bytes: in `data`, or in the object `key`.

    One per (topic, partition, offset, sha256).
    """

    topic: str
    partition: int
    offset: int
    reason: str
    session: bytes
    sha256: bytes
    size: int
    data: bytes
    key: str
    at_ns: int


@dataclass(frozen=True, slots=True)
class Event:
    """A lifecycle event in the outbox: canonical JSON for whoever relays it, at least once."""

    kind: str
    key: str
    payload: bytes
    at_ns: int
    id: int = 0


@dataclass(frozen=True, slots=True)
class StagedObject:
    """An object that may or may not be in the vault, and is not published yet."""

    key: str
    topic: str
    partition: int
    term: int
    staged_at_ns: int


@dataclass(frozen=True, slots=True)
class HeadChange:
    """Replace the head whose digest is `before` (None: there is none yet) by `after`."""

    before: bytes | None
    after: Head


@dataclass(frozen=True, slots=True)
class SealedSegment:
    """A staged segment that is to be published, with the fragments of its manifest."""

    key: str
    record: SegmentRecord
    fragments: tuple[FragmentRecord, ...]


@dataclass(frozen=True, slots=True)
class Publish:
    """Everything one transaction changes.

    `first` is the position this publication starts from, `next_offset` the one it leaves; they may
    be equal. `segments` are in chain order within `shard`. `objects` are staged keys beside the
    segments (quarantined bytes) that become published with it. `silent` are sessions that become
    `incomplete` if they are still live.
    """

    lease: Lease
    first: int
    next_offset: int
    shard: str
    at_ns: int
    segments: tuple[SealedSegment, ...] = ()
    objects: tuple[str, ...] = ()
    heads: tuple[HeadChange, ...] = ()
    sessions: tuple[SessionChange, ...] = ()
    incidents: tuple[Incident, ...] = ()
    quarantined: tuple[Quarantined, ...] = ()
    events: tuple[Event, ...] = ()
    silent: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Totals:
    """What there is of everything.

    `sessions` by state, `incidents` by reason; `last_incident` is a reason, empty when there is
    none. `bytes` are those of the published segments.
    """

    sessions: dict[str, int]
    segments: int
    bytes: int
    incidents: dict[str, int]
    last_incident: str


@dataclass(frozen=True, slots=True)
class LogEntry:
    """An entry of the log at its place in its shard. `name` is empty, or taken once for ever."""

    index: int
    name: str
    entry: bytes


@dataclass(frozen=True, slots=True)
class LogState:
    """How far the log is. `number` is the shard that grows, from 1; 0 while there is no log.

    `cursor` is what its writer stored with the last entries. `note` is the last checkpoint of the
    shard that the log signed, `witnessed` the last one with the policy's quorum; empty without one.
    """

    number: int
    size: int
    cursor: bytes
    note: bytes
    witnessed: bytes


@dataclass(frozen=True, slots=True)
class Submitted:
    """What is to become an entry of the log; the time is the store's own."""

    id: int
    kind: str
    payload: bytes
    at_ns: int


@dataclass(frozen=True, slots=True)
class Unsealed:
    """An epoch whose seal is not in the log, and what decides whether it is final.

    `state` is its session's. `followed` says that a later epoch of the session has a head.
    `changed_ns` is the store's time of the last publication that changed the head, or that made its
    session `incomplete`.
    """

    head: Head
    state: str
    followed: bool
    changed_ns: int
