"""What the index holds: a document per session and one per command.

Ids are functions of what they stand for, so indexing twice changes nothing; `revision` and
`version` grow, so an older document never overwrites a newer one. Rules: docs/spec/documents.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from json.encoder import encode_basestring as quoted

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

SESSION_STATES = ("live", "closed", "incomplete", "sealed")
COMMAND_STATUSES = ("running", "ok", "error")

_MAX_I64 = (1 << 63) - 1
_MAX_NAME = 1024
_MAX_LEG = 3
_MAX_TEXT = 65_536
_MAX_MESSAGE = 4096
_MAX_ITEMS = 1024
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

    `bytes_client` and `bytes_server` are what the client sent and was sent. `effects` are those of
    its commands, each once, sorted. `revision` grows with each change; the document with the larger
    one wins.
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
    effects: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The document's id: the session in hex."""
        return self.session.hex()

    def to_json(self) -> bytes:
        """Write the document; what `from_json` would refuse is a FormatError."""
        return _plain_session(self) if _is_plain_session(self) else self._checked_json()

    def _checked_json(self) -> bytes:
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
                "effects": list(self.effects),
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
            effects=fields.texts("effects", max_bytes=_MAX_NAME),
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
        return _plain_command(self) if _is_plain_command(self) else self._checked_json()

    def _checked_json(self) -> bytes:
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
            leg=fields.integer("leg", -1, _MAX_LEG),
            offset=_count(fields, "offset"),
            length=_count(fields, "length"),
            text=fields.text("text", max_bytes=_MAX_TEXT),
            fingerprint=_name(fields, "fingerprint"),
            effect=_name(fields, "effect"),
            tables=fields.texts("tables", max_bytes=_MAX_NAME),
            status=fields.text("status", choices=COMMAND_STATUSES),
            rows=fields.decimal("rows", -1, _MAX_I64),
            bytes_out=_count(fields, "bytes_out"),
            duration_ns=None if fields.null("duration_ns") else _count(fields, "duration_ns"),
            error=_name(fields, "error"),
            message=fields.text("message", max_bytes=_MAX_MESSAGE),
            version=fields.integer("version"),
        )
        fields.end()
        return document


# -- the short way ---------------------------------------------------------------------------------
# An index writes thousands of documents a second, and the careful way (canonical encoder, then read
# back) takes 40 times as long. So a document whose values are all well within the rules is written
# from a template. What is near a limit or odd goes the careful way, which says what is wrong with
# it. The bytes are the same.


def _is_plain_session(document: SessionDocument) -> bool:
    return (
        _shared_are_plain(document.session, document.tenant, document.retention)
        and _are_short(
            document.user,
            document.agent,
            document.run,
            document.target,
            document.protocol,
            document.database,
            document.source,
            document.client,
            document.node,
            document.close_reason,
            *document.groups,
            *document.on_behalf_of,
            *document.effects,
        )
        and len(document.groups) <= _MAX_ITEMS
        and len(document.effects) <= _MAX_ITEMS
        and len(document.on_behalf_of) <= _MAX_ITEMS
        and document.state in SESSION_STATES
        and 0 <= document.started_ns <= _MAX_I64
        and (document.ended_ns is None or 0 <= document.ended_ns <= _MAX_I64)
        and 0 <= document.frames <= _MAX_I64
        and 0 <= document.bytes_client <= _MAX_I64
        and 0 <= document.bytes_server <= _MAX_I64
        and 0 <= document.commands <= _MAX_I64
        and 0 <= document.errors <= _MAX_I64
        and 0 <= document.revision <= _MAX_I64
    )


def _plain_session(d: SessionDocument) -> bytes:
    ended = "null" if d.ended_ns is None else f'"{d.ended_ns}"'
    return _utf8(
        f'{{"agent":{quoted(d.agent)},"bytes_client":"{d.bytes_client}",'
        f'"bytes_server":"{d.bytes_server}","client":{quoted(d.client)},'
        f'"close_reason":{quoted(d.close_reason)},"commands":"{d.commands}",'
        f'"database":{quoted(d.database)},"effects":{_list(d.effects)},"ended_ns":{ended},'
        f'"errors":"{d.errors}",'
        f'"frames":"{d.frames}","groups":{_list(d.groups)},"node":{quoted(d.node)},'
        f'"on_behalf_of":{_list(d.on_behalf_of)},"protocol":{quoted(d.protocol)},'
        f'"retention":{quoted(d.retention)},"revision":"{d.revision}","run":{quoted(d.run)},'
        f'"session":"{d.session.hex()}","source":{quoted(d.source)},'
        f'"started_ns":"{d.started_ns}","state":"{d.state}","target":{quoted(d.target)},'
        f'"tenant":{quoted(d.tenant)},"type":"session","user":{quoted(d.user)},"v":1}}'
    )


