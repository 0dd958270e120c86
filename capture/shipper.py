"""Takes finished messages from the spool to the bus, in order, again and again until it has them.

What waits is named by its place in the spool; its bytes are kept in memory too, but only up to
`keep_bytes`: a bus that is away for hours costs disk, not memory. A message may reach the bus twice
(a failed append is repeated); ingest drops what it has.

Wrapped keys may have a bus of their own. It acknowledges an epoch's keys before the first of its
frames is appended to the other, so whoever finds a frame finds its keys too.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sealtape.capture.bus import Bus
from sealtape.capture.outlet import Outlet
from sealtape.capture.spool.adopt import read_messages, read_sessions
from sealtape.capture.spool.files import StoredFile
from sealtape.capture.spool.folder import Orphan
from sealtape.capture.spool.lane import Place
from sealtape.capture.spool.records import Cut, parse_frames, read_records
from sealtape.schemas.errors import SealtapeError, StoreBusy, StoreCorrupt, StoreError
from sealtape.schemas.messages import is_key, peek_session

KEEP_BYTES = 32 << 20
BATCH_BYTES = 4 << 20
BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Waiting:
    outlet: Outlet
    place: Place
    messages: list[bytes] | None
    size: int
    end: int
    since: float


class Shipper:
    """Ships for all lanes of a worker; one task."""

    def __init__(
        self,
        bus: Bus,
        *,
        keys: Bus | None = None,
        spool_key: bytes,
        executor: Executor,
        keep_bytes: int = KEEP_BYTES,
        batch_bytes: int = BATCH_BYTES,
        backoff_s: tuple[float, ...] = BACKOFF_S,
    ) -> None:
        """`run` does the work; without `keys`, they go where the frames go."""
        self._bus = bus
        self._keys = keys
        self._spool_key = spool_key
        self._executor = executor
        self._keep_bytes = keep_bytes
        self._batch_bytes = batch_bytes
        self._backoff_s = backoff_s
        self._waiting: deque[_Waiting] = deque()
        self._kept = 0
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.unshipped_bytes = 0
        self.error: SealtapeError | None = None
        self.errors: Counter[str] = Counter()

    @property
    def oldest_s(self) -> float:
        """How long the oldest finished message has been waiting for the bus, in seconds."""
        return time.monotonic() - self._waiting[0].since if self._waiting else 0.0

    def add(self, outlet: Outlet, place: Place, cuts: list[Cut], end: int) -> None:
        """Take what a FRAMES record holds; see `outlet.Sink`."""
        messages: list[bytes] | None = [message for cut in cuts for message in cut.messages]
        size = place.end - place.start
        self.unshipped_bytes += size
        if self._kept + size > self._keep_bytes:
            messages = None
        else:
            self._kept += size
        self._waiting.append(_Waiting(outlet, place, messages, size, end, time.monotonic()))
        self._idle.clear()
        self._wake.set()

    async def idle(self) -> None:
        """Return when the bus has everything."""
        await self._idle.wait()

    async def run(self) -> None:
        """Ship until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self._ship_some()
            self._idle.set()

    async def ship_orphan(self, orphan: Orphan, acked: dict[str, int]) -> None:
        """Ship all a dead worker left, recovery epochs last."""
        source = read_messages(orphan, self._spool_key, acked)
        while batch := await self._run(lambda: _some(source, self._batch_bytes)):
            await self._append(batch)

    async def send_again(self, paths: Sequence[Path], sessions: Collection[bytes]) -> None:
        """Append once more what spool files have of some sessions; StoreError for a lost file."""
        source = read_sessions(paths, self._spool_key, sessions)
        while batch := await self._run(lambda: _some(source, self._batch_bytes)):
            await self._append(batch)

    async def _ship_some(self) -> None:
        taken: list[_Waiting] = []
        size = 0
        for item in self._waiting:
            if taken and size + item.size > self._batch_bytes:
                break
            taken.append(item)
            size += item.size
        messages: list[bytes] = []
        for item in taken:
            messages += item.messages or await self._read_back(item.place)
        await self._append(messages)
        for item in taken:
            self._waiting.popleft()
            self.unshipped_bytes -= item.size
            self._kept -= item.size if item.messages is not None else 0
            item.outlet.acknowledged(item.place, item.end)
        await self._delete({item.outlet for item in taken})

    async def _read_back(self, place: Place) -> list[bytes]:
        """Read messages that were not kept; a spool that cannot give them back stops everything."""
        while True:
            try:
                return await self._run(lambda: _read_back(place, self._spool_key))
            except SealtapeError as exc:
                if self.error is None:
                    _log.exception("Spooled frames cannot be read back.")
                self.error = exc
                await asyncio.sleep(self._backoff_s[-1])

    async def _append(self, messages: list[bytes]) -> None:
        """Append all messages, those that are keys first if they have a bus of their own."""
        if self._keys is not None:
            await self._append_to(self._keys, [item for item in messages if is_key(item)])
            messages = [item for item in messages if not is_key(item)]
        await self._append_to(self._bus, messages)
        self.error = None

    async def _append_to(self, bus: Bus, messages: list[bytes]) -> None:
        """Append to all partitions concerned; repeat what fails until it does not."""
        by_partition: dict[int, list[tuple[bytes, bytes]]] = {}
        for message in messages:
            session = peek_session(message)
            partition = bus.partition_of(session)
            by_partition.setdefault(partition, []).append((session, message))
        await asyncio.gather(*(self._append_one(bus, *item) for item in by_partition.items()))

    async def _append_one(
        self, bus: Bus, partition: int, messages: list[tuple[bytes, bytes]]
    ) -> None:
        attempt = 0
        while True:
            try:
                await bus.append(partition, messages)
            except StoreError as exc:
                self.errors[exc.code] += 1
                if self.error is None:
                    _log.warning("The bus does not take messages: %s", exc)
                self.error = exc
                wait_s = self._backoff_s[min(attempt, len(self._backoff_s) - 1)]
                if isinstance(exc, StoreBusy):
                    wait_s = max(wait_s, exc.retry_after_s)
                attempt += 1
                await asyncio.sleep(wait_s)
            else:
                return

    async def _delete(self, outlets: set[Outlet]) -> None:
        for outlet in outlets:
            await delete_done(outlet, self._executor)

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


async def delete_done(outlet: Outlet, executor: Executor) -> None:
    """Delete a lane's files that the bus has all of, off the loop."""
    files = outlet.files.deletable()
    if not files:
        return
    try:
        await asyncio.get_running_loop().run_in_executor(
            executor, lambda: outlet.files.delete(files)
        )
    except StoreError as exc:
        _log.warning("A shipped spool file stays behind: %s", exc)


def _read_back(place: Place, spool_key: bytes) -> list[bytes]:
    """Read the messages of a FRAMES record again."""
    with StoredFile(place.file.path, spool_key) as file:
        stored = next(read_records(file.read, place.start), None)
    if stored is None:
        raise StoreCorrupt(
            f"The spool file {place.file.path} lost frames at byte {place.start}.",
            hint="The disk is failing.",
        )
    return [message for cut in parse_frames(stored.body)[2] for message in cut.messages]


def _some(source: Iterator[list[bytes]], limit: int) -> list[bytes]:
    """Take messages from a source, up to a size; none when it is at its end."""
    taken: list[bytes] = []
    size = 0
    for messages in source:
        taken += messages
        size += sum(map(len, messages))
        if size >= limit:
            break
    return taken
