"""The JSON bodies of frames: OPEN, IDENT, CLOSE, GAP, CLOCK and STATE.

Each class writes canonical JSON with `to_json` and reads it with `from_json`, which refuses
everything that `to_json` would not write, but for members named `x-…`: those are kept in the frame
and ignored. Rules, the recovery of a session after a crash and the journal: docs/spec/bodies.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sealtape.schemas import canonical, notes
from sealtape.schemas.canonical import Fields, Json
from sealtape.schemas.errors import FormatError, SignatureError
from sealtape.schemas.frames import MAX_BODY, Suite
from sealtape.schemas.layout import check_name
from sealtape.schemas.slices import CLIENT_IN, CLIENT_OUT, Hole

__all__ = [
    "CLOSE_REASONS",
    "GAP_REASONS",
    "MAX_STATE_PART",
    "NO_POLICY",
    "OPEN_TYPES",
    "Agent",
    "Attested",
    "Beacon",
    "Clock",
    "Close",
    "Continues",
    "Gap",
    "Ident",
    "Opening",
    "RetentionClass",
    "StateBody",
    "make_open",
    "parse_open",
    "read_node",
]

OPEN_TYPES = ("session", "journal")
CLOSE_REASONS = (
    "client",
    "target",
    "expired",
    "max_session",
    "shutdown",
    "spool",
    "aborted",
    "error",
    "refused",
    "killed",
)
GAP_REASONS = ("spool", "damaged")
NO_POLICY = bytes(32)
MAX_STATE_PART = 128 << 10
"""Most bytes of decoder state in one STATE frame; more is several parts."""

_WORD = re.compile(r"[a-z][a-z0-9_]{0,31}", re.ASCII)
_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
_CODEC = re.compile(r"[a-z][a-z0-9_]{0,31}/[1-9][0-9]{0,5}", re.ASCII)
_MAX_I64 = (1 << 63) - 1
_MAX_NAME = 1024
_MAX_PARAMETER = 10_000  # as a StartupMessage has at most
_MAX_LEGS = 4


def _encoded(members: dict[str, Json]) -> bytes:
    body = canonical.encode({"v": 1, **members})
    if len(body) > MAX_BODY:
        raise FormatError(f"A body has {len(body)} bytes; at most {MAX_BODY} fit a frame.")
    return body


def _fields(data: bytes, what: str) -> Fields:
    if len(data) > MAX_BODY:
        raise FormatError(f"The {what} has {len(data)} bytes; at most {MAX_BODY} are allowed.")
    fields = canonical.fields(data, what)
    fields.version(1)
    return fields


def _word(fields: Fields, name: str) -> str:
    word = fields.text(name, max_bytes=32)
    if not _WORD.fullmatch(word):
        fields.refuse(name, "must be a lowercase word")
    return word


# -- OPEN ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RetentionClass:
    """A retention class and its two terms, in seconds."""

    name: str
    retain_for_s: int
    delete_after_s: int

    def members(self) -> dict[str, Json]:
        """The JSON object."""
        return {
            "name": self.name,
            "retain_for_s": self.retain_for_s,
            "delete_after_s": self.delete_after_s,
        }

    @classmethod
    def read(cls, fields: Fields) -> RetentionClass:
        """Read the JSON object."""
        found = cls(
            check_name(fields.text("name", max_bytes=63), "retention class"),
            fields.integer("retain_for_s"),
            fields.integer("delete_after_s"),
        )
        if found.delete_after_s < found.retain_for_s:
            fields.refuse("delete_after_s", "must not be less than retain_for_s")
        fields.end()
        return found


@dataclass(frozen=True, slots=True)
class Beacon:
    """The latest witnessed checkpoint the node knew: shows that the session began after it."""

    origin: str
    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Continues:
    """The end of an epoch that a recovery epoch goes on from: its last finished size and root."""

    epoch: int
    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Opening:
    """What OPEN says. `salt` is empty without encryption, `key` the verifier key of the epoch."""

    type: str
    log: str
    tenant: str
    session: bytes
    epoch: int
    node: str
    boot: bytes
    worker: int
    number: int
    key: str
    suite: int
    salt: bytes
    ident_sha256: bytes
    retention: RetentionClass
    anchor_ns: int
    policy_sha256: bytes = NO_POLICY
    beacon: Beacon | None = None
    continues: Continues | None = None

    @property
    def origin(self) -> str:
        """The origin line of the epoch's checkpoints, also the name of its key."""
        return notes.session_origin(self.log, self.session, self.epoch)

    def to_json(self) -> bytes:
        """Write the line that the node signs; what `from_json` would refuse is a FormatError."""
        beacon, continues = self.beacon, self.continues
        line = _encoded(
            {
                "type": self.type,
                "log": self.log,
                "tenant": self.tenant,
                "session": self.session.hex(),
                "epoch": self.epoch,
                "node": self.node,
                "boot": self.boot.hex(),
                "worker": self.worker,
                "number": str(self.number),
                "key": self.key,
                "suite": self.suite,
                "salt": canonical.base64_text(self.salt),
                "ident_sha256": self.ident_sha256.hex(),
                "class": self.retention.members(),
                "policy_sha256": self.policy_sha256.hex(),
                "beacon": None
                if beacon is None
                else {
                    "origin": beacon.origin,
                    "size": str(beacon.size),
                    "root": beacon.root.hex(),
                },
                "anchor_ns": str(self.anchor_ns),
                "continues": None
                if continues is None
                else {
                    "epoch": continues.epoch,
                    "size": str(continues.size),
                    "root": continues.root.hex(),
                },
            }
        )
        Opening.from_json(line)
        return line

    @classmethod
    def from_json(cls, line: bytes) -> Opening:
        """Read the signed line, without its line end."""
        fields = _fields(line, "opening")
        opening = cls(
            type=fields.text("type", choices=OPEN_TYPES),
            log=fields.text("log", max_bytes=256),
            tenant=check_name(fields.text("tenant", max_bytes=63), "tenant"),
            session=fields.hex("session", 16),
            epoch=fields.integer("epoch"),
            node=read_node(fields),
            boot=fields.hex("boot", 16),
            worker=fields.integer("worker", 0, 65535),
            number=fields.decimal("number", 0, _MAX_I64),
            key=fields.text("key", max_bytes=_MAX_NAME),
            suite=fields.integer("suite", 0, 255),
            salt=fields.base64("salt", sizes=(0, 32)),
            ident_sha256=fields.hex("ident_sha256", 32),
            retention=RetentionClass.read(fields.object("class")),
            policy_sha256=fields.hex("policy_sha256", 32),
            beacon=_beacon(fields),
            anchor_ns=fields.time_ns("anchor_ns"),
            continues=_continues(fields),
        )
        fields.end()
        opening._check()
        return opening

    def check_follows(self, before: Opening) -> None:
        """Refuse to take up a session of another kind, tenant, node, boot, worker or number."""
        ours, theirs = (
            (each.type, each.tenant, each.node, each.boot, each.worker, each.number)
            for each in (self, before)
        )
        if ours != theirs:
            raise FormatError(
                "An opening must be of the node, tenant and number of the one before."
            )

    def _check(self) -> None:
        if self.suite not in (Suite.SALTED, Suite.AES256GCM):
            raise FormatError("The suite of an opening is 1 or 2.")
        if (self.suite == Suite.AES256GCM) != (len(self.salt) == 32):
            raise FormatError("An opening has a salt exactly when its suite encrypts.")
        before = -1 if self.continues is None else self.continues.epoch
        if self.epoch != before + 1:
            raise FormatError(
                "An opening must continue the epoch before its own; 0 continues none."
            )
        if (self.type == "journal") != (self.number == 0):
            raise FormatError("Number 0 is the journal's; sessions count from 1.")
        if not self.key.startswith(self.origin + "+"):
            raise FormatError("The key of an opening must be named like its session and epoch.")


