"""A CancelRequest that the load balancer gave to another node."""

import asyncio

import pytest

from sealtape.capture.postgres.cancel import CancelRegistry, node_bits
from sealtape.capture.postgres.codec import messages
from sealtape.capture.postgres.peers import Peers
from sealtape.schemas.errors import SettingsError
from sealtape.schemas.settings import PostgresListenerSettings
from tests.capture.postgres.gateway_world import gateway_world


def twins():
    """Two node names with the same seven bits."""
    seen = {}
    for number in range(1000):
        name = f"node-{number}"
        if node_bits(name) in seen:
            return seen[node_bits(name)], name
        seen[node_bits(name)] = name
    raise AssertionError


def peers(tmp_path, *entries, node="node-1"):
    return Peers(node=node, settings=PostgresListenerSettings(peers=entries), base=tmp_path)


@pytest.mark.parametrize("entry", ["", "node-2", "=h:1", "node-2=h", "node-2=h:99999"])
def test_a_peer_is_a_name_and_an_address(tmp_path, entry):
    with pytest.raises(SettingsError, match="NAME=HOST:PORT"):
        peers(tmp_path, entry)


def test_nodes_that_cancel_keys_cannot_tell_apart_are_refused(tmp_path):
    one, other = twins()
    with pytest.raises(SettingsError, match=f"`{one}` and `{other}`"):
        peers(tmp_path, f"{other}=h:1", node=one)
    peers(tmp_path, f"{one}=h:1", node=one)  # itself: one list serves all nodes


async def test_a_request_for_a_node_that_is_no_peer_or_is_away_goes_nowhere(tmp_path):
    other = CancelRegistry(node="node-2", worker=0)
    key = other.add(lambda: None, long=False)
    await peers(tmp_path).request(key.process, key.key)
    async with asyncio.timeout(20):
        await peers(tmp_path, "node-2=127.0.0.1:1").request(key.process, key.key)


@pytest.mark.parametrize("tls", ["disable", "verify-full"])
async def test_the_node_that_holds_the_session_cancels_it(tmp_path, postgres_server, tls):
    holding, asked = tmp_path / "a", tmp_path / "b"
    holding.mkdir()
    asked.mkdir()
    async with gateway_world(holding, postgres_server, node="node-1") as first:
        listener = f"""plaintext = "loopback"
peers = ["node-1=127.0.0.1:{first.port}", "node-2=127.0.0.1:1"]
peers_tls = "{tls}"
peers_ca = "{first.certificate}"
"""
        async with gateway_world(
            asked, postgres_server, node="node-2", listener=listener
        ) as second:
            reader, writer = await asyncio.open_connection("127.0.0.1", first.port)
            writer.write(messages.startup({"user": "ada", "database": "shop"}))
            writer.write(messages.password_message(first.token()))
            greeting = await reader.readuntil(messages.ready_for_query())
            at = greeting.index(b"K\0\0\0\x0c")
            process = int.from_bytes(greeting[at + 5 : at + 9], "big")
            writer.write(messages.message(b"Q", b"select pg_sleep(20)\0"))
            await asyncio.sleep(0.3)
            other, other_writer = await asyncio.open_connection("127.0.0.1", second.port)
            other_writer.write(messages.cancel_request(process, greeting[at + 9 : at + 13]))
            async with asyncio.timeout(10):
                assert await other.read() == b""  # nothing is ever answered
                answer = await reader.readuntil(messages.ready_for_query())
            assert b"57014" in answer  # query_canceled
            for each in (writer, other_writer):
                each.close()
                await each.wait_closed()
