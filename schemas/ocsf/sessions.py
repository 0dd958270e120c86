"""The start and the end of a session, and clients that were turned away.

A session begins with a logon to its target and ends with a logoff (Authentication, 3002). A node's
journal is a session too: its start and end are the node's (Application Lifecycle, 6002).
"""

from __future__ import annotations

from typing import Any

from sealtape.schemas.documents import CommandDocument, SessionDocument
from sealtape.schemas.ocsf.event import (
    APPLICATION_LIFECYCLE,
    AUTHENTICATION,
    FAILURE,
    INFORMATIONAL,
    MEDIUM,
    SUCCESS,
    About,
    OcsfEvent,
    actor,
    endpoint,
    make_event,
    millis,
    user,
)

__all__ = ["JOURNAL", "refusal", "session_ended", "session_started"]

JOURNAL = "journal"
"""The protocol of a node's journal, as documents have it."""

_LOGON = (1, "Logon")
_LOGOFF = (2, "Logoff")
_START = (3, "Start")
_STOP = (4, "Stop")
_FAILED = frozenset({"spool", "aborted", "error", "refused"})
"""Reasons to close that nobody wanted."""
_PROTOCOL: dict[str, Any] = {"auth_protocol_id": 4, "auth_protocol": "OpenID"}
_REMOTE: dict[str, Any] = {"logon_type_id": 3, "logon_type": "Network", "is_remote": True}


def session_started(document: SessionDocument) -> OcsfEvent:
    """The event of a session that is open, or of a node that has begun to work.

    Its id is that of IDENT, which is frame 1 of epoch 0.
    """
    about = _about(document, "session-start", document.started_ns, epoch=0, seq=1)
    if document.protocol == JOURNAL:
        return _node(document, about, _START, f"Capture node {document.node} started.")
    return make_event(
        AUTHENTICATION,
        _LOGON,
        about,
        message=f"{document.user or 'unknown'} opened a session on {document.target}.",
        members={**_who(document), **_PROTOCOL, **_REMOTE},
        ours=_ours(document, epoch=0, seq=1),
    )


def session_ended(document: SessionDocument, *, epoch: int, seq: int) -> OcsfEvent:
    """The event of a session that has ended; `epoch` and `seq` are those of its CLOSE."""
    ended_ns = document.started_ns if document.ended_ns is None else document.ended_ns
    about = _about(document, "session-end", ended_ns, epoch=epoch, seq=seq)
    failed = document.close_reason in _FAILED
    ours = _ours(document, epoch=epoch, seq=seq) | {
        "close_reason": document.close_reason,
        "commands": document.commands,
        "errors": document.errors,
        "bytes_client": document.bytes_client,
        "bytes_server": document.bytes_server,
        "frames": document.frames,
    }
    if document.protocol == JOURNAL:
        text = f"Capture node {document.node} stopped: {document.close_reason}."
        return _node(document, about, _STOP, text, failed=failed, ours=ours)
    members = _who(document)
    members["session"]["expiration_reason"] = document.close_reason
    members |= {
        "start_time": millis(document.started_ns),
        "end_time": millis(ended_ns),
        "duration": max(millis(ended_ns) - millis(document.started_ns), 0),
        "status_code": document.close_reason,
    }
    return make_event(
        AUTHENTICATION,
        _LOGOFF,
        about,
        message=f"The session of {document.user or 'unknown'} on {document.target} ended: "
        f"{document.close_reason}.",
        members=members | _REMOTE,
        ours=ours,
        severity=MEDIUM if failed else INFORMATIONAL,
        status=FAILURE if failed else SUCCESS,
    )


def refusal(command: CommandDocument, session: SessionDocument) -> OcsfEvent:
    """The event of a client that was turned away, out of the journal `session`."""
    about = About(
        uid=f"{command.session.hex()}:{command.epoch}:{command.seq}:{command.n}",
        code="session-refused",
        time_ns=command.time_ns,
        tenant=command.tenant,
        correlation=command.session.hex(),
        node=session.node,
    )
    target = command.target or "unknown"
    members: dict[str, Any] = {
        "user": user(command),
        "service": {"name": target},
        "dst_endpoint": {"name": target, "svc_name": command.protocol},
        "src_endpoint": endpoint(command.source),
        "status_detail": command.message,
        "status_code": command.error,
    }
    if command.agent:
        members["actor"] = actor(command)
    return make_event(
        AUTHENTICATION,
        _LOGON,
        about,
        message=f"A connection to {target} was refused: {command.message}",
        members=members | _PROTOCOL | _REMOTE,
        ours={
            "session": command.session.hex(),
            "epoch": command.epoch,
            "seq": command.seq,
            "n": command.n,
            "target": command.target,
            "protocol": command.protocol,
            "retention": command.retention,
        },
        severity=MEDIUM,
        status=FAILURE,
    )


def _about(document: SessionDocument, code: str, time_ns: int, *, epoch: int, seq: int) -> About:
    journal = document.protocol == JOURNAL
    return About(
        uid=f"{document.id}:{epoch}:{seq}:0",
        code=code.replace("session", "node") if journal else code,
        time_ns=time_ns,
        tenant=document.tenant,
        correlation=document.id,
        node=document.node,
    )


def _who(document: SessionDocument) -> dict[str, Any]:
    members: dict[str, Any] = {
        "user": user(document),
        "session": {
            "uid": document.id,
            "created_time": millis(document.started_ns),
            "is_remote": True,
        },
        "service": {"name": document.target or "unknown"},
        "dst_endpoint": {"name": document.target or "unknown", "svc_name": document.protocol},
        "src_endpoint": endpoint(document.source),
    }
    if document.agent:
        members["actor"] = actor(document)
    return members


def _ours(document: SessionDocument, *, epoch: int, seq: int) -> dict[str, Any]:
    return {
        "session": document.id,
        "epoch": epoch,
        "seq": seq,
        "target": document.target,
        "protocol": document.protocol,
        "database": document.database,
        "client": document.client,
        "agent": document.agent,
        "on_behalf_of": list(document.on_behalf_of),
        "run": document.run,
        "retention": document.retention,
    }


def _node(
    document: SessionDocument,
    about: About,
    activity: tuple[int, str],
    message: str,
    *,
    failed: bool = False,
    ours: dict[str, Any] | None = None,
) -> OcsfEvent:
    return make_event(
        APPLICATION_LIFECYCLE,
        activity,
        about,
        message=message,
        members={"app": {"name": "Sealtape capture", "uid": document.node}},
        ours=ours or _ours(document, epoch=0, seq=1),
        severity=MEDIUM if failed else INFORMATIONAL,
        status=FAILURE if failed else SUCCESS,
    )
