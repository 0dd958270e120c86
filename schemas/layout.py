"""Object keys: pure functions from names to keys and back.

::

    seg/v1/tenant=main/class=standard/dt=2026-11-22/<id>-<term>.parquet
    seg/v1/tenant=main/class=standard/dt=2026-11-22/<id>-<term>.manifest.jsonl
    quarantine/v1/tenant=main/dt=2026-11-22/<id>.bin

`id` is a UUID of version 7 in 32 hex digits, `term` the number of the writer's lease. Rules:
docs/spec/segments.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime

from sealtape.schemas.errors import FormatError

__all__ = [
    "SEGMENT_PREFIX",
    "QuarantineKey",
    "SegmentKey",
    "check_name",
    "day_of",
    "is_name",
    "manifest_key",
    "parse_key",
    "quarantine_key",
    "segment_key",
    "segment_of_manifest",
    "tenant_prefix",
]

SEGMENT_PREFIX = "seg/v1/"
_QUARANTINE_PREFIX = "quarantine/v1/"
_PARQUET = ".parquet"
_MANIFEST = ".manifest.jsonl"
_NS = 1_000_000_000
_MAX_TERM = (1 << 63) - 1

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_UUID7 = re.compile(r"[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}", re.ASCII)
_SEGMENT = re.compile(
    r"seg/v1/tenant=([^/]+)/class=([^/]+)/dt=([^/]+)/([0-9a-f]{32})-(0|[1-9][0-9]{0,18})\.parquet",
    re.ASCII,
)
_QUARANTINE = re.compile(r"quarantine/v1/tenant=([^/]+)/dt=([^/]+)/([0-9a-f]{32})\.bin", re.ASCII)


@dataclass(frozen=True, slots=True)
class SegmentKey:
    """What a segment's key says. `day` is the UTC day it was cut, as YYYY-MM-DD."""

    tenant: str
    class_name: str
    day: str
    id: str
    term: int


@dataclass(frozen=True, slots=True)
class QuarantineKey:
    """What a quarantine object's key says."""

    tenant: str
    day: str
    id: str


def is_name(text: str) -> bool:
    """Whether `text` can name a tenant or a retention class."""
    return _NAME.fullmatch(text) is not None


def check_name(text: str, what: str) -> str:
    """Return `text` if it can name a tenant or a retention class, else raise FormatError."""
    if not is_name(text):
        raise FormatError(
            f"The name of a {what} is {text!r}.",
            hint="Use 1 to 63 of a-z, 0-9, _ and -, the first a letter or digit.",
        )
    return text


def day_of(ts_ns: int) -> str:
    """Return the UTC day of a time, as YYYY-MM-DD."""
    try:
        return datetime.fromtimestamp(ts_ns // _NS, UTC).date().isoformat()
    except (OverflowError, ValueError, OSError):
        raise FormatError(f"{ts_ns} ns is not a time between the years 1 and 9999.") from None


def tenant_prefix(tenant: str, class_name: str) -> str:
    """Return what the keys of a tenant's segments of one retention class begin with."""
    check_name(tenant, "tenant")
    check_name(class_name, "retention class")
    return f"{SEGMENT_PREFIX}tenant={tenant}/class={class_name}/"


def segment_key(tenant: str, class_name: str, day: str, uuid7hex: str, term: int) -> str:
    """Return a segment's key. Raises FormatError for a part that is not of its form."""
    _check_day(day)
    _check_id(uuid7hex)
    if not 0 <= term <= _MAX_TERM:
        raise FormatError(f"A term is 0 to 2**63 - 1, not {term}.")
    return f"{tenant_prefix(tenant, class_name)}dt={day}/{uuid7hex}-{term}{_PARQUET}"


def manifest_key(segment_key: str) -> str:
    """Return the key of a segment's manifest."""
    parse_key(segment_key)
    if not segment_key.endswith(_PARQUET):
        raise FormatError(f"{segment_key!r} is not a segment's key.")
    return segment_key.removesuffix(_PARQUET) + _MANIFEST


def segment_of_manifest(manifest_key: str) -> str:
    """Return the key of the segment that a manifest belongs to."""
    if not manifest_key.endswith(_MANIFEST):
        raise FormatError(f"{manifest_key!r} is not a manifest's key.")
    key = manifest_key.removesuffix(_MANIFEST) + _PARQUET
    parse_key(key)
    return key


def quarantine_key(tenant: str, day: str, uuid7hex: str) -> str:
    """Return the key of a quarantined message's bytes."""
    check_name(tenant, "tenant")
    _check_day(day)
    _check_id(uuid7hex)
    return f"{_QUARANTINE_PREFIX}tenant={tenant}/dt={day}/{uuid7hex}.bin"


def parse_key(key: str) -> SegmentKey | QuarantineKey:
    """Return the parts of a segment's or quarantine object's key; the inverse of writing it."""
    if match := _SEGMENT.fullmatch(key):
        tenant, class_name, day, uuid7hex, term = match.groups()
        segment_key(tenant, class_name, day, uuid7hex, int(term))
        return SegmentKey(tenant, class_name, day, uuid7hex, int(term))
    if match := _QUARANTINE.fullmatch(key):
        tenant, day, uuid7hex = match.groups()
        quarantine_key(tenant, day, uuid7hex)
        return QuarantineKey(tenant, day, uuid7hex)
    raise FormatError(f"{key!r} is not an object key of ours.")


def _check_day(day: str) -> None:
    try:
        date.fromisoformat(day if _DAY.fullmatch(day) else "")
    except ValueError:
        raise FormatError(f"{day!r} is not a day of the form YYYY-MM-DD.") from None


def _check_id(uuid7hex: str) -> None:
    if not _UUID7.fullmatch(uuid7hex):
        raise FormatError(f"{uuid7hex!r} is not a UUID of version 7 in 32 hex digits.")
