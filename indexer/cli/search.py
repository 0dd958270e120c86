"""`sealtape search`: find commands by what they said and did."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Mapping, Sequence

from sealtape.indexer.cli import output
from sealtape.indexer.cli.confirmed import Confirmed
from sealtape.indexer.cli.logged import Logged, read_logged
from sealtape.indexer.cli.options import add_verify, positive, read_settings
from sealtape.indexer.cli.results import (
    HIT_HEADER,
    confirmed_json,
    hit_json,
    hit_row,
    say_confirmed,
    say_not_verified,
)
from sealtape.indexer.cli.stores import index_of
from sealtape.indexer.index import Page
from sealtape.indexer.query import parse
from sealtape.schemas.documents import CommandDocument, SessionDocument
from sealtape.schemas.errors import NotFound
from sealtape.schemas.settings import Settings

_Hit = tuple[CommandDocument, SessionDocument]

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

What is found is the index, which whoever administers it can edit. --verify verifies the sealed
record of each hit's session, decodes it and compares: it needs the indexer's or the auditors' key,
and the exit code is 1 when the index differs from the record. It cannot show what the index hides:
`sealtape show SESSION --verify` does, and `sealtape index rebuild` makes the index anew.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("query", nargs="+", metavar="QUERY", help="what to look for")
    parser.add_argument(
        "--limit", type=positive, default=50, metavar="N", help="most to list (default 50)"
    )
    add_verify(parser)


def run(args: argparse.Namespace) -> int:
    """Print the hits."""
    found, logged, confirmed = asyncio.run(_find(args))
    if args.verify:
        with output.verdict():
            _tell(args, found, logged, confirmed)
        return say_confirmed(confirmed)
    _tell(args, found, logged, confirmed)
    if not args.json:
        say_not_verified()
    return 0


def _tell(
    args: argparse.Namespace,
    found: Sequence[_Hit],
    logged: Mapping[bytes, Logged],
    confirmed: Sequence[Confirmed],
) -> None:
    if args.json:
        for n, (command, session) in enumerate(found):
            line = hit_json(command, session, logged.get(command.session))
            output.json_line(line | confirmed_json(confirmed[n] if confirmed else None))
    else:
        rows = [hit_row(command, logged.get(command.session)) for command, _ in found]
        output.table(HIT_HEADER, rows)


async def _find(
    args: argparse.Namespace,
) -> tuple[list[_Hit], Mapping[bytes, Logged], list[Confirmed]]:
    settings = read_settings(args)
    found = await _hits(args, settings)
    sessions = list(dict.fromkeys(command.session for command, _ in found))
    logged = await read_logged(settings, sessions)
    if not args.verify:
        return found, logged, []
    # Imported here: it reads Parquet and opens payloads, which a search does without.
    from sealtape.indexer.cli.confirming import Confirming, reader_key

    confirming = Confirming(settings, reader_key(settings, args.key), args.trust)
    await confirming.read(sessions)
    return found, logged, [confirming.hit(*each) for each in found]


async def _hits(args: argparse.Namespace, settings: Settings) -> list[_Hit]:
    query = parse(" ".join(args.query), now_ns=time.time_ns())
    found = []
    sessions: dict[bytes, SessionDocument] = {}
    async with index_of(settings) as index:
        for command in (await index.search_commands(query, Page(limit=args.limit))).documents:
            if command.session not in sessions:
                try:
                    sessions[command.session] = await index.session(command.session.hex())
                except NotFound:
                    continue  # dropped between the two questions
            found.append((command, sessions[command.session]))
    return found
