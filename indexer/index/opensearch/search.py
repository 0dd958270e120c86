"""Searches: pages of commands, and of sessions with what is asked of their commands.

OpenSearch joins no two indices, so a query about sessions *and* their commands is answered in
batches, exactly: from whichever side has fewer candidates, each checked on the other side. Pages go
by the values of the last hit, which no other document has, so what is written meanwhile neither
repeats a hit nor skips one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, TypeVar

from sealtape.indexer.index.base import Hits, Page
from sealtape.indexer.index.opensearch import query as dsl
from sealtape.indexer.index.opensearch.client import Cluster
from sealtape.indexer.index.opensearch.documents import FOREVER, read_command, read_session
from sealtape.indexer.index.opensearch.layout import Layout
from sealtape.indexer.index.opensearch.query import SessionPlan, all_of, any_of
from sealtape.indexer.query import Query
from sealtape.schemas.documents import CommandDocument, SessionDocument
from sealtape.schemas.errors import StoreBusy, UsageError
from sealtape.schemas.frames import MAX_EPOCH

__all__ = ["READ", "hits_of", "search_commands", "search_sessions"]

Json = dict[str, Any]
Document = TypeVar("Document", SessionDocument, CommandDocument)

READ = {
    # Half an answer would pass for a whole one.
    "allow_partial_search_results": "false",
    # Before the first document there is no index, and an alias of none does not exist.
    "ignore_unavailable": "true",
    "allow_no_indices": "true",
}
_BATCH = 1000
"""Hits in one answer: more would keep the event loop busy with reading it."""
_FIRST_BATCH = 100
_IDS = 2000
"""Sessions checked at once."""
_FEW_SESSIONS = 1000
_MANY_COMMANDS = 50_000
"""Beyond these, matching commands are not gone through; the sessions are."""
_SHARD_PAUSES_S = (0.1, 0.2, 0.4, 0.8, 1.5)

_COMMAND_ORDER = ("sealtape.time_ns", "sealtape.n", "session.id", "sealtape.epoch")
_SESSION_ORDER = ("find.start_ns", "session.id")
_COMMAND_CURSOR = re.compile(
    r"([0-9]{1,19})\.([0-9]{1,19})\.([0-9a-f]{32})\.([0-9]{1,10})", re.ASCII
)
_SESSION_CURSOR = re.compile(r"([0-9]{1,19})\.([0-9a-f]{32})", re.ASCII)

Keys = Sequence[Any]
"""Values of the fields a search is ordered by."""
Found = tuple[Json, Keys]
"""A document's source, and its keys."""


async def search_commands(
    cluster: Cluster, layout: Layout, query: Query, page: Page
) -> Hits[CommandDocument]:
    """Search commands; see `Index.search_commands`."""
    _check(page)
    keys = _command_keys(page.after)
    condition = dsl.commands(query)
    found = _scan(cluster, layout.commands, condition, _COMMAND_ORDER, keys, page)
    return await _page(found, page, read_command)


async def search_sessions(
    cluster: Cluster, layout: Layout, query: Query, page: Page
) -> Hits[SessionDocument]:
    """Search sessions; see `Index.search_sessions`."""
    _check(page)
    keys = _session_keys(page.after)
    plan = dsl.sessions(query)
    if plan.some is None and plan.none is None:
        found = _scan(cluster, layout.sessions, plan.session, _SESSION_ORDER, keys, page)
    elif plan.some is None or not await _few_commands(cluster, layout, plan):
        found = _by_sessions(cluster, layout, plan, keys, page)
    else:
        found = _by_commands(cluster, layout, plan, keys, page)
    return await _page(found, page, read_session)


def hits_of(answer: Json) -> list[Json]:
    """The hits in an answer that is whole. Raises StoreBusy for half of one."""
    if answer.get("timed_out") or answer.get("_shards", {}).get("failed"):
        raise StoreBusy("Not all parts of the index answered.", retry_after_s=1.0)
    hits: list[Json] = answer.get("hits", {}).get("hits", [])
    return hits


# -- pages -----------------------------------------------------------------------------------------


