"""`opensearch:`, an index in an OpenSearch cluster.

* A document's index follows from its session's tenant, retention class and start, its version from
  its `revision` or `version`: writing again changes nothing.
* A session's progress is kept inside its document, so that the two are one write: progress beside a
  document of another moment would count frames twice.
* `put` writes documents, then positions; each request is on disk when it is answered. Then what was
  touched is refreshed, so that it is found.
* Dropped sessions have a tombstone, looked for before and after each write: whichever of a writer
  and a drop comes second finds the other's work.

Any number of processes may write and search at the same time.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Collection, Coroutine, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sealtape.indexer.index.base import Hits, Page, Update, stored
from sealtape.indexer.index.opensearch import documents
from sealtape.indexer.index.opensearch.client import BUSY_S, Cluster
from sealtape.indexer.index.opensearch.layout import Layout, Place, is_newer
from sealtape.indexer.index.opensearch.removal import Removal, joined
from sealtape.indexer.index.opensearch.search import (
    READ,
    hits_of,
    search_commands,
    search_sessions,
)
from sealtape.indexer.index.opensearch.writing import (
    Action,
    Writer,
    delete_action,
    index_action,
    quarantine_action,
)
from sealtape.indexer.query import Match, Query, Value
from sealtape.ingest.serving import results
from sealtape.schemas.documents import CommandDocument, SessionDocument, parse_command_id
from sealtape.schemas.errors import (
    Ambiguous,
    FormatError,
    NotFound,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    UsageError,
)
from sealtape.schemas.urls import SECRET_OPTIONS, TLS_OPTIONS, StoreUrl, parse_store_url

__all__ = ["OpenSearchIndex", "check_layout", "parse_url", "store_url"]

Json = dict[str, Any]

MAX_PLACES = 65_536
_OPTIONS = (*TLS_OPTIONS, *SECRET_OPTIONS, "shards", "replicas")
_PREFIX = re.compile(r"[0-9a-f]{1,32}")
_IDS = 1000
_POSITIONS = 10_000
_PLACE = ["find.start_ns"]


def store_url(url: str) -> StoreUrl:
    """Return the parts of an index's URL. Raises SettingsError."""
    return parse_store_url(url, options=_OPTIONS)


def parse_url(url: str, base: Path) -> tuple[Cluster, Layout]:
    """Return the cluster and the names that a URL tells of. Raises SettingsError."""
    parsed = store_url(url)
    layout = Layout(
        parsed.path,
        shards=parsed.whole("shards", 1, 1, 1024),
        replicas=parsed.whole("replicas", 1, 0, 20),
    )
    return Cluster(parsed, base), layout


@dataclass(frozen=True, slots=True)
class _Kept:
    """A session as the index has it; `source` is None unless it was asked for."""

    place: Place
    source: Json | None


