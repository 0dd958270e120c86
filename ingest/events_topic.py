"""The topic of events, to write to. One that was deleted and made anew is gone on in.

A bus refuses that, since a position in the old log names another message in the new one. Whoever
writes events has no position: what is not on the topic yet goes to the one that is there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from sealtape.capture.bus import Bus, open_bus
from sealtape.schemas.errors import Replaced, SettingsError, StoreBusy, StoreError
from sealtape.schemas.settings import Settings
from sealtape.schemas.urls import shown_url

__all__ = ["EventsTopic", "Sink", "open_events"]

AGAIN_S = 0.1
"""When to come again after another topic was opened."""
T = TypeVar("T")

log = logging.getLogger(__name__)


class Sink(Protocol):
    """What events are written to: as much of a bus as that needs, by the rules of the port."""

    @property
    def partitions(self) -> int:
        """Number of partitions."""

    def partition_of(self, session: bytes) -> int:
        """Return the partition of what has a route."""

    async def start(self) -> None:
        """Connect; does nothing once it has."""

    async def append(self, partition: int, messages: Sequence[tuple[bytes, bytes]]) -> int:
        """Append (key, value) pairs durably."""

    async def trim(self, partition: int, consumers: Sequence[str]) -> None:
        """Delete what is older than it may be kept."""


class EventsTopic:
    """See the module docstring; where it differs from a bus its methods say so."""

    def __init__(self, url: str, base: Path) -> None:
        """Open it as `open_bus` does. Raises `SettingsError` and `StoreError`."""
        self._url = url
        self._base = base
        self._bus = open_bus(url, base)
        self._renewing = asyncio.Lock()

    @property
    def partitions(self) -> int:
        """Number of partitions of the topic that is there now."""
        return self._bus.partitions

    def partition_of(self, session: bytes) -> int:
        """Return the partition of what has a route."""
        return self._bus.partition_of(session)

    async def start(self) -> None:
        """Connect; see the port."""
        await self._with(lambda bus: bus.start())

    async def append(self, partition: int, messages: Sequence[tuple[bytes, bytes]]) -> int:
        """Append; raises `StoreBusy` once when the topic is another: then begin with all again."""
        return await self._with(lambda bus: bus.append(partition, messages))

    async def bounds(self, partition: int) -> tuple[int, int]:
        """Return the first offset that is kept and the end, to see whether the topic answers."""
        return await self._with(lambda bus: bus.bounds(partition))

    async def trim(self, partition: int, consumers: Sequence[str]) -> None:
        """Delete what is older than it may be kept; see the port."""
        await self._with(lambda bus: bus.trim(partition, consumers))

    async def close(self) -> None:
        """Finish what was started and let go of the topic."""
        await self._bus.close()

    async def _with(self, use: Callable[[Bus], Awaitable[T]]) -> T:
        bus = self._bus
        try:
            return await use(bus)
        except Replaced as exc:
            await self._renew(bus, exc)
            raise StoreBusy(
                f"The events topic {shown_url(self._url)} was made anew.", retry_after_s=AGAIN_S
            ) from exc

    async def _renew(self, old: Bus, reason: Replaced) -> None:
        """Open what is there now, unless somebody else did it meanwhile."""
        async with self._renewing:
            if self._bus is not old:
                return
            try:
                new = open_bus(self._url, self._base)
            except SettingsError as exc:
                raise StoreError(exc.message, hint=exc.hint) from exc
            self._bus = new
            log.warning("%s Events go on in the new one; what nobody had read of it is lost.",
                        reason.message)  # fmt: skip
            await old.close()


def open_events(settings: Settings) -> EventsTopic:
    """Open the topic that the settings name. Raises `SettingsError` and `StoreError`."""
    return EventsTopic(settings.stores.events, Path(settings.base))
