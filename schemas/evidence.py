"""The evidence policy: whose signatures count for whoever verifies, in one TOML file of their own.

    v = 1
    log = "example.org/log"
    tlog_policy = '''
    log example.org/log/1+…
    witness office office.example.org+…
    quorum office
    '''
    admins = ["admin.example.org/ann+…"]

It never comes from what is verified. Rules: docs/spec/evidence-policy.md.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, NoReturn

from sealtape.schemas import notes
from sealtape.schemas.cosignatures import ML_DSA_44
from sealtape.schemas.errors import FormatError, SettingsError
from sealtape.schemas.notes import Verifier
from sealtape.schemas.timestamps import read_certificates
from sealtape.schemas.tlog.policy import LogPolicy, parse_policy

MAX_POLICY: Final = 1 << 20
MAX_ADMINS: Final = 64
MAX_NODES: Final = 4096
MAX_AUTHORITIES: Final = 16
REQUIREMENTS: Final = ("monitor", "timestamp", "ml-dsa", "decrypt")

_KEYS: Final = (
    "v", "log", "tlog_policy", "monitors", "admins", "admin_threshold", "require", "ml_dsa_from",
    "nodes", "tsa",
)  # fmt: skip
_MAX_I64: Final = 2**63 - 1
_AUTHORITY: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)
_SHARD: Final = re.compile(r"[1-9][0-9]{0,9}", re.ASCII)
_HINT: Final = "docs/spec/evidence-policy.md has an example; `sealtape init` writes one to copy."


@dataclass(frozen=True, slots=True)
class Authority:
    """A time-stamp authority: its name in bundles, and the PEM roots its chain must end in."""

    name: str
    roots: bytes


@dataclass(frozen=True, slots=True)
class EvidencePolicy:
    """What counts.

    Attributes:
        log: the deployment's log name; its shards are `log/N`.
        tlog: keys of the log, witnesses and quorum.
        admins: whose statements count, `admin_threshold` of them.
        monitors: witnesses, by name, that check what entries mean before they cosign.
        require: words of REQUIREMENTS.
        ml_dsa_from: by origin, from which size on the log's ML-DSA-44 line is needed; "" is every
            origin that is not named.
        nodes: node keys that count without an entry.
        authorities: time-stamp authorities.
        sha256: of the file, to be printed with every verdict.
    """

    log: str
    tlog: LogPolicy
    admins: tuple[Verifier, ...]
    admin_threshold: int = 1
    monitors: tuple[str, ...] = ()
    require: frozenset[str] = frozenset()
    ml_dsa_from: Mapping[str, int] = field(default_factory=dict)
    nodes: tuple[Verifier, ...] = ()
    authorities: tuple[Authority, ...] = ()
    sha256: bytes = b""

    def wants_ml_dsa(self, origin: str, size: int) -> bool:
        """Whether a checkpoint of this size must have the log's ML-DSA-44 line."""
        start = self.ml_dsa_from.get(origin, self.ml_dsa_from.get(""))
        return start is not None and size >= start

    def authority(self, name: str) -> Authority | None:
        """The time-stamp authority of this name, if it counts."""
        return next((item for item in self.authorities if item.name == name), None)


def parse_evidence_policy(data: bytes) -> EvidencePolicy:
    """Read a policy file.

    Raises:
        SettingsError: it is not one; the message names the key that is wrong. Its exit code is 64.
    """
    if len(data) > MAX_POLICY:
        _refuse(f"it has {len(data)} bytes; at most {MAX_POLICY} are read")
    try:
        document = tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as exc:
        _refuse(f"it is not TOML in UTF-8: {exc}")
    _known(document, _KEYS, "")
    if _take(document, "v", int) != 1:
        _refuse(f"its version `v` is {document['v']}, this program reads 1")
    log = _take(document, "log", str)
    tlog = _tlog_policy(log, _take(document, "tlog_policy", str))
    admins = _verifiers(_texts(document, "admins"), "admins", MAX_ADMINS)
    policy = EvidencePolicy(
        log=log,
        tlog=tlog,
        admins=admins,
        admin_threshold=_threshold(document, len(admins)),
        monitors=_monitors(document, tlog),
        require=_require(document),
        ml_dsa_from=_ml_dsa_from(document, log, tlog),
        nodes=_nodes(document),
        authorities=_authorities(document),
        sha256=sha256(data).digest(),
    )
    _possible(policy)
    return policy


# -- members ---------------------------------------------------------------------------------------


def _tlog_policy(log: str, text: str) -> LogPolicy:
    try:
        notes.check_key_name(log)
        policy = parse_policy(text.encode())
    except FormatError as exc:
        _refuse(f"`log` or `tlog_policy`: {exc.message}")
    for item in policy.logs:
        if not _is_shard(item.verifier.name, log):
            _refuse(f"`tlog_policy` has a key of the log {item.verifier.name}, not of {log}/N")
    if not any(isinstance(item.verifier, Verifier) for item in policy.logs):
        _refuse("`tlog_policy` has no Ed25519 key of the log (a line `log VKEY`)")
    return policy


def _is_shard(origin: str, log: str) -> bool:
    head, _, number = origin.rpartition("/")
    return head == log and _SHARD.fullmatch(number) is not None


def _threshold(document: Mapping[str, Any], admins: int) -> int:
    threshold: int = _take(document, "admin_threshold", int, 1)
    if not 1 <= threshold <= admins:
        _refuse(f"`admin_threshold` is {threshold}, and there are {admins} `admins`")
    return threshold


