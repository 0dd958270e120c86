"""By which names people choose among events: what they call themselves. Pure."""

from __future__ import annotations

from typing import Final

from sealtape.schemas.ocsf.event import (
    APPLICATION_LIFECYCLE,
    AUTHENTICATION,
    BASE_EVENT,
    DATASTORE_ACTIVITY,
    DETECTION_FINDING,
    ENTITY_MANAGEMENT,
    EVENT_LOG_ACTIVITY,
    EventClass,
)
from sealtape.schemas.ocsf.lifecycle import LIFECYCLE_CODES

__all__ = ["CLASSES", "EVENT_CODES", "class_word"]

EVENT_CODES: Final = (
    "session-start",
    "session-end",
    "session-refused",
    "statement",
    "node-start",
    "node-end",
    *LIFECYCLE_CODES,
)
"""Every `metadata.event_code` that this version knows; a later one may bring others."""

CLASSES: Final[tuple[EventClass, ...]] = (
    BASE_EVENT,
    EVENT_LOG_ACTIVITY,
    DETECTION_FINDING,
    AUTHENTICATION,
    ENTITY_MANAGEMENT,
    APPLICATION_LIFECYCLE,
    DATASTORE_ACTIVITY,
)
"""Every class of OCSF that is used. What a later version brings is a Base Event to this one."""


def class_word(name: str) -> str:
    """Return a class's name as one word: `Datastore Activity` is `datastore_activity`."""
    return name.lower().replace(" ", "_")
