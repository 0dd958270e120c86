"""A statement that somebody ran, while it runs and with its result (Datastore Activity, 6005)."""

from __future__ import annotations

from typing import Any

from sealtape.schemas.documents import CommandDocument, SessionDocument
from sealtape.schemas.ocsf.event import (
    DATASTORE_ACTIVITY,
    FAILURE,
    INFORMATIONAL,
    LOW,
    SUCCESS,
    About,
    OcsfEvent,
    actor,
    endpoint,
    make_event,
    millis,
)

__all__ = ["ACTIVITIES", "statement"]

ACTIVITIES = {
    "read": (4, "Query"),
    "write": (5, "Write"),
    "ddl": (99, "DDL"),
    "privilege": (99, "Privilege"),
    "other": (99, "Other"),
    "unknown": (0, "Unknown"),
}
"""OCSF's activity for each effect; any other effect is 99 under its own name."""

_STATUSES = {"ok": SUCCESS, "error": FAILURE}
_RUNNING = (99, "Running")
_RELATIONAL = {"type_id": 1, "type": "Relational"}
_DATABASES = {"postgres": _RELATIONAL}
_UNKNOWN = {"type_id": 0, "type": "Unknown"}


def statement(command: CommandDocument, session: SessionDocument) -> OcsfEvent:
    """The event of a command as it is now; `session` is the one it belongs to.

    The first result has the id of the COMMAND fact; while the command runs, and should a later
    result override the first, the document's version is added.
    """
    name = f"{command.session.hex()}:{command.epoch}:{command.seq}:{command.n}"
    failed = command.status == "error"
    activity = ACTIVITIES.get(command.effect) or (99, command.effect or "Other")
    return make_event(
        DATASTORE_ACTIVITY,
        activity,
        About(
            uid=name if command.version == 1 else f"{name}:{command.version}",
            code="statement",
            time_ns=command.time_ns,
            tenant=command.tenant,
            correlation=command.session.hex(),
            node=session.node,
        ),
        message=f"{command.user or 'unknown'} ran a statement on {command.target} "
        f"({command.effect}): {command.status}.",
        members=_members(command, session),
        ours=_ours(command, session),
        severity=LOW if failed else INFORMATIONAL,
        status=_STATUSES.get(command.status, _RUNNING),
    )


def _members(command: CommandDocument, session: SessionDocument) -> dict[str, Any]:
    target = command.target or "unknown"
    members: dict[str, Any] = {
        "actor": actor(command),
        "src_endpoint": endpoint(command.source),
        "dst_endpoint": {"name": target, "svc_name": command.protocol},
        "database": {
            "name": session.database or target,
            "uid": target,
            **_DATABASES.get(command.protocol, _UNKNOWN),
        },
        "query_info": {
            "uid": command.fingerprint or command.id,
            "query_string": command.text,
            "query_time": millis(command.time_ns),
        },
        "start_time": millis(command.time_ns),
    }
    if command.tables:
        members["table"] = {"name": command.tables[0]}
    if command.duration_ns is not None:
        members["duration"] = millis(command.duration_ns)
        members["end_time"] = millis(command.time_ns + command.duration_ns)
        members["query_info"]["bytes"] = command.bytes_out
    if command.error:
        members["status_code"] = command.error
    if command.message:
        members["status_detail"] = command.message
    return members


def _ours(command: CommandDocument, session: SessionDocument) -> dict[str, Any]:
    ours: dict[str, Any] = {
        "session": command.session.hex(),
        "epoch": command.epoch,
        "seq": command.seq,
        "n": command.n,
        "version": command.version,
        "target": command.target,
        "protocol": command.protocol,
        "effect": command.effect,
        "tables": list(command.tables),
        "fingerprint": command.fingerprint,
        "agent": command.agent,
        "on_behalf_of": list(session.on_behalf_of),
        "run": command.run,
        "retention": command.retention,
    }
    if command.duration_ns is not None:
        ours |= {"duration_ns": str(command.duration_ns), "bytes_out": command.bytes_out}
    if command.rows >= 0:
        ours["rows"] = command.rows
    return ours
