"""What a monitor checks: that the entries of a log, one after the other, keep the rules.

A witness states that a log only grows. A monitor is a witness that has read what it grew by: each
epoch sealed once, chains without a break, fragments that cover sessions, numbers without a hole,
keys that were introduced, no deletion before its time. The rules, each with its id and an example,
are those of docs/spec/monitor.md.

Feed every entry from the first one on (`take`), say whenever a checkpoint over all that was fed is
witnessed (`witnessed`), and when the log goes on in its next shard (`turn`). What is wrong is
collected, and reading goes on: one broken rule does not hide another. Needed besides the entries
are the manifests of segments; no payload, and no secret.

Not safe in several threads at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from sealtape.schemas import canonical, notes
from sealtape.schemas.canonical import Fields, Json
from sealtape.schemas.errors import DigestError, FormatError
from sealtape.schemas.segments import SegmentRecord
from sealtape.schemas.tlog.records import (
    Entry,
    Heartbeat,
    LogIncident,
    LogStart,
    SessionOpen,
    SessionSeal,
    parse_entry,
)
from sealtape.schemas.tlog.statements import ID_SIZE, DoneStatement, Statement
from sealtape.schemas.tree import HASH_SIZE, CompactRange, leaf_hash
from sealtape.schemas.verify.log_beats import Pulse, Standing
from sealtape.schemas.verify.log_decisions import Decisions
from sealtape.schemas.verify.log_keys import KeyBook
from sealtape.schemas.verify.log_numbers import SessionNumbers
from sealtape.schemas.verify.log_segments import Leafed, Manifests, SegmentChains
from sealtape.schemas.verify.log_sessions import SessionBook
from sealtape.schemas.verify.packing import packed, unpacked
from sealtape.schemas.verify.violations import (
    MAX_VIOLATIONS,
    NS,
    RULES,
    Limits,
    Place,
    Violation,
)

SESSION_MISSING: Final = "session_missing"
"""Why an incident says that the numbers which its session passed never come."""

_MAX_I64: Final = 2**63 - 1
_MAX_LISTED: Final = 1 << 24
_WITH_MANIFESTS: Final = (b'"type":"segment"', b'"type":"tombstone-done"')
_NOTHING: Final[Manifests] = {}
_HEAD, _MIDDLE, _TAIL = b'{"sha256":"', b'","state":', b',"v":1}'


class LogRules:
    """The rules over all entries of a log, from its first shard on.

    Attributes:
        number: the shard that is read.
        size: how many entries of it were taken.
        violations: what was found, in the order in which it was; at most MAX_VIOLATIONS.
        suppressed: how many more there were.
        late: what was missing when a checkpoint was last witnessed. It may still come.
    """

    def __init__(
        self,
        *,
        log: str,
        admins: Sequence[notes.Verifier],
        threshold: int = 1,
        limits: Limits | None = None,
        logs: Sequence[notes.NoteVerifier] = (),
    ) -> None:
        """Begin at the first entry.

        Args:
            log: the deployment's log name.
            admins: the administrators whose statements count.
            threshold: how many of them must sign.
            limits: how long to wait before something is late.
            logs: the keys of the log's shards, for the checkpoint that a next shard begins with.
        """
        self.log = log
        self.number = 1
        self.violations: list[Violation] = []
        self.suppressed = 0
        self.late: tuple[Violation, ...] = ()
        self._judged_by = _judged_by(log, admins, threshold, limits or Limits())
        self._logs = logs
        self._limits = limits or Limits()
        self._tree = CompactRange()
        self._before: notes.Checkpoint | None = None
        self._at_ns = 0
        self._told: set[tuple[str, Place, str]] = set()
        self._ids: set[bytes] = set()
        self._pulse = Pulse(self._report, self._limits)
        self._numbers = SessionNumbers(self._report)
        self._sessions = SessionBook(self._report, self._numbers)
        self._chains = SegmentChains(self._report)
        self._keys = KeyBook(self._report, admins, threshold)
        self._decisions = Decisions(self._report, self._sessions.kept)

    @property
    def size(self) -> int:
        """How many entries of the shard were taken."""
        return self._tree.hi

    @property
    def root(self) -> bytes:
        """The root over them."""
        return self._tree.root()

    @property
    def tree(self) -> CompactRange:
        """The tree over them, to be grown further elsewhere."""
        return self._tree.copy()

    @property
    def sessions(self) -> int:
        """How many sessions were ever opened."""
        return len(self._sessions)

    @property
    def open(self) -> int:
        """How many epochs are opened and not sealed."""
        return self._sessions.open

    # -- reading -----------------------------------------------------------------------------------

    def wanted(self, entry: bytes) -> dict[bytes, Place]:
        """The manifests that `take` needs with an entry: hashes of records, and where they stand.

        The place may be the entry's own. What no segment record has is left out.
        """
        if not any(word in entry for word in _WITH_MANIFESTS):
            return {}  # most entries; reading them all twice would take long
        try:
            parsed = parse_entry(entry)
        except FormatError:
            return {}
        digests: tuple[bytes, ...] = ()
        found: dict[bytes, Place] = {}
        if isinstance(parsed, SegmentRecord):
            found[sha256(entry).digest()] = (self.number, self.size)
            digests = parsed.replaces
        elif isinstance(parsed, Statement) and isinstance(parsed.body, DoneStatement):
            digests = parsed.body.objects
        for digest in digests:
            if (known := self._chains.known(digest)) is not None:
                found[digest] = known.place
        return found

    def take(
        self, index: int, entry: bytes, manifests: Manifests = _NOTHING
    ) -> tuple[Violation, ...]:
        """The next entry, with the manifests it wants; returns what is wrong with it.

        Raises FormatError when it is not the next one.
        """
        if index != self.size:
            raise FormatError(f"the next entry is {self.size}, not {index}")
        before = len(self.violations)
        place = (self.number, index)
        try:
            parsed = parse_entry(entry)
        except FormatError as exc:
            self._report("entry", place, exc.message)
            parsed = None
        if index == 0:
            self._keys.begin()
            self._pulse.begin(place, parsed.at_ns if isinstance(parsed, LogStart) else 0)
        if parsed is not None:
            self._start(place, parsed)
            self._dispatch(place, parsed, entry, manifests)
        self._tree.append(leaf_hash(entry))
        return tuple(self.violations[before:])

    def witnessed(self, size: int, at_ns: int) -> tuple[Violation, ...]:
        """A checkpoint over all that was taken is witnessed at that time; returns what is wrong.

        Raises FormatError when other entries were taken.
        """
        if size != self.size:
            raise FormatError(f"{self.size} entries were taken, not {size}")
        before = len(self.violations)
        self._at_ns = max(self._at_ns, at_ns)
        self._pulse.witnessed(at_ns)
        self._sessions.witnessed(at_ns)
        self._decisions.witnessed(at_ns, self._limits)
        for rule, place, reason in self._sessions.unstated(at_ns, self._limits):
            self._report(rule, place, reason)
        self._look(at_ns)
        return tuple(self.violations[before:])

    def turn(self) -> None:
        """The log goes on in its next shard: what was taken is all of this one."""
        origin = f"{self.log}/{self.number}"
        self._before = notes.Checkpoint(origin, self.size, self.root)
        self.number += 1
        self._tree = CompactRange()

    # -- one entry ---------------------------------------------------------------------------------

    def _start(self, place: Place, entry: Entry) -> None:
        first = isinstance(entry, LogStart)
        if first != (not self.size):
            self._report("start", place, "entry 0, and no other, is `log`")
        elif isinstance(entry, LogStart):
            if (entry.log, entry.number) != (self.log, self.number):
                reason = f"it begins {entry.log}/{entry.number}, not {self.log}/{self.number}"
                self._report("start", place, reason)
            elif self._before is not None:
                self._follow(place, entry, self._before)

    def _follow(self, place: Place, entry: LogStart, before: notes.Checkpoint) -> None:
        keys = [key for key in self._logs if key.name == before.origin]
        try:
            opened = notes.open_note(entry.before.encode(), keys)
        except FormatError as exc:
            self._report("start", place, f"the checkpoint before it: {exc.message}")
            return
        found = notes.parse_checkpoint(opened.text)
        if found != before:
            reason = f"it follows {found.size} entries of shard {self.number - 1}"
            self._report("start", place, f"{reason}, not {before.size}, or another root")

    def _dispatch(self, place: Place, entry: Entry, data: bytes, manifests: Manifests) -> None:
        match entry:
            case SegmentRecord():
                self._pulse.mention(place, entry.sealed_at_ns)
                self._segment(place, entry, sha256(data).digest(), manifests)
            case Statement():
                self._statement(place, entry, data, manifests)
            case LogIncident():
                self._pulse.mention(place, entry.at_ns)
                self._incident(entry)
            case SessionOpen():
                self._pulse.tick(place, entry.at_ns)
                self._sessions.open_epoch(place, entry)
            case SessionSeal():
                self._pulse.tick(place, entry.at_ns)
                self._sessions.seal(place, entry)
            case Heartbeat():
                self._pulse.tick(place, entry.at_ns)
                self._pulse.beat(place, entry, self._standing())
            case _:  # `log`: what it says is looked at by itself
                self._pulse.tick(place, entry.at_ns)

    def _standing(self) -> Standing:
        return Standing(
            self._keys.listed(), self._chains.listed(), self._numbers.listed(), self._sessions.open
        )

    def _incident(self, entry: LogIncident) -> None:
        if entry.reason == SESSION_MISSING:
            self._numbers.state(entry.session)
        else:
            self._sessions.state(entry.session, entry.reason)

    def _segment(
        self, place: Place, record: SegmentRecord, digest: bytes, manifests: Manifests
    ) -> None:
        self._chains.take(place, record, digest)
        fragments = self._chains.fragments(place, digest, manifests)
        if not record.replaces:
            self._sessions.take_fragments(place, record, digest, fragments)
            return
        old: list[Leafed] = []
        whole = fragments is not None
        for before in record.replaces:
            if self._chains.known(before) is not None:
                found = self._chains.fragments(place, before, manifests)
                whole = whole and found is not None
                old += found or ()
        if fragments is not None and whole:
            self._chains.covers(place, fragments, old)
            self._sessions.replace(record.replaces, fragments, digest)

    def _statement(
        self, place: Place, statement: Statement, data: bytes, manifests: Manifests
    ) -> None:
        body = statement.body
        heading = body.heading
        self._pulse.mention(place, heading.at_ns)
        if heading.log != self.log:
            self._report("statement-log", place, f"it is for {heading.log}")
        elif heading.id in self._ids:
            self._report("statement-id", place, f"statement {heading.id.hex()} was made before")
        self._ids.add(heading.id)
        if not self._keys.take(place, statement, data):
            return
        self._decisions.take(place, heading.id, body)
        if isinstance(body, DoneStatement):
            for digest in body.objects:
                self._removed(place, digest, manifests)

    def _removed(self, place: Place, digest: bytes, manifests: Manifests) -> None:
        known = self._chains.known(digest)
        if known is None:
            self._report("objects", place, f"{digest.hex()} is no segment before it")
        elif not known.replaced:  # the frames of a replaced one lie elsewhere
            fragments = self._chains.fragments(place, digest, manifests)
            self._decisions.take_objects(place, digest, fragments or ())

    # -- time --------------------------------------------------------------------------------------

    def _look(self, now_ns: int) -> None:
        """What is missing now: each is a violation once, and late while it lasts."""
        limits = self._limits
        missing = self._numbers.overdue(now_ns - limits.missing_s * NS)
        found = [("silent", *item) for item in self._pulse.overdue(now_ns)]
        found += [("missing", *item) for item in missing]
        found += [("unsealed", *item) for item in self._sessions.overdue(now_ns, limits)]
        lasting = set()
        for rule, place, reason in found:
            # The reason of a silence grows with the time.
            key = (rule, place, "" if rule == "silent" else reason)
            lasting.add(key)
            if key not in self._told:
                self._report(rule, place, reason)
        self._told = lasting
        self.late = tuple(Violation(*place, rule, reason) for rule, place, reason in found)

    def _report(self, rule: str, place: Place, reason: str) -> None:
        if len(self.violations) < MAX_VIOLATIONS:
            self.violations.append(Violation(*place, RULES[rule].id, reason))
        else:
            # A log full of nonsense must not fill the memory; it is not cosigned long before.
            self.suppressed += 1

    # -- kept --------------------------------------------------------------------------------------

    def to_json(self) -> bytes:
        """Write all of it, so that reading can go on where it stands, with a digest over it."""
        state: dict[str, Json] = {
            "judged_by": self._judged_by.hex(),
            "number": self.number,
            "tree": {"size": str(self.size), "nodes": [node.hex() for node in self._tree.nodes]},
            "before": "" if self._before is None else self._before.text(),
            "at_ns": str(self._at_ns),
            "violations": [item.members() for item in self.violations],
            "suppressed": str(self.suppressed),
            "late": [item.members() for item in self.late],
            "told": [Violation(*at, rule, text).members() for rule, at, text in sorted(self._told)],
            "ids": packed(sorted(self._ids)),
            "pulse": self._pulse.members(),
            "numbers": self._numbers.members(),
            "sessions": self._sessions.members(),
            "segments": self._chains.members(),
            "keys": self._keys.members(),
            "decisions": self._decisions.members(),
        }
        data = canonical.encode(state)
        return _HEAD + sha256(data).hexdigest().encode() + _MIDDLE + data + _TAIL

    def read(self, data: bytes) -> None:
        """Go on from what `to_json` wrote; only before the first entry.

        Raises FormatError for anything else and for a state that was kept by other administrators,
        threshold or limits, and DigestError when it was changed.
        """
        fields = canonical.fields(_verified(data), "state of a monitor")
        if fields.hex("judged_by") != self._judged_by:
            raise FormatError(
                "the state of a monitor was kept under another policy or other limits",
                hint="Read the log again from its beginning.",
            )
        self.number = fields.integer("number", 1)
        tree = fields.object("tree")
        size = tree.decimal("size", 0, _MAX_I64)
        self._tree = CompactRange(0, size, tree.hexes("nodes", HASH_SIZE))
        tree.end()
        before = fields.text("before")
        self._before = notes.parse_checkpoint(before) if before else None
        self._at_ns = fields.time_ns("at_ns")
        self.violations = _violations(fields, "violations")
        self.suppressed = fields.decimal("suppressed", 0, _MAX_I64)
        self.late = tuple(_violations(fields, "late"))
        told = _violations(fields, "told")
        self._told = {(item.rule, (item.number, item.index), item.reason) for item in told}
        self._ids = set(unpacked(fields, "ids", ID_SIZE))
        self._pulse.read(fields.object("pulse"))
        self._numbers.read(fields, "numbers")
        self._sessions.read(fields.object("sessions"))
        self._chains.read(fields.object("segments"))
        self._keys.read(fields.object("keys"))
        self._decisions.read(fields.object("decisions"))
        fields.end()


def _verified(data: bytes) -> bytes:
    """The state within its digest."""
    at = len(_HEAD) + 2 * HASH_SIZE
    begin = at + len(_MIDDLE)
    digest, state = data[len(_HEAD) : at], data[begin : -len(_TAIL)]
    if data != _HEAD + digest + _MIDDLE + state + _TAIL:
        raise FormatError("this is not the state of a monitor")
    if sha256(state).hexdigest().encode() != digest:
        raise DigestError("the state of a monitor was changed or is cut off")
    return state


def _violations(fields: Fields, name: str) -> list[Violation]:
    return [Violation.read(item) for item in fields.objects(name, max_items=_MAX_LISTED)]


def _judged_by(log: str, admins: Sequence[notes.Verifier], threshold: int, limits: Limits) -> bytes:
    """What a state is bound to."""
    vkeys = sorted(admin.vkey for admin in admins)
    by: Json = {"log": log, "admins": vkeys, "threshold": threshold, "limits": limits.members()}
    return sha256(canonical.encode(by)).digest()
