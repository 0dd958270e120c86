from pathlib import Path

import pytest

from sealtape.ingest.keyring import check_keyring, open_keyring, prepare_keyring
from sealtape.ingest.keyring.postgresql.schema import LAYOUT
from sealtape.schemas.errors import StoreError
from tests.conformance.keyring import A, key_message

BASE = Path()


def levels(checks):
    return {check.name: check.level for check in checks}


async def test_the_layout_is_pinned():
    """A script that was released is never edited; write another one."""
    assert [(script.number, script.sha256.hex()) for script in LAYOUT.scripts] == [
        (1, "0109e389992246dcf5fb464e349a1861a67027c29ec844eaaaaede1fd175e11e"),
    ]


async def test_preparing_again_changes_nothing_that_is_there(schema, ingest, auditor):
    await ingest.put(key_message())
    assert await prepare_keyring(schema.url(), BASE) == []
    assert [session async for session in auditor.sessions()] == [A]


async def test_opening_makes_nothing(schema):
    with pytest.raises(StoreError) as caught:
        await open_keyring(schema.url().replace(schema.name, "nowhere"), BASE)
    assert "sealtape setup" in caught.value.hint


@pytest.mark.parametrize(
    ("word", "what"),
    [("ingest", "put"), ("indexer", "read"), ("auditor", "read"), ("reaper", "destroy")],
)
async def test_a_user_with_one_role_is_in_order(schema, word, what):
    found = await check_keyring(schema.url(word), BASE)
    assert levels(found)["keyring: role"] == "ok"
    assert f"may {what} wraps and nothing else" in found[-1].message


@pytest.mark.parametrize(
    ("word", "room", "wrong"),
    [
        ("ingest", "ingest", ""),
        ("indexer", "ingest", "may read wraps, and must put them"),
        ("indexer", "indexer", ""),
        ("ingest", "indexer", "may put wraps, and must read them"),
        ("auditor", "indexer", "may read the wraps of data"),
        ("auditor", "auditor", ""),
        ("indexer", "auditor", "may not read the wraps of data"),
    ],
)
async def test_a_user_whose_role_is_anothers_is_an_error(schema, word, room, wrong):
    (found,) = [
        check
        for check in await check_keyring(schema.url(word), BASE, room)
        if check.name == "keyring: role"
    ]
    assert (found.level == "error", wrong in found.message) == (bool(wrong), True)
    assert not wrong or f"a member of {schema.name}_{room}, and" in found.hint


async def test_who_may_do_more_is_an_error(schema):
    assert levels(await check_keyring(schema.url(), BASE))["keyring: role"] == "error"
    user = f"{schema.name}_ingest_user"
    for grant, word in (
        (f"{schema.name}_reaper TO {user}", "destroy"),
        (f"{schema.name}_auditor TO {user}", "read"),
        (f"DELETE ON wrap TO {user}", "DELETE wrap"),
    ):
        schema.sql(f"GRANT {grant}")
        try:
            checks = await check_keyring(schema.url("ingest"), BASE)
        finally:
            schema.sql(f"REVOKE {grant.replace(' TO ', ' FROM ')}")
        (found,) = [check for check in checks if check.name == "keyring: role"]
        assert (found.level, word in found.message) == ("error", True)


async def test_who_may_do_nothing_is_an_error(schema):
    schema.sql(
        f"CREATE ROLE {schema.name}_idle LOGIN; GRANT USAGE ON SCHEMA {schema.name} TO"
        f" {schema.name}_idle; GRANT SELECT ON migration TO {schema.name}_idle"
    )
    url = schema.url().replace("postgres@", f"{schema.name}_idle@", 1)
    assert levels(await check_keyring(url, BASE))["keyring: role"] == "error"


async def test_a_server_that_logs_parameters_is_an_error(schema):
    user = f"{schema.name}_ingest_user"
    schema.sql(f"ALTER ROLE {user} SET log_min_duration_statement = 0")
    try:
        found = levels(await check_keyring(schema.url("ingest"), BASE))
        assert found["keyring: server log"] == "error"
        schema.sql(f"ALTER ROLE {user} SET log_parameter_max_length = 0")
        assert "keyring: server log" not in levels(await check_keyring(schema.url("ingest"), BASE))
    finally:
        schema.sql(f"ALTER ROLE {user} RESET ALL")


async def test_urls_are_read_before_anybody_is_asked():
    (found,) = await check_keyring("postgresql://me@h/db?x=1", BASE)
    assert (found.name, found.level) == ("keyring: settings", "error")
    (found,) = await check_keyring("postgresql://me@127.0.0.1:1/db?tls=disable", BASE)
    assert (found.name, found.level) == ("keyring: connection", "error")


async def test_an_owner_need_not_be_a_superuser(postgres_stores, tmp_path):
    """As docs/postgresql.md sets it up: an owner, and a user in each of the roles, all over TLS."""
    database = postgres_stores.database()
    words = ("owner", "ingest", "auditor", "reaper")
    names = {word: f"{database.name}_{word}" for word in words}
    for word in words:
        (tmp_path / word).write_text(f"{word}-{database.name}")
    database.sql(f"CREATE ROLE {names['owner']} LOGIN CREATEROLE PASSWORD 'owner-{database.name}'")
    database.sql(f"GRANT CREATE ON DATABASE {database.name} TO {names['owner']}")

    def url(word):
        schema = f"schema=k_{database.name}"
        return database.url(schema, user=names[word], password_file=tmp_path / word)

    assert len(await prepare_keyring(url("owner"), BASE)) == 6
    stores = {}
    for word in words[1:]:
        database.sql(
            f"CREATE ROLE {names[word]} LOGIN PASSWORD '{word}-{database.name}'"
            f" IN ROLE k_{database.name}_{word}"
        )
        assert {check.level for check in await check_keyring(url(word), BASE)} == {"ok"}
        stores[word] = await open_keyring(url(word), BASE)
    await stores["ingest"].put(key_message())
    assert len(await stores["auditor"].get(A, None, "data")) == 1
    assert await stores["reaper"].destroy(A) == 1
    assert await stores["auditor"].get(A, None, "data") == []
    for store in stores.values():
        await store.close()
