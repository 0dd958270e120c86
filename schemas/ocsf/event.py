"""What all events have in common: class, activity, severity, status, metadata, who and where.

The classes and numbers are those of OCSF 1.8.0; docs/spec/events.md says which is used for what.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from ipaddress import ip_address
from typing import Any, TypeAlias

from sealtape.schemas.documents import CommandDocument, SessionDocument

__all__ = [
    "APPLICATION_LIFECYCLE",
    "AUTHENTICATION",
    "BASE_EVENT",
    "DATASTORE_ACTIVITY",
    "DETECTION_FINDING",
    "ENTITY_MANAGEMENT",
    "EVENT_LOG_ACTIVITY",
    "FAILURE",
    "HIGH",
    "INFORMATIONAL",
    "LOG_VERSION",
    "LOW",
    "MEDIUM",
    "SUCCESS",
    "VERSION",
    "About",
    "EventClass",
    "OcsfEvent",
    "actor",
    "endpoint",
    "make_event",
    "millis",
    "user",
]

VERSION = "1.8.0"
"""The version of OCSF that every event keeps to (`metadata.version`)."""
LOG_VERSION = "1"
"""The version of docs/spec/events.md (`metadata.log_version`)."""

Members: TypeAlias = Mapping[str, Any]
Named: TypeAlias = tuple[int, str]

INFORMATIONAL: Named = (1, "Informational")
LOW: Named = (2, "Low")
MEDIUM: Named = (3, "Medium")
HIGH: Named = (4, "High")

SUCCESS: Named = (1, "Success")
FAILURE: Named = (2, "Failure")

_NS_PER_MS = 1_000_000
_ROUTE = 16


@dataclass(frozen=True, slots=True)
class EventClass:
    """An OCSF class and the category it belongs to."""

    uid: int
    name: str
    category: str

    @property
    def category_uid(self) -> int:
        """The category's number: the thousands of the class's."""
        return self.uid // 1000


BASE_EVENT = EventClass(0, "Base Event", "Uncategorized")
EVENT_LOG_ACTIVITY = EventClass(1008, "Event Log Activity", "System Activity")
DETECTION_FINDING = EventClass(2004, "Detection Finding", "Findings")
AUTHENTICATION = EventClass(3002, "Authentication", "Identity & Access Management")
ENTITY_MANAGEMENT = EventClass(3004, "Entity Management", "Identity & Access Management")
APPLICATION_LIFECYCLE = EventClass(6002, "Application Lifecycle", "Application Activity")
DATASTORE_ACTIVITY = EventClass(6005, "Datastore Activity", "Application Activity")


@dataclass(frozen=True, slots=True)
class OcsfEvent:
    """One event: its JSON members, and the bytes it stands under on the bus.

    `key` is the bus key: the session in hex, or the name of what the event is about. Events with
    the same `route` (16 bytes, what `Bus.partition_of` takes) keep their order.
    """

    key: bytes
    route: bytes
    members: Members

    @property
    def uid(self) -> str:
        """The event's id, by which a consumer tells that it has it already."""
        return str(self.members["metadata"]["uid"])

    def to_json(self) -> bytes:
        """One line of JSON, UTF-8."""
        return json.dumps(self.members, ensure_ascii=False, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What an event is about: its id, its word in our own language, when, whose.

    `correlation` ties events together: the session in hex, or what else they share. `tenant` and
    `node` may be empty: not known here.
    """

    uid: str
    code: str
    time_ns: int
    tenant: str
    correlation: str
    node: str = ""


def make_event(
    kind: EventClass,
    activity: Named,
    about: About,
    *,
    message: str,
    members: Members,
    ours: Members,
    severity: Named = INFORMATIONAL,
    status: Named | None = SUCCESS,
) -> OcsfEvent:
    """Put an event together; `ours` is what OCSF has no word for (`unmapped.sealtape`)."""
    said: dict[str, Any] = {
        "time": millis(about.time_ns),
        "class_uid": kind.uid,
        "class_name": kind.name,
        "category_uid": kind.category_uid,
        "category_name": kind.category,
        "activity_id": activity[0],
        "activity_name": activity[1],
        "type_uid": kind.uid * 100 + activity[0],
        "type_name": f"{kind.name}: {activity[1]}",
        "severity_id": severity[0],
        "severity": severity[1],
        "message": message,
        "metadata": _metadata(about),
    }
    if status is not None:
        said |= {"status_id": status[0], "status": status[1]}
    said |= members
    said["unmapped"] = {"sealtape": {"time_ns": str(about.time_ns), **ours}}
    return OcsfEvent(about.correlation.encode(), _route(about.correlation), said)


def _metadata(about: About) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "version": VERSION,
        "product": {"name": "Sealtape", "vendor_name": "Sealtape"},
        "uid": about.uid,
        "event_code": about.code,
        "correlation_uid": about.correlation,
        "log_name": "sealtape",
        "log_version": LOG_VERSION,
    }
    if about.tenant:
        metadata["tenant_uid"] = about.tenant
    if about.node:
        metadata["reporter"] = {"name": about.node}
    return metadata


def _route(correlation: str) -> bytes:
    """A session goes where its frames would; anything else by the hash of its name."""
    try:
        session = bytes.fromhex(correlation)
    except ValueError:
        session = b""
    return session if len(session) == _ROUTE else sha256(correlation.encode()).digest()[:_ROUTE]


def millis(time_ns: int) -> int:
    """Milliseconds since the Unix epoch, as OCSF counts time."""
    return time_ns // _NS_PER_MS


def user(document: SessionDocument | CommandDocument) -> dict[str, Any]:
    """The `user` object; OCSF wants one even where nobody is known."""
    if not document.user:
        return {"name": "unknown", "type_id": 0, "type": "Unknown"}
    found: dict[str, Any] = {"name": document.user, "type_id": 1, "type": "User"}
    if document.groups:
        found["groups"] = [{"name": group} for group in document.groups]
    return found


def actor(document: SessionDocument | CommandDocument) -> dict[str, Any]:
    """The `actor` object: who acts, in which session, and by which agent."""
    found: dict[str, Any] = {"user": user(document), "session": {"uid": document.session.hex()}}
    if document.agent:
        found["app_name"] = document.agent
    return found


@lru_cache(maxsize=4096)
def endpoint(source: str) -> Members:
    """The `network_endpoint` of `host:port`, `[host]:port` or a bare host; not to be changed."""
    host, port = source, ""
    if source.startswith("["):
        host, _, port = source[1:].partition("]:")
    elif source.count(":") == 1:
        host, _, port = source.partition(":")
    found: dict[str, Any] = {"ip": host} if _is_ip(host) else {"name": host or "unknown"}
    if port.isdecimal():
        found["port"] = int(port)
    return found


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
