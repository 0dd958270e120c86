"""The ledger's lifecycle events: sealing, gaps and incidents, keys, policies.

They name sessions by number alone; who and what is in the indexer's events, under the same
`correlation_uid`. What this version does not know becomes a Base Event: nothing is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, TypeAlias

from sealtape.schemas import canonical
from sealtape.schemas.errors import FormatError
from sealtape.schemas.ocsf.event import (
    BASE_EVENT,
    DETECTION_FINDING,
    ENTITY_MANAGEMENT,
    EVENT_LOG_ACTIVITY,
    FAILURE,
    HIGH,
    INFORMATIONAL,
    LOW,
    MEDIUM,
    SUCCESS,
    About,
    OcsfEvent,
    make_event,
    millis,
)

__all__ = ["LIFECYCLE_CODES", "SEVERITIES", "lifecycle_event"]

Payload: TypeAlias = Mapping[str, Any]

SEVERITIES = {
    "gap": MEDIUM,
    "malformed": LOW,
    "early_frame": LOW,
    "late_frame": LOW,
    "after_close": LOW,
    "time_backwards": LOW,
    "checkpoint_late": LOW,
    "checkpoint_ahead": MEDIUM,
    "no_open": MEDIUM,
    "bus_lost": HIGH,
}
"""How grave an incident is, by its reason; one that is not here is High."""

_ARCHIVE = (4, "Archive")
_START = (6, "Start")
_CREATE = (1, "Create")
_ACTIVATE = (10, "Activate")
_NEW = (1, "New")
_LOG: dict[str, Any] = {"log_type_id": 2, "log_type": "Application", "log_provider": "Sealtape"}


def lifecycle_event(kind: str, key: str, payload: bytes, at_ns: int) -> OcsfEvent:
    """Return the event of one outbox row. Never raises for what a row may hold."""
    try:
        said = canonical.decode(payload, "lifecycle event")
        make = _KINDS.get(kind, _unknown)
        return make(kind, key, said, at_ns)
    except (FormatError, KeyError, TypeError, ValueError):
        return _unknown(kind, key, {"payload": payload.decode("utf-8", "replace")}, at_ns)


def _session(kind: str, key: str, said: Payload, at_ns: int) -> OcsfEvent:
    """A session's recording was opened, sealed, or closed with something missing."""
    name, epoch, frames = said["session"], int(said["epoch"]), int(said["frames"])
    incomplete = kind == "session-closed"
    words = {
        "session-open": "The first frames of the recording are sealed.",
        "session-sealed": "The recording is sealed, whole and signed.",
        "session-closed": "The recording is sealed, but frames or the last signature are missing.",
    }
    return make_event(
        EVENT_LOG_ACTIVITY,
        _START if kind == "session-open" else _ARCHIVE,
        About(
            uid=f"{name}:{epoch}:{frames}:{kind}",
            code=kind,
            time_ns=at_ns,
            tenant=said["tenant"],
            correlation=name,
        ),
        message=words[kind],
        members={"log_name": name, **_LOG},
        ours={
            "session": name,
            "epoch": epoch,
            "frames": frames,
            "retention": said["class"],
            "close_reason": said.get("reason", ""),
        },
        severity=MEDIUM if incomplete else INFORMATIONAL,
        status=FAILURE if incomplete else SUCCESS,
    )


def _segment(kind: str, key: str, said: Payload, at_ns: int) -> OcsfEvent:
    """A segment was published."""
    return make_event(
        EVENT_LOG_ACTIVITY,
        _ARCHIVE,
        About(
            uid=f"segment:{said['record']}",
            code=kind,
            time_ns=at_ns,
            tenant=said["tenant"],
            correlation=said["shard"],
        ),
        message=f"Segment {said['n']} of {said['shard']} is sealed.",
        members={"log_name": said["shard"], **_LOG},
        ours={
            "shard": said["shard"],
            "n": int(said["n"]),
            "object": said["object"],
            "record": said["record"],
            "rows": int(said["rows"]),
            "bytes": int(said["bytes"]),
            "retention": said["class"],
        },
    )


