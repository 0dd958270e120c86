"""`sealtape monitor`: read all entries of a log, and cosign it while they keep the rules."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import re
import secrets
import ssl
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from sealtape.capture.kms.file import write_new
from sealtape.capture.metrics import open_endpoint
from sealtape.indexer.cli import output
from sealtape.indexer.cli.options import login_name
from sealtape.indexer.cli.running import run_apart
from sealtape.indexer.cli.witness import cosigning_keys, serving_context
from sealtape.indexer.monitor import open_monitor, read_once
from sealtape.indexer.monitor.folder import MonitorFolder, name_of
from sealtape.indexer.monitor.metrics import MonitorVitals
from sealtape.ingest.vault import open_vault
from sealtape.schemas.cosignatures import ED25519, ML_DSA_44
from sealtape.schemas.errors import (
    DeploymentExists,
    FormatError,
    SettingsError,
    StoreError,
    UsageError,
)
from sealtape.schemas.evidence import EvidencePolicy, parse_evidence_policy
from sealtape.schemas.notes import check_key_name
from sealtape.schemas.settings.values import address
from sealtape.schemas.tlog.keyfiles import PrivateHalf, format_key
from sealtape.schemas.verify.violations import Limits

NAME = "monitor"
HELP = "read all entries of a log, and cosign it while they keep the rules"
DESCRIPTION = """\
A monitor is a witness that reads what it cosigns: every entry of the log, from the vault, with the
manifests of segments, and no payload (docs/monitor.md). It cosigns while the rules of
docs/spec/monitor.md hold, so its cosignature says that no epoch is sealed twice, no session
vanished and nothing was deleted early. It needs the vault's address with the right to read, and an
evidence policy; run it where the log's operator has no access.

`init` makes its folder and keys. Without a word it runs, until an interrupt or SIGTERM; with --once
it judges the whole log and ends with the verdict (0 verified, 1 tampered, 2 incomplete). `show`
says what it has found. After a breach it cosigns no more until `acknowledge --reason` says why it
should.

examples
  sealtape monitor init office --name office.example/monitor
  sealtape monitor --log s3://vault/shop --policy policy.toml --state office --listen 0.0.0.0:7381
  sealtape monitor --log file:/mnt/vault --policy policy.toml --once
  sealtape monitor acknowledge --state office --reason 'outage of 29 November, ticket 4711'
