"""`sealtape witness`: cosign the checkpoints of other parties' logs."""

from __future__ import annotations

import argparse
import asyncio
import re
import secrets
import ssl
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from sealtape.capture.kms.file import write_new
from sealtape.capture.metrics import open_endpoint
from sealtape.indexer.cli import output
from sealtape.indexer.cli.running import run_apart
from sealtape.ingest.tlog.signer_file import read_key
from sealtape.ingest.witness import open_witness
from sealtape.ingest.witness.metrics import WitnessVitals
from sealtape.schemas.cosignatures import ED25519, ML_DSA_44
from sealtape.schemas.errors import (
    DeploymentExists,
    FormatError,
    SettingsError,
    StoreError,
    UsageError,
)
from sealtape.schemas.notes import check_key_name
from sealtape.schemas.settings.values import address
from sealtape.schemas.tlog.keyfiles import PrivateHalf, format_key
from sealtape.schemas.tlog.policy import Log, parse_policy

NAME = "witness"
HELP = "cosign the checkpoints of other parties' logs, as long as they only grow"
DESCRIPTION = """\
A witness keeps what it has seen of a log and cosigns what goes on from there, so that a log that
tells two histories, or goes back, is found out (docs/witness.md). It needs no deployment. Run it
where the log's operator has no access: a witness run by the operator alone is not a witness to an
outsider.

`init` makes a folder with its keys and the logs that it follows, and prints the line that names it
in the policies of whoever relies on it. Without a word it runs, until an interrupt or SIGTERM.

examples
  sealtape witness init office --name office.example/witness --log 'sealtape.example/log/1+…'
  sealtape witness --state office --listen 0.0.0.0:7380
"""

KEYS = ("witness.key", "witness.mldsa.key")
LOGS = "logs.policy"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument(
        "action", choices=("init",), metavar="init", nargs="?", help="make a witness's folder"
    )
    parser.add_argument("dir", metavar="DIR", nargs="?", help="with init: the folder to make")
    parser.add_argument("--name", metavar="NAME", help="with init: under which it cosigns")
    parser.add_argument(
        "--log",
        metavar="VKEY",
        action="append",
        default=[],
        help="with init: the key of a log to follow; may be repeated",
    )
    parser.add_argument("--state", metavar="DIR", help="the folder with what it has seen")
    parser.add_argument("--listen", metavar="HOST:PORT", type=address, help="where it is asked")
    parser.add_argument(
        "--key",
        metavar="FILE",
        action="append",
        default=[],
        help=f"its own key; may be repeated (else {KEYS[0]} and {KEYS[1]} in the folder)",
    )
    parser.add_argument(
        "--policy",
        metavar="FILE",
        help=f"which logs it follows: lines `log VKEY` (else {LOGS} in the folder)",
    )
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
    """Make a witness, or run one until a signal."""
    if args.action == "init":
        return _init(args)
    if not args.state or not args.listen:
        raise UsageError("A witness needs --state DIR and --listen HOST:PORT.")
    state = Path(args.state)
    if not state.is_dir():
        raise UsageError(f"There is no folder {state}.", hint="`sealtape witness init` makes it.")
    keys = cosigning_keys([Path(path) for path in args.key], [state / name for name in KEYS])
    logs = _logs(Path(args.policy) if args.policy else state / LOGS)
    tls = serving_context(args.tls)
    run_apart(
        lambda stop: _serve(args, keys, logs, tls, stop),
        log_format=args.log_format,
        node=keys[0].name,
        room="witness",
    )
    return 0


