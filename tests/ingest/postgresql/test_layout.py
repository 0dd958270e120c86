import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from sealtape.ingest.postgresql.access import server_of
from sealtape.ingest.postgresql.database import Database
from sealtape.ingest.postgresql.layout import Layout, Script, check_layout, load_layout, prepare
from sealtape.schemas.errors import StoreError

BASE = Path()
ONE = Script(1, "first", "CREATE TABLE a (n int); CREATE TABLE @schema@.b (n int);")
TWO = Script(2, "second", "ALTER TABLE a ADD COLUMN m int;")
LAYOUT = Layout((ONE,), ("writer",), "GRANT USAGE ON SCHEMA @schema@ TO @writer@;")
NEWER = replace(LAYOUT, scripts=(ONE, TWO))


def server(schema):
    return server_of(schema.url(), BASE, "s")


async def checked(schema, layout):
    database = await Database.open(server(schema))
    try:
        await check_layout(database, layout)
    finally:
        await database.close()


async def test_it_is_made_once(schema):
    assert await prepare(server(schema), LAYOUT) == [
        f"made role {schema.name}_writer",
        f"made schema {schema.name}",
        f"brought {schema.name} to layout 1 (first)",
    ]
    assert await prepare(server(schema), LAYOUT) == []
    await checked(schema, LAYOUT)
    assert await prepare(server(schema), NEWER) == [f"brought {schema.name} to layout 2 (second)"]
    await checked(schema, NEWER)
    granted = f"SELECT has_schema_privilege('{schema.name}_writer', '{schema.name}', 'USAGE')"
    assert schema.sql(granted) == "t"


async def test_many_at_once_make_it_once(schema):
    done = await asyncio.gather(*(prepare(server(schema), NEWER) for _ in range(5)))
    assert sorted(len(words) for words in done) == [0, 0, 0, 0, 4]
    await checked(schema, NEWER)


async def test_what_is_not_there_or_old_is_said(schema):
    with pytest.raises(StoreError) as caught:
        await checked(schema, LAYOUT)
    assert "sealtape setup" in caught.value.hint
    await prepare(server(schema), LAYOUT)
    with pytest.raises(StoreError, match="layout 1, this version needs 2") as caught:
        await checked(schema, NEWER)
    assert "sealtape setup" in caught.value.hint


async def test_what_is_newer_or_another_is_left_alone(schema):
    await prepare(server(schema), NEWER)
    other = replace(LAYOUT, scripts=(replace(ONE, text=ONE.text + " "), TWO))
    for layout in (LAYOUT, other):
        with pytest.raises(StoreError, match=r"(?i)layout"):
            await prepare(server(schema), layout)
        with pytest.raises(StoreError, match=r"(?i)layout"):
            await checked(schema, layout)


async def test_a_step_that_fails_leaves_the_layout_before(schema):
    await prepare(server(schema), LAYOUT)
    broken = replace(LAYOUT, scripts=(ONE, Script(2, "x", "CREATE TABLE c (n int); SELECT 1/0;")))
    with pytest.raises(StoreError, match="division"):
        await prepare(server(schema), broken)
    await checked(schema, LAYOUT)
    assert schema.sql("SELECT to_regclass('c') IS NULL") == "t"


async def test_a_user_who_may_not_is_told(schema):
    schema.server.sql(f"CREATE ROLE {schema.name}_nobody LOGIN")
    url = schema.url().replace("postgres@", f"{schema.name}_nobody@", 1)
    with pytest.raises(StoreError, match="permission denied"):
        await prepare(server_of(url, BASE, "s"), LAYOUT)


def test_scripts_are_numbered_without_a_hole(tmp_path):
    (tmp_path / "grants.sql").write_text("SELECT 1;")
    (tmp_path / "0001_one.sql").write_text("SELECT 2;")
    layout = load_layout(tmp_path, ["a"])
    assert [(s.number, s.name, s.text) for s in layout.scripts] == [(1, "one", "SELECT 2;")]
    (tmp_path / "0003_three.sql").write_text("")
    with pytest.raises(StoreError, match="numbered"):
        load_layout(tmp_path, ["a"])
    (tmp_path / "0003_three.sql").rename(tmp_path / "two.sql")
    with pytest.raises(StoreError, match="named"):
        load_layout(tmp_path, ["a"])