"""

KEYS = ("monitor.key", "monitor.mldsa.key")
_LIMITS = {field.name.removesuffix("_s"): field.name for field in dataclasses.fields(Limits)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument(
        "action",
        choices=("init", "show", "acknowledge"),
        nargs="?",
        help="make a monitor's folder; say what it found; acknowledge that",
    )
    parser.add_argument("dir", metavar="DIR", nargs="?", help="with init: the folder to make")
    parser.add_argument("--name", metavar="NAME", help="with init: under which it cosigns")
    parser.add_argument("--log", metavar="URL", help="the vault that the log lies in")
    parser.add_argument("--policy", metavar="FILE", help="the evidence policy to judge by")
    parser.add_argument("--state", metavar="DIR", help="the folder with what it has read and found")
    parser.add_argument("--listen", metavar="HOST:PORT", type=address, help="where it is asked")
    parser.add_argument("--once", action="store_true", help="judge the whole log, and end")
    parser.add_argument(
        "--key",
        metavar="FILE",
        action="append",
        default=[],
        help=f"its own key; may be repeated (else {KEYS[0]} and {KEYS[1]} in the folder)",
    )
    parser.add_argument(
        "--limit",
        metavar="NAME=SECONDS",
        action="append",
        default=[],
        help=f"wait longer or shorter for {', '.join(_LIMITS)}; may be repeated",
    )
    parser.add_argument("--reason", metavar="TEXT", help="with acknowledge: why")
    parser.add_argument("--by", metavar="WHO", help="with acknowledge: who (else the login name)")
    parser.add_argument(
        "--metrics", metavar="HOST:PORT", type=address, help="where it tells its metrics"
    )
    parser.add_argument(
        "--tls", metavar="FILE", help="speak HTTPS with this certificate chain and key, as PEM"
    )
    parser.add_argument(
        "--log-format", choices=("text", "json"), default="text", help="how it logs"
    )


def run(args: argparse.Namespace) -> int:
    """Make, run or ask a monitor."""
    if args.action == "init":
        return _init(args)
    if args.action == "show":
        return _show(args, _folder(args))
    if args.action == "acknowledge":
        return _acknowledge(args, _folder(args))
    if not args.log or not args.policy:
        raise UsageError("A monitor needs --log URL and --policy FILE.")
    policy, limits = _policy(Path(args.policy)), _limits(args.limit)
    if args.once:
        folder = _folder(args) if args.state else None
        return asyncio.run(_once(args, policy, limits, folder))
    if not args.state or not args.listen:
        raise UsageError("A monitor needs --state DIR and --listen HOST:PORT, or --once.")
    state = Path(args.state)
    usual = [state / name for name in KEYS]
    keys = cosigning_keys([Path(path) for path in args.key], usual)
    tls = serving_context(args.tls)
    run_apart(
        lambda stop: _serve(args, policy, limits, keys, tls, stop),
        log_format=args.log_format,
        node=keys[0].name,
        room="monitor",
    )
    return 0


async def _serve(
    args: argparse.Namespace,
    policy: EvidencePolicy,
    limits: Limits,
    keys: Sequence[PrivateHalf],
    tls: ssl.SSLContext | None,
    stop: asyncio.Event,
) -> None:
    async with AsyncExitStack() as stack:
        vault = await open_vault(args.log, Path.cwd())
        stack.push_async_callback(vault.close)
        monitor = await open_monitor(
            vault=vault,
            policy=policy,
            keys=keys,
            state=Path(args.state),
            listen=args.listen,
            limits=limits,
            tls=tls,
        )
        stack.push_async_callback(monitor.close)
        endpoint = await open_endpoint(args.metrics or "", MonitorVitals(monitor))
        stack.push_async_callback(endpoint.close)
        name, url = monitor.server.witness.name, monitor.server.url
        if args.json:
            output.json_line({"url": url, "name": name, "metrics": endpoint.address})
        else:
            print(f"{name} reads {policy.log} and cosigns at {url}", flush=True)
        await stop.wait()


async def _once(
    args: argparse.Namespace, policy: EvidencePolicy, limits: Limits, folder: MonitorFolder | None
) -> int:
    vault = await open_vault(args.log, Path.cwd())
    try:
        found = await read_once(vault, policy, limits=limits, folder=folder)
    finally:
        await vault.close()
    with output.verdict():
        if args.json:
            output.json_line({**found.to_json(), "policy": policy.sha256.hex()})
        else:
            for line in found.lines():
                print(output.line(line))
            print(f"judged by the policy {policy.sha256.hex()}")
    return found.exit_code


# -- what it found ---------------------------------------------------------------------------------


def _show(args: argparse.Namespace, folder: MonitorFolder) -> int:
    by = {name: item for item in folder.acknowledged() for name in item.names}
    rows = []
    for item in folder.found:
        known = by.get(name_of(item.violation))
        member = None if known is None else {"by": known.by, "reason": known.reason}
        rows.append((output.iso(item.at_ns), item.violation, member))
    if args.json:
        for at, violation, member in rows:
            output.json_line({"found": at, **violation.to_json(), "acknowledged": member})
        return 0
    for at, violation, member in rows:
        print(f"{at}  {violation.grade.upper():<6}  {output.line(str(violation))}")
        if member is not None:
            text = f"acknowledged by {member['by']}: {member['reason']}"
            print(" " * 37 + output.line(text))
    print(f"{len(rows)} violations, {sum(row[2] is None for row in rows)} not acknowledged")
    return 0


def _acknowledge(args: argparse.Namespace, folder: MonitorFolder) -> int:
    if not args.reason:
        raise UsageError(
            "An acknowledgement needs --reason TEXT.",
            hint="It stays beside what was found, for whoever audits the monitor.",
        )
    found = folder.acknowledge(args.by or login_name("--by"), args.reason, time.time_ns())
    if args.json:
        output.json_line({"acknowledged": [item.to_json() for item in found]})
        return 0
    for item in found:
        print(output.line(str(item)))
    print(f"{len(found)} violations acknowledged: {output.line(args.reason)}")
    return 0


# -- a monitor's files -----------------------------------------------------------------------------


def _init(args: argparse.Namespace) -> int:
    if not args.dir or not args.name:
        raise UsageError("A new monitor needs a folder and --name NAME.")
    folder = Path(args.dir)
    try:
        check_key_name(args.name)
    except FormatError as exc:
        raise UsageError(f"The monitor cannot be made: {exc.message}.") from exc
    if any((folder / name).exists() for name in (*KEYS, "found.jsonl", "witness")):
        raise DeploymentExists(f"{folder} holds a monitor already.", hint="Choose another folder.")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise StoreError(f"{folder} cannot be made: {exc.strerror or exc}.") from exc
    for name, algorithm in zip(KEYS, (ED25519, ML_DSA_44), strict=True):
        write_new(folder / name, format_key(args.name, algorithm, secrets.token_bytes(32)))
    keys = cosigning_keys([], [folder / name for name in KEYS])
    short = re.split(r"[./]", args.name)[0]
    lines = [f"witness {short} {keys[0].vkey}", f"witness {short}-ml-dsa {keys[1].vkey}"]
    write_new(folder / "monitor.policy", "\n".join(lines) + "\n")
    if args.json:
        output.json_line({"state": str(folder.absolute()), "vkeys": [key.vkey for key in keys]})
        return 0
    print(f"made {folder}; name the monitor in the policies of the log and of who verifies:")
    print(f"  {lines[0]} http://HOST:PORT")
    print(f'and in `monitors = ["{short}"]` of their evidence policies')
    print(f"(its ML-DSA-44 key, which is long, stands in {folder / 'monitor.policy'})")
    print(f"next: sealtape monitor --log URL --policy FILE --state {folder} --listen HOST:PORT")
    return 0


def _folder(args: argparse.Namespace) -> MonitorFolder:
    if not args.state:
        raise UsageError("Which monitor? --state DIR names its folder.")
    path = Path(args.state)
    if not path.is_dir():
        raise UsageError(f"There is no folder {path}.", hint="`sealtape monitor init` makes it.")
    return MonitorFolder(path)


def _policy(path: Path) -> EvidencePolicy:
    try:
        return parse_evidence_policy(path.read_bytes())
    except OSError as exc:
        raise SettingsError(
            f"The evidence policy {path} cannot be read: {exc.strerror or exc}.",
            hint="`sealtape init` writes a policy.toml to begin with.",
        ) from exc


def _limits(given: Sequence[str]) -> Limits:
    found = {}
    for text in given:
        name, _, value = text.partition("=")
        if name not in _LIMITS or not value.isdecimal():
            raise UsageError(
                f"{text!r} is no limit.",
                hint=f"Write NAME=SECONDS, NAME one of {', '.join(_LIMITS)}.",
            )
        found[_LIMITS[name]] = int(value)
    return Limits(**found)
