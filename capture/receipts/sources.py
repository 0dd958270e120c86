"""Spools that wait for receipts: the lane of a worker at work, and the folder of a dead one."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from concurrent.futures import Executor

from sealtape.capture.outlet import Outlet
from sealtape.capture.shipper import Shipper, delete_done
from sealtape.capture.spool.folder import Orphan
from sealtape.schemas.tlog.receipts import Ended

__all__ = ["FolderSource", "LaneSource"]


class LaneSource:
    """A lane: each of its files goes when all its sessions have their receipts."""

    def __init__(self, outlet: Outlet, shipper: Shipper, executor: Executor) -> None:
        """All three stay the worker's."""
        self._outlet = outlet
        self._shipper = shipper
        self._executor = executor
        self._numbers: dict[bytes, int] = {}

    def add(self, session: bytes, number: int) -> None:
        """This session is closed."""
        self._numbers[session] = number

    async def settled(self, ended: Ended) -> None:
        """Let go of what no other session needs."""
        self._outlet.files.settle(self._numbers.pop(ended.session))
        await delete_done(self._outlet, self._executor)

    async def send_again(self, sessions: Collection[bytes]) -> None:
        """Append what the lane's files have of these sessions once more."""
        numbers = [self._numbers[each] for each in sessions if each in self._numbers]
        await self._shipper.send_again(self._outlet.files.holding(numbers), sessions)


class FolderSource:
    """The folder of a dead worker: it goes as a whole, when nothing of it is owed any more."""

    def __init__(self, orphan: Orphan, owed: Iterable[Ended], shipper: Shipper) -> None:
        """Wait for the receipts of `owed`."""
        self._orphan = orphan
        self._shipper = shipper
        self._left = {(each.session, each.epoch) for each in owed}
        self._done = asyncio.Event()
        if not self._left:
            self._done.set()

    async def settled(self, ended: Ended) -> None:
        """One less."""
        self._left.discard((ended.session, ended.epoch))
        if not self._left:
            self._done.set()

    async def send_again(self, sessions: Collection[bytes]) -> None:
        """Append what the folder has of these sessions once more, recovery epochs last."""
        await self._shipper.send_again(self._orphan.files(), sessions)

    async def wait(self) -> None:
        """Return when all receipts are there."""
        await self._done.wait()