class OpenSearchIndex:
    """See `Index` for the contract. Open with `await OpenSearchIndex.open(url, base)`."""

    def __init__(self, cluster: Cluster, layout: Layout, *, read_only: bool) -> None:
        """Only `open` calls this."""
        self.quarantined = 0
        """Documents that went into quarantine since this was opened."""
        self._cluster = cluster
        self._layout = layout
        self._read_only = read_only
        self._writer = Writer(cluster)
        self._removal = Removal(cluster, layout, self._writer)
        self._places: OrderedDict[str, Place] = OrderedDict()
        self._removed: set[str] = set()
        self._formed: set[str] = set()

    @classmethod
    async def open(cls, url: str, base: Path, *, read_only: bool = False) -> OpenSearchIndex:
        """Open `opensearch://USER@HOST:PORT/PREFIX`, which `sealtape index setup` has prepared."""
        cluster, layout = parse_url(url, base)
        try:
            await check_layout(cluster, layout)
        except BaseException:
            await cluster.close()
            raise
        return cls(cluster, layout, read_only=read_only)

    # -- writing -----------------------------------------------------------------------------------

    async def put(self, update: Update) -> None:
        """Write an update; see `Index.put`."""
        self._check_writable()
        named = {document.id for document in update.sessions} | set(update.progress)
        named |= {session.hex() for session in {found.session for found in update.commands}}
        gone = await self._dropped(named)
        await self._remove_again(gone)
        kept = await self._look_up(update, named - gone)
        actions = await asyncio.to_thread(self._actions, update, gone, kept)
        await self._check_form({action.index for action in actions})
        refused = await self._writer.write(actions)
        if refused:
            quarantine = self._layout.quarantine
            await self._writer.write(quarantine_action(quarantine, one) for one in refused)
            self.quarantined += len(refused)
        _, _, late = await _together(
            self._refresh({action.index for action in actions}),
            self._writer.write(self._positions(update.positions), refresh=True),
            self._dropped(named - gone),
        )
        await self._remove_again(late)

    async def withdraw(self, session: str, again: int) -> None:
        """Remove commands of a session that is indexed anew; see `Index.withdraw`.

        Each by a version that what comes then is above: for a minute OpenSearch compares with it.
        """
        self._check_writable()
        place = await self._place(session)
        if place is None:
            return
        index, page = self._layout.commands_index(place), Page(_IDS)
        theirs = Query((Match("session", (Value(session, prefix=True),)),))
        await self._refresh([index])
        while True:
            hits = await self.search_commands(theirs, page)
            await self._writer.write(
                delete_action(index, each.id, stored(again, 0) - 1) for each in hits.documents
            )
            if not hits.next:
                break
            page = replace(page, after=hits.next)
        await self._refresh([index])

    async def drop(self, *sessions: str) -> None:
        """Remove sessions without a trace; see `Index.drop`."""
        self._check_writable()
        state = self._layout.state
        actions = []
        for session in sessions:
            tombstone = {"kind": "dropped", "name": session}
            actions.append(index_action(state, f"dropped:{session}", tombstone))
            actions.append(delete_action(state, f"progress:{session}"))
        await self._writer.write(actions)
        await self._removal.remove(sessions)

    async def clear(self) -> None:
        """Remove everything without a trace; see `Index.clear`."""
        self._check_writable()
        layout = self._layout
        # The state goes first: should it end halfway, no position is ahead of the documents.
        patterns = (layout.state, layout.quarantine, f"{layout.sessions}-*", f"{layout.commands}-*")
        for pattern in patterns:
            answer = await self._cluster.request("GET", f"/{pattern}/_alias", missing_ok=True)
            for names in joined(answer or {}):
                await self._cluster.request("DELETE", f"/{names}", params=_IGNORE)
        self._places.clear()
        self._removed.clear()
        self._formed.clear()

    async def close(self) -> None:
        """Close the connections."""
        await self._cluster.close()

    # -- reading -----------------------------------------------------------------------------------

    async def search_sessions(self, query: Query, page: Page) -> Hits[SessionDocument]:
        """Search sessions; see `Index.search_sessions`."""
        return await search_sessions(self._cluster, self._layout, query, page)

    async def search_commands(self, query: Query, page: Page) -> Hits[CommandDocument]:
        """Search commands; see `Index.search_commands`."""
        return await search_commands(self._cluster, self._layout, query, page)

    async def session(self, prefix: str) -> SessionDocument:
        """Find a session by its id or the beginning of it; see `Index.session`."""
        wanted = prefix.lower()
        if not _PREFIX.fullmatch(wanted):
            raise UsageError(
                f"{prefix!r} is not a session id.",
                hint="Session ids are 32 hexadecimal digits; the first few are enough.",
            )
        condition = {"prefix": {"session.id": {"value": wanted}}}
        hits = await self._found(self._layout.sessions, condition, size=2)
        if not hits:
            raise NotFound(
                f"There is no session {wanted}.", hint="List them with `sealtape sessions`."
            )
        if len(hits) > 1:
            first, second = (hit["_source"]["session"]["id"] for hit in hits)
            raise Ambiguous(
                f"Several sessions begin with {wanted}, {first} and {second} among them.",
                hint="Give more digits.",
            )
        return documents.read_session(hits[0]["_source"])

    async def command(self, name: str) -> CommandDocument | None:
        """Fetch a command; see `Index.command`."""
        try:
            session, _, _ = parse_command_id(name)
        except FormatError:
            return None
        place = await self._place(session.hex())
        if place is None:
            return None
        index = self._layout.commands_index(place)
        answer = await self._cluster.request("GET", f"/{index}/_doc/{name}", missing_ok=True)
        return documents.read_command(answer["_source"]) if answer else None

    async def progress(self, session: str) -> bytes | None:
        """Fetch what was put; see `Index.progress`."""
        place = await self._place(session)
        if place is not None:
            index = self._layout.sessions_index(place)
            answer = await self._cluster.request("GET", f"/{index}/_doc/{session}", missing_ok=True)
            if answer:
                return documents.progress_of(answer["_source"])
        path = f"/{self._layout.state}/_doc/progress:{session}"
        answer = await self._cluster.request("GET", path, missing_ok=True)
        return documents.progress_of({"sealtape": answer["_source"]}) if answer else None

    async def positions(self) -> dict[str, int]:
        """Fetch all positions; see `Index.positions`."""
        condition = {"term": {"kind": "position"}}
        hits = await self._found(self._layout.state, condition, size=_POSITIONS)
        try:
            return {str(hit["_source"]["name"]): int(hit["_source"]["value"]) for hit in hits}
        except (KeyError, TypeError, ValueError) as exc:
            raise StoreCorrupt(f"{self._layout.state} is not of the form we write.") from exc

    # -- inside ------------------------------------------------------------------------------------

    async def _check_form(self, indices: set[str]) -> None:
        """Look for the templates before an index is used that may not be there yet.

        Its first document makes it. Without them it would be of any form, and under no alias, so
        that nothing in it was ever found.
        """
        if indices <= self._formed:
            return
        await check_layout(self._cluster, self._layout)
        self._formed |= indices

    def _check_writable(self) -> None:
        if self._read_only:
            raise StoreError("The index was opened to read only.")

    async def _found(self, index: str, condition: Json, *, size: int) -> list[Json]:
        body = {
            "size": size,
            "query": {"bool": {"filter": [condition]}},
            "track_total_hits": False,
        }
        path = f"/{index}/_search"
        return hits_of(await self._cluster.request("POST", path, body, params=READ))

    async def _refresh(self, indices: Iterable[str]) -> None:
        for names in joined(indices):
            answer = await self._cluster.request("POST", f"/{names}/_refresh", params=_IGNORE)
            if answer.get("_shards", {}).get("failed"):
                raise StoreBusy("Not all parts of the index are there.", retry_after_s=BUSY_S)

    async def _dropped(self, sessions: Collection[str]) -> set[str]:
        """Those of the sessions that were dropped; what is asked is never an old view."""
        found: set[str] = set()
        named = sorted(sessions)
        path = f"/{self._layout.state}/_mget"
        for start in range(0, len(named), _IDS):
            ids = [f"dropped:{session}" for session in named[start : start + _IDS]]
            answer = await self._cluster.request(
                "POST", path, {"ids": ids}, params={"_source": "false"}
            )
            for item in answer["docs"]:
                cause = item.get("error", {}).get("type", "index_not_found_exception")
                if cause != "index_not_found_exception":
                    raise StoreBusy("The index's state cannot be read.", retry_after_s=BUSY_S)
                if item.get("found"):
                    found.add(item["_id"].removeprefix("dropped:"))
        return found

    async def _remove_again(self, sessions: set[str]) -> None:
        """Remove what a writer that did not know yet wrote after the drop."""
        if again := sorted(sessions - self._removed):
            await self._removal.remove(again)
            self._removed.update(again)

    async def _place(self, session: str) -> Place | None:
        if session not in self._places:
            await self._kept([session], whole=False)
        return self._places.get(session)

    async def _kept(self, sessions: Iterable[str], *, whole: bool) -> dict[str, _Kept]:
        """Sessions as the index has them."""
        found: dict[str, _Kept] = {}
        named = sorted(sessions)
        for start in range(0, len(named), _IDS):
            ids = named[start : start + _IDS]
            body = {
                "size": len(ids),
                "query": {"bool": {"filter": [{"terms": {"session.id": ids}}]}},
                "track_total_hits": False,
                "_source": True if whole else [*_PLACE, "session.id"],
            }
            path = f"/{self._layout.sessions}/_search"
            for hit in hits_of(await self._cluster.request("POST", path, body, params=READ)):
                source = hit["_source"]
                place = self._layout.place_of(hit["_index"], int(source["find"]["start_ns"]))
                if place is not None:
                    session = source["session"]["id"]
                    found[session] = _Kept(place, source if whole else None)
                    self._remember(session, place)
        return found

    def _remember(self, session: str, place: Place) -> None:
        self._places[session] = place
        self._places.move_to_end(session)
        while len(self._places) > MAX_PLACES:
            self._places.popitem(last=False)

    async def _look_up(self, update: Update, named: set[str]) -> dict[str, _Kept]:
        """What must be known of sessions before they are written.

        Sessions whose document and progress come together, which is what the indexer writes, only
        need their place; for the others the missing half is fetched.
        """
        whole = {document.id for document in update.sessions} ^ set(update.progress)
        kept = await self._kept(whole & named, whole=True)
        await self._kept((named - whole) - set(self._places), whole=False)
        return kept

    def _actions(self, update: Update, gone: set[str], kept: dict[str, _Kept]) -> list[Action]:
        state = self._layout.state
        actions: list[Action] = []
        for session in update.sessions:
            if session.id not in gone:
                if session.id in update.progress:
                    progress = update.progress[session.id]
                else:
                    source = kept[session.id].source if session.id in kept else None
                    progress = documents.progress_of(source) if source else None
                actions.append(self._session_action(session, progress, update))
        written = {document.id for document in update.sessions}
        for name, value in update.progress.items():
            if name in written or name in gone:
                continue
            if name in kept and (source := kept[name].source):
                session = documents.read_session(source)
                actions.append(self._session_action(session, value, update))
            elif value is None:
                actions.append(delete_action(state, f"progress:{name}"))
            else:
                actions.append(index_action(state, f"progress:{name}", _progress(value)))
        actions += [
            self._command_action(command, update)
            for command in update.commands
            if command.session.hex() not in gone
        ]
        return actions

    def _session_action(
        self, document: SessionDocument, progress: bytes | None, update: Update
    ) -> Action:
        place = self._places.get(document.id)
        if place is None:
            place = Place(document.tenant, document.retention, document.started_ns)
            self._remember(document.id, place)
        source = documents.session_source(document, place.start_ns, progress)
        index = self._layout.sessions_index(place)
        version = update.stored(document.id, document.revision)
        return index_action(index, document.id, source, version)

    def _command_action(self, document: CommandDocument, update: Update) -> Action:
        place = self._places.get(document.session.hex())
        if place is None:
            raise StoreError(
                f"The session of command {document.id} is not in the index.",
                hint="A command is put with its session or after it.",
            )
        source = documents.command_source(document, place.start_ns)
        index = self._layout.commands_index(place)
        version = update.stored(document.session.hex(), document.version)
        return index_action(index, document.id, source, version)

    def _positions(self, positions: Mapping[str, int]) -> list[Action]:
        return [
            index_action(
                self._layout.state,
                f"position:{name}",
                {"kind": "position", "name": name, "value": value},
            )
            for name, value in positions.items()
        ]


