"""What the indexer tells SIEMs: sessions that begin and end, statements, refusals.

An `EventSource` is called with each update before the index takes it. The update tells what is new
together with what the index holds of the session, so nothing else has to be remembered: after a
crash between the two writes the same update comes again and makes the same events, with the same
ids. While the events bus is away the call fails, so indexing waits and its lag shows; no event and
no document is lost.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass

from sealtape.indexer.documents import REFUSED, Reached, SessionFold
from sealtape.indexer.index import Index, Update
from sealtape.ingest.events_topic import Sink
from sealtape.ingest.relay import append_events
from sealtape.schemas.documents import CommandDocument, SessionDocument
from sealtape.schemas.errors import FormatError
from sealtape.schemas.ocsf import (
    OcsfEvent,
    refusal,
    session_ended,
    session_started,
    statement,
)

__all__ = ["EventSource"]

IDENTIFIED = 2
"""Frames after which it is known who a session is: OPEN and IDENT."""
MAX_KNOWN = 8192
"""Sessions of which is remembered what was sent; of others the index is asked."""


log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Known:
    """What was sent about a session, and its last document."""

    started: bool
    ended: bool
    document: SessionDocument | None = None


class EventSource:
    """Makes events of updates and puts them on the events bus; pass it as `on_update`.

    It may be called for several updates at the same time, as long as they are of other sessions.
    """

    def __init__(self, events: Sink, index: Index) -> None:
        """Take the bus to write to and the index that the updates go to; both stay open."""
        self.sent = 0
        """Events sent since the start."""
        self._events = events
        self._index = index
        self._known: OrderedDict[str, _Known] = OrderedDict()

    async def __call__(self, update: Update) -> None:
        """Send what an update tells. Raises StoreError; the caller comes again with it."""
        if not update.sessions and not update.commands:
            return
        await self._events.start()
        began, ended = await self._sessions(update)
        found = [session_started(document) for _, document in began]
        found += [await self._command(command) for command in update.commands]
        found += [session_ended(document, epoch=at.epoch, seq=at.seq) for _, document, at in ended]
        await append_events(self._events, found)
        self.sent += len(found)
        for known, _ in began:
            known.started = True
        for known, _, _ in ended:
            known.ended = True
        while len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)

    async def _sessions(
        self, update: Update
    ) -> tuple[list[tuple[_Known, SessionDocument]], list[tuple[_Known, SessionDocument, Reached]]]:
        """The sessions that began with this update, and those that ended."""
        began, ended = [], []
        for document in update.sessions:
            known = await self._of(document.id)
            known.document = document
            at = _reached(update.progress.get(document.id))
            known.ended = known.ended and at.closed
            if not known.started and at.frames >= IDENTIFIED:
                began.append((known, document))
            if not known.ended and at.closed:
                ended.append((known, document, at))
        return began, ended

    async def _of(self, session: str) -> _Known:
        """What was sent about a session: all that the index shows."""
        known = self._known.get(session)
        if known is None:
            at = _reached(await self._index.progress(session))
            known = _Known(at.frames >= IDENTIFIED, at.closed)
        self._known[session] = known
        self._known.move_to_end(session)
        return known

    async def _command(self, command: CommandDocument) -> OcsfEvent:
        session = command.session.hex()
        known = await self._of(session)
        if known.document is None:
            known.document = await self._index.session(session)
        make = refusal if command.effect == REFUSED else statement
        return make(command, known.document)


def _reached(progress: bytes | None) -> Reached:
    """How far a session was told; what cannot be read tells nothing, so its events come again."""
    if progress is not None:
        try:
            return SessionFold.restore(b"", progress, None).reached
        except FormatError as exc:
            log.warning("events of a session are told from its beginning again: %s", exc)
    return Reached(0, 0, -1, closed=False)
