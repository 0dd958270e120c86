import asyncio
import gc
import json
import logging
import re
from pathlib import Path

import pytest

from sealtape.indexer.index import open_index, prepare_index
from sealtape.indexer.index.base import Page, Update
from sealtape.indexer.index.opensearch import writing
from sealtape.indexer.index.opensearch.layout import Place
from sealtape.indexer.index.opensearch.writing import Writer, delete_action, index_action
from sealtape.indexer.query import Query, parse
from sealtape.schemas.documents import CommandDocument
from sealtape.schemas.errors import FormatError, StoreBusy, StoreError
from tests.conformance.index import MANY, command, session
from tests.factories.circles import without_collector
from tests.servers.http_faults import fault_proxy
from tests.servers.opensearch import OpenSearchServer

HERE = Path("/")
JSON = ("Content-Type: application/json",)


def is_bulk(request):
    return request.path.endswith("/_bulk")


@pytest.fixture
def hasty(monkeypatch):
    """Patience of a second, so that a test of its end is short."""
    monkeypatch.setattr(writing, "PATIENCE_S", 1.0)


@pytest.fixture
async def behind(prepared):
    """An index behind a proxy, and the proxy."""
    async with fault_proxy(prepared.server.url) as proxy:
        url = prepared.url.replace(prepared.server.address, f"127.0.0.1:{proxy.port}")
        index = await open_index(url, HERE)
        yield index, proxy
        await index.close()


async def found(index, text=""):
    hits = await index.search_commands(parse(text, now_ns=0), MANY)
    return {hit.n for hit in hits.documents}


def test_lines():
    action = index_action("i", "n", {"a": "ü\x00"}, 0)
    assert json.loads(action.head) == {
        "index": {"_index": "i", "_id": "n", "version": 1, "version_type": "external_gte"}
    }
    assert json.loads(action.body) == {"a": "ü\x00"}
    assert action.body.endswith(b"\n")
    assert json.loads(delete_action("i", "n").head) == {"delete": {"_index": "i", "_id": "n"}}
    with pytest.raises(FormatError):
        index_action("i", "n", {"a": "\ud800"})


def test_chunks_hold_all(monkeypatch):
    monkeypatch.setattr(writing, "CHUNK_ACTIONS", 4)
    monkeypatch.setattr(writing, "CHUNK_BYTES", 400)
    actions = [index_action("i", str(n), {"a": "x" * (n * 37 % 500)}) for n in range(50)]
    chunks = list(writing._chunks(actions))
    assert [action for chunk in chunks for action in chunk] == actions
    for chunk in chunks:
        assert len(chunk) <= 4
        assert len(chunk) == 1 or sum(action.size for action in chunk) <= 400
    assert list(writing._chunks([])) == []


async def test_a_poisonous_document_goes_into_quarantine_and_the_others_on(index, prepared, caplog):
    owner = session(1, started_ns=5)
    # Somebody made the day's index by hand, with a field of another type.
    name = prepared.layout.commands_index(Place("main", "standard", 5))
    body = {
        "settings": {"number_of_replicas": 0},
        "mappings": {"properties": {"sealtape": {"properties": {"rows": {"type": "byte"}}}}},
    }
    prepared.server.ask("PUT", f"/{name}", body)
    commands = [command(owner, n, rows=n * 100, text=f"secret{n}") for n in range(5)]
    update = Update((owner,), tuple(commands), {"bus/0": 7})
    await index.put(update)
    assert await found(index) == {0, 1}
    assert await index.positions() == {"bus/0": 7}
    assert index.quarantined == 3
    assert "goes into quarantine: mapper_parsing_exception" in caplog.text
    assert "secret" not in caplog.text
    await index.put(update)
    prepared.server.ask("POST", f"/{prepared.layout.quarantine}/_refresh")
    kept = prepared.server.ask("GET", f"/{prepared.layout.quarantine}/_search?size=100")
    kept = [hit["_source"] for hit in kept["hits"]["hits"]]
    assert {one["quarantine"]["id"] for one in kept} == {one.id for one in commands[2:]}
    assert len(kept) == 3
    for one in kept:
        assert one["error"]["type"] == "mapper_parsing_exception"
        assert "rows" in one["error"]["message"]
        assert one["session"]["id"] == owner.id
        assert one["quarantine"]["index"] == name
        assert "secret" in json.loads(one["quarantine"]["document"])["process"]["command_line"]
    await index.drop(owner.id)
    assert prepared.server.ask("GET", f"/{prepared.layout.quarantine}/_count")["count"] == 0


