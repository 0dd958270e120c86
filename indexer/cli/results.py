"""Sessions and search hits as programs read them (docs/cli.md) and as people do."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from sealtape.indexer.cli import output
from sealtape.indexer.cli.confirmed import Confirmed
from sealtape.indexer.cli.logged import Logged
from sealtape.schemas.documents import CommandDocument, SessionDocument

_NOT_VERIFIED: Final = (
    "not verified: this is the search index, which whoever administers it can edit;"
    " `sealtape verify SESSION` checks the record"
)


def say_not_verified() -> None:
    """Say what a table of the index is worth; apart from it, where a pipe does not take it."""
    print(_NOT_VERIFIED, file=sys.stderr)


def say_confirmed(confirmed: Sequence[Confirmed]) -> int:
    """Say how many were verified, and why others were not; 1 when the index says otherwise."""
    reasons = Counter(each.reason for each in confirmed if not each.verified)
    verified = len(confirmed) - reasons.total()
    print(f"verified: {verified} of {len(confirmed)}", file=sys.stderr)
    for reason, count in reasons.most_common():
        print(output.line(f"not verified: {count}: {reason}"), file=sys.stderr)
    return 1 if any(each.differs for each in confirmed) else 0


def confirmed_json(confirmed: Confirmed | None) -> dict[str, Any]:
    """Return what `--verify` puts into a line."""
    if confirmed is None:
        return {}
    return {"verified": confirmed.verified, "verify_reason": confirmed.reason or None}


def session_json(document: SessionDocument, logged: Logged | None = None) -> dict[str, Any]:
    """Return the line of `sessions --json`; `logged` None: how far the log has it is not known."""
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
        "log": None if logged is None else logged.state,
        "verified": False,
        "close_reason": document.close_reason or None,
        "frames": document.frames,
        "bytes_client": document.bytes_client,
        "bytes_server": document.bytes_server,
        "commands": document.commands,
        "errors": document.errors,
        "effects": list(document.effects),
        "tenant": document.tenant,
        "retention": document.retention,
        "node": document.node,
    }


def hit_json(
    command: CommandDocument, session: SessionDocument, logged: Logged | None = None
) -> dict[str, Any]:
    """Return the line of `search --json`: the session, and what the hit adds.

    A client that was turned away is a hit of a node's journal, which is nobody's session: who it
    was, where to and where from is the hit's own.
    """
    duration = command.duration_ns
    return {
        **session_json(session, logged),
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


def session_row(document: SessionDocument, logged: Logged | None = None) -> list[str]:
    """Return the row of `sessions`."""
    return [
        document.session.hex()[:12],
        (output.iso(document.started_ns) or "")[:19],
        document.state,
        "-" if logged is None else logged.state,
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
    "log",
    "who",
    "target",
    "commands",
    "errors",
    "bytes",
]


def hit_row(command: CommandDocument, logged: Logged | None = None) -> list[str]:
    """Return the row of `search`."""
    outcome = command.error or ("" if command.rows < 0 else str(command.rows))
    return [
        command.session.hex()[:12],
        place(command.epoch, command.seq),
        (output.iso(command.time_ns) or "")[:19],
        "-" if logged is None else logged.state,
        who(command),
        command.effect,
        outcome,
        command.text,
    ]


HIT_HEADER = ["session", "seq", "time (UTC)", "log", "who", "effect", "rows", "statement"]
