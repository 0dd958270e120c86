"""`sealtape replay`: what a session did, out of its recorded bytes."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from sealtape.capture.bus import open_bus
from sealtape.indexer.cli import output
from sealtape.indexer.cli.options import positive, read_settings
from sealtape.indexer.cli.stores import auditor_key, index_of, keyring_of, ledger_of
from sealtape.indexer.reading import Keys, Place, Recording
from sealtape.indexer.rendering import as_json, as_table, as_text
from sealtape.indexer.replay import Note, Statement, raw, statements
from sealtape.ingest.vault import open_vault
from sealtape.schemas.errors import UsageError
from sealtape.schemas.settings import Settings
from sealtape.schemas.slices import CLIENT_IN, CLIENT_OUT

NAME = "replay"
HELP = "replay a session: statements with their rows, or the raw bytes"
DESCRIPTION = """\
Decodes a session's recorded bytes with the codec that relayed them: each statement with its
parameters, result rows as a table, time, duration and error. Needs the auditors' key. A session
that still runs is shown as far as it has come.

  sealtape replay 3f9a --at 42               from the frame that a search hit names
  sealtape replay 3f9a --format jsonl        one object a statement, with its rows
  sealtape replay 3f9a --raw server > bytes  exactly what the client was sent

--raw client is what the client sent after it had authenticated; --raw server what it was sent
from its AuthenticationOk on.
"""

LEGS = {"client": CLIENT_IN, "server": CLIENT_OUT}
_RENDER: dict[str, Callable[[Statement | Note], str]] = {"table": as_table, "text": as_text}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("session", metavar="SESSION", help="session id, or its first digits")
    parser.add_argument(
        "--at", metavar="SEQ", help="start at this frame; EPOCH:SEQ after a recovery"
    )
    parser.add_argument(
        "--raw", choices=sorted(LEGS), help="the bytes of one direction, nothing else"
    )
    parser.add_argument(
        "--format",
        choices=["table", "jsonl", "text"],
        help="how to show statements (default table)",
    )
    parser.add_argument(
        "--rows",
        type=positive,
        default=1000,
        metavar="N",
        help="most rows of a result (default 1000)",
    )
    parser.add_argument("--key", metavar="FILE", help="the auditors' private key")


def run(args: argparse.Namespace) -> int:
    """Write the replay to standard output."""
    if args.raw and (args.at or args.format):
        msg = "--raw writes bytes; it goes with neither --at nor --format."
        raise UsageError(msg)
    asyncio.run(_replay(args, read_settings(args)))
    return 0


async def _replay(args: argparse.Namespace, settings: Settings) -> None:
    async with _recording(args, settings) as (recording, keys):
        if args.raw:
            await _raw(recording, keys, args.raw)
            return
        shape = args.format or ("jsonl" if args.json else "table")
        async for shown in statements(recording, keys, at=_place(args.at), max_rows=args.rows):
            if shape == "jsonl":
                output.json_line(as_json(shown))
            else:
                print(_RENDER[shape](shown), flush=True)


async def _raw(recording: Recording, keys: Keys, side: str) -> None:
    # Where the bytes themselves go to the terminal, nothing may stand between them.
    progress = output.Progress("replayed", quiet=sys.stdout.isatty())
    done = 0
    try:
        async for chunk in raw(recording, keys, LEGS[side]):
            sys.stdout.buffer.write(chunk)
            done += len(chunk)
            progress.at(done, f"bytes, {output.size(done)}")
        sys.stdout.buffer.flush()
    finally:
        progress.done()


@asynccontextmanager
async def _recording(
    args: argparse.Namespace, settings: Settings
) -> AsyncIterator[tuple[Recording, Keys]]:
    base = Path(settings.base)
    private = auditor_key(settings, args.key)
    async with index_of(settings) as index:
        session = (await index.session(args.session)).session
    vault = await open_vault(settings.stores.vault, base)
    bus = open_bus(settings.stores.bus, base)
    try:
        await bus.start()
        async with ledger_of(settings) as ledger, keyring_of(settings) as keyring:
            keys = Keys(keyring, private)
            yield Recording(session, ledger, vault, bus, keys), keys
    finally:
        await bus.close()
        await vault.close()


def _place(text: str | None) -> Place | None:
    if text is None:
        return None
    epoch, separator, seq = text.rpartition(":")
    try:
        return (int(epoch) if separator else 0, int(seq))
    except ValueError as exc:
        msg = f"--at {text} is not a frame."
        raise UsageError(msg, hint="Write the `seq` of a search hit, or EPOCH:SEQ.") from exc
