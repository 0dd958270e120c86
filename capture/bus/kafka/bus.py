"""The bus on Kafka (`docs/kafka.md`): one topic, whose partitions sessions are spread over."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sealtape.capture.bus.base import Batch, partition_of
from sealtape.capture.bus.kafka.marks import Marks
from sealtape.capture.bus.kafka.reader import Reader
from sealtape.capture.bus.kafka.retention import Retention
from sealtape.capture.bus.kafka.topic import Topic
from sealtape.capture.bus.kafka.url import KafkaUrl, parse_kafka_url
from sealtape.capture.bus.kafka.writer import Writer
from sealtape.capture.bus.records import check_lengths
from sealtape.schemas.errors import StoreError, UsageError

__all__ = ["KafkaBus", "open_kafka_bus"]


def open_kafka_bus(url: str, base: Path) -> KafkaBus:
    """Take a `kafka:` URL; `start` connects. Raises `SettingsError`."""
    return KafkaBus(parse_kafka_url(url, base))


class KafkaBus:
    """See `base.Bus` for the rules this keeps."""

    def __init__(self, url: KafkaUrl) -> None:
        """Nothing is connected before the first call."""
        self._url = url
        self._topic = Topic(url)
        self._writer = Writer(self._topic, url)
        self._reader = Reader(self._topic, url)
        self._marks = Marks(self._topic, url)
        self._retention = Retention(self._topic, url)
        self._closed = False

    @property
    def topic(self) -> str:
        """The topic's name and id, `NAME@ID`; known when started."""
        return self._topic.name

    @property
    def partitions(self) -> int:
        """The number in the URL; `start` has compared it."""
        return self._url.partitions

    @property
    def retention_s(self) -> float | None:
        """What the topic's settings say, as far as `bounds` could ask; until then the URL."""
        return self._retention.seconds

    async def start(self) -> None:
        """Connect, and learn which topic stands behind the name; see the port."""
        self._check(0)
        await self._topic.start()

    def partition_of(self, session: bytes) -> int:
        """Return the partition all messages of a session go to."""
        return partition_of(session, self._url.partitions)

    async def append(self, partition: int, messages: Sequence[tuple[bytes, bytes]]) -> int:
        """Append, acknowledged by all replicas in sync; see the port."""
        self._check(partition)
        check_lengths(messages)
        if not messages:
            return (await self._reader.bounds(partition))[1]
        return await self._writer.append(partition, messages)

    async def read(self, partition: int, offset: int, *, max_bytes: int, wait_s: float) -> Batch:
        """Read from an offset; see the port."""
        self._check(partition)
        return await self._reader.read(partition, offset, max_bytes=max_bytes, wait_s=wait_s)

    async def bounds(self, partition: int) -> tuple[int, int]:
        """Return first offset and end; see the port."""
        self._check(partition)
        await self._retention.look()
        return await self._reader.bounds(partition)

    async def mark(self, consumer: str, partition: int, offset: int) -> None:
        """Commit a group offset, for the lag that Kafka's tools show."""
        self._check(partition)
        await self._marks.mark(consumer, partition, offset)

    async def marks(self, partition: int) -> dict[str, int]:
        """Return the committed group offsets."""
        self._check(partition)
        return await self._marks.marks(partition)

    async def trim(self, partition: int, consumers: Sequence[str]) -> None:
        """Do nothing: the topic's retention deletes."""
        self._check(partition)

    async def close(self) -> None:
        """Finish appends under way, within their time, and close all connections."""
        if not self._closed:
            self._closed = True
            await self._writer.close()
            await self._topic.close()

    def _check(self, partition: int) -> None:
        if self._closed:
            raise StoreError(f"The bus {self._url.store.text_form} is closed.")
        if not 0 <= partition < self._url.partitions:
            raise UsageError(f"The topic {self._url.topic} has no partition {partition}.")
