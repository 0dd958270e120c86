"""A small world for ingest: seeded, single-stepped, with crashes, zombies and a collector.

The sealer, the consumer, the collector, the SQLite ledger and the SQLite keyring are the real ones.
Bus and vault are in memory and keep their contracts. Every call of a store is a gate: the scheduler
lets one actor at a time run to its next gate, kills actors at gates (before a call, or after it
with the answer lost) and lets others take over, so an actor that sleeps at a gate is a zombie.
"""

from __future__ import annotations

import asyncio
import random
from hashlib import sha256

from sealtape.capture.bus.base import Batch, Record, partition_of
from sealtape.ingest.collector import Collector
from sealtape.ingest.consumer import Consumer, Stores
from sealtape.ingest.parquet import read_rows
from sealtape.ingest.sealer import Limits
from sealtape.ingest.vault import check_key
from sealtape.schemas.errors import Exists, Missing, StoreError
from sealtape.schemas.layout import manifest_key, parse_key
from sealtape.schemas.segments import FIRST_PREV, parse_manifest, record_hash
from sealtape.schemas.tree import CompactRange
from tests.factories.sessions import build_session, node_signer

SECOND = 1_000_000_000
START_NS = 1_800_000_000 * SECOND


class WorldClock:
    """Time that moves when told to."""

    def __init__(self):
        self.now_ns = START_NS

    def __call__(self):
        return self.now_ns

    def forward(self, seconds):
        self.now_ns += int(seconds * SECOND)


class MemoryBus:
    """A bus of lists; offsets are dense."""

    topic = "frames"
    retention_s = None
    batch = 1 << 30
    nap_s = 0.0
    ts_ms = 0

    def __init__(self, partitions=1):
        self.partitions = partitions
        self.records = [[] for _ in range(partitions)]
        self.first = [0] * partitions
        self.positions = {}

    async def start(self):
        pass

    def partition_of(self, session):
        return partition_of(session, self.partitions)

    async def append(self, partition, messages):
        self.records[partition] += messages
        return len(self.records[partition])

    async def read(self, partition, offset, *, max_bytes, wait_s):
        if not self.first[partition] <= offset <= len(self.records[partition]):
            raise Missing("not kept")
        found, size = [], 0
        for position in range(offset, len(self.records[partition])):
            key, value = self.records[partition][position]
            size += len(value)
            if found and (size > max_bytes or len(found) == self.batch):
                break
            found.append(Record(position, position + 1, self.ts_ms, key, value))
        if not found:
            await asyncio.sleep(min(wait_s, self.nap_s))
        return Batch(found, found[-1].next_offset if found else offset)

    async def bounds(self, partition):
        return self.first[partition], len(self.records[partition])

    async def mark(self, consumer, partition, offset):
        self.positions[consumer, partition] = offset

    async def marks(self, partition):
        return {c: o for (c, p), o in self.positions.items() if p == partition}

    async def trim(self, partition, consumers):
        self.first[partition] = min(self.positions.get((c, partition), 0) for c in consumers)

    async def close(self):
        pass


class MemoryVault:
    """A vault of a dict."""

    def __init__(self):
        self.objects = {}

    async def put_new(self, key, data):
        check_key(key)
        if key in self.objects:
            raise Exists(key)
        self.objects[key] = bytes(data)

    async def get(self, key, start=0, end=None):
        if key not in self.objects:
            raise Missing(key)
        return self.objects[key][start:end]

    async def size(self, key):
        return len(await self.get(key))

    async def keys(self, prefix="", after=""):
        for key in sorted(self.objects):
            if key.startswith(prefix) and key > after:
                yield key

    async def erase(self, key):
        self.objects.pop(key, None)

    async def tidy(self):
        return 0

    async def close(self):
        pass


class Gated:
    """A store whose calls wait at the actor's gate, before and after."""

    def __init__(self, store, actor):
        self._store = store
        self._actor = actor

    def __getattr__(self, name):
        found = getattr(self._store, name)
        if not asyncio.iscoroutinefunction(found):
            return found

        async def call(*arguments, **options):
            await self._actor.gate()
            try:
                result = await found(*arguments, **options)
            finally:
                await self._actor.gate()
            return result

        return call


class Actor:
    """A coroutine that runs from gate to gate."""

    def __init__(self):
        self._waiting = None
        self._arrived = asyncio.Event()
        self.task = None

    def start(self, coroutine):
        self.task = asyncio.create_task(coroutine)
        self.task.add_done_callback(lambda _: self._arrived.set())

    async def gate(self):
        self._waiting = asyncio.get_running_loop().create_future()
        self._arrived.set()
        await self._waiting

    async def step(self):
        """Run to the next gate or the end."""
        if not self._arrived.is_set():
            await self._arrived.wait()
        if self.task.done():
            return
        self._arrived.clear()
        self._waiting.set_result(None)
        await self._arrived.wait()

    async def kill(self):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


