"""Events about keys and about the terms that sessions are recorded under. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from sealtape.ingest.ledger.rows import Event
from sealtape.schemas import canonical
from sealtape.schemas.bodies import Opening
from sealtape.schemas.frames import Suite
from sealtape.schemas.messages import KeyMessage

__all__ = ["TermsSeen", "key_event"]

Terms: TypeAlias = tuple[int, int, bool, str]


def key_event(message: KeyMessage, now_ns: int) -> Event:
    """What leaves when the keyring has a wrap: for whom it is, not the wrap."""
    body: dict[str, canonical.Json] = {
        "v": 1,
        "kind": "key-wrapped",
        "session": message.session.hex(),
        "epoch": message.epoch,
        "tenant": message.tenant,
        "class": message.retention,
        "label": message.label,
        "recipient": message.recipient,
        "suite": message.suite,
    }
    return Event("key-wrapped", message.session.hex(), canonical.encode(body), now_ns)


class TermsSeen:
    """The terms each tenant's classes were recorded under last, as far as this worker has seen."""

    def __init__(self) -> None:
        """Nothing was seen: the first session of a class is news."""
        self._known: dict[tuple[str, str], Terms] = {}

    def news(self, openings: Iterable[Opening], now_ns: int) -> list[Event]:
        """Events of those sessions whose terms differ from the ones before; changes nothing."""
        known, events = dict(self._known), []
        for opening in _begun(openings):
            name, terms = _name(opening), _terms(opening)
            if known.get(name) != terms:
                known[name] = terms
                events.append(_event(opening, terms, now_ns))
        return events

    def learn(self, openings: Iterable[Opening]) -> None:
        """Remember the terms of sessions whose events are published."""
        for opening in _begun(openings):
            self._known[_name(opening)] = _terms(opening)


def _begun(openings: Iterable[Opening]) -> Iterable[Opening]:
    """Those of sessions that begin: a recovery epoch goes on under the terms of its session."""
    return (opening for opening in openings if opening.epoch == 0)


def _name(opening: Opening) -> tuple[str, str]:
    return opening.tenant, opening.retention.name


def _terms(opening: Opening) -> Terms:
    retention = opening.retention
    return (
        retention.retain_for_s,
        retention.delete_after_s,
        opening.suite == Suite.AES256GCM,
        opening.policy_sha256.hex(),
    )


def _event(opening: Opening, terms: Terms, now_ns: int) -> Event:
    body: dict[str, canonical.Json] = {
        "v": 1,
        "kind": "policy-applied",
        "session": opening.session.hex(),
        "epoch": opening.epoch,
        "tenant": opening.tenant,
        "class": opening.retention.name,
        "retain_for_s": terms[0],
        "delete_after_s": terms[1],
        "encryption": terms[2],
        "policy_sha256": terms[3],
    }
    return Event("policy-applied", opening.session.hex(), canonical.encode(body), now_ns)
