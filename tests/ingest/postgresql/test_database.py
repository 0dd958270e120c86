import asyncio
from pathlib import Path

import pytest

from sealtape.ingest.postgresql.access import server_of
from sealtape.ingest.postgresql.database import Database
from sealtape.schemas.errors import Fenced, StoreBusy, StoreError

BASE = Path()


@pytest.fixture
def made(schema):
    schema.server.sql(f"CREATE SCHEMA {schema.name}; CREATE TABLE {schema.name}.t (n int UNIQUE)")
    return schema


async def opened(url, **how):
    return await Database.open(server_of(url, BASE, "s"), **how)


@pytest.fixture
async def database(made):
    database = await opened(made.url())
    yield database
    await database.close()


@pytest.fixture
async def through(made, cutter):
    """A database whose connections can be cut."""
    database = await opened(cutter.url(made.url(patience="3s")))
    yield database
    await database.close()


def add(number):
    async def work(connection):
        await connection.execute("INSERT INTO t VALUES ($1)", number)
        return number

    return work


async def numbers(database):
    return [row[0] for row in await database.fetch("SELECT n FROM t ORDER BY n")]


async def test_a_transaction_is_all_or_nothing(database):
    assert await database.write(add(1)) == 1

    async def fails(connection):
        await add(2)(connection)
        raise Fenced("lost")

    with pytest.raises(Fenced):
        await database.write(fails)

    async def breaks(connection):
        await add(3)(connection)
        raise TypeError

    with pytest.raises(TypeError):
        await database.write(breaks)
    with pytest.raises(StoreError, match="23505"):
        await database.write(add(1))
    assert await numbers(database) == [1]


async def test_a_failure_leaves_no_connection_in_a_transaction(database, made):
    for _ in range(5):
        with pytest.raises(StoreError):
            await database.write(lambda c: c.execute("SELECT * FROM nowhere"))
    assert await database.once("SELECT 1")
    left = made.sql(
        f"SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sealtape {made.name}'"
        " AND state <> 'idle'"
    )
    assert left == "0"


async def test_connections_are_few_and_used_again(made):
    database = await opened(made.url(connections="2"))
    found = await asyncio.gather(*(database.fetch("SELECT pg_backend_pid()") for _ in range(20)))
    assert len({rows[0][0] for rows in found}) <= 2
    await database.close()
    await database.close()
    with pytest.raises(StoreError, match="closed"):
        await database.fetch("SELECT 1")


async def test_a_secret_that_goes_away_is_a_failure_of_the_store(postgres_stores, tmp_path):
    (tmp_path / "word").write_text(postgres_stores.password_file.read_text())
    url = postgres_stores.database().url("schema=s", password_file="word")
    database = await Database.open(server_of(url, tmp_path, "s"))
    (tmp_path / "word").unlink()
    assert await database.fetch("SELECT 1")
    postgres_stores.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'sealtape s'"
    )
    with pytest.raises(StoreError, match="cannot be read"):
        await database.fetch("SELECT 1")
    await database.close()


async def test_a_cancelled_caller_gives_its_place_back(made):
    database = await opened(made.url(connections="1"))
    sleeping = asyncio.create_task(database.fetch("SELECT pg_sleep(60)"))
    await asyncio.sleep(0.2)
    sleeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeping
    assert await numbers(database) == []
    await database.close()


async def test_reading_only_is_reading_only(made):
    database = await opened(made.url(patience="0s"), read_only=True)
    for call in (database.write(add(1)), database.change("INSERT INTO t VALUES (1)")):
        with pytest.raises(StoreError, match="reading only"):
            await call
    with pytest.raises(StoreError):
        await database.fetch("INSERT INTO t VALUES (1) RETURNING n")
    await database.close()


async def test_a_snapshot_stays_as_it_was(database, made):
    await database.write(add(1))
    snapshot = await opened(made.url(), snapshot=True)
    await database.write(add(2))
    assert await asyncio.gather(*(numbers(snapshot) for _ in range(5))) == [[1]] * 5
    with pytest.raises(StoreError):
        await snapshot.write(add(3))
    made.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE application_name = 'sealtape {made.name}'"
    )
    for _ in range(2):  # it never starts over at another moment
        with pytest.raises(StoreError):
            await numbers(snapshot)
    await snapshot.close()
    assert await numbers(database) == [1, 2]


async def test_a_statement_that_takes_too_long_is_busy(made):
    database = await opened(made.url(statement_timeout="100ms"))
    with pytest.raises(StoreBusy):
        await database.fetch("SELECT pg_sleep(5)")
    assert await numbers(database) == []
    await database.close()


async def test_a_lock_is_not_waited_for_for_ever(made, database):
    short = await opened(made.url(lock_timeout="100ms"))

    async def hold(connection):
        await connection.execute("LOCK TABLE t")
        with pytest.raises(StoreBusy):
            await short.write(add(1))

    await database.write(hold)
    await short.write(add(1))
    await short.close()


