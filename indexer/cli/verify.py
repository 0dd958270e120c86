"""`sealtape verify`: whether what is sealed is what was recorded."""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from contextlib import AsyncExitStack
from pathlib import Path

from sealtape.indexer.audit import Audit
from sealtape.indexer.cli import output, verify_bundle, verify_schedule
from sealtape.indexer.cli.options import positive, read_settings
from sealtape.indexer.cli.sealed import session_of
from sealtape.indexer.cli.stores import auditor_key, keyring_of, ledger_of
from sealtape.indexer.cli.verify_log import (
    keep_seen,
    log_trust,
    monitor_of,
    trusted_nodes,
    worth_keeping,
)
from sealtape.indexer.contents import ContentChecker
from sealtape.indexer.deep import deep_checks
from sealtape.indexer.judging import JudgePool
from sealtape.ingest.vault import open_vault
from sealtape.schemas.errors import UsageError
from sealtape.schemas.layout import SEGMENT_PREFIX
from sealtape.schemas.settings import Settings
from sealtape.schemas.verify import Report
from sealtape.schemas.verify.log_state import SeenLog

NAME = "verify"
HELP = "verify one session, everything that is sealed, or an evidence bundle"
DESCRIPTION = """\
Reads the vault and the ledger and says whether anything was changed, dropped, reordered or
replaced since it was recorded: file hashes, the chain of segments, every frame's digest and leaf,
each session's root and the signatures made while it was recorded, the node's certificate against
the trust file; then the log over all of it: entries, tiles, checkpoints by the evidence policy, the
monitor's rules. Needs no key, and never writes to the deployment.

  sealtape verify --all --schedule

runs until it is stopped: it reads a part of all objects at a time, within `verify.bytes_per_day`,
those first that were not read for the longest time, and round after round. It keeps what it read
and found in a file of its own (`verify.state`), and raises an alarm for each finding: in its log,
its metrics, and by `verify.webhook`. With --once it reads what is due and is left of the day's
budget, then ends; its exit code says how all that it ever read stands. --history lists what was
read when, and what stands.

  sealtape verify BUNDLE.zip --policy POLICY.toml [--html REPORT.html]

verifies an evidence bundle, offline, by a policy of your own (docs/spec/evidence-policy.md), and
needs neither a deployment nor its settings.

With --decrypt each payload is opened with the auditors' key too; --deep decodes the recorded
bytes again and compares them with the facts that search shows.

exit codes: 0 verified, 1 tampered, 2 incomplete (live, a gap, nothing there), 3 deleted by policy
(which only a bundle's log can show)
"""

JOBS_PER_CPU = 4
"""Most processes for each CPU: they wait for the vault too, and more of them only take memory."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument(
        "session",
        nargs="?",
        metavar="SESSION|BUNDLE",
        help="session id, or its first digits; or the file of an evidence bundle",
    )
    _add_own(parser)
    parser.add_argument("--html", metavar="FILE", help="a bundle's report as one HTML page")
    parser.add_argument("--all", action="store_true", help="everything that is sealed")
    verify_schedule.add_arguments(parser)
    parser.add_argument(
        "--decrypt", action="store_true", help="open every payload with the auditors' key"
    )
    parser.add_argument("--deep", action="store_true", help="… and compare the facts with the data")
    parser.add_argument(
        "--jobs",
        type=_jobs,
        default=1,
        metavar="N",
        help="processes that read segments side by side, without --decrypt; at most four for each"
        " CPU (default 1)",
    )
    parser.add_argument(
        "--key", metavar="PLACE", help="the auditors' private key (else the deployment's)"
    )


def _add_own(parser: argparse.ArgumentParser) -> None:
    """What is the verifier's own, not the deployment's."""
    parser.add_argument(
        "--policy",
        metavar="FILE",
        help="your evidence policy: whose signatures on the log count (needed for a bundle)",
    )
    parser.add_argument(
        "--since",
        metavar="STATE",
        help="with --all: what an earlier run saw must still be there; the file is then rewritten",
    )
    parser.add_argument(
        "--monitor",
        metavar="DIR",
        help="with --all: your monitor's folder; what was acknowledged there is only noted",
    )
    parser.add_argument(
        "--trust", metavar="FILE", help="your own trust file (else the deployment's)"
    )


def cpus() -> int:
    """How many CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _jobs(text: str) -> int:
    """Return a number of processes for argparse; each takes a segment's memory."""
    value, most = positive(text), JOBS_PER_CPU * cpus()
    if value > most:
        msg = f"must be at most {most}, four for each CPU that may be used here"
        raise argparse.ArgumentTypeError(msg)
    return value


