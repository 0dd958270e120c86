import random
from dataclasses import replace

import pytest

from sealtape.indexer.index.base import Page, Update
from sealtape.indexer.index.opensearch import search, writing
from sealtape.indexer.index.opensearch.layout import Place
from sealtape.indexer.index.opensearch.search import hits_of
from sealtape.indexer.query import Query, parse
from sealtape.schemas.errors import StoreBusy, UsageError
from tests.conformance.index import (
    MANY,
    S,
    command,
    found_session,
    query,
    random_query,
    random_world,
    session,
)


async def pages(searched, wanted, limit, *, oldest_first):
    """All hits, page by page."""
    found, after = [], ""
    while True:
        page = Page(limit=limit, after=after, oldest_first=oldest_first)
        hits = await searched(wanted, page)
        assert len(hits.documents) <= limit
        found += hits.documents
        after = hits.next
        if not after:
            return found


async def fill(index, world):
    await index.put(
        Update(
            tuple(owner for owner, _ in world),
            tuple(one for _, commands in world for one in commands),
        )
    )


@pytest.mark.parametrize("way", ["by sessions", "by commands", "mixed"])
async def test_sessions_are_found_by_their_commands_either_way(index, monkeypatch, way):
    """Small batches, and thresholds that force one side: the same sessions, in the same order."""
    monkeypatch.setattr(search, "_FIRST_BATCH", 2)
    monkeypatch.setattr(search, "_BATCH", 3)
    monkeypatch.setattr(search, "_IDS", 5)
    few, many = {"by sessions": (10**6, 0), "by commands": (-1, 10**6), "mixed": (3, 4)}[way]
    monkeypatch.setattr(search, "_FEW_SESSIONS", few)
    monkeypatch.setattr(search, "_MANY_COMMANDS", many)
    dice = random.Random(way)
    world = random_world(dice) + [
        (replace(owner, session=dice.randbytes(16), effects=()), [])
        for owner, _ in random_world(dice)
    ]
    await fill(index, world)
    found_any = 0
    for _ in range(60):
        wanted, oldest_first = random_query(dice), dice.random() < 0.5
        expected = [owner for owner, commands in world if found_session(wanted, owner, commands)]
        expected.sort(key=lambda one: (one.started_ns, one.id), reverse=not oldest_first)
        limit = dice.randrange(1, 5)
        found = await pages(index.search_sessions, wanted, limit, oldest_first=oldest_first)
        assert found == expected
        found_any += bool(expected)
    assert found_any > 10


