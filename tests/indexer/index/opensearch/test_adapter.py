import random
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sealtape.indexer.index import open_index, prepare_index
from sealtape.indexer.index.base import Page, Update
from sealtape.indexer.index.opensearch.layout import Place
from sealtape.indexer.index.sqlite import SqliteIndex
from sealtape.indexer.query import Query, form
from sealtape.schemas.errors import NotFound, StoreCorrupt, StoreError
from tests.conformance.index import (
    MANY,
    S,
    command,
    query,
    random_query,
    random_world,
    session,
)

HERE = Path("/")
DAY = 86_400 * S


def names(prepared):
    return sorted(prepared.server.ask("GET", f"/{prepared.layout.prefix}-*/_alias"))


async def test_an_unprepared_cluster_is_told(opensearch_server):
    with pytest.raises(StoreError, match="not prepared") as caught:
        await open_index(opensearch_server.index_url(opensearch_server.prefix()), HERE)
    assert "sealtape index setup" in caught.value.hint


async def test_templates_of_another_version_are_told(prepared):
    name = prepared.layout.commands
    body = prepared.layout.index_templates()[name]
    prepared.server.ask("PUT", f"/_index_template/{name}", {**body, "_meta": {"layout": 0}})
    with pytest.raises(StoreError, match="another version"):
        await open_index(prepared.url, HERE)


async def test_no_index_is_made_without_the_templates(index, prepared):
    """They may be taken away while an indexer runs; the next day's index is made by a document."""
    first, second = session(1), session(2, started_ns=session(1).started_ns + 40 * DAY)
    await index.put(Update((first,), (command(first, 0),), {"bus/0": 1}))
    made = names(prepared)
    prepared.server.ask("DELETE", f"/_index_template/{prepared.layout.sessions}")
    await index.put(Update((first,), (command(first, 1),), {"bus/0": 2}))
    with pytest.raises(StoreError, match="not prepared") as caught:
        await index.put(Update((second,), (command(second, 0),), {"bus/0": 3}))
    assert "sealtape index setup" in caught.value.hint
    assert names(prepared) == made
    assert await index.positions() == {"bus/0": 2}
    await prepare_index(prepared.url, HERE)
    await index.put(Update((second,), (command(second, 0),), {"bus/0": 3}))
    assert (await index.search_sessions(Query(), Page())).documents == (second, first)


async def test_read_only_writes_nothing(prepared):
    index = await open_index(prepared.url, HERE, read_only=True)
    for call in (index.put(Update()), index.drop("0" * 32), index.clear()):
        with pytest.raises(StoreError, match="read only"):
            await call
    assert await index.positions() == {}
    assert names(prepared) == []
    await index.close()


async def test_documents_go_by_tenant_class_and_start(index, prepared):
    first = session(1, started_ns=20_000 * DAY, tenant="acme-1", retention="long_term")
    # It began before midnight, and its commands came after.
    second = session(2, started_ns=20_001 * DAY - 1)
    commands = (command(first, 0), command(second, 0, time_ns=20_001 * DAY + 5))
    await index.put(Update((first, second), commands, {"bus/0": 1}))
    prefix = prepared.layout.prefix
    assert names(prepared) == [
        f"{prefix}-commands-acme-1.long_term.2024.10.04",
        f"{prefix}-commands-main.standard.2024.10.04",
        f"{prefix}-sessions-acme-1.long_term.2024.10",
        f"{prefix}-sessions-main.standard.2024.10",
        f"{prefix}-state",
    ]
    aliases = prepared.server.ask("GET", f"/{prefix}-sessions,{prefix}-commands/_alias")
    assert len(aliases) == 4


async def test_a_session_stays_where_it_was_first(prepared):
    """Its start became known better later: by whoever writes it, it stays one document."""
    first, second = [await open_index(prepared.url, HERE) for _ in range(2)]
    owner = session(1, started_ns=40 * DAY)
    await first.put(Update((owner,), (command(owner, 0, time_ns=40 * DAY),)))
    moved = replace(owner, started_ns=20 * DAY, revision=6)
    for index in (second, first):
        await index.put(Update((moved,), (command(moved, 1, time_ns=40 * DAY + 1),)))
        assert (await index.search_sessions(Query(), Page())).documents == (moved,)
        assert (await index.search_sessions(query("select"), Page())).documents == (moved,)
        assert len((await index.search_commands(Query(), Page())).documents) == 2
        assert await index.command(command(owner, 0).id) is not None
    assert len(names(prepared)) == 2
    for index in (first, second):
        await index.close()


async def test_progress_and_document_are_one(index):
    """A reader that is behind must not put back the progress of one that is ahead."""
    ahead, behind = session(1, revision=40, frames=20), session(1, revision=20, frames=10)
    await index.put(Update((ahead,), progress={ahead.id: b"20 frames"}))
    await index.put(Update((behind,), progress={behind.id: b"10 frames"}))
    assert await index.session(ahead.id) == ahead
    assert await index.progress(ahead.id) == b"20 frames"


