"""A capture worker: it owns the sessions of one event loop, their spool and the way to the bus.

`start` adopts what dead workers left, opens the journal and begins to ship. Then the listener
opens sessions, and the relay calls their recorders. `stop` ends everything in order and waits for
the bus.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from sealtape.capture.bus import Bus
from sealtape.capture.clock import Clock
from sealtape.capture.epoch import NodeIdentity, Subject, Terms, begin
from sealtape.capture.journal import Journal
from sealtape.capture.logs import SESSION
from sealtape.capture.metrics.counts import Counts
from sealtape.capture.outlet import LEVELS, RETRY_S, Due, Outlet
from sealtape.capture.receipts.desk import Desk
from sealtape.capture.receipts.sources import FolderSource, LaneSource
from sealtape.capture.receipts.view import LogView
from sealtape.capture.recorder import Hooks, Pace, SessionRecorder, Snapshot
from sealtape.capture.recovery import as_record, encode_about, recover
from sealtape.capture.shipper import Shipper
from sealtape.capture.spool.adopt import Found, read_orphan, read_owed
from sealtape.capture.spool.files import lane_name
from sealtape.capture.spool.folder import Orphan, Spool
from sealtape.capture.spool.records import Cut
from sealtape.schemas.bodies import Ident
from sealtape.schemas.errors import (
    KeyUnavailable,
    SealtapeError,
    SettingsError,
    StoreBusy,
    StoreError,
    StoreFull,
)
from sealtape.schemas.keys import Packer
from sealtape.schemas.tlog.receipts import Ended

SESSION_SIZE = 16
ADOPT_AGAIN_S = 5.0
SAY_AGAIN_S = 60.0
BEACON_S = 1.0
"""How long a start waits for the first beacon, so that the journal's OPEN has one."""
T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What `sealtape status` and the health endpoint say about a worker."""

    state: str
    live: int
    spool_bytes: int
    spool_limit: int
    unshipped_bytes: int
    error: str
    code: str
    oldest_s: float


def _holds(outlet: Outlet) -> bool:
    """Whether a lane waits for receipts."""
    return outlet.files.holding_any


def _nothing(_: object) -> None:
    """Stand in for callbacks of the journal, which has no relay."""


class Worker:
    """See the module docstring. Everything but `spool.reserve` happens on one event loop."""

    journal: Journal

    def __init__(
        self,
        *,
        bus: Bus,
        keys: Bus | None = None,
        spool: Spool,
        identity: NodeIdentity,
        journal_terms: Terms,
        pace: Pace | None = None,
        clock: Clock | None = None,
        random: Callable[[int], bytes] = os.urandom,
        counts: Counts | None = None,
    ) -> None:
        """Nothing happens before `start`; the worker owns `spool` from here on, not the buses.

        `keys` takes the wrapped keys; None when they go to `bus` like everything else.
        """
        self.counts = counts or Counts()
        self._bus = bus
        self._keys = keys
        self._spool = spool
        self._identity = identity
        self._journal_terms = journal_terms
        self._pace = pace or Pace()
        self._clock = clock or Clock()
        self._random = random
        self._packer = Packer()
        self._executor = ThreadPoolExecutor(max_workers=4, thread_name_prefix="spool")
        self._outlets: dict[str, Outlet] = {}
        self._kept: dict[str, LaneSource] = {}
        self._log: LogView | None = None
        self.desk: Desk | None = None
        self._due = Due()
        self._number = 0
        self._reserved = 0
        self._reserving: asyncio.Future[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._shipper: Shipper
        self._orphans: list[Orphan] = []
        self._opened_journal = False
        self._broken: StoreError | None = None
        self._draining = False
        self._said_ns = 0

    # -- life --------------------------------------------------------------------------------------

    def watch(self, log: LogView) -> None:
        """Take beacons and receipts from this log; before `start`."""
        self._log = log
        self.desk = Desk(log, late_s=self._pace.receipt_s, event=self._event)

    async def start(self) -> None:
        """Adopt orphans, open the journal, begin to ship; returns when sessions may be opened."""
        self._shipper = Shipper(
            self._bus, keys=self._keys, spool_key=self._spool.key, executor=self._executor
        )
        await self._first_beacon()
        self._orphans = await self._run(self._spool.claim_orphans)
        self.counts.orphans = len(self._orphans)
        adopted = [await self._adopt(orphan) for orphan in self._orphans]
        self._spawn(self._shipper.run())
        self._spawn(self._keep_time())
        for found in adopted:  # the journal may have to wait for the room that they take
            if found is not None:
                self._spawn(self._ship_orphan(*found))
        await self._open_journal()
        self._spawn(self._heartbeats())
        if self.desk is not None:
            self._spawn(self.desk.run())

    async def stop(self, *, timeout_s: float = 30.0) -> bool:
        """Close the journal, wait for the bus, let go; say whether the bus has everything.

        Sessions must be closed before. What the bus does not take in time stays in the spool, for
        the next start; so does what waits for a receipt.
        """
        self._draining = True
        for recorder in self.recorders():
            await self.close_session(recorder, "shutdown")
        journal = self.journal.recorder
        self.journal.event("stopped")
        await self.close_session(journal, "shutdown")
        shipped = not self._failing()
        try:
            async with asyncio.timeout(timeout_s if shipped else 0):
                await self._shipper.idle()
        except TimeoutError:
            shipped = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for outlet in self._outlets.values():
            outlet.close()
            outlet.files.close()
        self._executor.shutdown()
        for orphan in self._orphans:
            orphan.release()
        self._spool.close(remove=shipped and not any(map(_holds, self._outlets.values())))
        return shipped

    # -- sessions ----------------------------------------------------------------------------------

    async def open_session(
        self,
        ident: Ident,
        terms: Terms,
        *,
        on_stall: Callable[[bool], None],
        on_end: Callable[[str], None],
        snapshot: Snapshot | None = None,
    ) -> SessionRecorder:
        """Open a session; returns when its number is durable and OPEN and IDENT are spooled.

        `on_stall(True)` asks the relay not to read, `on_stall(False)` to go on; `on_end(reason)` to
        end the session in the protocol's words and then call `close_session` with that reason.
        Raises `StoreError` while the spool fails or the worker drains: the client is refused.
        """
        outlet = self._outlet(terms.level, keep=terms.on_seal == "receipt")
        self._check_working(outlet)
        self._number += 1
        number = self._number
        try:
            await self._reserve(number)
            self._check_working(outlet)
            subject = self._subject("session", number, ident, terms)
            recorder = self._begin(subject, outlet, Hooks(on_stall, on_end, snapshot))
            async with asyncio.timeout(self._pace.grace_s):
                await self._opened(outlet, recorder)
        except BaseException as exc:
            self.journal.event("session-not-opened", {"number": str(number)})
            if isinstance(exc, TimeoutError):
                raise StoreBusy(
                    "The spool did not take a new session in time.", retry_after_s=RETRY_S
                ) from exc
            raise
        self.counts.open(ident.protocol, ident.target)
        SESSION.set(recorder.session.hex())
        told = {"protocol": ident.protocol, "target": ident.target, "number": number}
        _log.info("session opened", extra=told)
        return recorder

    async def _opened(self, outlet: Outlet, recorder: SessionRecorder) -> None:
        """Wait until a new session is put down; forget it, or end it, when that is given up."""
        try:
            await outlet.settled()
        except BaseException:
            if not outlet.forget(recorder):  # what has begun must not look as if it went on
                recorder.finish("error", "The session was not opened: the spool took too long.")
                self._await_receipt(recorder)
            raise
        recorder.opened = True

    def _check_working(self, outlet: Outlet) -> None:
        """Raise unless new sessions may be opened."""
        if self._draining:
            raise StoreBusy("The gateway is shutting down.", retry_after_s=RETRY_S)
        if (error := self._broken or outlet.failing) is not None:
            raise StoreBusy(f"Cannot record: {error.message}", retry_after_s=RETRY_S) from error
        if outlet.level == "acked" and self._shipper.oldest_s > self._pace.grace_s:
            raise StoreBusy(
                f"The bus has not acknowledged what waits for it in {self._pace.grace_s:g} s.",
                retry_after_s=RETRY_S,
            )

    def forward(
        self, recorder: SessionRecorder, write: Callable[[bytes], object], data: bytes
    ) -> None:
        """Call `write(data)` when all that was recorded before this is put down."""
        recorder.forward(write, data)

    async def close_session(self, recorder: SessionRecorder, reason: str, detail: str = "") -> None:
        """Seal the end of a session; returns when it is spooled, at once while the spool fails."""
        outlet = recorder.outlet
        counts = recorder.number and not recorder.closed
        recorder.finish(reason, detail)
        if counts:
            self._count_end(recorder, reason)
            self._await_receipt(recorder)
        outlet.live.pop(recorder.number, None)
        if outlet.failing is None:
            settled = outlet.settled()
            while not settled.done() and outlet.failing is None:
                await asyncio.wait([settled], timeout=0.1)

    def _await_receipt(self, recorder: SessionRecorder) -> None:
        lane = self._kept.get(recorder.outlet.files.name)
        if lane is not None and self.desk is not None:
            lane.add(recorder.session, recorder.number)
            ended = Ended(recorder.session, recorder.epoch, recorder.size, recorder.root())
            self.desk.expect(ended, lane)

    def _count_end(self, recorder: SessionRecorder, reason: str) -> None:
        ident = recorder.subject.ident
        self.counts.end(
            ident.protocol,
            ident.target,
            reason,
            legs=recorder.offsets,
            frames=recorder.size,
            commands=recorder.commands,
            errors=recorder.errors,
        )
        told = {"session": recorder.session.hex(), "reason": reason, "frames": recorder.size}
        _log.info("session ended", extra=told | {"commands": recorder.commands})

    def recorders(self) -> list[SessionRecorder]:
        """Return the live sessions, the journal not among them."""
        return [
            recorder
            for outlet in self._outlets.values()
            for recorder in outlet.live.values()
            if recorder.number
        ]

    @property
    def stalls(self) -> Counter[str]:
        """How often sessions were stalled, by reason."""
        return sum((outlet.stalls for outlet in self._outlets.values()), Counter())

    @property
    def bus_errors(self) -> Counter[str]:
        """How often the bus did not take messages, by the error's code."""
        return self._shipper.errors

    @property
    def bus_failing(self) -> bool:
        """Whether the bus does not take what is sent."""
        return self._shipper.error is not None

    def health(self) -> Health:
        """Say how the worker is."""
        failing = self._failing()
        error = failing or self._shipper.error
        state = "failing" if failing else "draining" if self._draining else "ok"
        if state == "ok" and error is not None:
            state = "bus-failing"
        return Health(
            state=state,
            live=len(self.recorders()),
            spool_bytes=self._spool.budget.used,
            spool_limit=self._spool.budget.limit,
            unshipped_bytes=self._shipper.unshipped_bytes,
            error="" if error is None else str(error),
            code="" if error is None else error.code,
            oldest_s=self._shipper.oldest_s,
        )

    # -- opening -----------------------------------------------------------------------------------

    async def _open_journal(self) -> None:
        ident = Ident(
            user="", target="", protocol="journal", node=self._identity.node, software="sealtape"
        )
        outlet = self._outlet(self._journal_terms.level)
        hooks = Hooks(_nothing, _nothing)
        subject = self._subject("journal", 0, ident, self._journal_terms)
        recorder = self._begin(subject, outlet, hooks)
        self.journal = Journal(recorder, self.counts)
        self._opened_journal = True
        self.journal.event("started")
        await outlet.settled()

    def _subject(self, type_: str, number: int, ident: Ident, terms: Terms) -> Subject:
        return Subject(
            type=type_,
            session=self._random(SESSION_SIZE),
            number=number,
            boot=self._identity.boot,
            worker=self._identity.worker,
            ident=ident,
            terms=terms,
        )

    def _begin(self, subject: Subject, outlet: Outlet, hooks: Hooks) -> SessionRecorder:
        """Begin epoch 0 of a session and hand its opening to the spool, in one piece."""
        anchor_ns = self._clock.anchor_ns()
        now_ns = self._clock.mono_ns() + anchor_ns
        epoch, messages = begin(
            self._now_known(),
            subject,
            epoch=0,
            ts_ns=now_ns,
            anchor_ns=now_ns,
            continues=None,
            packer=self._packer,
            random=self._random,
        )
        recorder = SessionRecorder(
            epoch,
            subject,
            about=encode_about(subject),
            anchor_ns=anchor_ns,
            opened_ns=now_ns,
            outlet=outlet,
            pace=self._pace,
            hooks=hooks,
        )
        outlet.announce(recorder)
        outlet.emit(Cut(subject.number, 0, (0, 0, 0, 0), 0, 0, 0, messages))
        return recorder

    def _now_known(self) -> NodeIdentity:
        """Who seals here, with the newest beacon."""
        if self._log is None:
            return self._identity
        return replace(self._identity, beacon=self._log.beacon)

    async def _first_beacon(self) -> None:
        if self._log is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(BEACON_S):
                    await self._log.look()

    async def _reserve(self, number: int) -> None:
        """Write the number down durably; many sessions that open at once share a write."""
        while self._reserved < number:
            if self._reserving is None:
                highest = self._number
                self._reserving = asyncio.ensure_future(
                    self._run(partial(self._spool.reserve, highest))
                )
                try:
                    await self._reserving
                    self._reserved = highest
                finally:
                    self._reserving = None
            else:
                await asyncio.wait([self._reserving])

    def _outlet(self, level: str, *, keep: bool = False) -> Outlet:
        name = lane_name(level, keeps=keep)
        outlet = self._outlets.get(name)
        if outlet is None:
            if level not in LEVELS:
                raise SettingsError(
                    f"There is no durability level {level!r}.", hint=f"Use {', '.join(LEVELS)}."
                )
            if keep and self.desk is None:
                raise SettingsError(
                    "There is no log to have receipts from.", hint="Set capture.log."
                )
            outlet = self._outlets[name] = Outlet(
                level,
                self._spool.lane(name, sync=level == "durable", keeps=keep),
                self._shipper,
                clock=self._clock,
                executor=self._executor,
                pace=self._pace,
                due=self._due,
                owner=self,
            )
            if keep:
                self._kept[name] = LaneSource(outlet, self._shipper, self._executor)
        return outlet

    # -- a spool that fails ------------------------------------------------------------------------

    def _failing(self) -> StoreError | None:
        if self._broken is not None:
            return self._broken
        for outlet in self._outlets.values():
            if outlet.failing is not None:
                return outlet.failing
        return None

    def spool_fails(self, outlet: Outlet, error: StoreError) -> None:
        """Stall the sessions of a level, or let them go on unrecorded where the terms say so."""
        _log.error("The spool cannot be written: %s", error)
        self._said_ns = outlet.failing_since
        for recorder in list(outlet.live.values()):
            if recorder.subject.terms.on_failure == "continue" or not recorder.number:
                recorder.begin_gap()
                self.counts.gaps += bool(recorder.number)
                outlet.release(recorder)
            else:
                recorder.stall("spool")
        if self._opened_journal:
            self.journal.event("spool-failing", {"level": outlet.level, "error": error.code})

    def _say_failing(self, now: int) -> None:
        """Say again that the spool fails: nobody may have seen the first line."""
        for outlet in self._outlets.values():
            if outlet.failing is None or now - self._said_ns < SAY_AGAIN_S * 1e9:
                continue
            self._said_ns = now
            seconds = (now - outlet.failing_since) / 1e9
            text = "The spool has not been writable for %.0f s: %s"
            _log.error(text, seconds, outlet.failing)

    def spool_works(self, outlet: Outlet) -> None:
        _log.warning("The spool can be written again.")
        for recorder in list(outlet.live.values()):
            recorder.end_gap()
            recorder.unstall("spool")
        self.journal.event("spool-working", {"level": outlet.level})

    def _end_stalled(self, outlet: Outlet) -> None:
        """End what stalled for longer than the grace time."""
        grace_ns = int(self._pace.grace_s * 1e9)
        if outlet.failing is None:
            stalled = outlet.overdue(grace_ns)
        elif self._clock.mono_ns() - outlet.failing_since < grace_ns:
            return
        else:
            stalled = {each for each in outlet.live.values() if not each.unrecorded}
        for recorder in stalled:
            if recorder.number and not recorder.closed and not recorder.ending:
                recorder.ending = True
                recorder.on_end("spool")

    # -- time --------------------------------------------------------------------------------------

    async def _keep_time(self) -> None:
        """Cut what is old enough, sign what is unsigned, end what stalled, watch the clock."""
        tick_s = self._pace.frame_ms / 1000 / 4
        looked_ns = self._clock.mono_ns()
        while True:
            await asyncio.sleep(tick_s)
            now = self._clock.mono_ns()
            self._cut_old(now)
            self._sign_old(now)
            for outlet in self._outlets.values():
                self._end_stalled(outlet)
            if now - looked_ns >= 1_000_000_000:
                looked_ns = now
                self._watch_clock()
                self._say_failing(now)

    def _cut_old(self, now: int) -> None:
        limit = now - self._pace.frame_ms * 750_000  # looked at four times in that time
        queue = self._due.cuts
        while queue and queue[0][0] <= limit:
            _, recorder = queue.popleft()
            recorder.queued_cut = False
            base = recorder.base_mono
            if not base:
                continue
            if base <= limit:
                recorder.cut()
            else:
                recorder.queued_cut = True
                queue.append((base, recorder))

    def _sign_old(self, now: int) -> None:
        limit = now - int(self._pace.checkpoint_s * 0.9e9)
        queue = self._due.checkpoints
        while queue and queue[0][0] <= limit:
            since, recorder = queue.popleft()
            recorder.queued_checkpoint = False
            if recorder.unsigned:
                self.counts.signed.observe((now - since) / 1e9)
            recorder.checkpoint()

    def _watch_clock(self) -> None:
        step_ns = self._clock.step()
        if step_ns:
            _log.warning("The wall clock was stepped by %.3f s.", step_ns / 1e9)
            for recorder in (*self.recorders(), self.journal.recorder):
                recorder.clock(step_ns)

    async def _heartbeats(self) -> None:
        while True:
            await asyncio.sleep(self._pace.heartbeat_s)
            opened = [recorder for recorder in self.recorders() if recorder.opened]
            self.journal.heartbeat(opened, worker=self._identity.worker, following=self._number + 1)

    # -- recovery ----------------------------------------------------------------------------------

    async def _adopt(self, orphan: Orphan) -> tuple[Orphan, Found] | None:
        """Make the recovery epochs of a dead worker's sessions, once and for all."""
        try:
            found = await self._run(partial(read_orphan, orphan, self._spool.key))
            try:
                await self._run(partial(self._recover, orphan, found))
            except StoreFull as exc:
                _log.error("The spool %s waits for room to be adopted: %s", orphan.folder, exc)
                self._spawn(self._adopt_later(orphan, found))
                return None
        except (KeyUnavailable, StoreError) as exc:
            _log.error("The spool %s cannot be adopted: %s", orphan.folder, exc)
            orphan.release()
            return None
        return orphan, found

    async def _adopt_later(self, orphan: Orphan, found: Found) -> None:
        """Make the recovery epochs when the disk has room for them."""
        while True:
            await asyncio.sleep(ADOPT_AGAIN_S)
            with suppress(StoreFull):
                await self._run(partial(self._recover, orphan, found))
                break
        await self._ship_orphan(orphan, found)

    def _recover(self, orphan: Orphan, found: Found) -> None:
        if orphan.recovered:
            return
        packer = Packer()
        records: list[list[bytes]] = []
        for number, state in found.states.items():
            if not state.size:
                continue
            try:
                messages = recover(
                    state,
                    self._now_known(),
                    now_ns=self._clock.mono_ns() + self._clock.anchor_ns(),
                    damaged=bool(found.damage),
                    packer=packer,
                    random=self._random,
                )
            except SealtapeError as exc:
                found.damage.append(f"session number {number}: {exc.message}")
                continue
            records.append(as_record(number, state, messages))
        orphan.keep_recovery(records)

    async def _ship_orphan(self, orphan: Orphan, found: Found) -> None:
        """Bring the bus what is left, then forget the folder."""
        for damage in found.damage:
            _log.error("Damage in the spool of a dead worker, %s: %s", orphan.folder, damage)
        await self._shipper.ship_orphan(orphan, found.acked)
        self.counts.orphans -= 1
        self.journal.event(
            "spool-adopted",
            {
                "boot": orphan.boot.hex(),
                "worker": str(orphan.worker),
                "numbers": str(orphan.numbers),
                "recovered": str(len(found.states)),
                "damage": str(len(found.damage)),
            },
        )
        if not found.damage:  # a damaged folder is kept anyway
            await self._await_receipts(orphan)
        await self._run(partial(orphan.remove, damaged=bool(found.damage)))

    async def _await_receipts(self, orphan: Orphan) -> None:
        """Return when every epoch of a dead worker that waits for a receipt has it."""
        owed = await self._run(partial(read_owed, orphan, self._spool.key))
        source = FolderSource(orphan, owed, self._shipper)
        if self.desk is not None:
            for ended in owed:
                self.desk.expect(ended, source)
        elif owed:
            text = "%s waits for %d receipts, and no log is named to have them from: capture.log."
            _log.error(text, orphan.folder, len(owed))
        await source.wait()

    # -- inside ------------------------------------------------------------------------------------

    def _event(self, name: str, attributes: Mapping[str, str]) -> None:
        self.journal.event(name, attributes)

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A task that ends by an error nobody foresaw takes no new sessions with it."""
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.critical("A part of the capture worker has died.", exc_info=error)
            self._broken = StoreError(
                f"A part of the capture worker has died: {error}.", hint="Restart the node."
            )
