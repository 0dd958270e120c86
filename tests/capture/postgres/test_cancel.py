"""Cancel keys and the way a CancelRequest takes."""

import asyncio
import os
import time

import psycopg
import pytest

from sealtape.capture.postgres.cancel import LONG_KEY, CancelRegistry, CancelSwitch
from sealtape.capture.postgres.codec import messages
from sealtape.schemas.errors import StoreError
from tests.capture.postgres.gateway_world import gateway_world


class Cancelled:
    def __init__(self):
        self.times = 0

    async def __call__(self):
        self.times += 1


def test_a_key_names_node_and_worker_and_is_as_long_as_the_protocol_takes():
    registry = CancelRegistry(node="node-1", worker=63)
    keys = [registry.add(Cancelled(), long=n % 2 == 1) for n in range(500)]
    assert len({key.process for key in keys}) == 500
    assert all(0 < key.process < 1 << 31 for key in keys)
    assert {registry.worker_of(key.process) for key in keys} == {63}
    assert {len(key.key) for key in keys} == {4, LONG_KEY}
    other = CancelRegistry(node="node-2", worker=63)
    assert other.worker_of(keys[0].process) is None


async def test_only_the_right_key_cancels_and_only_while_the_session_is_open():
    registry, work = CancelRegistry(node="n", worker=0), Cancelled()
    key = registry.add(work, long=False)
    await registry.cancel(key.process, b"\0\0\0\0" if key.key != bytes(4) else b"\1\0\0\0")
    await registry.cancel(key.process, key.key[:3])
    await registry.cancel(key.process, b"")
    await registry.cancel(key.process ^ 1, key.key)
    assert work.times == 0
    assert registry.knows(key.process, key.key)
    assert not registry.knows(key.process, b"")
    assert not registry.knows(key.process ^ 1, key.key)
    await registry.cancel(key.process, key.key)
    assert work.times == 1
    registry.remove(key)
    registry.remove(key)
    await registry.cancel(key.process, key.key)
    assert work.times == 1


@pytest.mark.parametrize("deep", ["", "x" * 100])
async def test_another_worker_of_the_node_gets_it_passed_on(tmp_path, deep):
    folder = tmp_path / deep / "run"
    registries = [CancelRegistry(node="n", worker=number) for number in range(2)]
    switches = [CancelSwitch(registry=registry, folder=folder) for registry in registries]
    for switch in switches:
        switch.open()
    assert folder.stat().st_mode & 0o077 == 0
    work = Cancelled()
    key = registries[1].add(work, long=True)
    await switches[0].request(key.process, key.key)
    for _ in range(100):
        if work.times:
            break
        await asyncio.sleep(0.01)
    assert work.times == 1
    own = Cancelled()
    key = registries[0].add(own, long=False)
    await switches[0].request(key.process, key.key)
    assert own.times == 1
    switches[1].close()
    await switches[0].request(registries[1].add(work, long=False).process, b"abcd")  # nobody there
    stranger = CancelRegistry(node="other", worker=0).add(work, long=False)
    await switches[0].request(stranger.process, stranger.key)
    switches[0].close()
    switches[0].close()
    assert work.times == 1
    assert os.listdir(folder) == []


async def test_a_socket_a_dead_worker_left_is_replaced(tmp_path):
    registry = CancelRegistry(node="n", worker=0)
    (tmp_path / "cancel-0.sock").write_text("left")
    switch = CancelSwitch(registry=registry, folder=tmp_path)
    switch.open()
    switch.close()


async def test_a_run_folder_that_cannot_be_made_is_a_store_error(tmp_path):
    (tmp_path / "run").write_text("a file")
    switch = CancelSwitch(registry=CancelRegistry(node="n", worker=0), folder=tmp_path / "run")
    with pytest.raises(StoreError):
        switch.open()


@pytest.mark.parametrize("sslmode", ["disable", "require"])
@pytest.mark.parametrize("version", ["3.0", "3.2"])
async def test_a_running_statement_is_cancelled_through_our_keys(
    tmp_path, postgres_server, sslmode, version
):
    async with gateway_world(tmp_path, postgres_server) as world:
        dsn = world.dsn(sslmode=sslmode, min_protocol_version=version, max_protocol_version=version)

        def work():
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute("select 1")
                started = time.monotonic()
                with pytest.raises(psycopg.errors.QueryCanceled):
                    _cancelled_soon(connection)
                took = time.monotonic() - started
                return took, connection.execute("select 7").fetchone()[0]

        took, seven = await asyncio.to_thread(work)
        assert took < 5
        assert seven == 7
        recorded = await world.last_session()
    # the client never saw the target's key, nor the target ours
    ours, theirs = (_key_message(recorded.leg(leg)) for leg in (3, 2))
    assert ours != theirs
    assert len(ours) == 5 + 4 + (LONG_KEY if version == "3.2" else 4)


def _cancelled_soon(connection):
    import threading

    threading.Timer(0.3, lambda: connection.cancel_safe(timeout=10)).start()
    connection.execute("select pg_sleep(20)")


def _key_message(stream):
    at = 0
    while stream[at : at + 1] != b"K":
        at += 5 + messages.parse_length(stream[at : at + 5])
    return stream[at : at + 5 + messages.parse_length(stream[at : at + 5])]


async def test_a_cancel_request_is_never_answered(tmp_path, postgres_server):
    async with gateway_world(tmp_path, postgres_server) as world:
        for tail in (b"", messages.TERMINATE):  # some clients say goodbye on this connection
            reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
            writer.write(messages.cancel_request(7, b"abcd") + tail)
            assert await asyncio.wait_for(reader.read(), 60) == b""
            writer.close()
        assert not world.worker.sessions
        assert not world.worker.refusals


async def test_who_cancels_without_a_key_of_ours_stays_a_stranger(tmp_path, postgres_server):
    """Nobody who has not authenticated may take all connections there are."""
    few = "max_per_address = 3"
    async with gateway_world(tmp_path, postgres_server, capture=few) as world:
        opened = []
        for _ in range(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
            writer.write(messages.cancel_request(7, b"abcd"))
            opened.append((reader, writer))
        async with asyncio.timeout(10):
            while world.worker.counts["over-limit"] < 7:
                await asyncio.sleep(0.01)
        assert world.gateway.limits.total <= 3
        for _, writer in opened:
            writer.close()
