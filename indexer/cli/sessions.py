"""`sealtape sessions`: list sessions, newest first."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Mapping

from sealtape.indexer.cli import output
from sealtape.indexer.cli.logged import Logged, read_logged
from sealtape.indexer.cli.options import positive, read_settings
from sealtape.indexer.cli.results import (
    SESSION_HEADER,
    say_not_verified,
    session_json,
    session_row,
)
from sealtape.indexer.cli.stores import index_of
from sealtape.indexer.index import Page
from sealtape.indexer.query import parse
from sealtape.schemas.documents import SessionDocument

NAME = "sessions"
HELP = "list sessions, newest first"
DESCRIPTION = """\
Lists sessions that match a query (docs/query.md), newest first. Without one, all of them.

  sealtape sessions 'user:ada since:2h'
  sealtape sessions 'agent:* -effect:read'

The state is live while the session runs, incomplete when its node fell silent before the end,
closed when it ended, sealed when all of it is in segments. The log has none of it until all its
seals are in the log, then it is pending, and witnessed once a checkpoint with the policy's quorum
covers them. A session is listed within seconds of its start. What is shown is the index, not
verified: `sealtape verify SESSION` does that.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("query", nargs="*", metavar="QUERY", help="what to look for")
    parser.add_argument(
        "--limit", type=positive, default=50, metavar="N", help="most to list (default 50)"
    )


def run(args: argparse.Namespace) -> int:
    """List the sessions."""
    found, logged = asyncio.run(_find(args))
    if args.json:
        for document in found:
            output.json_line(session_json(document, logged.get(document.session)))
        return 0
    rows = [session_row(document, logged.get(document.session)) for document in found]
    output.table(SESSION_HEADER, rows)
    say_not_verified()
    return 0


async def _find(
    args: argparse.Namespace,
) -> tuple[tuple[SessionDocument, ...], Mapping[bytes, Logged]]:
    query = parse(" ".join(args.query), now_ns=time.time_ns())
    settings = read_settings(args)
    async with index_of(settings) as index:
        found = (await index.search_sessions(query, Page(limit=args.limit))).documents
    return found, await read_logged(settings, [document.session for document in found])
