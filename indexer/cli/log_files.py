"""The log's files in a deployment: its keys, the administrator's, the policies that name them.

::

    keys/log.key, log.mldsa.key    sign checkpoints of shard 1; keys/log-2.key and so on of others
    keys/admin.key                 signs statements: keys, holds, releases
    keys/witness.key, monitor.key  cosign in a lab; elsewhere they are another party's
    log.policy                     whom the log's worker asks to witness, and how many must
    policy.toml                    whose signatures count for whoever verifies: to be copied
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from sealtape.ingest.tlog.parts import Introductions
from sealtape.ingest.tlog.signer_file import key_paths, read_key
from sealtape.schemas import notes
from sealtape.schemas.cosignatures import ED25519, ML_DSA_44
from sealtape.schemas.errors import DeploymentExists, SettingsError
from sealtape.schemas.settings import Settings
from sealtape.schemas.tlog.keyfiles import format_key
from sealtape.schemas.tlog.statements import Heading, KeyStatement, sign_statement
from sealtape.schemas.trust import parse_trust

__all__ = [
    "ADMIN",
    "LAB_MONITORS",
    "LAB_WITNESSES",
    "MONITOR",
    "WITNESS",
    "admin_key",
    "introductions",
    "key_statement",
    "log_key_path",
    "make_log_files",
    "make_shard_keys",
    "private_file",
]

ADMIN: Final = "keys/admin.key"
WITNESS: Final = "keys/witness.key"
MONITOR: Final = "keys/monitor.key"
LAB_WITNESSES: Final = {"witness": WITNESS, "monitor": MONITOR}
"""Who cosigns in a lab, by the name that its policies have for them, and with which key."""
LAB_MONITORS: Final = ("monitor",)
"""Those of them that read what they cosign."""
_SEED: Final = 32

_LOG_POLICY: Final = """\
# Whom the log's worker asks to witness its checkpoints, and how many of them must (docs/log.md).
# A witness that you run yourself is none to an outsider. Name others as they tell you their keys:
#   witness NAME VKEY https://THEIR.ADDRESS
#   quorum NAME
"""
_EVIDENCE_POLICY: Final = """\
# Whose signatures count for whoever verifies (docs/spec/evidence-policy.md). Copy it to where
# verification runs, and name there whom you trust: it never comes from what is verified.
v = 1
log = "{log}"
tlog_policy = \"\"\"
{tlog}\"\"\"
monitors = [{monitors}]
admins = ["{admin}"]
"""


def private_file(path: Path, text: str) -> None:
    """Write a file that only its owner may read; it must not exist yet."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)


def make_log_files(folder: Path, log: str, *, development: bool) -> None:
    """Make what a deployment's log needs; nothing that is there is overwritten.

    Raises `DeploymentExists` when any of the files is there, and OSError.
    """
    if not log.isascii():
        msg = f"The log's name {log!r} is not of ASCII, in which its keys are written."
        raise SettingsError(msg, hint="Write it like example.com/log.")
    party = log.partition("/")[0]
    taken = [
        name
        for name in ("keys/log.key", ADMIN, WITNESS, MONITOR, "log.policy", "policy.toml")
        if (folder / name).exists()
    ]
    if taken:
        msg = f"{folder} has files of a log already ({', '.join(taken)})."
        raise DeploymentExists(msg, hint="Keys and policies are never overwritten.")
    (folder / "keys").mkdir(mode=0o700, exist_ok=True)
    vkeys = make_shard_keys(folder / "keys/log.key", log, 1)
    admin = _make_key(folder / ADMIN, f"{party}/admin", notes.ALGORITHM)
    witnesses = {
        "witness": _make_key(folder / WITNESS, f"{party}/witness", ED25519),
        "monitor": _make_key(folder / MONITOR, f"{party}/monitor", ED25519),
    }
    lines = [f"log {vkey}" for vkey in vkeys]
    if development:
        lines += [f"witness {name} {witnesses[name]}" for name in LAB_WITNESSES]
        lines += [f"group lab all {' '.join(LAB_WITNESSES)}", "quorum lab"]
    else:
        lines.append("quorum none")
    text = "".join(line + "\n" for line in lines)
    (folder / "log.policy").write_text(_LOG_POLICY + text, encoding="ascii")
    monitors = ", ".join(f'"{name}"' for name in LAB_MONITORS if development)
    evidence = _EVIDENCE_POLICY.format(log=log, tlog=text, monitors=monitors, admin=admin)
    (folder / "policy.toml").write_text(evidence, encoding="utf-8")