def read_node(fields: Fields) -> str:
    """The member `node` of OPEN, IDENT, and the log's entry of an OPEN."""
    node = fields.text("node", max_bytes=128)
    if not _NODE.fullmatch(node):
        fields.refuse("node", "must be letters, digits, '.', '_' and '-'")
    return node


def _beacon(fields: Fields) -> Beacon | None:
    inner = fields.optional_object("beacon")
    if inner is None:
        return None
    beacon = Beacon(
        inner.text("origin", max_bytes=256),
        inner.decimal("size", 0, _MAX_I64),
        inner.hex("root", 32),
    )
    inner.end()
    return beacon


def _continues(fields: Fields) -> Continues | None:
    inner = fields.optional_object("continues")
    if inner is None:
        return None
    found = Continues(
        inner.integer("epoch"), inner.decimal("size", 1, _MAX_I64), inner.hex("root", 32)
    )
    inner.end()
    return found


def make_open(opening: Opening, signer: notes.Signer) -> bytes:
    """Return the payload of an OPEN frame: a signed note by the node over one line of JSON."""
    return signer.sign(opening.to_json().decode() + "\n")


def parse_open(
    payload: bytes, verifiers: Sequence[notes.Verifier] | None
) -> tuple[Opening, tuple[str, ...]]:
    """Read the payload of an OPEN frame; return the opening and the names of the nodes that signed.

    With verifiers, one of them must have signed and be the node that the opening names, else
    SignatureError. Without (None) no signature is checked and the names are what the note claims: a
    report then says `trust: self`.
    """
    if len(payload) > MAX_BODY:
        raise FormatError(f"The OPEN has {len(payload)} bytes; at most {MAX_BODY} are allowed.")
    if verifiers is None:
        note = notes.parse_note(payload)
        names = tuple(signature.name for signature in note.unverified)
    else:
        note = notes.open_note(payload, verifiers)
        names = note.signers
    opening = Opening.from_json(note.text.removesuffix("\n").encode())
    if not any(name == opening.node or name.endswith("/" + opening.node) for name in names):
        raise SignatureError(f"OPEN names the node {opening.node}, but {', '.join(names)} signed.")
    return opening, names


