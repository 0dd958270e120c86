import asyncio
import os
import shutil
import sqlite3
import threading
import time

import pytest

from sealtape.ingest import sqlite as module
from sealtape.ingest.sqlite import (
    Database,
    check_database,
    load_migrations,
    sqlite_path,
    translated,
)
from sealtape.schemas.errors import (
    SettingsError,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreFull,
)

ONE = (1, "CREATE TABLE a (x); INSERT INTO a VALUES (1);\n-- a comment\nINSERT INTO a VALUES (2);")
TWO = (2, "CREATE TABLE b (y);")


@pytest.fixture
async def database(tmp_path):
    database = await Database.open(tmp_path / "x.db", [ONE])
    yield database
    await database.close()


def rows(connection):
    return [row[0] for row in connection.execute("SELECT x FROM a ORDER BY x")]


async def test_work_runs_in_one_thread_beside_the_loop(database):
    threads = {await database.read(lambda _: threading.get_ident()) for _ in range(5)}
    assert len(threads) == 1
    assert threads != {threading.get_ident()}
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    task = asyncio.create_task(tick())
    await database.read(lambda _: time.sleep(0.3))
    task.cancel()
    assert ticks > 10


async def test_a_write_is_all_or_nothing(database):
    def half(connection):
        connection.execute("INSERT INTO a VALUES (3)")
        raise KeyError

    with pytest.raises(KeyError):
        await database.write(half)
    assert await database.read(rows) == [1, 2]
    await database.write(lambda c: c.execute("INSERT INTO a VALUES (3)"))
    assert await database.read(rows) == [1, 2, 3]


async def test_migrations_run_once_and_in_order(tmp_path):
    path = tmp_path / "x.db"
    for migrations in ([ONE], [ONE], [ONE, TWO], [ONE, TWO]):
        database = await Database.open(path, migrations)
        assert await database.read(rows) == [1, 2]
        await database.close()
    with pytest.raises(StoreError, match="layout 2"):
        await Database.open(path, [ONE])


async def test_what_another_version_has_changed_is_not_written_any_more(tmp_path):
    """Nor read: what an old version does to a newer layout nobody has looked at."""
    path = tmp_path / "x.db"
    old = await Database.open(path, [ONE])
    await old.write(lambda c: c.execute("INSERT INTO a VALUES (3)"))
    new = await Database.open(path, [ONE, TWO])
    for attempt in (old.write(lambda c: c.execute("INSERT INTO a VALUES (4)")), old.read(rows)):
        with pytest.raises(StoreError, match="layout 2") as caught:
            await attempt
        assert "version of Sealtape" in caught.value.hint
    assert await new.read(rows) == [1, 2, 3]
    await old.close()
    await new.close()


async def test_a_failed_migration_leaves_the_layout_before(tmp_path):
    path = tmp_path / "x.db"
    await (await Database.open(path, [ONE])).close()
    for script in ("CREATE TABLE b (y); CREATE TABLE a (x);", "CREATE TABLE b (y); CREATE"):
        with pytest.raises(StoreError):
            await Database.open(path, [ONE, (2, script)])
    database = await Database.open(path, [ONE, TWO])
    assert await database.read(lambda c: c.execute("SELECT * FROM b").fetchall()) == []
    await database.close()


async def test_two_may_open_a_new_file_at_once(tmp_path):
    opened = await asyncio.gather(*(Database.open(tmp_path / "x.db", [ONE, TWO]) for _ in range(4)))
    for database in opened:
        assert await database.read(rows) == [1, 2]
        await database.close()


async def test_a_closed_database_says_so(database):
    await database.close()
    await database.close()
    with pytest.raises(StoreError, match="closed"):
        await database.read(rows)


async def test_a_lock_held_elsewhere_is_busy(database, tmp_path):
    await database.direct(lambda c: c.execute("PRAGMA busy_timeout=20").fetchone())
    other = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusy) as caught:
        await database.write(rows)
    assert caught.value.retry_after_s > 0
    other.close()
    assert await database.write(rows) == [1, 2]


async def test_a_full_disk_is_said(database):
    await database.direct(lambda c: c.execute("PRAGMA max_page_count=4").fetchone())
    with pytest.raises(StoreFull):
        await database.write(lambda c: c.execute("INSERT INTO a VALUES (zeroblob(100000))"))
    assert await database.read(rows) == [1, 2]


async def test_a_migration_that_sqlite_has_undone_itself_says_why(tmp_path):
    """It does so where a full disk took it by surprise, too."""
    script = (
        "CREATE TABLE b (y UNIQUE); INSERT INTO b VALUES (1); INSERT OR ROLLBACK INTO b VALUES (1);"
    )
    with pytest.raises(StoreError, match="UNIQUE"):
        await Database.open(tmp_path / "x.db", [ONE, (2, script)])


def test_no_room_for_the_shared_memory_is_a_full_disk(tmp_path):
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE
    with pytest.raises(StoreFull), translated(tmp_path / "x.db"):
        raise error


async def test_a_damaged_file_is_said(tmp_path):
    path = tmp_path / "x.db"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(StoreCorrupt):
        await Database.open(path, [ONE])


async def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(StoreError):
        await Database.open(tmp_path / "none" / "x.db", [ONE])


async def test_any_other_error_is_a_store_error(database):
    with pytest.raises(StoreError, match="no such table"):
        await database.read(lambda c: c.execute("SELECT * FROM none"))


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


async def test_read_only_needs_the_file(tmp_path):
    with pytest.raises(StoreError, match="There is no"):
        await Database.open(tmp_path / "x.db", [ONE], read_only=True)
    assert contents(tmp_path) == {}


