"""How long the topic keeps messages: what its settings say now, not what the URL wants of them."""

from __future__ import annotations

import logging
import time
from typing import Any

from aiokafka.protocol.admin import DescribeConfigsRequest

from sealtape.capture.bus.kafka.topic import Topic
from sealtape.capture.bus.kafka.trouble import of_code
from sealtape.capture.bus.kafka.url import KafkaUrl
from sealtape.schemas.errors import StoreError

__all__ = ["ASK_EVERY_S", "Retention"]

ASK_EVERY_S = 60.0
_TOPIC_RESOURCE = 2
_NAME = "retention.ms"
_log = logging.getLogger(__name__)


class Retention:
    """Asks the brokers now and then; whoever may not ask goes by the URL."""

    def __init__(self, topic: Topic, url: KafkaUrl) -> None:
        """Nothing is asked before the first look."""
        self.seconds = url.retention_s
        """None for ever."""
        self._topic = topic
        self._url = url
        self._asked = float("-inf")
        self._told = False

    async def look(self) -> None:
        """Ask, if that is due. A failure is logged once and leaves what is known."""
        if time.monotonic() - self._asked < ASK_EVERY_S:
            return
        self._asked = time.monotonic()
        try:
            kept_ms = int(await self._ask())
        except (StoreError, ValueError) as exc:
            if not self._told:
                _log.info("how long %s keeps messages is not known: %s", self._url.topic, exc)
            self._told = True
            return
        self._told = False
        found = None if kept_ms < 0 else kept_ms / 1000
        if found != self.seconds:
            kept = "for ever" if found is None else f"for {found:.0f} s"
            _log.warning("the topic %s keeps messages %s now", self._url.topic, kept)
        self.seconds = found

    async def _ask(self) -> str:
        request = DescribeConfigsRequest([(_TOPIC_RESOURCE, self._url.topic, [_NAME])])
        answer: Any = await self._topic.ask_any(request, limit_s=self._url.attempt_s)
        code, _, _, _, entries = answer.resources[0]
        if code:
            raise of_code(code, f"The settings of {self._url.topic}")
        return next((str(entry[1]) for entry in entries if entry[0] == _NAME), "")