def _is_plain_command(document: CommandDocument) -> bool:
    return (
        _shared_are_plain(document.session, document.tenant, document.retention)
        and _are_short(
            document.user,
            document.agent,
            document.run,
            document.target,
            document.protocol,
            document.source,
            document.fingerprint,
            document.effect,
            document.error,
            *document.groups,
            *document.tables,
        )
        and len(document.groups) <= _MAX_ITEMS
        and len(document.tables) <= _MAX_ITEMS
        and len(document.text) <= _MAX_TEXT // 4
        and len(document.message) <= _MAX_MESSAGE // 4
        and document.status in COMMAND_STATUSES
        and 0 <= document.epoch <= MAX_EPOCH
        and -1 <= document.leg <= _MAX_LEG
        and 0 <= document.version <= MAX_EPOCH
        and 0 <= document.time_ns <= _MAX_I64
        and 0 <= document.n <= _MAX_I64
        and 0 <= document.seq <= _MAX_I64
        and 0 <= document.offset <= _MAX_I64
        and 0 <= document.length <= _MAX_I64
        and -1 <= document.rows <= _MAX_I64
        and 0 <= document.bytes_out <= _MAX_I64
        and (document.duration_ns is None or 0 <= document.duration_ns <= _MAX_I64)
    )


def _plain_command(d: CommandDocument) -> bytes:
    duration = "null" if d.duration_ns is None else f'"{d.duration_ns}"'
    return _utf8(
        f'{{"agent":{quoted(d.agent)},"bytes_out":"{d.bytes_out}","duration_ns":{duration},'
        f'"effect":{quoted(d.effect)},"epoch":{d.epoch},"error":{quoted(d.error)},'
        f'"fingerprint":{quoted(d.fingerprint)},"groups":{_list(d.groups)},"leg":{d.leg},'
        f'"length":"{d.length}","message":{quoted(d.message)},"n":"{d.n}","offset":"{d.offset}",'
        f'"protocol":{quoted(d.protocol)},"retention":{quoted(d.retention)},"rows":"{d.rows}",'
        f'"run":{quoted(d.run)},"seq":"{d.seq}","session":"{d.session.hex()}",'
        f'"source":{quoted(d.source)},"status":"{d.status}","tables":{_list(d.tables)},'
        f'"target":{quoted(d.target)},"tenant":{quoted(d.tenant)},"text":{quoted(d.text)},'
        f'"time_ns":"{d.time_ns}","type":"command","user":{quoted(d.user)},"v":1,'
        f'"version":{d.version}}}'
    )


def _are_short(*names: str) -> bool:
    """Whether names are within `_MAX_NAME` bytes for certain: a character has at most 4."""
    return len("".join(names)) <= _MAX_NAME // 4


@lru_cache(maxsize=1024)
def _shared_are_plain(session: bytes, tenant: str, retention: str) -> bool:
    try:
        check_name(tenant, "tenant")
        check_name(retention, "retention class")
    except FormatError:
        return False
    return len(session) == SESSION_SIZE


def _list(items: Sequence[str]) -> str:
    return f"[{','.join(map(quoted, items))}]"


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise FormatError(f"value cannot be written as canonical JSON: {exc}") from exc


def _document(data: bytes, kind: str) -> Fields:
    fields = canonical.fields(data, f"{kind} document")
    fields.version(1)
    fields.text("type", choices=(kind,))
    return fields


def _name(fields: Fields, name: str) -> str:
    return fields.text(name, max_bytes=_MAX_NAME)


def _count(fields: Fields, name: str) -> int:
    return fields.decimal(name, 0, _MAX_I64)