# -- IDENT -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Agent:
    """The AI agent that acts: its id, for whom (nearest first), and the run it belongs to."""

    id: str
    on_behalf_of: tuple[str, ...] = ()
    run: str = ""


@dataclass(frozen=True, slots=True)
class Ident:
    """Who the session is: personal data, encrypted under `facts`.

    Attributes, besides those that rule 14 of docs/spec/bodies.md names:
        parameters: `name=value` of each setting the client asked for and the target was given.
        expires_ns: nanoseconds since the Unix epoch; None: never.
    """

    user: str
    target: str
    protocol: str
    node: str
    subject: str = ""
    groups: tuple[str, ...] = ()
    issuer: str = ""
    token_id: str = ""
    agent: Agent | None = None
    source_ip: str = ""
    source_port: int = 0
    software: str = ""
    application: str = ""
    parameters: tuple[str, ...] = ()
    database: str = ""
    expires_ns: int | None = None

    def to_json(self) -> bytes:
        """Write the body; what `from_json` would refuse is a FormatError."""
        agent = self.agent
        client: dict[str, Json] = {"software": self.software, "application": self.application}
        if self.parameters:
            client["parameters"] = list(self.parameters)
        body = _encoded(
            {
                "user": self.user,
                "subject": self.subject,
                "groups": list(self.groups),
                "issuer": self.issuer,
                "token_id": self.token_id,
                "agent": None
                if agent is None
                else {
                    "id": agent.id,
                    "on_behalf_of": list(agent.on_behalf_of),
                    "run": agent.run,
                },
                "source": {"ip": self.source_ip, "port": self.source_port},
                "client": client,
                "target": self.target,
                "protocol": self.protocol,
                "database": self.database,
                "node": self.node,
                "expires_ns": None if self.expires_ns is None else str(self.expires_ns),
            }
        )
        Ident.from_json(body)
        return body

    @classmethod
    def from_json(cls, body: bytes) -> Ident:
        """Read the body."""
        fields = _fields(body, "ident")
        source, client = fields.object("source"), fields.object("client")
        ident = cls(
            user=fields.text("user", max_bytes=_MAX_NAME),
            subject=fields.text("subject", max_bytes=_MAX_NAME),
            groups=fields.texts("groups", max_bytes=_MAX_NAME),
            issuer=fields.text("issuer", max_bytes=_MAX_NAME),
            token_id=fields.text("token_id", max_bytes=_MAX_NAME),
            agent=_agent(fields),
            source_ip=source.text("ip", max_bytes=64),
            source_port=source.integer("port", 0, 65535),
            software=client.text("software", max_bytes=_MAX_NAME),
            application=client.text("application", max_bytes=_MAX_NAME),
            parameters=_parameters(client),
            target=fields.text("target", max_bytes=256),
            protocol=fields.text("protocol", max_bytes=32),
            database=fields.text("database", max_bytes=256),
            node=read_node(fields),
            expires_ns=None if fields.null("expires_ns") else fields.time_ns("expires_ns"),
        )
        for part in (source, client, fields):
            part.end()
        return ident


