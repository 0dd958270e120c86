r"""Records and alarms of scheduled verification: what was read when, and what was found.

    {"at_ns":"…","bytes":"…","by":"sealtape 0.1.0","findings":"0",…,"type":"verification","v":1}

Rules and examples: docs/spec/verification.md.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, TypeAlias

from sealtape.schemas import canonical
from sealtape.schemas.canonical import Fields, Json
from sealtape.schemas.errors import FormatError
from sealtape.schemas.frames import SESSION_SIZE
from sealtape.schemas.verify.findings import Finding, Verdict

__all__ = ["PASS", "SIGNATURE", "Alarm", "CheckedLog", "Verification", "gravest", "signature"]

PASS: Final = ""
"""Stands for the object in the record of a pass over chains, ledger and log."""

SIGNATURE: Final = "Sealtape-Signature"
"""The header that an alarm's signature is sent in."""

_VERDICTS: Final = (Verdict.TAMPERED, Verdict.INCOMPLETE, Verdict.VERIFIED)
_MAX_REASON: Final = 4096

Octets: TypeAlias = bytes  # inside a record, `bytes` is a number of them


def gravest(verdicts: set[str]) -> str:
    """The verdict of several findings together; verified without any."""
    return next((one for one in _VERDICTS if one in verdicts), Verdict.VERIFIED)


@dataclass(frozen=True, slots=True)
class CheckedLog:
    """The log's checkpoint that something was compared with."""

    origin: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """One object that was read, or one pass over all that is no object (`PASS`)."""

    object: str
    at_ns: int
    by: str
    bytes: int
    frames: int
    sessions: int
    findings: int
    verdict: str
    log: CheckedLog | None

    def to_json(self) -> Octets:
        """Write the record."""
        log: Json = None
        if self.log is not None:
            log = {"origin": self.log.origin, "size": str(self.log.size)}
        value: dict[str, Json] = {
            "v": 1,
            "type": "verification",
            "object": self.object,
            "at_ns": str(self.at_ns),
            "by": self.by,
            "bytes": str(self.bytes),
            "frames": str(self.frames),
            "sessions": str(self.sessions),
            "findings": str(self.findings),
            "verdict": self.verdict,
            "log": log,
        }
        return canonical.encode(value)

    @classmethod
    def from_json(cls, data: Octets) -> Verification:
        """Read what `to_json` wrote; FormatError for anything else."""
        fields = canonical.fields(data, "verification record")
        fields.version(1)
        fields.text("type", choices=("verification",))
        record = cls(
            object=fields.text("object", max_bytes=1024),
            at_ns=fields.time_ns("at_ns"),
            by=fields.text("by", max_bytes=255),
            bytes=fields.decimal("bytes"),
            frames=fields.decimal("frames"),
            sessions=fields.decimal("sessions"),
            findings=fields.decimal("findings"),
            verdict=fields.text("verdict", choices=_VERDICTS),
            log=_log(fields),
        )
        fields.end()
        if bool(record.findings) == (record.verdict == Verdict.VERIFIED):
            raise FormatError("A verification record is `verified` exactly without findings.")
        return record


def _log(fields: Fields) -> CheckedLog | None:
    inner = fields.optional_object("log")
    if inner is None:
        return None
    found = CheckedLog(inner.text("origin", max_bytes=255), inner.decimal("size"))
    inner.end()
    return found


@dataclass(frozen=True, slots=True)
class Alarm:
    """What is sent of one finding: found when, by which node, in which deployment."""

    at_ns: int
    log: str
    node: str
    finding: Finding

    @property
    def id(self) -> bytes:
        """The same for the same finding, whoever finds it, however often."""
        return sha256(canonical.encode(_finding(self.finding))).digest()

    def to_json(self) -> bytes:
        """Write the alarm."""
        value: dict[str, Json] = {
            "v": 1,
            "type": "alarm",
            "id": self.id.hex(),
            "at_ns": str(self.at_ns),
            "log": self.log,
            "node": self.node,
            "finding": _finding(self.finding),
        }
        return canonical.encode(value)

    @classmethod
    def from_json(cls, data: bytes) -> Alarm:
        """Read what `to_json` wrote; FormatError for anything else."""
        fields = canonical.fields(data, "alarm")
        fields.version(1)
        fields.text("type", choices=("alarm",))
        name = fields.hex("id", 32)
        alarm = cls(
            at_ns=fields.time_ns("at_ns"),
            log=fields.text("log", max_bytes=255),
            node=fields.text("node", max_bytes=255),
            finding=_read_finding(fields.object("finding")),
        )
        fields.end()
        if alarm.id != name:
            raise FormatError("An alarm's id is not that of its finding.")
        return alarm


def _finding(finding: Finding) -> dict[str, Json]:
    return {
        "verdict": finding.verdict,
        "layer": finding.layer,
        "object": _sound(finding.object),
        "session": finding.session,
        "epoch": finding.epoch,
        "seq": None if finding.seq is None else str(finding.seq),
        "reason": _sound(finding.reason),
    }


def _sound(text: str) -> str:
    """Text that JSON can hold: a damaged name of a file or row may have what Unicode has not."""
    return text[:_MAX_REASON].encode("utf-8", "replace").decode("utf-8")


def _read_finding(fields: Fields) -> Finding:
    finding = Finding(
        verdict=fields.text("verdict", choices=_VERDICTS[:2]),
        layer=fields.text("layer", max_bytes=32),
        object=fields.text("object"),
        session=None if fields.null("session") else fields.hex("session", SESSION_SIZE).hex(),
        epoch=None if fields.null("epoch") else fields.integer("epoch"),
        seq=None if fields.null("seq") else fields.decimal("seq"),
        reason=fields.text("reason"),
    )
    fields.end()
    return finding


def signature(secret: bytes, at_s: int, body: bytes) -> str:
    """What stands in the header `SIGNATURE` of an alarm that is sent at `at_s` (POSIX seconds)."""
    digest = hmac.digest(secret, b"%d.%b" % (at_s, body), "sha256")
    return f"t={at_s},v1={digest.hex()}"
