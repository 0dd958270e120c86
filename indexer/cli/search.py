"""`sealtape search`: find commands by what they said and did."""

from __future__ import annotations

import argparse
import asyncio
import time

from sealtape.indexer.cli import output
from sealtape.indexer.cli.options import positive, read_settings
from sealtape.indexer.cli.results import HIT_HEADER, hit_json, hit_row
from sealtape.indexer.cli.stores import index_of
from sealtape.indexer.index import Page
from sealtape.indexer.query import parse
from sealtape.schemas.documents import CommandDocument, SessionDocument
from sealtape.schemas.errors import NotFound

NAME = "search"
HELP = "find commands, in live sessions too"
DESCRIPTION = """\
Finds commands by free text and fields, newest first, also in sessions that still run. Each hit
names its session and frame, where `sealtape replay SESSION --at SEQ` begins.

  sealtape search 'orders effect:write since:1h'
  sealtape search 'user:ada -table:audit error:true'
  sealtape search '"drop table"'

The language is in docs/query.md: user: group: target: agent: run: protocol: effect: table:
error: source: since: until: session: and - for not. A query of one word that begins with -
comes after --, so that it is no option: sealtape search -- -effect:read
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("query", nargs="+", metavar="QUERY", help="what to look for")
    parser.add_argument(
        "--limit", type=positive, default=50, metavar="N", help="most to list (default 50)"
    )


def run(args: argparse.Namespace) -> int:
    """Print the hits."""
    found = asyncio.run(_find(args))
    if args.json:
        for command, session in found:
            output.json_line(hit_json(command, session))
    else:
        output.table(HIT_HEADER, [hit_row(command) for command, _ in found])
    return 0


async def _find(args: argparse.Namespace) -> list[tuple[CommandDocument, SessionDocument]]:
    query = parse(" ".join(args.query), now_ns=time.time_ns())
    found = []
    sessions: dict[bytes, SessionDocument] = {}
    async with index_of(read_settings(args)) as index:
        for command in (await index.search_commands(query, Page(limit=args.limit))).documents:
            if command.session not in sessions:
                try:
                    sessions[command.session] = await index.session(command.session.hex())
                except NotFound:
                    continue  # dropped between the two questions
            found.append((command, sessions[command.session]))
    return found
