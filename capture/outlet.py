"""The event loop's side of a lane: what one loop tick recorded, one write, then the forwards.

Whatever sessions record while the loop handles one round of input is put down together: an entry
per session with its new slices and facts, and all frames that were finished. Only then are the
bytes they stand for written to the other side, in order. How sure "put down" is depends on the
level:

* `spooled`: written to the page cache by the loop itself;
* `durable`: written and fdatasync'ed by a thread; what comes meanwhile goes with the next batch;
* `acked`: every tick is cut into frames, and bytes go on when the bus has acknowledged them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

from sealtape.capture.clock import Clock
from sealtape.capture.recorder import Pace, SessionRecorder
from sealtape.capture.spool.lane import LaneFiles, Place
from sealtape.capture.spool.records import FRAMES, SESSION, SLICES, Cut, encode_frames
from sealtape.schemas.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable

LEVELS = ("spooled", "durable", "acked")
RETRY_S = 0.25
RECORD_BYTES = 4 << 20
QUEUE_HIGH = 1 << 20
QUEUE_LOW = 256 << 10

_log = logging.getLogger(__name__)

Forward = tuple[SessionRecorder, Callable[[bytes], object], bytes]


class Sink(Protocol):
    """Takes finished messages that are in the spool (the shipper)."""

    def add(self, outlet: Outlet, place: Place, cuts: list[Cut], end: int) -> None:
        """Ship the messages of a FRAMES record; `end` is the ordinal after its last one."""


class Owner(Protocol):
    """Is told when a lane fails and when it works again (the worker)."""

    def spool_fails(self, outlet: Outlet, error: StoreError) -> None:
        """Nothing of this lane goes on from here."""

    def spool_works(self, outlet: Outlet) -> None:
        """All that waited is put down and about to be sent on."""


@dataclass(slots=True)
class Due:
    """The worker's timer queues: who has something to cut or sign, and since when (monotonic)."""

    cuts: deque[tuple[int, SessionRecorder]] = field(default_factory=deque)
    checkpoints: deque[tuple[int, SessionRecorder]] = field(default_factory=deque)


@dataclass(slots=True)
class Batch:
    """What is being put down: kept whole until it is, so a failed write loses nothing."""

    announced: list[tuple[int, bytes]] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)
    forwards: list[Forward] = field(default_factory=list)
    waiters: list[asyncio.Future[None]] = field(default_factory=list)
    groups: list[list[Cut]] = field(default_factory=list)


