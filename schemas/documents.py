"""What the index holds: a document per session and one per command.

Ids are functions of what they stand for, so indexing twice changes nothing; `revision` and
`version` grow, so an older document never overwrites a newer one. Rules: docs/spec/documents.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sealtape.schemas import canonical
from sealtape.schemas.canonical import Fields
from sealtape.schemas.errors import FormatError
from sealtape.schemas.frames import MAX_EPOCH, MAX_SEQ, SESSION_SIZE
from sealtape.schemas.layout import check_name

__all__ = [
    "COMMAND_STATUSES",
    "SESSION_STATES",
    "CommandDocument",
    "SessionDocument",
    "command_id",
    "parse_command_id",
]

SESSION_STATES = ("live", "closed", "sealed")
COMMAND_STATUSES = ("running", "ok", "error")

_MAX_I64 = (1 << 63) - 1
_MAX_NAME = 1024
_COMMAND_ID = re.compile(r"([0-9a-f]{32}):(0|[1-9][0-9]{0,9}):(0|[1-9][0-9]{0,18})", re.ASCII)


def command_id(session: bytes, epoch: int, n: int) -> str:
    """Return the id of the command that fact `n` of an epoch tells of."""
    return f"{session.hex()}:{epoch}:{n}"


def parse_command_id(text: str) -> tuple[bytes, int, int]:
    """Return session, epoch and fact number of a command's id."""
    match = _COMMAND_ID.fullmatch(text)
    if match:
        session, epoch, n = bytes.fromhex(match[1]), int(match[2]), int(match[3])
        if epoch <= MAX_EPOCH and n <= MAX_SEQ:
            return session, epoch, n
    raise FormatError(f"{text!r} is not the id of a command.")


@dataclass(frozen=True, slots=True)
class SessionDocument:
    """One session. Times are nanoseconds since the Unix epoch; `ended_ns` None while live.

    `bytes_client` and `bytes_server` are what the client sent and was sent. `revision` grows with
    each change; the document with the larger one wins.
    """

    session: bytes
    tenant: str
    retention: str
    user: str
    target: str
    protocol: str
    node: str
    started_ns: int
    revision: int
    state: str = "live"
    groups: tuple[str, ...] = ()
    agent: str = ""
    on_behalf_of: tuple[str, ...] = ()
    run: str = ""
    database: str = ""
    source: str = ""
    client: str = ""
    ended_ns: int | None = None
    close_reason: str = ""
    frames: int = 0
    bytes_client: int = 0
    bytes_server: int = 0
    commands: int = 0
    errors: int = 0

    @property
    def id(self) -> str:
        """The document's id: the session in hex."""
        return self.session.hex()

    def to_json(self) -> bytes:
        """Write the document; what `from_json` would refuse is a FormatError."""
        data = canonical.encode(
            {
                "v": 1,
                "type": "session",
                "session": self.session.hex(),
                "tenant": self.tenant,
                "retention": self.retention,
                "user": self.user,
                "groups": list(self.groups),
                "agent": self.agent,
                "on_behalf_of": list(self.on_behalf_of),
                "run": self.run,
                "target": self.target,
                "protocol": self.protocol,
                "database": self.database,
                "source": self.source,
                "client": self.client,
                "node": self.node,
                "started_ns": str(self.started_ns),
                "ended_ns": None if self.ended_ns is None else str(self.ended_ns),
                "state": self.state,
                "close_reason": self.close_reason,
                "frames": str(self.frames),
                "bytes_client": str(self.bytes_client),
                "bytes_server": str(self.bytes_server),
                "commands": str(self.commands),
                "errors": str(self.errors),
                "revision": str(self.revision),
            }
        )
        SessionDocument.from_json(data)
        return data

    @classmethod
    def from_json(cls, data: bytes) -> SessionDocument:
        """Read the document."""
        fields = _document(data, "session")
        document = cls(
            session=fields.hex("session", SESSION_SIZE),
            tenant=check_name(_name(fields, "tenant"), "tenant"),
            retention=check_name(_name(fields, "retention"), "retention class"),
            user=_name(fields, "user"),
            groups=fields.texts("groups", max_bytes=_MAX_NAME),
            agent=_name(fields, "agent"),
            on_behalf_of=fields.texts("on_behalf_of", max_bytes=_MAX_NAME),
            run=_name(fields, "run"),
            target=_name(fields, "target"),
            protocol=_name(fields, "protocol"),
            database=_name(fields, "database"),
            source=_name(fields, "source"),
            client=_name(fields, "client"),
            node=_name(fields, "node"),
            started_ns=fields.time_ns("started_ns"),
            ended_ns=None if fields.null("ended_ns") else fields.time_ns("ended_ns"),
            state=fields.text("state", choices=SESSION_STATES),
            close_reason=_name(fields, "close_reason"),
            frames=_count(fields, "frames"),
            bytes_client=_count(fields, "bytes_client"),
            bytes_server=_count(fields, "bytes_server"),
            commands=_count(fields, "commands"),
            errors=_count(fields, "errors"),
            revision=_count(fields, "revision"),
        )
        fields.end()
        return document


