from pathlib import Path

import pytest

from sealtape.indexer.index import check_index, prepare_index
from sealtape.indexer.index.base import Update
from sealtape.indexer.index.opensearch import removal
from sealtape.schemas.errors import StoreError
from tests.conformance.index import command, session
from tests.servers.http_faults import fault_proxy
from tests.servers.process import free_port

HERE = Path("/")
ALL = ("cluster", "templates", "indices", "writing", "health", "blocks", "quarantine", "removals")


async def look(url):
    return {check.name.removeprefix("index: "): check for check in await check_index(url, HERE)}


async def test_all_is_well(index, prepared):
    owner = session(1)
    await index.put(Update((owner,), (command(owner, 0),), {"bus/0": 1}))
    found = await look(prepared.url)
    assert tuple(found) == ALL
    assert {check.level for check in found.values()} == {"ok"}
    assert all(not check.hint and check.message for check in found.values())
    assert await index.positions() == {"bus/0": 1}


async def test_before_anything_is_written(prepared):
    assert {check.level for check in (await look(prepared.url)).values()} == {"ok"}


async def test_nobody_there():
    found = await look(f"opensearch://127.0.0.1:{free_port()}/t?tls=disable")
    assert [(name, check.level) for name, check in found.items()] == [("cluster", "error")]
    assert "cannot be reached" in found["cluster"].message


async def test_a_url_that_makes_no_sense():
    (found,) = await check_index("opensearch://h/A", HERE)
    assert (found.name, found.level) == ("index: settings", "error")


async def test_an_unprepared_cluster(opensearch_server):
    prefix = opensearch_server.prefix()
    found = await look(opensearch_server.index_url(prefix))
    assert {name: check.level for name, check in found.items()} == {
        "cluster": "ok",
        "templates": "error",
    }
    assert "index setup" in found["templates"].hint
    assert opensearch_server.ask("GET", f"/{prefix}-*/_alias") == {}


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b'{"version": {"number": "8.1.0"}}', "not OpenSearch"),
        (b'{"version": {"distribution": "opensearch", "number": "2.14.9"}}', "too old"),
        (b'{"version": {"distribution": "opensearch", "number": "x"}}', "not OpenSearch"),
        (b'["x"]', "not OpenSearch"),
    ],
)
async def test_another_server(prepared, body, part):
    async with fault_proxy(prepared.server.url) as proxy:
        headers = ("Content-Type: application/json",)
        proxy.answer(lambda one: one.path == "/", "200 OK", body, headers=headers)
        url = prepared.url.replace(prepared.server.address, f"127.0.0.1:{proxy.port}")
        found = await look(url)
    assert found["cluster"].level == "error"
    assert part in found["cluster"].message


async def test_copies_that_have_no_node(prepared):
    prepared.server.ask(
        "PUT", f"/{prepared.layout.prefix}-commands-a.b.2026.11.22?wait_for_active_shards=0",
        {"settings": {"number_of_replicas": 1}},
    )  # fmt: skip
    assert (await look(prepared.url))["health"].level == "warning"
    prepared.server.ask(
        "PUT", f"/{prepared.layout.prefix}-commands-a.b.2026.11.23?wait_for_active_shards=0",
        {"settings": {"index.routing.allocation.require._name": "nobody"}},
    )  # fmt: skip
    found = (await look(prepared.url))["health"]
    assert found.level == "error"
    assert "searches fail" in found.message


async def test_indices_that_no_template_of_ours_made(index, prepared):
    await index.put(Update((session(1),)))
    family = prepared.layout.sessions
    prepared.server.ask("DELETE", f"/_index_template/{family}")
    prepared.server.ask("PUT", f"/{family}-a.b.2026.11")
    await prepare_index(prepared.url, HERE)
    found = (await look(prepared.url))["indices"]
    assert found.level == "error"
    assert f"1 indices were made without our templates, {family}-a.b" in found.message
    assert "index rebuild" in found.hint
    await index.clear()
    assert (await look(prepared.url))["indices"].level == "ok"


async def test_blocked_indices(index, prepared):
    await index.put(Update((session(1),)))
    name = f"/{prepared.layout.prefix}-sessions-*/_settings"
    prepared.server.ask("PUT", name, {"index.blocks.read_only_allow_delete": True})
    found = await look(prepared.url)
    assert found["blocks"].level == "error"
    assert "make room" in found["blocks"].hint
    prepared.server.ask("PUT", name, {"index.blocks.read_only_allow_delete": None})


async def test_what_is_in_quarantine(index, prepared):
    owner = session(1)
    await index.put(Update((owner,), (command(owner, 0, user="x" * 40_000),)))
    prepared.server.ask("POST", f"/{prepared.layout.quarantine}/_refresh")
    found = (await look(prepared.url))["quarantine"]
    assert (found.level, found.message[:13]) == ("warning", "1 documents w")


async def test_a_removal_that_did_not_end(index, prepared, monkeypatch):
    async def died(self, indices):
        raise StoreError("died")

    owner = session(1)
    await index.put(Update((owner,), (command(owner, 0),)))
    monkeypatch.setattr(removal.Removal, "_purge", died)
    with pytest.raises(StoreError, match="died"):
        await index.drop(owner.id)
    assert (await look(prepared.url))["removals"].level == "warning"
