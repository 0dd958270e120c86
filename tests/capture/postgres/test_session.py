"""Byte identity and the life of a session, with the clients people use."""

import asyncio
import tempfile
import time
from pathlib import Path

import asyncpg
import psycopg
import pytest

from sealtape.schemas.slices import CLIENT_IN, CLIENT_OUT, TARGET_IN, TARGET_OUT
from tests.capture.postgres.gateway_world import Tap, gateway_world, psql, run
from tests.servers.postgres import program

OK = b"R\0\0\0\x08\0\0\0\0"


async def use_psql(dsn):
    script = b"""
create temp table t (a int, b text);
copy t from stdin;
1\tone
2\ttwo
\\.
copy t to stdout;
select * from t order by a;
select nope;
begin; savepoint s; insert into t values (3, 'three'); rollback to s; commit;
"""
    code, out, err = await psql(dsn, stdin=script)
    assert (code, out.count("one")) == (0, 2)
    assert "nope" in err


async def use_pgbench(dsn, mode):
    script = Path(tempfile.mkdtemp(prefix="sealtape-test-")) / "script.sql"
    script.write_text("\\set a random(1, 1000)\nselect :a + 1;\nselect repeat('x', :a);\n")
    code, _, err = await run(
        program("pgbench"), "-n", "-c", "1", "-t", "50", "-M", mode, "-f", str(script), dsn
    )  # fmt: skip
    assert code == 0, err


async def use_asyncpg(dsn):
    options = dict(pair.split("=", 1) for pair in dsn.replace("'", "").split())
    connection = await asyncpg.connect(
        host=options["host"], port=int(options["port"]), user="ada", ssl=False,
        database=options["dbname"], password=options["password"],
    )  # fmt: skip
    assert await connection.fetchval("select $1::int + 1", 41) == 42
    await connection.execute("create temp table t (a int, b bytea)")
    await connection.executemany(
        "insert into t values ($1, $2)", [(n, b"x" * n) for n in range(500)]
    )
    assert await connection.fetchval("select sum(length(b)) from t") == sum(range(500))
    with pytest.raises(asyncpg.UndefinedTableError):
        await connection.fetch("select * from nowhere")
    async with connection.transaction():
        assert len([row async for row in connection.cursor("select a from t")]) == 500
    await connection.copy_records_to_table("t", records=[(n, b"y") for n in range(1000)])
    heard = asyncio.Event()
    await connection.add_listener("news", lambda *_: heard.set())
    await connection.execute("notify news, 'hello'")
    await asyncio.wait_for(heard.wait(), 60)
    await connection.close()


async def use_psycopg(dsn):
    def work():
        with psycopg.connect(dsn, autocommit=True) as connection:
            with connection.pipeline():
                cursors = [
                    connection.execute("select %s::int", (n,), prepare=True) for n in range(200)
                ]
            assert [cursor.fetchone()[0] for cursor in cursors] == list(range(200))
            with pytest.raises(psycopg.errors.DivisionByZero), connection.pipeline():
                connection.execute("select 1/0")
                connection.execute("select 2")
            series = "copy (select generate_series(1, 20000)) to stdout"
            with connection.cursor() as cursor, cursor.copy(series) as copy:
                assert sum(1 for _ in copy.rows()) == 20000
            connection.add_notice_handler(lambda _: None)
            connection.execute("do $$ begin raise notice 'note'; end $$")

    await asyncio.to_thread(work)


CLIENTS = {
    "psql": use_psql,
    "pgbench-simple": lambda dsn: use_pgbench(dsn, "simple"),
    "pgbench-extended": lambda dsn: use_pgbench(dsn, "extended"),
    "pgbench-prepared": lambda dsn: use_pgbench(dsn, "prepared"),
    "asyncpg": use_asyncpg,
    "psycopg": use_psycopg,
}


@pytest.mark.parametrize("client", CLIENTS)
async def test_the_recorded_legs_are_what_taps_on_both_sides_saw(tmp_path, postgres_server, client):
    async with (
        Tap("127.0.0.1", postgres_server.port) as inner,
        gateway_world(tmp_path, postgres_server, port=inner.port) as world,
        Tap("127.0.0.1", world.port) as outer,
    ):
        await CLIENTS[client](world.dsn(port=outer.port))
        recorded = await world.last_session()
        sent, received = map(bytes, outer.connections[-1])
        to_target, from_target = map(bytes, inner.connections[-1])
    client_in, client_out = recorded.leg(CLIENT_IN), recorded.leg(CLIENT_OUT)
    # before client_in: StartupMessage and the password, and nothing else
    token = sent[: len(sent) - len(client_in)]
    assert sent == token + client_in
    assert token.endswith(b"\0")
    assert token.count(b"eyJ") >= 1
    assert b"eyJ" not in client_in
    assert client_out == received[received.index(OK) :]
    assert recorded.leg(TARGET_IN) == from_target[from_target.index(OK) :]
    target_out = recorded.leg(TARGET_OUT)
    assert target_out == client_in
    assert to_target.endswith(target_out)
    assert b"scram" not in target_out
    assert client_out != recorded.leg(TARGET_IN)  # the cancel key is another
    assert recorded.reason == "client"
    assert recorded.facts