_IGNORE = {"ignore_unavailable": "true"}


def _progress(value: bytes) -> Json:
    return {"kind": "progress", "progress": documents.encoded(value)}


async def _together(*parts: Coroutine[Any, Any, Any]) -> list[Any]:
    """Wait for all parts, then raise what the first that failed raised."""
    tasks = [asyncio.create_task(part) for part in parts]
    await asyncio.gather(*tasks, return_exceptions=True)
    return results(tasks)


def newer_templates(name: str) -> StoreError:
    """What is said to a version that is older than the cluster's templates."""
    return StoreError(
        f"The template {name} in OpenSearch is of a newer version of Sealtape.",
        hint="Use that version, here too.",
    )


async def check_layout(cluster: Cluster, layout: Layout) -> None:
    """Raise StoreError unless the templates of this version are there."""
    hint = "Run `sealtape index setup`, or `sealtape setup`."
    path = f"/_index_template/{layout.prefix}-*"
    answer = await cluster.request("GET", path, missing_ok=True)
    found = answer["index_templates"] if answer else []
    there = {item["name"]: item["index_template"].get("_meta") for item in found}
    for name, wanted in layout.index_templates().items():
        if name not in there:
            raise StoreError(
                f"OpenSearch is not prepared: it has no index template {name}.", hint=hint
            )
        if is_newer(there[name]):
            raise newer_templates(name)
        if there[name] != wanted["_meta"]:
            raise StoreError(
                f"The index template {name} is of another version of Sealtape.",
                hint=f"{hint} Then make the index anew: `sealtape index rebuild`.",
            )
