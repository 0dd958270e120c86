"""Byte identity: what is recorded is what taps on both sides of the gateway saw, byte for byte."""

import asyncio
import ssl

import asyncpg
import psycopg
import pytest
import pytest_asyncio

from tests.journeys.lab import run, tapped_lab
from tests.journeys.taps import Tap
from tests.servers.postgres import program

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCRIPT = b"""
create temp table t (a int, b text);
copy t from stdin;
1\tone
2\ttwo
\\.
copy t to stdout;
select * from t order by a;
select nope;
begin; savepoint s; insert into t values (3, 'three'); rollback to s; commit;
do $$ begin raise notice 'to be noted'; end $$;
listen news; notify news, 'hello';
select 1 \\; select 2 \\; select 3;
select $1 + $2 \\bind 1 2 \\g
select repeat('long ', 50000);
"""


class World:
    """A running deployment between two taps."""

    def __init__(self, lab, inner, outer):
        self.lab, self.inner, self.outer = lab, inner, outer

    def dsn(self, **more):
        return self.lab.dsn(port=self.outer.port, **more)

    async def psql(self):
        code, out, err = await self.lab.psql(self.dsn(), stdin=SCRIPT)
        assert code == 0
        assert out.count("one") == 2
        assert "nope" in err

    async def pgbench(self, mode, *words):
        code, _, err = await run(
            program("pgbench"), "-n", "-c", "3", "-t", "40", "-M", mode, *words, self.dsn()
        )
        assert code == 0, err

    async def asyncpg(self, **more):
        async with self.lab.asyncpg(port=self.outer.port, **more) as connection:
            assert await connection.fetchval("select $1::int + 1", 41) == 42
            await connection.execute("create temp table t (a int, b bytea)")
            rows = [(n, b"x" * n) for n in range(400)]
            await connection.executemany("insert into t values ($1, $2)", rows)
            assert await connection.fetchval("select sum(length(b)) from t") == sum(range(400))
            with pytest.raises(asyncpg.UndefinedTableError):
                await connection.fetch("select * from nowhere")
            async with connection.transaction():
                assert len([row async for row in connection.cursor("select a from t")]) == 400
            await connection.copy_records_to_table("t", records=[(n, b"y") for n in range(3000)])
            heard = asyncio.Event()
            await connection.add_listener("news", lambda *_: heard.set())
            await connection.execute("notify news, 'hello'")
            await asyncio.wait_for(heard.wait(), 30)
            with pytest.raises(TimeoutError):  # it sends a CancelRequest
                await connection.execute("select pg_sleep(60)", timeout=0.3)
            assert await connection.fetchval("select repeat('x', 3000000)") == "x" * 3000000

    def psycopg(self, dsn):
        with psycopg.connect(dsn, autocommit=True) as connection:
            with connection.pipeline():
                cursors = [
                    connection.execute("select %s::int", (n,), prepare=True) for n in range(200)
                ]
            assert [cursor.fetchone()[0] for cursor in cursors] == list(range(200))
            with pytest.raises(psycopg.errors.DivisionByZero), connection.pipeline():
                connection.execute("select 1/0")
                connection.execute("select 2")
            with connection.cursor(binary=True) as cursor:
                cursor.execute("create temp table t (a int8, b text)")
                with cursor.copy("copy t from stdin (format binary)") as copy:
                    copy.set_types(["int8", "text"])
                    for n in range(5000):
                        copy.write_row((n, "row"))
                with cursor.copy("copy (select generate_series(1, 30000)) to stdout") as copy:
                    assert sum(1 for _ in copy.rows()) == 30000
                with pytest.raises(ZeroDivisionError), cursor.copy("copy t from stdin") as copy:
                    copy.write_row((1, "x"))
                    raise ZeroDivisionError  # ends as CopyFail
                cursor.execute("select %s::bytea, now()", (bytes(range(256)),))
                assert cursor.fetchone()[0] == bytes(range(256))
            connection.execute("listen news")
            connection.execute("notify news, 'hello'")
            assert next(connection.notifies(timeout=30, stop_after=1)).payload == "hello"

    async def newest(self, outer, inner):
        """The connections that are new since there were so many, over."""
        await self.outer.quiet()
        await self.inner.quiet()
        return self.outer.sessions()[outer:], self.inner.sessions()[inner:]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory, postgres_server):
    folder = tmp_path_factory.mktemp("bytes")
    async with tapped_lab(folder, postgres_server) as (lab, inner):
        await lab.dev()
        async with Tap(lab.port) as outer:
            yield World(lab, inner, outer)
            assert await lab.front.stop() == 0
            report = await lab.verify()
            assert report["verdict"] == "verified"
            assert report["findings"] == []


