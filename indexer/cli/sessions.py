"""`sealtape sessions`: list sessions, newest first."""

from __future__ import annotations

import argparse
import asyncio
import time

from sealtape.indexer.cli import output
from sealtape.indexer.cli.options import positive, read_settings
from sealtape.indexer.cli.results import SESSION_HEADER, session_json, session_row
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

The state is live while the session runs, closed when it ended, sealed when all of it is in
segments. A session is listed within seconds of its start.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("query", nargs="*", metavar="QUERY", help="what to look for")
    parser.add_argument(
        "--limit", type=positive, default=50, metavar="N", help="most to list (default 50)"
    )


def run(args: argparse.Namespace) -> int:
    """List the sessions."""
    found = asyncio.run(_find(args))
    if args.json:
        for document in found:
            output.json_line(session_json(document))
    else:
        output.table(SESSION_HEADER, [session_row(document) for document in found])
    return 0


async def _find(args: argparse.Namespace) -> tuple[SessionDocument, ...]:
    query = parse(" ".join(args.query), now_ns=time.time_ns())
    async with index_of(read_settings(args)) as index:
        return (await index.search_sessions(query, Page(limit=args.limit))).documents
