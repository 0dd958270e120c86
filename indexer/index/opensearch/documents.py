"""Documents as OpenSearch keeps them, and back. Pure.

What people read has names of the Elastic Common Schema; nothing of a document is lost, so it is
read back from the same fields. `find` holds the values that queries compare: folded, cut into words
by `indexer.tokens`, the empty ones left out. No analyzer of OpenSearch's decides what is found.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from sealtape.indexer import tokens
from sealtape.indexer.index.fts5 import packed_address
from sealtape.schemas.documents import CommandDocument, SessionDocument
from sealtape.schemas.errors import FormatError, StoreCorrupt

__all__ = [
    "FOREVER",
    "command_source",
    "encoded",
    "progress_of",
    "read_command",
    "read_session",
    "session_source",
]

FOREVER = (1 << 63) - 1
"""When a session that is live ends."""

Json = dict[str, Any]
T = TypeVar("T")

_MS = 1_000_000
_SHORT = 512
"""Characters of a text whose words may be remembered."""
_OUTCOMES = {"ok": "success", "error": "failure", "running": "unknown"}


def session_source(document: SessionDocument, start_ns: int, progress: bytes | None) -> Json:
    """Return what is kept of a session; `start_ns` is that of its place."""
    ended = document.ended_ns
    event: Json = {"dataset": "sealtape.sessions", "start": document.started_ns // _MS}
    if ended is not None:
        event |= {"end": ended // _MS, "duration": ended - document.started_ns}
    ours: Json = {
        **_ours(document),
        "time_ns": document.started_ns,
        "state": document.state,
        "frames": document.frames,
        "commands": document.commands,
        "errors": document.errors,
        "effects": document.effects,
        "revision": document.revision,
        "ended_ns": ended,
        "on_behalf_of": document.on_behalf_of,
        "database": document.database,
    }
    whole: Json = {
        "@timestamp": document.started_ns // _MS,
        "event": _filled(event | {"reason": document.close_reason}),
        "session": {"id": document.id},
        **_shared(document),
        "client": {"bytes": document.bytes_client},
        "server": {"bytes": document.bytes_server},
        "user_agent": _filled({"original": document.client}),
        "observer": _filled({"name": document.node}),
        # Empty progress is progress, too.
        "sealtape": _filled(ours) | ({} if progress is None else {"progress": encoded(progress)}),
        "find": {
            **_names(document),
            "start_ns": start_ns,
            "ended_ns": FOREVER if ended is None else ended,
            "effects": [tokens.fold(effect) for effect in document.effects],
        },
    }
    return _filled(whole)


def command_source(document: CommandDocument, start_ns: int) -> Json:
    """Return what is kept of a command; `start_ns` is that of its session's place."""
    text, message = document.text, document.message
    event: Json = {
        "dataset": "sealtape.commands",
        "id": document.id,
        "action": document.effect,
        "outcome": _OUTCOMES.get(document.status, "unknown"),
        "duration": document.duration_ns,
    }
    find: Json = {
        **_names(document),
        "start_ns": start_ns,
        "effect": tokens.fold(document.effect),
        "error": tokens.fold(document.error),
        "tables": _tails(document.tables),
        "failed": document.status == "error",
        "words": [cut for cut in map(_cut, (text, *document.tables, message)) if cut],
    }
    whole: Json = {
        "@timestamp": document.time_ns // _MS,
        "event": _filled(event),
        "session": {"id": document.session.hex()},
        **_shared(document),
        "process": _filled({"command_line": text}),
        "error": _filled({"code": document.error, "message": message}),
        "server": {"bytes": document.bytes_out},
        "sealtape": _filled(_command_ours(document)),
        "find": _filled(find),
    }
    return _filled(whole)


def _command_ours(document: CommandDocument) -> Json:
    return {
        **_ours(document),
        "time_ns": document.time_ns,
        "epoch": document.epoch,
        "n": document.n,
        "seq": document.seq,
        "leg": document.leg,
        "offset": document.offset,
        "length": document.length,
        "fingerprint": document.fingerprint,
        "tables": document.tables,
        "rows": document.rows,
        "status": document.status,
        "version": document.version,
    }


# -- and back --------------------------------------------------------------------------------------


def read_session(source: Mapping[str, Any]) -> SessionDocument:
    """Return the session that was kept. Raises StoreCorrupt for what we cannot have written."""
    event, ours = _part(source, "event"), _part(source, "sealtape")
    try:
        return SessionDocument(
            session=bytes.fromhex(_text(_part(source, "session"), "id")),
            tenant=_text(ours, "tenant"),
            retention=_text(ours, "retention"),
            user=_text(_part(source, "user"), "name"),
            groups=_texts(_part(source, "user"), "roles"),
            agent=_text(ours, "agent"),
            on_behalf_of=_texts(ours, "on_behalf_of"),
            run=_text(ours, "run"),
            target=_text(ours, "target"),
            protocol=_text(_part(source, "network"), "protocol"),
            database=_text(ours, "database"),
            source=_text(_part(source, "source"), "address"),
            client=_text(_part(source, "user_agent"), "original"),
            node=_text(_part(source, "observer"), "name"),
            started_ns=_whole(ours, "time_ns"),
            ended_ns=_whole(ours, "ended_ns") if "ended_ns" in ours else None,
            state=_text(ours, "state"),
            close_reason=_text(event, "reason"),
            frames=_whole(ours, "frames"),
            bytes_client=_whole(_part(source, "client"), "bytes"),
            bytes_server=_whole(_part(source, "server"), "bytes"),
            commands=_whole(ours, "commands"),
            errors=_whole(ours, "errors"),
            effects=_texts(ours, "effects"),
            revision=_whole(ours, "revision"),
        )
    except (FormatError, ValueError) as exc:
        raise _corrupt("session") from exc


