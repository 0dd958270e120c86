"""What the log owes to a node: a receipt for each epoch that it closed, and what if none comes.

An epoch is put on the desk when it is closed, or adopted. The log is asked for its receipt each
time the log has a new witnessed checkpoint: nothing can be there before. A receipt that agrees with
what was sent lets its source go of the spool. One that does not is an alarm at once, and the spool
stays for good; none in time is an alarm too, and everything is sent again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from sealtape.capture.outbound import OutboundError
from sealtape.capture.receipts.view import LogView
from sealtape.schemas.bodies import Beacon
from sealtape.schemas.errors import FormatError, StoreError
from sealtape.schemas.tlog.receipts import Ended, contradiction

__all__ = ["Desk", "Owed", "Source"]

AT_ONCE: Final = 4
"""Receipts that are asked for at the same time."""
LOOK_S: Final = (2.0, 10.0)
"""How often the beacon is looked at while receipts are owed, and while none is."""

Event = Callable[[str, Mapping[str, str]], None]

log = logging.getLogger(__name__)


class Source(Protocol):
    """A spool that keeps epochs until they have their receipts."""

    async def settled(self, ended: Ended) -> None:
        """The receipt is there: nothing has to be kept for this epoch."""
        ...

    async def send_again(self, sessions: Collection[bytes]) -> None:
        """Append to the bus once more what there is of these sessions. Raises StoreError."""
        ...


@dataclass(slots=True, eq=False)
class Owed:
    """An epoch without a receipt.

    Attributes:
        since: when it came to the desk, by `time.monotonic`.
        late_s: how long after that it is overdue, again.
        asked: whether the log was asked, and the beacon it had then.
        refused: what was wrong with the last receipt that proved nothing.
        overdue: whether that was told.
        contradiction: how the log differs from what was sent; then it is not asked again.
    """

    ended: Ended
    source: Source
    since: float
    late_s: float
    asked: tuple[bool, Beacon | None] = (False, None)
    refused: str = ""
    overdue: bool = False
    contradiction: str = ""


class Desk:
    """Keeps count of what is owed; `run` asks for it. One event loop only."""

    def __init__(
        self,
        view: LogView,
        *,
        late_s: float,
        event: Event,
        look_s: tuple[float, float] = LOOK_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`late_s` is when a receipt is overdue; `event` is told what the journal shall have."""
        self.view = view
        self.owed: list[Owed] = []
        self.received = 0
        self._late_s = late_s
        self._event = event
        self._look_s = look_s
        self._monotonic = monotonic
        self._wake = asyncio.Event()
        self._sending: set[asyncio.Task[None]] = set()

    @property
    def overdue(self) -> int:
        """How many receipts are overdue."""
        return sum(item.overdue for item in self.owed)

    @property
    def contradicting(self) -> int:
        """Of how many epochs the log has something else than was sent."""
        return sum(bool(item.contradiction) for item in self.owed)

    def expect(self, ended: Ended, source: Source) -> None:
        """Ask for the receipt of this epoch from now on."""
        self.owed.append(Owed(ended, source, self._monotonic(), self._late_s))
        self._wake.set()

    async def run(self) -> None:
        """Look at the beacon and ask for what is owed until cancelled."""
        try:
            while True:
                await self.round()
                self._wake.clear()
                with suppress(TimeoutError):  # not wait_for, which may lose a cancellation
                    async with asyncio.timeout(self._look_s[not self.owed]):
                        await self._wake.wait()
        finally:
            for task in self._sending:
                task.cancel()

    async def round(self) -> None:
        """Ask once for all that may have come, and tell what is overdue."""
        await self.view.look()
        beacon = self.view.beacon
        turns = asyncio.Semaphore(AT_ONCE)
        open_ = [item for item in self.owed if not item.contradiction]
        wanted = [item for item in open_ if item.asked != (True, beacon)]
        if not self.view.error:  # else it would not answer these either
            await asyncio.gather(*(self._ask(item, beacon, turns) for item in wanted))
        self._look_for_overdue()

    # -- one receipt -------------------------------------------------------------------------------

    async def _ask(self, item: Owed, beacon: Beacon | None, turns: asyncio.Semaphore) -> None:
        ended = item.ended
        async with turns:
            try:
                seal = await self.view.receipt(ended)
            except OutboundError as error:
                log.warning("no answer about the receipt of %s: %s", _name(ended), error)
                return
            except FormatError as error:
                item.asked = (True, beacon)
                if item.refused != error.message:
                    log.error("the receipt of %s proves nothing: %s", _name(ended), error)  # noqa: TRY400
                    self._event("receipt-refused", _attributes(ended))
                item.refused = error.message
                return
            item.asked = (True, beacon)
            if seal is None:
                return
            item.contradiction = contradiction(seal, ended)
            if item.contradiction:
                log.critical(
                    "the log contradicts what was sent of %s: %s; its spool is kept",
                    _name(ended),
                    item.contradiction,
                )
                told = {"reason": item.contradiction} | _attributes(ended)
                self._event("receipt-contradicts", told)
                return
            self.owed.remove(item)
            self.received += 1
            await item.source.settled(ended)

    # -- what does not come ------------------------------------------------------------------------

    def _look_for_overdue(self) -> None:
        now = self._monotonic()
        late = [
            item for item in self.owed if not item.contradiction and now - item.since >= item.late_s
        ]
        if not late:
            return
        waited_s = f"{now - late[0].since:.0f}"
        log.error(
            "%d receipts of the log are overdue, that of %s for %s s; their spool is sent again",
            len(late),
            _name(late[0].ended),
            waited_s,
        )
        told = {"count": str(len(late)), "seconds": waited_s} | _attributes(late[0].ended)
        self._event("receipts-overdue", told)
        sources: dict[Source, set[bytes]] = {}
        for item in late:
            item.overdue, item.late_s = True, (now - item.since) * 2
            sources.setdefault(item.source, set()).add(item.ended.session)
        for source, sessions in sources.items():
            task = asyncio.create_task(_send_again(source, frozenset(sessions)))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)


async def _send_again(source: Source, sessions: frozenset[bytes]) -> None:
    try:
        await source.send_again(sessions)
    except StoreError as error:
        log.warning("%d sessions are not sent again: %s", len(sessions), error)


def _name(ended: Ended) -> str:
    return f"session {ended.session.hex()} epoch {ended.epoch}"


def _attributes(ended: Ended) -> dict[str, str]:
    return {"session": ended.session.hex(), "epoch": str(ended.epoch)}