def _check(page: Page) -> None:
    if page.limit < 1:
        raise UsageError(f"A page of {page.limit} hits has no sense.", hint="Ask for 1 or more.")


def _bad_cursor(text: str) -> UsageError:
    return UsageError(f"{text!r} is not a cursor of a search.", hint="Start again without it.")


def _command_keys(cursor: str) -> Keys:
    if not cursor:
        return ()
    found = _COMMAND_CURSOR.fullmatch(cursor)
    if found is None or max(int(found[1]), int(found[2])) > FOREVER or int(found[4]) > MAX_EPOCH:
        raise _bad_cursor(cursor)
    return int(found[1]), int(found[2]), found[3], int(found[4])


def _session_keys(cursor: str) -> Keys:
    if not cursor:
        return ()
    found = _SESSION_CURSOR.fullmatch(cursor)
    if found is None or int(found[1]) > FOREVER:
        raise _bad_cursor(cursor)
    return int(found[1]), found[2]


async def _page(
    found: AsyncIterator[Found], page: Page, read: Callable[[Mapping[str, Any]], Document]
) -> Hits[Document]:
    documents: list[Document] = []
    last: Keys = ()
    async for source, keys in found:
        if len(documents) == page.limit:
            return Hits(tuple(documents), ".".join(map(str, last)))
        documents.append(read(source))
        last = keys
    return Hits(tuple(documents))


def _order(fields: Sequence[str], page: Page) -> list[Json]:
    return [{field: "asc" if page.oldest_first else "desc"} for field in fields]


_WITHOUT = {"excludes": ["find", "sealtape.progress"]}


async def _scan(
    cluster: Cluster,
    index: str,
    condition: Json,
    order: Sequence[str],
    keys: Keys,
    page: Page,
    *,
    source: Json | bool = _WITHOUT,
) -> AsyncIterator[Found]:
    """Everything behind `keys`, in order; asks for a page and one more hit, then for more."""
    size = min(page.limit + 1, _BATCH)
    while True:
        body: Json = {
            "size": size,
            "query": {"bool": {"filter": [condition]}},
            "sort": _order(order, page),
            "track_total_hits": False,
            "_source": source,
        }
        if keys:
            body["search_after"] = list(keys)
        hits = await _search(cluster, index, body)
        for hit in hits:
            yield hit.get("_source", {}), hit["sort"]
        if len(hits) < size:
            return
        keys = hits[-1]["sort"]
        size = min(4 * size, _BATCH)


async def _search(cluster: Cluster, index: str, body: Json) -> list[Json]:
    return hits_of(await _answer(cluster, index, body))


async def _answer(cluster: Cluster, index: str, body: Json) -> Any:
    """Ask; wait a little for shards that are not there yet.

    An index that was made a moment ago (the first session of a month, the first command of a day)
    answers 503 until its shard is started, and only whole results will do.
    """
    for pause_s in _SHARD_PAUSES_S:
        try:
            return await cluster.request("POST", f"/{index}/_search", body, params=READ)
        except StoreBusy:
            await asyncio.sleep(pause_s)
    return await cluster.request("POST", f"/{index}/_search", body, params=READ)


# -- sessions and their commands -------------------------------------------------------------------


async def _few_commands(cluster: Cluster, layout: Layout, plan: SessionPlan) -> bool:
    """Whether the commands are the shorter way."""
    sessions = await _count(cluster, layout.sessions, plan.session, _FEW_SESSIONS)
    if sessions <= _FEW_SESSIONS:
        return False
    assert plan.some is not None
    return await _count(cluster, layout.commands, plan.some, _MANY_COMMANDS) <= _MANY_COMMANDS


async def _count(cluster: Cluster, index: str, condition: Json, limit: int) -> int:
    """How many match; beyond `limit`, more than that."""
    body = {
        "size": 0,
        "query": {"bool": {"filter": [condition]}},
        "track_total_hits": limit + 1,
    }
    answer = await _answer(cluster, index, body)
    hits_of(answer)
    return int(answer["hits"]["total"]["value"])


