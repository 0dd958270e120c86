"""Numbered messages on a bus that has trouble, and what must be there afterwards."""

import asyncio

from sealtape.schemas.errors import StoreBusy
from tests.conformance.bus import read_all
from tests.factories.kafka_topics import again


class Stream:
    """Appends numbered messages to one partition as the shipper does: again until they are in."""

    def __init__(self, bus, partition=0, name=b"s", size=2000, per_append=7):
        self.bus = bus
        self.partition = partition
        self.name = name
        self.filling = bytes(size)
        self.per_append = per_append
        self.count = 0
        self.acknowledged = 0
        self.failures = []
        self._stop = False
        self._task = asyncio.create_task(self._run())

    async def _run(self):
        while not self._stop:
            numbers = range(self.count, self.count + self.per_append)
            self.count += self.per_append
            messages = [(self.name, b"%d %s" % (n, self.filling)) for n in numbers]
            while True:
                try:
                    await self.bus.append(self.partition, messages)
                except StoreBusy as exc:
                    self.failures.append(exc)
                    await asyncio.sleep(0.1)
                else:
                    break
            self.acknowledged = self.count
            await asyncio.sleep(0.002)

    async def more(self, count=100):
        """Return when that many more messages were acknowledged."""
        target = self.acknowledged + count
        while self.acknowledged < target:
            if self._task.done():
                self._task.result()
            await asyncio.sleep(0.01)

    async def end(self):
        """Finish; return how many messages were acknowledged."""
        self._stop = True
        async with asyncio.timeout(90):
            await self._task
        return self.acknowledged

    async def check(self, *, twice=True):
        """All acknowledged messages are there, the first copies in order."""
        records = await again(lambda: read_all(self.bus, self.partition))
        found = [record for record in records if record.key == self.name]
        numbers = [int(record.value.split(b" ")[0]) for record in found]
        first = list(dict.fromkeys(numbers))
        assert first == list(range(self.acknowledged))
        if not twice:
            assert len(numbers) == len(first)
        return len(numbers) - len(first)