async def test_many_sessions_behind_one_page(index):
    """A rare word among many sessions, and a common one: batches grow, nothing is left out."""
    owners = [session(number, started_ns=number // 7 * S) for number in range(1, 1400)]
    commands = [
        command(owner, 0, text="common" if at % 900 else "common rare")
        for at, owner in enumerate(owners)
    ]
    await index.put(Update(tuple(owners), tuple(commands)))
    for text, count in (("rare", 2), ("common", 1399), ("common -rare", 1397), ("-common", 0)):
        hits = await index.search_sessions(query(text), MANY)
        assert len(hits.documents) == count, text
        assert not hits.next
        small = await pages(index.search_sessions, query(text), 700, oldest_first=True)
        assert small == sorted(hits.documents, key=lambda one: (one.started_ns, one.id))


async def test_sessions_that_are_no_hits_are_not_read(index, monkeypatch):
    owners = [session(number, started_ns=number * S) for number in range(1, 300)]
    commands = [
        command(owner, 0, text="common" if at % 100 else "rare") for at, owner in enumerate(owners)
    ]
    await index.put(Update(tuple(owners), tuple(commands)))
    real, read = index._cluster.request, []

    async def request(*args, **options):
        answer = await real(*args, **options)
        read.extend(hit for hit in answer.get("hits", {}).get("hits", ()) if hit.get("_source"))
        return answer

    monkeypatch.setattr(index._cluster, "request", request)
    hits = await index.search_sessions(query("-common"), Page(limit=10))
    assert len(hits.documents) == len(read) == 3


async def test_pages_go_on_though_more_is_written(index):
    owner = session(1)
    await index.put(Update((owner,), tuple(command(owner, n * 10) for n in range(10))))
    seen, after = [], ""
    for turn in range(10):
        hits = await index.search_commands(Query(), Page(limit=2, after=after))
        seen += [hit.n for hit in hits.documents]
        # Newer than what was shown, and older: only the latter is still to come.
        await index.put(Update((), (command(owner, 1000 + turn), command(owner, turn + 1))))
        after = hits.next
        if not after:
            break
    assert seen == sorted(seen, reverse=True)
    assert len(seen) == len(set(seen))
    assert {n * 10 for n in range(10)} <= set(seen)
    assert not any(n >= 1000 for n in seen)


async def test_a_session_of_equal_times(index):
    """Same time, same number: the order is still whole."""
    owners = [session(number, started_ns=S) for number in range(1, 30)]
    commands = [command(owner, 0, epoch=epoch, time_ns=S) for owner in owners for epoch in range(3)]
    await index.put(Update(tuple(owners), tuple(commands)))
    for oldest_first in (True, False):
        found = await pages(index.search_commands, Query(), 4, oldest_first=oldest_first)
        assert {one.id for one in found} == {one.id for one in commands}
        assert len(found) == len(commands)


@pytest.mark.parametrize(
    "cursor",
    [f"1.{'0' * 31}", f"1.{'g' * 32}", f"{1 << 63}.{'0' * 32}", f"1.1.{'0' * 32}.4294967296", "."],
)
async def test_cursors_of_this_form_are_not_believed_either(index, cursor):
    for searched in (index.search_sessions, index.search_commands):
        with pytest.raises(UsageError):
            await searched(Query(), Page(after=cursor))


async def test_cursors_are_those_of_their_search(index):
    owners = [session(number) for number in range(1, 4)]
    await index.put(Update(tuple(owners), tuple(command(owner, 0) for owner in owners)))
    sessions = (await index.search_sessions(Query(), Page(limit=1))).next
    commands = (await index.search_commands(Query(), Page(limit=1))).next
    with pytest.raises(UsageError):
        await index.search_sessions(Query(), Page(after=commands))
    with pytest.raises(UsageError):
        await index.search_commands(Query(), Page(after=sessions))


@pytest.mark.parametrize(
    "answer", [{"timed_out": True}, {"_shards": {"failed": 1}, "hits": {"hits": []}}]
)
def test_half_an_answer_is_none(answer):
    with pytest.raises(StoreBusy):
        hits_of(answer)


async def test_a_missing_shard_is_told(index, prepared, monkeypatch):
    """An index whose shard has no node: a search must not pass for a whole one."""
    monkeypatch.setattr(writing, "PATIENCE_S", 0.5)
    first, second = session(1, started_ns=5), session(2, started_ns=40 * 86_400 * S)
    await index.put(Update((first, second), (command(first, 0), command(second, 0))))
    nowhere = {"index.routing.allocation.require._name": "nobody"}
    for name in (
        prepared.layout.sessions_index(Place("main", "standard", 5)),
        prepared.layout.commands_index(Place("main", "standard", 5)),
    ):
        prepared.server.ask("DELETE", f"/{name}")
        body = {"settings": {**nowhere, "number_of_replicas": 0}}
        prepared.server.ask("PUT", f"/{name}?wait_for_active_shards=0", body)
    for searched in (index.search_sessions, index.search_commands):
        with pytest.raises(StoreBusy):
            await searched(Query(), Page())
    with pytest.raises(StoreBusy):
        await index.session("0" * 30)
    with pytest.raises(StoreBusy):
        await index.put(Update((session(3, started_ns=6),)))


async def test_times_before_the_first_index(index):
    assert (await index.search_sessions(parse("since:2h", now_ns=S), Page())).documents == ()
    assert (await index.search_commands(parse("x -y", now_ns=S), Page())).documents == ()
    assert (await index.search_sessions(parse("x -y", now_ns=S), Page())).documents == ()
