"""Questions to brokers about a topic that may not exist, for whoever sets up or checks a bus."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka.protocol.admin import CreateTopicsRequest, DescribeConfigsRequest

from sealtape.capture.bus.kafka.protocol import MetadataById
from sealtape.capture.bus.kafka.trouble import of_code
from sealtape.capture.bus.kafka.url import KafkaUrl
from sealtape.capture.bus.kafka.wanted import wanted
from sealtape.capture.bus.kafka.wire import Address, Wire
from sealtape.schemas.errors import StoreBusy, StoreError

__all__ = ["Brokers", "Description", "Partition", "brokers_of"]

_TOPIC_RESOURCE = 2
_EXISTS = 36
_OPERATIONS = {3: "read", 4: "write", 7: "alter", 8: "describe", 10: "describe its settings"}
_NOT_TOLD = -(1 << 31)


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition: the brokers that hold it, by number; leader -1 for none."""

    number: int
    leader: int
    replicas: Sequence[int]
    in_sync: Sequence[int]


@dataclass(frozen=True, slots=True)
class Description:
    """What one broker says: all brokers, and the topic or the code of the error there is instead.

    Attributes:
        operations: what we may do with the topic, None when the broker does not tell.
    """

    nodes: dict[int, Address]
    controller: int
    code: int
    topic_id: bytes
    partitions: tuple[Partition, ...]
    operations: frozenset[str] | None


@asynccontextmanager
async def brokers_of(url: KafkaUrl) -> AsyncIterator[Brokers]:
    """Open connections for questions, and close them."""
    wire = Wire(url)
    try:
        yield Brokers(url, wire)
    finally:
        await wire.close()


class Brokers:
    """The brokers of a URL."""

    def __init__(self, url: KafkaUrl, wire: Wire) -> None:
        """Use `brokers_of`."""
        self._url = url
        self._wire = wire
        self._what = f"The topic {url.topic}"

    async def describe(self, address: Address | None = None) -> Description:
        """Ask one broker, or the first of the URL's that answers."""
        if address is not None:
            return _description(await self._ask(address, MetadataById(self._url.topic)))
        failure: StoreError | None = None
        for host in self._url.hosts:
            try:
                return await self.describe(host)
            except StoreError as exc:
                if failure is None or isinstance(failure, StoreBusy):
                    failure = exc
        assert failure is not None
        raise failure

    async def create(self, address: Address) -> bool:
        """Create the topic as the URL says; False when it is there by now."""
        url = self._url
        configs = list(wanted(url).items())
        topic: Any = (url.topic, url.partitions, url.replicas, [], configs)
        request = CreateTopicsRequest([topic], int(url.timeout_s * 900), False)
        # Nobody makes a topic twice, and a broker that has just begun takes its time.
        answer = await self._wire.ask(address, request, limit_s=url.timeout_s)
        _, code, message = answer.topic_errors[0]
        if code == _EXISTS:
            return False
        if code:
            error = of_code(code, f"{self._what} cannot be created")
            raise StoreError(
                f"{error.message} {message or ''}".strip(),
                hint=error.hint or "docs/kafka.md has the command to create it by hand.",
                code=code,
            )
        return True

    async def settings(self, address: Address) -> dict[str, str]:
        """Return the topic's settings, the brokers' defaults included."""
        request = DescribeConfigsRequest([(_TOPIC_RESOURCE, self._url.topic, None)])
        code, _, _, _, entries = (await self._ask(address, request)).resources[0]
        if code:
            raise of_code(code, f"The settings of {self._url.topic}")
        return {entry[0]: entry[1] or "" for entry in entries}

    async def _ask(self, address: Address, request: Any) -> Any:
        return await self._wire.ask(address, request, limit_s=self._url.attempt_s)


def _description(answer: Any) -> Description:
    code, _, topic_id, _, partitions, bits, _ = answer.topics[0]
    may = None
    if bits != _NOT_TOLD:
        may = frozenset(name for bit, name in _OPERATIONS.items() if bits >> bit & 1)
    return Description(
        nodes={broker[0]: (broker[1], broker[2]) for broker in answer.brokers},
        controller=answer.controller_id,
        code=code,
        topic_id=topic_id,
        partitions=tuple(
            Partition(part[1], part[2], tuple(part[4]), tuple(part[5])) for part in partitions
        ),
        operations=may,
    )
