import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from sealtape.ingest.ledger import check_ledger, open_ledger, prepare_ledger
from sealtape.ingest.ledger.postgresql.schema import LAYOUT, ledger_server
from sealtape.ingest.ledger.rows import Incident, Quarantined
from sealtape.ingest.postgresql.layout import Layout, prepare
from sealtape.schemas.errors import StoreError
from tests.conformance.ledger import claimed, published, sealed_segment, session_change
from tests.conformance.postgresql import Schema

BASE = Path()
# What each role may do to each table. Everything else it may not.
MAY = {
    "ingest": {
        "INSERT": "lease worker object shard segment fragment head session incident quarantine"
        " outbox log_entry inbox",
        "UPDATE": "lease worker object shard counter head session log_state",
        "DELETE": "worker outbox inbox",
    },
    "reader": {"INSERT": "lease worker inbox", "UPDATE": "lease worker", "DELETE": "worker"},
}
TABLES = [
    "lease",
    "worker",
    "object",
    "shard",
    "counter",
    "segment",
    "fragment",
    "head",
    "session",
    "incident",
    "quarantine",
    "outbox",
    "log_entry",
    "log_state",
    "inbox",
    "migration",
]


def may(schema, word, privilege, table):
    """Whether a role's user may, on any column at least."""
    user = f"{schema.name}_{word}_user"
    kind = "any_column" if privilege in {"INSERT", "UPDATE", "SELECT"} else "table"
    return schema.sql(f"SELECT has_{kind}_privilege('{user}', '{table}', '{privilege}')") == "t"


@pytest.mark.parametrize("word", ["ingest", "reader"])
def test_a_role_may_do_what_it_must_and_nothing_else(prepared, word):
    everything = itertools.product(("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE"), TABLES)
    for privilege, table in everything:
        wanted = privilege == "SELECT" or table in MAY[word].get(privilege, "").split()
        assert may(prepared, word, privilege, table) is wanted, (privilege, table)
    assert (
        prepared.sql(
            f"SELECT has_schema_privilege('{prepared.name}_{word}', '{prepared.name}', 'CREATE')"
        )
        == "f"
    )


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM segment",
        "DELETE FROM head",
        "DELETE FROM fragment",
        "DELETE FROM session",
        "DELETE FROM incident",
        "TRUNCATE outbox",
        "UPDATE segment SET record = ''",
        "UPDATE fragment SET hi = 0",
        "UPDATE incident SET reason = ''",
        "UPDATE object SET key = 'x'",
        "UPDATE log_entry SET entry = ''",
        "DELETE FROM log_entry",
        "DELETE FROM log_state",
        "DROP TABLE head",
        "ALTER TABLE lease DISABLE ROW LEVEL SECURITY",
    ],
)
async def test_ingest_can_take_nothing_back(ledger, statement):
    with pytest.raises(StoreError, match=r"permission denied|must be owner"):
        await ledger._database.change(statement)


async def test_a_reader_leases_its_own_partitions_and_no_others(schema, ledger):
    reader = await open_ledger(schema.url("reader"), BASE)
    mine = await reader.claim("indexer:frames", 0, "i1", 60.0)
    await reader.renew(mine, 60.0)
    await reader.release(mine)
    assert (await reader.claim("indexer:frames", 0, "i2", 60.0)).term == 2
    assert await reader.beat("indexer", "i1", 60.0) == ["i1"]
    await reader.leave("indexer", "i1")
    theirs = await claimed(ledger)
    assert len(await reader.leases()) == 2
    for call in (
        reader.claim("frames", 0, "w1", 60.0),
        reader.claim("frames", 7, "w1", 60.0),
        reader.beat("ingest", "i1", 60.0),
        published(reader, mine, 0, 0, sessions=(session_change(),)),
    ):
        with pytest.raises(StoreError, match=r"policy|permission denied"):
            await call
    with pytest.raises(StoreError):
        await reader.renew(theirs, 60.0)
    await reader.release(theirs)  # not its row: nothing happens
    assert (await ledger.leases())[0].owner == "w1"
    await reader.close()


