"""Appending: one batch per partition on its way at a time, acknowledged by all replicas in sync.

Each partition has its own idempotent producer. A batch whose answer is lost is sent again with the
same sequence numbers, so the broker knows it; when the broker no longer knows the producer, or the
time of an append is over with its outcome unknown, the producer is given up and the next batch gets
a new one. Then messages may stand twice, as the port allows, but none is lost and the first copies
keep their order.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from sealtape.capture.bus.kafka.protocol import ProduceById
from sealtape.capture.bus.kafka.topic import Topic
from sealtape.capture.bus.kafka.trouble import busy, mapped, of_code
from sealtape.capture.bus.kafka.url import KafkaUrl
from sealtape.capture.bus.kafka.wire import Address
from sealtape.schemas.errors import StoreBusy, StoreError

__all__ = ["BATCH_BYTES", "Writer"]

BATCH_BYTES = 512 << 10
"""A batch of several messages is not made larger; any topic takes that."""
LEAST_BYTES = 16 << 10
AT_ONCE = 8
"""Requests to one broker at the same time; each has a connection of its own."""

_TOO_LARGE = frozenset({10, 18})
_STRANGER = frozenset({45, 46, 47, 49, 59, 90})
"""Out of order, duplicate, wrong epoch, unknown: the broker's memory of us is not ours."""
_OTHER_TOPIC = frozenset({3, 100, 103})
_MAX_SEQUENCE = (1 << 31) - 1

_log = logging.getLogger(__name__)

Message = tuple[bytes, bytes]


@dataclass(slots=True)
class _Append:
    messages: Sequence[Message]
    done: asyncio.Future[int]
    size: int


@dataclass(slots=True)
class _Producer:
    id: int
    epoch: int
    sequence: int = 0


@dataclass(slots=True)
class _Lane:
    """What is on its way to one partition."""

    partition: int
    waiting: deque[_Append] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None
    producer: _Producer | None = None
    batch_bytes: int = BATCH_BYTES


