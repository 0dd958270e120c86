"""Records the captures in this folder from a real PostgreSQL through a small tap.

    python -m tests.vectors.postgres.record

A file is a list of sessions, a session a list of what crossed the tap after authentication:
`["c", base64]` from the client, `["s", base64]` from the server, in the order it was read; the
first message of `s` is AuthenticationOk.
Running it again gives other times, process numbers and cancel keys, so the files are kept.
"""

import asyncio
import base64
import json
import subprocess
import threading
from pathlib import Path

import asyncpg
import psycopg

from tests.servers.postgres import PostgresServer, client_environment, program

HERE = Path(__file__).parent


class Tap:
    """A TCP relay to the server that keeps what it reads after the StartupMessage."""

    def __init__(self, server):
        self.server = server
        self.sessions = []
        self.port = None
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()

    async def _start(self):
        listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = listener.sockets[0].getsockname()[1]

    async def _serve(self, reader, writer):
        size = await reader.readexactly(4)
        startup = size + await reader.readexactly(int.from_bytes(size, "big") - 4)
        target, sink = await asyncio.open_connection(self.server.host, self.server.port)
        sink.write(startup)
        chunks = []
        self.sessions.append(chunks)
        await asyncio.gather(
            self._pump(chunks, "c", reader, sink), self._pump(chunks, "s", target, writer)
        )

    async def _pump(self, chunks, side, reader, writer):
        while data := await reader.read(65536):
            chunks.append([side, base64.b64encode(data).decode()])
            writer.write(data)
        writer.close()

    def take(self):
        found = self.sessions[:]
        self.sessions.clear()
        return found


def psql(port, script):
    command = [program("psql"), "-X", "-q", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres"]
    subprocess.run(
        [*command, "postgres"],
        input=script.encode(),
        env=client_environment(PGSSLMODE="disable", PGGSSENCMODE="disable"),
        capture_output=True,
        check=False,  # a script that ends its own session fails
    )


def simple(port):
    psql(
        port,
        """
create table shop (id int primary key, name text, price numeric(10,2), made date);
insert into shop values (1, 'tea', 3.50, '2026-01-02'), (2, 'it''s', null, null);
select id, name, price from shop order by id;
select 1 as a\\; select 'two' as b\\; update shop set name = 'x' where id = 2;
begin;
select count(*) from shop;
rollback;
alter role postgres password 'hunter2';
explain analyze select * from shop;
;
select * from shop where name = $$a$$;
do $$ begin raise notice 'hello %', 1; end $$;
""",
    )


def error(port):
    psql(
        port,
        """
select 1/0;
selec 'hunter2';
insert into shop values (1, 'again', 1, null);
begin;
select nothing from shop;
select 1;
rollback;
select 1\\; select 1/0\\; select 2;
select pg_terminate_backend(pg_backend_pid());
""",
    )


def copy(port):
    psql(
        port,
        """
copy shop (id, name) from stdin;
10\tten
11\televen
\\.
copy shop (id, name) from stdin;
not a number\tx
\\.
copy (select id, name from shop order by id) to stdout;
""",
    )
    with psycopg.connect(dsn(port), autocommit=True) as connection:
        with connection.cursor().copy("copy shop (id, name) from stdin") as into:
            into.write_row((20, "twenty"))
            into.write_row((21, "twenty-one"))
        with connection.cursor().copy("copy shop (id) to stdout (format binary)") as out:
            list(out)
        connection.execute("truncate shop")


def dsn(port):
    return f"host=127.0.0.1 port={port} user=postgres dbname=postgres sslmode=disable"


def extended(port):
    asyncio.run(_extended(port))


async def _extended(port):
    connection = await asyncpg.connect(
        host="127.0.0.1", port=port, user="postgres", database="postgres", ssl=False
    )
    await connection.execute("create temp table t (id int, name text, at timestamptz)")
    insert = await connection.prepare("insert into t values ($1, $2, $3)")
    await insert.executemany([(n, f"name {n}", None) for n in range(3)])
    statement = await connection.prepare("select id, name from t where id >= $1 order by id")
    await statement.fetch(0)
    await statement.fetch(2)
    async with connection.transaction():
        async for _ in connection.cursor("select * from t", prefetch=2):
            pass
    try:
        await connection.fetch("select * from missing where a = $1", 1)
    except asyncpg.PostgresError:
        pass
    try:
        await connection.fetch("select 1 / $1::int", 0)
    except asyncpg.PostgresError:
        pass
    await connection.fetchval("select $1::numeric", 12.5)
    await connection.execute("deallocate all")
    await connection.close()


def pipelined(port):
    with psycopg.connect(dsn(port), autocommit=True) as connection:
        with connection.pipeline() as pipeline:
            cursors = [connection.execute("select %s::int", (n,)) for n in range(3)]
            pipeline.sync()
            for cursor in cursors:
                cursor.fetchall()
        try:
            with connection.pipeline() as pipeline:
                connection.execute("select 1")
                connection.execute("select 1 / 0")
                connection.execute("select 2")
                pipeline.sync()
        except psycopg.Error:
            pass
        for n in range(8):  # psycopg prepares a statement it has seen often enough
            connection.execute("select %s::text", (str(n),)).fetchall()


def notify(port):
    with psycopg.connect(dsn(port), autocommit=True) as connection:
        connection.execute("listen news")
        connection.execute("notify news, 'payload'")
        connection.execute("set client_encoding to latin1")
        connection.execute("set standard_conforming_strings to off")
        connection.execute("select 1")


def main():
    server = PostgresServer()
    server.start()
    tap = Tap(server)
    for scenario in (simple, extended, pipelined, error, copy, notify):
        scenario(tap.port)
        path = HERE / f"{scenario.__name__}.json"
        path.write_text(json.dumps(tap.take(), indent=0) + "\n")
    server.stop()


if __name__ == "__main__":
    main()