@dataclass(frozen=True, slots=True)
class CommandDocument:
    """One command. It cites bytes (`leg`, `offset`, `length`) and the FACTS frame `seq`.

    `text` is the statement where the target opted in to full text, else its normalized form.
    `rows` -1 is unknown; `duration_ns` is None while the command runs; `error` is the code of its
    failure. `version` is 0 while it runs, 1 with its result.
    """

    session: bytes
    epoch: int
    n: int
    seq: int
    tenant: str
    retention: str
    user: str
    target: str
    protocol: str
    time_ns: int
    leg: int
    offset: int
    length: int
    version: int = 0
    status: str = "running"
    groups: tuple[str, ...] = ()
    agent: str = ""
    run: str = ""
    source: str = ""
    text: str = ""
    fingerprint: str = ""
    effect: str = ""
    tables: tuple[str, ...] = ()
    rows: int = -1
    bytes_out: int = 0
    duration_ns: int | None = None
    error: str = ""
    message: str = ""

    @property
    def id(self) -> str:
        """The document's id: session in hex, epoch and fact number."""
        return command_id(self.session, self.epoch, self.n)

    def to_json(self) -> bytes:
        """Write the document; what `from_json` would refuse is a FormatError."""
        data = canonical.encode(
            {
                "v": 1,
                "type": "command",
                "session": self.session.hex(),
                "epoch": self.epoch,
                "n": str(self.n),
                "seq": str(self.seq),
                "tenant": self.tenant,
                "retention": self.retention,
                "user": self.user,
                "groups": list(self.groups),
                "agent": self.agent,
                "run": self.run,
                "target": self.target,
                "protocol": self.protocol,
                "source": self.source,
                "time_ns": str(self.time_ns),
                "leg": self.leg,
                "offset": str(self.offset),
                "length": str(self.length),
                "text": self.text,
                "fingerprint": self.fingerprint,
                "effect": self.effect,
                "tables": list(self.tables),
                "status": self.status,
                "rows": str(self.rows),
                "bytes_out": str(self.bytes_out),
                "duration_ns": None if self.duration_ns is None else str(self.duration_ns),
                "error": self.error,
                "message": self.message,
                "version": self.version,
            }
        )
        CommandDocument.from_json(data)
        return data

    @classmethod
    def from_json(cls, data: bytes) -> CommandDocument:
        """Read the document."""
        fields = _document(data, "command")
        document = cls(
            session=fields.hex("session", SESSION_SIZE),
            epoch=fields.integer("epoch"),
            n=_count(fields, "n"),
            seq=_count(fields, "seq"),
            tenant=check_name(_name(fields, "tenant"), "tenant"),
            retention=check_name(_name(fields, "retention"), "retention class"),
            user=_name(fields, "user"),
            groups=fields.texts("groups", max_bytes=_MAX_NAME),
            agent=_name(fields, "agent"),
            run=_name(fields, "run"),
            target=_name(fields, "target"),
            protocol=_name(fields, "protocol"),
            source=_name(fields, "source"),
            time_ns=fields.time_ns("time_ns"),
            leg=fields.integer("leg", -1, 3),
            offset=_count(fields, "offset"),
            length=_count(fields, "length"),
            text=fields.text("text"),
            fingerprint=_name(fields, "fingerprint"),
            effect=_name(fields, "effect"),
            tables=fields.texts("tables", max_bytes=_MAX_NAME),
            status=fields.text("status", choices=COMMAND_STATUSES),
            rows=fields.decimal("rows", -1, _MAX_I64),
            bytes_out=_count(fields, "bytes_out"),
            duration_ns=None if fields.null("duration_ns") else _count(fields, "duration_ns"),
            error=_name(fields, "error"),
            message=fields.text("message", max_bytes=4096),
            version=fields.integer("version"),
        )
        fields.end()
        return document


def _document(data: bytes, kind: str) -> Fields:
    fields = canonical.fields(data, f"{kind} document")
    fields.version(1)
    fields.text("type", choices=(kind,))
    return fields


def _name(fields: Fields, name: str) -> str:
    return fields.text(name, max_bytes=_MAX_NAME)


def _count(fields: Fields, name: str) -> int:
    return fields.decimal(name, 0, _MAX_I64)
