"""Key files: there, whole, belonging together, and readable by nobody else."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from sealtape.capture.checkup import Check
from sealtape.capture.kms import check_kms
from sealtape.schemas.errors import FormatError
from sealtape.schemas.notes import Signer
from sealtape.schemas.settings import Settings
from sealtape.schemas.trust import parse_node_key, parse_trust
from sealtape.schemas.wraps import PrivateKey, PublicKey

__all__ = ["check_auditor_key", "check_capture_keys", "check_private_key", "check_trust"]

SPOOL_KEY_DIGITS: Final = 64
MISSING_HINT: Final = "`sealtape init` makes the keys of a deployment; or restore it from its copy."
T = TypeVar("T")


def check_capture_keys(settings: Settings) -> list[Check]:
    """Return what is to be said of the keys that a capture node reads."""
    base, keys = Path(settings.base), settings.keys
    signer, found = _private(base / keys.node, "keys: node", parse_node_key)
    found += _private(base / keys.spool, "keys: spool", _spool_key)[1]
    for purpose, paths in (("auditors", keys.auditors), ("indexers", keys.indexers)):
        found += _recipients(base, purpose, paths)
    if signer is not None:
        found += check_trust(settings, signer)
    return found


def check_trust(settings: Settings, signer: Signer | None = None) -> list[Check]:
    """Look at the trust file: readable, and naming the node whose key is here, if one is."""
    name, path = "keys: trust file", Path(settings.base, settings.keys.trust)
    if signer is not None and not path.exists():
        message = f"{path} is not here; ingest, index and verify need it, this node does not."
        return [Check(name, "ok", message)]
    trust, failed = _parsed(path, name, parse_trust, "keys.trust names it.")
    if trust is None:
        return failed
    if not trust.nodes:
        return [Check(name, "error", f"{path} trusts no node.", "Add the vkey of each node.")]
    if signer is not None and signer.vkey not in {node.vkey for node in trust.nodes}:
        message = f"{path} does not name this node's key, {signer.vkey}."
        hint = "Add it as a [[node]] wherever ingest, index and verify run: else nothing counts."
        return [Check(name, "error", message, hint)]
    return [Check(name, "ok", f"{len(trust.nodes)} nodes are trusted.")]


def check_private_key(settings: Settings, purpose: str) -> list[Check]:
    """Look at a reader's private key (`auditor` or `indexer`) and at the public half beside it."""
    keys = settings.keys
    private_path, public_paths = (
        (keys.auditor_private, keys.auditors)
        if purpose == "auditor"
        else (keys.indexer_private, keys.indexers)
    )
    base, name = Path(settings.base), f"keys: {purpose}'s private"
    if private_path.startswith("transit:"):
        private, found = check_kms(private_path, base, name)
    else:
        private, found = _private(base / private_path, name, PrivateKey.from_text)
    if private is None:
        return found
    public = [_parsed(base / path, name, PublicKey.from_text, "")[0] for path in public_paths]
    here = [key for key in public if key is not None]
    if here and private.id not in {key.id for key in here}:
        message = f"{private_path} opens nothing that is wrapped to {', '.join(public_paths)}."
        hint = "The two are not a pair: restore the right one."
        return [*found, Check(name, "error", message, hint)]
    return found


def check_auditor_key(settings: Settings) -> list[Check]:
    """Say so when the auditors' private key lies where nobody needs it."""
    name, path = "keys: auditor's private", Path(settings.base, settings.keys.auditor_private)
    if settings.deployment.mode == "dev" or not path.exists():
        return []
    message = f"{path} lies on this host, which records and seals and never needs it."
    return [Check(name, "warning", message, "Move it to where the auditors are.")]


def _recipients(base: Path, purpose: str, paths: Sequence[str]) -> list[Check]:
    name = f"keys: {purpose}"
    if not paths:
        message = f"Nothing is wrapped to the {purpose}: what is encrypted cannot be read by them."
        return [Check(name, "error", message, f"Name their public keys in keys.{purpose}.")]
    found, seen = [], set()
    for path in paths:
        key, failed = _parsed(base / path, name, PublicKey.from_text, f"keys.{purpose} names it.")
        found += failed
        if key is not None:
            found.append(_recipient(key, path, purpose, again=key.id in seen))
            seen.add(key.id)
    return found


def _recipient(key: PublicKey, path: str, purpose: str, *, again: bool) -> Check:
    """A key that the node would refuse to wrap to, or one that it takes."""
    name, hint = f"keys: {purpose}", f"Correct keys.{purpose}; the node does not start with it."
    if not key.id.startswith(f"{purpose.removesuffix('s')}-"):
        return Check(name, "error", f"{path}: {key.id} is no key of {purpose}.", hint)
    if again:
        return Check(name, "error", f"{path}: {key.id} is named twice.", hint)
    return Check(name, "ok", f"{path}: {key.suite}, {key.id}.")


def _spool_key(text: str) -> str:
    digits = text.strip()
    if len(digits) != SPOOL_KEY_DIGITS or not set(digits) <= set("0123456789abcdefABCDEF"):
        raise FormatError("This is not a spool key: 64 hexadecimal digits.")
    return digits


def _private(path: Path, name: str, parse: Callable[[str], T]) -> tuple[T | None, list[Check]]:
    """Read a private key's file, and look at who else can."""
    key, failed = _parsed(path, name, parse, MISSING_HINT)
    if key is None:
        return None, failed
    return key, [_access(path, name)]


def _parsed(
    path: Path, name: str, parse: Callable[[str], T], hint: str
) -> tuple[T | None, list[Check]]:
    try:
        return parse(path.read_text(encoding="utf-8")), []
    except (OSError, UnicodeDecodeError) as exc:
        reason = (exc.strerror if isinstance(exc, OSError) else None) or "it is not text"
        return None, [Check(name, "error", f"{path} cannot be read: {reason}.", hint)]
    except FormatError as exc:
        return None, [Check(name, "error", f"{path}: {exc.message}", exc.hint or hint)]


def _access(path: Path, name: str) -> Check:
    """Say who can read a secret file, or put another in its place."""
    found, folder = path.stat(), path.parent.stat()
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o007:
        message = f"{path} can be read by everybody on this host (mode {mode:04o})."
        return Check(name, "error", message, f"chmod 600 {path}; then think of it as known.")
    if folder.st_mode & 0o002 and not folder.st_mode & stat.S_ISVTX:
        message = f"Everybody on this host can replace {path}: its folder is open to all."
        return Check(name, "error", message, f"chmod 700 {path.parent}")
    if mode & 0o070:
        message = f"{path} can be read by its group (mode {mode:04o})."
        return Check(name, "warning", message, "chmod 600, unless the group is this service's own.")
    if found.st_uid not in {os.geteuid(), 0} and os.geteuid() != 0:
        message = f"{path} belongs to another user ({found.st_uid})."
        return Check(name, "warning", message, "Let it belong to who runs Sealtape, or to root.")
    return Check(name, "ok", f"{path} is whole and for its owner only.")