async def test_two_that_block_each_other_both_get_done(database, made):
    await database.write(add(1))
    await database.write(add(2))
    both = asyncio.Barrier(2)
    first_time = {1, 2}

    def work(mine, other):
        async def steps(connection):
            await connection.execute("UPDATE t SET n = n + 10 WHERE n % 10 = $1", mine)
            if mine in first_time:
                first_time.discard(mine)
                await both.wait()
            await connection.execute("UPDATE t SET n = n + 10 WHERE n % 10 = $1", other)

        return steps

    await asyncio.gather(database.write(work(1, 2)), database.write(work(2, 1)))
    assert await numbers(database) == [21, 22]


# -- the server goes away --------------------------------------------------------------------------


async def test_connections_that_a_restart_closed_are_not_noticed(database, made):
    await database.write(add(1))
    made.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE application_name = 'sealtape {made.name}'"
    )
    await database.write(add(2))
    assert await numbers(database) == [1, 2]


@pytest.mark.parametrize("word", ["BEGIN", "INSERT"])
@pytest.mark.parametrize("forward", [False, True])
async def test_what_was_not_committed_is_done_again(through, cutter, word, forward):
    await numbers(through)
    cutter.cut(word, forward=forward)
    assert await through.write(add(1)) == 1
    assert cutter.cuts == 1
    assert await numbers(through) == [1]


@pytest.mark.parametrize("forward", [False, True])
async def test_a_commit_without_an_answer_is_said_to_be_unknown(through, cutter, forward):
    cutter.cut("COMMIT\0", forward=forward)
    with pytest.raises(StoreError, match="unknown") as caught:
        await through.write(add(1))
    assert caught.value.context["outcome"] == "unknown"
    assert not isinstance(caught.value, StoreBusy)
    assert cutter.cuts == 1
    assert await numbers(through) == ([1] if forward else [])


@pytest.mark.parametrize("forward", [False, True])
async def test_what_may_run_twice_does(through, cutter, forward):
    cutter.cut("UPDATE", forward=forward)
    await through.change("UPDATE t SET n = 1")
    assert cutter.cuts == 1


async def test_a_server_that_stays_away_is_busy(made, cutter):
    database = await opened(cutter.url(made.url(patience="300ms")))
    await cutter.stop()
    with pytest.raises(StoreBusy) as caught:
        await database.write(add(1))
    assert caught.value.retry_after_s > 0
    await database.close()


async def test_a_check_that_waits_for_the_commit_is_settled(database, made):
    made.sql("ALTER TABLE t ADD UNIQUE (n) DEFERRABLE INITIALLY DEFERRED")
    made.sql("ALTER TABLE t DROP CONSTRAINT t_n_key")
    await database.write(add(1))
    with pytest.raises(StoreError, match="23505"):
        await database.write(add(1))
    assert await numbers(database) == [1]


# -- a network that is there and does not work


@pytest.fixture
def proxy(made, toxiproxy):
    proxy = toxiproxy.proxy(f"127.0.0.1:{made.server.port}")
    yield proxy
    proxy.close()


def by_way_of(made, proxy, **options):
    return made.url(**options).replace(f":{made.server.port}/", f":{proxy.port}/")


async def test_a_slow_server_is_waited_for(made, proxy):
    database = await opened(by_way_of(made, proxy))
    with proxy.slow(700):
        assert await database.write(add(1)) == 1
    assert await numbers(database) == [1]
    await database.close()


async def test_a_connection_that_only_seems_to_be_there_is_given_up(made, proxy):
    """Half open: nothing comes back, nobody says that it is over."""
    limits = {"statement_timeout": "200ms", "connect_timeout": "1s", "patience": "100ms"}
    database = await opened(by_way_of(made, proxy, **limits))
    with proxy.half_open(), pytest.raises(StoreBusy):
        await database.write(add(1))
    await database.write(add(2))
    assert 2 in await numbers(database)
    await database.close()


async def test_resets_in_the_middle_lose_and_double_nothing(made, proxy):
    database = await opened(by_way_of(made, proxy, patience="20s"))
    written, unknown = set(), set()

    async def write(number):
        try:
            await database.write(add(number))
        except StoreBusy:
            return
        except StoreError:
            unknown.add(number)
            return
        written.add(number)

    for round_ in range(5):
        with proxy.resetting(after_ms=30 * round_):
            tasks = [asyncio.create_task(write(10 * round_ + n)) for n in range(10)]
            await asyncio.sleep(0.3)
        await asyncio.gather(*tasks)
    assert written | unknown == set(range(50))
    found = await numbers(database)
    assert written <= set(found) <= written | unknown
    assert len(found) == len(set(found))
    await database.close()


async def test_an_answer_that_breaks_off_is_no_answer(made, proxy):
    database = await opened(by_way_of(made, proxy, patience="10s"))
    made.sql("INSERT INTO t SELECT generate_series(1, 5000)")
    with proxy.limited(2000):
        reading = asyncio.create_task(numbers(database))
        await asyncio.sleep(0.5)
    assert await reading == list(range(1, 5001))
    await database.close()
