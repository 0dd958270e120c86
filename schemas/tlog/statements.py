r"""What somebody decided, and signed: keys, policies, holds, releases, deletions.

A statement is one line of canonical JSON in a signed note, and the log's entry is a small record
around that note::

    {"statement": '{"at_ns":…}\n\n— admin.example.org/ann …\n', "type": "hold", "v": 1}

The log only keeps it. Whose signature is needed, and how many, is for the reader's own policy to
say; so nothing here trusts anybody. Rules: docs/spec/records.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias

from sealtape.schemas import canonical, notes
from sealtape.schemas.bodies import RetentionClass
from sealtape.schemas.canonical import Fields, Json
from sealtape.schemas.errors import FormatError
from sealtape.schemas.frames import SESSION_SIZE
from sealtape.schemas.layout import check_name
from sealtape.schemas.tlog.tiles import MAX_ENTRY

if TYPE_CHECKING:
    from collections.abc import Sequence

ID_SIZE: Final = 16
DIGEST: Final = 32
MAX_SESSIONS: Final = 1000
KEY_ACTIONS: Final = ("introduce", "rotate", "revoke")
KEY_ROLES: Final = ("admin", "node", "log", "witness", "monitor", "reaper", "auditor", "indexer")
BASES: Final = ("expired", "erasure")

_MAX_KEY: Final = 4096
_MAX_I64: Final = 2**63 - 1
_KEY: Final = re.compile(r"[!-~]+(?: [!-~]+)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Heading:
    """What every statement has: for which log it is, its own number, and when it was made.

    Attributes:
        log: the deployment's log name, so that no other log can take the statement over.
        id: 16 random bytes, so that it cannot be said a second time.
        at_ns: nanoseconds since the Unix epoch, by the clock of who signed.
    """

    log: str
    id: bytes
    at_ns: int

    def members(self, kind: str) -> dict[str, Json]:
        """The JSON members."""
        return {
            "v": 1,
            "type": kind,
            "log": self.log,
            "id": self.id.hex(),
            "at_ns": str(self.at_ns),
        }

    @classmethod
    def read(cls, fields: Fields) -> Heading:
        """Read the JSON members; version and type are read before."""
        log = fields.text("log", max_bytes=255)
        notes.check_key_name(log)
        return cls(log, fields.hex("id", ID_SIZE), fields.time_ns("at_ns"))


@dataclass(frozen=True, slots=True)
class KeyStatement:
    """A key begins to count, takes another's place, or counts no more.

    Attributes:
        action: `introduce`, `rotate` (`replaces` ends with this), `revoke`.
        role: what the key is for, one of KEY_ROLES.
        key: a C2SP verifier key; for `auditor` and `indexer` the line of their public half.
        replaces: the key whose place it takes, empty but for `rotate`.
        since: of a revocation, the first index of the log from which its signatures do not count;
            None for the other actions.
    """

    kind: ClassVar = "key"

    heading: Heading
    action: str
    role: str
    key: str
    replaces: str = ""
    since: int | None = None

    def members(self) -> dict[str, Json]:
        """The JSON members of its own."""
        return {
            "action": self.action,
            "role": self.role,
            "key": self.key,
            "replaces": self.replaces,
            "since": None if self.since is None else str(self.since),
        }

    @classmethod
    def read(cls, heading: Heading, fields: Fields) -> KeyStatement:
        """Read the JSON members of its own."""
        action = fields.text("action", choices=KEY_ACTIONS)
        role = fields.text("role", choices=KEY_ROLES)
        key = _key_text(fields, "key")
        replaces = fields.text("replaces", max_bytes=0 if action != "rotate" else _MAX_KEY)
        if action == "rotate" and (not _KEY.fullmatch(replaces) or replaces == key):
            fields.refuse("replaces", "must name the other key whose place it takes")
        since = None if fields.null("since") else fields.decimal("since", 0, _MAX_I64)
        if (since is None) == (action == "revoke"):
            fields.refuse("since", "must be an index of the log to revoke from, else null")
        return cls(heading, action, role, key, replaces, since)


@dataclass(frozen=True, slots=True)
class PolicyStatement:
    """The terms of a retention class from now on, and the digest of the whole policy."""

    kind: ClassVar = "policy"

    heading: Heading
    tenant: str
    retention: RetentionClass
    policy_sha256: bytes

    def members(self) -> dict[str, Json]:
        """The JSON members of its own."""
        return {
            "tenant": self.tenant,
            "class": self.retention.members(),
            "policy_sha256": self.policy_sha256.hex(),
        }

    @classmethod
    def read(cls, heading: Heading, fields: Fields) -> PolicyStatement:
        """Read the JSON members of its own."""
        tenant = check_name(fields.text("tenant", max_bytes=63), "tenant")
        retention = RetentionClass.read(fields.object("class"))
        return cls(heading, tenant, retention, fields.hex("policy_sha256", DIGEST))


@dataclass(frozen=True, slots=True)
class HoldStatement:
    """These sessions must not be deleted until a release.

    `matter` is SHA-256 of a salt and the words that say why: whoever knows both can show it.
    """

    kind: ClassVar = "hold"

    heading: Heading
    matter: bytes
    sessions: tuple[bytes, ...]

    def members(self) -> dict[str, Json]:
        """The JSON members of its own."""
        return {"matter": self.matter.hex(), "sessions": _hexes(self.sessions)}

    @classmethod
    def read(cls, heading: Heading, fields: Fields) -> HoldStatement:
        """Read the JSON members of its own."""
        return cls(heading, fields.hex("matter", DIGEST), _sessions(fields))


@dataclass(frozen=True, slots=True)
class ReleaseStatement:
    """A hold, named by its id, is over for these sessions."""

    kind: ClassVar = "release"

    heading: Heading
    hold: bytes
    sessions: tuple[bytes, ...]

    def members(self) -> dict[str, Json]:
        """The JSON members of its own."""
        return {"hold": self.hold.hex(), "sessions": _hexes(self.sessions)}

    @classmethod
    def read(cls, heading: Heading, fields: Fields) -> ReleaseStatement:
        """Read the JSON members of its own."""
        return cls(heading, fields.hex("hold", ID_SIZE), _sessions(fields))


@dataclass(frozen=True, slots=True)
class IntentStatement:
    """These sessions are going to be deleted.

    `basis` is `expired` (their term is over) or `erasure` (somebody has the right to it before);
    `matter` as for a hold, zeros for `expired`.
    """

    kind: ClassVar = "tombstone-intent"

    heading: Heading
    basis: str
    matter: bytes
    sessions: tuple[bytes, ...]

    def members(self) -> dict[str, Json]:
        """The JSON members of its own."""
        return {
            "basis": self.basis,
            "matter": self.matter.hex(),
            "sessions": _hexes(self.sessions),
        }

    @classmethod
    def read(cls, heading: Heading, fields: Fields) -> IntentStatement:
        """Read the JSON members of its own."""
        basis = fields.text("basis", choices=BASES)
        matter = fields.hex("matter", DIGEST)
        if (basis == "expired") != (matter == bytes(DIGEST)):
            fields.refuse("matter", "must be zeros for expired sessions, and for no others")
        return cls(heading, basis, matter, _sessions(fields))


@dataclass(frozen=True, slots=True)
class DoneStatement:
    """What an intent named is gone, and what of it is left.

    Attributes:
        intent: id of the intent.
        index: where in the log the intent stands.
        wraps: wrapped keys destroyed.
        documents: documents removed from the index.
        objects: segment records, by their hash, whose objects were removed.
    """

    kind: ClassVar = "tombstone-done"

    heading: Heading
    intent: bytes
    index: int
    wraps: int
    documents: int
    objects: tuple[bytes, ...]

    def members(self) -> dict[str, Json]:
        """The JSON members of its own."""
        return {
            "intent": self.intent.hex(),
            "index": str(self.index),
            "wraps": str(self.wraps),
            "documents": str(self.documents),
            "objects": _hexes(self.objects),
        }

    @classmethod
    def read(cls, heading: Heading, fields: Fields) -> DoneStatement:
        """Read the JSON members of its own."""
        return cls(
            heading,
            fields.hex("intent", ID_SIZE),
            fields.decimal("index", 0, _MAX_I64),
            fields.decimal("wraps", 0, _MAX_I64),
            fields.decimal("documents", 0, _MAX_I64),
            fields.hexes("objects", DIGEST, max_items=MAX_SESSIONS // 2),
        )


Body: TypeAlias = (
    KeyStatement
    | PolicyStatement
    | HoldStatement
    | ReleaseStatement
    | IntentStatement
    | DoneStatement
)
_KINDS: Final[dict[str, type[Body]]] = {
    "key": KeyStatement,
    "policy": PolicyStatement,
    "hold": HoldStatement,
    "release": ReleaseStatement,
    "tombstone-intent": IntentStatement,
    "tombstone-done": DoneStatement,
}
STATEMENTS: Final = tuple(_KINDS)
"""The kinds of entries that are statements."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement as the log has it: what it says, and the note with the signatures."""

    body: Body
    note: bytes

    @property
    def kind(self) -> str:
        """The entry's type."""
        return self.body.kind

    def to_json(self) -> bytes:
        """The log's entry."""
        data = canonical.encode({"v": 1, "type": self.kind, "statement": self.note.decode()})
        if len(data) > MAX_ENTRY:
            raise FormatError(f"a statement has at most {MAX_ENTRY} bytes, not {len(data)}")
        return data