def _parameters(client: Fields) -> tuple[str, ...]:
    if not client.has("parameters"):
        return ()
    found = client.texts("parameters", max_bytes=_MAX_PARAMETER)
    if not found or not all("=" in each[1:] for each in found):
        client.refuse("parameters", "must hold name=value, or be absent")
    return found


def _agent(fields: Fields) -> Agent | None:
    inner = fields.optional_object("agent")
    if inner is None:
        return None
    agent = Agent(
        inner.text("id", max_bytes=_MAX_NAME),
        inner.texts("on_behalf_of", max_items=16, max_bytes=_MAX_NAME),
        inner.text("run", max_bytes=_MAX_NAME),
    )
    inner.end()
    return agent


# -- CLOSE, GAP, CLOCK, STATE ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Attested:
    """Frames [start, stop) of an earlier epoch that only the node's signature on OPEN covers."""

    epoch: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Close:
    """How an epoch ended. `totals` are the bytes of each leg of the whole session."""

    reason: str
    totals: tuple[int, int, int, int]
    commands: int = 0
    errors: int = 0
    detail: str = ""
    attested: Attested | None = None

    def to_json(self) -> bytes:
        """Write the body; a reason that is not in CLOSE_REASONS is a FormatError."""
        if self.reason not in CLOSE_REASONS:
            raise FormatError(f"{self.reason!r} is not a reason to close.")
        attested = self.attested
        body = _encoded(
            {
                "reason": self.reason,
                "detail": self.detail,
                "totals": [str(total) for total in self.totals],
                "commands": str(self.commands),
                "errors": str(self.errors),
                "attested": None
                if attested is None
                else {
                    "epoch": attested.epoch,
                    "from": str(attested.start),
                    "to": str(attested.stop),
                },
            }
        )
        Close.from_json(body)
        return body

    @classmethod
    def from_json(cls, body: bytes) -> Close:
        """Read the body; a reason that this version does not know is kept."""
        fields = _fields(body, "close")
        totals = fields.decimals("totals", count=4, high=_MAX_I64)
        close = cls(
            reason=_word(fields, "reason"),
            detail=fields.text("detail", max_bytes=64),
            totals=(totals[0], totals[1], totals[2], totals[3]),
            commands=fields.decimal("commands", 0, _MAX_I64),
            errors=fields.decimal("errors", 0, _MAX_I64),
            attested=_attested(fields),
        )
        fields.end()
        return close


def _attested(fields: Fields) -> Attested | None:
    inner = fields.optional_object("attested")
    if inner is None:
        return None
    found = Attested(
        inner.integer("epoch"), *(inner.decimal(name, 0, _MAX_I64) for name in ("from", "to"))
    )
    if found.start >= found.stop:
        inner.refuse("to", "must be above from")
    inner.end()
    return found


