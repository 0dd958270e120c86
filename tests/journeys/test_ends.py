"""Sessions end at their token's expiry or their longest time, in PostgreSQL's words."""

import asyncio
import time

import psycopg
import pytest

from tests.journeys.lab import Lab, target_text

TTL_S = 3.0


def work(dsn, statement="select pg_sleep(60)"):
    """Run a statement that takes longer than the session: the error, and how long it took."""
    began = time.monotonic()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("select 1 as before_it_ended")
        with pytest.raises(psycopg.Error) as told:
            connection.execute(statement)
        return told.value, time.monotonic() - began


def keep(dsn, seconds):
    """Go on using a session for so long."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            connection.execute("select 1 as kept")
            time.sleep(0.1)
        return connection.execute("select 'still there'").fetchone()[0]


async def test_expiry_and_the_longest_time(tmp_path, postgres_server):
    port = postgres_server.port
    more = target_text("lasting", port, more='on_expiry = "keep"')
    more += target_text("brief", port, more='max_session = "2s"')
    more += target_text("both", port, more='on_expiry = "keep"\nmax_session = "2s"')
    async with Lab(tmp_path, port, more=more) as lab:
        await lab.dev()
        short = lab.token(ttl_s=TTL_S)

        def dsn(target):
            return lab.dsn(target, token=short)

        threads = [
            asyncio.to_thread(work, dsn("shop")),
            asyncio.to_thread(work, lab.dsn("brief")),
            asyncio.to_thread(work, dsn("both")),
            asyncio.to_thread(keep, dsn("lasting"), TTL_S + 1.5),
        ]
        shop, brief, both, lasting = await asyncio.gather(*threads)
        for (error, took), words in (
            (shop, "its token has expired"),
            (brief, "the longest time that target `brief` allows"),
            (both, "the longest time that target `both` allows"),
        ):
            assert error.sqlstate == "57P01"
            assert words in str(error)
            assert took < 20
        assert lasting == "still there"

        async def sleeping():
            text = "select count(*) from pg_stat_activity where query like 'select pg_sleep(60)%'"
            return postgres_server.sql(text)

        await lab.until(sleeping, lambda count: count == "0", what="what they ran is cancelled")
        found = await lab.sealed(4, "select")
        reasons = {each.target: each.close_reason for each in found}
        assert reasons == {
            "shop": "expired", "brief": "max_session", "both": "max_session", "lasting": "client",
        }  # fmt: skip
        (expired,) = (each for each in found if each.target == "shop")
        assert b"its token has expired" in await lab.raw(expired.session.hex(), "server")
        with pytest.raises(psycopg.OperationalError, match="token has expired"):
            await asyncio.to_thread(keep, dsn("shop"), 0)
        assert await lab.front.stop() == 0
        report = await lab.verify()
        assert (report["verdict"], report["findings"]) == ("verified", [])