def sign_statement(body: Body, signers: Sequence[notes.Signer]) -> Statement:
    """Make a statement; FormatError for what could not be read back."""
    line = canonical.encode({**body.heading.members(body.kind), **body.members()}).decode()
    statement = Statement(body, notes.sign_note(line + "\n", signers))
    read_statement(canonical.fields(statement.to_json(), "entry"))
    return statement


def read_statement(fields: Fields) -> Statement:
    """Read a statement's entry; nobody's signature is checked."""
    fields.version(1)
    kind = fields.text("type", choices=STATEMENTS)
    note = fields.text("statement", max_bytes=MAX_ENTRY).encode()
    fields.end()
    text = notes.parse_note(note).text
    inner = canonical.fields(text.removesuffix("\n").encode(), kind)
    inner.version(1)
    inner.text("type", choices=(kind,))
    body = _KINDS[kind].read(Heading.read(inner), inner)
    inner.end()
    return Statement(body, note)


def _key_text(fields: Fields, name: str) -> str:
    key = fields.text(name, max_bytes=_MAX_KEY)
    if not _KEY.fullmatch(key):
        fields.refuse(name, "must be a key on one line")
    return key


def _sessions(fields: Fields) -> tuple[bytes, ...]:
    sessions = fields.hexes("sessions", SESSION_SIZE, max_items=MAX_SESSIONS)
    if not sessions or list(sessions) != sorted(set(sessions)):
        fields.refuse("sessions", "must name at least one, each once, in ascending order")
    return sessions


def _hexes(items: Sequence[bytes]) -> list[Json]:
    return [item.hex() for item in items]
