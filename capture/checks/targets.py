"""Targets: they answer, over the TLS demanded, and take the gateway's credential."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sealtape.capture.checkup import Check
from sealtape.capture.postgres.credential import credential_of
from sealtape.capture.postgres.target import TargetDialer
from sealtape.schemas.errors import SealtapeError, TargetError
from sealtape.schemas.settings import Settings, TargetSettings

__all__ = ["check_targets"]

AT_ONCE = 8


async def check_targets(settings: Settings) -> list[Check]:
    """Log in to each target as a session would, and leave at once."""
    if not settings.targets:
        message = "There is no target: clients have nowhere to go."
        return [Check("targets", "warning", message, "Add [targets.NAME].")]
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(name: str, target: TargetSettings) -> list[Check]:
        async with gate:
            return await _target(name, target, settings)

    found = await asyncio.gather(*(one(*item) for item in sorted(settings.targets.items())))
    return [check for checks in found for check in checks]


async def _target(name: str, target: TargetSettings, settings: Settings) -> list[Check]:
    checks = [await _login(f"target {name}", name, target, Path(settings.base))]
    if target.tls == "disable" and settings.deployment.mode != "dev":
        message = "The way to it is not encrypted: what is recorded can be read and changed there."
        checks.append(Check(f"target {name}", "warning", message, 'Set tls = "verify-full".'))
    return checks


async def _login(label: str, name: str, target: TargetSettings, base: Path) -> Check:
    try:
        credential = credential_of(target.password, base, target=name)
        dialer = TargetDialer(name=name, settings=target, base=base, credential=credential)
        wire, greeting = await dialer.dial({"database": target.database})
    except TargetError as exc:
        what = exc.context.get("what", "")
        message = f"{target.address}: {what}." if what else exc.message
        return Check(label, "error", message, exc.hint)
    except SealtapeError as exc:
        return Check(label, "error", exc.message, exc.hint)
    wire.transport.write(b"X\x00\x00\x00\x04")  # Terminate
    wire.transport.close()
    version = greeting.parameters.get("server_version", "unknown version")[:40]
    message = f"{target.address} takes the credential for `{target.database}` ({version})."
    return Check(label, "ok", message)
