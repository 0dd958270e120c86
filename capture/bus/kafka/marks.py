"""Positions of consumers as committed group offsets: what Kafka's own tools show as lag.

Nothing reads them to go on from there: positions are the ledger's. So a commit that fails is logged
and forgotten, and sealing goes on.
"""

from __future__ import annotations

import logging
import re
from typing import Any

from aiokafka.protocol.admin import ListGroupsRequest
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetFetchRequest
from aiokafka.protocol.coordination import FindCoordinatorRequest

from sealtape.capture.bus.kafka.topic import Topic
from sealtape.capture.bus.kafka.trouble import of_code
from sealtape.capture.bus.kafka.url import KafkaUrl
from sealtape.schemas.errors import StoreError, UsageError

__all__ = ["GROUP_PREFIX", "Marks"]

GROUP_PREFIX = "sealtape-"

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_NO_MEMBER = (-1, "")
_log = logging.getLogger(__name__)


class Marks:
    """Commits and reads offsets of the groups `sealtape-CONSUMER`."""

    def __init__(self, topic: Topic, url: KafkaUrl) -> None:
        """Nothing happens before the first mark."""
        self._topic = topic
        self._url = url
        self._coordinators: dict[str, int] = {}
        self._failing: set[str] = set()

    async def mark(self, consumer: str, partition: int, offset: int) -> None:
        """Commit an offset; a failure is logged once, until a commit works again."""
        if not _NAME.fullmatch(consumer) or offset < 0:
            raise UsageError(f"Not a consumer's position: {consumer!r} at {offset}.")
        group = GROUP_PREFIX + consumer
        topics = [(self._url.topic, [(partition, offset, "")])]
        request = OffsetCommitRequest(group, *_NO_MEMBER, -1, topics)
        try:
            answer = await self._ask_coordinator(group, request, _commit_code)
        except StoreError as exc:
            if group not in self._failing:
                _log.warning("The lag that Kafka shows of %s is not up to date: %s", group, exc)
            self._failing.add(group)
            return
        del answer
        self._failing.discard(group)

    async def marks(self, partition: int) -> dict[str, int]:
        """Return the committed offsets of all groups whose name begins as ours do."""
        found = {}
        for group in await self._groups():
            request = OffsetFetchRequest(group, [(self._url.topic, [partition])])
            answer = await self._ask_coordinator(group, request, _fetch_code)
            offset = answer.topics[0][1][0][1]
            if offset >= 0:
                found[group.removeprefix(GROUP_PREFIX)] = offset
        return found

    async def _groups(self) -> list[str]:
        await self._topic.start()
        names: set[str] = set()
        for node in self._topic.nodes():
            answer = await self._topic.patiently(
                lambda limit_s, node=node: self._topic.ask_node(  # type: ignore[misc]
                    node, ListGroupsRequest(), limit_s=limit_s
                )
            )
            if answer.error_code:
                raise of_code(answer.error_code, "Listing the consumers")
            names.update(group for group, _ in answer.groups if group.startswith(GROUP_PREFIX))
        return sorted(names)

    async def _ask_coordinator(self, group: str, request: Any, code_of: Any) -> Any:
        """Ask the broker that keeps a group's offsets, wherever it is by now."""
        what = f"The offsets of the group {group}"

        async def ask(limit_s: float) -> Any:
            await self._topic.start()
            node = self._coordinators.get(group)
            if node is None:
                node = self._coordinators[group] = await self._find(group, what, limit_s)
            try:
                answer = await self._topic.ask_node(node, request, limit_s=limit_s)
                code = code_of(answer)
                if code:
                    raise of_code(code, what)
            except StoreError:
                self._coordinators.pop(group, None)
                raise
            return answer

        return await self._topic.patiently(ask)

    async def _find(self, group: str, what: str, limit_s: float) -> int:
        answer = await self._topic.ask_any(FindCoordinatorRequest(group, 0), limit_s=limit_s)
        if answer.error_code:
            raise of_code(answer.error_code, what)
        return int(answer.coordinator_id)


def _commit_code(answer: Any) -> int:
    return int(answer.topics[0][1][0][1])


def _fetch_code(answer: Any) -> int:
    return int(answer.error_code or answer.topics[0][1][0][3])