def _monitors(document: Mapping[str, Any], tlog: LogPolicy) -> tuple[str, ...]:
    monitors = _texts(document, "monitors", [])
    witnesses = [witness.name for witness in tlog.witnesses]
    _once(monitors, "monitors")
    for name in monitors:
        if name not in witnesses:
            _refuse(f"`monitors` names {name!r}, which is no witness of `tlog_policy`", witnesses)
    return monitors


def _require(document: Mapping[str, Any]) -> frozenset[str]:
    words = _texts(document, "require", [])
    _once(words, "require")
    for word in words:
        if word not in REQUIREMENTS:
            _refuse(f"`require` has the unknown word {word!r}{_nearest(word, REQUIREMENTS)}")
    return frozenset(words)


def _ml_dsa_from(document: Mapping[str, Any], log: str, tlog: LogPolicy) -> dict[str, int]:
    value = document.get("ml_dsa_from", {})
    table = value if isinstance(value, dict) else {"": value}
    signing = _ml_dsa_origins(tlog)
    for origin, size in table.items():
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _MAX_I64:
            _refuse("`ml_dsa_from` must be a size, or a table of sizes by origin")
        if origin and not _is_shard(origin, log):
            _refuse(f"`ml_dsa_from` names {origin!r}, which is no shard {log}/N")
        if not signing or (origin and origin not in signing):
            _refuse("`ml_dsa_from` wants a line of a key that `tlog_policy` does not have")
    return table


def _ml_dsa_origins(tlog: LogPolicy) -> set[str]:
    keys = [item.verifier for item in tlog.logs]
    return {
        key.name for key in keys if not isinstance(key, Verifier) and key.algorithm == ML_DSA_44
    }


def _nodes(document: Mapping[str, Any]) -> tuple[Verifier, ...]:
    tables = _tables(document, "nodes", ("vkey",))
    return _verifiers([_take(table, "vkey", str) for table in tables], "nodes", MAX_NODES)


def _authorities(document: Mapping[str, Any]) -> tuple[Authority, ...]:
    found = []
    for table in _tables(document, "tsa", ("name", "roots")):
        name, roots = _take(table, "name", str), _take(table, "roots", str)
        if not _AUTHORITY.fullmatch(name):
            _refuse(f"`tsa` has the name {name!r}; use 1 to 63 of a-z, 0-9, _ and -")
        try:
            known = read_certificates(roots.encode(), f"`roots` of the `tsa` {name}")
        except FormatError as exc:
            _refuse(exc.message)
        if not known:
            _refuse(f"`roots` of the `tsa` {name} has no PEM certificate")
        found.append(Authority(name, roots.encode()))
    _once([item.name for item in found], "tsa")
    if len(found) > MAX_AUTHORITIES:
        _refuse(f"at most {MAX_AUTHORITIES} `tsa` are read")
    return tuple(found)


def _possible(policy: EvidencePolicy) -> None:
    """Refuse a policy that nothing could satisfy."""
    if "monitor" in policy.require and not policy.monitors:
        _refuse("it requires a monitor and names none in `monitors`")
    if "timestamp" in policy.require and not policy.authorities:
        _refuse("it requires a time-stamp and has no `[[tsa]]`")
    if "ml-dsa" in policy.require and not _ml_dsa_origins(policy.tlog):
        _refuse("it requires ML-DSA-44 and `tlog_policy` has no such key of the log")


# -- TOML ------------------------------------------------------------------------------------------


def _take(table: Mapping[str, Any], name: str, kind: type, default: Any = None) -> Any:
    value = table.get(name, default)
    if value is None:
        _refuse(f"`{name}` is missing")
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        what = {str: "a text", int: "a whole number", list: "a list"}[kind]
        _refuse(f"`{name}` must be {what}")
    return value


def _texts(document: Mapping[str, Any], name: str, default: Any = None) -> tuple[str, ...]:
    items = _take(document, name, list, default)
    if not all(isinstance(item, str) for item in items):
        _refuse(f"`{name}` must be a list of texts")
    return tuple(items)


def _tables(document: Mapping[str, Any], name: str, keys: Sequence[str]) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = _take(document, name, list, [])
    if not all(isinstance(item, dict) for item in items):
        _refuse(f"`{name}` must be tables `[[{name}]]`")
    for item in items:
        _known(item, keys, f" of `[[{name}]]`")
    return items


def _verifiers(vkeys: Sequence[str], name: str, most: int) -> tuple[Verifier, ...]:
    if (not vkeys and name == "admins") or len(vkeys) > most:
        _refuse(f"`{name}` must be {'1' if name == 'admins' else '0'} to {most} keys")
    try:
        found = tuple(Verifier.from_vkey(vkey) for vkey in vkeys)
    except FormatError as exc:
        _refuse(f"`{name}`: {exc.message}")
    _once([item.public.hex() for item in found], name)
    return found


def _known(table: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    for key in table:
        if key not in keys:
            _refuse(f"the key `{key}`{where} is unknown{_nearest(key, keys)}")


def _once(items: Sequence[str], name: str) -> None:
    if len(set(items)) != len(items):
        _refuse(f"`{name}` has something twice")


def _nearest(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"


def _refuse(reason: str, known: Sequence[str] = ()) -> NoReturn:
    names = f" (they are: {', '.join(known)})" if known else ""
    raise SettingsError(f"The evidence policy cannot be used: {reason}{names}.", hint=_HINT)
