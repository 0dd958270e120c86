"""Removing sessions so that no text of them is left in any file.

Deleting hides documents. OpenSearch keeps them in their segments until a merge drops them, and a
merge keeps them as long as a retention lease wants their history (leases move on every 30 s). So a
removal is: mark the indices as unclean, delete by query until nothing is found, commit, wait until
no lease reaches back, merge every segment that has deleted documents away, refresh so that the old
files are let go, and take the marks off. A mark outlives a crash; the next removal goes on with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sealtape.indexer.index.opensearch.client import BUSY_S, Cluster
from sealtape.indexer.index.opensearch.layout import Layout
from sealtape.indexer.index.opensearch.search import READ, hits_of
from sealtape.indexer.index.opensearch.writing import Writer, delete_action, index_action
from sealtape.schemas.errors import StoreBusy

__all__ = ["Removal", "joined"]

Json = dict[str, Any]

LONG_S = 600.0
"""A request that goes through a whole index may take this long."""
LEASES_S = 120.0
PAUSE_S = 0.5
ROUNDS = 40
UNCLEAN = "unclean"

_IDS = 1000
_INDICES = 10_000
_URL_BYTES = 3000
"""OpenSearch takes a request line of 4096 bytes."""
_LENIENT = {name: READ[name] for name in ("ignore_unavailable", "allow_no_indices")}

Segment = tuple[str, str, str, str]
"""Index, shard, node and name: names are given once per copy of a shard."""


class Removal:
    """Takes sessions out of an index."""

    def __init__(self, cluster: Cluster, layout: Layout, writer: Writer) -> None:
        """Take what belongs to the adapter."""
        self._cluster = cluster
        self._layout = layout
        self._writer = writer
        self._everything = f"{layout.sessions},{layout.commands},{layout.quarantine}"

    async def remove(self, sessions: Sequence[str]) -> None:
        """Remove all documents of these sessions, and what is left of former removals."""
        for start in range(0, len(sessions), _IDS):
            await self._delete(sessions[start : start + _IDS])
        unclean = await self._unclean()
        if unclean:
            await self._purge(unclean)
            done = [delete_action(self._layout.state, f"{UNCLEAN}:{index}") for index in unclean]
            await self._writer.write(done, refresh=True)

    async def _delete(self, sessions: Sequence[str]) -> None:
        theirs: Json = {"terms": {"session.id": list(sessions)}}
        await self._ask("POST", f"/{self._everything}/_refresh", params=_LENIENT)
        for _ in range(ROUNDS):
            indices = await self._indices(theirs)
            if not indices:
                return
            marks = [
                index_action(
                    self._layout.state, f"{UNCLEAN}:{index}", {"kind": UNCLEAN, "name": index}
                )
                for index in indices
            ]
            await self._writer.write(marks, refresh=True)
            await self._ask(
                "POST",
                f"/{self._everything}/_delete_by_query",
                {"query": theirs},
                # Whoever writes one of the documents meanwhile makes a conflict: look again.
                params={**_LENIENT, "conflicts": "proceed", "refresh": "true"},
            )
        raise StoreBusy(
            "Sessions that are removed are being written at the same time.", retry_after_s=BUSY_S
        )

    async def _indices(self, condition: Json) -> list[str]:
        body = {
            "size": 0,
            "query": {"bool": {"filter": [condition]}},
            "aggs": {"indices": {"terms": {"field": "_index", "size": _INDICES}}},
        }
        answer = await self._ask("POST", f"/{self._everything}/_search", body, params=READ)
        hits_of(answer)
        buckets = answer.get("aggregations", {}).get("indices", {}).get("buckets", [])
        return [bucket["key"] for bucket in buckets]

    async def _unclean(self) -> list[str]:
        body = {
            "size": _INDICES,
            "query": {"bool": {"filter": [{"term": {"kind": UNCLEAN}}]}},
            "_source": ["name"],
        }
        state = self._layout.state
        await self._ask("POST", f"/{state}/_refresh", params=_LENIENT)
        hits = hits_of(await self._ask("POST", f"/{state}/_search", body, params=READ))
        return [hit["_source"]["name"] for hit in hits]

    # -- files -------------------------------------------------------------------------------------

    async def _purge(self, indices: Sequence[str]) -> None:
        """Return when no segment of these indices has a document that was deleted before."""
        for names in joined(indices):
            await self._history_gone(names)
            # What a merge that was under way carried along is in its new segment: hence twice.
            for _ in range(2):
                await self._merge_away(names)
            await self._ask("POST", f"/{names}/_refresh", params=_LENIENT)

    async def _history_gone(self, names: str) -> None:
        """Wait until no lease and no commit reaches back to what is deleted now."""
        wanted = {copy: last for copy, last, _ in await self._shards(names)}
        await self._ask("POST", f"/{names}/_flush", params=_LENIENT)
        deadline = time.monotonic() + LEASES_S
        while True:
            behind = [
                copy
                for copy, _, reached in await self._shards(names)
                if reached <= wanted.get(copy, -1)
            ]
            if not behind:
                return
            if time.monotonic() > deadline:
                raise StoreBusy(
                    "The sessions are removed, but OpenSearch still keeps the history of "
                    f"{behind[0][0]}.",
                    retry_after_s=BUSY_S,
                    hint="Call it again. A copy of a shard may be missing, or a follower behind.",
                )
            await asyncio.sleep(PAUSE_S)

    async def _shards(self, names: str) -> list[tuple[tuple[str, str, str], int, int]]:
        """Each copy of a shard: its last operation, and the first that it may not forget."""
        params = {**_LENIENT, "level": "shards"}
        answer = await self._ask("GET", f"/{names}/_stats/docs,segments", params=params)
        found = []
        for index, about in answer.get("indices", {}).items():
            for number, copies in about.get("shards", {}).items():
                for copy in copies:
                    leases = copy.get("retention_leases", {}).get("leases", [])
                    kept = min((int(lease["retaining_seq_no"]) for lease in leases), default=0)
                    commit = int(copy["commit"]["user_data"]["local_checkpoint"]) + 1
                    node = str(copy["routing"]["node"])
                    last = int(copy["seq_no"]["max_seq_no"])
                    found.append(((index, number, node), last, min(kept, commit)))
        return found

    async def _merge_away(self, names: str) -> None:
        listed = {segment for segment, deleted in await self._segments(names) if deleted}
        params = {**_LENIENT, "only_expunge_deletes": "true"}
        for _ in range(ROUNDS):
            if not listed:
                return
            await self._ask("POST", f"/{names}/_forcemerge", params=params)
            await self._ask("POST", f"/{names}/_refresh", params=_LENIENT)
            listed &= {segment for segment, _ in await self._segments(names)}
            if listed:
                await asyncio.sleep(PAUSE_S)
        raise StoreBusy(
            "The sessions are removed, but OpenSearch did not merge their old segments away.",
            retry_after_s=BUSY_S,
            hint="Call it again.",
        )

    async def _segments(self, names: str) -> list[tuple[Segment, int]]:
        answer = await self._ask("GET", f"/{names}/_segments", params=_LENIENT)
        return [
            ((index, number, str(copy["routing"]["node"]), name), int(about["deleted_docs"]))
            for index, shards in answer.get("indices", {}).items()
            for number, copies in shards["shards"].items()
            for copy in copies
            for name, about in copy["segments"].items()
        ]

    async def _ask(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        return await self._cluster.request(method, path, body, timeout_s=LONG_S, **more)


def joined(indices: Iterable[str]) -> Iterator[str]:
    """Names with commas between, as many as fit into the address of a request."""
    part: list[str] = []
    size = 0
    for index in sorted(indices):
        if part and size + len(index) > _URL_BYTES:
            yield ",".join(part)
            part, size = [], 0
        part.append(index)
        size += len(index) + 1
    if part:
        yield ",".join(part)
