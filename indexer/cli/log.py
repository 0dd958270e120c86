"""`sealtape log`: the log's keys and policies made, its next shard prepared, how it stands."""

from __future__ import annotations

import argparse
import asyncio
import re
from pathlib import Path
from typing import Any, Final

from sealtape.indexer.cli import output
from sealtape.indexer.cli.log_files import log_key_path, make_log_files, make_shard_keys
from sealtape.indexer.cli.options import read_settings
from sealtape.indexer.cli.stores import ledger_of
from sealtape.ingest.ledger import Ledger
from sealtape.ingest.tlog.opening import read_policy
from sealtape.ingest.tlog.pending import read_seals
from sealtape.ingest.tlog.publish import checkpoint_of
from sealtape.ingest.tlog.signer_file import shard_of
from sealtape.schemas.errors import (
    FormatError,
    SettingsError,
    StoreError,
    UsageError,
)
from sealtape.schemas.settings import Settings
from sealtape.schemas.tlog.policy import LogPolicy

NAME = "log"
HELP = "make the log's keys and policies, begin its next shard, show how it stands"
DESCRIPTION = """\
sealtape log init      makes the log's keys and policies in a deployment that has none
sealtape log show      sizes, the last checkpoints, who witnessed them and when
sealtape log rotate    makes the keys of the log's next shard and names them in log.policy; the
                       shard begins when ingest is started again and its keys are submitted

Rotate once a year, or when a key may be known to others. The last checkpoint of the old shard
stands in the first entry of the new one. Nothing is removed; docs/log.md says what else is to do.
"""

SECOND_NS: Final = 1_000_000_000
_FIRST_WITNESS: Final = re.compile(r"^(?=[ \t]*(?:witness|group|quorum)[ \t])", re.MULTILINE)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("action", choices=("init", "show", "rotate"), help="what to do")


def run(args: argparse.Namespace) -> int:
    """Do it and say what was done."""
    settings = read_settings(args)
    if args.action == "init":
        return _init(settings, as_json=args.json)
    if args.action == "rotate":
        return _rotate(settings, as_json=args.json)
    shown = asyncio.run(_status(settings))
    if args.json:
        output.json_line(shown)
        return 0
    for key, value in shown.items():
        print(f"{key:14} {output.shown(value)}")
    return 0


def _init(settings: Settings, *, as_json: bool) -> int:
    folder, log = Path(settings.base), settings.deployment.log
    try:
        make_log_files(folder, log, development=settings.deployment.mode == "dev")
    except OSError as error:
        raise StoreError(f"The log's files cannot be written to {folder}: {error}.") from error
    if as_json:
        output.json_line({"log": log, "policy": str(folder / "log.policy")})
        return 0
    print(f"made keys of {log}/1 and an administrator's in {folder / 'keys'},")
    print(f"{folder / 'log.policy'} and {folder / 'policy.toml'}")
    return 0


def _rotate(settings: Settings, *, as_json: bool) -> int:
    path = log_key_path(settings)
    if path is None:
        msg = "The log's key is with another process: log.signer names its socket."
        raise UsageError(msg, hint="Rotate on the signer's host, with a settings file of its own.")
    policy, log = read_policy(settings), settings.deployment.log
    number = 1 + max(_numbers(policy, log))
    try:
        # Keys that are there, and that the policy does not name any more, are those to name again.
        vkeys = make_shard_keys(path, log, number)
        _add_keys(Path(settings.base) / settings.log.policy, vkeys)
    except OSError as error:
        raise StoreError(f"The keys of {log}/{number} cannot be written: {error}.") from error
    if as_json:
        output.json_line({"origin": f"{log}/{number}", "vkeys": list(vkeys)})
        return 0
    print(f"made the keys of {log}/{number}; name them in every policy over the log:")
    for vkey in vkeys:
        print(f"  log {vkey if len(vkey) < 200 else vkey[:80] + '…'}")
    print("Have administrators introduce all keys anew: a shard's keys are those that its own")
    print("entries introduce (`sealtape statement`). Stop ingest, submit what they signed, and")
    print("start it again.")
    return 0


def _numbers(policy: LogPolicy, log: str) -> list[int]:
    found = []
    for key in policy.logs:
        name = key.verifier.name
        if name.rpartition("/")[0] == log:
            try:
                found.append(shard_of(name))
            except FormatError:
                continue
    if not found:
        msg = f"log.policy names no key of {log}/1."
        raise SettingsError(msg, hint="`sealtape log init` makes one.")
    return found


def _add_keys(path: Path, vkeys: tuple[str, str]) -> None:
    """Name more keys of the log in its policy, before the witnesses; the rest stays as it is."""
    text = path.read_text(encoding="utf-8")
    lines = "".join(f"log {vkey}\n" for vkey in vkeys)
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(_FIRST_WITNESS.sub(lines, text, count=1), encoding="utf-8")
    fresh.replace(path)


async def _status(settings: Settings) -> dict[str, Any]:
    async with ledger_of(settings) as ledger:
        return await log_of(settings, ledger)


async def log_of(settings: Settings, ledger: Ledger) -> dict[str, Any]:
    """How the log stands, as the ledger has it."""
    state = await ledger.log_state()
    signed, witnessed = checkpoint_of(state.note), checkpoint_of(state.witnessed)
    size = 0 if witnessed is None else witnessed.size
    seals = await read_seals(ledger, state.number, size, state.size)
    shown: dict[str, Any] = {
        "origin": f"{settings.deployment.log}/{state.number}" if state.number else None,
        "size": state.size,
        "signed": 0 if signed is None else signed.size,
        "witnessed": size,
        "pending": state.size - size,
        "pending_seals": seals.count,
        "oldest_pending": None if seals.oldest_ns is None else output.iso(seals.oldest_ns),
        "witnesses": {},
        "submitted": len(await ledger.inbox()),
    }
    try:
        if state.witnessed:
            times = read_policy(settings).open(state.witnessed).times
            shown["witnesses"] = {name: output.iso(at * SECOND_NS) for name, at in times.items()}
    except (FormatError, SettingsError) as error:
        shown["error"] = error.message
    return shown
