"""Stores of ingest in memory that keep their contracts, and a clock that moves when told to."""

from __future__ import annotations

import asyncio

from sealtape.capture.bus.base import Batch, Record, partition_of
from sealtape.ingest.vault.base import check_new_key, check_swapped_key
from sealtape.schemas.errors import Exists, Fenced, Missing

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
    """A vault of a dict. `locked` has until when each object was asked to be kept."""

    def __init__(self):
        self.objects = {}
        self.locked = {}

    async def put_new(self, key, data, *, retain_until_ns=0):
        check_new_key(key)
        if key in self.objects:
            raise Exists(key)
        self.objects[key] = bytes(data)
        self.locked[key] = retain_until_ns

    async def swap(self, key, data, before):
        check_swapped_key(key)
        if self.objects.get(key) not in (before, bytes(data)):
            raise Fenced(key)
        self.objects[key] = bytes(data)

    async def get(self, key, start=0, end=None):
        if key not in self.objects:
            raise Missing(key)
        return self.objects[key][start:end]

    async def size(self, key):
        if key not in self.objects:
            raise Missing(key)
        return len(self.objects[key])

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