async def _by_sessions(
    cluster: Cluster, layout: Layout, plan: SessionPlan, keys: Keys, page: Page
) -> AsyncIterator[Found]:
    """Go through the sessions in batches, and ask the commands about each batch.

    Of the sessions only the keys are read before: most of them may be none of the hits.
    """
    batch: list[Keys] = []
    size = _FIRST_BATCH
    scanned = _scan(
        cluster, layout.sessions, plan.session, _SESSION_ORDER, keys, page, source=False
    )
    async for _, last in scanned:
        batch.append(last)
        if len(batch) == size:
            async for found in _read(cluster, layout, plan, batch, page):
                yield found
            batch, size = [], min(4 * size, _IDS)
    async for found in _read(cluster, layout, plan, batch, page):
        yield found


async def _read(
    cluster: Cluster, layout: Layout, plan: SessionPlan, batch: list[Keys], page: Page
) -> AsyncIterator[Found]:
    """The sessions of a batch that are hits, read as far as they are wanted."""
    kept = await _kept(cluster, layout, plan, [keys[1] for keys in batch])
    ids = [keys[1] for keys in batch if keys[1] in kept]
    for start in range(0, len(ids), page.limit + 1):
        part = ids[start : start + page.limit + 1]
        for found in await _looked_up(cluster, layout, plan, part, page):
            yield found


async def _kept(cluster: Cluster, layout: Layout, plan: SessionPlan, ids: list[str]) -> set[str]:
    """Those of some sessions whose commands are as the plan wants them."""
    if not ids:
        return set()
    asked = {name: part for name, part in (("some", plan.some), ("none", plan.none)) if part}
    names = {"terms": {"field": "session.id", "size": len(ids), "execution_hint": "map"}}
    body = {
        "size": 0,
        "query": all_of([{"terms": {"session.id": ids}}, any_of(list(asked.values()))]),
        "track_total_hits": False,
        "aggs": {name: {"filter": part, "aggs": {"ids": names}} for name, part in asked.items()},
    }
    answer = await _answer(cluster, layout.commands, body)
    hits_of(answer)
    found = {
        name: {bucket["key"] for bucket in part["ids"]["buckets"]}
        for name, part in answer.get("aggregations", {}).items()
    }
    some = set(ids) if plan.some is None else found.get("some", set())
    return some - found.get("none", set())


async def _by_commands(
    cluster: Cluster, layout: Layout, plan: SessionPlan, keys: Keys, page: Page
) -> AsyncIterator[Found]:
    """Go through the sessions of matching commands in batches, and look at each session."""
    assert plan.some is not None
    size = _FIRST_BATCH
    while True:
        conditions = [plan.some]
        if keys:
            # Hits of which one per session is wanted cannot be asked for by `search_after`.
            conditions.append(dsl.after(_SESSION_ORDER, keys, oldest_first=page.oldest_first))
        body = {
            "size": size,
            "query": {"bool": {"filter": conditions}},
            "sort": _order(_SESSION_ORDER, page),
            "collapse": {"field": "session.id"},
            "track_total_hits": False,
            "_source": False,
        }
        candidates = await _search(cluster, layout.commands, body)
        ids = [hit["sort"][1] for hit in candidates]
        if plan.none is not None:
            kept = await _kept(cluster, layout, SessionPlan(plan.session, None, plan.none), ids)
            ids = [session for session in ids if session in kept]
        for found in await _looked_up(cluster, layout, plan, ids, page):
            yield found
        if len(candidates) < size:
            return
        keys = candidates[-1]["sort"]
        size = min(4 * size, _IDS)


async def _looked_up(
    cluster: Cluster, layout: Layout, plan: SessionPlan, ids: list[str], page: Page
) -> list[Found]:
    """Those of some sessions that are as the plan wants them."""
    found: list[Found] = []
    for start in range(0, len(ids), _BATCH - 1):
        part = ids[start : start + _BATCH - 1]
        wanted = all_of([{"terms": {"session.id": part}}, plan.session])
        whole = Page(limit=len(part), oldest_first=page.oldest_first)
        hits = _scan(cluster, layout.sessions, wanted, _SESSION_ORDER, (), whole)
        found += [hit async for hit in hits]
    return found
