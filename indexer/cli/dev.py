"""`sealtape dev`: all rooms in one process on the embedded stores."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from sealtape.capture.metrics import open_endpoint
from sealtape.capture.node import RunningCapture, start_capture
from sealtape.indexer.cli import output
from sealtape.indexer.cli.deployment import create, put_target, write_runtime
from sealtape.indexer.cli.lab import ANY_PORT, ensure_log_files, lab_log
from sealtape.indexer.cli.options import CONFIG_NAME, settings_at
from sealtape.indexer.cli.running import run_until_signal
from sealtape.indexer.cli.verify_log import policy_of
from sealtape.indexer.lane import IndexerStores
from sealtape.indexer.node import indexer_key, indexer_stores, start_room
from sealtape.indexer.node import vitals_of as indexer_vitals
from sealtape.indexer.schedule.metrics import ScheduleVitals
from sealtape.indexer.schedule.serving import RunningSchedule, start_schedule
from sealtape.indexer.worker import RunningIndexer
from sealtape.ingest.events_topic import open_events
from sealtape.ingest.node import RunningIngest, limits_of, read_trust, start_ingest, tell
from sealtape.ingest.node import vitals_of as ingest_vitals
from sealtape.ingest.relay import start_relay
from sealtape.ingest.serving import until_stopped
from sealtape.ingest.tlog.opening import RunningLog, start_log
from sealtape.ingest.tlog.serving import LogServer, serve_log
from sealtape.schemas.errors import SettingsError
from sealtape.schemas.notes import Verifier
from sealtape.schemas.settings import Settings

NAME = "dev"
HELP = "run everything in one process, for a lab or a first look"
DESCRIPTION = """\
Runs capture, ingest, the indexer and scheduled verification in one process on embedded stores, all
inside DIR, which is made when it does not exist. Prints how to connect; an interrupt ends the
sessions, seals and indexes what was recorded, then exits.

  sealtape dev lab --target shop=postgresql://app:secret@127.0.0.1:5432/shop

A target's URL may end in ?sslmode=disable, require or verify-full (default: disable). Its password
goes into DIR/secrets, never into the settings.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("dir", metavar="DIR", help="folder of the deployment; made if absent")
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="NAME=URL",
        help="add or replace a target; may be repeated",
    )


def run(args: argparse.Namespace) -> int:
    """Run until a signal."""
    folder = Path(args.dir).absolute()
    if not (folder / CONFIG_NAME).exists():
        create(folder, development=True)
    settings = settings_at(folder / CONFIG_NAME)
    if settings.deployment.mode != "dev":
        msg = f"{folder / CONFIG_NAME} is a production deployment."
        raise SettingsError(msg, hint="Run its rooms apart: sealtape capture, ingest, index.")
    ensure_log_files(settings)
    if args.target:
        for target in args.target:
            put_target(folder, target)
        settings = settings_at(folder / CONFIG_NAME)
    run_until_signal(
        lambda stop: _serve(settings, stop, as_json=args.json),
        settings,
        room="dev",
        loop=settings.capture.loop,
    )
    return 0


