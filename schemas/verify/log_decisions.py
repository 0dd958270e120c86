"""What was decided about sessions, as a monitor follows it: terms, holds, releases, deletions.

Times are those at which checkpoints were witnessed: no clock of the system that writes the log can
make a session old enough.
"""

from __future__ import annotations

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
    """An intent says that a session is old enough; to be judged when both are witnessed."""

    place: Place
    session: bytes
    retain_s: int


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
        self._going: set[bytes] = set()
        """Sessions that an intent names."""

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
        living = {item.session for item, _ in fragments} - self._going
        if living:
            reason = f"session {min(living).hex()} lives, one of {len(living)} in it"
            self._report("objects", place, f"the object of segment {digest.hex()}: {reason}")

    def witnessed(self, at_ns: int, limits: Limits) -> None:
        """A checkpoint over all that was taken is witnessed."""
        for item in self._aged:
            kept = self._kept(item.session)
            who = f"session {item.session.hex()}"
            if kept is None or not kept.witnessed_ns:
                self._report("early", item.place, f"{who} is not sealed")
            elif at_ns + limits.skew_s * NS < kept.witnessed_ns + item.retain_s * NS:
                reason = f"must be kept for {item.retain_s} seconds from its witnessed seal on"
                self._report("early", item.place, f"{who} {reason}")
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
        if body.basis == "expired":
            for session in body.sessions:
                self._age(place, session)
        self._intents[ident] = Intent(place, body.sessions)
        self._fresh.append(ident)
        self._going.update(body.sessions)

    def _age(self, place: Place, session: bytes) -> None:
        kept = self._kept(session)
        if kept is None or not kept.sealed:
            self._report("early", place, f"session {session.hex()} is not sealed")
            return
        term = self._terms.get((kept.tenant, kept.class_name), 0)
        self._aged.append(Aged(place, session, max(kept.retain_s, term)))

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
            }
            for item in self._aged
        ]
        return {"terms": terms, "holds": holds, "intents": intents, "aged": aged}

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
            self._going.update(sessions)
            if not intent.witnessed:
                self._fresh.append(ident)
            item.end()
        for item in fields.objects("aged", max_items=_MAX_LISTED):
            aged = Aged(
                read_place(item, "place"),
                item.hex("session", SESSION_SIZE),
                item.integer("retain_s"),
            )
            self._aged.append(aged)
            item.end()
        fields.end()


def _hexes(sessions: Collection[bytes]) -> list[Json]:
    return [session.hex() for session in sorted(sessions)]


def _sessions(fields: Fields, name: str) -> tuple[bytes, ...]:
    return fields.hexes(name, SESSION_SIZE, max_items=MAX_SESSIONS)