def make_shard_keys(path: Path, log: str, number: int) -> tuple[str, str]:
    """Make those of a shard's two keys that are not there. Returns the public halves.

    `path` is where shard 1's lie. Raises `SettingsError` for a file that holds another key.
    """
    first, second = key_paths(path, number)
    origin = f"{log}/{number}"
    return _shard_key(first, origin, notes.ALGORITHM), _shard_key(second, origin, ML_DSA_44)


def _shard_key(path: Path, origin: str, algorithm: bytes) -> str:
    found = read_key(path)
    if found is None:
        return _make_key(path, origin, algorithm)
    if (found.name, found.algorithm) != (origin, algorithm):
        msg = f"{path} holds a key of {found.name}, not the one of {origin}."
        raise SettingsError(msg, hint="Move it away, and look where it is from.")
    return found.vkey


def _make_key(path: Path, name: str, algorithm: bytes) -> str:
    """Make a key file; returns the public half."""
    text = format_key(name, algorithm, secrets.token_bytes(_SEED))
    private_file(path, text)
    found = read_key(path)
    assert found is not None
    return found.vkey


def log_key_path(settings: Settings) -> Path | None:
    """Where the log's key of shard 1 lies; None when another process signs."""
    scheme, _, rest = settings.log.signer.partition(":")
    return Path(settings.base) / rest.partition("?")[0] if scheme == "file" else None


def admin_key(path: Path) -> notes.Signer:
    """An administrator's key. Raises `SettingsError`."""
    found = read_key(path)
    if found is None:
        msg = f"The administrator's key {path} is not there."
        raise SettingsError(msg, hint="`sealtape log init` makes a first one.")
    return found.signer()


def key_statement(
    log: str,
    role: str,
    key: str,
    signers: Sequence[notes.Signer],
    *,
    action: str = "introduce",
    replaces: str = "",
    since: int | None = None,
) -> bytes:
    """The entry by which a key begins to count, takes another's place, or counts no more."""
    heading = Heading(log, secrets.token_bytes(16), time.time_ns())
    body = KeyStatement(heading, action, role, key, replaces, since)
    return sign_statement(body, signers).to_json()


def introductions(settings: Settings, signers: Sequence[notes.Signer] = ()) -> Introductions:
    """The entries by which administrators introduce a deployment's keys at the start of a shard.

    Without `signers` it is the one whose key lies in the deployment's folder.
    """
    log, base = settings.deployment.log, Path(settings.base)

    def introduce(number: int) -> Sequence[bytes]:
        admins = list(signers) or [admin_key(base / ADMIN)]
        keys = [("admin", admin.vkey) for admin in admins]
        keys += _public_keys(settings, number)
        return [key_statement(log, role, key, admins) for role, key in keys]

    return introduce


def _public_keys(settings: Settings, number: int) -> Iterator[tuple[str, str]]:
    """The public halves of a deployment's keys, each with its role."""
    base = Path(settings.base)
    for node in parse_trust((base / settings.keys.trust).read_text(encoding="utf-8")).nodes:
        yield "node", node.vkey
    paths = [("witness", base / WITNESS), ("monitor", base / MONITOR)]
    signing = log_key_path(settings)
    if signing is not None:
        paths = [("log", path) for path in key_paths(signing, number)] + paths
    for role, path in paths:
        half = read_key(path)
        if half is not None:
            yield role, half.vkey
    for role, names in (("auditor", settings.keys.auditors), ("indexer", settings.keys.indexers)):
        for name in names:
            yield role, (base / name).read_text(encoding="ascii").strip()
