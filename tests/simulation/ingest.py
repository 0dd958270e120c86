"""A small world for ingest: producers that repeat themselves, workers, zombies, collectors.

The sealer, the consumers, the collector, ledger and keyring are the real ones. Bus and vault are in
memory and keep their contracts. Nothing below is timing: who runs, dies, sleeps or is told a lie
about a call's outcome is decided by the seed.
"""

from __future__ import annotations

import random
from collections import Counter
from hashlib import sha256

from sealtape.ingest.collector import Collector
from sealtape.ingest.consumer import CONSUMER, Consumer, KeyConsumer, Stores
from sealtape.ingest.parquet import read_rows
from sealtape.ingest.sealer import Limits
from sealtape.schemas.errors import SettingsError, StoreError
from sealtape.schemas.layout import manifest_key, parse_key
from sealtape.schemas.messages import KeyMessage
from sealtape.schemas.segments import FIRST_PREV, parse_manifest, record_hash
from sealtape.schemas.tree import CompactRange
from tests.factories.ingest_world import SECOND, MemoryBus, MemoryVault, WorldClock
from tests.factories.sessions import build_session, node_signer
from tests.simulation.actors import Actor, Gated, Scheduler

LEASE_S = 3600.0
"""Far longer than a schedule takes, so that time passes only when the world says so."""
NAMES = ("a", "b", "c")
"""Names of workers; a second one of a name is the same one, started again."""
FAULTS = 0.004
"""How often a call fails: before it did anything, or after it did and the answer was lost."""
RISKY = {
    ("ledger", "stage", "after"),
    ("ledger", "publish", "before"),
    ("ledger", "publish", "after"),
    ("ledger", "shard_head", "before"),
    ("ledger", "abandon", "before"),
    ("ledger", "abandon", "after"),
    ("vault", "put_new", "before"),
    ("vault", "put_new", "after"),
    ("vault", "erase", "before"),
    ("bus", "mark", "before"),
}
"""Where those who fall asleep do it mostly."""