class Outlet:
    """One lane of a worker, seen from its event loop."""

    def __init__(
        self,
        level: str,
        files: LaneFiles,
        sink: Sink,
        *,
        clock: Clock,
        executor: Executor,
        pace: Pace,
        due: Due,
        owner: Owner,
    ) -> None:
        """Nothing is written before the first tick."""
        self.level = level
        self.files = files
        self.live: dict[int, SessionRecorder] = {}
        self.now = 0
        self.dirty: list[SessionRecorder] = []
        self.cuts = due.cuts
        self.checkpoints = due.checkpoints
        self.checkpoint_frames = pace.checkpoint_frames
        self.mono_ns = clock.mono_ns
        self.failing: StoreError | None = None
        self.failing_since = 0
        self.stalls: Counter[str] = Counter()
        self.acked = 0
        self._sink = sink
        self._executor = executor
        self._direct_bytes = pace.frame_bytes // 4
        self._loop = asyncio.get_running_loop()
        self._next = Batch()
        self._ordinal = 0
        self._held: deque[tuple[int, int, list[Forward]]] = deque()
        self._syncs = level == "durable"
        self._plain = level == "spooled"
        self._busy = False
        self._scheduled = False
        self._retry: asyncio.TimerHandle | None = None
        self._owner = owner

    # -- what recorders and the relay call ---------------------------------------------------------

    def begin(self) -> int:
        """Begin a tick: one time for all it records, and a flush when the loop is through."""
        self.now = now = self.mono_ns()
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.flush)
        return now

    def forward(
        self, recorder: SessionRecorder, write: Callable[[bytes], object], data: bytes
    ) -> None:
        """Call `write(data)` when all that was recorded before this is put down."""
        self._next.forwards.append((recorder, write, data))
        if not self._scheduled:
            self.begin()
        if not self._plain:
            recorder.queued_bytes += len(data)
            if recorder.queued_bytes > QUEUE_HIGH:
                recorder.stall("queue")

    def emit(self, cut: Cut) -> None:
        """Put finished messages down with this tick."""
        self._next.cuts.append(cut)
        if not self._scheduled:
            self.begin()

    def announce(self, recorder: SessionRecorder) -> None:
        """Put a new session's first record down before anything else of it."""
        self.live[recorder.number] = recorder
        self._next.announced.append((recorder.number, recorder.announcement()))

    def settled(self) -> asyncio.Future[None]:
        """Return a future that is done when everything up to now is put down (not yet acked)."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._next.waiters.append(done)
        if not self._scheduled:
            self.begin()
        return done

    def release(self, recorder: SessionRecorder) -> None:
        """Send what waits for this session on, although it is not put down."""
        for _, _, held in self._held:
            self._send([item for item in held if item[0] is recorder])
            held[:] = [item for item in held if item[0] is not recorder]
        waiting = self._next.forwards
        self._next.forwards = [item for item in waiting if item[0] is not recorder]
        self._send(item for item in waiting if item[0] is recorder)

    def forget(self, recorder: SessionRecorder) -> bool:
        """Drop a session that never came to be, with all that waits for it.

        Answers whether all of it did wait: else its beginning is put down, or is about to be.
        """
        self.live.pop(recorder.number, None)
        batch, number = self._next, recorder.number
        waited = any(announced == number for announced, _ in batch.announced)
        batch.forwards = [item for item in batch.forwards if item[0] is not recorder]
        if waited:
            batch.announced = [item for item in batch.announced if item[0] != number]
            batch.cuts = [cut for cut in batch.cuts if cut.number != number]
        return waited

    # -- the flush ---------------------------------------------------------------------------------

    def flush(self) -> None:
        """Put down what this tick recorded, unless a batch is under way or the spool fails."""
        self.now = 0
        self._scheduled = False
        if not self._busy and self.failing is None:
            self._attempt()

    def _attempt(self) -> None:
        slices = self._collect()
        fresh = self.files.wants_fresh
        if self._plain and not (fresh or self._next.cuts or self._next.announced):
            self._attempt_slices(slices)
            return
        batch, self._next = self._next, Batch()
        records: list[tuple[int, list[bytes]]] = [(SESSION, [body]) for _, body in batch.announced]
        records += self._frame_records(batch, head=fresh and bool(self.live))
        if slices and not fresh:  # after the frames: what a cut of this tick cleared is not here
            records.append((SLICES, slices))
        if fresh:
            records += [(SESSION, [recorder.snapshot()]) for recorder in self.live.values()]
        if not records:
            self._succeed(batch, [])
        elif self._syncs:
            self._busy = True
            write = partial(self.files.write, records, fresh=fresh)
            future = self._loop.run_in_executor(self._executor, write)
            future.add_done_callback(partial(self._written, batch))
        else:
            try:
                places = self.files.write(records, fresh=fresh)
            except Exception as exc:  # noqa: BLE001 - as above
                self._fail(batch, exc)
            else:
                self._succeed(batch, places)

    def _attempt_slices(self, slices: list[bytes]) -> None:
        """Do what `_attempt` does for the most frequent tick: slices and forwards, no frames."""
        if slices:
            try:
                self.files.write_slices(b"".join(slices))
            except Exception as exc:  # noqa: BLE001 - whatever it is, nothing may go on unspooled
                batch, self._next = self._next, Batch()
                self._fail(batch, exc)
                return
        forwards, self._next.forwards = self._next.forwards, []
        self._send(forwards)
        if self._next.waiters:
            waiters, self._next.waiters = self._next.waiters, []
            _wake(waiters)

    def _collect(self) -> list[bytes]:
        """Return the slices and facts to put down; what came in bulk becomes frames instead."""
        dirty, self.dirty = self.dirty, []
        slices: list[bytes] = []
        direct = -1 if self.level == "acked" else self._direct_bytes
        for recorder in dirty:
            recorder.dirty = False
            entry = recorder.take_pieces(direct)
            if entry:
                slices.append(entry)
        return slices

    def _frame_records(self, batch: Batch, *, head: bool) -> list[tuple[int, list[bytes]]]:
        """The batch's frames; a `head` of a file without any still says how many were before it."""
        records: list[tuple[int, list[bytes]]] = []
        batch.groups = _grouped(batch.cuts) or [[]] * head
        ordinal = self._ordinal
        for group in batch.groups:
            records.append((FRAMES, encode_frames(ordinal, self.acked, group)))
            ordinal += sum(len(cut.messages) for cut in group)
        return records

    def _written(self, batch: Batch, future: asyncio.Future[list[Place]]) -> None:
        self._busy = False
        error = future.exception()
        if error is None:
            self._succeed(batch, future.result())
        elif isinstance(error, Exception):
            self._fail(batch, error)
        else:
            raise error
        batch = self._next
        waits = batch.cuts or batch.forwards or batch.announced or batch.waiters
        if (waits or self.dirty) and not self._scheduled:
            self.begin()

    def _succeed(self, batch: Batch, places: list[Place]) -> None:
        if self.failing is not None:
            self.failing = None
            self._owner.spool_works(self)
        for place, group in zip(places, batch.groups, strict=True):
            self._ordinal += sum(len(cut.messages) for cut in group)
            self.files.hold(place, {cut.number for cut in group})
            self._sink.add(self, place, group, self._ordinal)
        if self.level == "acked":
            self._held.append((self._ordinal, self.mono_ns(), batch.forwards))
            self._release_acknowledged()
        else:
            self._send(batch.forwards)
        _wake(batch.waiters)

    def _release_acknowledged(self) -> None:
        held = self._held
        while held and held[0][0] <= self.acked:
            self._send(held.popleft()[2])

    def overdue(self, grace_ns: int) -> set[SessionRecorder]:
        """Sessions that the bus has kept waiting for an acknowledgement for longer than that."""
        limit = self.mono_ns() - grace_ns
        found: set[SessionRecorder] = set()
        for _, since, forwards in self._held:
            if since > limit:
                break
            found.update(recorder for recorder, _, _ in forwards)
        return found

    def _send(self, forwards: Iterable[Forward]) -> None:
        for recorder, write, data in forwards:
            try:
                write(data)
            except Exception as exc:  # noqa: BLE001 - one broken transport must not stop the others
                context = {"message": "A relay could not write.", "exception": exc}
                self._loop.call_exception_handler(context)
            if recorder.queued_bytes:
                recorder.queued_bytes -= len(data)
                if recorder.queued_bytes < QUEUE_LOW:
                    recorder.unstall("queue")

    def acknowledged(self, place: Place, end: int) -> None:
        """The bus has the messages of a FRAMES record."""
        self.files.acknowledge(place)
        self.acked = end
        self._release_acknowledged()

    # -- failure -----------------------------------------------------------------------------------

    def _fail(self, batch: Batch, reason: Exception) -> None:
        """Keep everything for the next attempt, which starts a new file with all snapshots."""
        error = reason
        if not isinstance(error, StoreError):
            _log.critical("The spool failed in a way nobody foresaw.", exc_info=reason)
            error = StoreError(f"The spool failed: {reason!r}.", hint="Restart the node.")
        later = self._next
        self._next = Batch(
            batch.announced + later.announced,
            batch.cuts + later.cuts,
            batch.forwards + later.forwards,
            batch.waiters + later.waiters,
        )
        first = self.failing is None
        self.failing = error
        if first:
            self.failing_since = self.mono_ns()
            self._owner.spool_fails(self, error)
        self._retry = self._loop.call_later(RETRY_S, self.retry)

    def retry(self) -> None:
        """Try again to put down what could not be."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self.failing is not None and not self._busy:
            self._attempt()

    def close(self) -> None:
        """Stop trying."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None


def _wake(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)


def _grouped(cuts: list[Cut]) -> list[list[Cut]]:
    """Split cuts into records of a bounded size, in order."""
    groups: list[list[Cut]] = []
    size = 0
    for cut in cuts:
        if not groups or size > RECORD_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(cut)
        size += sum(map(len, cut.messages))
    return groups
