"""`sealtape doctor`: look at everything a deployment needs, and say what to do."""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from typing import Final

from sealtape.capture.__main__ import settings_at
from sealtape.capture.checks import Report, check_capture, check_settings
from sealtape.capture.checks.buses import check_buses
from sealtape.capture.checks.certificate import check_client_certificate
from sealtape.capture.checks.keys import check_auditor_key, check_private_key, check_trust
from sealtape.capture.checks.listener import check_metrics
from sealtape.capture.checkup import Check
from sealtape.capture.logs import without_secrets
from sealtape.indexer.cli import output
from sealtape.indexer.cli.options import config_path
from sealtape.indexer.index import check_index
from sealtape.ingest.keyring import check_keyring
from sealtape.ingest.ledger import check_ledger
from sealtape.ingest.tlog.checkup import check_log
from sealtape.ingest.vault import check_vault
from sealtape.schemas.settings import Settings

NAME = "doctor"
HELP = "look at everything a deployment needs, and say what to do"
DESCRIPTION = """\
Looks at what the rooms need: settings, key files and who can read them, the spool's disk, addresses
to listen on, certificates, the identity provider, targets (it logs in and leaves), every store
with its permissions and settings, the log's signer and policy, and clocks. It may be run while the
rooms do: nothing is changed but that a small object is put into the vault and removed again.

Each host knows and may reach only what its room needs: name the room there, or `auditor` where
recordings are replayed and verified; without --room all three rooms are meant. The exit code is 1
when something does not work, with --strict also when something should be better.

  sealtape doctor --room capture
"""

ROOMS: Final = ("capture", "ingest", "indexer")
AUDITOR: Final = "auditor"
PATIENCE_S: Final = 60.0
HINT: Final = "docs/errors.md says what the error means; put it right, then look again."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument(
        "--room",
        action="append",
        choices=(*ROOMS, AUDITOR),
        help="look only at what this room needs; may be repeated",
    )
    parser.add_argument("--strict", action="store_true", help="take warnings for errors")


def run(args: argparse.Namespace) -> int:
    """Print what was found."""
    settings = settings_at(config_path(args.config), tell=False)
    report = Report(asyncio.run(examine(settings, frozenset(args.room or ROOMS))))
    with output.verdict():
        if args.json:
            output.json_line(report.to_json())
        else:
            for line in report.lines():
                print(line)
    return report.exit_code(strict=args.strict)


async def examine(settings: Settings, rooms: frozenset[str]) -> list[Check]:
    """Return all findings about what these rooms need; an auditor's host is one of them."""
    stores, base = settings.stores, Path(settings.base)
    sealing = rooms - {"capture"}
    looks: dict[str, Awaitable[list[Check]]] = {}
    if "capture" in rooms:
        looks["capture"] = check_capture(settings)
    looks["keys"] = asyncio.to_thread(_keys, settings, rooms)
    looks["buses"] = check_buses(settings, rooms)
    if sealing:
        # One user cannot have the rights of two, and nothing else.
        room = next(iter(sealing)) if len(sealing) == 1 else ""
        looks["keyring"] = check_keyring(stores.keyring, base, room)
        looks["vault"] = check_vault(stores.vault, base, writes="ingest" in rooms)
        looks["ledger"] = check_ledger(stores.ledger, base, room)
        looks["certificates"] = asyncio.to_thread(_certificates, settings, rooms)
    if "ingest" in rooms:
        looks["log"] = check_log(settings)
    if rooms & {"indexer", AUDITOR}:
        looks["index"] = check_index(stores.index, base, writes="indexer" in rooms)
    for room, metrics in (
        ("ingest", settings.ingest.metrics),
        ("indexer", settings.indexer.metrics),
    ):
        if room in rooms:
            looks[f"{room}: metrics"] = check_metrics(metrics, room, settings.deployment.mode)
    found = await asyncio.gather(*(_patiently(name, look) for name, look in looks.items()))
    return [*check_settings(settings), *(check for checks in found for check in checks)]


def _keys(settings: Settings, rooms: frozenset[str]) -> list[Check]:
    found: list[Check] = []
    if rooms & {"ingest", "indexer", AUDITOR} and "capture" not in rooms:
        found += check_trust(settings)
    if "indexer" in rooms:
        found += check_private_key(settings, "indexer")
    if AUDITOR in rooms:
        return [*found, *check_private_key(settings, AUDITOR)]
    return [*found, *check_auditor_key(settings)]


def _certificates(settings: Settings, rooms: frozenset[str]) -> list[Check]:
    """Those that log in to other stores than the buses."""
    stores, now = settings.stores, dt.datetime.now(dt.UTC)
    urls = {"keyring": stores.keyring, "ledger": stores.ledger}
    if rooms & {"indexer", AUDITOR}:
        urls["index"] = stores.index
    looks = (
        check_client_certificate(name, url, Path(settings.base), now) for name, url in urls.items()
    )
    return [check for checks in looks for check in checks]


async def _patiently(name: str, look: Awaitable[list[Check]]) -> list[Check]:
    """Return what a look found; one that hangs or fails itself is a finding, not the end."""
    try:
        found = await asyncio.wait_for(look, PATIENCE_S)
        return [replace(c, hint=c.hint or HINT) if c.level != "ok" else c for c in found]
    except TimeoutError:
        message = f"Nothing came of it within {PATIENCE_S:.0f} s."
        return [Check(name, "error", message, "Look at the network on the way there.")]
    except Exception as exc:  # noqa: BLE001 - the other findings are wanted all the same
        message = f"The look at it failed: {without_secrets(repr(exc))}."
        return [Check(name, "error", message, "Please report this.")]