async def test_preparing_again_changes_nothing_that_is_there(schema, ledger):
    await published(ledger, await claimed(ledger), 0, 5, sealed_segment(1, [(b"a" * 16, 0, 0, 3)]))
    assert await prepare_ledger(schema.url(), BASE) == []
    assert len([row async for row in ledger.segments()]) == 1


async def test_the_layout_is_pinned():
    """A script that was released is never edited; write another one."""
    assert [(script.number, script.sha256.hex()) for script in LAYOUT.scripts] == [
        (1, "cae6c7d0845ce158c28b462d13e5c8f5881557388761b348386f2a043efe6395"),
        (2, "21a4bbb2183148224188424f35bde0bb148fe4b5b20badbd0ff3da2cc59dc89c"),
        (3, "5d7ac77e7a36e1e8e6479a703cbafe498ba7371c03617fd1de0fa381f77b52b4"),
        (4, "8a80f56bd508c70a335a446de25337ba70d7e7569070fa9a7f9d8b66658e6008"),
    ]


async def test_an_older_schema_takes_another_message_at_a_known_offset(postgres_server):
    schema = Schema(postgres_server, "cut")
    await prepare(
        ledger_server(schema.url(), BASE), Layout(LAYOUT.scripts[:3], LAYOUT.roles, "SELECT 1")
    )
    kept = Quarantined("frames", 0, 4, "malformed", b"", b"q" * 32, 2, b"xx", "", 7)
    stated = Incident("frames", 0, 4, "malformed", "why", b"", -1, -1, 7, 41)
    schema.sql(
        "INSERT INTO quarantine VALUES"
        f" ('frames', 0, 4, 'malformed', '', '\\x{kept.sha256.hex()}', 2, 'xx', '', 7);"
        "INSERT INTO incident VALUES"
        " (41, 'frames', 0, 4, 'malformed', 'why', '', -1, -1, 7);"
        "UPDATE counter SET incident = 41"
    )
    assert len(await prepare_ledger(schema.url(), BASE)) == len(LAYOUT.scripts) - 3
    schema.make_users("ingest", "reader")
    ledger = await open_ledger(schema.url("ingest"), BASE)
    again, new = replace(kept, sha256=b"r" * 32), replace(stated, session=b"a" * 16)
    lease = await claimed(ledger)
    for at in (0, 5):
        more = {"incidents": (stated, new), "quarantined": (kept, again)}
        await published(ledger, lease, at, 5, **more)
    assert await ledger.quarantined("frames", 0) == [kept, again]
    old, added = await ledger.incidents()
    assert (old, added) == (stated, replace(new, id=added.id))
    await ledger.close()
    schema.drop()


def levels(checks):
    return {check.name: check.level for check in checks}


@pytest.mark.parametrize("word", ["ingest", "reader"])
async def test_a_user_with_one_role_is_in_order(schema, word):
    found = await check_ledger(schema.url(word), BASE)
    # The server of the tests does not sync, which is what it is told.
    assert levels(found) == {
        "ledger: connection": "ok",
        "ledger: durability": "error",
        "ledger: clock": "ok",
        "ledger: layout": "ok",
        "ledger: role": "ok",
    }


@pytest.mark.parametrize(
    ("word", "room", "level"),
    [
        ("ingest", "ingest", "ok"),
        ("reader", "ingest", "error"),
        ("reader", "indexer", "ok"),
        ("ingest", "indexer", "error"),
        ("ingest", "auditor", "error"),
    ],
)
async def test_a_user_whose_role_is_anothers_is_an_error(schema, word, room, level):
    (found,) = [
        check
        for check in await check_ledger(schema.url(word), BASE, room)
        if check.name == "ledger: role"
    ]
    assert found.level == level
    role = "ingest" if room == "ingest" else "reader"
    assert level == "ok" or f"{schema.name}_{role} and" in found.hint


