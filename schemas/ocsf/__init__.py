"""Sealtape's events in the words of the Open Cybersecurity Schema Framework, for SIEMs. Pure."""

from sealtape.schemas.ocsf.event import LOG_VERSION, VERSION, OcsfEvent
from sealtape.schemas.ocsf.lifecycle import lifecycle_event
from sealtape.schemas.ocsf.sessions import refusal, session_ended, session_started
from sealtape.schemas.ocsf.statements import statement

__all__ = [
    "LOG_VERSION",
    "VERSION",
    "OcsfEvent",
    "lifecycle_event",
    "refusal",
    "session_ended",
    "session_started",
    "statement",
]
