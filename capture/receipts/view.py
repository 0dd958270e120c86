"""The log as a capture node sees it: through its server, by the node's own policy.

Nothing that the server says counts before it is verified, so neither it nor the way to it has to
be trusted; it can only keep silent.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from pathlib import Path
from typing import Final

from sealtape.capture.outbound import Destination, OutboundError, destination, get
from sealtape.schemas.bodies import Beacon
from sealtape.schemas.errors import FormatError, SettingsError
from sealtape.schemas.settings import Settings
from sealtape.schemas.tlog.policy import LogPolicy, parse_policy
from sealtape.schemas.tlog.receipts import (
    MAX_BEACON,
    MAX_RECEIPT,
    Ended,
    beacon_of,
    verify_receipt,
)
from sealtape.schemas.tlog.records import SessionSeal

__all__ = ["LogView", "open_view"]

TIMEOUT_S: Final = 5.0

log = logging.getLogger(__name__)


class LogView:
    """Asks one log's server.

    Attributes:
        beacon: the newest witnessed checkpoint that was verified; None before the first.
        error: why the last question had no usable answer; empty when it had.
    """

    def __init__(
        self, server: Destination, policy: LogPolicy, name: str, *, timeout_s: float = TIMEOUT_S
    ) -> None:
        """`name` is the log's, `policy` what the node trusts of it."""
        self.beacon: Beacon | None = None
        self.error = ""
        self._server = server
        self._policy = policy
        self._name = name
        self._timeout_s = timeout_s

    async def look(self) -> bool:
        """Fetch the beacon; whether it moved on. Never raises for what the server does."""
        try:
            note = await self._get("beacon", MAX_BEACON)
            moved = bool(note) and self._take(beacon_of(note, self._policy, self._name))
        except (OutboundError, FormatError) as error:
            self._fails(str(error))
            return False
        if self.error:
            log.warning("the log's server %s answers again", self._server.url)
            self.error = ""
        return moved

    async def receipt(self, ended: Ended) -> SessionSeal | None:
        """The seal of an epoch that the log proves to have witnessed; None while there is none.

        Raises OutboundError when the server does not answer, and FormatError when what it answers
        proves nothing.
        """
        name = f"receipt/{ended.session.hex()}/{ended.epoch}"
        data = await self._get(name, MAX_RECEIPT)
        return verify_receipt(data, ended, self._policy, self._name) if data else None

    async def _get(self, name: str, most: int) -> bytes:
        """What is there; empty where nothing is."""
        answer = await get(
            self._server, self._server.below(name), timeout_s=self._timeout_s, max_answer=most
        )
        if answer.status == HTTPStatus.NOT_FOUND:
            return b""
        if answer.status != HTTPStatus.OK:
            raise OutboundError(f"HTTP {answer.status}")
        return answer.body

    def _take(self, found: Beacon) -> bool:
        """Never go back: an older checkpoint would make a session look older than it is."""
        known = self.beacon
        if known is None or _place(found) > _place(known):
            self.beacon = found
            return True
        if found != known:
            raise FormatError(
                f"{found.origin} has {found.size} entries, and had {known.size} of {known.origin},"
                " with another root or more: the log went back, or there are two of it"
            )
        return False

    def _fails(self, reason: str) -> None:
        if reason != self.error:
            log.error("the log's server %s gives no beacon: %s", self._server.url, reason)
        self.error = reason


def _place(beacon: Beacon) -> tuple[int, int]:
    return int(beacon.origin.rpartition("/")[2]), beacon.size


def open_view(settings: Settings) -> LogView | None:
    """The log that `capture.log` names; None where it names none. Raises `SettingsError`."""
    capture, base = settings.capture, Path(settings.base)
    if not capture.log:
        return None
    ca = None if capture.log_ca is None else base / capture.log_ca
    path = base / capture.log_policy
    try:
        policy = parse_policy(path.read_bytes())
    except OSError as error:
        raise SettingsError(
            f"The node's policy over the log, {path}, cannot be read.",
            hint="capture.log_policy names it: a copy of the log's keys, the witnesses and the"
            " quorum that this node trusts.",
        ) from error
    except FormatError as error:
        raise SettingsError(f"The node's policy over the log, {path}: {error.message}.") from error
    return LogView(
        destination(capture.log, ca, what="capture.log"), policy, settings.deployment.log
    )