async def test_a_lease_is_tried_on_a_server_that_is_in_order(own_schema):
    for word in ("ingest", "reader"):
        found = await check_ledger(own_schema.url(word), BASE)
        assert {check.level for check in found} == {"ok"}
        assert "ledger: lease" in levels(found)
    ledger = await open_ledger(own_schema.url("ingest"), BASE)
    assert await ledger.leases() == []
    await ledger.close()


async def test_who_may_delete_is_an_error(schema):
    (found,) = [c for c in await check_ledger(schema.url(), BASE) if c.name == "ledger: role"]
    assert (found.level, "superuser" in found.message) == ("error", True)
    user = f"{schema.name}_ingest_user"
    schema.sql(f"GRANT DELETE ON segment TO {user}")
    try:
        checks = await check_ledger(schema.url("ingest"), BASE)
    finally:
        schema.sql(f"REVOKE DELETE ON segment FROM {user}")
    (found,) = [check for check in checks if check.name == "ledger: role"]
    assert (found.level, "may DELETE segment" in found.message) == ("error", True)
    assert f"{schema.name}_ingest" in found.hint


async def test_what_is_missing_is_an_error(schema, postgres_server):
    postgres_server.sql(f"CREATE ROLE {schema.name}_other LOGIN")
    url = schema.url().replace("postgres@", f"{schema.name}_other@", 1)
    assert levels(await check_ledger(url, BASE))["ledger: layout"] == "error"
    absent = schema.url().replace(schema.name, "nowhere")
    assert levels(await check_ledger(absent, BASE))["ledger: layout"] == "error"
    nobody = "postgresql://me@127.0.0.1:1/db?tls=disable"
    (found,) = await check_ledger(nobody, BASE)
    assert (found.name, found.level) == ("ledger: connection", "error")
    (found,) = await check_ledger("postgresql://me@h/db?x=1", BASE)
    assert (found.name, found.level) == ("ledger: settings", "error")


async def test_an_owner_need_not_be_a_superuser(postgres_stores, tmp_path):
    """As docs/postgresql.md sets it up: an owner, and users in the store's roles, all over TLS."""
    database = postgres_stores.database()
    words = {}
    for word in ("owner", "ingest", "reader"):
        words[word] = tmp_path / word
        words[word].write_text(f"{word}-{database.name}")
    names = {word: f"{database.name}_{word}" for word in words}
    database.sql(f"CREATE ROLE {names['owner']} LOGIN CREATEROLE PASSWORD 'owner-{database.name}'")
    database.sql(f"GRANT CREATE ON DATABASE {database.name} TO {names['owner']}")
    schema = f"schema=l_{database.name}"

    def url(word):
        return database.url(schema, user=names[word], password_file=words[word])

    assert len(await prepare_ledger(url("owner"), BASE)) == 3 + len(LAYOUT.scripts)
    assert await prepare_ledger(url("owner"), BASE) == []
    for word in ("ingest", "reader"):
        database.sql(
            f"CREATE ROLE {names[word]} LOGIN PASSWORD '{word}-{database.name}'"
            f" IN ROLE l_{database.name}_{word}"
        )
        assert {check.level for check in await check_ledger(url(word), BASE)} == {"ok"}
    (owner,) = [c for c in await check_ledger(url("owner"), BASE) if c.name == "ledger: role"]
    assert (owner.level, "may DELETE" in owner.message) == ("error", True)
    ledger = await open_ledger(url("ingest"), BASE)
    await published(ledger, await claimed(ledger), 0, 5, sealed_segment(1, [(b"a" * 16, 0, 0, 3)]))
    reader = await open_ledger(url("reader"), BASE, read_only=True)
    assert len([row async for row in reader.segments()]) == 1
    for opened in (ledger, reader):
        await opened.close()