class IngestWorld:
    """Stores, clock and messages of one schedule. `orphans` is whether some may be "left"."""

    orphans = "none"

    def __init__(self, seed, *, ledger, keyring, sessions=4):
        self.random = random.Random(seed)
        self.clock = WorldClock()
        ledger._clock_ns = self.clock
        self.bus = MemoryBus()
        self.vault = MemoryVault()
        self.ledger = ledger
        self.keyring = keyring
        self.built = self._sessions(seed, sessions)
        self.limits = Limits(segment_ns=SECOND // 5, hold_ns=10**9 * SECOND, segment_bytes=1 << 20)
        self.actors = []
        self._names = iter(range(10**9))

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

    def produce(self):
        """What capture sends: sessions interleaved, batches sent again now and then."""
        queues = [[pair for epoch in epochs for pair in epoch.encoded()] for epochs in self.built]
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

    def consumer(self, actor, owner):
        stores = Stores(
            bus=Gated(self.bus, actor),
            keyring=Gated(self.keyring, actor),
            vault=Gated(self.vault, actor),
            ledger=Gated(self.ledger, actor),
        )
        return Consumer(
            stores=stores,
            partition=0,
            owner=owner,
            verifiers=[node_signer().verifier],
            limits=self.limits,
            ttl_s=3.0,
            clock_ns=self.clock,
            random=self.random.randbytes,
        )

    def spawn_worker(self):
        actor = Actor()
        consumer = self.consumer(actor, f"w{next(self._names)}")

        async def work():
            while True:
                try:
                    await consumer.hold()
                except StoreError:
                    pass
                await actor.gate()

        actor.start(work())
        self.actors.append(actor)

    def spawn_collector(self):
        actor = Actor()
        collector = Collector(Gated(self.ledger, actor), Gated(self.vault, actor))

        async def work():
            while True:
                await collector.collect(0.0)
                await actor.gate()

        actor.start(work())
        self.actors.append(actor)

    async def run(self, steps):
        """Let things happen in a random order, then let one worker finish alone."""
        coming = self.produce()
        portion = len(coming) * 2 // steps + 1
        self.bus.batch = self.random.choice([5, 20, 1 << 30])
        self.spawn_worker()
        self.spawn_collector()
        for _ in range(steps):
            luck = self.random.random()
            if luck < 0.02 and len(self.actors) < 5:
                self.spawn_worker()
            elif luck < 0.03 and len(self.actors) < 5:
                self.spawn_collector()
            elif luck < 0.04 and len(self.actors) > 1:
                await self.actors.pop(self.random.randrange(len(self.actors))).kill()
            elif luck < 0.1:
                self.clock.forward(self.random.choice([0.4, 1.1, 3.1]))
            elif luck < 0.6:
                await self.random.choice(self.actors).step()
            else:  # one gets far while the others sleep
                await self.actors[0].step()
            self.bus.records[0] += coming[:portion]
            del coming[:portion]
        self.bus.records[0] += coming
        await self.stop()
        await self.finish()

    async def stop(self):
        while self.actors:
            await self.actors.pop().kill()

    async def finish(self):
        """A last worker, undisturbed, until everything on the bus is passed."""
        self.clock.forward(60)
        actor = Actor()
        actor.gate = _open
        last = self.consumer(actor, "last")
        last.leave()
        await last.hold()
        self.clock.forward(60)
        await Collector(self.ledger, self.vault).collect(0.0)

    async def check(self):
        """Raise AssertionError unless everything is sealed exactly once, and no more is there."""
        assert await self.ledger.position("frames", 0) == len(self.bus.records[0])
        assert await self.ledger.incidents() == []
        assert await self.ledger.quarantined("frames", 0) == []
        frames = await self._sealed_frames()
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
            assert row.state == "sealed"
            for epoch in epochs:
                await self._check_tree(epoch)
                assert len(await self.keyring.get(epoch.session, epoch.epoch, "facts")) == 2

    async def _sealed_frames(self):
        """Every sealed row by name, after checking objects, manifests and the chain."""
        head, n, found, keys = FIRST_PREV, 0, {}, set()
        async for segment in self.ledger.segments():
            record = segment.record
            assert (record.n, record.prev) == (n, head)
            n, head = n + 1, record_hash(record)
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
        assert self.orphans == "left" or set(self.vault.objects) == keys, "an orphan was left"
        assert all(parse_key(key) for key in keys if key.endswith(".parquet"))
        return found

    async def _check_tree(self, epoch):
        merged = CompactRange()
        for fragment in await self.ledger.fragments(epoch.session):
            if fragment.record.epoch == epoch.epoch:
                merged.extend(fragment.record.range)
        assert merged.root() == epoch.tree.root()
        (head,) = (await self.ledger.heads([(epoch.session, epoch.epoch)])).values()
        assert (head.hi, head.nodes) == (epoch.tree.hi, merged.nodes)


async def _open():
    """A gate that lets everybody through."""
