import asyncio
import random
from pathlib import Path

import pytest

from sealtape.ingest.keyring import open_keyring
from sealtape.ingest.keyring.postgresql import adapter as module
from sealtape.schemas.errors import Fenced, StoreError
from tests.conformance.keyring import A, B, KeyringConformance, as_wrap, key_message
from tests.conformance.postgresql import Cutter

BASE = Path()


class Together:
    """The keyring of three users: each call goes to the one whose role it is."""

    def __init__(self, ingest, auditor, reaper):
        self._all = (ingest, auditor, reaper)
        self.put, self.dispute = ingest.put, ingest.dispute
        self.get, self.disputed, self.sessions = auditor.get, auditor.disputed, auditor.sessions
        self.destroy, self.destroy_many = reaper.destroy, reaper.destroy_many
        self.destroyed = ingest.destroyed

    async def close(self):
        for keyring in self._all:
            await keyring.close()


class TestPostgresKeyring(KeyringConformance):
    @pytest.fixture
    async def keyring(self, ingest, auditor, reaper):
        return Together(ingest, auditor, reaper)


# -- roles


async def test_each_role_does_its_own_and_nothing_else(schema, ingest, auditor, reaper):
    await ingest.put(key_message())
    indexer = await open_keyring(schema.url("indexer"), BASE, read_only=False)
    for keyring in (auditor, indexer, reaper):
        with pytest.raises(StoreError, match=r"permission denied|reading only"):
            await keyring.put(key_message(epoch=1))
    for keyring in (ingest, reaper):
        with pytest.raises(StoreError, match="permission denied"):
            await keyring.get(A, None, "data")
        with pytest.raises(StoreError, match="permission denied"):
            _ = [session async for session in keyring.sessions()]
    for keyring in (ingest, auditor, indexer):
        with pytest.raises(StoreError, match=r"permission denied|reading only"):
            await keyring.destroy(A)
    assert await auditor.get(A, None, "data") == [as_wrap(key_message())]
    await indexer.close()


async def test_an_indexer_is_given_the_keys_of_facts_alone(schema, ingest):
    await ingest.put(key_message())
    await ingest.put(key_message(label="facts"))
    await ingest.put(key_message(session=B))
    indexer = await open_keyring(schema.url("indexer"), BASE, read_only=True)
    assert await indexer.get(A, None, "data") == []
    assert await indexer.get(A, None, "facts") == [as_wrap(key_message(label="facts"))]
    assert [session async for session in indexer.sessions()] == [A]
    await indexer.close()


@pytest.mark.parametrize("word", ["ingest", "indexer", "auditor", "reaper"])
@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM wrap",
        "UPDATE wrap SET sealed = ''",
        "TRUNCATE wrap",
        "DELETE FROM destroyed",
        "DELETE FROM wrap_00",
        "SELECT * FROM wrap_00",
        "INSERT INTO wrap SELECT * FROM wrap",
    ],
)
async def test_nobody_goes_around_the_functions(schema, word, statement):
    keyring = await open_keyring(schema.url(word), BASE)
    with pytest.raises(StoreError, match="permission denied"):
        await keyring._database.change(statement)
    await keyring.close()


async def test_a_table_of_ones_own_does_not_stand_in_for_a_true_one(schema, ingest, auditor):
    """A function that runs with the owner's rights looks nowhere but in its own schema."""
    connection = await module.keyring_server(schema.url("ingest"), BASE).connect()
    await connection.execute(
        "CREATE TEMPORARY TABLE wrap (LIKE pg_class);"
        " CREATE TEMPORARY TABLE destroyed (session bytea); SET search_path = pg_temp"
    )
    message = key_message()
    said = await connection.fetchval(
        f"SELECT {schema.name}.put($1, $2, $3, $4, $5, $6, $7, $8)", *module._values(message)
    )
    await connection.close()
    assert said == "kept"
    assert await auditor.get(A, None, "data") == [as_wrap(message)]


# -- destroying


def files_with(schema, needles, *folders):
    """The files of the server that hold one of the byte strings."""
    schema.sql("CHECKPOINT")
    files = [file for folder in folders for file in (schema.server.data / folder).rglob("*")]
    contents = ((str(file), file.read_bytes()) for file in files if file.is_file())
    return {file for file, raw in contents if any(needle in raw for needle in needles)}


