import asyncio
import ssl

import asyncpg
import pytest

from tests.servers.postgres_stores import BY_CERTIFICATE, SUPERUSER


def _context(server):
    return ssl.create_default_context(cafile=server.ca)


async def _connect(server, database, **options):
    host, _, port = server.address.partition(":")
    settings = {"user": SUPERUSER, "password": server.facts["password"], "ssl": _context(server)}
    return await asyncpg.connect(
        host=host, port=int(port), database=database.name, timeout=10, **{**settings, **options}
    )


async def test_speaks_tls_with_a_certificate_that_can_be_checked(postgres_stores):
    connection = await _connect(postgres_stores, postgres_stores.database())
    try:
        assert await connection.fetchval("select ssl from pg_stat_ssl where pid = pg_backend_pid()")
        assert await connection.fetchval("show fsync") == "on"
    finally:
        await connection.close()


async def test_a_stranger_is_refused(postgres_stores):
    database = postgres_stores.database()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await _connect(postgres_stores, database, password="wrong")
    with pytest.raises(ssl.SSLCertVerificationError):
        await _connect(postgres_stores, database, ssl=ssl.create_default_context())


async def test_a_certificate_stands_for_its_user_and_for_no_other(postgres_stores):
    database = postgres_stores.database()
    database.sql(f"create role ingest login in role {BY_CERTIFICATE}")
    try:
        context = _context(postgres_stores)
        context.load_cert_chain(*postgres_stores.certificate("ingest"))
        connection = await _connect(
            postgres_stores, database, user="ingest", password=None, ssl=context
        )
        await connection.close()
        context = _context(postgres_stores)
        context.load_cert_chain(*postgres_stores.certificate("stranger"))
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
            await _connect(postgres_stores, database, user="ingest", password=None, ssl=context)
    finally:
        database.sql("drop role ingest")


async def test_what_was_committed_outlives_a_kill(postgres_stores_alone):
    database = postgres_stores_alone.database()
    database.sql("create table kept (n int)")
    connection = await _connect(postgres_stores_alone, database)
    await connection.execute("insert into kept values (7)")
    postgres_stores_alone.kill()
    with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError)):
        await connection.fetchval("select 1")
    connection.terminate()
    postgres_stores_alone.start()
    assert database.sql("select n from kept") == [(7,)]


async def test_a_stopped_server_says_goodbye_and_comes_back(postgres_stores_alone):
    database = postgres_stores_alone.database()
    connection = await _connect(postgres_stores_alone, database)
    await asyncio.to_thread(postgres_stores_alone.stop)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await connection.fetchval("select 1")
    connection.terminate()
    await asyncio.to_thread(postgres_stores_alone.start)
    assert database.sql("select 1") == [(1,)]
