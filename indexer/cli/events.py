"""`sealtape events`: read the topic that SIEMs read."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sealtape.capture.bus import Bus, Record, open_bus
from sealtape.indexer.cli import output
from sealtape.indexer.cli.options import read_settings
from sealtape.schemas.errors import Missing, NotFound, StoreBusy, UsageError
from sealtape.schemas.ocsf.names import CLASSES, EVENT_CODES, class_word
from sealtape.schemas.settings import Settings

NAME = "events"
HELP = "show or follow the events that SIEMs get"
DESCRIPTION = """\
Prints the events of the events topic, oldest first: sessions, refusals and statements as the
indexer sees them, sealing, gaps, incidents and keys from the ledger. A line each for people, the
OCSF event itself with --json (docs/spec/events.md). Nothing is marked as read. With --follow it
waits while the topic is away, and goes on where it was.

  sealtape events --follow --class statement --class session-refused
  sealtape events --json | jq 'select(.severity_id > 2)'

An unknown --class is refused, with a list of those there are. An event may come twice, with the
same id; programs drop the second (docs/consume.md).
"""

READ_BYTES = 1 << 20
WAIT_S = 1.0
TEXT = 400
"""Most characters of a statement that are shown to people."""
ALARMING = 3
"""The severity from which it is shown instead of the status."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument(
        "--follow", action="store_true", help="wait for new events, beginning with the next one"
    )
    parser.add_argument(
        "--from-start", action="store_true", help="with --follow: all that the topic holds first"
    )
    parser.add_argument(
        "--class",
        dest="classes",
        action="append",
        default=[],
        metavar="CLASS",
        help="only these: an event code (statement), or an OCSF class by number (3002) or name"
        " (authentication); may be repeated",
    )


def run(args: argparse.Namespace) -> int:
    """Print events until there are no more, or until interrupted."""
    asyncio.run(_run(args, read_settings(args)))
    return 0


def _known(name: str) -> str:
    """What events are compared with, of a `--class`. Raises `UsageError` for what none has."""
    word = class_word(name)
    classes = {class_word(kind.name): str(kind.uid) for kind in CLASSES}
    if word not in {*EVENT_CODES, *classes, *classes.values()}:
        known = ", ".join(f"{kind} ({number})" for kind, number in classes.items())
        raise UsageError(
            f"No event is of the class {name!r}.",
            hint=f"By event code: {', '.join(EVENT_CODES)}. By OCSF class: {known}.",
        )
    return word


async def _run(args: argparse.Namespace, settings: Settings) -> None:
    wanted = frozenset(map(_known, args.classes))
    show = partial(_show, wanted=wanted, as_json=args.json)
    async with _events(settings) as bus:
        bounds = [await bus.bounds(partition) for partition in range(bus.partitions)]
        if args.from_start or not args.follow:
            async for record in _kept(bus, bounds):
                show(record)
        if args.follow:
            await _follow(bus, [end for _, end in bounds], show)


@asynccontextmanager
async def _events(settings: Settings) -> AsyncIterator[Bus]:
    url, base = settings.stores.events, Path(settings.base)
    if url.startswith("dir:"):
        folder = base / url.removeprefix("dir:").partition("?")[0]
        if not (folder / "bus.json").exists():
            raise NotFound(
                f"There is no events topic in {folder} yet.",
                hint="ingest and the indexer make it when they start.",
            )
    bus = open_bus(url, base)
    try:
        await bus.start()
        yield bus
    finally:
        await bus.close()


# -- reading ---------------------------------------------------------------------------------------


async def _kept(bus: Bus, bounds: list[tuple[int, int]]) -> AsyncIterator[Record]:
    """What the topic held at `bounds`, by the time the bus took it."""
    streams = [_stream(bus, partition, first, end) for partition, (first, end) in enumerate(bounds)]
    heads = {stream: await anext(stream, None) for stream in streams}
    while True:
        heads = {stream: record for stream, record in heads.items() if record is not None}
        if not heads:
            return
        first = min(heads, key=lambda stream: heads[stream].ts_ms)  # type: ignore[union-attr]
        record, heads[first] = heads[first], await anext(first, None)
        assert record is not None
        yield record


async def _follow(bus: Bus, ends: list[int], show: Callable[[Record], None]) -> None:
    """Show what comes from now on, of all partitions as it comes."""

    async def follow(partition: int) -> None:
        async for record in _stream(bus, partition, ends[partition], None):
            show(record)

    tasks = [asyncio.create_task(follow(partition)) for partition in range(len(ends))]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _stream(bus: Bus, partition: int, at: int, end: int | None) -> AsyncIterator[Record]:
    """The records of a partition; without an end also through outages, from where it was."""
    away = False
    while end is None or at < end:
        try:
            batch = await bus.read(partition, at, max_bytes=READ_BYTES, wait_s=WAIT_S)
            away = False
        except StoreBusy as exc:
            if end is not None:
                raise
            if not away:
                print(f"sealtape: partition {partition} waits: {exc}", file=sys.stderr)
            away = True
            await asyncio.sleep(exc.retry_after_s)
            continue
        except Missing:
            first, _ = await bus.bounds(partition)
            print(
                f"sealtape: events of partition {partition} were deleted before they were read",
                file=sys.stderr,
            )
            at = first
            continue
        for record in batch.records:
            if end is None or record.offset < end:
                yield record
        at = batch.next_offset


# -- showing ---------------------------------------------------------------------------------------


def _show(record: Record, *, wanted: frozenset[str], as_json: bool) -> None:
    try:
        event = json.loads(record.value)
        metadata = event["metadata"]
        code, kind = metadata.get("event_code", ""), class_word(event["class_name"])
        if wanted and not wanted & {code, kind, str(event["class_uid"])}:
            return
        if as_json:
            text = record.value.decode() if output.takes_unicode() else json.dumps(event)
        else:
            text = _line(event, code or kind)
    except (ValueError, LookupError, TypeError, AttributeError):
        print(f"sealtape: the message at offset {record.offset} is no event", file=sys.stderr)
    else:
        print(text, flush=True)


def _line(event: dict[str, Any], code: str) -> str:
    when = output.iso(event["time"] * 1_000_000)
    shown = event["severity"] if event["severity_id"] >= ALARMING else event.get("status", "")
    text = _statement(event) if code == "statement" else event["message"]
    return output.line(f"{when}  {code:15}  {shown:8}  {text}")


def _statement(event: dict[str, Any]) -> str:
    ours = event["unmapped"]["sealtape"]
    text = event["query_info"]["query_string"]
    if len(text) > TEXT:
        text = text[:TEXT] + "…"
    notes = []
    if "rows" in ours:
        notes.append(f"{ours['rows']} rows")
    if "duration_ns" in ours:
        notes.append(f"{int(ours['duration_ns']) / 1e6:.1f} ms")
    if "status_code" in event or "status_detail" in event:
        notes.append(f"{event.get('status_code', '')} {event.get('status_detail', '')}".strip())
    who = event["actor"]["user"]["name"]
    if "app_name" in event["actor"]:
        who += f" ({event['actor']['app_name']})"
    said = f"{who} on {ours['target']}: {text}"
    return f"{said}  [{', '.join(notes)}]" if notes else said
