"""`sealtape show`: one session and its commands."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from sealtape.indexer.cli import output
from sealtape.indexer.cli.confirmed import Confirmed
from sealtape.indexer.cli.logged import logged_times, read_logged
from sealtape.indexer.cli.options import add_verify, positive, read_settings
from sealtape.indexer.cli.results import (
    confirmed_json,
    hit_json,
    place,
    say_confirmed,
    say_not_verified,
    session_json,
)
from sealtape.indexer.cli.stores import index_of
from sealtape.indexer.index import Page
from sealtape.indexer.query import parse
from sealtape.schemas.documents import CommandDocument, SessionDocument
from sealtape.schemas.settings import Settings

NAME = "show"
HELP = "show one session and its commands"
DESCRIPTION = """\
Shows who a session was, how it went, and its commands in order. SESSION is its id or the
beginning of one. Where its seals are in the log, it says at which entries, how large the log is,
how much of it is witnessed, and when a quorum had witnessed that much.

What is shown is the index, which whoever administers it can edit. --verify verifies the sealed
record of the session, decodes it and compares: it needs the indexer's or the auditors' key, and the
exit code is 1 when the index differs from the record, or hides a command of it.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("session", metavar="SESSION", help="session id, or its first digits")
    parser.add_argument(
        "--limit", type=positive, default=1000, metavar="N", help="most commands (default 1000)"
    )
    add_verify(parser)


def run(args: argparse.Namespace) -> int:
    """Print the session."""
    session, commands, told, confirmed = asyncio.run(_find(args))
    body = session_json(session) | told
    if args.json:
        logged = told.get("log")
        lines = [hit_json(command, session) | {"log": logged} for command in commands]
        if confirmed:
            body |= confirmed_json(_gravest(confirmed))
            # The session's own answer comes first, what the index hides last.
            answers = confirmed[1 : len(lines) + 1]
            pairs = zip(lines, answers, strict=True)
            lines = [line | confirmed_json(each) for line, each in pairs]
        body |= {"statements": lines}
    if not confirmed:
        _tell(body, commands, as_json=args.json)
        if not args.json:
            say_not_verified()
        return 0
    with output.verdict():
        _tell(body, commands, as_json=args.json)
    return say_confirmed(confirmed)


def _tell(body: Mapping[str, Any], commands: Sequence[CommandDocument], *, as_json: bool) -> None:
    if as_json:
        output.json_line(body)
    else:
        _print(body, commands)


def _print(body: Mapping[str, Any], commands: Sequence[CommandDocument]) -> None:
    for key, value in body.items():
        if value not in (None, []) and key not in ("verified", "log_entries"):
            shown = ", ".join(value) if isinstance(value, list) else str(value)
            print(f"{key:13} {output.line(shown)}")
    for entry in body.get("log_entries", ()):
        print(
            f"{'log_entry':13} {entry['index']} of shard {entry['shard']}, epoch {entry['epoch']}"
        )
    print()
    rows = [
        [
            place(command.epoch, command.seq),
            (output.iso(command.time_ns) or "")[11:23],
            command.effect,
            command.error or ("" if command.rows < 0 else str(command.rows)),
            "" if command.duration_ns is None else f"{command.duration_ns / 1e6:.1f}",
            command.text,
        ]
        for command in commands
    ]
    output.table(["seq", "time (UTC)", "effect", "rows", "ms", "statement"], rows)


def _gravest(confirmed: Sequence[Confirmed]) -> Confirmed:
    """What is said of the session as a whole."""
    return min(confirmed, key=lambda each: (not each.differs, each.verified))


async def _find(
    args: argparse.Namespace,
) -> tuple[SessionDocument, Sequence[CommandDocument], dict[str, Any], list[Confirmed]]:
    settings = read_settings(args)
    async with index_of(settings) as index:
        session = await index.session(args.session)
        query = parse(f"session:{session.session.hex()}", now_ns=time.time_ns())
        page = Page(limit=args.limit, oldest_first=True)
        commands = (await index.search_commands(query, page)).documents
    logged = (await read_logged(settings, [session.session])).get(session.session)
    told = {"log": None if logged is None else logged.state} | logged_times(settings, logged)
    confirmed = await _confirmed(args, settings, session, commands) if args.verify else []
    return session, commands, told, confirmed


async def _confirmed(
    args: argparse.Namespace,
    settings: Settings,
    session: SessionDocument,
    commands: Sequence[CommandDocument],
) -> list[Confirmed]:
    """Of the session, of each command, and of what the index hides."""
    from sealtape.indexer.cli.confirming import Confirming, reader_key

    confirming = Confirming(settings, reader_key(settings, args.key), args.trust)
    await confirming.read([session.session])
    answers = [confirming.session(session), *map(confirming.command, commands)]
    # A page that is full says nothing about what comes behind it.
    if len(commands) < args.limit and session.state == "sealed":
        answers += confirming.hidden(session.session, commands)
    return answers