async def test_a_name_beyond_all_limits_goes_into_quarantine(index):
    owner = session(1)
    # Not a document that the indexer makes: names have 1024 bytes at most.
    await index.put(Update((owner,), (command(owner, 0, user="x" * 40_000), command(owner, 1))))
    assert await found(index) == {1}
    assert index.quarantined == 1


async def test_documents_that_cannot_be_written_are_named(index):
    owner = session(1)
    with pytest.raises(FormatError):
        await index.put(Update((owner,), (command(owner, 0, text="\ud800"),)))
    with pytest.raises(FormatError):
        await index.put(Update((session(2, tenant="A B"),)))


async def test_a_busy_moment_is_waited_for(behind):
    index, proxy = behind
    owner = session(1)
    busy = b'{"error":{"type":"rejected_execution_exception","reason":"x"},"status":429}'
    proxy.answer(is_bulk, "429 Too Many", busy, times=2, headers=JSON)
    await index.put(Update((owner,), tuple(command(owner, n) for n in range(50)), {"bus/0": 1}))
    assert await found(index) == set(range(50))
    assert sum(map(is_bulk, proxy.seen)) >= 4


async def test_only_the_rejected_documents_are_sent_again(behind):
    index, proxy = behind
    owner = session(1)
    await index.put(Update((owner,)))
    rejected = {"status": 429, "error": {"type": "rejected_execution_exception", "reason": "x"}}
    items = [{"index": {"status": 201} if n % 2 else rejected} for n in range(10)]
    body = json.dumps({"errors": True, "items": items}).encode()
    proxy.answer(is_bulk, "200 OK", body, headers=JSON)
    await index.put(Update((), tuple(command(owner, n) for n in range(10))))
    # The proxy made up that the odd ones were written.
    assert await found(index) == {0, 2, 4, 6, 8}


async def test_a_cluster_that_stays_busy(behind, hasty):
    index, proxy = behind
    owner = session(1)
    proxy.answer(is_bulk, "503 Unavailable", times=1000)
    with pytest.raises(StoreBusy) as caught:
        await index.put(Update((owner,), (command(owner, 0),), {"bus/0": 5}))
    assert caught.value.retry_after_s > 0
    proxy.rules.clear()
    assert await index.positions() == {}
    await index.put(Update((owner,), (command(owner, 0),), {"bus/0": 5}))
    assert await found(index) == {0}


async def test_nothing_of_a_failed_update_stays(behind, hasty):
    index, proxy = behind
    owner = session(1)
    proxy.answer(is_bulk, "503 Unavailable", times=1000)
    with without_collector():
        before = burdens()
        with pytest.raises(StoreBusy):
            await index.put(
                Update((owner,), tuple(command(owner, n) for n in range(50)), {"bus/0": 5})
            )
        assert burdens().keys() <= before.keys()


def burdens():
    """What there is of documents and actions, by identity: also what other tests have left."""
    burden = (CommandDocument, writing.Action)
    return {id(one): one for one in gc.get_objects() if isinstance(one, burden)}


async def test_an_answer_that_is_lost_changes_nothing(behind):
    index, proxy = behind
    owner = session(1)
    update = Update((owner,), (command(owner, 0), command(owner, 1)), {"bus/0": 5})
    proxy.lose_answer(is_bulk, times=9)
    with pytest.raises(StoreError):
        await index.put(update)
    proxy.rules.clear()
    await index.put(update)
    assert await found(index) == {0, 1}
    assert (await index.search_sessions(Query(), Page())).documents == (owner,)


async def test_read_only_indices_lose_nothing(index, prepared, hasty):
    """What OpenSearch does to all indices of a node whose disk is nearly full."""
    owner = session(1)
    await index.put(Update((owner,), (command(owner, 0),), {"bus/0": 1}))
    pattern = f"/{prepared.layout.prefix}-*/_settings"
    block = "index.blocks.read_only_allow_delete"
    prepared.server.ask("PUT", pattern, {block: True})
    update = Update((owner,), (command(owner, 1),), {"bus/0": 2})
    with pytest.raises(StoreBusy, match="cluster_block_exception") as caught:
        await index.put(update)
    assert caught.value.retry_after_s >= 1
    assert "disk" in caught.value.hint
    assert await found(index) == {0}
    assert await index.positions() == {"bus/0": 1}
    waiting = asyncio.create_task(retried(index, update))
    await asyncio.sleep(1.5)
    assert not waiting.done()
    prepared.server.ask("PUT", pattern, {block: None})
    await waiting
    assert await found(index) == {0, 1}
    assert await index.positions() == {"bus/0": 2}


