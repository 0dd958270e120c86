"""Reading: a fetch per call, and what it brought beyond the call's limit kept for the next one.

A broker sends whole batches, so a fetch often brings more than was asked for. What is left over is
kept under the offset it starts at, within `KEEP_BYTES` for all partitions together. Nothing depends
on it: whatever is not there is fetched.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from aiokafka.protocol.offset import OffsetRequest
from aiokafka.record.memory_records import MemoryRecords

from sealtape.capture.bus.base import Batch, Record
from sealtape.capture.bus.kafka.protocol import FetchById
from sealtape.capture.bus.kafka.topic import Topic
from sealtape.capture.bus.kafka.trouble import busy, mapped, of_code
from sealtape.capture.bus.kafka.url import KafkaUrl
from sealtape.schemas.errors import Missing, StoreCorrupt

__all__ = ["KEEP_BYTES", "Reader"]

KEEP_BYTES = 32 << 20
LEAST_BYTES = 64 << 10
MOST_BYTES = 8 << 20
WAIT_S = 5.0
"""A fetch waits no longer at the broker: a connection that died silently is noticed by then."""

_EARLIEST, _LATEST = -2, -1
_OUT_OF_RANGE = 1
_OTHER_TOPIC = frozenset({3, 100, 103})


@dataclass(slots=True)
class _Left:
    """Messages that were fetched, and from which on they were not handed out; where they end."""

    records: list[Record]
    end: int
    size: int
    at: int = 0


class Reader:
    """Reads all partitions of a topic; calls for the same or other partitions may overlap."""

    def __init__(self, topic: Topic, url: KafkaUrl) -> None:
        """Nothing happens before the first read."""
        self._topic = topic
        self._url = url
        self._what = f"Reading {url.topic}"
        self._left: OrderedDict[tuple[int, int], _Left] = OrderedDict()
        self._left_bytes = 0

    async def read(self, partition: int, offset: int, *, max_bytes: int, wait_s: float) -> Batch:
        """Read from an offset; see the port."""
        left = self._left.pop((partition, offset), None)
        if left is not None:
            self._left_bytes -= left.size
            return self._hand_out(partition, left, max_bytes)
        deadline = time.monotonic() + wait_s
        while True:
            wait_ms = int(min(max(deadline - time.monotonic(), 0), WAIT_S) * 1000)
            found = await self._fetch(partition, offset, max_bytes, wait_ms)
            if found.records:
                return self._hand_out(partition, found, max_bytes)
            offset = found.end
            if time.monotonic() >= deadline:
                return Batch([], offset)

    async def bounds(self, partition: int) -> tuple[int, int]:
        """Return first offset and end; see the port."""
        first, end = await asyncio.gather(
            *(self._offset(partition, which) for which in (_EARLIEST, _LATEST))
        )
        await self._topic.refresh()  # the question named the topic only: was it still the same one?
        return min(first, end), end

    async def _offset(self, partition: int, which: int) -> int:
        request = OffsetRequest(-1, 0, [(self._url.topic, [(partition, which)])])

        async def ask(limit_s: float) -> int:
            answer = await self._topic.ask_leader(partition, request, limit_s=limit_s)
            _, code, _, offset = answer.topics[0][1][0]
            if code in _OTHER_TOPIC:
                await self._topic.refresh()
                raise busy(f"{self._what}: the broker does not know the topic yet.")
            if code:
                raise of_code(code, self._what)
            return int(offset)

        return await self._topic.patiently(ask)

    # -- fetching ----------------------------------------------------------------------------------

    async def _fetch(self, partition: int, offset: int, max_bytes: int, wait_ms: int) -> _Left:
        size = min(max(max_bytes, LEAST_BYTES), MOST_BYTES)
        doubts: list[int] = []

        async def ask(limit_s: float) -> bytes:
            await self._topic.leader(partition)  # the id is known from here on
            request = FetchById(
                self._url.topic,
                self._topic.id,
                partition,
                offset,
                epoch=self._topic.epoch(partition),
                max_bytes=size,
                wait_ms=wait_ms,
            )
            answer = await self._topic.ask_leader(
                partition, request, limit_s=limit_s + wait_ms / 1000
            )
            code, records = FetchById.outcome(answer)
            if code == _OUT_OF_RANGE or code in _OTHER_TOPIC:
                await self._topic.refresh()  # raises when another topic has the name now
            if code == _OUT_OF_RANGE and doubts:
                raise Missing(
                    f"{self._what}: partition {partition} does not keep offset {offset}.",
                    hint="It was deleted by the topic's retention, or never written.",
                    offset=offset,
                )
            if code == _OUT_OF_RANGE:
                doubts.append(offset)
                raise busy(f"{self._what}: an offset is out of range for a leader of before.")
            if code in _OTHER_TOPIC:
                raise busy(f"{self._what}: the broker does not know the topic yet.")
            if code:
                raise of_code(code, self._what)
            return records

        data = await self._topic.patiently(ask)
        with mapped(self._what):
            return self._parse(partition, offset, data)

    def _parse(self, partition: int, offset: int, data: bytes) -> _Left:
        """Return the messages from `offset` on in record batches that may begin before it."""
        found: list[Record] = []
        size, end = 0, offset
        batches = MemoryRecords(data)
        while batches.has_next():
            batch: Any = batches.next_batch()
            if not batch.validate_crc():
                raise StoreCorrupt(
                    f"{self._what}: a batch of partition {partition} after offset {end} does not"
                    " have its checksum.",
                    hint="Look at the broker's disks.",
                    offset=end,
                )
            following = batch.next_offset
            if following > end and not batch.is_control_batch:
                for item in batch:
                    if item.offset >= offset:
                        key, value = item.key or b"", item.value or b""
                        found.append(
                            Record(item.offset, item.offset + 1, item.timestamp, key, value)
                        )
                        size += len(key) + len(value)
            end = max(end, following)
        return _Left(found, end, size)

    def _hand_out(self, partition: int, left: _Left, max_bytes: int) -> Batch:
        """Return the next messages, up to the limit, and keep the others."""
        size, stop = 0, left.at
        while stop < len(left.records):
            record = left.records[stop]
            length = len(record.key) + len(record.value)
            if stop > left.at and size + length > max_bytes:
                break
            size, stop = size + length, stop + 1
        records = left.records[left.at : stop]
        if stop == len(left.records):
            return Batch(records, left.end)
        left.at, left.size = stop, left.size - size
        following = left.records[stop].offset
        self._keep((partition, following), left)
        return Batch(records, following)

    def _keep(self, name: tuple[int, int], left: _Left) -> None:
        old = self._left.pop(name, None)
        self._left_bytes += left.size - (old.size if old is not None else 0)
        self._left[name] = left
        while self._left_bytes > KEEP_BYTES:
            _, dropped = self._left.popitem(last=False)
            self._left_bytes -= dropped.size
