import asyncio
import shutil
import time
from dataclasses import replace

import pytest

from sealtape.capture.bus import open_bus
from sealtape.capture.metrics.asking import readiness_at
from sealtape.indexer.index import Page
from sealtape.indexer.node import indexer_key, indexer_stores, rebuild_index, serve
from sealtape.indexer.query import Query
from sealtape.schemas.errors import KeyUnavailable, SettingsError, StoreError
from sealtape.schemas.settings import load_settings
from sealtape.schemas.trust import format_trust
from tests.factories.sessions import build_session, node_signer, reader
from tests.servers.process import free_port

SETTINGS = """
[deployment]
mode = "dev"
node = "node-1"
log = "sealtape.test/log"
[stores]
bus = "dir:bus?partitions=2"
[identity]
issuer = "https://issuer.test"
audience = "sealtape"
jwks = "file:keys/jwks.json"
"""


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/indexer.key").write_text(reader("indexer").text())
    (tmp_path / "trust.toml").write_text(format_trust([node_signer().verifier.vkey]))
    return load_settings(SETTINGS, base=str(tmp_path))


async def test_the_key(settings, tmp_path):
    assert indexer_key(settings) == reader("indexer")
    (tmp_path / "keys/indexer.key").unlink()
    with pytest.raises(KeyUnavailable, match="indexer_private"):
        indexer_key(settings)


async def test_nothing_is_indexed_without_a_trust_file(settings, tmp_path):
    (tmp_path / "trust.toml").unlink()
    with pytest.raises(SettingsError, match=r"trust\.toml cannot be read"):
        await serve(settings, asyncio.Event())
    with pytest.raises(SettingsError, match=r"trust\.toml cannot be read"):
        await rebuild_index(settings)


async def test_stores_are_closed_again(settings):
    async with indexer_stores(settings) as stores:
        assert (await stores.index.search_sessions(Query(), Page())).documents == ()
    with pytest.raises(StoreError):
        await stores.index.positions()
    with pytest.raises(StoreError):
        await stores.ledger.position("x", 0)


async def test_serve_until_told_then_rebuild(settings, deployment):
    built = build_session(seed=60)
    await deployment.send(built)
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(settings, stop))
    until = time.monotonic() + 10
    while not (await deployment.index.search_commands(Query(), Page())).documents:
        assert time.monotonic() < until
        assert not serving.done()
        await asyncio.sleep(0.02)
    stop.set()
    await asyncio.wait_for(serving, 60)
    await deployment.seal()
    tally = await rebuild_index(settings)
    assert (tally.commands, tally.frames) == (3, len(built.frames))
    assert (await deployment.index.session(built.session.hex())).state == "sealed"


async def test_events_go_on_when_their_topic_was_made_anew(settings, deployment, tmp_path):
    """Nobody starts the indexer again for it."""
    address = f"127.0.0.1:{free_port()}"
    settings = replace(settings, indexer=replace(settings.indexer, metrics=address))
    first, second = build_session(seed=61), build_session(seed=62)
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(settings, stop))
    try:
        await deployment.send(first)
        await found(deployment, first)
        await ready(address, events="ok")
        shutil.rmtree(tmp_path / "events")
        await deployment.send(second)
        await ready(address, events="failing: store")
        events = open_bus(settings.stores.events, tmp_path)
        await found(deployment, second)
        await ready(address, events="ok")
    finally:
        stop.set()
        await asyncio.wait_for(serving, 60)
    assert (await events.bounds(0))[1] > 0
    await events.close()


async def found(deployment, built):
    async with asyncio.timeout(30):
        while await deployment.index.progress(built.session.hex()) is None:
            await asyncio.sleep(0.05)


async def ready(address, *, events):
    async with asyncio.timeout(30):
        while True:
            told = await readiness_at(address)
            if told and told["checks"].get("events") == events:
                assert told["ready"] == (events == "ok")
                return
            await asyncio.sleep(0.05)
