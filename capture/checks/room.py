"""Everything that a capture node needs, looked at in one go."""

from __future__ import annotations

import asyncio
import datetime as dt
import importlib.util

from sealtape.capture.checks.certificate import check_certificate
from sealtape.capture.checks.host import check_host
from sealtape.capture.checks.keys import check_capture_keys
from sealtape.capture.checks.listener import check_listener, check_metrics
from sealtape.capture.checks.provider import check_provider
from sealtape.capture.checks.targets import check_targets
from sealtape.capture.checkup import Check
from sealtape.schemas.settings import Settings

__all__ = ["check_capture", "check_settings"]


def check_settings(settings: Settings) -> list[Check]:
    """Return what is legal in the settings and should be changed, and what deployment this is."""
    hint = "docs/config.md has every setting."
    told = [Check("settings", "warning", warning, hint) for warning in settings.warnings]
    shown = f"{len(settings.targets)} targets, {len(settings.retention)} retention classes"
    return [*told, Check("settings", "ok", f"A {settings.deployment.mode} deployment: {shown}.")]


async def check_capture(settings: Settings) -> list[Check]:
    """Return all findings about a capture node but those of its bus."""
    keys, host, certificate, listener, provider, targets, metrics = await asyncio.gather(
        asyncio.to_thread(check_capture_keys, settings),
        asyncio.to_thread(check_host, settings),
        asyncio.to_thread(check_certificate, settings, dt.datetime.now(dt.UTC)),
        check_listener(settings),
        check_provider(settings),
        check_targets(settings),
        check_metrics(settings.capture.metrics, "capture", settings.deployment.mode),
    )
    return [*keys, *host, *listener, *certificate, *metrics, *provider, *targets, *_loop(settings)]


def _loop(settings: Settings) -> list[Check]:
    wanted = settings.capture.loop
    if wanted == "asyncio" or importlib.util.find_spec("uvloop") is not None:
        return []
    name, hint = "node: event loop", 'Install it, or set capture.loop = "asyncio".'
    if wanted == "uvloop":
        return [Check(name, "error", "uvloop is demanded and not installed.", hint)]
    return [Check(name, "warning", "uvloop is not installed: asyncio's own loop is slower.", hint)]
