"""The sessions of a log, as a monitor follows them: opened, recovered, sealed, each epoch once.

A session stays for ever, in 53 to 93 bytes: that it was there, whose it was, how long it must be
kept and since when. Only epochs without a seal take more.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from sealtape.schemas.canonical import Fields, Json
from sealtape.schemas.frames import SESSION_SIZE
from sealtape.schemas.segments import SegmentRecord
from sealtape.schemas.tlog.records import SessionOpen, SessionSeal
from sealtape.schemas.verify.log_epochs import Continued, Epoch, Opened
from sealtape.schemas.verify.log_numbers import SessionNumbers
from sealtape.schemas.verify.log_segments import Leafed
from sealtape.schemas.verify.packing import packed, unpacked
from sealtape.schemas.verify.violations import (
    NS,
    Limits,
    Place,
    Report,
    place_members,
    read_place,
)

Name: TypeAlias = tuple[bytes, int]
"""A session and an epoch of it."""

Group: TypeAlias = tuple[str, str]
"""A tenant and a retention class."""

AFTER_SEAL: Final = "after_seal"
CONTINUATION: Final = "continuation"

_JOURNAL: Final = 1
_CLOSED: Final = 2
_STATED: Final = {"after-seal": 4, "continues": 8}
# Frames that came after the seal are missing in it, so it may end before the next epoch begins.
_RULES: Final = {AFTER_SEAL: ("after-seal", "continues"), CONTINUATION: ("continues",)}
_MAX_LISTED: Final = 1 << 24
_KEPT: Final = struct.Struct(">IQqIIQB")
_END: Final = struct.Struct(">Q32s")
_ROW: Final = SESSION_SIZE + _KEPT.size + _END.size
_NO_END: Final = (0, bytes(32))


@dataclass(slots=True)
class Session:
    """What is kept of a session.

    Attributes:
        worker: rank of the worker that numbered it.
        number: the number there.
        witnessed_ns: since when its last seal is witnessed; 0 while it is not, or is not there.
        retain_s: the longest time for which an OPEN of it says that it must be kept.
        group: its tenant and class, by rank.
        epochs: how many were opened.
        flags: journal; closed; what incidents have stated about it.
        end: frames and root of its last epoch's seal, unless that one was closed.
    """

    worker: int
    number: int
    witnessed_ns: int = 0
    retain_s: int = 0
    group: int = 0
    epochs: int = 0
    flags: int = 0
    end: tuple[int, bytes] = _NO_END

    def pack(self) -> bytes:
        """As it is kept."""
        head = _KEPT.pack(
            self.worker,
            self.number,
            self.witnessed_ns,
            self.retain_s,
            self.group,
            self.epochs,
            self.flags,
        )
        return head if self.end == _NO_END else head + _END.pack(*self.end)

    @classmethod
    def unpack(cls, kept: bytes) -> Session:
        """Read what `pack` gave."""
        found = cls(*_KEPT.unpack(kept[: _KEPT.size]))
        if len(kept) > _KEPT.size:
            found.end = _END.unpack(kept[_KEPT.size :])
        return found


@dataclass(frozen=True, slots=True)
class Kept:
    """How long a session must be kept: whose class, at least how long, and since when.

    `sealed` is whether every epoch of it is; `witnessed_ns` is 0 while the last seal is not;
    `epochs` is how many were opened.
    """

    tenant: str
    class_name: str
    retain_s: int
    sealed: bool
    witnessed_ns: int
    epochs: int = 1


class SessionBook:
    """All sessions, and the epochs that have no seal."""

    def __init__(self, report: Report, numbers: SessionNumbers) -> None:
        """Of no session; what is wrong goes to `report`."""
        self._report = report
        self._numbers = numbers
        self._sessions: dict[bytes, bytes] = {}
        self._groups: dict[Group, int] = {}
        self._group_names: list[Group] = []
        self._live: dict[Name, Epoch] = {}
        self._unsealed: dict[bytes, int] = {}
        """How many epochs of a session are opened and not sealed, where there are any."""
        self._due: dict[tuple[str, bytes], tuple[Place, int, str]] = {}
        """What an incident has to state: the rule, of which session; where, when, and why."""
        self._stated: dict[bytes, int] = {}
        """What incidents have stated about sessions that are not opened yet, as flags."""
        self._sealed: dict[bytes, None] = {}
        """Sessions with a seal since the last witnessed checkpoint."""
        self.open = 0
        """Epochs that are opened and not sealed."""

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def live(self) -> int:
        """How many epochs are remembered with all that has come of them."""
        return len(self._live)

    def kept(self, session: bytes) -> Kept | None:
        """How long a session must be kept; None for one that never opened."""
        found = self._get(session)
        if found is None:
            return None
        tenant, class_name = self._group_names[found.group]
        sealed = session not in self._unsealed
        return Kept(tenant, class_name, found.retain_s, sealed, found.witnessed_ns, found.epochs)

    # -- opening -----------------------------------------------------------------------------------

    def open_epoch(self, place: Place, entry: SessionOpen) -> None:
        """A `session-open`."""
        who = _named(entry.session, entry.epoch)
        session = self._get(entry.session)
        known = 0 if session is None else session.epochs
        self.open += 1
        if entry.epoch < known:
            self._report("open-once", place, f"{who} is opened a second time")
            return
        follows = entry.continues
        if (None if follows is None else follows.epoch + 1) != (entry.epoch or None):
            self._report("epochs", place, f"{who} does not say that it continues the one before")
        if session is None:
            session = Session(self._numbers.take(place, entry), entry.number)
            session.flags = _JOURNAL if entry.of == "journal" else 0
            session.flags |= self._stated.pop(entry.session, 0)
        else:
            self._identity(place, entry, session)
        if entry.epoch > known:
            self._must_state(place, entry, session, f"epoch {entry.epoch - 1} was not opened")
        elif follows is not None:
            self._follow(place, entry, Continued(place, follows.size, follows.root), session)
        session.epochs = entry.epoch + 1
        session.retain_s = max(session.retain_s, entry.retention.retain_for_s)
        session.group = self._group((entry.tenant, entry.retention.name))
        session.witnessed_ns = 0
        self._put(entry.session, session)
        epoch = self._live.setdefault((entry.session, entry.epoch), Epoch())
        epoch.opened = Opened.by(place, entry)
        self._unsealed[entry.session] = self._unsealed.get(entry.session, 0) + 1

    def _identity(self, place: Place, entry: SessionOpen, session: Session) -> None:
        worker = self._numbers.again(place, entry)
        journal = _JOURNAL if entry.of == "journal" else 0
        same = (worker, entry.number, journal) == (
            session.worker,
            session.number,
            session.flags & _JOURNAL,
        )
        if not same or self._group_names[session.group][0] != entry.tenant:
            who = _named(entry.session, entry.epoch)
            self._report("identity", place, f"{who} has another node, number or tenant than before")

    def _follow(self, place: Place, entry: SessionOpen, end: Continued, session: Session) -> None:
        """The epoch before ends as this one says: now if it is sealed, else when it is."""
        before = self._live.get((entry.session, entry.epoch - 1))
        if before is not None:
            before.continued = end
        elif session.flags & _CLOSED:
            self._must_state(place, entry, session, "it was closed")
        elif session.end[0] != end.size or session.end[1] not in (end.root, bytes(32)):
            reason = f"{end.size} frames are continued, {session.end[0]} were sealed"
            self._must_state(place, entry, session, reason)

    # -- frames ------------------------------------------------------------------------------------

    def take_fragments(
        self,
        place: Place,
        record: SegmentRecord,
        digest: bytes,
        fragments: Sequence[Leafed] | None,
    ) -> None:
        """What lies in a segment; None when that is not known."""
        if fragments is None:
            for known in self._live.values():
                known.blind = True
            return
        for item, leaf in fragments:
            name = (item.session, item.epoch)
            session = self._get(item.session)
            epoch: Epoch | None = self._live.get(name)
            if epoch is None and session is not None and item.epoch < session.epochs:
                reason = f"frames of {_named(*name)} lie in a segment after its seal"
                self._state_later("after-seal", place, record.sealed_at_ns, session, name, reason)
                continue
            if epoch is None:
                epoch = self._live[name] = Epoch()
            if epoch.opened is None and not item.lo:
                self._report("unopened", place, f"{_named(*name)} has frames, but was not opened")
            self._check_class(place, record, epoch, name)
            epoch.add(self._report, place, item, leaf, digest)
            epoch.heard_ns = max(epoch.heard_ns, record.sealed_at_ns)

    def replace(self, old: Collection[bytes], fragments: Sequence[Leafed], digest: bytes) -> None:
        """Segments were replaced by one with these fragments."""
        new: dict[Name, list[tuple[int, bytes]]] = {}
        for item, leaf in fragments:
            new.setdefault((item.session, item.epoch), []).append((item.lo, leaf))
        for name, parts in new.items():
            if (epoch := self._live.get(name)) is not None:
                epoch.exchange(old, parts, digest)

    def _check_class(self, place: Place, record: SegmentRecord, epoch: Epoch, name: Name) -> None:
        opened = epoch.opened
        if opened is not None and (opened.tenant, opened.retention) != (
            record.tenant,
            record.retention,
        ):
            reason = f"{_named(*name)} lies in a segment of another tenant or class"
            self._report("class", place, reason)

    # -- sealing -----------------------------------------------------------------------------------

    def seal(self, place: Place, seal: SessionSeal) -> None:
        """A `session-seal`."""
        name = (seal.session, seal.epoch)
        session = self._get(seal.session)
        self.open -= 1
        if session is None or seal.epoch >= session.epochs:
            self._live.pop(name, Epoch()).check(self._report, place, seal)
            return
        epoch = self._live.pop(name, None)
        if epoch is None:
            self._report("seal-once", place, f"{_named(*name)} is sealed a second time")
            return
        if epoch.opened is not None:
            left = self._unsealed.pop(seal.session) - 1
            if left:
                self._unsealed[seal.session] = left
        epoch.check(self._report, place, seal)
        if epoch.continued is not None:
            self._check_end(place, seal, session, epoch.continued)
        if seal.epoch + 1 == session.epochs:
            session.end = _NO_END if seal.closed else (seal.frames, seal.root or bytes(32))
            session.flags = session.flags & ~_CLOSED | (_CLOSED if seal.closed else 0)
        self._put(seal.session, session)
        self._sealed[seal.session] = None

    def _check_end(self, place: Place, seal: SessionSeal, session: Session, end: Continued) -> None:
        if seal.closed or seal.frames != end.size or seal.root not in (b"", end.root):
            closed = "and CLOSE " if seal.closed else ""
            reason = f"{seal.frames} frames {closed}are sealed, {end.size} were continued"
            self._must_state(place, seal, session, reason)

    # -- what has to be stated ---------------------------------------------------------------------

    def state(self, session: bytes, reason: str) -> None:
        """An incident of a session, with its reason."""
        rules = _RULES.get(reason, ())
        stated = sum(_STATED[rule] for rule in rules)
        found = self._get(session)
        if found is None:  # ingest tells it before the segment with the OPEN is there
            if session and stated:
                self._stated[session] = self._stated.get(session, 0) | stated
            return
        found.flags |= stated
        for rule in rules:
            self._due.pop((rule, session), None)
        self._put(session, found)

    def _must_state(
        self, place: Place, entry: SessionOpen | SessionSeal, session: Session, reason: str
    ) -> None:
        name = (entry.session, entry.epoch)
        text = f"{_named(*name)}: {reason}"
        self._state_later("continues", place, entry.at_ns, session, name, text)

    def _state_later(
        self, rule: str, place: Place, at_ns: int, session: Session, name: Name, reason: str
    ) -> None:
        if not session.flags & _STATED[rule]:
            self._due.setdefault((rule, name[0]), (place, at_ns, reason))

    # -- time --------------------------------------------------------------------------------------

    def witnessed(self, at_ns: int) -> None:
        """A checkpoint over all that was taken is witnessed."""
        for name in self._sealed:
            session = self._get(name)
            kept = self.kept(name)
            if session is not None and kept is not None and kept.sealed:
                session.witnessed_ns = at_ns
                self._put(name, session)
        self._sealed = {}

    def unstated(self, now_ns: int, limits: Limits) -> Iterator[tuple[str, Place, str]]:
        """What should have been stated by now; each is told once."""
        before = now_ns - limits.missing_s * NS
        for key, (place, at_ns, reason) in list(self._due.items()):
            if at_ns < before:
                del self._due[key]
                yield key[0], place, f"{reason}, and no incident says so"

    def overdue(self, now_ns: int, limits: Limits) -> Iterator[tuple[Place, str]]:
        """Epochs that should have a seal by now: the places of their openings, and reasons."""
        for name, epoch in self._live.items():
            opened = epoch.opened
            if opened is not None:
                limit = limits.journal_s if opened.of == "journal" else limits.session_s
                if max(opened.at_ns, epoch.heard_ns) < now_ns - limit * NS:
                    reason = f"{_named(*name)} has no seal after {limit} seconds without frames"
                    yield opened.place, reason

    # -- kept --------------------------------------------------------------------------------------

    def members(self) -> dict[str, Json]:
        """The state, as JSON."""
        rows = [
            name + kept.ljust(_ROW - SESSION_SIZE, b"\0") for name, kept in self._sessions.items()
        ]
        groups: list[Json] = [
            {"tenant": tenant, "class": name} for tenant, name in self._group_names
        ]
        live: list[Json] = [
            {"session": session.hex(), "epoch": epoch, **item.members()}
            for (session, epoch), item in self._live.items()
        ]
        due: list[Json] = [
            {
                "rule": rule,
                "session": session.hex(),
                "place": place_members(place),
                "at_ns": str(at_ns),
                "reason": reason,
            }
            for (rule, session), (place, at_ns, reason) in self._due.items()
        ]
        sealed = packed(list(self._sealed))
        stated = packed([name + bytes([flags]) for name, flags in self._stated.items()])
        return {
            "sessions": packed(rows),
            "groups": groups,
            "live": live,
            "due": due,
            "sealed": sealed,
            "stated": stated,
            "open": str(self.open),
        }

    def read(self, fields: Fields) -> None:
        """Read what `members` gave."""
        for row in unpacked(fields, "sessions", _ROW):
            kept = row[SESSION_SIZE:]
            end = _END.unpack(kept[_KEPT.size :]) == _NO_END
            self._sessions[row[:SESSION_SIZE]] = kept[: _KEPT.size] if end else kept
        for item in fields.objects("groups", max_items=_MAX_LISTED):
            self._group((item.text("tenant"), item.text("class")))
            item.end()
        for item in fields.objects("live", max_items=_MAX_LISTED):
            name = (item.hex("session", SESSION_SIZE), item.integer("epoch"))
            self._live[name] = Epoch.read(item)
            if self._live[name].opened is not None:
                self._unsealed[name[0]] = self._unsealed.get(name[0], 0) + 1
            item.end()
        for item in fields.objects("due", max_items=_MAX_LISTED):
            key = (item.text("rule", choices=tuple(_STATED)), item.hex("session", SESSION_SIZE))
            due = (read_place(item, "place"), item.time_ns("at_ns"), item.text("reason"))
            self._due[key] = due
            item.end()
        self._sealed = dict.fromkeys(unpacked(fields, "sealed", SESSION_SIZE))
        if fields.has("stated"):  # versions before did not keep them
            rows = unpacked(fields, "stated", SESSION_SIZE + 1)
            self._stated = {row[:SESSION_SIZE]: row[SESSION_SIZE] for row in rows}
        self.open = fields.decimal("open", -(2**63), 2**63 - 1)
        fields.end()

    def _group(self, name: Group) -> int:
        rank = self._groups.setdefault(name, len(self._groups))
        if rank == len(self._group_names):
            self._group_names.append(name)
        return rank

    def _get(self, session: bytes) -> Session | None:
        kept = self._sessions.get(session)
        return None if kept is None else Session.unpack(kept)

    def _put(self, session: bytes, found: Session) -> None:
        self._sessions[session] = found.pack()


def _named(session: bytes, epoch: int) -> str:
    return f"session {session.hex()} epoch {epoch}"
