"""Sessions and search hits as programs read them (docs/cli.md) and as people do."""

from __future__ import annotations

from typing import Any

from sealtape.indexer.cli import output
from sealtape.schemas.documents import CommandDocument, SessionDocument


def session_json(document: SessionDocument) -> dict[str, Any]:
    """Return the line of `sessions --json`."""
    return {
        "session": document.session.hex(),
        "user": document.user,
        "groups": list(document.groups),
        "agent": document.agent or None,
        "on_behalf_of": list(document.on_behalf_of),
        "run": document.run or None,
        "target": document.target,
        "database": document.database or None,
        "protocol": document.protocol,
        "source": document.source or None,
        "client": document.client or None,
        "started": output.iso(document.started_ns),
        "ended": output.iso(document.ended_ns),
        "state": document.state,
        "close_reason": document.close_reason or None,
        "frames": document.frames,
        "bytes_client": document.bytes_client,
        "bytes_server": document.bytes_server,
        "commands": document.commands,
        "errors": document.errors,
        "tenant": document.tenant,
        "retention": document.retention,
        "node": document.node,
    }


def hit_json(command: CommandDocument, session: SessionDocument) -> dict[str, Any]:
    """Return the line of `search --json`: the session, and what the hit adds.

    A client that was turned away is a hit of a node's journal, which is nobody's session: who it
    was, where to and where from is the hit's own.
    """
    duration = command.duration_ns
    return {
        **session_json(session),
        "user": command.user or session.user,
        "target": command.target or session.target,
        "source": command.source or session.source or None,
        "epoch": command.epoch,
        "seq": command.seq,
        "n": command.n,
        "time": output.iso(command.time_ns),
        "text": command.text,
        "fingerprint": command.fingerprint or None,
        "effect": command.effect,
        "tables": list(command.tables),
        "status": command.status,
        "rows": None if command.rows < 0 else command.rows,
        "bytes_out": command.bytes_out,
        "duration_ms": None if duration is None else duration / 1e6,
        "error": command.error or None,
        "message": command.message or None,
    }


def place(epoch: int, seq: int) -> str:
    """A frame as `replay --at` takes it: of the first epoch by its seq alone."""
    return f"{epoch}:{seq}" if epoch else str(seq)


def who(document: SessionDocument | CommandDocument) -> str:
    """Return the identity for people: the user, and the agent that acts."""
    return f"{document.user} ({document.agent})" if document.agent else document.user


def session_row(document: SessionDocument) -> list[str]:
    """Return the row of `sessions`."""
    return [
        document.session.hex()[:12],
        (output.iso(document.started_ns) or "")[:19],
        document.state,
        who(document),
        document.target,
        str(document.commands),
        str(document.errors),
        output.size(document.bytes_client + document.bytes_server),
    ]


SESSION_HEADER = [
    "session",
    "started (UTC)",
    "state",
    "who",
    "target",
    "commands",
    "errors",
    "bytes",
]


def hit_row(command: CommandDocument) -> list[str]:
    """Return the row of `search`."""
    outcome = command.error or ("" if command.rows < 0 else str(command.rows))
    return [
        command.session.hex()[:12],
        place(command.epoch, command.seq),
        (output.iso(command.time_ns) or "")[:19],
        who(command),
        command.effect,
        outcome,
        command.text,
    ]


HIT_HEADER = ["session", "seq", "time (UTC)", "who", "effect", "rows", "statement"]