class IngestWorld:
    """Stores, clock and messages of one schedule.

    `expire` makes leases run out; with a ledger that keeps its own time it is the caller's.
    """

    def __init__(self, seed, *, ledger, keyring, sessions=4, expire=None):
        self.random = random.Random(seed)
        self.clock = WorldClock()
        if expire is None:
            ledger._clock_ns = self.clock
        self._expire = expire
        partitions = self.random.choice([1, 2])
        self.bus = MemoryBus(partitions)
        self.keys = MemoryBus(partitions) if self.random.random() < 0.4 else None
        if self.keys is not None:
            self.keys.topic = "keys"
        self.vault = MemoryVault()
        self.ledger = ledger
        self.keyring = keyring
        self.built = self._sessions(seed, sessions)
        self.limits = Limits(segment_ns=SECOND // 5, hold_ns=10**9 * SECOND, segment_bytes=1 << 20)
        self.published = []
        """What was published, in order: (topic, partition, first, next)."""
        self.seen = Counter()
        """What happened in this schedule: fenced publications, lost answers and so on."""
        self.scheduler = Scheduler(self.random, risky=RISKY, happened=lambda: len(self.published))
        self._watch_publications()

    def _watch_publications(self):
        real = self.ledger.publish

        async def publish(publication):
            try:
                await real(publication)
            except StoreError as error:
                self.seen[type(error).__name__] += 1
                raise
            lease = publication.lease
            place = (lease.topic, lease.partition)
            self.published.append((*place, publication.first, publication.next_offset))

        self.ledger.publish = publish

    def _sessions(self, seed, count):
        built = []
        for number in range(count):
            options = {"seed": f"{seed}/{number}", "commands": self.random.randrange(1, 8)}
            options["checkpoint_every"] = self.random.choice([1, 2, 5, 256])
            options["row_bytes"] = self.random.choice([10, 300])
            if self.random.random() < 0.3:
                first = build_session(**options, close=None, final_checkpoint=False)
                second = build_session(
                    **{**options, "seed": f"{seed}/{number}/again"},
                    session=first.session,
                    epoch=1,
                    continues=first.continues,
                    close="aborted",
                )
                built.append([first, second])
            else:
                built.append([build_session(**options)])
        return built

    # -- actors ------------------------------------------------------------------------------------

    def _fault(self, actor, place):
        if place[2] in ("before", "after") and self.random.random() < FAULTS:
            self.seen[place[2]] += 1
            raise StoreError(f"{place[0]}.{place[1]} failed, {place[2]} the call.")

    def spawn_worker(self):
        actor = Actor(self._fault)
        partition = self.random.randrange(self.bus.partitions)
        kind = KeyConsumer if self.keys is not None and self.random.random() < 0.3 else Consumer
        consumer = self.consumer(kind, partition, self.random.choice(NAMES), actor)

        async def work():
            while True:
                try:
                    await consumer.hold()
                except StoreError:
                    pass
                except SettingsError:  # another of its name is at work, so it ends
                    self.seen["replaced"] += 1
                    return
                await actor.gate("", "", "idle")

        self.scheduler.add(actor.start(work()))

    def consumer(self, kind, partition, owner, actor):
        def of(name):
            store = getattr(self, name)
            return store if store is None or actor is None else Gated(name, store, actor)

        return kind(
            stores=Stores(*map(of, ("bus", "keyring", "vault", "ledger", "keys"))),
            partition=partition,
            owner=owner,
            verifiers=[node_signer().verifier],
            limits=self.limits,
            ttl_s=LEASE_S,
            clock_ns=self.clock,
            random=self.random.randbytes,
        )

    def spawn_collector(self):
        actor = Actor(self._fault)
        collector = Collector(
            Gated("ledger", self.ledger, actor), Gated("vault", self.vault, actor)
        )

        async def work():
            while True:
                try:
                    await collector.collect(0.0)
                except StoreError:
                    pass
                await actor.gate("", "", "idle")

        self.scheduler.add(actor.start(work()))

    # -- what happens ------------------------------------------------------------------------------

    def produce(self):
        """What capture sends: sessions interleaved, batches sent again now and then."""
        queues = [[pair for epoch in epochs for pair in _pairs(epoch)] for epochs in self.built]
        sent = [[] for _ in queues]
        out = []
        while any(queues):
            index = self.random.choice([i for i, queue in enumerate(queues) if queue])
            size = self.random.randrange(1, 6)
            batch, queues[index] = queues[index][:size], queues[index][size:]
            out += batch
            sent[index] += batch
            if self.random.random() < 0.25:
                out += sent[index][-self.random.randrange(1, 12) :]
        return out

    def arrive(self, pairs):
        for session, value, is_key in pairs:
            bus = self.keys if is_key and self.keys is not None else self.bus
            bus.records[bus.partition_of(session)].append((session, value))

    async def expire(self):
        """Let every lease run out."""
        self.clock.forward(LEASE_S + 1)
        if self._expire is not None:
            await self._expire()

    async def run(self, steps):
        """Let things happen in a random order, then let one worker finish alone."""
        coming = self.produce()
        total = len(coming)
        self.bus.batch = self.random.choice([5, 20, 1 << 30])
        for _ in range(self.bus.partitions):
            self.spawn_worker()
        self.spawn_collector()
        for step in range(steps):
            await self._happen()
            due = len(coming) - total * max(0, 0.8 * steps - step) / (0.8 * steps)
            arriving, coming = coming[: int(due)], coming[int(due) :]
            self.arrive(arriving)
        self.arrive(coming)
        await self.stop()
        await self.finish()

    async def _happen(self):
        luck, crowd = self.random.random(), len(self.scheduler.actors)
        if luck < 0.05 and crowd < 6:
            self.spawn_worker()
        elif luck < 0.06 and crowd < 6:
            self.spawn_collector()
        elif luck < 0.07 and crowd > 1:
            await self.scheduler.kill_one()
        elif luck < 0.10:
            await self.expire()
        elif luck < 0.15:
            self.clock.forward(0.4)
        elif luck < 0.16:
            await self.trim()
        else:
            await self.scheduler.step()

    async def trim(self):
        """What the bus may let go of is gone."""
        for bus in (self.bus, self.keys):
            if bus is not None:
                for partition in range(bus.partitions):
                    await bus.trim(partition, [CONSUMER])

    async def stop(self):
        await self.scheduler.kill_all()

    async def finish(self):
        """A last worker for each partition, undisturbed, until everything on the bus is passed."""
        await self.expire()
        for partition in range(self.bus.partitions):
            for kind in (Consumer,) if self.keys is None else (KeyConsumer, Consumer):
                last = self.consumer(kind, partition, "last", None)
                last.leave()
                assert await last.hold()
        await Collector(self.ledger, self.vault).collect(0.0)

    # -- what must hold ----------------------------------------------------------------------------

    async def check(self, *, orphans="none"):
        """Raise AssertionError unless everything is sealed exactly once, and no more is there.

        `orphans` is whether objects that nobody names may be "left".
        """
        self._check_positions()
        assert await self.ledger.incidents() == []
        frames = await self._sealed_frames(orphans)
        expected = {
            (epoch.session, epoch.epoch, frame.seq): frame.leaf()
            for epochs in self.built
            for epoch in epochs
            for frame in epoch.frames
        }
        assert frames == expected
        for epochs in self.built:
            row = await self.ledger.session(epochs[0].session)
            assert row.frames == sum(len(epoch.frames) for epoch in epochs)
            assert (row.state, row.lost) == ("sealed", 0)
            for epoch in epochs:
                await self._check_tree(epoch)
                assert len(await self.keyring.get(epoch.session, epoch.epoch, "facts")) == 2
        await self._check_events()

    def _check_positions(self):
        """Each publication goes on exactly where the one before it ended, to the bus's end."""
        at = Counter()
        for topic, partition, first, after in self.published:
            assert first == at[topic, partition], f"{topic}/{partition} went from {at} to {first}"
            assert after >= first
            at[topic, partition] = after
        for bus in (self.bus, self.keys):
            if bus is not None:
                for partition in range(bus.partitions):
                    assert at[bus.topic, partition] == len(bus.records[partition])

    async def _sealed_frames(self, orphans):
        """Every sealed row by name, after checking objects, manifests and the chains."""
        chains, found, keys = {}, {}, set()
        async for segment in self.ledger.segments():
            record = segment.record
            n, head, bus_next = chains.get(record.shard, (0, FIRST_PREV, 0))
            assert (record.n, record.prev) == (n, head), "a chain is broken"
            assert record.bus.first >= bus_next, "messages were sealed from twice"
            chains[record.shard] = (n + 1, record_hash(record), record.bus.next)
            data = self.vault.objects.get(segment.key)
            assert data is not None, f"{segment.key} is sealed and not there"
            assert sha256(data).digest() == record.sha256
            manifest, fragments = parse_manifest(self.vault.objects[manifest_key(segment.key)])
            assert manifest == record
            assert [f.record for f in await self.ledger.fragments_of(segment.id)] == list(fragments)
            for _, row in read_rows(data):
                name = (row.session, row.epoch, row.seq)
                assert name not in found, "sealed twice"
                found[name] = row.leaf
            keys |= {segment.key, manifest_key(segment.key)}
        assert set(self.vault.objects) >= keys
        assert orphans == "left" or set(self.vault.objects) == keys, "an orphan was left"
        assert all(parse_key(key) for key in keys if key.endswith(".parquet"))
        return found

    async def _check_tree(self, epoch):
        merged, seq = CompactRange(), 0
        for fragment in await self.ledger.fragments(epoch.session):
            if fragment.record.epoch == epoch.epoch:
                assert fragment.record.lo == seq, "out of order"
                merged.extend(fragment.record.range)
                seq = fragment.record.hi
        assert merged.root() == epoch.tree.root()
        (head,) = (await self.ledger.heads([(epoch.session, epoch.epoch)])).values()
        assert (head.hi, head.nodes) == (epoch.tree.hi, merged.nodes)

    async def _check_events(self):
        events = Counter((event.kind, event.key) for event in await self.ledger.outbox(limit=10**6))
        for epochs in self.built:
            name = epochs[0].session.hex()
            assert events["session-open", name] == len(epochs)
            ended = events["session-sealed", name] + events["session-closed", name]
            assert ended == 1, "an end was told twice, or never"
        assert not events.keys() & {("incident", name) for _, name in events}


def _pairs(epoch):
    return [
        (key, value, isinstance(message, KeyMessage))
        for message, (key, value) in zip(epoch.messages, epoch.encoded(), strict=True)
    ]