USES = {
    "psql": lambda world: world.psql(),
    "pgbench-simple": lambda world: world.pgbench("simple"),
    "pgbench-extended": lambda world: world.pgbench("extended"),
    "pgbench-prepared": lambda world: world.pgbench("prepared"),
    "pgbench-select-only": lambda world: world.pgbench("prepared", "-S"),
    "asyncpg": lambda world: world.asyncpg(),
    "psycopg": lambda world: asyncio.to_thread(world.psycopg, world.dsn()),
}


@pytest.fixture(scope="module")
def tables(postgres_server):
    """What pgbench's own scripts work on."""
    postgres_server.sql(
        """
        drop table if exists pgbench_accounts, pgbench_branches, pgbench_tellers, pgbench_history;
        create table pgbench_branches (bid int primary key, bbalance int, filler char(88));
        create table pgbench_tellers (tid int primary key, bid int, tbalance int, filler char(84));
        create table pgbench_accounts (aid int primary key, bid int, abalance int, filler char(84));
        create table pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp,
                                      filler char(22));
        insert into pgbench_branches values (1, 0);
        insert into pgbench_tellers select n, 1, 0 from generate_series(1, 10) n;
        insert into pgbench_accounts select n, 1, 0 from generate_series(1, 100000) n;
        """
    )


async def check(world, outer, inner, *, tls=False):
    """Compare what is recorded of the new sessions with what the taps saw."""
    clients, targets = await world.newest(outer, inner)
    at_target = {(each.client_bytes(), each.server_bytes()) for each in targets}
    by_source = {f"127.0.0.1:{each.port}": each for each in clients}

    async def recorded():
        found = await world.lab.sessions()
        return [each for each in found if each.source in by_source and each.state != "live"]

    sessions = await world.lab.until(recorded, lambda found: len(found) == len(targets))
    for session in sessions:
        client = by_source[session.source]
        client_in, target_out, target_in, client_out = await world.lab.legs(session.session)
        assert (target_out, target_in) in at_target
        at_target.remove((target_out, target_in))
        assert len(target_in) > 300
        if not tls:
            assert client_in == client.client_bytes()
            assert client_out == client.server_bytes()
        assert b"eyJ" not in client_in
        assert session.close_reason == "client"
        assert session.commands > 0
        assert (session.bytes_client, session.bytes_server) == (len(client_in), len(client_out))
    assert not at_target
    name = session.session.hex()
    assert await world.lab.raw(name, "client") == client_in
    assert await world.lab.raw(name, "server") == client_out
    return len(sessions)


@pytest.mark.parametrize("use", USES)
async def test_both_taps_saw_what_is_recorded(world, tables, use):
    before = len(world.outer.sessions()), len(world.inner.sessions())
    await USES[use](world)
    assert await check(world, *before) >= 1


@pytest.mark.parametrize("use", ["asyncpg", "psycopg"])
async def test_over_tls_the_target_side_tap_saw_what_is_recorded(world, use):
    before = len(world.outer.sessions()), len(world.inner.sessions())
    if use == "asyncpg":
        context = ssl.create_default_context(cafile=world.lab.folder / "keys/tls.crt")
        await world.asyncpg(ssl=context)
    else:
        dsn = world.dsn(sslmode="verify-full", sslrootcert=world.lab.folder / "keys/tls.crt")
        await asyncio.to_thread(world.psycopg, dsn)
    assert await check(world, *before, tls=True) == 1