async def test_no_byte_of_a_destroyed_key_remains_in_a_table(schema, ingest, auditor, reaper):
    """Also none that the server left in a page when it moved or gave up a row."""
    chance = random.Random(1)
    live, dead = {}, []
    for _ in range(100):
        if chance.random() < 0.6 or not live:
            session = bytes([chance.randrange(3)]) + chance.randbytes(15)
            live[session] = [chance.randbytes(chance.choice([80, 1168])) for _ in range(3)]
            for label, sealed in zip(("data", "facts"), live[session], strict=False):
                await ingest.put(key_message(session=session, label=label, sealed=sealed))
            await ingest.dispute(key_message(session=session, sealed=live[session][2]))
        else:
            session = chance.choice(list(live))
            dead += live.pop(session)
            if chance.random() < 0.3:
                schema.sql("ANALYZE wrap")  # samples of the columns go into another table
            await reaper.destroy(session)
            if chance.random() < 0.3:
                schema.sql("CHECKPOINT")
    needles = [sealed[at : at + 16] for sealed in dead for at in (0, 48)]
    assert len(dead) > 40
    assert files_with(schema, needles, "base") == set()
    kept = [sealed[:16] for both in live.values() for sealed in both]
    assert files_with(schema, kept[:3], "base")
    for session, both in live.items():
        assert {wrap.sealed for wrap in await auditor.get(session, 0, "data")} <= set(both)
    # What docs/postgresql.md says of the log of changes is so.
    assert files_with(schema, needles[-3:], "pg_wal")


async def test_what_never_was_committed_goes_too(schema, ingest, reaper):
    sealed = random.Random(2).randbytes(80)

    async def put_and_undo(connection):
        await connection.fetch(
            "SELECT put($1, $2, $3, $4, $5, $6, $7, $8)",
            *module._values(key_message(sealed=sealed)),
        )
        raise Fenced("undone")

    with pytest.raises(StoreError):
        await ingest._database.write(put_and_undo)
    assert files_with(schema, [sealed[:16]], "base")
    assert await reaper.destroy(A) == 0
    assert files_with(schema, [sealed[:16]], "base") == set()


async def test_an_old_snapshot_neither_stops_it_nor_keeps_the_keys(schema, ingest, reaper):
    sealed = random.Random(3).randbytes(80)
    await ingest.put(key_message(sealed=sealed))
    connection = await module.keyring_server(schema.url("auditor"), BASE).connect()
    await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    await connection.fetch("SELECT 1 FROM migration")
    assert await reaper.destroy(A) == 1
    assert files_with(schema, [sealed[:16]], "base") == set()
    assert await connection.fetch("SELECT * FROM wrap") == []
    await connection.close()


async def test_destroying_through_a_lost_connection_can_be_repeated(schema, ingest, reaper):
    cutter = await Cutter(schema.server).start()
    through = await open_keyring(cutter.url(schema.url("reaper")), BASE)
    for heard in (False, True):
        session = bytes([heard]) * 16
        await ingest.put(key_message(session=session))
        cutter.cut("COMMIT\0", forward=heard)
        with pytest.raises(StoreError, match="unknown"):
            await through.destroy(session)
        assert await through.destroyed(session) is heard
        assert await through.destroy(session) == (0 if heard else 1)
    await through.close()
    await cutter.stop()


async def test_only_sessions_of_one_table_are_destroyed_together(reaper):
    with pytest.raises(StoreError, match="several tables"):
        await reaper._database.change("SELECT destroy($1::bytea[])", [A, B])


async def test_readers_go_on_while_others_put_and_destroy(schema, ingest, auditor, reaper):
    sessions = [bytes([0, number]) * 8 for number in range(20)]

    async def put():
        for session in sessions:
            await ingest.put(key_message(session=session))

    async def read():
        for _ in range(30):
            await auditor.get(sessions[3], None, "data")

    async def destroy():
        for session in sessions[::2]:
            await reaper.destroy(session)

    await asyncio.gather(put(), read(), destroy(), put())
    await destroy()
    assert [session async for session in auditor.sessions()] == sessions[1::2]


async def test_a_long_listing_comes_in_pages(ingest, auditor, monkeypatch):
    monkeypatch.setattr(module, "_PAGE", 2)
    names = sorted(bytes([byte, n]) * 8 for byte in (0, 7, 255) for n in range(5))
    for name in names:
        await ingest.put(key_message(session=name))
    assert [session async for session in auditor.sessions()] == names
    assert [session async for session in auditor.sessions(after=names[6])] == names[7:]
