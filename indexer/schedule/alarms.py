"""Sends alarms to the webhook: in order, signed, again and again until each was taken.

Verification never waits for it. What could not be sent waits in the verifier's file.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from sealtape.capture.outbound import Destination, OutboundError, destination, post
from sealtape.capture.postgres.credential import credential_of
from sealtape.capture.postgres.target import Credential
from sealtape.indexer.schedule.state import State, Waiting
from sealtape.schemas.errors import SealtapeError, StoreError
from sealtape.schemas.settings import Settings
from sealtape.schemas.verification import SIGNATURE, signature

__all__ = ["AlarmSender", "sender_of"]

JSON: Final = "application/json"
TIMEOUT_S: Final = 10.0
MAX_ANSWER: Final = 1 << 16
FIRST_S: Final = 1.0
LONGEST_S: Final = 3600.0
PAGE: Final = 1000

log = logging.getLogger(__name__)


class AlarmSender:
    """The webhook of a deployment.

    Args:
        state: where alarms wait.
        place: where they are sent.
        secret: reads what signs them, anew for each; returns None for none.
        first_s, longest_s: how long to wait after a failure, twice as long after each more.
        clock: POSIX seconds.
    """

    def __init__(
        self,
        state: State,
        place: Destination,
        secret: Credential,
        *,
        first_s: float = FIRST_S,
        longest_s: float = LONGEST_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._state = state
        self._place = place
        self._secret = secret
        self._first_s = first_s
        self._longest_s = longest_s
        self._clock = clock
        self._more = asyncio.Event()
        self._taken: set[int] = set()
        self.sent = 0
        self.failures = 0
        self.waiting = 0

    def wake(self) -> None:
        """There is more to send: it does not wait for what was refused before."""
        self._more.set()

    async def run(self) -> None:
        """Send for ever; cancel it."""
        while True:
            self._more.clear()
            await self.flush()
            await self._more.wait()

    async def flush(self) -> None:
        """Send until nothing waits."""
        pause_s = self._first_s
        while not await self._sweep():
            if not await self._woken(pause_s):
                pause_s = min(2 * pause_s, self._longest_s)

    async def _woken(self, seconds: float) -> bool:
        """Wait so long, or until there is more."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._more.wait()
                self._more.clear()
                return True
        return False

    async def _sweep(self) -> bool:
        """Try each alarm that waits; whether all were taken, and that is written down."""
        try:
            taken = await self._each()
            self.waiting = await self._state.waiting_count()
        except StoreError as error:  # a full disk, say: it must not end the verifier
            log.warning("what the webhook has taken cannot be written down: %s", error)
            return False
        return taken and not self.waiting

    async def _each(self) -> bool:
        taken = True
        for item in await self._state.waiting(PAGE):
            if item.id not in self._taken:
                try:
                    status = await self._post(item)
                except (OutboundError, SealtapeError, OSError) as error:
                    self._failed(str(error))
                    return False  # the others would fare no better
                if not 200 <= status < 300:
                    self._failed(f"it answers {status}")
                    taken = False
                    continue
                self.sent += 1
                self._taken.add(item.id)
            await self._state.sent(item.id)
            self._taken.discard(item.id)
        return taken

    async def _post(self, item: Waiting) -> int:
        body = item.alarm.to_json()
        secret = await self._secret()
        headers = {}
        if secret is not None:
            headers[SIGNATURE] = signature(secret.encode(), int(self._clock()), body)
        answer = await post(
            self._place,
            body,
            kind=JSON,
            timeout_s=TIMEOUT_S,
            max_answer=MAX_ANSWER,
            headers=headers,
        )
        return answer.status

    def _failed(self, reason: str) -> None:
        self.failures += 1
        log.error("an alarm cannot be sent: the webhook: %s", reason)


def sender_of(settings: Settings, state: State) -> AlarmSender | None:
    """Who sends alarms as the settings say; None for nobody. Raises `SettingsError`."""
    verify, base = settings.verify, Path(settings.base)
    if not verify.webhook:
        return None
    ca = base / verify.webhook_ca if verify.webhook_ca else None
    place = destination(verify.webhook, ca, what="verify.webhook")
    secret = credential_of(verify.webhook_secret, base, where="verify.webhook_secret")
    return AlarmSender(state, place, secret)