async def test_ident_says_who_and_how(tmp_path, postgres_server):
    async with gateway_world(tmp_path, postgres_server) as world:
        token = world.token(
            "ada", ["dba", "x"], agent="bot", on_behalf_of="grace", run="from-token"
        )
        dsn = world.dsn("shop/template1", token=token, application_name="job run=from-name")
        code, out, _ = await psql(dsn, "-c", "select current_database(), current_user")
        assert (code, out) == (0, "template1|scram\n")
        ident = (await world.last_session()).ident
    assert (ident.user, ident.groups, ident.target) == ("ada", ("dba", "x"), "shop")
    assert (ident.database, ident.protocol, ident.source_ip) == (
        "template1",
        "postgres",
        "127.0.0.1",
    )
    assert (ident.agent.id, ident.agent.on_behalf_of, ident.agent.run) == (
        "bot",
        ("grace",),
        "from-token",
    )
    assert ident.application == "job run=from-name"
    assert ident.expires_ns > time.time_ns()


@pytest.mark.parametrize(
    "options", [{"options": "-c sealtape.run=r-1"}, {"application_name": "x sealtape.run=r-1"}]
)
async def test_an_agent_may_state_its_run_at_startup(tmp_path, postgres_server, options):
    async with gateway_world(tmp_path, postgres_server) as world:
        code, _, err = await psql(world.dsn(**options), "-c", "select 1")
        assert code == 0, err
        ident = (await world.last_session()).ident
    assert ident.agent.run == "r-1"


async def ends_with(world, words, reason, work="select pg_sleep(30)"):
    started = time.monotonic()
    code, out, err = await psql(world.dsn(token=world.short), "-c", work)
    assert code == 2, (out, err)
    assert words in err
    recorded = await world.last_session()
    assert recorded.reason == reason
    assert words.encode() in recorded.leg(CLIENT_OUT)
    assert words.encode() not in recorded.leg(TARGET_IN)
    return time.monotonic() - started


async def test_a_session_ends_when_its_token_expires_and_what_it_ran_is_cancelled(
    tmp_path, postgres_server
):
    async with gateway_world(tmp_path, postgres_server) as world:
        world.short = world.token(ttl_s=2)
        took = await ends_with(world, "its token has expired", "expired", "select pg_sleep(31)")
        assert took < 25
        await asyncio.sleep(0.3)
        assert postgres_server.sql(
            "select count(*) from pg_stat_activity where query = 'select pg_sleep(31)'"
        ) == "0"  # fmt: skip


async def test_a_target_may_keep_sessions_beyond_their_token(tmp_path, postgres_server):
    async with gateway_world(tmp_path, postgres_server, target='on_expiry = "keep"') as world:
        code, out, _ = await psql(
            world.dsn(token=world.token(ttl_s=1)), "-c", "select pg_sleep(2.5), 7"
        )
        assert (code, out) == (0, "|7\n")


async def test_the_longest_session_is_a_setting(tmp_path, postgres_server):
    async with gateway_world(tmp_path, postgres_server, target="max_session = 1") as world:
        world.short = world.token()
        await ends_with(world, "longest time that target `shop` allows", "max_session")


async def test_a_drain_ends_what_is_at_rest_at_once_and_waits_for_the_rest(
    tmp_path, postgres_server
):
    async with gateway_world(tmp_path, postgres_server, capture="") as world:
        idle = await asyncio.to_thread(psycopg.connect, world.dsn(), autocommit=True)
        busy = asyncio.create_task(psql(world.dsn(), "-c", "select pg_sleep(0.6), 7"))
        while len(world.worker.sessions) < 2 or len(world.gateway.sessions) < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        await world.gateway.close()
        with pytest.raises(psycopg.OperationalError, match="shutting down"):
            await asyncio.to_thread(idle.execute, "select 1")
        code, out, _ = await busy
        assert (code, out) == (0, "|7\n")
        assert world.worker.sessions[0].reason == "shutdown"
        assert world.worker.sessions[1].reason in {"client", "shutdown"}  # who was faster
        idle.close()


async def test_what_does_not_end_within_the_grace_time_is_ended(tmp_path, postgres_server):
    async with gateway_world(tmp_path, postgres_server) as world:
        busy = asyncio.create_task(psql(world.dsn(), "-c", "select pg_sleep(30)"))
        while not world.gateway.sessions:
            await asyncio.sleep(0.01)
        await world.gateway.close()
        code, _, err = await busy
        assert code == 2
        assert "shutting down" in err
