"""What the log takes from its inbox: statements that were signed, incidents found elsewhere. Pure.

The log keeps statements for others to judge. What nobody could ever count is kept out all the same:
an entry stays for ever, and a monitor refuses a log for one that breaks the rules.
"""

from __future__ import annotations

from typing import Final

from sealtape.ingest.tlog.summary import LogSummary
from sealtape.schemas import notes
from sealtape.schemas.errors import FormatError, SignatureError
from sealtape.schemas.segments import SegmentRecord
from sealtape.schemas.tlog.records import Entry, LogIncident, parse_entry
from sealtape.schemas.tlog.statements import DoneStatement, IntentStatement, KeyStatement, Statement

__all__ = ["INCIDENT", "STATEMENT", "check_statement", "check_submitted"]

STATEMENT: Final = "statement"
INCIDENT: Final = "incident"


def check_submitted(kind: str, data: bytes, log: str, summary: LogSummary) -> None:
    """Raise FormatError unless these bytes may become an entry of the log."""
    entry = parse_entry(data)
    if kind == INCIDENT:
        if not isinstance(entry, LogIncident):
            raise FormatError(f"an entry of type {kind_of(entry)} was submitted as an incident")
        return
    if not isinstance(entry, Statement):
        raise FormatError(f"an entry of type {kind_of(entry)} was submitted as a statement")
    check_statement(entry, log, summary)


def kind_of(entry: Entry) -> str:
    """The type of an entry."""
    return "segment" if isinstance(entry, SegmentRecord) else entry.kind


def check_statement(statement: Statement, log: str, summary: LogSummary) -> None:
    """Raise FormatError unless it is for this log, and signed by somebody who counts there.

    That is an administrator, or a reaper for what a reaper signs. The first administrators sign
    for themselves. How many are needed is for the reader's policy to say.
    """
    body = statement.body
    if body.heading.log != log:
        raise FormatError(f"the statement is for the log {body.heading.log}, not for {log}")
    expired = isinstance(body, IntentStatement) and body.basis == "expired"
    role = "reaper" if expired or isinstance(body, DoneStatement) else "admin"
    keys = summary.keys_of(role)
    if isinstance(body, KeyStatement) and body.role == "admin" and not summary.keys_of("admin"):
        if body.action != "introduce":
            raise FormatError("no administrator was introduced yet")
        keys = [notes.Verifier.from_vkey(body.key)]
    if not keys:
        raise FormatError(f"no key was introduced that may sign it as {role}")
    if isinstance(body, KeyStatement):
        _check_key(body, summary)
    try:
        notes.open_note(statement.note, keys)
    except SignatureError as error:
        raise SignatureError(f"{body.kind} is not signed as {role}: {error.message}") from error


def _check_key(body: KeyStatement, summary: LogSummary) -> None:
    """Raise FormatError for what no monitor takes: rule 29 of docs/spec/monitor.md.

    A key that counts, or did, is not introduced again; what is replaced counts in the same role,
    and what is revoked does, or counts from an earlier index on no more.
    """
    name, ended = body.key[:64], summary.ended.get(body.key)
    if body.since is not None:
        if ended is None and summary.live.get(body.key) != body.role:
            raise FormatError(f"{name} was not introduced as {body.role} in this shard")
        if ended is not None and (ended[0] != body.role or body.since >= ended[1]):
            raise FormatError(f"{name} counts no more from index {ended[1]} on, as {ended[0]}")
        return
    if body.key in summary.live:
        raise FormatError(
            f"{name} counts in shard {summary.number} already; what introduces it in the"
            " next one is submitted while nobody writes the log"
        )
    if ended is not None:
        raise FormatError(
            f"{name} counted in this shard, and was replaced or revoked: make another"
        )
    known = [*summary.live.items(), *((key, role) for key, (role, _) in summary.ended.items())]
    if (_half(body.key), body.role) in {(_half(key), role) for key, role in known}:
        raise FormatError(f"{name} is known in this shard as {body.role} under another name")
    if body.action == "rotate" and summary.live.get(body.replaces) != body.role:
        raise FormatError(f"{body.replaces[:64]}, to be replaced, does not count as {body.role}")


def _half(vkey: str) -> str:
    """A verifier key without its name and id."""
    return vkey.split("+", 2)[-1]
