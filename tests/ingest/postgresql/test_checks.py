from pathlib import Path

from sealtape.ingest.postgresql import checks
from sealtape.ingest.postgresql.access import server_of
from sealtape.ingest.postgresql.checks import check_store, excess_of
from sealtape.ingest.postgresql.database import Database
from sealtape.ingest.postgresql.layout import Layout, Script, prepare

BASE = Path()
LAYOUT = Layout(
    (Script(1, "first", "CREATE TABLE kept (n int); CREATE TABLE constant (n int);"),),
    ("writer",),
    "GRANT USAGE ON SCHEMA @schema@ TO @writer@;"
    "GRANT SELECT ON ALL TABLES IN SCHEMA @schema@ TO @writer@;",
)


async def no_rights(database):
    return []


async def levels(server, layout=LAYOUT):
    return {c.name: c.level for c in await check_store("store", server, layout, no_rights)}


async def test_a_store_is_looked_at(schema):
    server = server_of(schema.url(), BASE, "s")
    assert (await levels(server))["store: layout"] == "error"
    await prepare(server, LAYOUT)
    assert await levels(server) == {
        "store: connection": "ok",
        "store: durability": "error",  # the server of the tests does not sync
        "store: clock": "ok",
        "store: layout": "ok",
    }


async def test_nobody_there_is_a_finding():
    server = server_of("postgresql://me@127.0.0.1:1/db?tls=disable", BASE, "s")
    assert await levels(server) == {"store: connection": "error"}


async def test_a_password_that_is_not_there_is_a_finding(schema):
    server = server_of(schema.url(password_file="absent"), BASE, "s")
    assert await levels(server) == {"store: connection": "error"}


def test_tls_is_missed_where_the_server_is_elsewhere():
    def level(url, protocol):
        server = server_of(url, BASE, "s")
        return checks._connection("store", server, "PostgreSQL 15", protocol).level

    assert level("postgresql://me@db/x?tls=disable", "") == "warning"
    assert level("postgresql://me@127.0.0.1,db/x?tls=disable", "") == "warning"
    assert level("postgresql://me@127.0.0.1:5433/x?tls=disable", "") == "ok"
    assert level("postgresql://me@[::1]:5433/x?tls=disable", "") == "ok"
    assert level("postgresql://me@db/x", "TLSv1.3") == "ok"
    assert level("postgresql://me@db/x?tls=require", "TLSv1.3") == "warning"


def test_what_endangers_commits_or_times_is_found():
    assert checks._durability("store", "on", "on").level == "ok"
    assert checks._durability("store", "off", "on").level == "error"
    assert checks._durability("store", "on", "off").level == "error"
    assert checks._clock("store", 0.5).level == "ok"
    assert checks._clock("store", -3.0).level == "warning"


async def test_rights_beyond_the_role_are_said(schema):
    server = server_of(schema.url(), BASE, "s")
    await prepare(server, LAYOUT)
    schema.make_users("writer")
    user = server_of(schema.url("writer"), BASE, "s")

    async def excess(server):
        database = await Database.open(server, read_only=True)
        found = await excess_of(database, ["kept", "constant"], ["constant"])
        await database.close()
        return found

    assert await excess(server) == ["is a superuser"]
    assert await excess(user) == []
    schema.sql(f"GRANT UPDATE, INSERT ON kept TO {schema.name}_writer")
    assert await excess(user) == []
    schema.sql(f"GRANT UPDATE, TRUNCATE ON constant TO {schema.name}_writer")
    schema.sql(f"GRANT DELETE ON kept, constant TO {schema.name}_writer")
    assert await excess(user) == [
        "may DELETE constant, kept",
        "may TRUNCATE constant",
        "may UPDATE constant",
    ]
