"""Whose signatures count in a log, by the place where they stand: as a monitor follows it.

The administrators that the reader's own policy names are the root. The first `key` entries of a
shard introduce them; from then on a signature counts if its key was introduced before and is not
revoked from the entry's index on, or from before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from sealtape.schemas.canonical import Fields, Json
from sealtape.schemas.cosignatures import verifier_of
from sealtape.schemas.errors import FormatError
from sealtape.schemas.notes import Verifier, open_note, parse_note
from sealtape.schemas.tlog.records import Listed
from sealtape.schemas.tlog.statements import (
    DoneStatement,
    IntentStatement,
    KeyStatement,
    ReleaseStatement,
    Statement,
)
from sealtape.schemas.tree import HASH_SIZE, CompactRange, leaf_hash
from sealtape.schemas.verify.violations import Place, Report

ADMIN: Final = "admin"
REAPER: Final = "reaper"
TWO: Final = 2
"""So many administrators, at least, lift a hold or erase before the time."""

_SIGNING: Final = (ADMIN, "node", "log", "witness", "monitor", REAPER)
_MAX_I64: Final = 2**63 - 1
_MAX_LISTED: Final = 1 << 24


@dataclass(slots=True)
class Key:
    """A key of the shard, what it is for, and from which index on it counts no more."""

    role: str
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Need:
    """Who must sign: so many keys of a role."""

    role: str
    count: int


@dataclass(frozen=True, slots=True)
class Signed:
    """A statement that was taken: what it needed, and by which keys it was signed."""

    index: int
    need: Need
    keys: tuple[str, ...]


class KeyBook:
    """The keys of a shard of the log, and what they signed."""

    def __init__(self, report: Report, admins: Sequence[Verifier], threshold: int) -> None:
        """Of no key; `threshold` of the administrators must sign. Wrongs go to `report`."""
        self._report = report
        self._admins = {admin.vkey: admin for admin in admins}
        self._threshold = threshold
        self._keys: dict[str, Key] = {}
        self._signed: list[Signed] = []
        self._entries = CompactRange()
        self._begun = False
        """Whether a `key` entry was something else than an administrator of the policy."""

    def begin(self) -> None:
        """A shard of the log begins: it introduces its keys anew."""
        self._keys, self._signed, self._entries, self._begun = {}, [], CompactRange(), False

    def listed(self) -> Listed:
        """As a heartbeat lists all `key` entries."""
        return Listed(len(self._entries), self._entries.root())

    def take(self, place: Place, statement: Statement, entry: bytes) -> bool:
        """A statement, and the bytes of its entry; whether it has the signatures that it needs."""
        need = self._need(statement)
        body = statement.body
        rooted = isinstance(body, KeyStatement) and self._roots(body)
        try:
            keys = self._signers(place[1], statement.note, need.role, rooted=rooted)
        except FormatError as exc:
            self._report("signed", place, f"{statement.kind}: {exc.message}")
            keys = ()
        else:
            if len(keys) < need.count:
                reason = f"{len(keys)} signatures by a known {need.role}, {need.count} are needed"
                self._report("signed", place, f"{statement.kind} with {reason}")
        if isinstance(body, KeyStatement):
            self._begun = self._begun or not rooted
            self._entries.append(leaf_hash(entry))
        if len(keys) < need.count:
            return False
        self._signed.append(Signed(place[1], need, keys))
        if isinstance(body, KeyStatement):
            self._change(place, body)
        return True

    def _need(self, statement: Statement) -> Need:
        body = statement.body
        if isinstance(body, DoneStatement):
            return Need(REAPER, 1)
        if isinstance(body, IntentStatement):
            two = max(TWO, self._threshold)
            return Need(REAPER, 1) if body.basis == "expired" else Need(ADMIN, two)
        if isinstance(body, ReleaseStatement):
            return Need(ADMIN, max(TWO, self._threshold))
        return Need(ADMIN, self._threshold)

    def _roots(self, body: KeyStatement) -> bool:
        """Whether it introduces an administrator of the policy before anything else was said."""
        first = body.action == "introduce" and body.role == ADMIN and body.key in self._admins
        return first and not self._begun

    def _signers(self, index: int, note: bytes, role: str, *, rooted: bool) -> tuple[str, ...]:
        """The keys of a role that signed a note and count at an index."""
        known = {vkey: Verifier.from_vkey(vkey) for vkey in self._counting(role, index)}
        if rooted:
            known.update(self._admins)
        if not known:
            return ()
        by = {(key.name, key.key_id): vkey for vkey, key in known.items()}
        signers = {(item.name, item.key_id) for item in parse_note(note).unverified}
        if not signers & set(by):
            return ()
        opened = open_note(note, list(known.values()))
        return tuple(sorted(by[item.name, item.key_id] for item in opened.verified))

    def _counting(self, role: str, index: int) -> Iterator[str]:
        for vkey, key in self._keys.items():
            if key.role == role and (key.until is None or index < key.until):
                yield vkey

    # -- changes -----------------------------------------------------------------------------------

    def _change(self, place: Place, body: KeyStatement) -> None:
        wrong = self._wrong(body)
        if wrong:
            self._report("keys", place, f"{body.action} of {body.key[:64]} as {body.role}: {wrong}")
        elif body.since is not None:
            self._keys[body.key].until = body.since
            self._judge_again(place, body.key, body.since)
        else:
            if body.replaces:
                self._keys[body.replaces].until = place[1] + 1
            self._keys[body.key] = Key(body.role)

    def _wrong(self, body: KeyStatement) -> str:
        """Why the keys do not allow it; empty when they do."""
        known = self._keys.get(body.replaces or body.key)
        if body.action != "introduce" and (known is None or known.role != body.role):
            return "no such key was introduced"
        until = None if known is None else known.until
        if body.since is not None:
            late = until is not None and body.since >= until
            return "its signatures count no more from an earlier index on" if late else ""
        if until is not None and body.replaces:
            return "the key that it replaces counts no more"
        half = body.key.split("+", 2)[-1]
        if any(half == vkey.split("+", 2)[-1] for vkey in self._keys if self._same(vkey, body)):
            return "it was introduced before"
        return _unreadable(body)

    def _same(self, vkey: str, body: KeyStatement) -> bool:
        """Whether a key is of the same role, so that it must not be there under two names."""
        return vkey == body.key or self._keys[vkey].role == body.role

    def _judge_again(self, place: Place, vkey: str, since: int) -> None:
        """What a revoked key signed from `since` on has one signature less."""
        for at, item in enumerate(self._signed):
            if item.index >= since and vkey in item.keys:
                keys = tuple(key for key in item.keys if key != vkey)
                self._signed[at] = Signed(item.index, item.need, keys)
                if len(keys) == item.need.count - 1:
                    reason = f"the key of a signature is revoked from {since} on by {place[1]}"
                    self._report("signed", (place[0], item.index), reason)

    # -- kept --------------------------------------------------------------------------------------

    def members(self) -> dict[str, Json]:
        """The state, as JSON."""
        keys: list[Json] = [
            {
                "key": vkey,
                "role": key.role,
                "until": None if key.until is None else str(key.until),
            }
            for vkey, key in self._keys.items()
        ]
        signed: list[Json] = [
            {
                "index": str(item.index),
                "role": item.need.role,
                "count": item.need.count,
                "keys": list(item.keys),
            }
            for item in self._signed
        ]
        entries: Json = {
            "count": str(len(self._entries)),
            "nodes": [node.hex() for node in self._entries.nodes],
        }
        return {"keys": keys, "signed": signed, "entries": entries, "begun": self._begun}

    def read(self, fields: Fields) -> None:
        """Read what `members` gave."""
        for item in fields.objects("keys", max_items=_MAX_LISTED):
            until = None if item.null("until") else item.decimal("until", 0, _MAX_I64)
            self._keys[item.text("key")] = Key(item.text("role"), until)
            item.end()
        for item in fields.objects("signed", max_items=_MAX_LISTED):
            need = Need(item.text("role"), item.integer("count"))
            index = item.decimal("index", 0, _MAX_I64)
            self._signed.append(Signed(index, need, item.texts("keys")))
            item.end()
        entries = fields.object("entries")
        nodes = entries.hexes("nodes", HASH_SIZE)
        self._entries = CompactRange(0, entries.decimal("count", 0, _MAX_I64), nodes)
        entries.end()
        self._begun = fields.boolean("begun")
        fields.end()


def _unreadable(body: KeyStatement) -> str:
    """Why a key that is to sign cannot; readers' public halves are not looked at."""
    if body.role not in _SIGNING:
        return ""
    try:
        if body.role in (ADMIN, REAPER):
            Verifier.from_vkey(body.key)
        else:
            verifier_of(body.key)
    except FormatError as exc:
        return exc.message
    return ""
