"""`sealtape export`: one session as evidence for somebody outside."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from sealtape.indexer.cli import output
from sealtape.indexer.cli.options import read_settings
from sealtape.indexer.cli.sealed import session_of
from sealtape.indexer.cli.stores import auditor_key, keyring_of, ledger_of
from sealtape.indexer.export import Exported, Exporter, Frames
from sealtape.indexer.reading import Keys
from sealtape.ingest.ledger import Ledger
from sealtape.ingest.vault import open_vault
from sealtape.schemas.errors import NotFound, StoreError, UsageError
from sealtape.schemas.settings import Settings

NAME = "export"
HELP = "write one session as an evidence bundle"
DESCRIPTION = """\
Writes a session as one file that an outsider verifies without us and without a network: its
frames, the log's entries about it with their proofs, the witnessed checkpoint, time-stamps.

  sealtape export 3f9a -o case-7.zip
  sealtape export 3f9a -o case-7.zip --with-keys           every payload can be read
  sealtape export 3f9a -o case-7.zip --with-keys 41 44-50  these can, and no others
  sealtape export 3f9a -o case-7.zip --redact 12 1:3       these are withheld, the rest verifies

A frame is SEQ or EPOCH:SEQ, as search shows it, or a range A-B. Keys are per frame and need the
auditors' private key; a redacted frame's key is never in the bundle. The policy that judges a
bundle is never in it either: `sealtape verify BUNDLE --policy FILE`.
"""

_MAX_SEQ: Final = 2**63 - 1
_POLL_S: Final = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("session", metavar="SESSION", help="session id, or its first digits")
    parser.add_argument(
        "-o", "--output", required=True, metavar="FILE", help="where to; it must not exist"
    )
    parser.add_argument(
        "--format", choices=["bundle"], default="bundle", help="what to write (default bundle)"
    )
    parser.add_argument(
        "--with-keys", nargs="*", metavar="SEQ", help="disclose keys, of these frames or of all"
    )
    parser.add_argument("--redact", nargs="+", metavar="SEQ", help="withhold these payloads")
    parser.add_argument("--key", metavar="FILE", help="the auditors' private key")
    parser.add_argument(
        "--wait",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="wait so long for seal, heartbeat and witnesses (default 0)",
    )


def run(args: argparse.Namespace) -> int:
    """Export and say what is in the file."""
    place = Path(args.output)
    if place.exists():
        raise UsageError(f"{place} exists.", hint="Nothing is overwritten: name another file.")
    done = asyncio.run(_export(args, read_settings(args), place))
    if args.json:
        output.json_line(
            {
                "session": done.session,
                "file": str(place),
                "bytes": done.size,
                "frames": done.frames,
                "withheld": done.withheld,
                "keys": done.keys,
                "log_size": done.log_size,
                "lacking": done.lacking,
            }
        )
        return 0
    for reason in done.lacking:
        print(f"incomplete: {output.line(reason)}", file=sys.stderr)
    print(
        f"{place}: {output.size(done.size)}, {done.frames} frames, {done.withheld} withheld,"
        f" {done.keys} keys, under the checkpoint at {done.log_size} entries"
    )
    print(f"verify it: sealtape verify {place} --policy POLICY")
    return 0


async def _export(args: argparse.Namespace, settings: Settings, place: Path) -> Exported:
    redact = frames_of(args.redact or [])
    chosen = frames_of(args.with_keys) if args.with_keys else None
    progress = output.Progress("exported frames", quiet=args.json)
    try:
        async with AsyncExitStack() as stack:
            keys = None
            if args.with_keys is not None:
                private = auditor_key(settings, args.key)
                keys = Keys(await stack.enter_async_context(keyring_of(settings)), private)
            vault = await open_vault(settings.stores.vault, Path(settings.base))
            stack.push_async_callback(vault.close)
            ledger = await stack.enter_async_context(ledger_of(settings))
            exporter = Exporter(ledger, vault, keys=keys, progress=progress.at)
            until = time.monotonic() + args.wait
            session = await _found(ledger, args.session, until)
            await exporter.settle(session, until, _POLL_S)
            return await exporter.export(session, place, redact=redact, disclose=chosen)
    except OSError as exc:
        raise StoreError(f"{place} cannot be written: {exc}.") from exc
    finally:
        progress.done()


async def _found(ledger: Ledger, prefix: str, until: float) -> bytes:
    """The session, as soon as a part of it is sealed."""
    while True:
        try:
            return await session_of(ledger, prefix)
        except NotFound:
            if time.monotonic() >= until:
                raise
        await asyncio.sleep(_POLL_S)


def frames_of(words: list[str]) -> Frames:
    """Frames as the command line names them: `SEQ`, `EPOCH:SEQ`, `A-B`, `EPOCH:A-B`."""
    ranges = []
    for word in words:
        epoch, _, span = word.rpartition(":")
        first, dash, last = span.partition("-")
        numbers = [epoch or "0", first, last if dash else first]
        if not all(number.isascii() and number.isdecimal() for number in numbers):
            raise UsageError(f"{word!r} is not a frame.", hint="Write SEQ, EPOCH:SEQ or A-B.")
        at, lo, hi = map(int, numbers)
        if not lo <= hi <= _MAX_SEQ:
            raise UsageError(f"{word!r} is not a range of frames.", hint="The first comes first.")
        ranges.append((at, lo, hi + 1))
    return Frames(tuple(ranges))
