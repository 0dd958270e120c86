"""`sealtape setup`: create in the stores what the settings ask for."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from sealtape.capture.bus import prepare_bus
from sealtape.indexer.cli import output
from sealtape.indexer.cli.options import read_settings
from sealtape.indexer.index import prepare_index
from sealtape.ingest.keyring import prepare_keyring
from sealtape.ingest.ledger import prepare_ledger
from sealtape.ingest.vault import prepare_vault
from sealtape.schemas.settings import Settings

NAME = "setup"
HELP = "create topics, buckets, schemas and templates in the stores"
DESCRIPTION = """\
Creates in every store that the settings name what Sealtape needs there and does not find: topics,
the bucket, schemas with their migrations and roles, index templates. What is there already stays;
run it again after each upgrade, before the rooms start. `sealtape doctor` then says whether
all of it is as it should be.

The rooms themselves create nothing and may not: give this command settings whose URLs name users
that own the stores, and keep these settings apart from the rooms' own.
"""

Prepare = Callable[[str, Path], Awaitable[list[str]]]
STORES: tuple[tuple[str, Prepare], ...] = (
    ("bus", prepare_bus),
    ("keys", prepare_bus),
    ("events", prepare_bus),
    ("keyring", prepare_keyring),
    ("vault", prepare_vault),
    ("ledger", prepare_ledger),
    ("index", prepare_index),
)
NAMES = tuple(name for name, _ in STORES)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument(
        "--store", action="append", choices=NAMES, help="only this store; may be repeated"
    )


def run(args: argparse.Namespace) -> int:
    """Prepare the stores one after the other and say what was done."""
    asyncio.run(_run(read_settings(args), args.store or NAMES, as_json=args.json))
    return 0


async def _run(settings: Settings, wanted: list[str] | tuple[str, ...], *, as_json: bool) -> None:
    async for store, done in _prepared(settings, frozenset(wanted)):
        if as_json:
            output.json_line({"store": store, "done": done})
        else:
            print(f"{store:8} {'; '.join(done) or 'nothing to do'}")


async def _prepared(
    settings: Settings, wanted: frozenset[str]
) -> AsyncIterator[tuple[str, list[str]]]:
    for name, prepare in STORES:
        url = getattr(settings.stores, name)
        if name in wanted and url:
            yield name, await prepare(url, Path(settings.base))