async def _serve(settings: Settings, stop: asyncio.Event, *, as_json: bool) -> None:
    trusted = read_trust(settings)
    private = indexer_key(settings)
    sealing, indexing = ingest_vitals(settings), indexer_vitals(settings)
    async with AsyncExitStack() as stack:
        for room, vitals in ((settings.ingest, sealing), (settings.indexer, indexing)):
            stack.push_async_callback((await open_endpoint(room.metrics, vitals)).close)
        stores = await stack.enter_async_context(indexer_stores(settings))
        served = await _serve_log(settings, stores, stack)
        events = open_events(settings)
        stack.push_async_callback(events.close)
        owner, lease_s = settings.deployment.node, settings.ingest.lease_s
        relay = start_relay(stores.ledger, events, owner=owner, lease_s=lease_s)
        stack.push_async_callback(relay.stop)
        log = await _start_log(settings, stores, stack)
        indexer = await start_room(settings, stores, private, events, indexing)
        stack.push_async_callback(indexer.stop)
        ingest = await start_ingest(
            bus=stores.bus,
            keyring=stores.keyring,
            vault=stores.vault,
            ledger=stores.ledger,
            keys=stores.keys,
            owner=owner,
            verifiers=trusted,
            limits=limits_of(settings.ingest),
            lease_s=lease_s,
        )
        stack.push_async_callback(ingest.stop)
        tell(sealing, ingest, relay, log)
        verifying = await _start_schedule(settings, trusted, stack)
        capture = await start_capture(_asking(settings, served.url), bus=stores.bus)
        stack.callback(_announce(settings, capture).unlink, missing_ok=True)
        _ready(settings, capture, as_json=as_json)
        try:
            await until_stopped(stop, ingest, indexer, relay, log, verifying)
        finally:
            await _drain(capture, ingest, indexer, as_json=as_json)


def _announce(settings: Settings, capture: RunningCapture) -> Path:
    return write_runtime(Path(settings.base), capture.listeners)


async def _serve_log(settings: Settings, stores: IndexerStores, stack: AsyncExitStack) -> LogServer:
    """Let the log be read over HTTP until `stack` is left."""
    base = Path(settings.base)
    served = await serve_log(settings.log, base, stores.ledger, stores.vault, address=ANY_PORT)
    stack.push_async_callback(served.close)
    return served


async def _start_log(
    settings: Settings, stores: IndexerStores, stack: AsyncExitStack
) -> RunningLog:
    """Write the log until `stack` is left, after what is stopped before it has sealed its last."""
    parts = await stack.enter_async_context(lab_log(settings, stores.ledger, stores.vault))
    owner, lease_s = settings.deployment.node, settings.ingest.lease_s
    log = start_log(parts, stores.bus, owner=owner, lease_s=lease_s)
    stack.push_async_callback(log.stop)
    return log


async def _start_schedule(
    settings: Settings, trusted: tuple[Verifier, ...], stack: AsyncExitStack
) -> RunningSchedule:
    """Verify what is sealed, a part at a time, until `stack` is left."""
    about = ScheduleVitals(settings.deployment.node)
    stack.push_async_callback((await open_endpoint(settings.verify.metrics, about)).close)
    verifying = await start_schedule(settings, trust=trusted, policy=policy_of(settings, None))
    stack.push_async_callback(verifying.stop)
    about.attach(verifying)
    return verifying


def _asking(settings: Settings, url: str) -> Settings:
    """The same settings, with a capture node that asks the log of this process."""
    capture = settings.capture
    return replace(settings, capture=replace(capture, log=capture.log or url))


async def _drain(
    capture: RunningCapture, ingest: RunningIngest, indexer: RunningIndexer, *, as_json: bool
) -> None:
    if not as_json:
        print("stopping: ending sessions, sealing, indexing …", file=sys.stderr)
    await capture.stop()
    await ingest.stop()
    await indexer.catch_up()


def _ready(settings: Settings, capture: RunningCapture, *, as_json: bool) -> None:
    config = str(Path(settings.base, CONFIG_NAME))
    targets = sorted(settings.targets)
    if as_json:
        output.json_line(
            {"ready": True, "config": config, "listeners": capture.listeners, "targets": targets}
        )
        return
    print(f"ready: PostgreSQL clients at {capture.listeners['postgres']}, as process {os.getpid()}")
    print(f"targets: {', '.join(targets) or 'none yet (add one with --target NAME=URL)'}")
    name = targets[0] if targets else "TARGET"
    print("\nin another terminal:")
    print(f"  export SEALTAPE_CONFIG={config}")
    print(f"  sealtape connect {name} -- psql          # or any client: sealtape connect {name}")
    print(
        "  sealtape sessions; sealtape search QUERY; sealtape replay SESSION; sealtape verify --all"
    )
    print("\nCtrl-C stops it.", flush=True)
