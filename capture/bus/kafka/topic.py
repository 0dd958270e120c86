"""One topic as its brokers describe it: its id, the leader of each partition, and how to ask them.

Each new connection begins with the question which topic stands behind the name, and a description
older than `MAX_AGE_S` is not used: a topic that was deleted and made anew is noticed also where the
requests themselves can only give its name.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from sealtape.capture.bus.kafka.login import Connection
from sealtape.capture.bus.kafka.protocol import MetadataById, id_text
from sealtape.capture.bus.kafka.trouble import RETRY_S, busy, of_code
from sealtape.capture.bus.kafka.url import KafkaUrl
from sealtape.capture.bus.kafka.wire import Address, Wire
from sealtape.schemas.errors import Replaced, StoreBusy, StoreError

__all__ = ["Topic"]

MAX_AGE_S = 30.0
UNKNOWN_TOPIC = 3
START_S = 5.0
"""A process that starts does not wait longer for brokers that are away."""
APPEARS_S = 3.0
"""How long a topic may be unknown to a broker after it was created."""
T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Leader:
    node: int
    epoch: int


class Topic:
    """See the module docstring."""

    def __init__(self, url: KafkaUrl) -> None:
        """Nothing is asked before the first question."""
        self._url = url
        self._wire = Wire(url, self._greet)
        self._what = f"The topic {url.topic}"
        self.id = b""
        self._nodes: dict[int, Address] = {}
        self._leaders: list[_Leader] = []
        self._asked_at = float("-inf")
        self._failed: tuple[float, StoreError] | None = None
        self._asking = asyncio.Lock()
        self._troubled: dict[Address, float] = {}

    @property
    def name(self) -> str:
        """`NAME@ID`: this topic, and none that was or will be made under the same name."""
        if not self.id:
            raise StoreError(f"{self._what} is not known yet: the bus was not started.")
        return f"{self._url.topic}@{id_text(self.id)}"

    async def start(self) -> None:
        """Learn what the topic is; does nothing when it is known."""
        if self.id:
            return
        started = time.monotonic()
        while True:
            try:
                await self.patiently(lambda _limit_s: self.refresh(), within_s=START_S)
            except StoreError as exc:
                if exc.context.get("code") != UNKNOWN_TOPIC:
                    raise
                if time.monotonic() - started > min(APPEARS_S, self._url.timeout_s):
                    raise
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def patiently(
        self, work: Callable[[float], Awaitable[T]], *, within_s: float = float("inf")
    ) -> T:
        """Do `work(limit in s)` again while it raises `StoreBusy` and there is time."""
        deadline = time.monotonic() + min(self._url.timeout_s, within_s)
        pause_s = 0.05
        while True:
            try:
                return await work(max(0.05, min(self._url.attempt_s, deadline - time.monotonic())))
            except StoreBusy:
                if time.monotonic() + pause_s >= deadline:
                    raise
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_S)
            self.outdate()

    # -- asking ------------------------------------------------------------------------------------

    async def ask_leader(self, partition: int, request: Any, *, limit_s: float) -> Any:
        """Ask the broker that leads a partition."""
        return await self._ask(await self.leader(partition), request, limit_s)

    async def ask_node(self, node: int, request: Any, *, limit_s: float) -> Any:
        """Ask a broker by its number."""
        if node not in self._nodes:
            raise busy(f"{self._what}: broker {node} is not known.")
        return await self._ask(self._nodes[node], request, limit_s)

    async def ask_any(self, request: Any, *, limit_s: float) -> Any:
        """Ask the first broker that answers."""
        return await self._first(lambda address, part_s: self._ask(address, request, part_s))

    async def leader(self, partition: int) -> Address:
        """Return where the leader of a partition is. Raises `StoreBusy` when there is none."""
        if not self.id:
            await self.start()
        elif time.monotonic() - self._asked_at > MAX_AGE_S:
            await self.refresh()
        node = self._leaders[partition].node
        if node not in self._nodes:
            raise busy(f"{self._what}: partition {partition} has no leader.")
        return self._nodes[node]

    def epoch(self, partition: int) -> int:
        """Return which election made the leader that `leader` returned.

        With it a broker that was leader before, and does not know yet, cannot answer.
        """
        return self._leaders[partition].epoch

    def nodes(self) -> list[int]:
        """Return the numbers of all brokers."""
        return list(self._nodes)

    async def _ask(self, address: Address, request: Any, limit_s: float) -> Any:
        try:
            return await self._wire.ask(address, request, limit_s=limit_s)
        except StoreError:
            self._troubled[address] = time.monotonic()
            raise

    async def _first(self, work: Callable[[Address, float], Awaitable[T]]) -> T:
        """Do work with one broker after another until one does it; those with trouble last."""
        known = list({*self._nodes.values(), *self._url.hosts})
        random.shuffle(known)
        known.sort(key=lambda address: self._troubled.get(address, 0.0))
        failure: StoreError | None = None
        until = time.monotonic() + self._url.attempt_s
        for address in known:
            if failure is not None and time.monotonic() > until:
                break
            try:
                return await work(address, self._url.attempt_s / 2)
            except StoreError as exc:
                if failure is None or isinstance(failure, StoreBusy):
                    failure = exc
        assert failure is not None
        raise failure

    # -- what the topic is -------------------------------------------------------------------------

    def outdate(self) -> None:
        """Ask anew before the next use: an answer did not agree with what is known."""
        self._asked_at = float("-inf")

    async def refresh(self) -> None:
        """Ask what the topic is; who asks at the same time shares the answer.

        Raises `StoreError` when it is not there, `Replaced` when another one stands behind its
        name now.
        """
        called = time.monotonic()
        async with self._asking:
            if self._asked_at >= called:
                return
            if self._failed is not None and self._failed[0] >= called:
                raise self._failed[1]
            asked = time.monotonic()
            try:
                request = MetadataById(self._url.topic)
                response = await self._first(
                    lambda address, part_s: self._ask(address, request, part_s)
                )
                self._learn(response)
            except StoreError as exc:
                self._failed = (asked, exc)
                raise
            self._asked_at = asked

    async def _greet(self, connection: Connection) -> None:
        asked = time.monotonic()
        self._learn(await connection.send(MetadataById(self._url.topic)))
        self._asked_at = max(self._asked_at, asked)

    def _learn(self, response: Any) -> None:
        """Take a broker's description of the cluster and the topic."""
        nodes = {broker[0]: (broker[1], broker[2]) for broker in response.brokers}
        code, _, topic_id, _, partitions, *_ = response.topics[0]
        if code:
            raise of_code(code, self._what)
        if self.id and topic_id != self.id:
            self.outdate()
            raise Replaced(
                f"{self._what} was deleted and made anew: it is {id_text(topic_id)} now, and was"
                f" {id_text(self.id)}.",
                hint="Start this process again; ingest records what was lost.",
            )
        if len(partitions) != self._url.partitions:
            raise StoreError(
                f"{self._what} has {len(partitions)} partitions, not {self._url.partitions}.",
                hint="The number never changes: correct `partitions` in the URL.",
            )
        if not any(topic_id):
            raise StoreError(f"{self._what} has no id.", hint="Use Kafka 3.1 or newer.")
        self._nodes = nodes
        self._leaders = self._newest(partitions)
        self.id = topic_id

    def _newest(self, partitions: Any) -> list[_Leader]:
        """Return the leaders; a broker that lags behind does not bring an old one back."""
        told = {part[1]: _Leader(part[2], part[3]) for part in partitions}
        if sorted(told) != list(range(self._url.partitions)):
            raise StoreError(f"{self._what}: the partitions are not numbered from 0.")
        if not self._leaders:
            return [told[number] for number in sorted(told)]
        return [
            told[number] if told[number].epoch >= known.epoch else known
            for number, known in enumerate(self._leaders)
        ]

    async def close(self) -> None:
        """Close all connections."""
        await self._wire.close()
