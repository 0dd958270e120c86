"""The index port: session and command documents, found by query.

The index is a cache: all of it can be built again from ledger, vault and keyring
(`indexer.worker.rebuild`). An adapter MUST keep these rules; `tests/conformance/index.py` checks
them on every adapter.

1. A document's id decides where it is kept: writing it twice leaves one. A session document with a
   lower `revision`, or a command document with a lower `version`, than the one that is kept MUST
   change nothing. Of a session that is indexed anew (`again`), the number of times counts before
   these, and progress of a lower one MUST change nothing either.
2. On return from `put` everything in the update MUST be found by searches and survive a crash of
   this process. Should `put` fail halfway, positions and progress MUST NOT be ahead of documents.
3. Searches MUST follow `docs/query.md`, with words cut by `indexer.tokens` and nothing else.
4. What `drop` took away MUST NOT be found again, nor come back by a later `put` (until `clear`),
   and no text of it may remain in any file of the store when `drop` returns.
5. Nothing but `sealtape.schemas.errors.SealtapeError` and its kinds may leave an adapter.
6. The event loop MUST NOT wait for the store.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from sealtape.capture.checkup import Check
from sealtape.indexer.query import Query
from sealtape.schemas.documents import CommandDocument, SessionDocument
from sealtape.schemas.errors import SettingsError
from sealtape.schemas.urls import shown_url

__all__ = [
    "Hits",
    "Index",
    "Page",
    "Update",
    "check_index",
    "open_index",
    "prepare_index",
    "stored",
]

Document = TypeVar("Document")
_VERSION_BITS = 40


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of the hits is wanted: `limit` after the cursor, newest first unless told."""

    limit: int = 50
    after: str = ""
    oldest_first: bool = False


@dataclass(frozen=True, slots=True)
class Hits(Generic[Document]):
    """A page of hits, and the cursor of the next one (empty: there are no more)."""

    documents: tuple[Document, ...]
    next: str = ""


@dataclass(frozen=True, slots=True)
class Update:
    """What one `put` writes. A command's session is in the same update or was put before.

    `positions` are the reader's places by name; `progress` is what the indexer wants back to go on
    with a session (bytes it alone understands; None removes them). `again` says how many times a
    session was indexed anew, if it was.
    """

    sessions: tuple[SessionDocument, ...] = ()
    commands: tuple[CommandDocument, ...] = ()
    positions: Mapping[str, int] = field(default_factory=dict)
    progress: Mapping[str, bytes | None] = field(default_factory=dict)
    again: Mapping[str, int] = field(default_factory=dict)

    def stored(self, session: str, version: int) -> int:
        """The number by which documents of a session are compared."""
        return stored(self.again.get(session, 0), version)


def stored(again: int, version: int) -> int:
    """A `revision` or `version` of a session that was indexed anew so many times."""
    return (again << _VERSION_BITS) + version


class Index(Protocol):
    """See the module docstring for the rules. Sessions are named by their 32 hex digits."""

    async def put(self, update: Update) -> None:
        """Write documents, positions and progress."""

    async def search_sessions(self, query: Query, page: Page) -> Hits[SessionDocument]:
        """Sessions that match, by their start; journals only if asked for by protocol or id.

        Terms about commands (words, `effect`, `table`, `error`) must hold together for one command
        of the session, within the query's times; negated ones for none of its commands.
        Raises UsageError for a cursor that is not of such a search.
        """

    async def search_commands(self, query: Query, page: Page) -> Hits[CommandDocument]:
        """Commands that match, by their time and number. Raises UsageError for a bad cursor."""

    async def session(self, prefix: str) -> SessionDocument:
        """The session with this id, or the only one whose id begins so.

        Raises UsageError (not hex digits), NotFound, Ambiguous.
        """

    async def command(self, name: str) -> CommandDocument | None:
        """One command by its document id."""

    async def progress(self, session: str) -> bytes | None:
        """What was last put as the progress of a session."""

    async def positions(self) -> dict[str, int]:
        """All positions by name."""

    async def withdraw(self, session: str, again: int) -> None:
        """Remove the commands of a session that is to be indexed anew, for the `again`-th time.

        MUST be repeatable, and leave what was put of that time. What comes then is found.
        """

    async def drop(self, *sessions: str) -> None:
        """Remove sessions with all that belongs to them, for ever (rule 4).

        MAY take time that grows with the size of the index, so name many at once. When it raises,
        it MUST be repeatable. Sessions that are not there are remembered as dropped all the same.
        """

    async def clear(self) -> None:
        """Remove everything, positions and what `drop` remembered included, as thoroughly."""

    async def close(self) -> None:
        """Release what the adapter holds. Closing twice is fine."""


async def open_index(url: str, base: Path, *, read_only: bool = False) -> Index:
    """Open the index a URL names: `sqlite:FILE`, relative to `base`, or `opensearch://HOST/PREFIX`.

    `read_only` never creates or changes anything. Raises SettingsError and StoreError.
    """
    if _scheme(url) == "sqlite":
        from sealtape.indexer.index.sqlite import SqliteIndex

        return await SqliteIndex.open(url, base, read_only=read_only)
    from sealtape.indexer.index.opensearch import OpenSearchIndex

    return await OpenSearchIndex.open(url, base, read_only=read_only)


async def prepare_index(url: str, base: Path) -> list[str]:
    """Create what the index needs and does not have yet; returns what was done, in words.

    For `opensearch:` that are templates, and roles where it has users. Raises the errors of
    `open_index`.
    """
    if _scheme(url) == "sqlite":
        from sealtape.indexer.index.sqlite import prepare_file

        return await prepare_file(url, base)
    from sealtape.indexer.index.opensearch import prepare_cluster

    return await prepare_cluster(url, base)


async def check_index(url: str, base: Path, *, writes: bool = True) -> list[Check]:
    """Try what the adapter needs, and say what was found; a failure is an `error`, never raised.

    With `writes` also what only who writes the index needs, and may see.
    """
    try:
        if _scheme(url) == "sqlite":
            from sealtape.indexer.index.sqlite import check_file

            return await check_file(url, base)
        from sealtape.indexer.index.opensearch import check_cluster

        return await check_cluster(url, base, writes=writes)
    except SettingsError as error:
        return [Check("index: settings", "error", error.message, error.hint)]


def _scheme(url: str) -> str:
    scheme, _, rest = url.partition(":")
    if scheme == "sqlite":
        return scheme
    if scheme == "opensearch" and rest.startswith("//"):
        if importlib.util.find_spec("opensearchpy") is None:
            raise SettingsError(
                "The client of OpenSearch is not installed.", hint="Install sealtape[servers]."
            )
        return scheme
    raise SettingsError(
        f"{shown_url(url)!r} does not name an index.",
        hint="Write sqlite:FILE or opensearch://USER@HOST:PORT/PREFIX.",
        url=shown_url(url),
    )
