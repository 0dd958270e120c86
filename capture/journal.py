"""The journal: one recorded session per boot for what belongs to no session.

Refusals, what was scanned and never became a session, heartbeats that list the live sessions, and
events of the node. It is a session like any other (number 0), so its frames are sealed, signed,
encrypted and kept like theirs.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping

from sealtape.capture.metrics.counts import Counts
from sealtape.capture.recorder import SessionRecorder
from sealtape.schemas.facts import HEARTBEAT, MAX_LIVE, NODE, REFUSAL, Live, encode_tail

MAX_REFUSALS = 1000
"""Refusals written one by one between two heartbeats; a port scan must not fill the disk."""


_log = logging.getLogger(__name__)


class Journal:
    """Writes facts into the worker's journal session; never raises and never waits."""

    def __init__(self, recorder: SessionRecorder, counts: Counts | None = None) -> None:
        """Use the recorder of session number 0; `counts` is told too, for the metrics."""
        self.recorder = recorder
        self._totals = counts or Counts()
        self._counts: Counter[str] = Counter()
        self._refusals = 0

    def refusal(
        self,
        reason: str,
        *,
        protocol: str,
        source: str = "",
        target: str = "",
        user: str = "",
        code: str = "",
        message: str = "",
    ) -> None:
        """Record that a client was refused: `reason` and `code` as in `errors.Refused`.

        `user` only when a token was verified. A flood of refusals is counted from some point on.
        """
        self._totals.refusal(protocol, target, reason)
        self._refusals += 1
        if self._refusals > MAX_REFUSALS:
            self._counts[f"refusal-{reason}"] += 1
            return
        known = {"protocol": protocol, "source": source, "target": target, "user": user}
        attributes = {name: value for name, value in known.items() if value}
        told = {"reason": reason, "protocol": protocol, "target": self._totals.target(target)}
        _log.info("refused", extra=told)
        tail = encode_tail(status=reason, code=code, message=message, attributes=attributes)
        self.recorder.fact(REFUSAL, tail=tail, error=True)

    def event(self, name: str, attributes: Mapping[str, str] | None = None) -> None:
        """Record an event of the node, such as `started` or `spool-failing`."""
        self.recorder.fact(NODE, tail=encode_tail(status=name, attributes=attributes or {}))

    def count(self, name: str) -> None:
        """Count what is too cheap to record one by one (port scans, garbage)."""
        self._totals.strangers[name] += 1
        self._counts[name] += 1

    def heartbeat(self, live: Iterable[SessionRecorder], *, worker: int, following: int) -> None:
        """List the live sessions with size and root of their trees, and the counts since the last.

        `following` is the number the next session will get. A list too long for one fact goes on
        in the next; the status says which part it is.
        """
        self._refusals = 0
        attributes = {"worker": str(worker), "next": str(following)}
        entries = [
            Live(each.session, each.epoch, each.number, each.size, each.root())
            for each in live
            if not each.closed
        ]
        parts = [entries[at : at + MAX_LIVE] for at in range(0, len(entries), MAX_LIVE)] or [[]]
        for number, part in enumerate(parts):
            tail = encode_tail(
                status=f"{number + 1}/{len(parts)}",
                rows=len(entries),
                attributes=attributes,
                live=part,
            )
            self.recorder.fact(HEARTBEAT, tail=tail)
        if self._counts:
            counts = {name: str(count) for name, count in sorted(self._counts.items())[:32]}
            self._counts.clear()
            self.event("counted", counts)
