"""What a monitor can find wrong with a log: its rules by their ids, and the violations of them.

The ids are stable: programs, tests and the page docs/spec/monitor.md name rules by them. A rule is
of one of two grades:

* a *breach* cannot be undone: the log says what it must not say;
* what is *late* is missing so far, or was missing for a while.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeAlias

from sealtape.schemas.canonical import Fields, Json
from sealtape.schemas.verify.findings import Verdict

BREACH: Final = "breach"
LATE: Final = "late"

MAX_VIOLATIONS: Final = 10_000
"""So many are kept; the others are counted."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: its id, its grade, and what it demands, in a few words."""

    id: str
    grade: str
    text: str


_RULES: Final = (
    Rule("entry", BREACH, "an entry is of a known type, in its only form"),
    Rule("start", BREACH, "a shard begins with `log`, which has the last checkpoint before it"),
    Rule("clock", BREACH, "times go neither far back nor ahead"),
    Rule("chain", BREACH, "the segment records of a shard follow each other"),
    Rule("replaces", BREACH, "what replaces segments holds the very same frames"),
    Rule("manifest", BREACH, "the manifest of a segment is there, and is the one that was sealed"),
    Rule("open-once", BREACH, "an epoch is opened once"),
    Rule("epochs", BREACH, "epochs are numbered without a hole, each continuing the one before"),
    Rule("identity", BREACH, "the epochs of a session belong to one node, number and tenant"),
    Rule("numbers", BREACH, "no two sessions of a worker have one number"),
    Rule("missing", LATE, "no number stays passed over, unless an incident says so"),
    Rule("continues", BREACH, "an epoch ends where the next one says, or an incident says why not"),
    Rule("unopened", BREACH, "frames from the first on come after `session-open`"),
    Rule("class", BREACH, "a session lies in segments of its own tenant and class"),
    Rule("cover", BREACH, "the fragments of an epoch follow each other, over stated gaps"),
    Rule("seal-open", BREACH, "a seal follows its `session-open` and agrees with it"),
    Rule("seal-once", BREACH, "an epoch is sealed once"),
    Rule("fragments", BREACH, "a seal counts the fragments that lie in segments before it"),
    Rule("frames", BREACH, "a seal has the frames and the root that its fragments give"),
    Rule("attested", BREACH, "a seal names the last checkpoint of its fragments"),
    Rule("after-seal", BREACH, "what is sealed after the seal is stated by an incident"),
    Rule("unsealed", LATE, "every epoch is sealed in time"),
    Rule("heartbeat", BREACH, "a heartbeat says how things stand"),
    Rule("period", BREACH, "heartbeats are promised often enough"),
    Rule("silent", LATE, "a heartbeat comes in time"),
    Rule("statement-log", BREACH, "a statement is for this log"),
    Rule("statement-id", BREACH, "a statement is made once"),
    Rule("signed", BREACH, "a statement has the signatures that it needs"),
    Rule("keys", BREACH, "keys are introduced, replaced and revoked in this order, each once"),
    Rule("release", BREACH, "a release is of a hold, and of sessions of that hold"),
    Rule("held", BREACH, "no deletion of what is held"),
    Rule("early", BREACH, "no deletion for its age before the age is reached"),
    Rule("done", BREACH, "a deletion is done once, after its intent was witnessed"),
    Rule("objects", BREACH, "no object is removed while one of its sessions lives"),
)
RULES: Final[dict[str, Rule]] = {rule.id: rule for rule in _RULES}
"""Every rule by its id, in the order of the page."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a monitor waits, in seconds, before it says that something is late or wrong.

    Attributes:
        session_s: an epoch of a session may stay without a seal for so long.
        journal_s: that of a journal, which lives as long as its node.
        missing_s: a number may be passed over, and what must be stated unstated, for so long.
        heartbeat_s: heartbeats may promise at most this period.
        grace_s: how much later than promised a heartbeat may be.
        clock_s: how far the writer's clock may be off, or go back.
        skew_s: how far the clocks of witnesses may be apart.
    """

    session_s: int = 30 * 86_400
    journal_s: int = 400 * 86_400
    missing_s: int = 3_600
    heartbeat_s: int = 3_600
    grace_s: int = 120
    clock_s: int = 3_600
    skew_s: int = 300

    def members(self) -> dict[str, Json]:
        """The JSON object."""
        return dict(asdict(self))


NS: Final = 1_000_000_000

Place: TypeAlias = tuple[int, int]
"""Where an entry stands: the number of the log's shard, and its index there."""

Report: TypeAlias = Callable[[str, Place, str], None]
"""Takes a rule's id, the place of the entry that breaks it, and why."""


@dataclass(frozen=True, slots=True, order=True)
class Violation:
    """A rule was broken: at which entry of which shard of the log, and how.

    Attributes:
        number: the shard of the log.
        index: the entry's place in it. Of something late: of the entry that asks for what is not
            there.
        rule: the rule's id.
        reason: in words; it names no person and no target, as entries do not.
    """

    number: int
    index: int
    rule: str
    reason: str

    @property
    def grade(self) -> str:
        """`breach` or `late`."""
        return RULES[self.rule].grade

    def to_json(self) -> dict[str, Any]:
        """As programs read it."""
        return {
            "number": self.number,
            "index": self.index,
            "rule": self.rule,
            "grade": self.grade,
            "reason": self.reason,
        }

    def members(self) -> dict[str, Json]:
        """As a kept state has it."""
        return {
            "place": place_members((self.number, self.index)),
            "rule": self.rule,
            "reason": self.reason,
        }

    @classmethod
    def read(cls, fields: Fields) -> Violation:
        """Read what `members` gave."""
        place, rule = read_place(fields, "place"), fields.text("rule", choices=tuple(RULES))
        found = cls(*place, rule, fields.text("reason"))
        fields.end()
        return found

    def __str__(self) -> str:
        return f"entry {self.index} of shard {self.number}: {self.rule}: {self.reason}"


def place_members(place: Place) -> Json:
    """A place as a kept state has it."""
    return [str(place[0]), str(place[1])]


def read_place(fields: Fields, name: str) -> Place:
    """Read what `place_members` gave."""
    number, index = fields.decimals(name, count=2)
    return number, index


def verdict_of(violations: list[Violation], size: int) -> str:
    """What violations mean together: tampered, incomplete or, of at least one entry, verified."""
    if any(item.grade == BREACH for item in violations):
        return Verdict.TAMPERED
    return Verdict.INCOMPLETE if violations or not size else Verdict.VERIFIED
