"""`sealtape verify --all --schedule` and `--history`: verification for ever, and its record."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from sealtape.capture.metrics import open_endpoint
from sealtape.indexer.cli import output
from sealtape.indexer.cli.options import read_settings
from sealtape.indexer.cli.running import run_until_signal
from sealtape.indexer.cli.sealed import session_of
from sealtape.indexer.cli.stores import ledger_of
from sealtape.indexer.cli.verify_log import monitor_of, policy_of, trusted_nodes
from sealtape.indexer.monitor.folder import MonitorFolder
from sealtape.indexer.schedule.metrics import ScheduleVitals
from sealtape.indexer.schedule.serving import Round, once, start_schedule
from sealtape.indexer.schedule.state import open_state, state_path
from sealtape.ingest.serving import until_stopped
from sealtape.schemas.errors import NotFound, UsageError
from sealtape.schemas.evidence import EvidencePolicy
from sealtape.schemas.notes import Verifier
from sealtape.schemas.settings import Settings
from sealtape.schemas.verification import Alarm, Verification
from sealtape.schemas.verify.findings import EXIT_CODES

__all__ = ["add_arguments", "run", "serve"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a schedule to those of `verify`."""
    parser.add_argument(
        "--schedule", action="store_true", help="with --all: a part at a time, round after round"
    )
    parser.add_argument(
        "--once", action="store_true", help="with --schedule: what is due today, then end"
    )
    parser.add_argument(
        "--history", action="store_true", help="what a schedule has read, of all or of one session"
    )


def run(args: argparse.Namespace) -> int:
    """Run for ever, for one round, or list what earlier runs have kept."""
    _check(args)
    settings = read_settings(args)
    if args.history:
        return _history(args, settings)
    trust, policy = trusted_nodes(settings, args.trust), policy_of(settings, args.policy)
    monitor = monitor_of(args.monitor)
    if args.once:
        outcome = asyncio.run(once(settings, trust=trust, policy=policy, monitor=monitor))
        with output.verdict():
            _print(outcome, as_json=args.json)
        return EXIT_CODES[outcome.verdict]
    run_until_signal(
        lambda stop: serve(settings, stop, trust=trust, policy=policy, monitor=monitor),
        settings,
        room="verify",
    )
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.history:
        if args.schedule or args.once or args.all:
            msg = "--history goes alone, or with one session."
            raise UsageError(msg, hint="It lists what --schedule has kept.")
        return
    if not (args.all and args.schedule) or args.session:
        msg = "A schedule is for everything: --all --schedule."
        raise UsageError(msg, hint="--once ends it after what is due today.")
    if args.since or args.decrypt or args.deep or args.key or args.jobs > 1:
        msg = "--schedule reads without a key, in one process, and keeps a state of its own."
        raise UsageError(msg, hint="Leave out --since, --decrypt, --deep, --key and --jobs.")


async def serve(
    settings: Settings,
    stop: asyncio.Event,
    *,
    trust: tuple[Verifier, ...],
    policy: EvidencePolicy | None,
    monitor: MonitorFolder | None = None,
) -> None:
    """Verify until `stop` is set; raises what ends it before."""
    about = ScheduleVitals(settings.deployment.node)
    endpoint = await open_endpoint(settings.verify.metrics, about)
    try:
        running = await start_schedule(settings, trust=trust, policy=policy, monitor=monitor)
        about.attach(running)
        try:
            await until_stopped(stop, running)
        finally:
            await running.stop()
    finally:
        await endpoint.close()


# -- one round -------------------------------------------------------------------------------------


def _print(outcome: Round, *, as_json: bool) -> None:
    share = outcome.coverage.share
    if as_json:
        output.json_line(
            {
                "verdict": outcome.verdict,
                "objects": outcome.objects,
                "bytes": outcome.read,
                "share": round(share, 4),
                "unverified": outcome.coverage.unverified,
                "fresh": [alarm.finding.to_json() for alarm in outcome.fresh],
                "findings": [_found(alarm) for alarm in outcome.standing],
                "unsent": outcome.unsent,
            }
        )
        return
    _print_findings(outcome.standing)
    print(f"read: {outcome.objects} objects, {output.size(outcome.read)}")
    if outcome.unsent:
        print(f"{outcome.unsent} alarms were not taken by the webhook; they are sent again")
    print(
        f"{outcome.verdict.upper()}: {share:.1%} verified lately, {len(outcome.standing)} findings"
    )


def _found(alarm: Alarm) -> dict[str, Any]:
    return {"found": output.iso(alarm.at_ns), "id": alarm.id.hex(), **alarm.finding.to_json()}


def _print_findings(alarms: tuple[Alarm, ...] | list[Alarm]) -> None:
    for alarm in alarms:
        output.finding(alarm.finding, f" ({output.iso(alarm.at_ns)})")


# -- what was kept ---------------------------------------------------------------------------------


def _history(args: argparse.Namespace, settings: Settings) -> int:
    if not state_path(settings).exists():
        msg = f"No schedule has verified anything here: there is no {settings.verify.state}."
        raise NotFound(
            msg, hint="`sealtape verify --all --schedule` makes it; verify.state names it."
        )
    records, standing = asyncio.run(_kept(settings, args.session))
    if args.json:
        told = [_told(record) for record in records]
        output.json_line({"verifications": told, "findings": [_found(each) for each in standing]})
        return 0
    rows = [
        [
            (output.iso(record.at_ns) or "")[:19] + "Z",
            record.verdict,
            str(record.findings),
            output.size(record.bytes),
            str(record.sessions),
            "-" if record.log is None else f"{record.log.origin} {record.log.size}",
            record.by,
            record.object or "ledger and log",
        ]
        for record in records
    ]
    output.table(
        ["begun (UTC)", "verdict", "findings", "read", "sessions", "log", "by", "object"], rows
    )
    _print_findings(standing)
    return 0


async def _kept(settings: Settings, prefix: str | None) -> tuple[list[Verification], list[Alarm]]:
    """Records and findings that stand: all, or those about one session and its objects."""
    state = await open_state(settings, read_only=True)
    try:
        standing = await state.standing()
        if not prefix:
            return await state.history(), standing
        async with ledger_of(settings) as ledger:
            session = await session_of(ledger, prefix)
            objects = {place.segment_key for place in await ledger.fragments(session)}
        own = [
            alarm
            for alarm in standing
            if alarm.finding.object in objects or alarm.finding.session == session.hex()
        ]
        return await state.history(objects), own
    finally:
        await state.close()


def _told(record: Verification) -> dict[str, Any]:
    log = None if record.log is None else {"origin": record.log.origin, "size": record.log.size}
    return {
        "object": record.object or None,
        "begun": output.iso(record.at_ns),
        "by": record.by,
        "bytes": record.bytes,
        "frames": record.frames,
        "sessions": record.sessions,
        "findings": record.findings,
        "verdict": record.verdict,
        "log": log,
    }