async def test_read_only_beside_a_writer_sees_what_it_committed(database, tmp_path):
    await database.write(lambda c: c.execute("INSERT INTO a VALUES (3)"))
    reading = await Database.open(tmp_path / "x.db", [ONE], read_only=True)
    assert await reading.read(rows) == [1, 2, 3]
    await database.write(lambda c: c.execute("INSERT INTO a VALUES (4)"))
    assert await reading.read(rows) == [1, 2, 3, 4]
    with pytest.raises(StoreError):
        await reading.write(lambda c: c.execute("INSERT INTO a VALUES (5)"))
    await reading.close()


@pytest.mark.parametrize("with_memory", [False, True])
async def test_read_only_of_what_a_crash_left(database, tmp_path, with_memory):
    """Files copied under a writer, with and without the shared memory."""
    await database.write(lambda c: c.execute("INSERT INTO a VALUES (3)"))
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in list(tmp_path.glob("x.db*")):
        if with_memory or not file.name.endswith("-shm"):
            shutil.copyfile(file, copy / file.name)
    before = contents(copy)
    assert "x.db-wal" in before
    reading = await Database.open(copy / "x.db", [ONE], read_only=True)
    assert await reading.read(rows) == [1, 2, 3]
    await reading.close()
    assert contents(copy) == before


async def test_read_only_while_writers_come_and_go(tmp_path):
    """A last writer that closes removes its log and its memory, between any two looks at them."""
    path, over, read = tmp_path / "x.db", asyncio.Event(), []
    await (await Database.open(path, [ONE])).close()

    async def write():
        while not over.is_set():
            writing = await Database.open(path, [ONE])
            await writing.write(lambda c: c.execute("INSERT INTO a VALUES (3)"))
            await writing.close()

    task = asyncio.create_task(write())
    for _ in range(150):
        reading = await Database.open(path, [ONE], read_only=True)
        read.append(len(await reading.read(rows)))
        await reading.close()
    over.set()
    await task
    assert read[0] >= 2
    assert read[-1] > read[0]


async def test_a_copy_of_what_a_writer_removes_is_made_anew(database, tmp_path, monkeypatch):
    await database.write(lambda c: c.execute("INSERT INTO a VALUES (3)"))
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("x.db", "x.db-wal"):
        shutil.copyfile(tmp_path / name, copy / name)
    made, copyfile = [], shutil.copyfile

    def vanishing(file, to):
        made.append(to.parent)
        if len(made) <= 2:
            raise FileNotFoundError(file)
        copyfile(file, to)

    monkeypatch.setattr(module.shutil, "copyfile", vanishing)
    reading = await Database.open(copy / "x.db", [ONE], read_only=True)
    assert await reading.read(rows) == [1, 2, 3]
    # What SQLite has open it reads on; no name is left that a killed process would leave behind.
    assert [folder.exists() for folder in made] == [False] * len(made)
    assert await reading.read(rows) == [1, 2, 3]
    await reading.close()


async def test_a_file_that_is_never_at_rest_is_busy(tmp_path, monkeypatch):
    await (await Database.open(tmp_path / "x.db", [ONE])).close()
    monkeypatch.setattr(Database, "_look", lambda _: None)
    monkeypatch.setattr(module, "_LOOK_AGAIN_S", 0)
    with pytest.raises(StoreBusy, match="opened and closed all the time"):
        await Database.open(tmp_path / "x.db", [ONE], read_only=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
async def test_read_only_in_a_folder_that_cannot_be_written(tmp_path):
    await (await Database.open(tmp_path / "x.db", [ONE])).close()
    tmp_path.chmod(0o500)
    reading = await Database.open(tmp_path / "x.db", [ONE], read_only=True)
    assert await reading.read(rows) == [1, 2]
    await reading.close()
    tmp_path.chmod(0o700)


def test_a_url_names_a_file(tmp_path):
    assert sqlite_path("sqlite:a/b.db", tmp_path) == tmp_path / "a/b.db"
    for url in ("sqlite", "sqlite:", "file:x", "sqlite:x?mode=ro"):
        with pytest.raises(SettingsError):
            sqlite_path(url, tmp_path)


def test_migrations_are_numbered_without_holes(tmp_path):
    (tmp_path / "0001_first.sql").write_text("one")
    (tmp_path / "0002_second.sql").write_text("two")
    (tmp_path / "notes.txt").write_text("")
    assert load_migrations(tmp_path) == [(1, "one"), (2, "two")]
    (tmp_path / "0004_fourth.sql").write_text("four")
    with pytest.raises(StoreError, match="numbered"):
        load_migrations(tmp_path)
    (tmp_path / "third.sql").write_text("three")
    with pytest.raises(StoreError, match="third"):
        load_migrations(tmp_path)


def test_every_kind_of_sqlite_error_has_a_word():
    error = sqlite3.OperationalError("plain")
    assert type(module._translate(error, module.Path("x.db"))) is StoreError


async def test_a_file_is_checked_without_a_change(tmp_path):
    path = tmp_path / "store.db"
    assert await levels(path) == ["warning"]
    await (await Database.open(path, [ONE])).close()
    before = path.read_bytes()
    assert await levels(path) == ["ok", "ok"]
    path.chmod(0o644)
    assert await levels(path) == ["warning", "ok"]
    assert (await levels(path, [ONE, TWO])) == ["error"]
    assert path.read_bytes() == before


async def levels(path, layout=None):
    found = await check_database("store", path, layout or [ONE])
    return [check.level for check in found]
