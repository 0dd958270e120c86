"""A small world for the indexer: lanes that change hands, zombies that write late, lost answers.

The lanes, ledger, keyring and index are the real ones; sealing goes on meanwhile, the bus lets go
of what it may. In the end the index must hold what one that is made anew holds. No lease is ever
renewed here, so nobody finds out that he lost his: whoever was a holder once goes on writing.
"""

from __future__ import annotations

import random
import time
from collections import Counter

from sealtape.indexer.index import Page
from sealtape.indexer.lane import CONSUMER, Desk, IndexerStores, Lane
from sealtape.indexer.query import parse
from sealtape.indexer.worker import Indexer, catch_up, lease_topic
from sealtape.ingest.consumer import CONSUMER as INGEST
from sealtape.ingest.consumer import Consumer, KeyConsumer, Stores
from sealtape.ingest.crew import while_held
from sealtape.ingest.sealer import Limits
from sealtape.schemas.errors import SettingsError, StoreError
from sealtape.schemas.messages import KeyMessage
from tests.factories.ingest_world import SECOND, MemoryBus, MemoryVault, WorldClock
from tests.factories.sessions import build_session, node_signer, reader
from tests.simulation.actors import Actor, Gated, Scheduler

LEASE_S = 3600.0
NAMES = ("x", "y")
FAULTS = 0.01
RISKY = {
    ("index", "put", "before"),
    ("index", "put", "after"),
    ("index", "progress", "before"),
    ("ledger", "claim", "after"),
    ("bus", "mark", "before"),
}
EVERYTHING = Page(limit=10_000)


async def contents(index):
    """All documents by id."""
    query = parse("", now_ns=time.time_ns())
    sessions = (await index.search_sessions(query, EVERYTHING)).documents
    commands = (await index.search_commands(query, EVERYTHING)).documents
    return {each.id: each for each in sessions}, {each.id: each for each in commands}


