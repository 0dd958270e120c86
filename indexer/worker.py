"""The indexer: makes documents of what the bus brings (live) and the ledger publishes (sealed).

Work is divided by the bus's partitions. Whoever holds the lease of (`indexer:TOPIC`, p) works on
lane p: it reads partition p of the bus, and of the ledger the segments that came from there, so
each session has one process that folds it. Positions are kept in the index with the documents they
stand for. The bus is read from where *ingest* stands: below that everything is in the ledger, and
every key in the keyring. The indexer holds the key of the facts alone; it cannot read what a query
returned.

A process that lost its lease without knowing (it was stopped, and goes on) looks at its own clock
before each write. What it writes nevertheless changes nothing for good: documents are a function of
the frames, and an older one never replaces a newer one; progress counts only with the document of
the same revision (else the session is folded again from its beginning); a position that goes back
only makes its reader see again what it passed, and one that went ahead went there together with the
documents before it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from sealtape.indexer.lane import CONSUMER, Desk, IndexerStores, Lane, OnUpdate
from sealtape.indexer.snapshot import IndexerSnapshot, LaneSnapshot, Tally
from sealtape.indexer.tails import TailWatch
from sealtape.ingest.crew import Crew, Hold, Leaving, persist, sweep, while_all_held, while_held
from sealtape.ingest.serving import end, together
from sealtape.schemas.errors import Fenced, StoreBusy, StoreError
from sealtape.schemas.notes import Verifier
from sealtape.schemas.wraps import PrivateKey

__all__ = [
    "CONSUMER",
    "ROLE",
    "Indexer",
    "IndexerStores",
    "RunningIndexer",
    "Tally",
    "catch_up",
    "lease_topic",
    "rebuild",
    "start_indexer",
]

ROLE = "indexer"
"""What these workers are called among those at work in the ledger."""

WAIT_S = 0.5
LEDGER_S = 0.5
LOOK_S = 2.0
"""Time between two looks at how far bus and ledger are ahead."""
_RETRY_S = (0.1, 5.0)
PATIENCE_S = 30.0
"""How long a store may be busy without end before catching up fails."""

log = logging.getLogger(__name__)


def lease_topic(topic: str) -> str:
    """Return the topic under which indexers lease the partitions of a bus."""
    return f"indexer:{topic}"


class Indexer:
    """All lanes in one hand, without leases: for catching up and for making the index anew."""

    def __init__(
        self,
        stores: IndexerStores,
        private: PrivateKey | None,
        *,
        on_update: OnUpdate | None = None,
        until: Mapping[str, int] | None = None,
        verifiers: Sequence[Verifier] | None = None,
    ) -> None:
        """Take the stores, which stay the caller's to close, and the indexer's private key.

        With `until` nothing is indexed that an index with these positions would not have.
        `verifiers` are the trusted nodes, None trusts any.
        """
        self._desk = desk = Desk(stores, private, on_update, until, verifiers=verifiers)
        self.tally = desk.tally
        self.lanes = [Lane(desk, partition) for partition in range(stores.bus.partitions)]

    async def poll_bus(self, partition: int, *, wait_s: float = 0.0) -> bool:
        """Index what a partition of the bus has next; see `Lane.poll_bus`."""
        return await self.lanes[partition].poll_bus(wait_s=wait_s)

    def go_on(self, on_update: OnUpdate | None) -> None:
        """Index what lies behind `until` too; from now on `on_update` is told."""
        self._desk.until = None
        self._desk.on_update = on_update

    async def poll_ledger(self) -> bool:
        """Index what the ledger published next; False when there is nothing new."""
        return any([await lane.poll_ledger() for lane in self.lanes])


class Post:
    """One lane under its lease: the seat of an indexer."""

    def __init__(
        self, desk: Desk, partition: int, *, worker: str, ttl_s: float, refresh_s: float
    ) -> None:
        """Nothing is claimed yet."""
        self.lane: Lane | None = None
        self.began = asyncio.Event()
        """Set while the lane is held."""
        self.term = 0
        self._desk = desk
        self._partition = partition
        self._worker = worker
        self._ttl_s = ttl_s
        self._refresh_s = refresh_s
        self._leaving = Leaving()
        self._looked = -math.inf
        self._end = 0
        self._published = 0

    def leave(self, read_s: float | None) -> None:
        """Finish the batch in hand and release the lease; what is left the next holder reads."""
        self._leaving.ask(read_s)

    async def run(self) -> None:
        """Index until `leave`; failures of stores are logged and tried again."""
        await persist(self._hold, self._leaving, f"indexer of partition {self._partition}")

    def snapshot(self) -> LaneSnapshot | None:
        """How far it is; None while another holds the lane."""
        lane = self.lane
        if lane is None:
            return None
        return LaneSnapshot(
            topic=self._desk.stores.bus.topic,
            partition=self._partition,
            term=self.term,
            position=max(lane.position, 0),
            end=max(self._end, lane.position),
            segments=lane.segments,
            published=max(self._published, lane.segments),
            oldest_ms=lane.oldest_ms,
        )

    async def _hold(self) -> bool:
        stores = self._desk.stores
        try:
            return await while_held(
                stores.ledger,
                lease_topic(stores.bus.topic),
                self._partition,
                self._worker,
                self._ttl_s,
                self._work,
            )
        except Fenced:
            self._desk.fenced += 1
            raise

    async def _work(self, hold: Hold) -> None:
        self.lane, self.term = Lane(self._desk, self._partition, hold.check), hold.lease.term
        self.began.set()
        try:
            await together(
                self._forever(partial(self._step_bus, self.lane)),
                self._forever(partial(self._step_ledger, self.lane)),
            )
        finally:
            self.lane = None
            self.began.clear()

    async def _step_bus(self, lane: Lane) -> None:
        if await lane.poll_bus(wait_s=WAIT_S):
            if not lane.behind:
                await self._leaving.within(self._refresh_s)
        else:
            await lane.mark()
        await self._look()

    async def _step_ledger(self, lane: Lane) -> None:
        if not await lane.poll_ledger():
            await self._leaving.within(max(self._refresh_s, LEDGER_S))

    async def _look(self) -> None:
        if time.monotonic() - self._looked > LOOK_S:
            self._looked = time.monotonic()
            stores = self._desk.stores
            _, self._end = await stores.bus.bounds(self._partition)
            head = await stores.ledger.shard_head(f"{stores.bus.topic}/{self._partition}")
            self._published = head.n

    async def _forever(self, step: Callable[[], Awaitable[None]]) -> None:
        delay = _RETRY_S[0]
        while not self._leaving.asked.is_set():
            try:
                await step()
                delay = _RETRY_S[0]
            except Fenced:
                raise
            except StoreError as error:
                self._desk.failures += 1
                log.warning("the indexer will try again: %s", error)
                wait = error.retry_after_s if isinstance(error, StoreBusy) else delay
            else:
                continue
            sweep()
            await self._leaving.within(wait)
            delay = min(2 * delay, _RETRY_S[1])


class RunningIndexer:
    """An indexer at work. `stop` ends it; `wait` returns then, or raises why it ended by itself."""

    def __init__(
        self, desk: Desk, worker: str, crew: Crew[Post], tails: TailWatch | None = None
    ) -> None:
        """Only `start_indexer` calls this."""
        self._desk = desk
        self._worker = worker
        self._crew = crew
        self._task = asyncio.create_task(crew.run(), name="indexer-crew")
        self._watching = (
            () if tails is None else (asyncio.create_task(tails.run(), name="indexer-tails"),)
        )

    @property
    def tally(self) -> Tally:
        """What it did since it started."""
        return self._desk.tally

    async def catch_up(self) -> None:
        """Return when all that bus and ledger hold now is indexed; waits for its leases.

        Raises what ended the indexer, if something did.
        """
        for post in list(self._crew.seats.values()):
            began = asyncio.create_task(post.began.wait())
            await asyncio.wait({began, self._task}, return_when=asyncio.FIRST_COMPLETED)
            began.cancel()
        if self._task.done():
            self._task.result()
        lanes = [post.lane for post in self._crew.seats.values() if post.lane is not None]
        await _catch_up(lanes)

    def snapshot(self) -> IndexerSnapshot:
        """What this indexer has, does and did."""
        posts = sorted(self._crew.seats.items())
        found = [(partition, post.snapshot()) for partition, post in posts]
        beaten = self._crew.beaten
        return IndexerSnapshot(
            worker=self._worker,
            workers=self._crew.live,
            beaten_s=time.monotonic() - beaten if beaten else math.inf,
            lanes=tuple(lane for _, lane in found if lane is not None),
            claiming=tuple(partition for partition, lane in found if lane is None),
            tally=replace(self._desk.tally),
            fenced=self._desk.fenced,
            failures=self._desk.failures,
            found_s=self._desk.found_s,
        )

    async def wait(self) -> None:
        """Return after `stop`; raise what made it fail before."""
        await asyncio.wait({self._task})
        if not self._task.cancelled():
            self._task.result()

    async def stop(self) -> None:
        """Finish the batches in hand, release the leases and end. The stores stay open.

        Stopping twice is fine.
        """
        self._crew.stop(0.0)
        await end(self._watching)
        await asyncio.wait({self._task})


async def catch_up(indexer: Indexer, progress: Callable[[int], None] | None = None) -> None:
    """Index all that bus and ledger hold now; `progress` is told of the frames that were."""

    def tell() -> None:
        if progress is not None:
            progress(indexer.tally.frames)

    await _catch_up(indexer.lanes, tell)


async def _catch_up(lanes: Iterable[Lane], tell: Callable[[], None] = lambda: None) -> None:
    async def drain(lane: Lane) -> None:
        patient_until = time.monotonic() + PATIENCE_S
        worked = True
        while worked:
            try:
                worked = await lane.poll_ledger() or await lane.poll_bus()
            except StoreBusy as error:
                # What another lane made a moment ago cannot be read at once.
                if time.monotonic() > patient_until:
                    raise
                await asyncio.sleep(error.retry_after_s)
            else:
                patient_until = time.monotonic() + PATIENCE_S
                tell()

    # A write waits for the index, so lanes wait together.
    await together(*map(drain, lanes))


async def start_indexer(
    stores: IndexerStores,
    private: PrivateKey | None,
    *,
    worker: str = ROLE,
    lease_s: float = 15.0,
    refresh_s: float = 0.3,
    on_update: OnUpdate | None = None,
    missing_s: float | None = None,
    verifiers: Sequence[Verifier] | None = None,
) -> RunningIndexer:
    """Index in the background. `private` is the indexer's key (None: nothing is encrypted).

    The stores stay the caller's: close them after `stop`. `worker` names this process among the
    indexers at work. `refresh_s` is the least time between two writes of live facts, unless there
    is a backlog. `on_update` is called with each update before the index takes it. With `missing_s`
    tails that journals list and that do not come for so long are incidents. Of the bus only the
    sessions of `verifiers` are taken, the trusted nodes; None trusts any.
    """
    tails = None if missing_s is None else TailWatch(stores.ledger, stores.bus, missing_s)
    told = None if tails is None else tails.take
    desk = Desk(stores, private, on_update, verifiers=verifiers, on_journal=told)
    crew = Crew(
        ledger=stores.ledger,
        role=ROLE,
        worker=worker,
        ttl_s=lease_s,
        partitions=stores.bus.partitions,
        seat=lambda number: Post(desk, number, worker=worker, ttl_s=lease_s, refresh_s=refresh_s),
    )
    await crew.begin()
    return RunningIndexer(desk, worker, crew, tails)


async def rebuild(
    stores: IndexerStores,
    private: PrivateKey | None,
    *,
    lease_s: float = 15.0,
    progress: Callable[[int], None] | None = None,
    on_update: OnUpdate | None = None,
    verifiers: Sequence[Verifier] | None = None,
) -> Tally:
    """Empty the index and make it again from the ledger, the vault and the bus.

    `progress` is told of the frames that were indexed. What the index had before was told when it
    came, and is not told again. What it did not have yet `on_update` is called with, as the indexer
    does: nobody else would be told of it any more. An index without any position was lost, and
    what it had is not known: then nothing is told. Of the bus only the sessions of `verifiers` are
    taken, the trusted nodes; None trusts any.

    All lanes are leased meanwhile. Raises `StoreBusy` while an indexer is at work. Sessions whose
    keys were destroyed do not come back.
    """
    found = Tally()

    async def work() -> None:
        nonlocal found
        had = await stores.index.positions()
        if not had:
            log.warning("the index had no positions: nothing of what it gets now is told to SIEMs")
        await stores.index.clear()
        indexer = Indexer(stores, private, until=had or None, verifiers=verifiers)
        found = indexer.tally
        await catch_up(indexer, progress)
        if had:
            indexer.go_on(on_update)
            await catch_up(indexer, progress)

    owner = f"rebuild-{secrets.token_hex(4)}"
    topic = lease_topic(stores.bus.topic)
    await while_all_held(stores.ledger, topic, stores.bus.partitions, owner, lease_s, work)
    return found