async def _serve(
    args: argparse.Namespace,
    keys: Sequence[PrivateHalf],
    logs: Sequence[Log],
    tls: ssl.SSLContext | None,
    stop: asyncio.Event,
) -> None:
    async with AsyncExitStack() as stack:
        server = await open_witness(
            state=Path(args.state),
            listen=args.listen,
            keys=keys,
            logs=[log.verifier for log in logs],
            tls=tls,
        )
        stack.push_async_callback(server.close)
        endpoint = await open_endpoint(args.metrics or "", WitnessVitals(server.witness))
        stack.push_async_callback(endpoint.close)
        if args.json:
            told = {"url": server.url, "name": server.witness.name, "metrics": endpoint.address}
            output.json_line(told | {"logs": sorted(server.witness.snapshot().seen)})
        else:
            print(f"{server.witness.name} cosigns at {server.url}", flush=True)
        await stop.wait()


def _init(args: argparse.Namespace) -> int:
    if not args.dir or not args.name or not args.log:
        raise UsageError("A new witness needs a folder, --name NAME and --log VKEY.")
    folder = Path(args.dir)
    try:
        check_key_name(args.name)
        logs = "".join(f"log {vkey}\n" for vkey in args.log) + "quorum none\n"
        parse_policy(logs.encode())
    except FormatError as exc:
        raise UsageError(f"The witness cannot be made: {exc.message}.") from exc
    if any((folder / name).exists() for name in (*KEYS, LOGS, "seen")):
        raise DeploymentExists(f"{folder} holds a witness already.", hint="Choose another folder.")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise StoreError(f"{folder} cannot be made: {exc.strerror or exc}.") from exc
    for name, algorithm in zip(KEYS, (ED25519, ML_DSA_44), strict=True):
        write_new(folder / name, format_key(args.name, algorithm, secrets.token_bytes(32)))
    write_new(folder / LOGS, "# The logs that this witness cosigns for.\n" + logs)
    return _say(args, folder, cosigning_keys([], [folder / name for name in KEYS]))


def _say(args: argparse.Namespace, folder: Path, keys: Sequence[PrivateHalf]) -> int:
    short = re.split(r"[./]", args.name)[0]
    lines = [f"witness {short} {keys[0].vkey}", f"witness {short}-ml-dsa {keys[1].vkey}"]
    write_new(folder / "witness.policy", "\n".join(lines) + "\n")
    if args.json:
        output.json_line({"state": str(folder.absolute()), "vkeys": [key.vkey for key in keys]})
        return 0
    print(f"made {folder}; name the witness in the policies of the log and of who verifies:")
    print(f"  {lines[0]} http://HOST:PORT")
    print(f"(its ML-DSA-44 key, which is long, stands in {folder / 'witness.policy'})")
    print(f"next: sealtape witness --state {folder} --listen HOST:PORT")
    return 0


def cosigning_keys(paths: Sequence[Path], usual: Sequence[Path]) -> list[PrivateHalf]:
    """The keys in files that were named, else those of the usual files that are there."""
    keys = []
    for path in paths or usual:
        key = read_key(path)
        if key is not None:
            keys.append(key)
        elif paths:
            raise SettingsError(f"The witness's key {path} is not there.")
    if not keys:
        hint = "`init` makes one; --key names one elsewhere."
        raise SettingsError(f"There is no witness's key in {usual[0].parent}.", hint=hint)
    return keys


def _logs(path: Path) -> tuple[Log, ...]:
    hint = "It has lines `log VKEY` and one `quorum none`."
    try:
        logs = parse_policy(path.read_bytes()).logs
    except OSError as exc:
        raise SettingsError(f"{path} cannot be read: {exc.strerror or exc}.", hint=hint) from exc
    except FormatError as exc:
        raise SettingsError(f"{path}: {exc.message}.", hint=hint) from exc
    if not logs:
        raise SettingsError(f"{path} names no log to follow.", hint=hint)
    return logs


def serving_context(path: str | None) -> ssl.SSLContext | None:
    """TLS with the certificate chain and key of a PEM file; None without one."""
    if path is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(path)
    except (OSError, ssl.SSLError) as exc:
        msg = f"The certificate and key in {path} cannot be read."
        raise SettingsError(msg, hint="It is one PEM file with the chain and the key.") from exc
    return context
