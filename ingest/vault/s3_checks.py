"""What `sealtape doctor` asks a bucket of S3, beyond trying it."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

from sealtape.capture.checkup import Check
from sealtape.ingest.vault.bucket import BucketVault
from sealtape.ingest.vault.faults import Fault
from sealtape.ingest.vault.probing import PROBE_PREFIX, kept, look, probe
from sealtape.ingest.vault.s3_native import S3Native
from sealtape.schemas.errors import Exists, StoreError

__all__ = ["check_bucket"]

MOST_SKEW_S = 60.0
"""S3 refuses requests signed 15 minutes off; a minute is where to start looking."""
_PENDING = re.compile(r"log/v1/[1-9][0-9]*/checkpoint\.pending")


async def check_bucket(vault: BucketVault, native: S3Native, *, writes: bool) -> list[Check]:
    """See `check_vault`."""
    found = await native.facts("head_bucket")
    if isinstance(found, Fault):
        error = found.error(native.name, "a look at the bucket")
        hint = error.hint or "`sealtape setup` creates the bucket."
        return [Check("vault: access", "error", error.message, hint)]
    tried = await (probe(vault) if writes else look(vault))
    if writes and tried[0].level != "error":
        tried += await _parts(vault, native)
    return [
        *tried,
        _clock(found),
        _versions(await native.facts("get_bucket_versioning")),
        _locks(await native.facts("get_object_lock_configuration"), wanted=native.locks),
        _lifecycle(await native.facts("get_bucket_lifecycle_configuration"), native.prefix),
        _public(await native.facts("get_public_access_block")),
    ]


async def _parts(vault: BucketVault, native: S3Native) -> list[Check]:
    """Whether an upload in parts may overwrite: some stores check only single puts."""
    key, name = f"{PROBE_PREFIX}{secrets.token_hex(16)}", "vault: uploads in parts"
    try:
        await vault.put_new(key, b"one")
        refused = await _refused(native, key)
        await kept(vault, key)
    except StoreError as error:
        return [Check(name, "warning", error.message, error.hint)]
    if refused:
        return [Check(name, "ok", "Uploads in parts do not overwrite either.")]
    message = "An upload in parts overwrites: the store ignores If-None-Match there."
    return [Check(name, "error", message, "Say multipart=5368709120: then there are none.")]


async def _refused(native: S3Native, key: str) -> bool:
    try:
        await native.put_parts(key, b"two", secrets.token_hex(16))
    except Exists:
        return True
    return False


def _clock(answer: Mapping[str, Any]) -> Check:
    date = str(answer["ResponseMetadata"]["HTTPHeaders"].get("date", ""))
    try:
        skew = time.time() - parsedate_to_datetime(date).timestamp()
    except ValueError:
        return Check("vault: clock", "warning", "The store does not say what time it is.")
    message = f"This host's clock and the store's differ by {abs(skew):.0f} s."
    if abs(skew) <= MOST_SKEW_S:
        return Check("vault: clock", "ok", message)
    hint = "Run NTP here: S3 refuses requests that are 15 minutes off."
    return Check("vault: clock", "error" if abs(skew) > 600 else "warning", message, hint)


def _versions(answer: Mapping[str, Any] | Fault) -> Check:
    name = "vault: versions"
    if isinstance(answer, Fault):
        return _unknown(name, "versioning", answer)
    status = answer.get("Status", "off")
    message = f"Versioning is {status}; erasing removes all versions of an object."
    return Check(name, "ok", message)


def _locks(answer: Mapping[str, Any] | Fault, *, wanted: bool) -> Check:
    name = "vault: object lock"
    if isinstance(answer, Fault) and answer.code != "ObjectLockConfigurationNotFoundError":
        return _unknown(name, "object lock", answer)
    config = {} if isinstance(answer, Fault) else answer.get("ObjectLockConfiguration", {})
    enabled = config.get("ObjectLockEnabled") == "Enabled"
    if wanted and not enabled:
        message = "The URL asks for locks, and the bucket has no object lock."
        return Check(name, "error", message, "Make a bucket with object lock, or say lock=off.")
    if not enabled:
        message = "The bucket has no object lock: who holds its keys can delete evidence early."
        return Check(name, "warning", message, "A bucket with object lock and lock=compliance.")
    default = config.get("Rule", {}).get("DefaultRetention")
    each = (
        f"each object is locked for {default.get('Days') or default.get('Years')} "
        f"{'days' if default.get('Days') else 'years'} ({default.get('Mode')})"
        if default
        else "no default retention"
    )
    if not wanted:
        message = f"The bucket has object lock ({each}), and the URL says lock=off."
        hint = "Say lock=compliance: segments are then locked for their class's retain_for."
        return Check(name, "warning", message, hint)
    return Check(name, "ok", f"The bucket has object lock ({each}).")


def _lifecycle(answer: Mapping[str, Any] | Fault, prefix: str) -> Check:
    name = "vault: lifecycle"
    if isinstance(answer, Fault):
        if answer.code == "NoSuchLifecycleConfiguration":
            return Check(name, "ok", "No lifecycle rule deletes anything.")
        return _unknown(name, "lifecycle rules", answer)
    deleting = [
        str(rule.get("ID") or "without a name")
        for rule in answer.get("Rules", ())
        if rule.get("Status") == "Enabled"
        and rule.keys() & {"Expiration", "NoncurrentVersionExpiration"}
        and not _only_markers(rule)
        and _touches(rule, prefix)
    ]
    if deleting:
        message = f"Lifecycle rules delete objects of this vault: {', '.join(deleting)}."
        hint = "Only the reaper may delete evidence: remove the rule, or keep it from our prefix."
        return Check(name, "error", message, hint)
    return Check(name, "ok", "No lifecycle rule deletes objects of this vault.")


def _only_markers(rule: Mapping[str, Any]) -> bool:
    """Whether a rule does no more than clear delete markers that have no versions left."""
    return rule.keys() & {"Expiration", "NoncurrentVersionExpiration"} == {"Expiration"} and list(
        rule["Expiration"]
    ) == ["ExpiredObjectDeleteMarker"]


def _touches(rule: Mapping[str, Any], prefix: str) -> bool:
    """Whether a rule may delete evidence below the vault's prefix.

    What `doctor` leaves behind is none, nor are pending checkpoints that newer ones replaced.
    """
    theirs = _prefix(rule)
    if theirs.startswith(prefix + PROBE_PREFIX):
        return False
    if "Expiration" not in rule and theirs.startswith(prefix):
        return _PENDING.fullmatch(theirs.removeprefix(prefix)) is None
    return theirs.startswith(prefix) or prefix.startswith(theirs)


def _prefix(rule: Mapping[str, Any]) -> str:
    filters = rule.get("Filter", {})
    parts: Sequence[Any] = (rule.get("Prefix"), filters.get("Prefix"), filters.get("And", {}))
    given = parts[2].get("Prefix") if isinstance(parts[2], Mapping) else None
    return str(next((part for part in (parts[0], parts[1], given) if part), ""))


def _public(answer: Mapping[str, Any] | Fault) -> Check:
    name = "vault: public access"
    if isinstance(answer, Fault):
        if answer.code == "NoSuchPublicAccessBlockConfiguration":
            message = "Public access to the bucket is not blocked."
            return Check(name, "warning", message, "Block public access to the bucket.")
        return _unknown(name, "public access", answer)
    config = answer.get("PublicAccessBlockConfiguration", {})
    if all(config.values()) and config:
        return Check(name, "ok", "Public access to the bucket is blocked.")
    message = "Public access to the bucket is blocked only in part."
    return Check(name, "warning", message, "Block public access to the bucket.")


def _unknown(name: str, what: str, fault: Fault) -> Check:
    if fault.unknown_request:
        return Check(name, "ok", f"The store has no {what} that could be asked for.")
    message = f"Could not ask about {what}: {fault.code or fault.status or fault.reason}."
    return Check(name, "warning", message, "docs/vault.md lists the permissions for this.")
