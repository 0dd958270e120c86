"""How far the log has sessions: their seals in it, under a checkpoint with the policy's quorum.

This is what the ledger knows. `sealtape verify` reads the log itself.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sealtape.indexer.cli import output
from sealtape.indexer.cli.stores import ledger_of
from sealtape.ingest.ledger import Ledger
from sealtape.ingest.ledger.rows import LogState
from sealtape.ingest.tlog.names import seal_name
from sealtape.ingest.tlog.opening import read_policy
from sealtape.ingest.tlog.publish import checkpoint_of
from sealtape.schemas.errors import FormatError, SettingsError, StoreError
from sealtape.schemas.settings import Settings
from sealtape.schemas.verify.anchors import witnessed_time

__all__ = ["LOG_STATES", "Logged", "logged_sessions", "logged_times", "read_logged"]

NONE: Final = "none"
PENDING: Final = "pending"
WITNESSED: Final = "witnessed"
LOG_STATES: Final = (NONE, PENDING, WITNESSED)

_EPOCHS: Final = 4
_SECOND_NS: Final = 10**9


@dataclass(frozen=True, slots=True)
class Logged:
    """How far the log has a session.

    Attributes:
        state: `none` while an epoch has no seal in the log, `pending` until all are witnessed.
        seals: where the seals are: epoch, shard of the log, index.
        log: the log when it was asked, where it was.
    """

    state: str = NONE
    seals: tuple[tuple[int, int, int], ...] = ()
    log: LogState | None = field(default=None, compare=False, repr=False)


async def read_logged(settings: Settings, sessions: Iterable[bytes]) -> Mapping[bytes, Logged]:
    """What the ledger knows of these sessions; nothing, and a word of it, where it is away."""
    wanted = list(dict.fromkeys(sessions))
    if not wanted:
        return {}
    try:
        async with ledger_of(settings) as ledger:
            return await logged_sessions(ledger, wanted)
    except StoreError as error:
        print(f"The log's state is not known: {error.message}", file=sys.stderr)
        return {}


async def logged_sessions(ledger: Ledger, sessions: Sequence[bytes]) -> dict[bytes, Logged]:
    """How far the log has each; the number of questions does not grow with that of sessions."""
    epochs = await _epochs(ledger, sessions)
    # Asked before the places: what comes meanwhile is then pending, never the other way round.
    state = await ledger.log_state()
    places = await ledger.log_find(
        [seal_name(session, epoch) for session, found in epochs.items() for epoch in found]
    )
    return {session: _logged(session, found, places, state) for session, found in epochs.items()}


async def _epochs(ledger: Ledger, sessions: Sequence[bytes]) -> dict[bytes, list[int]]:
    """The epochs of each session. Hardly any has more than two, so a few are asked for at once."""
    epochs: dict[bytes, list[int]] = {session: [] for session in sessions}
    first, rest = 0, list(sessions)
    while rest:
        asked = range(first, first + _EPOCHS)
        heads = await ledger.heads([(session, epoch) for session in rest for epoch in asked])
        for session, epoch in sorted(heads):
            epochs[session].append(epoch)
        rest = [session for session in rest if (session, asked[-1]) in heads]
        first += _EPOCHS
    return epochs


def _logged(
    session: bytes,
    epochs: Sequence[int],
    places: Mapping[str, tuple[int, int]],
    state: LogState,
) -> Logged:
    seals = tuple(
        (epoch, *places[name]) for epoch in epochs if (name := seal_name(session, epoch)) in places
    )
    if not seals or len(seals) < len(epochs):
        return Logged(NONE, seals, state)
    checkpoint = checkpoint_of(state.witnessed)
    # No shard begins before the last checkpoint of the one before it is witnessed.
    covered = (state.number, 0 if checkpoint is None else checkpoint.size)
    known = all(seal[1:] < covered for seal in seals)
    return Logged(WITNESSED if known else PENDING, seals, state)


def logged_times(settings: Settings, logged: Logged | None) -> dict[str, Any]:
    """What `show` adds: the seals' entries, the log's size, and when a quorum had witnessed it."""
    if logged is None or not logged.seals or logged.log is None:
        return {}
    state = logged.log
    checkpoint = checkpoint_of(state.witnessed)
    found: dict[str, Any] = {
        "log_entries": [
            {"epoch": epoch, "shard": shard, "index": index} for epoch, shard, index in logged.seals
        ],
        "log_size": state.size,
        "log_witnessed_size": 0 if checkpoint is None else checkpoint.size,
        "log_witnessed": None,
    }
    if state.witnessed:
        try:
            policy = read_policy(settings)
            seconds = witnessed_time(policy, policy.open(state.witnessed).times)
        except (FormatError, SettingsError):
            return found  # whose policy or keys are elsewhere cannot tell the time
        found["log_witnessed"] = None if seconds is None else output.iso(seconds * _SECOND_NS)
    return found
