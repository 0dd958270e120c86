"""The log of a lab: its worker, its signer and its witnesses in one process.

Witnesses that the same party runs in the same process show that everything works, and prove
nothing to an outsider; docs/log.md says what does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from sealtape.indexer.cli.log_files import (
    LAB_MONITORS,
    LAB_WITNESSES,
    introductions,
    make_log_files,
)
from sealtape.indexer.monitor import open_monitor
from sealtape.ingest.ledger import Ledger
from sealtape.ingest.tlog.opening import log_parts, read_policy
from sealtape.ingest.tlog.parts import LogParts
from sealtape.ingest.tlog.signer_file import read_key
from sealtape.ingest.vault import Vault
from sealtape.ingest.witness.server import open_witness
from sealtape.schemas.errors import SettingsError
from sealtape.schemas.evidence import EvidencePolicy, parse_evidence_policy
from sealtape.schemas.settings import Settings
from sealtape.schemas.tlog.policy import LogPolicy
from sealtape.schemas.verify.violations import Limits

__all__ = ["ANY_PORT", "ensure_log_files", "lab_log"]

ANY_PORT = "127.0.0.1:0"
# A lab may be stopped for days before it says which sessions never came.
_LIMITS = Limits(missing_s=7 * 86_400)


def ensure_log_files(settings: Settings) -> None:
    """Make the log's keys and policies in a lab that has none, as an older one."""
    folder = Path(settings.base)
    if not (folder / settings.log.policy).exists() and not (folder / "keys/log.key").exists():
        make_log_files(folder, settings.deployment.log, development=True)


@asynccontextmanager
async def lab_log(settings: Settings, ledger: Ledger, vault: Vault) -> AsyncIterator[LogParts]:
    """What the log's worker of a lab works with; its witnesses answer meanwhile."""
    policy = read_policy(settings)
    async with AsyncExitStack() as stack:
        urls = {}
        for name, path in LAB_WITNESSES.items():
            reads = vault if name in LAB_MONITORS else None
            urls[name] = await _witness(settings, policy, path, reads, stack)
        witnesses = tuple(
            replace(each, url=each.url or urls.get(each.name, "")) for each in policy.witnesses
        )
        parts = log_parts(
            settings,
            ledger,
            vault,
            policy=replace(policy, witnesses=witnesses),
            introduce=introductions(settings),
        )
        yield await stack.enter_async_context(parts)


async def _witness(
    settings: Settings, policy: LogPolicy, path: str, vault: Vault | None, stack: AsyncExitStack
) -> str:
    """Open a witness in this process, a monitor if it has a vault to read; returns where it is.

    Empty without its key.
    """
    base = Path(settings.base)
    key = read_key(base / path)
    if key is None:
        return ""
    state = base / Path(path).stem
    if vault is not None:
        monitor = await open_monitor(
            vault=vault,
            policy=_evidence(settings, policy),
            keys=[key],
            state=state,
            listen=ANY_PORT,
            limits=_LIMITS,
        )
        stack.push_async_callback(monitor.close)
        return monitor.server.url
    server = await open_witness(
        state=state, listen=ANY_PORT, keys=[key], logs=[log.verifier for log in policy.logs]
    )
    stack.push_async_callback(server.close)
    return server.url


def _evidence(settings: Settings, policy: LogPolicy) -> EvidencePolicy:
    """The lab's own evidence policy, with the log's keys as its worker has them."""
    path = Path(settings.base, "policy.toml")
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise SettingsError(
            f"{path} cannot be read: {exc.strerror or exc}.",
            hint="Restore it from your copy; it names the administrators of the log.",
        ) from exc
    return replace(parse_evidence_policy(data), tlog=policy)
