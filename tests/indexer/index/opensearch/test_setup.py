import asyncio
import json
import re
import ssl
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sealtape.indexer.index import open_index
from sealtape.indexer.index.opensearch import prepare_cluster
from sealtape.indexer.index.opensearch.dashboards import saved_objects
from sealtape.schemas.errors import SettingsError, StoreError
from tests.servers.http_faults import fault_proxy
from tests.servers.process import free_port
from tests.servers.tls import write_certificate

HERE = Path("/")
TERMS = {"standard": 400 * 86_400.0, "short": 86_400.0}


@pytest.fixture
def fresh(opensearch_server):
    """A prefix of which nothing is there."""
    prefix = opensearch_server.prefix()
    yield prefix
    opensearch_server.forget(prefix)


async def test_preparing_twice_is_preparing_once(opensearch_server, fresh):
    url = opensearch_server.index_url(fresh)
    first = await prepare_cluster(url, HERE)
    assert first[0] == "loaded 5 component and 4 index templates"
    assert await prepare_cluster(url, HERE) == first
    await (await open_index(url, HERE)).close()


@pytest.mark.parametrize("newer", [{"layout": 99}, {"words": 99}])
async def test_a_newer_versions_templates_stay(opensearch_server, fresh, newer):
    """An old version's setup, run again by a host that was left behind."""
    url = opensearch_server.index_url(fresh)
    await prepare_cluster(url, HERE)
    (path, body), *_ = (
        (f"/_index_template/{item['name']}", item["index_template"])
        for item in opensearch_server.ask("GET", f"/_index_template/{fresh}-*")["index_templates"]
    )
    body["_meta"] |= newer
    opensearch_server.ask("PUT", path, body)
    with pytest.raises(StoreError, match="newer version") as caught:
        await prepare_cluster(url, HERE)
    assert "setup" not in caught.value.hint
    (kept,) = opensearch_server.ask("GET", path)["index_templates"]
    assert kept["index_template"]["_meta"] == body["_meta"]
    with pytest.raises(StoreError, match="newer version"):
        await open_index(url, HERE)


async def test_what_cannot_be_loaded_is_said(opensearch_server, fresh):
    nobody = f"http://127.0.0.1:{free_port()}"
    done = await prepare_cluster(
        opensearch_server.index_url(fresh), HERE, delete_after=TERMS, dashboards=nobody
    )
    assert done[1] == "did not load roles: the cluster has no security plugin"
    assert "no Index State Management plugin" in done[2]
    assert "did not load dashboards: what answers at 127.0.0.1" in done[3]


async def test_shards_and_replicas_are_those_of_the_url(opensearch_server, fresh):
    url = opensearch_server.index_url(fresh, shards="3", replicas="2")
    await prepare_cluster(url, HERE)
    name = f"{fresh}-commands-main.standard.2026.11.22"
    body = opensearch_server.ask("POST", f"/_index_template/_simulate_index/{name}")
    settings = body["template"]["settings"]["index"]
    assert (settings["number_of_shards"], settings["number_of_replicas"]) == ("3", "2")
    body = opensearch_server.ask("POST", f"/_index_template/_simulate_index/{fresh}-state")
    settings = body["template"]["settings"]["index"]
    assert (settings["number_of_shards"], settings["number_of_replicas"]) == ("1", "2")


async def test_policies_are_loaded_and_replaced(opensearch_server, fresh):
    """The plugin is not to be had for this server: the test answers in its place."""
    async with fault_proxy(opensearch_server.url) as proxy:
        url = opensearch_server.index_url(fresh).replace(
            opensearch_server.address, f"127.0.0.1:{proxy.port}"
        )

        def of_plugin(method):
            return lambda one: one.method == method and "/_ism/policies/" in one.path

        there = b'{"_id": "x", "_seq_no": 7, "_primary_term": 2, "policy": {}}'
        as_json = ("Content-Type: application/json",)
        proxy.answer(of_plugin("GET"), "404 Not Found", b"{}", headers=as_json)
        proxy.answer(of_plugin("GET"), "200 OK", there, headers=as_json)
        proxy.answer(of_plugin("PUT"), "201 Created", there, times=2, headers=as_json)
        done = await prepare_cluster(url, HERE, delete_after=TERMS)
    assert done[-1] == "loaded 2 backstop policies"
    first, second = [one for one in proxy.seen if of_plugin("PUT")(one)]
    assert first.path.endswith(f"/{fresh}-backstop-short")
    assert first.query == {}
    assert second.query == {"if_seq_no": ["7"], "if_primary_term": ["2"]}


@asynccontextmanager
async def dashboards(answer, tls=None):
    """What takes the place of Dashboards: keeps requests, and gives one answer."""
    seen = []

    async def serve(reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        size = int(re.search(r"content-length: (\d+)", head, re.IGNORECASE)[1])
        seen.append((head, await reader.readexactly(size)))
        body = json.dumps(answer).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        writer.write(f"{head}\r\nconnection: close\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1], seen
    finally:
        server.close()


async def test_boards_are_imported(opensearch_server, prepared, monkeypatch):
    monkeypatch.setenv("SEARCH", "x")
    url = prepared.url.replace("//", "//someone@") + "&password_env=SEARCH"
    async with dashboards({"success": True}) as (port, seen):
        address = f"http://127.0.0.1:{port}/base/"
        done = await prepare_cluster(url, HERE, dashboards=address)
    ((head, body),) = seen
    first, *headers = head.splitlines()
    assert first == "POST /base/api/saved_objects/_import?overwrite=true HTTP/1.1"
    headers = {line.partition(": ")[0].lower(): line.partition(": ")[2] for line in headers}
    assert headers["osd-xsrf"] == "true"
    assert headers["authorization"].startswith("Basic ")
    boundary = headers["content-type"].removeprefix("multipart/form-data; boundary=")
    start, content, end = body.decode().split(f"--{boundary}")
    assert (start, end) == ("", "--\r\n")
    disposition, _, lines = content.strip("\r\n").partition("\r\n\r\n")
    assert 'name="file"; filename="sealtape.ndjson"' in disposition
    objects = saved_objects(prepared.layout)
    assert [json.loads(line) for line in lines.splitlines()] == objects
    assert done[-1] == f"loaded {len(objects)} saved objects into Dashboards"


async def test_boards_over_tls(prepared, tmp_path):
    chain, key = write_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    # The cluster is asked without TLS; Dashboards is asked with what its own address says.
    url = prepared.url.replace("tls=disable", f"tls=disable&ca={chain}")
    async with dashboards({"success": True}, context) as (port, seen):
        done = await prepare_cluster(url, HERE, dashboards=f"https://127.0.0.1:{port}")
    assert done[-1].startswith("loaded")
    assert len(seen) == 1


@pytest.mark.parametrize("answer", [{"success": False, "errors": []}, [], {}])
async def test_boards_that_are_refused(prepared, answer):
    async with dashboards(answer) as (port, _):
        done = await prepare_cluster(prepared.url, HERE, dashboards=f"http://127.0.0.1:{port}")
    assert done[-1] == "did not load dashboards: not all saved objects were taken"


@pytest.mark.parametrize("address", ["dashboards:5601", "ftp://x", "http://", "http://u:p@h"])
async def test_an_address_of_dashboards_is_one(prepared, address):
    with pytest.raises(SettingsError):
        await prepare_cluster(prepared.url, HERE, dashboards=address)


async def test_nobody_there():
    with pytest.raises(StoreError):
        await prepare_cluster(f"opensearch://127.0.0.1:{free_port()}/t?tls=disable", HERE)