def run(args: argparse.Namespace) -> int:
    """Verify, print the report, return the verdict's exit code."""
    if verify_bundle.names_bundle(args.session):
        return verify_bundle.run(args)
    if args.history or args.schedule or args.once:
        return verify_schedule.run(args)
    if bool(args.session) == bool(args.all):
        msg = "Name one session, or say --all."
        raise UsageError(msg, hint="`sealtape sessions` lists them.")
    if args.since and not args.all:
        raise UsageError("--since goes with --all.", hint="It looks at the whole log.")
    if args.monitor and not args.all:
        raise UsageError("--monitor goes with --all.", hint="Its rules are about the whole log.")
    if args.jobs > 1 and (args.decrypt or args.deep or args.key):
        msg = "--jobs reads without a key."
        raise UsageError(msg, hint="Leave it out to open payloads; one process then does all.")
    report, seen = asyncio.run(_verify(args))
    with output.verdict():
        if args.json:
            output.json_line(report.to_json())
        else:
            _print(report)
    keep_seen(args.since, seen)
    return report.exit_code


async def _verify(args: argparse.Namespace) -> tuple[Report, SeenLog | None]:
    """The report, and what is to be kept of the log."""
    settings = read_settings(args)
    vault = await open_vault(settings.stores.vault, Path(settings.base))
    # Listed first: what is sealed while we look is then not taken for a stranger.
    listed = [key async for key in vault.keys(SEGMENT_PREFIX)] if args.all else []
    progress = output.Progress("verified frames", quiet=args.json)
    try:
        async with AsyncExitStack() as stack:
            contents = await _contents(args, settings, stack)
            trusted = await log_trust(
                settings,
                vault,
                policy=args.policy,
                since=args.since,
                monitor=monitor_of(args.monitor),
            )
            ledger = await stack.enter_async_context(ledger_of(settings, snapshot=True))
            judge = None
            if args.jobs > 1:
                judge = JudgePool(settings.stores.vault, Path(settings.base), args.jobs)
                stack.callback(judge.close)
            audit = Audit(
                ledger=ledger,
                vault=vault,
                log=settings.deployment.log,
                trust=trusted_nodes(settings, args.trust),
                now_ns=time.time_ns(),
                contents=contents,
                progress=progress.at,
                log_trust=trusted,
                judge=judge,
            )
            if args.all:
                report = await audit.everything(listed)
                return report, worth_keeping(args.since, audit.log.seen, report)
            return await audit.session(await session_of(ledger, args.session)), None
    finally:
        progress.done()
        await vault.close()


async def _contents(
    args: argparse.Namespace, settings: Settings, stack: AsyncExitStack
) -> ContentChecker | None:
    """What opens payloads, where that is asked for; the evidence is whole without a keyring."""
    if not (args.decrypt or args.deep or args.key):
        return None
    private = auditor_key(settings, args.key)
    keyring = await stack.enter_async_context(keyring_of(settings))
    return ContentChecker(keyring, private, deep=deep_checks() if args.deep else None)


def _print(report: Report) -> None:
    for finding in report.findings[:100]:
        output.finding(finding)
    more = len(report.findings) - 100 + report.suppressed
    if more > 0:
        print(f"… and {more} more findings (--json has them)")
    for note in report.notes:
        print(f"note: {output.line(note)}")
    counts = (
        f"{report.sessions} sessions, {report.frames} frames, {output.size(report.payload_bytes)}"
    )
    print(f"{report.verdict.upper()}: {counts}")
