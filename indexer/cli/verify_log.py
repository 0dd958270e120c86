"""What `sealtape verify` brings: trust and policy, and the state of an earlier run."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sealtape.capture.files import write_atomic
from sealtape.indexer.audit_log import LogTrust, signed_sizes
from sealtape.indexer.cli.options import inside
from sealtape.indexer.monitor.folder import MonitorFolder
from sealtape.ingest.vault import Vault
from sealtape.schemas.errors import FormatError, SettingsError, UsageError
from sealtape.schemas.evidence import EvidencePolicy, parse_evidence_policy
from sealtape.schemas.notes import Verifier
from sealtape.schemas.settings import Settings
from sealtape.schemas.trust import parse_trust
from sealtape.schemas.verify import Report
from sealtape.schemas.verify.findings import Verdict
from sealtape.schemas.verify.log_state import SeenLog

__all__ = [
    "keep_seen",
    "log_trust",
    "monitor_of",
    "policy_of",
    "read_policy",
    "trusted_nodes",
    "worth_keeping",
]

DEFAULT_POLICY: Final = "policy.toml"
"""In a deployment's folder. Like its trust file it is a beginning, to be copied away from there."""


def read_policy(path: Path) -> EvidencePolicy:
    """An evidence policy. Raises `SettingsError`."""
    try:
        return parse_evidence_policy(path.read_bytes())
    except OSError as exc:
        msg = f"The policy {path} cannot be read."
        raise SettingsError(msg, hint="It is your own file: --policy names it.") from exc


async def log_trust(
    settings: Settings,
    vault: Vault,
    *,
    policy: str | None,
    since: str | None,
    monitor: MonitorFolder | None = None,
) -> LogTrust:
    """What to trust about the log; call it before the ledger is opened.

    Raises `SettingsError`, and `UsageError` for a state that is none or of another log.
    """
    seen, log = read_seen(since), settings.deployment.log
    if seen is not None and seen.log != log:
        msg = f"{since} is what was seen of the log {seen.log}, this one is {log}."
        raise UsageError(msg, hint="Each log has a state of its own: name that of this one.")
    reasons = {} if monitor is None else monitor.reasons()
    return LogTrust(policy_of(settings, policy), await signed_sizes(vault), seen, reasons)


def monitor_of(given: str | None) -> MonitorFolder | None:
    """The folder of the verifier's own monitor. Raises `UsageError` where there is none."""
    if not given:
        return None
    if not Path(given).is_dir():
        msg = f"There is no folder {given}."
        raise UsageError(msg, hint="--monitor names the folder that `sealtape monitor init` made.")
    return MonitorFolder(Path(given))


def policy_of(settings: Settings, given: str | None) -> EvidencePolicy | None:
    """The policy that is named, else the deployment's; None without one."""
    if given:
        return read_policy(Path(given))
    own = inside(settings, DEFAULT_POLICY)
    return read_policy(own) if own.is_file() else None


def trusted_nodes(settings: Settings, given: str | None) -> tuple[Verifier, ...]:
    """The node keys of the trust file that is named, else of the deployment's."""
    path = Path(given) if given else inside(settings, settings.keys.trust)
    try:
        return parse_trust(path.read_text(encoding="utf-8")).nodes
    except (OSError, UnicodeDecodeError) as exc:
        msg = f"The trust file {path} cannot be read."
        raise UsageError(
            msg, hint="Without it no node's signature counts. Name yours with --trust."
        ) from exc


def read_seen(path: str | None) -> SeenLog | None:
    """The state of an earlier run; None before the first. Raises `UsageError`."""
    if not path or not Path(path).exists():
        return None
    try:
        return SeenLog.from_json(Path(path).read_bytes())
    except (OSError, FormatError) as exc:
        msg = f"{path} is not the state of an earlier run: {exc}"
        raise UsageError(
            msg, hint="Name the file that an earlier --since wrote, or a new one."
        ) from exc


def worth_keeping(path: str | None, seen: SeenLog | None, report: Report) -> SeenLog | None:
    """What this run has seen, unless something was wrong: then the old state is evidence."""
    if not path or seen is None:
        return None
    if report.verdict == Verdict.TAMPERED:
        report.note(f"{path} stays as it was: it shows what was seen before")
        return None
    return seen


def keep_seen(path: str | None, seen: SeenLog | None) -> None:
    """Write the state, after the verdict was told: that must not be lost with it."""
    if path and seen is not None:
        write_atomic(Path(path), seen.to_json())
