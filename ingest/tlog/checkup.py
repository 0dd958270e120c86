"""What `sealtape doctor` finds about the log: its policy, and whether there is a key that signs."""

from __future__ import annotations

from pathlib import Path

from sealtape.capture.checkup import Check
from sealtape.ingest.tlog.opening import read_policy
from sealtape.ingest.tlog.signer import open_signer
from sealtape.ingest.tlog.signer_file import shard_of
from sealtape.schemas.errors import FormatError, SealtapeError, SettingsError
from sealtape.schemas.settings import Settings
from sealtape.schemas.tlog.policy import LogPolicy

__all__ = ["check_log"]


async def check_log(settings: Settings) -> list[Check]:
    """Findings about the log; a failure is an `error`, never raised. Nothing is signed."""
    if not settings.log.signer:
        return [Check("log: signer", "ok", "This process does not write the log.")]
    try:
        policy = read_policy(settings)
    except SettingsError as error:
        return [Check("log: policy", "error", error.message, error.hint)]
    return [_witnesses(settings, policy), await _signer(settings, policy)]


def _witnesses(settings: Settings, policy: LogPolicy) -> Check:
    names = ", ".join(witness.name for witness in policy.witnesses)
    if policy.quorum is None and settings.deployment.mode == "production":
        return Check(
            "log: policy",
            "warning",
            "No witness is needed: nobody outside would see a second history.",
            "Name witnesses of others in log.policy, and a quorum (docs/log.md).",
        )
    asked = settings.deployment.mode == "dev" or all(witness.url for witness in policy.witnesses)
    if not asked:
        return Check(
            "log: policy",
            "warning",
            "A witness has no URL, so it is never asked.",
            "Write it behind the witness's key in log.policy.",
        )
    return Check("log: policy", "ok", f"quorum {policy.quorum} of {names or 'nobody'}")


async def _signer(settings: Settings, policy: LogPolicy) -> Check:
    """Whether the signer has the key of the newest shard that the policy names."""
    origin = max((key.verifier.name for key in policy.logs), key=_number)
    try:
        signer = await open_signer(settings.log.signer, Path(settings.base))
        try:
            size = await signer.signed(origin)
        finally:
            await signer.close()
    except SealtapeError as error:
        return Check("log: signer", "error", error.message, error.hint)
    if size is None:
        hint = "Put it where log.signer says, or take the shard out of log.policy."
        return Check("log: signer", "error", f"The signer has no key of {origin}.", hint)
    return Check("log: signer", "ok", f"signs as {origin}, up to {size} entries so far")


def _number(name: str) -> int:
    try:
        return shard_of(name)
    except FormatError:
        return 0