class IndexWorld:
    """Stores, clock and messages of one schedule."""

    def __init__(self, seed, *, ledger, keyring, index, another):
        self.random = random.Random(seed)
        self.clock = WorldClock()
        ledger._clock_ns = self.clock
        partitions = self.random.choice([1, 2])
        self.bus = MemoryBus(partitions)
        self.keys = MemoryBus(partitions) if self.random.random() < 0.4 else None
        if self.keys is not None:
            self.keys.topic = "keys"
        self.vault = MemoryVault()
        self.ledger, self.keyring, self.index, self.another = ledger, keyring, index, another
        self.seen = Counter()
        self.scheduler = Scheduler(self.random, risky=RISKY, happened=lambda: self.seen["put"])
        self.built = [self._session(f"{seed}/{number}") for number in range(4)]

    def _session(self, seed):
        options = {"seed": seed, "commands": self.random.randrange(1, 8)}
        options["checkpoint_every"] = self.random.choice([1, 2, 5])
        if self.random.random() > 0.3:
            return [build_session(**options)]
        first = build_session(**options, close=None)
        options |= {"seed": f"{seed}/again", "session": first.session, "epoch": 1}
        return [first, build_session(**options, continues=first.continues, close="aborted")]

    # -- actors ------------------------------------------------------------------------------------

    def _fault(self, actor, place):
        if place[2] in ("before", "after") and self.random.random() < FAULTS:
            self.seen[place[2]] += 1
            raise StoreError(f"{place[0]}.{place[1]} failed, {place[2]} the call.")
        if place[:2] == ("index", "put") and place[2] == "after":
            self.seen["put"] += 1

    def spawn_lane(self):
        actor = Actor(self._fault)
        partition = self.random.randrange(self.bus.partitions)
        owner = self.random.choice(NAMES)
        stores = self.stores(lambda name, store: Gated(name, store, actor))
        desk = Desk(stores, reader("indexer"))

        async def hold(held):
            lane = Lane(desk, partition, held.check)
            while True:
                if self.random.random() < 0.5:
                    await lane.poll_bus()
                else:
                    await lane.poll_ledger()
                if self.random.random() < 0.2:
                    await lane.mark()
                await actor.gate("", "", "idle")

        async def work():
            while True:
                try:
                    topic = lease_topic(self.bus.topic)
                    await while_held(stores.ledger, topic, partition, owner, LEASE_S, hold)
                except StoreError:
                    self.seen["failed"] += 1
                except SettingsError:  # another of its name is at work, so it ends
                    self.seen["replaced"] += 1
                    return
                finally:
                    self.seen["restarted"] += desk.tally.restarted
                    desk.tally.restarted = 0
                await actor.gate("", "", "idle")

        self.scheduler.add(actor.start(work()))

    def stores(self, wrapped=lambda name, store: store, **changes):
        names = ("bus", "ledger", "vault", "keyring", "index")
        found = {name: wrapped(name, getattr(self, name)) for name in names} | changes
        return IndexerStores(**found, keys=self.keys and wrapped("keys", self.keys))

    # -- what happens ------------------------------------------------------------------------------

    async def seal(self, partition):
        """Ingest gets as far as it can now."""
        self.clock.forward(1)
        stores = Stores(self.bus, self.keyring, self.vault, self.ledger, self.keys)
        for kind in (Consumer,) if self.keys is None else (KeyConsumer, Consumer):
            consumer = kind(
                stores=stores,
                partition=partition,
                owner="ingest",
                verifiers=[node_signer().verifier],
                limits=Limits(segment_ns=SECOND // 5, hold_ns=10**9 * SECOND),
                ttl_s=LEASE_S,
                clock_ns=self.clock,
                random=self.random.randbytes,
            )
            consumer.leave()
            assert await consumer.hold()

    async def trim(self):
        for partition in range(self.bus.partitions):
            await self.bus.trim(partition, [INGEST, CONSUMER])
            if self.keys is not None:
                await self.keys.trim(partition, [INGEST])

    def produce(self):
        queues = [
            [(epoch, at) for epoch in epochs for at in range(len(epoch.messages))]
            for epochs in self.built
        ]
        out = []
        while any(queues):
            queue = self.random.choice([queue for queue in queues if queue])
            for epoch, at in queue[: self.random.randrange(1, 4)]:
                message, pair = epoch.messages[at], epoch.encoded()[at]
                out += [(message, pair)] * self.random.choice([1, 1, 1, 2])
                queue.pop(0)
        return out

    def arrive(self, arriving):
        for message, pair in arriving:
            apart = self.keys is not None and isinstance(message, KeyMessage)
            bus = self.keys if apart else self.bus
            bus.records[bus.partition_of(pair[0])].append(pair)

    async def run(self, steps):
        coming = self.produce()
        total = len(coming)
        self.bus.batch = self.random.choice([3, 10, 1 << 30])
        for _ in range(self.bus.partitions):
            self.spawn_lane()
        for step in range(steps):
            await self._happen()
            due = len(coming) - total * max(0, 0.8 * steps - step) / (0.8 * steps)
            arriving, coming = coming[: int(due)], coming[int(due) :]
            self.arrive(arriving)
        self.arrive(coming)
        await self.scheduler.kill_all()

    async def _happen(self):
        luck, crowd = self.random.random(), len(self.scheduler.actors)
        if luck < 0.04 and crowd < 5:
            self.spawn_lane()
        elif luck < 0.06 and crowd > 1:
            await self.scheduler.kill_one()
        elif luck < 0.09:
            self.clock.forward(LEASE_S + 1)
        elif luck < 0.13:
            await self.seal(self.random.randrange(self.bus.partitions))
        elif luck < 0.14:
            await self.trim()
        else:
            await self.scheduler.step()

    # -- what must hold ----------------------------------------------------------------------------

    async def check(self):
        """Raise AssertionError unless the index holds what the frames say, once."""
        for documents in (await contents(self.index))[0].values():
            assert documents.frames <= self._frames(documents.session), "counted twice"
        await catch_up(Indexer(self.stores(), reader("indexer")))
        for partition in range(self.bus.partitions):
            await self.seal(partition)
        tally = await self._caught_up(self.index)
        self.seen["restarted"] += tally.restarted
        found = await contents(self.index)
        anew = Indexer(self.stores(index=self.another), reader("indexer"))
        await catch_up(anew)
        sessions, commands = await contents(self.another)
        assert found[0] == sessions
        assert found[1].keys() == commands.keys()
        for name, command in commands.items():
            assert found[1][name] == command
        for epochs in self.built:
            document = sessions[epochs[0].session.hex()]
            assert (document.state, document.frames) == ("sealed", self._frames(document.session))
        assert anew.tally.unreadable == anew.tally.early == 0

    async def _caught_up(self, index):
        indexer = Indexer(self.stores(index=index), reader("indexer"))
        await catch_up(indexer)
        return indexer.tally

    def _frames(self, session):
        return sum(
            len(epoch.frames) for epochs in self.built for epoch in epochs
            if epoch.session == session
        )  # fmt: skip