class Writer:
    """Appends to all partitions of a topic."""

    def __init__(self, topic: Topic, url: KafkaUrl) -> None:
        """Nothing happens before the first append."""
        self._topic = topic
        self._url = url
        self._what = f"Appending to {url.topic}"
        self._codec = DefaultRecordBatch.CODEC_ZSTD if url.compression == "zstd" else 0
        self._lanes = [_Lane(number) for number in range(url.partitions)]
        self._slots: dict[Address, asyncio.Semaphore] = {}

    async def append(self, partition: int, messages: Sequence[Message]) -> int:
        """Return the offset after the last message when all replicas in sync have it."""
        lane = self._lanes[partition]
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        size = sum(len(key) + len(value) for key, value in messages)
        lane.waiting.append(_Append(messages, done, size))
        if lane.task is None:
            lane.task = asyncio.create_task(self._work(lane))
        return await done

    async def close(self) -> None:
        """Wait for what is on its way, within the time an append has."""
        tasks = [lane.task for lane in self._lanes if lane.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=self._url.timeout_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, lane: _Lane) -> None:
        """Send what waits, again and again, until nothing waits."""
        try:
            while lane.waiting:
                await self._send(lane, _group(lane))
        finally:
            lane.task = None
            while lane.waiting:
                _fail(lane.waiting.popleft(), StoreError(f"{self._what}: the bus is closed."))

    async def _send(self, lane: _Lane, group: list[_Append]) -> None:
        """Send some appends, batch by batch; tell each whether all of its own messages are in."""
        messages = [message for item in group for message in item.messages]
        ends: list[int] = []
        failure: BaseException | None = None
        try:
            while len(ends) < len(messages):
                count = _fitting(messages, len(ends), lane.batch_bytes)
                ends += await self._batch(lane, messages[len(ends) : len(ends) + count])
        except Exception as exc:  # noqa: BLE001 - each appender gets it raised
            failure = exc
        except BaseException:
            failure = StoreError(f"{self._what}: the bus is closed.")
            raise
        finally:
            at = 0
            for item in group:
                at += len(item.messages)
                if at <= len(ends):
                    _succeed(item, ends[at - 1])
                else:
                    assert failure is not None
                    _fail(item, failure)

    async def _batch(self, lane: _Lane, messages: Sequence[Message]) -> list[int]:
        """Send one batch until it is acknowledged; return the offset after each message."""
        code, offset = await self._until_answered(lane, messages)
        if code in _TOO_LARGE and len(messages) > 1:
            middle = len(messages) // 2
            first = await self._batch(lane, messages[:middle])
            return first + await self._batch(lane, messages[middle:])
        if code:
            raise of_code(code, self._what)
        lane.batch_bytes = min(2 * lane.batch_bytes, BATCH_BYTES)
        return [offset + number for number in range(1, len(messages) + 1)]

    async def _until_answered(self, lane: _Lane, messages: Sequence[Message]) -> tuple[int, int]:
        """Return (0 or a code that trying again does not change, offset of the first message)."""

        async def attempt(limit_s: float) -> tuple[int, int]:
            if lane.producer is None:
                lane.producer = await self._introduce(limit_s)
            records = await self._encode(lane.producer, messages)
            code, offset = await self._produce(lane, records, limit_s)
            if code == 0:
                following = lane.producer.sequence + len(messages)
                lane.producer.sequence = following & _MAX_SEQUENCE
            elif code in _STRANGER:
                lane.producer = None
                raise busy(f"{self._what}: the broker does not know the producer any more.")
            elif code in _OTHER_TOPIC:
                await self._topic.refresh()
                raise busy(f"{self._what}: the broker does not know the topic yet.")
            elif code not in _TOO_LARGE:
                raise of_code(code, self._what)
            return code, offset

        try:
            return await self._topic.patiently(attempt)
        except BaseException:
            lane.producer = None  # what became of the batch is unknown: its numbers are used up
            raise

    async def _produce(self, lane: _Lane, records: bytes, limit_s: float) -> tuple[int, int]:
        address = await self._topic.leader(lane.partition)
        wait_ms = max(1, int(limit_s * 900))
        request = ProduceById(self._url.topic, self._topic.id, lane.partition, records, wait_ms)
        slots = self._slots.setdefault(address, asyncio.Semaphore(AT_ONCE))
        started = time.monotonic()
        async with slots:
            try:
                response = await self._topic.ask_leader(lane.partition, request, limit_s=limit_s)
            except StoreBusy:
                if time.monotonic() - started > limit_s / 2:  # too much for a slow line
                    lane.batch_bytes = max(LEAST_BYTES, lane.batch_bytes // 4)
                raise
        return ProduceById.outcome(response)

    async def _introduce(self, limit_s: float) -> _Producer:
        """Ask for a new producer id."""
        request = InitProducerIdRequest(None, _MAX_SEQUENCE)  # type: ignore[arg-type]  # no transactions
        answer = await self._topic.ask_any(request, limit_s=limit_s)
        if answer.error_code:
            raise of_code(answer.error_code, self._what)
        return _Producer(answer.producer_id, answer.producer_epoch)

    async def _encode(self, producer: _Producer, messages: Sequence[Message]) -> bytes:
        if self._codec:
            return await asyncio.to_thread(self._encoded, producer, messages)
        return self._encoded(producer, messages)

    def _encoded(self, producer: _Producer, messages: Sequence[Message]) -> bytes:
        with mapped(self._what):
            builder = DefaultRecordBatchBuilder(
                2, self._codec, 0, producer.id, producer.epoch, producer.sequence, 1 << 30
            )
            now_ms = time.time_ns() // 1_000_000
            for number, (key, value) in enumerate(messages):
                builder.append(number, now_ms, key, value, [])
            return bytes(builder.build())


def _group(lane: _Lane) -> list[_Append]:
    """Take appends that wait, up to the size of a batch; those given up meanwhile are left out."""
    group: list[_Append] = []
    size = 0
    while lane.waiting and (not group or size + lane.waiting[0].size <= lane.batch_bytes):
        item = lane.waiting.popleft()
        if not item.done.done():
            group.append(item)
            size += item.size
    return group


def _fitting(messages: Sequence[Message], start: int, limit: int) -> int:
    """Return how many messages from `start` on go into one batch; at least one."""
    size = 0
    for number in range(start, len(messages)):
        size += len(messages[number][0]) + len(messages[number][1])
        if size > limit and number > start:
            return number - start
    return len(messages) - start


def _succeed(item: _Append, end: int) -> None:
    if not item.done.done():
        item.done.set_result(end)


def _fail(item: _Append, exc: BaseException) -> None:
    if not item.done.done():
        item.done.set_exception(exc)
