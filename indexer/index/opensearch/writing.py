"""Bulk writes, with each document's own outcome.

| the answer for a document | means |
|---|---|
| 2xx | written |
| 409 | a newer one is there: as good as written |
| 429, 503, a block | not now: asked again with growing pauses, then `StoreBusy` |
| a fault of its content | it goes into quarantine with the reason, the others go on |
| anything else | `StoreError` |

Nothing is acknowledged and gone: whoever calls goes on only when all of it is written.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from json.encoder import encode_basestring as quoted
from typing import Any

from sealtape.indexer.index.opensearch.client import BLOCKED, BLOCKED_S, BUSY_S, Cluster, cause_of
from sealtape.ingest.serving import together
from sealtape.schemas.errors import FormatError, StoreBusy, StoreError

__all__ = ["Action", "Quarantined", "Writer", "delete_action", "index_action", "quarantine_action"]

Json = dict[str, Any]

CHUNK_BYTES = 2 << 20
CHUNK_ACTIONS = 1000
IN_FLIGHT = 2
PAUSE_S = (0.1, 2.0)
"""The first pause and the longest; each is twice the one before, and a random part less."""
PATIENCE_S = 10.0
"""After this, whoever calls decides: the indexer keeps what it has and tries again for ever."""
MAX_REASON = 2000

_NDJSON = {"content-type": "application/x-ndjson"}
_ANSWER = {"filter_path": "errors,items.*.status,items.*.error.type,items.*.error.reason"}
_CONTENT = frozenset(
    {
        "mapper_parsing_exception",
        "document_parsing_exception",
        "strict_dynamic_mapping_exception",
        "max_bytes_length_exceeded_exception",
    }
)
"""Faults of a document's content."""
_IMMENSE = "Document contains at least one immense term"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Action:
    """One line or two of a bulk request, and whose document it is."""

    index: str
    id: str
    version: int
    head: bytes
    body: bytes

    @property
    def size(self) -> int:
        """Its bytes."""
        return len(self.head) + len(self.body)


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A document that OpenSearch would not take, and why."""

    action: Action
    kind: str
    reason: str


@dataclass(slots=True)
class _Outcome:
    """What became of some actions; `causes` are why the pending ones are."""

    pending: list[Action] = field(default_factory=list)
    refused: list[Quarantined] = field(default_factory=list)
    causes: set[str] = field(default_factory=set)


def index_action(index: str, name: str, source: Json, version: int | None = None) -> Action:
    """Write a document; with `version` only if no newer one is there."""
    head = f'{{"index":{{"_index":{quoted(index)},"_id":{quoted(name)}'
    if version is not None:
        # One more, as versions of OpenSearch's own begin with 1.
        head += f',"version":{version + 1},"version_type":"external_gte"'
    return Action(index, name, version or 0, _utf8(head + "}}"), _line(source))


def delete_action(index: str, name: str, version: int | None = None) -> Action:
    """Delete a document, which need not be there; with `version` only if no newer one is there."""
    about: Json = {"_index": index, "_id": name}
    if version is not None:
        about |= {"version": version + 1, "version_type": "external_gte"}
    return Action(index, name, version or 0, _line({"delete": about}), b"")


class Writer:
    """Writes actions in bulk, a few requests at a time."""

    def __init__(self, cluster: Cluster) -> None:
        """Take the cluster to write to."""
        self._cluster = cluster
        self._slots = asyncio.Semaphore(IN_FLIGHT)

    async def write(self, actions: Iterable[Action], *, refresh: bool = False) -> list[Quarantined]:
        """Write all; return what was refused for its content. Raises StoreBusy and StoreError.

        Two actions on one document may come in either order; their versions decide.
        """
        work = [self._chunk(chunk, refresh=refresh) for chunk in _chunks(actions)]
        return [one for refused in await together(*work) for one in refused] if work else []

    async def _chunk(self, actions: list[Action], *, refresh: bool) -> list[Quarantined]:
        refused: list[Quarantined] = []
        pause, deadline = PAUSE_S[0], time.monotonic() + PATIENCE_S
        while True:
            outcome = await self._send(actions, refresh=refresh)
            refused += outcome.refused
            if not outcome.pending:
                return refused
            if time.monotonic() + pause > deadline:
                raise _refused(outcome)
            actions = outcome.pending
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  (spreads load)
            pause = min(2 * pause, PAUSE_S[1])

    async def _send(self, actions: list[Action], *, refresh: bool) -> _Outcome:
        body = b"".join(part for action in actions for part in (action.head, action.body))
        params = {**_ANSWER, "refresh": "true"} if refresh else _ANSWER
        try:
            async with self._slots:
                answer = await self._cluster.request(
                    "POST", "/_bulk", body, params=params, headers=_NDJSON
                )
        except StoreBusy as exc:
            return _Outcome(pending=actions, causes={exc.message.rstrip(".")})
        outcome = _Outcome()
        if answer["errors"]:
            for action, item in zip(actions, answer["items"], strict=True):
                _sort(action, next(iter(item.values())), outcome)
        return outcome


def _refused(outcome: _Outcome) -> StoreBusy:
    return StoreBusy(
        f"OpenSearch does not take {len(outcome.pending)} documents: "
        f"{', '.join(sorted(outcome.causes))}.",
        retry_after_s=BLOCKED_S if BLOCKED in outcome.causes else BUSY_S,
        hint="It is short of disk (its indices are read-only then) or overloaded.",
    )


def _sort(action: Action, item: Json, outcome: _Outcome) -> None:
    status, cause = int(item["status"]), cause_of(item)
    if status < 300 or status == 409 or (status == 404 and not cause):
        return
    reason = str(item.get("error", {}).get("reason", ""))
    if status in (429, 503) or cause == BLOCKED:
        outcome.pending.append(action)
        outcome.causes.add(cause)
    elif status == 400 and (cause in _CONTENT or reason.startswith(_IMMENSE)):
        log.error("%s of %s goes into quarantine: %s", action.id, action.index, cause)
        outcome.refused.append(Quarantined(action, cause, reason[:MAX_REASON]))
    else:
        raise StoreError(
            f"OpenSearch does not take documents for {action.index}: {status} {cause}.",
            hint=_HINTS.get(cause, "Its log says more."),
        )


_HINTS = {
    "index_not_found_exception": "It must make indices by itself: action.auto_create_index.",
    "index_closed_exception": "Open the index again.",
    "security_exception": "deploy/opensearch/roles.yml has the permissions of the indexer.",
    "validation_exception": "It has as many shards as it may: cluster.max_shards_per_node.",
}


_ENCODER = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":"))


def _line(value: Json) -> bytes:
    return _utf8(_ENCODER.encode(value))


def _utf8(text: str) -> bytes:
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError as exc:
        raise FormatError(f"A document cannot be written as JSON: {exc.reason}.") from exc


def _chunks(actions: Iterable[Action]) -> Iterator[list[Action]]:
    chunk: list[Action] = []
    size = 0
    for action in actions:
        if chunk and (size + action.size > CHUNK_BYTES or len(chunk) == CHUNK_ACTIONS):
            yield chunk
            chunk, size = [], 0
        chunk.append(action)
        size += action.size
    if chunk:
        yield chunk


def quarantine_action(index: str, refused: Quarantined) -> Action:
    """Keep a refused document, whole, with the reason; the same one is kept once."""
    action = refused.action
    document = json.loads(action.body)
    ours = document["sealtape"]
    source = {
        "@timestamp": time.time_ns() // 1_000_000,
        "session": document["session"],
        "sealtape": {"tenant": ours["tenant"], "retention": ours["retention"]},
        "error": {"type": refused.kind, "message": refused.reason},
        "quarantine": {
            "index": action.index,
            "id": action.id,
            "version": action.version,
            "document": action.body.decode(),
        },
    }
    return index_action(index, f"{action.id}@{action.version}", source)
