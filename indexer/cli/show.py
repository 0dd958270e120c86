"""`sealtape show`: one session and its commands."""

from __future__ import annotations

import argparse
import asyncio
import time

from sealtape.indexer.cli import output
from sealtape.indexer.cli.options import positive, read_settings
from sealtape.indexer.cli.results import hit_json, session_json
from sealtape.indexer.cli.stores import index_of
from sealtape.indexer.index import Page
from sealtape.indexer.query import parse
from sealtape.schemas.documents import CommandDocument, SessionDocument

NAME = "show"
HELP = "show one session and its commands"
DESCRIPTION = """\
Shows who a session was, how it went, and its commands in order. SESSION is its id or the
beginning of one.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("session", metavar="SESSION", help="session id, or its first digits")
    parser.add_argument(
        "--limit", type=positive, default=1000, metavar="N", help="most commands (default 1000)"
    )


def run(args: argparse.Namespace) -> int:
    """Print the session."""
    session, commands = asyncio.run(_find(args))
    if args.json:
        body = session_json(session)
        body["statements"] = [hit_json(command, session) for command in commands]
        output.json_line(body)
        return 0
    for key, value in session_json(session).items():
        if value not in (None, []):
            shown = ", ".join(value) if isinstance(value, list) else str(value)
            print(f"{key:13} {output.printable(shown)}")
    print()
    rows = [
        [
            str(command.seq),
            (output.iso(command.time_ns) or "")[11:23],
            command.effect,
            command.error or ("" if command.rows < 0 else str(command.rows)),
            "" if command.duration_ns is None else f"{command.duration_ns / 1e6:.1f}",
            command.text,
        ]
        for command in commands
    ]
    output.table(["seq", "time (UTC)", "effect", "rows", "ms", "statement"], rows)
    return 0


async def _find(args: argparse.Namespace) -> tuple[SessionDocument, tuple[CommandDocument, ...]]:
    async with index_of(read_settings(args)) as index:
        session = await index.session(args.session)
        query = parse(f"session:{session.session.hex()}", now_ns=time.time_ns())
        page = Page(limit=args.limit, oldest_first=True)
        return session, (await index.search_commands(query, page)).documents