def read_command(source: Mapping[str, Any]) -> CommandDocument:
    """Return the command that was kept. Raises StoreCorrupt for what we cannot have written."""
    event, ours, error = _part(source, "event"), _part(source, "sealtape"), _part(source, "error")
    try:
        return CommandDocument(
            session=bytes.fromhex(_text(_part(source, "session"), "id")),
            epoch=_whole(ours, "epoch"),
            n=_whole(ours, "n"),
            seq=_whole(ours, "seq"),
            tenant=_text(ours, "tenant"),
            retention=_text(ours, "retention"),
            user=_text(_part(source, "user"), "name"),
            groups=_texts(_part(source, "user"), "roles"),
            agent=_text(ours, "agent"),
            run=_text(ours, "run"),
            target=_text(ours, "target"),
            protocol=_text(_part(source, "network"), "protocol"),
            source=_text(_part(source, "source"), "address"),
            time_ns=_whole(ours, "time_ns"),
            leg=_whole(ours, "leg"),
            offset=_whole(ours, "offset"),
            length=_whole(ours, "length"),
            text=_text(_part(source, "process"), "command_line"),
            fingerprint=_text(ours, "fingerprint"),
            effect=_text(event, "action"),
            tables=_texts(ours, "tables"),
            status=_text(ours, "status"),
            rows=_whole(ours, "rows"),
            bytes_out=_whole(_part(source, "server"), "bytes"),
            duration_ns=_whole(event, "duration") if "duration" in event else None,
            error=_text(error, "code"),
            message=_text(error, "message"),
            version=_whole(ours, "version"),
        )
    except (FormatError, ValueError) as exc:
        raise _corrupt("command") from exc


def progress_of(source: Mapping[str, Any]) -> bytes | None:
    """Return the progress kept with a session; None if there is none."""
    text = _part(source, "sealtape").get("progress")
    try:
        return None if text is None else base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error) as exc:
        raise _corrupt("session") from exc


def encoded(progress: bytes) -> str:
    """Return progress as it is kept."""
    return base64.b64encode(progress).decode("ascii")


def _corrupt(kind: str) -> StoreCorrupt:
    return StoreCorrupt(
        f"A {kind} in the index is not of the form we write.",
        hint="Somebody else changed it: make the index anew with `sealtape index rebuild`.",
    )


def _part(source: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = source.get(name, {})
    if not isinstance(part, dict):
        raise _corrupt("document")
    return part


def _text(part: Mapping[str, Any], name: str) -> str:
    value = part.get(name, "")
    if not isinstance(value, str):
        raise FormatError(f"{name} is no text.")
    return value


def _texts(part: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values = part.get(name, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise FormatError(f"{name} is no list of texts.")
    return tuple(values)


def _whole(part: Mapping[str, Any], name: str) -> int:
    value = part.get(name)
    if type(value) is not int:
        raise FormatError(f"{name} is no whole number.")
    return value


# -- the parts -------------------------------------------------------------------------------------


def _filled(values: Json) -> Json:
    """Without what is empty: a field that is not there is not found by `field:*`, and is free."""
    return {name: value for name, value in values.items() if value not in _EMPTY}


_EMPTY: tuple[object, ...] = (None, "", (), [], {})


def _ours(document: SessionDocument | CommandDocument) -> Json:
    return {
        "tenant": document.tenant,
        "retention": document.retention,
        "target": document.target,
        "agent": document.agent,
        "run": document.run,
    }


def _shared(document: SessionDocument | CommandDocument) -> Json:
    return _who(document.user, document.groups, document.source, document.protocol)


@lru_cache(maxsize=1024)
def _who(user: str, groups: tuple[str, ...], source: str, protocol: str) -> Json:
    return {
        "user": _filled({"name": user, "roles": groups}),
        "source": _address(source),
        "network": _filled({"protocol": protocol}),
    }


def _address(source: str) -> Json:
    packed = packed_address(source)
    if not packed:
        return _filled({"address": source})
    return {"address": source, "ip": str(ipaddress.ip_address(packed[1:]))}


def _names(document: SessionDocument | CommandDocument) -> Json:
    return _folded_names(
        document.user,
        document.groups,
        document.target,
        document.agent,
        document.run,
        document.protocol,
    )


@lru_cache(maxsize=1024)
def _folded_names(
    user: str, groups: tuple[str, ...], target: str, agent: str, run: str, protocol: str
) -> Json:
    return _filled(
        {
            "user": tokens.fold(user),
            "groups": _unique(tokens.fold(group) for group in groups),
            "target": tokens.fold(target),
            "agent": tokens.fold(agent),
            "run": tokens.fold(run),
            "protocol": tokens.fold(protocol),
        }
    )


@lru_cache(maxsize=1024)
def _tails(tables: tuple[str, ...]) -> Sequence[str]:
    """Each name, and what stands behind each of its dots."""
    found: list[str] = []
    for name in map(tokens.fold, tables):
        parts = name.split(".")
        found += [".".join(parts[at:]) for at in range(len(parts))]
    return _unique(found)


def _unique(values: Iterable[str]) -> list[str]:
    return [value for value in dict.fromkeys(values) if value]


@lru_cache(maxsize=1024)
def _short_cut(text: str) -> str:
    return " ".join(tokens.words(text))


def _cut(text: str) -> str:
    """The words of a text, joined. Few texts make up most of a load; long ones are not kept."""
    return _short_cut(text) if len(text) <= _SHORT else " ".join(tokens.words(text))
