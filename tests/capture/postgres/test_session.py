import asyncio

from sealtape.schemas.slices import CLIENT_IN, CLIENT_OUT, TARGET_IN, TARGET_OUT
from tests.capture.postgres.gateway_world import Tap, gateway_world
from tests.servers.postgres import client_environment, program


async def psql(dsn, *arguments, stdin=None):
    process = await asyncio.create_subprocess_exec(
        program("psql"), dsn, "-XAt", *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, env=client_environment(),
    )  # fmt: skip
    out, err = await process.communicate(stdin)
    return process.returncode, out.decode(), err.decode()


async def test_psql_works_and_the_legs_are_what_the_taps_saw(tmp_path, postgres_server):
    async with (
        Tap("127.0.0.1", postgres_server.port) as inner,
        gateway_world(tmp_path, postgres_server, port=inner.port) as world,
        Tap("127.0.0.1", world.port) as outer,
    ):
        code, out, err = await psql(
            world.dsn(port=outer.port), "-c", "select 6*7", "-c", "select 'x'"
        )
        assert (code, out, err) == (0, "42\nx\n", "")
        recorded = await world.last_session()
        sent, received = map(bytes, outer.connections[-1])
        assert sent.endswith(recorded.leg(CLIENT_IN))
        assert recorded.leg(CLIENT_IN).startswith(b"Q")
        ok = received.index(b"R\0\0\0\x08\0\0\0\0")
        assert recorded.leg(CLIENT_OUT) == received[ok:]
        to_target, from_target = map(bytes, inner.connections[-1])
        assert to_target.endswith(recorded.leg(TARGET_OUT))
        assert recorded.leg(TARGET_IN) == from_target[from_target.index(b"R\0\0\0\x08\0\0\0\0") :]
        assert recorded.reason == "client"
        assert recorded.ident.user == "ada"
