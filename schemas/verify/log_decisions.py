"""What was decided about sessions, as a monitor follows it: terms, holds, releases, deletions.

Times are those at which checkpoints were witnessed: no clock of the system that writes the log can
make a session old enough.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from sealtape.schemas.canonical import Fields, Json
from sealtape.schemas.frames import SESSION_SIZE
from sealtape.schemas.tlog.statements import (
    ID_SIZE,
    MAX_SESSIONS,
    Body,
    DoneStatement,
    HoldStatement,
    IntentStatement,
    PolicyStatement,
    ReleaseStatement,
)
from sealtape.schemas.verify.log_segments import Leafed
from sealtape.schemas.verify.log_sessions import Kept
from sealtape.schemas.verify.packing import packed, unpacked
from sealtape.schemas.verify.violations import (
    NS,
    Limits,
    Place,
    Report,
    place_members,
    read_place,
)

Keeper: TypeAlias = Callable[[bytes], Kept | None]
"""Says how long a session must be kept; None when it never opened."""

_MAX_LISTED: Final = 1 << 24
_COUNT: Final = struct.Struct(">Q")
_ALL: Final = 1 << 32


@dataclass(slots=True)
class Hold:
    """The sessions of a hold, and those of them that are released."""

    sessions: frozenset[bytes]
    released: set[bytes]


@dataclass(slots=True)
class Intent:
    """A deletion that was announced: of what, where; under a witnessed checkpoint; done."""

    place: Place
    sessions: tuple[bytes, ...]
    witnessed: bool = False
    done: bool = False


@dataclass(frozen=True, slots=True)
class Aged:
    """An intent says that a session is old enough; to be judged when both are witnessed.

    `since_ns` is when the last seal before the intent was witnessed; 0 when it was not yet.
    """

    place: Place
    session: bytes
    retain_s: int
    since_ns: int


class Decisions:
    """Policies, holds and deletions."""

    def __init__(self, report: Report, kept: Keeper) -> None:
        """Of nothing; what is wrong goes to `report`."""
        self._report = report
        self._kept = kept
        self._terms: dict[tuple[str, str], int] = {}
        self._holds: dict[bytes, Hold] = {}
        self._intents: dict[bytes, Intent] = {}
        self._aged: list[Aged] = []
        self._fresh: list[bytes] = []
        """Intents since the last witnessed checkpoint."""
        self._going: dict[bytes, int] = {}
        """Sessions that an intent names, with how many epochs of them were opened before."""

    def take(self, place: Place, ident: bytes, body: Body) -> None:
        """A statement that has its signatures."""
        match body:
            case PolicyStatement():
                terms = body.retention
                self._terms[body.tenant, terms.name] = terms.retain_for_s
            case HoldStatement():
                self._holds[ident] = Hold(frozenset(body.sessions), set())
            case ReleaseStatement():
                self._release(place, body)
            case IntentStatement():
                self._intent(place, ident, body)
            case DoneStatement():
                self._done(place, body)
            case _:
                pass  # keys decide nothing about sessions

    def take_objects(self, place: Place, digest: bytes, fragments: Sequence[Leafed]) -> None:
        """A segment's object was removed; it held these fragments."""
        living = {
            item.session for item, _ in fragments if item.epoch >= self._going.get(item.session, 0)
        }
        if living:
            reason = f"of session {min(living).hex()}, one of {len(living)}, frames in it live"
            self._report("objects", place, f"the object of segment {digest.hex()}: {reason}")

    def witnessed(self, at_ns: int, limits: Limits) -> None:
        """A checkpoint over all that was taken is witnessed."""
        for item in self._aged:
            # What its node brings behind the intent, after a long time, is not what is deleted.
            since_ns = item.since_ns or at_ns
            if at_ns + limits.skew_s * NS < since_ns + item.retain_s * NS:
                reason = f"must be kept for {item.retain_s} seconds from its witnessed seal on"
                self._report("early", item.place, f"session {item.session.hex()} {reason}")
        for ident in self._fresh:
            self._intents[ident].witnessed = True
        self._aged, self._fresh = [], []

    def _release(self, place: Place, body: ReleaseStatement) -> None:
        hold = self._holds.get(body.hold)
        if hold is None:
            self._report("release", place, f"there is no hold {body.hold.hex()} before it")
        elif not hold.sessions.issuperset(body.sessions):
            self._report("release", place, f"hold {body.hold.hex()} is not of all its sessions")
        else:
            hold.released.update(body.sessions)

    def _intent(self, place: Place, ident: bytes, body: IntentStatement) -> None:
        self._check_held(place, body.sessions)
        for session in body.sessions:
            kept = self._kept(session)
            self._going[session] = 0 if kept is None else kept.epochs
            if body.basis == "expired":
                self._age(place, session, kept)
        self._intents[ident] = Intent(place, body.sessions)
        self._fresh.append(ident)

    def _age(self, place: Place, session: bytes, kept: Kept | None) -> None:
        if kept is None or not kept.sealed:
            self._report("early", place, f"session {session.hex()} is not sealed")
            return
        term = self._terms.get((kept.tenant, kept.class_name), 0)
        self._aged.append(Aged(place, session, max(kept.retain_s, term), kept.witnessed_ns))

    def _done(self, place: Place, body: DoneStatement) -> None:
        intent = self._intents.get(body.intent)
        if intent is None or intent.place[1] != body.index:
            self._report("done", place, f"no intent {body.intent.hex()} stands at {body.index}")
            return
        if intent.done:
            self._report("done", place, f"intent {body.intent.hex()} is done a second time")
        elif not intent.witnessed:
            self._report("done", place, f"intent {body.intent.hex()} was not witnessed before")
        intent.done = True
        self._check_held(place, intent.sessions)

    def _check_held(self, place: Place, sessions: Collection[bytes]) -> None:
        for ident, hold in self._holds.items():
            held = (hold.sessions - hold.released).intersection(sessions)
            if held:
                reason = f"session {min(held).hex()} is under hold {ident.hex()}"
                self._report("held", place, reason)

    # -- kept --------------------------------------------------------------------------------------

    def members(self) -> dict[str, Json]:
        """The state, as JSON."""
        terms: list[Json] = [
            {"tenant": tenant, "class": name, "retain_s": term}
            for (tenant, name), term in self._terms.items()
        ]
        holds: list[Json] = [
            {
                "id": ident.hex(),
                "sessions": _hexes(hold.sessions),
                "released": _hexes(hold.released),
            }
            for ident, hold in self._holds.items()
        ]
        intents: list[Json] = [
            {
                "id": ident.hex(),
                "place": place_members(item.place),
                "sessions": _hexes(item.sessions),
                "witnessed": item.witnessed,
                "done": item.done,
            }
            for ident, item in self._intents.items()
        ]
        aged: list[Json] = [
            {
                "place": place_members(item.place),
                "session": item.session.hex(),
                "retain_s": item.retain_s,
                "since_ns": str(item.since_ns),
            }
            for item in self._aged
        ]
        going = packed([name + _COUNT.pack(epochs) for name, epochs in self._going.items()])
        return {
            "terms": terms, "holds": holds, "intents": intents, "aged": aged, "going": going,
        }  # fmt: skip

    def read(self, fields: Fields) -> None:
        """Read what `members` gave."""
        for item in fields.objects("terms", max_items=_MAX_LISTED):
            self._terms[item.text("tenant"), item.text("class")] = item.integer("retain_s")
            item.end()
        for item in fields.objects("holds", max_items=_MAX_LISTED):
            hold = Hold(frozenset(_sessions(item, "sessions")), set(_sessions(item, "released")))
            self._holds[item.hex("id", ID_SIZE)] = hold
            item.end()
        for item in fields.objects("intents", max_items=_MAX_LISTED):
            ident, sessions = item.hex("id", ID_SIZE), _sessions(item, "sessions")
            intent = Intent(
                read_place(item, "place"), sessions, item.boolean("witnessed"), item.boolean("done")
            )
            self._intents[ident] = intent
            self._going.update(dict.fromkeys(sessions, _ALL))
            if not intent.witnessed:
                self._fresh.append(ident)
            item.end()
        for item in fields.objects("aged", max_items=_MAX_LISTED):
            session = item.hex("session", SESSION_SIZE)
            kept = self._kept(session)
            aged = Aged(
                read_place(item, "place"),
                session,
                item.integer("retain_s"),
                item.time_ns("since_ns")
                if item.has("since_ns")  # versions before asked when it was judged
                else (0 if kept is None else kept.witnessed_ns),
            )
            self._aged.append(aged)
            item.end()
        if fields.has("going"):  # versions before deleted all epochs
            for row in unpacked(fields, "going", SESSION_SIZE + _COUNT.size):
                (self._going[row[:SESSION_SIZE]],) = _COUNT.unpack(row[SESSION_SIZE:])
        fields.end()


def _hexes(sessions: Collection[bytes]) -> list[Json]:
    return [session.hex() for session in sorted(sessions)]


def _sessions(fields: Fields, name: str) -> tuple[bytes, ...]:
    return fields.hexes(name, SESSION_SIZE, max_items=MAX_SESSIONS)