@dataclass(frozen=True, slots=True)
class Gap:
    """What the node did not record, leg by leg; a length of -1 is unknown."""

    reason: str
    legs: tuple[Hole, ...] = ()

    def to_json(self) -> bytes:
        """Write the body; a reason that is not in GAP_REASONS is a FormatError."""
        if self.reason not in GAP_REASONS:
            raise FormatError(f"{self.reason!r} is not a reason for a gap.")
        legs: list[Json] = [
            {"leg": hole.leg, "offset": str(hole.offset), "length": str(hole.length)}
            for hole in self.legs
        ]
        body = _encoded({"reason": self.reason, "legs": legs})
        Gap.from_json(body)
        return body

    @classmethod
    def from_json(cls, body: bytes) -> Gap:
        """Read the body; a reason that this version does not know is kept."""
        fields = _fields(body, "gap")
        gap = cls(
            _word(fields, "reason"),
            tuple(_hole(inner) for inner in fields.objects("legs", max_items=_MAX_LEGS)),
        )
        fields.end()
        legs = [hole.leg for hole in gap.legs]
        if legs != sorted(set(legs)):
            fields.refuse("legs", "must name each leg once, in order")
        return gap


def _hole(fields: Fields) -> Hole:
    hole = Hole(
        fields.integer("leg", CLIENT_IN, CLIENT_OUT),
        fields.decimal("offset", 0, _MAX_I64),
        fields.decimal("length", -1, _MAX_I64),
    )
    fields.end()
    return hole


@dataclass(frozen=True, slots=True)
class Clock:
    """A step of the wall clock: our time before (anchor + monotonic) and the wall clock's."""

    before_ns: int
    after_ns: int

    @property
    def step_ns(self) -> int:
        """How far the wall clock is ahead of our time; negative when behind."""
        return self.after_ns - self.before_ns

    def to_json(self) -> bytes:
        """Write the body."""
        return _encoded(
            {
                "before_ns": str(self.before_ns),
                "after_ns": str(self.after_ns),
                "step_ns": str(self.step_ns),
            }
        )

    @classmethod
    def from_json(cls, body: bytes) -> Clock:
        """Read the body; the step must be the difference."""
        fields = _fields(body, "clock")
        clock = cls(fields.time_ns("before_ns"), fields.time_ns("after_ns"))
        if fields.decimal("step_ns", -(1 << 64), 1 << 64) != clock.step_ns:
            fields.refuse("step_ns", "must be after_ns - before_ns")
        fields.end()
        return clock


@dataclass(frozen=True, slots=True)
class StateBody:
    """What a decoder needs to start here: part `part` of `parts`, at these offsets of the legs."""

    codec: str
    offsets: tuple[int, int, int, int]
    data: bytes
    part: int = 0
    parts: int = 1

    def to_json(self) -> bytes:
        """Write the body; what `from_json` would refuse is a FormatError."""
        body = _encoded(
            {
                "codec": self.codec,
                "offsets": [str(offset) for offset in self.offsets],
                "part": self.part,
                "parts": self.parts,
                "data": canonical.base64_text(self.data),
            }
        )
        StateBody.from_json(body)
        return body

    @classmethod
    def from_json(cls, body: bytes) -> StateBody:
        """Read the body."""
        fields = _fields(body, "state")
        offsets = fields.decimals("offsets", count=4)
        state = cls(
            codec=fields.text("codec", max_bytes=64),
            offsets=(offsets[0], offsets[1], offsets[2], offsets[3]),
            part=fields.integer("part"),
            parts=fields.integer("parts", 1),
            data=fields.base64("data", max_bytes=MAX_STATE_PART),
        )
        fields.end()
        if not _CODEC.fullmatch(state.codec):
            fields.refuse("codec", "must be a name, a slash and a version")
        if state.part >= state.parts:
            fields.refuse("part", "must be below parts")
        if len(state.data) > MAX_STATE_PART:
            fields.refuse("data", f"must be at most {MAX_STATE_PART} bytes")
        return state