async def test_progress_alone_and_documents_alone(prepared):
    index = await open_index(prepared.url, HERE)
    owner = session(1)
    await index.put(Update(progress={owner.id: b"before"}))
    assert await index.progress(owner.id) == b"before"
    await index.put(Update((owner,), progress={owner.id: b"with"}))
    await index.put(Update((replace(owner, revision=5),)))
    assert await index.progress(owner.id) == b"with"
    await index.put(Update(progress={owner.id: b"after"}))
    assert await index.progress(owner.id) == b"after"
    again = await open_index(prepared.url, HERE)
    assert await again.progress(owner.id) == b"after"
    assert (await again.session(owner.id)).revision == 5
    await again.put(Update(progress={owner.id: None}))
    assert await again.progress(owner.id) is None
    assert (await index.session(owner.id)).revision == 5
    await index.close()
    await again.close()


async def test_a_command_without_its_session_is_refused(index):
    with pytest.raises(StoreError, match="is not in the index"):
        await index.put(Update((), (command(session(1), 0),)))


async def test_a_command_finds_its_session_in_the_index(prepared):
    owner = session(1, started_ns=3 * DAY)
    first = await open_index(prepared.url, HERE)
    await first.put(Update((owner,)))
    second = await open_index(prepared.url, HERE)
    one = command(owner, 0)
    await second.put(Update((), (one,)))
    assert await first.command(one.id) == one
    assert await second.command("nonsense") is None
    assert await second.command(command(session(2), 0).id) is None
    await first.close()
    await second.close()


async def test_one_rule_for_words_in_both_adapters(index, tmp_path):
    """SQLite and OpenSearch find the same, for whatever is asked."""
    other = await SqliteIndex.open("sqlite:index.db", tmp_path)
    dice = random.Random(11)
    texts = (
        *("ｆｕｌｌ width", "ﬁne LIGATURES", "İstanbul", "x²", "ﷺ", "日本語 テキスト"),
        *("a1b2 ١٢٣", "naïve nai\u0308ve", "\U0001d400bc", "tab\tnew\nline", "ß SS"),
        *("ﬀ" * 70, "e\u200de"),
    )
    for _ in range(3):
        world = random_world(dice)
        update = Update(
            tuple(owner for owner, _ in world),
            tuple(
                replace(one, text=f"{one.text} {dice.choice(texts)}")
                for _, commands in world
                for one in commands
            ),
        )
        for adapter in (index, other):
            await adapter.clear()
            await adapter.put(update)
        wanted = [random_query(dice) for _ in range(60)]
        wanted += [query(f'"{text}"') for text in texts]
        wanted += [query(f'"{text[:2]}"*') for text in texts]
        for one in wanted:
            for search in ("search_commands", "search_sessions"):
                found = [
                    [hit.id for hit in (await getattr(adapter, search)(one, MANY)).documents]
                    for adapter in (index, other)
                ]
                assert sorted(found[0]) == sorted(found[1]), form(one)
    await other.close()


async def test_what_somebody_changed_is_told(index, prepared):
    owner = session(1, started_ns=5)
    await index.put(Update((owner,), (command(owner, 0),), {"bus/0": 1}))
    layout, server = prepared.layout, prepared.server
    name = layout.sessions_index(Place("main", "standard", 5))
    broken = {"session": {"id": owner.id}, "find": {"start_ns": 5, "protocol": "x"}}
    server.ask("PUT", f"/{name}/_doc/{owner.id}?refresh=true", broken)
    with pytest.raises(StoreCorrupt):
        await index.session(owner.id)
    server.ask("PUT", f"/{layout.state}/_doc/position:x?refresh=true", {"kind": "position"})
    with pytest.raises(StoreCorrupt):
        await index.positions()


async def test_a_server_that_goes_and_comes(opensearch_alone):
    url = opensearch_alone.index_url("t")
    await prepare_index(url, HERE)
    index = await open_index(url, HERE)
    owner = session(1)
    await index.put(Update((owner,), (command(owner, 0),), {"bus/0": 1}))
    opensearch_alone.kill()
    with pytest.raises(StoreError):
        await index.put(Update((owner,), (command(owner, 1),), {"bus/0": 2}))
    with pytest.raises(StoreError):
        await index.search_commands(Query(), Page())
    opensearch_alone.start()
    assert (await index.positions()) == {"bus/0": 1}
    assert len((await index.search_commands(Query(), Page())).documents) == 1
    await index.put(Update((owner,), (command(owner, 1),), {"bus/0": 2}))
    assert len((await index.search_commands(Query(), Page())).documents) == 2
    await index.close()


async def test_a_prefix_is_another_index(prepared, opensearch_server):
    other = opensearch_server.prefix()
    url = opensearch_server.index_url(other)
    await prepare_index(url, HERE)
    first, second = await open_index(prepared.url, HERE), await open_index(url, HERE)
    await first.put(Update((session(1),), (command(session(1), 0),), {"bus/0": 1}))
    assert await second.positions() == {}
    with pytest.raises(NotFound):
        await second.session("00")
    await second.clear()
    assert await first.positions() == {"bus/0": 1}
    await first.close()
    await second.close()
    opensearch_server.forget(other)


async def test_capture_to_searchable(index):
    """One small write after the other: each is found when it returns, well within a second."""
    owner = session(1)
    await index.put(Update((owner,)))
    took = []
    for n in range(10):
        started = time.perf_counter()
        await index.put(Update((replace(owner, revision=n + 5),), (command(owner, n),), {"b": n}))
        took.append(time.perf_counter() - started)
        hits = await index.search_commands(Query(), Page(limit=1))
        assert hits.documents[0].n == n
    assert sorted(took)[5] < 3.0