def _incident(kind: str, key: str, said: Payload, at_ns: int) -> OcsfEvent:
    """Something that must not happen did, or frames are missing for good."""
    session, reason = said["session"], said["reason"]
    place = f"{said['topic']}/{said['partition']}"
    uid = f"{place}/{said['offset']}/{reason}"
    if session:  # offsets may come a second time
        uid += f"/{session}:{said['epoch']}:{said['seq']}"
    members: dict[str, Any] = {
        "is_alert": True,
        "finding_info": {
            "uid": uid,
            "title": f"Recording incident: {reason}",
            "desc": said["detail"],
            "types": [reason],
            "created_time": millis(at_ns),
            "analytic": {"uid": reason, "name": "Sealtape ingest", "type_id": 1, "type": "Rule"},
        },
    }
    if session:
        members["resources"] = [{"uid": session, "type": "recorded session"}]
    return make_event(
        DETECTION_FINDING,
        _CREATE,
        About(uid=uid, code=kind, time_ns=at_ns, tenant="", correlation=session or place),
        message=said["detail"],
        members=members,
        ours={
            "reason": reason,
            "topic": said["topic"],
            "partition": said["partition"],
            "offset": int(said["offset"]),
            "session": session,
            "epoch": said["epoch"],
            "seq": int(said["seq"]),
        },
        severity=SEVERITIES.get(reason, HIGH),
        status=_NEW,
    )


def _key(kind: str, key: str, said: Payload, at_ns: int) -> OcsfEvent:
    """A key of a session was wrapped to a recipient, and the keyring has it."""
    name, epoch = said["session"], int(said["epoch"])
    label, recipient = said["label"], said["recipient"]
    uid = f"{name}:{epoch}:{label}:{recipient}"
    return make_event(
        ENTITY_MANAGEMENT,
        _CREATE,
        About(uid=uid, code=kind, time_ns=at_ns, tenant=said["tenant"], correlation=name),
        message=f"The {label} key of the session was wrapped to {recipient}.",
        members={"entity": {"type_id": 99, "type": "Key", "uid": uid, "name": label}},
        ours={
            "session": name,
            "epoch": epoch,
            "label": label,
            "recipient": recipient,
            "suite": said["suite"],
            "retention": said["class"],
        },
    )


def _policy(kind: str, key: str, said: Payload, at_ns: int) -> OcsfEvent:
    """From this session on, sessions of the class are recorded under these terms."""
    name, epoch = said["session"], int(said["epoch"])
    terms = ("retain_for_s", "delete_after_s", "encryption", "policy_sha256")
    policy = {
        "name": said["class"],
        "type": "retention class",
        "is_applied": True,
        "data": {term: said[term] for term in terms},
    }
    return make_event(
        ENTITY_MANAGEMENT,
        _ACTIVATE,
        About(
            uid=f"{name}:{epoch}:{kind}",
            code=kind,
            time_ns=at_ns,
            tenant=said["tenant"],
            correlation=name,
        ),
        message=f"Sessions of class {said['class']} are recorded under these terms from now on.",
        members={"entity": {"type_id": 5, "type": "Policy", "policy": policy}},
        ours={"session": name, "epoch": epoch, "retention": said["class"]},
    )


def _unknown(kind: str, key: str, said: Payload, at_ns: int) -> OcsfEvent:
    """A kind, or a form of it, that this version does not know."""
    digest = sha256(f"{kind}\0{key}\0{at_ns}\0{sorted(said.items())}".encode()).hexdigest()
    tenant = said.get("tenant", "")
    return make_event(
        BASE_EVENT,
        (99, kind),
        About(
            uid=f"{kind}:{digest[:32]}",
            code=kind,
            time_ns=at_ns,
            tenant=tenant if isinstance(tenant, str) else "",
            correlation=key or kind,
        ),
        message=f"{kind} ({key})" if key else kind,
        members={},
        ours=dict(said),
        status=None,
    )


_KINDS: Mapping[str, Callable[[str, str, Payload, int], OcsfEvent]] = {
    "session-open": _session,
    "session-sealed": _session,
    "session-closed": _session,
    "segment-sealed": _segment,
    "gap": _incident,
    "incident": _incident,
    "key-wrapped": _key,
    "policy-applied": _policy,
}

LIFECYCLE_CODES = tuple(_KINDS)
"""Codes of the events that come from the ledger."""