async def retried(index, update):
    """What the indexer does: again and again until it is written."""
    while True:
        try:
            return await index.put(update)
        except StoreBusy:
            await asyncio.sleep(0.1)


async def test_a_closed_index_is_an_error_for_an_operator(index, prepared):
    owner = session(1, started_ns=5)
    await index.put(Update((owner,), (command(owner, 0),)))
    name = prepared.layout.commands_index(Place("main", "standard", 5))
    prepared.server.ask("POST", f"/{name}/_close")
    with pytest.raises(StoreError, match="index_closed_exception") as caught:
        await index.put(Update((owner,), (command(owner, 1),)))
    assert "Open the index" in caught.value.hint
    prepared.server.ask("POST", f"/{name}/_open?wait_for_active_shards=1")
    await index.put(Update((owner,), (command(owner, 1),)))
    assert await found(index) == {0, 1}


async def put_patiently(index, update):
    """As an indexer does: an index that somebody else makes at this moment cannot be read yet."""
    while True:
        try:
            return await index.put(update)
        except StoreBusy as busy:
            await asyncio.sleep(busy.retry_after_s)


async def test_two_writers_make_one_index(prepared):
    """Both write everything, in batches and orders of their own, old versions among it."""
    owners = [session(number) for number in range(1, 6)]
    first, second = [await open_index(prepared.url, HERE) for _ in range(2)]

    async def write(index, order):
        for version in range(3):
            for owner in order:
                grown = session(int(owner.id, 16), revision=2 * version, commands=version)
                commands = tuple(
                    command(owner, n, version=version, text=f"v{version}") for n in range(20)
                )
                update = Update((grown,), commands, {f"bus/{id(index) % 2}": version})
                await put_patiently(index, update)

    await asyncio.gather(write(first, owners), write(second, owners[::-1]))
    for index in (first, second):
        hits = await index.search_commands(parse("v2", now_ns=0), MANY)
        assert len(hits.documents) == 100
        assert await found(index, "v0") == await found(index, "v1") == set()
        sessions = (await index.search_sessions(Query(), MANY)).documents
        assert [one.revision for one in sessions] == [4] * 5
        await index.close()


async def test_the_queue_of_a_small_node_overflows():
    """Real rejections: one writing thread, and a queue for one request."""
    settings = {"thread_pool.write.size": 1, "thread_pool.write.queue_size": 1}
    with OpenSearchServer.own(**settings) as server:
        url = server.index_url("t")
        await prepare_index(url, HERE)
        indices = [await open_index(url, HERE) for _ in range(8)]
        owner = session(1)
        await indices[0].put(Update((owner,)))

        async def write(index, part):
            for start in range(0, 600, 200):
                numbers = range(part * 600 + start, part * 600 + start + 200)
                commands = tuple(command(owner, n, text=f"w{n}") for n in numbers)
                await retried(index, Update((owner,), commands, {f"bus/{part}": start}))

        await asyncio.gather(*(write(index, part) for part, index in enumerate(indices)))
        pools = server.ask("GET", "/_nodes/stats/thread_pool")["nodes"].values()
        assert sum(node["thread_pool"]["write"]["rejected"] for node in pools) > 0
        assert await found(indices[0]) == set(range(8 * 600))
        assert await indices[0].positions() == {f"bus/{part}": 400 for part in range(8)}
        for index in indices:
            await index.close()


async def test_an_error_of_one_request_ends_the_others(prepared, monkeypatch):
    monkeypatch.setattr(writing, "CHUNK_ACTIONS", 1)

    class Broken:
        async def request(self, *_, **__):
            raise StoreError("broken")

    with pytest.raises(StoreError, match="broken"):
        await Writer(Broken()).write(index_action("i", str(n), {}) for n in range(9))
    assert len(asyncio.all_tasks()) == 1


async def test_messages_have_no_content(index, prepared, caplog, hasty):
    caplog.set_level(logging.DEBUG)
    owner = session(1, user="a-secret-user")
    await index.put(Update((owner,), (command(owner, 0, text="a-secret-statement"),)))
    prepared.server.ask(
        "PUT", f"/{prepared.layout.prefix}-*/_settings", {"index.blocks.write": True}
    )
    with pytest.raises(StoreBusy) as caught:
        await index.put(Update((owner,), (command(owner, 1, text="a-secret-statement"),)))
    assert not re.search("a-secret", caplog.text + str(caught.value))
